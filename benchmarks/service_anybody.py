"""Part of the benchmark of the service: lists of anybody, all of them ready, and lists with reasons."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from service_client import K, Load, Server, account, ask, call_each, load, measure, request, serve, started
from service_parts import EMPTY, Part, Size, medians
from service_world import world

#: Items of the history named for each item of a list.
REASONS = 3


def anybody(size: Size) -> Part:
    """Measure lists of persons drawn from all, made ready in idle time, beside an empty route; then with reasons."""
    made = world(size.folder, size.items, size.persons)
    rng = np.random.default_rng(2)

    def anyone() -> bytes:
        return ask(int(rng.integers(size.persons)))

    def why(persons: int) -> bytes:
        said = {"persons": [account(int(rng.integers(persons)))], "k": K, "reasons": REASONS}
        return request("POST", "/v1/recommend", said)

    with TemporaryDirectory() as data, started(serve(made.model, Path(data) / "data", "--deadline", 5)) as server:
        seconds = asyncio.run(_all_ready(server, "lists", size.persons))
        same = size.folder / "same.json"
        same.write_bytes(asyncio.run(call_each(server.port, [ask(0)])).body)
        with started([sys.executable, "-c", EMPTY, same]) as empty:
            asyncio.run(load(empty.port, anyone, Load(0.5)))
            rounds: dict[str, list[dict[str, float]]] = {"empty route": [], "list of anybody": []}
            for _ in range(size.rounds):
                rounds["empty route"].append(measure(empty, anyone, Load(size.seconds)))
                rounds["list of anybody"].append(measure(server, anyone, Load(size.seconds)))
        figures = medians(rounds)
        half = figures["list of anybody"]["requests_per_second"] / 2
        figures["list of anybody, half load"] = measure(server, anyone, Load(size.seconds, half))
        few = min(size.ready, 100)
        asyncio.run(load(server.port, lambda: why(few), Load(2 * size.seconds)))
        figures["with reasons, asked before"] = measure(server, lambda: why(few), Load(size.seconds))
        figures["with reasons, not ready yet"] = measure(server, lambda: why(size.persons), Load(size.seconds))
        before = server.memory
        more = asyncio.run(_all_ready(server, "reasons", size.persons))
        figures["with reasons, all ready"] = measure(server, lambda: why(size.persons), Load(size.seconds))
        said = {"ready_s": seconds, "reasons_ready_s": more, "reasons_mb": (server.memory - before) / 1e6}
        return {"figures": figures, "rounds": rounds, **said, "rss_mb": server.memory / 1e6}


async def _all_ready(server: Server, what: str, persons: int) -> float:
    """Return the seconds until the lists or reasons of all persons are ready."""
    began = time.perf_counter()
    while True:
        said = (await call_each(server.port, [request("GET", "/metrics", None)])).body.decode()
        sizes = {
            line.partition("{")[0]: float(line.rpartition(" ")[2])
            for line in said.splitlines()
            if line.startswith((f"isthmus_{what}_ready{{", f"isthmus_{what}_cold{{"))
        }
        ready, waiting = sizes[f"isthmus_{what}_ready"], sizes[f"isthmus_{what}_cold"]
        print(f"{what} ready: {ready:,.0f} of {persons:,}", file=sys.stderr)
        if not waiting and (what == "reasons" or ready >= persons):  # of slow models not all reasons are made ready
            return time.perf_counter() - began
        await asyncio.sleep(10)
