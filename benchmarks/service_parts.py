"""Parts of the benchmark of the service: its pace, a large catalogue, events in batches."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson

from service_client import (
    Line,
    Load,
    Server,
    ask,
    call_each,
    event,
    load,
    measure,
    request,
    serve,
    started,
    tell,
)
from service_world import World, world

EMPTY = """
import sys
from pathlib import Path
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response
app, said = FastAPI(), Path(sys.argv[1]).read_bytes()

@app.post("/v1/recommend")
async def empty():
    return Response(said, media_type="application/json")

config = uvicorn.Config(app, port=0, access_log=False, log_level="error")
listener = config.bind_socket()
listener.listen(2048)
print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
uvicorn.Server(config).run(sockets=[listener])
"""


@dataclass(frozen=True)
class Size:
    """How much is done."""

    folder: Path
    items: int = 20_000
    persons: int = 100_000
    ready: int = 1000
    rounds: int = 3
    seconds: float = 3.0
    reloads: int = 100


Part = dict[str, object]


class People:
    """Persons to ask for: a few again and again, the others once each."""

    def __init__(self, size: World, ready: int) -> None:
        self.rng = np.random.default_rng(1)
        drawn = self.rng.permutation(size.persons)
        self.some = drawn[:ready].tolist()
        self.others = drawn[ready : 2 * ready].tolist()
        self._strangers = iter(drawn[2 * ready :].tolist())
        self._items, self._told = size.items, 0

    def ready(self) -> bytes:
        """Return a request for the list of one of the few."""
        return ask(self.some[int(self.rng.integers(len(self.some)))])

    def stranger(self) -> bytes:
        """Return a request for the list of somebody never asked for before."""
        return ask(next(self._strangers))

    def click(self) -> bytes:
        """Return a request that brings an event of one of another few."""
        return tell([event(self._other(), self._item())])

    def mixed(self) -> bytes:
        """Return one event in ten requests, of and for the same persons."""
        return self.click() if self.rng.random() < 0.1 else ask(self._other())

    def clicks(self, n: int = 100) -> bytes:
        """Return a request that brings ``n`` events, each with an id and a time."""
        self._told += 1
        items, users = self.rng.integers(0, self._items, n).tolist(), self.rng.choice(self.others, n).tolist()
        named = {"event": "click", "ts": "2026-11-22T10:00:00Z"}
        return tell(
            [
                event(user, item, id=f"b{self._told}-{at}", **named)
                for at, (user, item) in enumerate(zip(users, items, strict=True))
            ]
        )

    def _other(self) -> int:
        return self.others[int(self.rng.integers(len(self.others)))]

    def _item(self) -> int:
        return int(self.rng.integers(self._items))


@contextmanager
def served(made: World, *words: object) -> Iterator[Server]:
    """Serve a world with a fresh log; lists are made when they are asked for."""
    with TemporaryDirectory() as data, started(serve(made.model, Path(data) / "data", "--no-warm", *words)) as server:
        yield server


def pace(size: Size) -> Part:
    """Measure requests a second of each kind beside an empty route that returns the same bytes (L1, L3, L4)."""
    made = world(size.folder, size.items, size.persons)
    people = People(made, size.ready)
    with served(made, "--deadline", 5) as server:
        body = asyncio.run(call_each(server.port, [ask(people.some[0])])).body
        same = size.folder / "same.json"
        same.write_bytes(body)
        with started([sys.executable, "-c", EMPTY, same]) as empty:
            found = _rounds(size, people, server, empty)
        fresh = asyncio.run(_freshness(server.port, people))
        new = asyncio.run(_launched(server.port, 10))
        memory = server.memory
    return {
        "figures": medians(found),
        "rounds": found,
        "fresh_ms": {"p50": float(np.median(fresh)), "p99": float(np.quantile(fresh, 0.99)), "n": len(fresh)},
        "new_item_ms": {"p50": float(np.median(new)), "max": max(new), "n": len(new)},
        "bytes": len(body),
        "rss_mb": memory / 1e6,
    }


def medians(found: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the median of each figure over the rounds."""
    return {
        name: {key: float(np.median([one[key] for one in rounds])) for key in rounds[0]}
        for name, rounds in found.items()
    }


def _rounds(size: Size, people: People, server: Server, empty: Server) -> dict[str, list[dict[str, float]]]:
    how = Load(size.seconds)
    asyncio.run(load(empty.port, people.ready, Load(0.5)))
    asyncio.run(call_each(server.port, [ask(user) for user in [*people.some, *people.others]]))
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(size.rounds):
        for name, where, make in (
            ("empty route", empty, people.ready),
            ("list ready", server, people.ready),
            ("1 event in 10 requests", server, people.mixed),
            ("list to be scored", server, people.stranger),
            ("one event", server, people.click),
        ):
            found.setdefault(name, []).append(measure(where, make, how))
    half = float(np.median([one["requests_per_second"] for one in found["list ready"]])) / 2
    found["list ready, half load"] = [measure(server, people.ready, Load(size.seconds, half))]
    return found


async def _freshness(port: int, people: People) -> list[float]:
    """Return milliseconds from the answer to an event until the answer with the list that counts it."""
    line, took = await Line.open(port), []
    for place in range(100):
        said = people.stranger()
        before = await line.call(said)
        best = orjson.loads(before.body)["lists"][0]["items"][0]["item"]
        who = orjson.loads(said.partition(b"\r\n\r\n")[2])["persons"][0]
        await line.call(tell([{**who, "item": best, "event": "purchase", "id": f"fresh-{place}"}]))
        start_at = time.perf_counter()
        after = await line.call(said)
        took.append(1000 * (time.perf_counter() - start_at))
        assert best not in [item["item"] for item in orjson.loads(after.body)["lists"][0]["items"]]
    line.writer.close()
    return took


async def _launched(port: int, count: int) -> list[float]:
    """Return milliseconds until the answer to a new item's text, after which it can be listed; each is asked about."""
    line, took = await Line.open(port), []
    for place in range(count):
        name = {"platform": "shop", "item": f"launched-{place}"}
        start_at = time.perf_counter()
        said = {"items": [{**name, "domain": "books", "title": f"w{place * 50} w{place * 50 + 1}"}]}
        put = await line.call(request("PUT", "/v1/items", said))
        took.append(1000 * (time.perf_counter() - start_at))
        found = await line.call(request("POST", "/v1/similar", {**name, "k": 5}))
        assert (put.status, found.status) == (200, 200), found.body
    line.writer.close()
    return took


def many_items(size: Size) -> Part:
    """L2: lists to be scored of 100,000 items, every item scored, and as the service does it by itself."""
    made = world(size.folder, 100_000, size.persons)
    people = People(made, size.ready)
    found: Part = {}
    for name, words in (("every item scored", ("--approximate-from", 0)), ("by itself", ())):
        with served(made, "--deadline", 5, *words) as server:
            asyncio.run(load(server.port, people.stranger, Load(1.0)))
            found[name] = measure(server, people.stranger, Load(2 * size.seconds))
            found[f"{name}, 100 requests/s"] = measure(server, people.stranger, Load(2 * size.seconds, 100.0))
    return found


def many_events(size: Size) -> Part:
    """L3: events in batches of 100, each answered when it is on disk."""
    made = world(size.folder, size.items, size.persons)
    people = People(made, size.ready)
    with served(made) as server:
        asyncio.run(load(server.port, people.clicks, Load(0.5, connections=8)))
        found = [measure(server, people.clicks, Load(size.seconds, connections=8)) for _ in range(size.rounds)]
    middle = {key: float(np.median([one[key] for one in found])) for key in found[0]}
    return {"batches of 100 events": middle, "events_per_second": 100 * middle["requests_per_second"]}
