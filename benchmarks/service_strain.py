"""Parts of the benchmark of the service: more than there is room for, models that come and go, a shadow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import orjson

from service_client import Heard, Line, Load, Make, Server, ask, call_each, load, request, steady
from service_parts import Part, People, Size, served
from service_world import world

#: Times of the capacity that come in an overload.
TIMES = 5


def overload(size: Size) -> Part:
    """L5: five times what can be done, whatever the answers; lists to be scored, then batches of events."""
    made = world(size.folder, size.items, size.persons)
    people = People(made, size.ready)
    found: Part = {}
    for name, make in (("lists to be scored", people.stranger), ("batches of 100 events", people.clicks)):
        with served(made) as server:
            asyncio.run(load(server.port, make, Load(1.0)))
            found[name] = _flooded(server, make, size.seconds)
    return found


def _flooded(server: Server, make: Make, seconds: float) -> dict[str, float]:
    peak = asyncio.run(load(server.port, make, Load(seconds)))
    calm = asyncio.run(load(server.port, make, Load(seconds, peak.per_second / 2)))
    before, most = server.memory, [0]
    with _watched(lambda: most.append(server.memory)):
        cpu, own = server.cpu, time.process_time()
        flood = asyncio.run(load(server.port, make, Load(2 * seconds, TIMES * peak.per_second, 600)))
        cpu, own = server.cpu - cpu, time.process_time() - own
        after = asyncio.run(load(server.port, make, Load(6.0, peak.per_second / 2)))
    refused = [status in (429, 503) for status in flood.status]
    return {
        "peak_per_second": peak.per_second,
        "offered_per_second": len(flood.took) / flood.seconds,
        "good_per_second": flood.per_second,
        "cheaper_per_second": sum(not good and not no for good, no in zip(flood.good, refused, strict=True))
        / flood.seconds,
        "refused_per_second": sum(refused) / flood.seconds,
        "refused_and_told_when": sum(a and b for a, b in zip(refused, flood.told_when, strict=True))
        / max(sum(refused), 1),
        "other_statuses": sum(status not in (200, 202, 429, 503) for status in flood.status),
        "good_p99_ms": flood.ms(0.99, good=True),
        "rest_p50_ms": flood.ms(0.5, good=False),
        "rest_p99_ms": flood.ms(0.99, good=False),
        "calm_p99_ms": calm.ms(0.99),
        "recovered_s": _recovered(after, 2 * calm.ms(0.99) / 1000),
        "server_cores": cpu / flood.seconds,
        "generator_cores": own / flood.seconds,
        "memory_before_mb": before / 1e6,
        "memory_most_mb": max(most) / 1e6,
    }


def _recovered(after: Heard, slow: float) -> float:
    """Return seconds after the flood until lists are good and quick again: one slow in a hundred is as before."""
    bad = sorted(
        due for due, took, good in zip(after.due, after.took, after.good, strict=True) if not good or took > slow
    )
    usual = len(after.took) // 100
    return bad[-1 - usual] if len(bad) > usual else 0.0


@contextmanager
def _watched(look: Callable[[], object]) -> Iterator[None]:
    """Call ``look`` five times a second."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def reloads(size: Size) -> Part:
    """M1: models reloaded one after the other under 16 connections, each asking for its person 25 times a second."""
    made = world(size.folder, size.items, size.persons, ("first", "second"))
    people = People(made, 16)
    with served(made, "--deadline", 5) as server:
        asyncio.run(load(server.port, people.ready, Load(1.0, 400.0)))
        idle = asyncio.run(load(server.port, people.ready, Load(2 * size.seconds, 400.0)))
        done: list[float] = []
        with steady():
            busy = asyncio.run(_reloading(server.port, people, size.reloads, done))
    return {
        "reloads": len(done),
        "reload_s": float(np.median(done)),
        "requests": len(busy.took),
        "failed": busy.failed,
        "idle_p50_ms": idle.ms(0.5),
        "idle_p99_ms": idle.ms(0.99),
        "p50_ms": busy.ms(0.5),
        "p99_ms": busy.ms(0.99),
        "most_ms": busy.ms(1.0),
    }


async def _reloading(port: int, people: People, count: int, done: list[float]) -> Heard:
    """Ask while ``count`` models are loaded; return what was heard meanwhile."""
    lines = [await Line.open(port) for _ in range(len(people.some))]
    heard, going, began = Heard(), True, time.perf_counter()

    async def keep_asking(line: Line, user: int, at: int) -> None:
        due = began + at / 400
        while going:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            answer = await line.call(ask(user))
            heard.note(due - began, time.perf_counter() - due, answer)
            due = max(due + len(lines) / 400, time.perf_counter())

    askers = [asyncio.create_task(keep_asking(line, people.some[at], at)) for at, line in enumerate(lines)]
    line = await Line.open(port)
    for place in range(count):
        start_at = time.perf_counter()
        name = ("second", "first")[place % 2]
        answer = await line.call(request("POST", f"/v1/models/{name}/activate", {}))
        assert answer.status == 200, answer.body
        done.append(time.perf_counter() - start_at)
    going = False
    await asyncio.gather(*askers)
    heard.seconds = time.perf_counter() - began
    return heard


def shadow(size: Size) -> Part:
    """M5: with a shadow of all requests and without, in turns, at half of what ready lists can bear."""
    made = world(size.folder, size.items, size.persons, ("first", "second"))
    people = People(made, size.ready)
    found: dict[str, list[Heard]] = {"off": [], "on": []}
    with served(made, "--deadline", 5) as server:
        asyncio.run(call_each(server.port, [ask(user) for user in people.some]))
        rate = asyncio.run(load(server.port, people.ready, Load(size.seconds))).per_second / 2
        for _ in range(2 * size.rounds):
            for turn, (method, body) in {"off": ("DELETE", None), "on": ("POST", {"share": 1.0})}.items():
                said = request(method, "/v1/models/second/shadow", body)
                answer = asyncio.run(call_each(server.port, [said]))
                assert answer.status in (200, 404), answer.body
                found[turn].append(asyncio.run(load(server.port, people.ready, Load(size.seconds, rate))))
        models = asyncio.run(call_each(server.port, [request("GET", "/v1/models", None)]))
    return {
        "rate": rate,
        "off_p50_ms": float(np.median([one.ms(0.5) for one in found["off"]])),
        "on_p50_ms": float(np.median([one.ms(0.5) for one in found["on"]])),
        "off_p99_ms": float(np.median([one.ms(0.99) for one in found["off"]])),
        "on_p99_ms": float(np.median([one.ms(0.99) for one in found["on"]])),
        "failed": sum(one.failed for turn in found.values() for one in turn),
        "models": orjson.loads(models.body),
    }
