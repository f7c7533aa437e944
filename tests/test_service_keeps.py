"""What the doctor says of streams: what brokers keep of what they accept, and what it cannot know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from tests.servers import free_port, nats_server, rabbit_server
from tests.test_cli import isthmus

from isthmus.service.streams.keeps import _settings, look_at_stream

pytest.importorskip("faststream")


def levels(url: str) -> dict[str, str]:
    return {one.name: one.level for one in look_at_stream(url)}


def test_nats_in_memory_and_with_limits_is_weak_and_files_are_kept() -> None:
    nats = pytest.importorskip("nats")

    async def make(url: str) -> None:
        connection = await nats.connect(url)
        stream = connection.jetstream()
        await stream.add_stream(name="kept", subjects=["a"], storage="file")
        await stream.add_stream(name="memory", subjects=["b"], storage="memory")
        await stream.add_stream(name="bound", subjects=["c"], storage="file", max_msgs=5)
        await stream.add_stream(name="full", subjects=["d"], storage="file", max_msgs=5, discard="new")
        await stream.add_stream(name="interest", subjects=["e"], storage="file", retention="interest")
        await connection.close()

    with nats_server() as url:
        asyncio.run(make(url))
        kept = {"storage": "ok", "replicas": "note", "sync_interval": "note"}
        assert levels(f"{url}?stream=kept") == kept, "what cannot be asked is said"
        assert levels(f"{url}?stream=full") == kept, "refusing is no loss"
        assert levels(f"{url}?stream=memory") == {**kept, "storage": "weak"}
        assert levels(f"{url}?stream=bound") == {**kept, "limits": "weak"}
        assert levels(f"{url}?stream=interest") == {**kept, "retention": "weak"}
        assert [one.said for one in look_at_stream(f"{url}?stream=none")] == ["there is no such stream"]
        assert isthmus("doctor", f"{url}?stream=memory").code == 0
        assert isthmus("doctor", f"{url}?stream=memory", "--strict").code == 1
        good = isthmus("doctor", f"{url}?stream=kept", "--strict", "--json")
        assert good.code == 0
        assert json.loads(good.out)["ok"] is True


def test_rabbit_tells_what_a_queue_is_and_none_is_made_by_asking() -> None:
    pika = pytest.importorskip("aio_pika")

    async def with_channel(url: str, work: Callable[[object], Awaitable[object]]) -> object:
        async with await pika.connect(url) as connection:
            return await work(await connection.channel())

    async def make(channel: object) -> None:
        declare = channel.declare_queue  # type: ignore[attr-defined]
        await declare("classic", durable=True)
        await declare("quorum", durable=True, arguments={"x-queue-type": "quorum"})
        await declare("short", durable=True, arguments={"x-max-length": 5})
        await declare("last", durable=True, auto_delete=True)
        await declare("transient", durable=False)
        sent = pika.Message(b"{}", delivery_mode=2)
        await channel.default_exchange.publish(sent, "classic")  # type: ignore[attr-defined]

    async def there(channel: object) -> int:
        found = await channel.declare_queue("classic", passive=True)  # type: ignore[attr-defined]
        with pytest.raises(pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue("none", passive=True)  # type: ignore[attr-defined]
        return int(found.declaration_result.message_count)

    with rabbit_server() as url:
        asyncio.run(with_channel(url, make))
        for name, level, word in (
            ("classic", "note", "classic"),
            ("quorum", "ok", "quorum"),
            ("short", "weak", "x-max-length"),
            ("last", "weak", "auto_delete"),
            ("transient", "weak", "not durable"),
        ):
            queue, publishers = look_at_stream(f"{url}?queue={name}")
            assert (queue.level, word in queue.said) == (level, True), queue
            assert "delivery_mode 2" in publishers.said
        assert look_at_stream(f"{url}?queue=none")[0].said == "there is no such queue"
        assert asyncio.run(with_channel(url, there)) == 1, "no queue was made, no message taken"
        wrong = isthmus("doctor", url.replace("guest:guest", "guest:s3cret") + "?queue=classic", "--json")
        assert wrong.code == 1
        assert "s3cret" not in wrong.out


def test_kafka_says_what_it_can_be_asked() -> None:
    kafka = pytest.importorskip("confluent_kafka")
    producer = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
    hosts = ",".join(f"{one.host}:{one.port}" for one in producer.list_topics(timeout=10).brokers.values())
    producer.produce("events", b"{}")
    assert producer.flush(20) == 0
    found = {one.name: one for one in look_at_stream(f"kafka://{hosts}?topic=events")}
    assert found["replicas"].level == "weak", "one broker"
    assert "does not tell" in found["acks"].said
    assert "does not tell" in found["settings"].said, "the mock cluster cannot be asked for settings"
    safe = {"min.insync.replicas": "2", "retention.ms": "-1", "cleanup.policy": "delete"}
    assert {one.level for one in _settings(safe, 3)} == {"ok"}
    risky = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true", "cleanup.policy": "compact"}
    assert [one.level for one in _settings(risky, 3)] == ["weak"] * 3
    assert [one.level for one in _settings({**safe, "retention.ms": "604800000"}, 3)] == ["ok", "note"]


@pytest.mark.parametrize("form", ["nats://x:s3cret@{}?stream=a", "amqp://x:s3cret@{}/?queue=a", "kafka://{}?topic=a"])
def test_a_broker_that_is_not_there_is_a_failure(form: str) -> None:
    done = isthmus("doctor", form.format(f"127.0.0.1:{free_port()}"), "--json")
    assert done.code == 1
    assert "s3cret" not in done.out + done.err
    assert json.loads(done.out)["checks"][0]["level"] == "fail"
    assert isthmus("doctor", form.format("127.0.0.1:9").partition("?")[0]).code == 2, "no name of a stream"
