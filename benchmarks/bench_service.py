"""The service against an empty route that returns the same bytes, side by side in one run.

    python benchmarks/bench_service.py [--items 20000] [--persons 100000] [--rounds 3] [--seconds 3] [--out FOLDER]

A synthetic catalogue and histories; popularity, item kNN and TF-IDF blended. The server is a process of its own, the
generator keeps connections open and shares the machine. Requests a second depend on what else runs there, so the
processor time of the server for one request is measured too. Writes service.json and README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import psutil

from isthmus.data.sequences import Histories
from isthmus.data.tables import conform
from isthmus.encode.template import Template
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.blend import COHORTS, Blend
from isthmus.recommender import Recommender
from isthmus.recommender.people import People
from isthmus.recommender.readers import Readers
from isthmus.recommender.store import Content
from isthmus.train.fit import Target
from isthmus.train.methods import make

METHODS = ("popularity", "knn", "tfidf")
WEIGHTS = (0.2, 0.5, 0.3)
K = 20
CONNECTIONS = 16
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


def model(n_items: int, n_persons: int, folder: Path) -> None:
    """Write a model of a synthetic catalogue of 100 themes; popularity has a long tail."""
    rng = np.random.default_rng(0)
    theme = rng.integers(0, 100, n_items)
    words = theme[:, None] * 50 + rng.integers(0, 50, (n_items, 8))
    titles = [" ".join(f"w{word}" for word in row) for row in words.tolist()]
    ids = [f"i{n:07d}" for n in range(n_items)]
    items = conform("items", pl.DataFrame({"platform": "shop", "item": ids, "domain": "books", "title": titles}))
    encoder = TfidfEncoder.fit(Template().render(items).to_list())
    features = Features(encoder.transform(Template().render(items).to_list()), None, Places.of(items))
    lengths = rng.poisson(14, n_persons) + 1
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    met = np.minimum(rng.pareto(1.0, indptr[-1]) * n_items / 50, n_items - 1).astype(np.int64)
    met = rng.permutation(n_items).astype(np.int32)[met]
    ts = np.arange(met.size, dtype=np.int64) * 1_000_000
    histories = Histories(indptr, met, np.ones(met.size, np.float32), ts)
    data = TrainingData(histories, np.arange(n_items, dtype=np.int32), n_items, int(ts[-1]), features)
    methods = [make(name, {}).fit(data) for name in METHODS]
    target = Target(
        "books", data.target, np.zeros(n_items, dtype=bool), methods, Blend(METHODS, dict.fromkeys(COHORTS, WEIGHTS))
    )
    users = [f"u{n:07d}" for n in range(n_persons)]
    accounts = pl.DataFrame({"platform": "shop", "user": users, "person": np.arange(n_persons, dtype=np.uint32)})
    events = pl.DataFrame(
        {
            "person": histories.rows.astype(np.uint32),
            "item": met.astype(np.uint32),
            "event": np.zeros(met.size, np.uint8),
        }
    ).with_columns(weight=pl.lit(1.0, pl.Float32), ts=pl.Series(ts).cast(pl.Datetime("us", "UTC")))
    people = People(accounts, events)
    Recommender(Content({"books": target}, items, people, Readers(encoder, vectors=False), features, {})).save(folder)


def start(command: Sequence[object]) -> tuple[subprocess.Popen[str], psutil.Process, int]:
    process = subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.stdout is not None
    return process, psutil.Process(process.pid), int(process.stdout.readline().rpartition(":")[2])


def ask(user: int, path: str = "/v1/recommend", **more: object) -> bytes:
    who = {"platform": "shop", "user": f"u{user:07d}"}
    body = {"persons": [who], "k": K} if path == "/v1/recommend" else {"events": [{**who, **more}]}
    return request("POST", path, body)


def request(method: str, path: str, body: object) -> bytes:
    said = json.dumps(body).encode()
    kind = "content-type: application/json"
    head = f"{method} {path} HTTP/1.1", "host: localhost", kind, f"content-length: {len(said)}"
    return "\r\n".join((*head, "", "")).encode() + said


class Line:
    """One connection that is kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body of one answer."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await self.reader.readexactly(length)


async def load(
    port: int, request: Callable[[], bytes], seconds: float, rate: float | None = None
) -> tuple[int, list[float], int]:
    """Return requests answered, seconds each took, and how many failed; as fast as possible, or at a rate."""
    lines = [Line(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    took, failed = [], 0
    began = time.perf_counter()
    planned = iter(range(10**9))

    async def work(line: Line) -> None:
        nonlocal failed
        while True:
            due = began + next(planned) / rate if rate else time.perf_counter()
            if due > began + seconds or time.perf_counter() > began + 2 * seconds:
                return
            if due > time.perf_counter():
                await asyncio.sleep(due - time.perf_counter())
            status, _ = await line.call(request())
            took.append(time.perf_counter() - due)
            failed += status not in (200, 202)

    await asyncio.gather(*map(work, lines))
    for line in lines:
        line.writer.close()
    return len(took), took, failed


def measure(
    process: psutil.Process, port: int, request: Callable[[], bytes], seconds: float, rate: float | None = None
) -> dict[str, float]:
    before, start_at = process.cpu_times(), time.perf_counter()
    done, took, failed = asyncio.run(load(port, request, seconds, rate))
    spent, after = time.perf_counter() - start_at, process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return {
        "requests_per_second": done / spent,
        "server_cpu_us": 1e6 * cpu / max(done, 1),
        "p50_ms": 1000 * float(np.median(took)),
        "p99_ms": 1000 * float(np.quantile(took, 0.99)),
        "failed": failed,
    }


async def warm(port: int, users: Sequence[int]) -> bytes:
    """Ask once for each of ``users``; return the last answer."""
    line, body = Line(*await asyncio.open_connection("127.0.0.1", port)), b""
    for user in users:
        _, body = await line.call(ask(user))
    line.writer.close()
    return body


async def freshness(port: int, users: Sequence[int]) -> list[float]:
    """Return milliseconds from the answer to an event until the answer with the list that counts it."""
    line, took = Line(*await asyncio.open_connection("127.0.0.1", port)), []
    for place, user in enumerate(users):
        _, before = await line.call(ask(user))
        best = json.loads(before)["lists"][0]["items"][0]["item"]
        await line.call(ask(user, "/v1/events", item=best, event="purchase", id=f"fresh-{place}"))
        start_at = time.perf_counter()
        _, after = await line.call(ask(user))
        took.append(1000 * (time.perf_counter() - start_at))
        assert best not in [item["item"] for item in json.loads(after)["lists"][0]["items"]]
    line.writer.close()
    return took


async def launched(port: int, count: int) -> list[float]:
    """Return milliseconds until the answer to a new item's text, after which it can be listed; each is asked about."""
    line, took = Line(*await asyncio.open_connection("127.0.0.1", port)), []
    for place in range(count):
        name = {"platform": "shop", "item": f"launched-{place}"}
        start_at = time.perf_counter()
        said = {"items": [{**name, "domain": "books", "title": f"w{place * 50} w{place * 50 + 1}"}]}
        status, _ = await line.call(request("PUT", "/v1/items", said))
        took.append(1000 * (time.perf_counter() - start_at))
        asked, found = await line.call(request("POST", "/v1/similar", {**name, "k": 5}))
        assert (status, asked) == (200, 200), found
    line.writer.close()
    return took


def run(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    rng = np.random.default_rng(1)
    serve = [
        Path(sys.executable).parent / "isthmus",
        "serve",
        folder / "model",
        "--port",
        0,
        "--deadline",
        5,
        "--no-warm",
    ]
    service, process, port = start(serve)
    drawn = rng.choice(args.persons, 2 * args.ready, replace=False)
    some, others = drawn[: args.ready].tolist(), drawn[args.ready :].tolist()
    body = asyncio.run(warm(port, some[:1]))
    (folder / "same.json").write_bytes(body)
    empty, empty_process, empty_port = start([sys.executable, "-c", EMPTY, folder / "same.json"])
    strangers = iter(np.setdiff1d(np.arange(args.persons), drawn).tolist())
    items = [f"i{n:07d}" for n in range(args.items)]

    def ready() -> bytes:
        return ask(some[int(rng.integers(len(some)))])

    def mixed() -> bytes:
        user = others[int(rng.integers(len(others)))]
        if rng.random() < 0.1:
            return ask(user, "/v1/events", item=items[int(rng.integers(args.items))])
        return ask(user)

    def one_event() -> bytes:
        return ask(others[int(rng.integers(len(others)))], "/v1/events", item=items[int(rng.integers(args.items))])

    try:
        asyncio.run(load(empty_port, ready, 0.5))
        asyncio.run(warm(port, drawn.tolist()))
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.rounds):
            for name, where, request in (
                ("empty route", (empty_process, empty_port), ready),
                ("list ready", (process, port), ready),
                ("1 event in 10 requests", (process, port), mixed),
                ("list to be scored", (process, port), lambda: ask(next(strangers))),
                ("one event", (process, port), one_event),
            ):
                rounds.setdefault(name, []).append(measure(*where, request, args.seconds))
        half = float(np.median([one["requests_per_second"] for one in rounds["list ready"]])) / 2
        rounds["list ready, half load"] = [measure(process, port, ready, args.seconds, half)]
        fresh = asyncio.run(freshness(port, [next(strangers) for _ in range(100)]))
        new = asyncio.run(launched(port, 10))
        memory = process.memory_info().rss
    finally:
        for one in (service, empty):
            one.terminate()
            one.wait(30)
    middle = {
        name: {key: float(np.median([one[key] for one in found])) for key in found[0]} for name, found in rounds.items()
    }
    return {
        "figures": middle,
        "rounds": rounds,
        "fresh_ms": {"p50": float(np.median(fresh)), "p99": float(np.quantile(fresh, 0.99)), "n": len(fresh)},
        "new_item_ms": {"p50": float(np.median(new)), "max": max(new), "n": len(new)},
        "bytes": len(body),
        "rss_mb": memory / 1e6,
    }


def page(data: dict) -> str:
    machine, figures = data["machine"], data["figures"]
    empty, mine = figures["empty route"], figures["list ready"]
    rate = mine["requests_per_second"] / empty["requests_per_second"]
    cpu = empty["server_cpu_us"] / mine["server_cpu_us"]
    cells = ("requests_per_second", "server_cpu_us", "p50_ms", "p99_ms", "failed")
    rows = [
        " | ".join((f"| {name}", *(f"{one[cell]:,.{int('ms' in cell)}f}" for cell in cells), "")).rstrip()
        for name, one in figures.items()
    ]
    fresh, new = data["fresh_ms"], data["new_item_ms"]
    lines = [
        "# The service: requests a second",
        "",
        f"{data['created']}; {machine['system']}, {machine['cores']} core(s) for server and generator together,",
        f"load average {machine['load_before']:.0f} before and {machine['load_after']:.0f} after (others ran there),",
        f"Python {machine['python']}, uvicorn {machine['uvicorn']}, fastapi {machine['fastapi']}.",
        "`python benchmarks/bench_service.py --out FOLDER`.",
        "",
        f"{data['items']:,} items, {data['persons']:,} persons, {', '.join(METHODS)}; k = {K},",
        f"{data['bytes']:,} bytes, {CONNECTIONS} connections,",
        f"{data['n_rounds']} interleaved rounds of {data['seconds']:g} s: medians.",
        "",
        "| what | requests/s | server CPU, µs a request | p50 ms | p99 ms | failed |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"From the answer to an event to the answer with the list that counts it: p50 {fresh['p50']:.1f} ms,",
        f"p99 {fresh['p99']:.1f} ms ({fresh['n']} persons never asked for before). Memory: {data['rss_mb']:,.0f} MB.",
        f"From a new item's text until it can be listed: p50 {new['p50']:.0f} ms,",
        f"at most {new['max']:.0f} ms ({new['n']} items).",
        "",
        f"A list that is ready: {rate:.0%} of the requests/s of the empty route, {cpu:.0%} by processor time.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--ready", type=int, default=1000, help="persons whose lists are ready")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    machine = {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("uvicorn", "fastapi", "apsw", "orjson", "numpy")},
        "load_before": os.getloadavg()[0],
    }
    with TemporaryDirectory() as folder:
        model(args.items, args.persons, Path(folder) / "model")
        found = run(args, Path(folder))
    machine["load_after"] = os.getloadavg()[0]
    size = {"items": args.items, "persons": args.persons, "n_rounds": args.rounds, "seconds": args.seconds}
    data = {"created": datetime.now(UTC).date().isoformat(), "machine": machine, **size, **found}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "service.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (args.out / "README.md").write_text(page(data), encoding="utf-8")
    print(json.dumps(data["figures"]))


if __name__ == "__main__":
    main()
