"""Streams: real brokers, a consumer that is killed, messages nobody can use, and a service that is away."""

from __future__ import annotations

import asyncio
import json
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tests.pages import blocks_of, text_of
from tests.servers import free_port, nats_server, proxied, rabbit_server, redis_server
from tests.small_service import event, started
from tests.test_cli import isthmus
from tests.tiers import count

pytest.importorskip("faststream")

Put = Callable[..., None]
Left = Callable[[], int]
PERSONS = 5
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def consuming(stream: str, url: str, letters: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Start ``isthmus consume``; kill it if it still runs."""
    command = [Path(sys.executable).parent / "isthmus", "consume", stream, "--to", url, "--letters", letters, *words]
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def deeds(kind: str, first: int, last: int) -> list[bytes]:
    """Return messages with an event each, numbered by its value; every third event has no id of its own."""
    made = []
    for number in range(first, last):
        said = event(number % 20, {"platform": "north", "user": f"{kind}{number % PERSONS}"}, value=float(number))
        made.append(json.dumps(said if number % 3 == 0 else {**said, "id": f"{kind}-{number}"}).encode())
    return made


def kept(url: str, kind: str) -> int:
    """Return how many events of a kind lie in the service's log."""
    return sum(len(told(url, f"{kind}{number}")) for number in range(PERSONS))


def told(url: str, user: str) -> list[dict[str, object]]:
    """Return what the service has of a person."""
    try:
        with urlopen(f"{url}/v1/persons/north:{user}") as answer:
            return list(json.load(answer)["events"])
    except HTTPError as error:
        if error.code != 404:
            raise
        return []


def stored(url: str) -> int:
    """Return how many events lie in the service's log."""
    with urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("isthmus_log_sequence")]
    return int(float(line.split()[-1]))


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.1)


@contextmanager
def redis_stream() -> Iterator[tuple[str, Put, Left]]:
    redis = pytest.importorskip("redis")
    with redis_server() as url, redis.Redis.from_url(url) as client:

        def put(bodies: Sequence[bytes], **headers: str) -> None:
            with client.pipeline() as pipe:
                for body in bodies:
                    pipe.xadd("events", {"data": body, **headers})
                pipe.execute()

        def left() -> int:
            groups = client.xinfo_groups("events")
            return sum(group["pending"] + group["lag"] for group in groups) if groups else client.xlen("events")

        yield f"{url}?stream=events&claim=1", put, left


@contextmanager
def nats_stream() -> Iterator[tuple[str, Put, Left]]:
    nats = pytest.importorskip("nats")

    def run(work: Callable[[object], object]) -> object:
        async def inside() -> object:
            connection = await nats.connect(url)
            try:
                return await work(connection.jetstream())  # type: ignore[misc]
            finally:
                await connection.close()

        return asyncio.run(inside())

    async def make(stream: object) -> None:
        await stream.add_stream(name="events", subjects=["events.>"])  # type: ignore[attr-defined]

    def put(bodies: Sequence[bytes], **headers: str) -> None:
        async def work(stream: object) -> None:
            for body in bodies:
                await stream.publish("events.shop", body, headers=headers or None)  # type: ignore[attr-defined]

        run(work)

    def left() -> int:
        from nats.js.errors import NotFoundError

        async def work(stream: object) -> int:
            try:
                said = await stream.consumer_info("events", "isthmus")  # type: ignore[attr-defined]
            except NotFoundError:  # nobody consumes yet
                return 1
            return int(said.num_pending + said.num_ack_pending)

        return int(run(work))  # type: ignore[call-overload]

    with nats_server() as url:
        run(make)
        yield f"{url}?stream=events&claim=1", put, left


@contextmanager
def rabbit_queue() -> Iterator[tuple[str, Put, Left]]:
    pika = pytest.importorskip("aio_pika")

    def run(work: Callable[[object], object]) -> object:
        async def inside() -> object:
            async with await pika.connect(url) as connection:
                return await work(await connection.channel())  # type: ignore[misc]

        return asyncio.run(inside())

    def put(bodies: Sequence[bytes], **headers: str) -> None:
        async def work(channel: object) -> None:
            for number, body in enumerate(bodies):
                kept = pika.Message(body, delivery_mode=2, message_id=f"m{hash(body)}-{number}", headers=headers)
                await channel.default_exchange.publish(kept, "events")  # type: ignore[attr-defined]

        run(work)

    async def make(channel: object) -> int:
        made = await channel.declare_queue("events", durable=True)  # type: ignore[attr-defined]
        return int(made.declaration_result.message_count)

    with rabbit_server() as url:
        run(make)
        yield f"{url}?queue=events", put, lambda: int(run(make))  # type: ignore[call-overload]


@contextmanager
def kafka_topic() -> Iterator[tuple[str, Put, Left]]:
    """A topic of librdkafka's mock cluster: the real protocol on a real port, no broker."""
    kafka = pytest.importorskip("confluent_kafka")
    producer = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
    brokers = producer.list_topics(timeout=10).brokers.values()
    hosts = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    sent = 0

    def put(bodies: Sequence[bytes], **headers: str) -> None:
        nonlocal sent
        for body in bodies:
            producer.produce("events", body, headers=headers)
            sent += 1
            producer.poll(0)
        assert producer.flush(20) == 0

    def left() -> int:
        group = kafka.Consumer({"bootstrap.servers": hosts, "group.id": "isthmus"})
        try:
            parts = [
                kafka.TopicPartition("events", part)
                for part in producer.list_topics("events").topics["events"].partitions
            ]
            return sent - sum(max(part.offset, 0) for part in group.committed(parts, timeout=10))
        finally:
            group.close()

    yield f"kafka://{hosts}?topic=events", put, left


STREAMS = {"redis": redis_stream, "nats": nats_stream, "rabbit": rabbit_queue, "kafka": kafka_topic}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a service."""
    with started(tmp_path_factory.mktemp("data"), "--no-warm") as (_, url):
        yield url


@pytest.mark.timeout(count(300, 1800))
@pytest.mark.parametrize("kind", STREAMS)
def test_a_killed_consumer_loses_no_event_and_doubles_none(kind: str, service: str, tmp_path: Path) -> None:
    kills = count(5 if kind == "redis" else 1, 20)
    total = count(2000 if kind == "redis" else 300, 10_000)
    letters = tmp_path / "dead.jsonl"
    rng = random.Random(7)
    with STREAMS[kind]() as (stream, put, left):
        for kill in range(kills):
            bodies = deeds(kind, kill * total // kills, (kill + 1) * total // kills)
            put([*bodies[:100], b"{broken", *bodies[100:]] if kill == 0 else bodies)
            before = stored(service)
            with consuming(stream, service, letters) as process:
                until(lambda before=before, process=process: stored(service) > before or process.poll() is not None)
                time.sleep(rng.uniform(0.0, 0.02))
        put([b"\xff\xfe\x00", json.dumps({"platform": "north"}).encode()])
        began = time.monotonic()
        put(deeds(kind, total, total + 1), traceparent=f"00-{TRACE}-{SPAN}-01")
        with consuming(stream, service, letters, "--traces", "console", "--trace-share", 0) as process:
            until(lambda: process.poll() is not None or (left() == 0 and kept(service, kind) > total), count(120, 600))
            print(f"{kind}: {kills} kills, {total} events, done {time.monotonic() - began:.1f} s after the last kill")
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
        assert left() == 0
    found = chain.from_iterable(told(service, f"{kind}{number}") for number in range(PERSONS))
    assert sorted(deed["value"] for deed in found) == [float(n) for n in range(total + 1)]  # type: ignore[type-var]
    dead = [json.loads(line) for line in letters.read_text().splitlines()]
    assert len({letter["id"] for letter in dead}) == len(dead) == 3
    assert {letter["tries"] for letter in dead} == {5}
    assert sorted(letter["error"] for letter in dead)[-1] == "user: Field required"
    assert f"{kind}1" not in err
    (span,) = [line for line in map(json.loads, err.splitlines()) if "context" in line]
    assert (span["context"]["trace_id"], span["parent_id"]) == (f"0x{TRACE}", f"0x{SPAN}")
    assert span["kind"] == "SpanKind.CONSUMER"


def test_the_position_of_a_group_is_written_again_where_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = pytest.importorskip("confluent_kafka")
    from isthmus.service.streams import brokers

    monkeypatch.setattr(brokers, "POSITIONS", (4, 0.001))

    class Consumer:
        def __init__(self, *codes: int) -> None:
            self.codes, self.waited_for, self.written = [*codes], 0, 0

        async def commit(self, asynchronous: bool = True) -> None:
            self.waited_for += not asynchronous
            if self.codes:
                raise kafka.KafkaException(kafka.KafkaError(self.codes.pop(0)))
            self.written += 1

        async def seek(self, topic: str, partition: int, offset: int) -> None:
            raise NotImplementedError

    away, moved, nothing = (
        kafka.KafkaError.COORDINATOR_NOT_AVAILABLE,
        kafka.KafkaError.REBALANCE_IN_PROGRESS,
        kafka.KafkaError._NO_OFFSET,
    )
    outcomes = []
    for codes in ((), (away, moved), (away, nothing), (away,) * 9):
        consumer = Consumer(*codes)
        asyncio.run(brokers.Position(consumer, "events").commit())
        outcomes.append((consumer.waited_for, consumer.written))
    assert outcomes == [(1, 1), (3, 1), (2, 0), (4, 0)]


def test_nothing_is_lost_while_the_broker_or_the_service_is_away(tmp_path: Path) -> None:
    batch = count(100, 1000)
    with ExitStack() as stack:
        stream, put, left = stack.enter_context(redis_stream())
        with started(tmp_path / "data", "--no-warm") as (_, url):
            near, broker = stack.enter_context(proxied(stream))
            to, service = stack.enter_context(proxied(url))
            process = stack.enter_context(consuming(near, to, tmp_path / "dead.jsonl"))
            put(deeds("w", 0, batch))
            until(lambda: kept(url, "w") == batch)
            troubles, took = ("dark", "slow", "gone")[: count(1, 3)], []
            for number, trouble in enumerate(troubles, 1):
                broker.dark, broker.gone, broker.delay = trouble == "dark", trouble == "gone", 2.0 * (trouble == "slow")
                if trouble == "gone":
                    broker.cut()
                put(deeds("w", number * batch, (number + 1) * batch))
                time.sleep(1.5)
                broker.dark, broker.gone, broker.delay = False, False, 0.0
                began = time.monotonic()
                until(lambda number=number: kept(url, "w") == (number + 1) * batch)
                took.append(time.monotonic() - began)
        print(f"read again {', '.join(f'{one:.1f}' for one in took)} s after: {', '.join(troubles)}")
        assert max(took) < 5
        sent = (len(troubles) + 1) * batch
        put(deeds("w", sent, sent + batch))
        until(lambda: service.refused > 0)
        assert process.poll() is None
        assert left() == batch
        with started(tmp_path / "data", "--no-warm") as (_, url):
            service.target = int(url.rpartition(":")[2])
            until(lambda: kept(url, "w") == sent + batch and left() == 0)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
    assert "0 messages dead" in out
    assert "the service takes no events" in err


def test_it_ends_at_once_when_told_while_the_service_is_away(tmp_path: Path) -> None:
    redis = pytest.importorskip("redis")
    with redis_stream() as (stream, put, left), redis.Redis.from_url(stream.partition("?")[0]) as client:
        put(deeds("x", 0, 10))
        with consuming(stream, f"http://127.0.0.1:{free_port()}", tmp_path / "dead.jsonl") as process:
            until(lambda: any(group["pending"] == 10 for group in client.xinfo_groups("events")))
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=15)
            assert process.returncode == 0, err
        assert left() == 10


def test_the_page_is_true(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis = pytest.importorskip("redis")
    page = text_of("streams.md")
    lines = [line for body in blocks_of(page, "bash") for line in body.splitlines()]
    words = [shlex.split(line) for line in lines]
    assert [line[:2] for line in words] == [
        ["isthmus", "consume"],
        ["redis-cli", "XADD"],
        ["redis-cli", "XADD"],
        ["isthmus", "letters"],
        ["isthmus", "letters"],
    ]
    monkeypatch.chdir(tmp_path)
    with redis_server() as url, redis.Redis.from_url(url) as client:
        here = [[word.replace("redis://127.0.0.1:6379/0", url) for word in line] for line in words]
        here = [[service if word == "http://127.0.0.1:8080" else word for word in line] for line in here]
        for _, command, *rest in here[1:3]:
            client.execute_command(command, *rest)
        command = [Path(sys.executable).parent / "isthmus", *here[0][1:], "--idle", "1", "--json"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["stored"], said["dead"], said["messages"]) == (2, 0, 2), said
        client.xadd("events", {"data": "{"})
        client.xadd("events", {"data": json.dumps({"events": [event(1)]})})
        subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)
    listed, replayed = (isthmus(*line[1:]) for line in here[3:])
    assert listed.code == replayed.code == 0, (listed.err, replayed.err)
    assert "the message is no JSON" in listed.out
    assert "0 sent, 1 left" in replayed.out
    (line,) = Path("dead-letters.jsonl").read_text().splitlines()
    Path("dead-letters.jsonl").write_text(json.dumps({**json.loads(line), "body": json.dumps(event(2))}) + "\n")
    assert "1 sent, 0 left" in isthmus(*here[4][1:]).out
    assert not Path("dead-letters.jsonl").read_text()


def test_what_cannot_be_consumed_is_said_in_one_line(service: str, tmp_path: Path) -> None:
    for stream, to, said in (
        ("mqtt://h/x", service, "names no stream"),
        ("redis://h/0", service, "lacks stream=NAME"),
        ("redis://h/0?stream=s&claim=soon", service, "no number of seconds"),
        ("redis://h/0?stream=s", "localhost:8080", "no address of a service"),
    ):
        done = isthmus("consume", stream, "--to", to, "--letters", tmp_path / "d")
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert said in done.err
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    done = isthmus("letters", "list", tmp_path / "other.csv")
    assert done.code == 2
    assert "no dead letters" in done.err
    with nats_server() as url, consuming(f"{url}?stream=nowhere", service, tmp_path / "d") as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "there is no such stream" in err
