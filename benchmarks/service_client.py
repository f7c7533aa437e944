"""A service in a process of its own, and a generator of requests that keeps connections open."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import psutil

K = 20
CONNECTIONS = 16
#: Makes the bytes of the next request.
Make = Callable[[], bytes]


@dataclass(frozen=True)
class Server:
    """A process that listens."""

    process: subprocess.Popen[str]
    port: int

    @property
    def seen(self) -> psutil.Process:
        """The process as the system sees it."""
        return psutil.Process(self.process.pid)

    @property
    def cpu(self) -> float:
        """Seconds of processor time used so far."""
        times = self.seen.cpu_times()
        return float(times.user + times.system)

    @property
    def memory(self) -> int:
        """Bytes of memory it holds."""
        return int(self.seen.memory_info().rss)


@contextmanager
def started(command: Sequence[object]) -> Iterator[Server]:
    """Start a process, yield it when it listens, and end it."""
    words = [str(word) for word in command]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline().rpartition(":")[2]))
    finally:
        process.terminate()
        process.wait(30)


def serve(model: Path, data: Path, *words: object) -> list[object]:
    """Return the command that serves ``model``."""
    isthmus = Path(sys.executable).parent / "isthmus"
    return [isthmus, "serve", model, "--port", 0, "--data", data, *words]


def request(method: str, path: str, body: object) -> bytes:
    """Return the bytes of a request."""
    said = orjson.dumps(body)
    kind = "content-type: application/json"
    head = f"{method} {path} HTTP/1.1", "host: localhost", kind, f"content-length: {len(said)}"
    return "\r\n".join((*head, "", "")).encode() + said


def account(user: int) -> dict[str, object]:
    """Return who a person is."""
    return {"platform": "shop", "user": f"u{user:07d}"}


def ask(user: int) -> bytes:
    """Return a request for a person's list."""
    return request("POST", "/v1/recommend", {"persons": [account(user)], "k": K})


def tell(events: Sequence[dict[str, object]]) -> bytes:
    """Return a request that brings events."""
    return request("POST", "/v1/events", {"events": events})


def event(user: int, item: int, **more: object) -> dict[str, object]:
    """Return a click of a person on an item."""
    return {**account(user), "item": f"i{item:07d}", **more}


class Answer(NamedTuple):
    """What came back."""

    status: int
    head: bytes
    body: bytes

    @property
    def good(self) -> bool:
        """Whether all that was asked for is there: events on disk, lists of the model."""
        return self.status == 202 or (self.status == 200 and b'"degraded":true' not in self.body)


class Line:
    """One connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Line:
        """Return a connection."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def call(self, request: bytes) -> Answer:
        """Return one answer."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return Answer(int(head[9:12]), head, await self.reader.readexactly(length))


@dataclass
class Heard:
    """What a load came to: of each request when it was due, seconds until its answer, and what became of it."""

    seconds: float = 0.0
    due: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    told_when: list[bool] = field(default_factory=list)

    def note(self, due: float, took: float, answer: Answer) -> None:
        """Count an answer."""
        self.due.append(due)
        self.took.append(took)
        self.good.append(answer.good)
        self.status.append(answer.status)
        self.told_when.append(b"\r\nretry-after: " in answer.head)

    def ms(self, share: float, good: bool | None = None) -> float:
        """Return a quantile of milliseconds, of all answers, or of the good or the other ones; 0 without any."""
        took = [one for one, was in zip(self.took, self.good, strict=True) if good in (None, was)]
        return 1000 * float(np.quantile(took, share)) if took else 0.0

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return sum(self.good) / self.seconds

    @property
    def failed(self) -> int:
        """Answers that are neither lists nor receipts."""
        return sum(status not in (200, 202) for status in self.status)


@dataclass(frozen=True)
class Load:
    """How requests come: as fast as the connections allow, or ``rate`` a second whatever the answers."""

    seconds: float = 3.0
    rate: float | None = None
    connections: int = CONNECTIONS


@contextmanager
def steady() -> Iterator[None]:
    """Keep the garbage collector of the generator away: its rounds take up to 100 ms, which are none of the service."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def load(port: int, make: Make, how: Load) -> Heard:
    """Return what became of the requests ``make`` makes; waiting for a free connection is waiting for an answer."""
    with steady():
        return await _load(port, make, how)


async def _load(port: int, make: Make, how: Load) -> Heard:
    lines = [await Line.open(port) for _ in range(how.connections)]
    heard, planned = Heard(), iter(range(10**9))
    began = time.perf_counter()

    async def work(line: Line) -> None:
        while True:
            due = began + next(planned) / how.rate if how.rate else time.perf_counter()
            if due > began + how.seconds or time.perf_counter() > began + 2 * how.seconds:
                return
            if due > time.perf_counter():
                await asyncio.sleep(due - time.perf_counter())
            answer = await line.call(make())
            heard.note(due - began, time.perf_counter() - due, answer)

    await asyncio.gather(*map(work, lines))
    heard.seconds = time.perf_counter() - began
    for line in lines:
        line.writer.close()
    return heard


def measure(server: Server, make: Make, how: Load) -> dict[str, float]:
    """Return the figures of a load."""
    before = server.cpu
    heard = asyncio.run(load(server.port, make, how))
    return {
        "requests_per_second": len(heard.took) / heard.seconds,
        "server_cpu_us": 1e6 * (server.cpu - before) / max(len(heard.took), 1),
        "p50_ms": heard.ms(0.5),
        "p99_ms": heard.ms(0.99),
        "failed": heard.failed,
    }


async def call_each(port: int, requests: Sequence[bytes]) -> Answer:
    """Send requests one after the other; return the last answer."""
    line, answer = await Line.open(port), Answer(0, b"", b"")
    for one in requests:
        answer = await line.call(one)
    line.writer.close()
    return answer
