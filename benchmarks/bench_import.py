"""Import speed and memory: 1 M rows against bare Polars in one process, 10 M rows in a process of their own.

    python benchmarks/bench_import.py [--rows 1000000] [--big 10000000] [--pairs 5]

Prints JSON: medians in seconds, the ratio, and the peak resident memory of the big import in MiB.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from isthmus.data.importer import import_corpus
from isthmus.rng import generator

SPEC = """
name = "bench"
[[source]]
kind = "events"
platform = "shop"
domain = "Shop"
path = "events.csv"
columns = { user = "user", item = "item", value = "rating", ts = "timestamp" }
event = "rate"
scale = [0.5, 5]
time = { format = "unix_s" }
"""
CHUNK = 1_000_000


def write_log(path: Path, rows: int, *, ids: str) -> None:
    """Write a log with long-tailed users and items; ``ids`` is "text" or "number"."""
    rng = generator(1, "bench-import")
    with path.open("wb") as handle:
        for start in range(0, rows, CHUNK):
            n = min(CHUNK, rows - start)
            frame = pl.DataFrame(
                {
                    "user": (rng.pareto(0.7, n) * 300).astype(np.int64) % max(1_000, rows // 15),
                    "item": (rng.pareto(0.8, n) * 100).astype(np.int64) % 30_000,
                    "rating": rng.integers(1, 11, n) / 2,
                    "timestamp": 1_300_000_000 + rng.integers(0, 300_000_000, n),
                }
            )
            if ids == "text":
                frame = frame.with_columns(
                    pl.format("A{}", "user").alias("user"), pl.format("B00{}", "item").alias("item")
                )
            frame.write_csv(handle, include_header=start == 0)


def bare(folder: Path) -> None:
    """Read, sort and write the same file with nothing else done."""
    pl.read_csv(folder / "events.csv").sort("user", "timestamp").write_parquet(folder / "bare.parquet")


def seconds(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def compare(rows: int, pairs: int, ids: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "SPEC.toml").write_text(SPEC)
        write_log(folder / "events.csv", rows, ids=ids)
        import_corpus(folder / "SPEC.toml", folder / "corpus")
        bare(folder)
        times = [
            (seconds(lambda: bare(folder)), seconds(lambda: import_corpus(folder / "SPEC.toml", folder / "corpus")))
            for _ in range(pairs)
        ]
    return {
        "bare_s": round(statistics.median(a for a, _ in times), 3),
        "import_s": round(statistics.median(b for _, b in times), 3),
        "ratio": round(statistics.median(b / a for a, b in times), 2),
    }


def big(rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "SPEC.toml").write_text(SPEC)
        write_log(folder / "events.csv", rows, ids="text")
        done = subprocess.run([sys.executable, __file__, "--child", name], capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))


def child(folder: Path) -> None:
    took = seconds(lambda: import_corpus(folder / "SPEC.toml", folder / "corpus"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = pl.scan_parquet(folder / "corpus" / "events.parquet").select(pl.len()).collect().item()
    print(json.dumps({"import_s": round(took, 1), "peak_mib": round(peak), "events": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--big", type=int, default=10_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    result: dict[str, object] = {"python": platform.python_version(), "polars": pl.__version__}
    for ids in ("text", "number"):
        result[f"{options.rows}_rows_{ids}_ids"] = compare(options.rows, options.pairs, ids)
    if options.big:
        result[f"{options.big}_rows"] = big(options.big)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
