"""Streams: real brokers, a consumer that is killed, messages nobody can use, and a service that is away."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from urllib.request import urlopen

import pytest
from tests.servers import nats_server, rabbit_server, redis_server
from tests.small_service import event, started
from tests.tiers import count

pytest.importorskip("faststream")

Put = Callable[[Sequence[bytes]], None]
Left = Callable[[], int]
PERSONS = 5


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
    with urlopen(f"{url}/v1/persons/north:{user}") as answer:
        return list(json.load(answer)["events"])


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

        def put(bodies: Sequence[bytes]) -> None:
            with client.pipeline() as pipe:
                for body in bodies:
                    pipe.xadd("events", {"data": body})
                pipe.execute()

        def left() -> int:
            (group,) = client.xinfo_groups("events")
            return int(group["pending"]) + int(group["lag"])

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

    def put(bodies: Sequence[bytes]) -> None:
        async def work(stream: object) -> None:
            for body in bodies:
                await stream.publish("events.shop", body)  # type: ignore[attr-defined]

        run(work)

    def left() -> int:
        async def work(stream: object) -> int:
            said = await stream.consumer_info("events", "isthmus")  # type: ignore[attr-defined]
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

    def put(bodies: Sequence[bytes]) -> None:
        async def work(channel: object) -> None:
            for number, body in enumerate(bodies):
                kept = pika.Message(body, delivery_mode=2, message_id=f"m{hash(body)}-{number}")
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

    def put(bodies: Sequence[bytes]) -> None:
        nonlocal sent
        for body in bodies:
            producer.produce("events", body)
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
        with consuming(stream, service, letters) as process:
            until(lambda: process.poll() is not None or (left() == 0 and kept(service, kind) >= total), 120)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
        assert left() == 0
    found = chain.from_iterable(told(service, f"{kind}{number}") for number in range(PERSONS))
    assert sorted(deed["value"] for deed in found) == [float(n) for n in range(total)]  # type: ignore[type-var]
    dead = [json.loads(line) for line in letters.read_text().splitlines()]
    assert len({letter["id"] for letter in dead}) == len(dead) == 3
    assert {letter["tries"] for letter in dead} == {5}
    assert sorted(letter["error"] for letter in dead)[-1] == "user: Field required"
    assert f"{kind}1" not in err
