"""From which catalogue on sampled softmax pays: seconds of processor and memory of a step, and quality on a real set.

    ISTHMUS_DATA=... python benchmarks/bench_sampled.py --out benchmarks/reports/NAME [--sizes 10000 ...] [--sets Toys]

Steps: made-up histories over catalogues of growing size with text vectors of 384 numbers, the sequence model at its
defaults; full and sampled runs alternate, each in a process of its own; medians. Quality: the same epochs on the same
data with both, judged on validation persons. Writes sampled.json and README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

STEPS, WARM = 14, 4
PERSONS, EVENTS, WIDTH = 600, 20, 384
HERE = Path(__file__).resolve()
SETS = {
    **{name: ("beauty_sports_toys", "leave-last", name) for name in ("Toys", "Beauty", "Sports")},
    "games": ("steam_australian", "time", "games"),
}


def peak() -> int:
    """Return the highest resident memory in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def steps(size: int, sampled: bool, seed: int) -> dict[str, float]:
    """Return seconds of processor of a step and the memory of training, for one catalogue."""
    import isthmus.train.sequences as sequences
    from isthmus.data.sequences import Histories
    from isthmus.model.base import Features, Places, TrainingData
    from isthmus.train.carriers import SequenceCarrier

    sequences.SAMPLED_FROM = 0 if sampled else sys.maxsize
    rng = np.random.default_rng(seed)
    items = (rng.zipf(1.3, (PERSONS, EVENTS)) % size).astype(np.int32)
    histories = Histories.of([np.unique(row).tolist() for row in items])
    vectors = rng.standard_normal((size, WIDTH), dtype=np.float32)
    places = Places.nameless(size)
    data = TrainingData(
        histories, np.arange(size, dtype=np.int32), size, 0, Features(vectors=vectors, places=places), dated=False
    )
    marks: list[float] = []
    method = SequenceCarrier({"epochs": 1, "sources": False})
    start = peak()
    timed(sequences, marks)
    method.fit(data, seed=seed)
    gaps = np.diff(marks)[WARM:]
    return {"step": float(np.median(gaps)), "added": peak() - start}


def timed(sequences: object, marks: list[float]) -> None:
    """Note the end of each step of the training to come, and end it after :data:`STEPS`."""
    train = sequences.train  # type: ignore[attr-defined]

    def noted(model: object, batches: object, settings: object, **rest: object) -> object:
        from dataclasses import replace

        model.after_update = lambda *_: marks.append(time.process_time())  # type: ignore[attr-defined]
        return train(model, batches, replace(settings, steps=STEPS), **rest)  # type: ignore[type-var]

    sequences.train = noted  # type: ignore[attr-defined]


def quality(name: str, sampled: bool, epochs: int, work: Path) -> dict[str, float]:
    """Return validation N@10 and seconds with one of the two losses."""
    import isthmus.train.sequences as sequences
    from bench_transfer import split_of
    from isthmus.recommender.readers import Readers, vocabulary
    from isthmus.split.cohorts import build_task
    from isthmus.split.temporal import VALID
    from isthmus.train.carriers import SequenceCarrier
    from isthmus.train.fit import training_data
    from isthmus.train.tune import validate

    sequences.SAMPLED_FROM = 0 if sampled else sys.maxsize
    spec, protocol, domain = SETS[name]
    split = split_of(spec, protocol, work)
    features = Readers(vocabulary(split), None, vectors=True).read(split.corpus.items)
    data = training_data(split, VALID, domain, features)
    start = time.perf_counter()
    method = SequenceCarrier({"epochs": epochs, "sources": False}).fit(data, seed=0)
    seconds = time.perf_counter() - start
    return {"ndcg@10": validate(method, build_task(split, VALID, domain, most=2000)), "seconds": round(seconds, 1)}


def apart(job: list[object], threads: int) -> dict[str, float]:
    """Return what a job gives in a process of its own."""
    command = [sys.executable, str(HERE), "--job", json.dumps(job)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def markdown(said: dict) -> str:
    lines = [
        "# Full or sampled softmax",
        "",
        f"Made by `benchmarks/bench_sampled.py`, {said['date']}, {said['threads']} thread(s) of {said['cores']} cores, "
        f"load {said['load']:.1f} at the start, medians of {said['pairs']} alternating pairs of runs. 512 events a "
        "batch, 4,096 candidates, text vectors of 384 numbers and an id for each item met.",
        "",
        "| items | full, s of processor a step | sampled | full ÷ sampled | full, MiB added | sampled, MiB added |",
        "|---|---|---|---|---|---|",
    ]
    for row in said["steps"]:
        full, part = row["full"], row["sampled"]
        lines.append(
            f"| {row['items']:,} | {full['step']:.3f} | {part['step']:.3f} | {full['step'] / part['step']:.2f} "
            f"| {full['added'] / 2**20:,.0f} | {part['added'] / 2**20:,.0f} |"
        )
    lines += ["", "| set | loss | epochs | validation N@10 | s |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['set']} | {row['loss']} | {row['epochs']} | {row['ndcg@10']:.4f} | {row['seconds']:.0f} |"
        for row in said["quality"]
    ]
    return "\n".join(lines) + "\n"


def measured(options: argparse.Namespace) -> dict:
    said: dict = {
        "date": time.strftime("%Y-%m-%d"),
        "threads": options.threads,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "pairs": options.pairs,
        "steps": [],
        "quality": [],
    }
    for size in options.sizes:
        runs: dict[str, list] = {"full": [], "sampled": []}
        for pair in range(options.pairs):
            for loss, rows in runs.items():
                rows.append(apart(["steps", size, loss == "sampled", pair], options.threads))
        row = {
            loss: {key: statistics.median(one[key] for one in rows) for key in ("step", "added")}
            for loss, rows in runs.items()
        }
        said["steps"].append({"items": size, **row})
        print(said["steps"][-1], flush=True)
    for name in options.sets:
        for loss in ("full", "sampled"):
            job = ["quality", name, loss == "sampled", options.epochs, str(options.work)]
            said["quality"].append({"set": name, "loss": loss, "epochs": options.epochs, **apart(job, options.threads)})
            print(said["quality"][-1], flush=True)
    return said


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", nargs="*", type=int, default=[10_000, 20_000, 40_000, 80_000, 160_000])
    parser.add_argument("--sets", nargs="*", default=["Toys"], choices=list(SETS))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--work", type=Path, default=Path("out/transfer-work"))
    parser.add_argument("--out", type=Path, default=Path("out/sampled"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.job:
        kind, *rest = json.loads(options.job)
        found = steps(*rest) if kind == "steps" else quality(*rest[:3], Path(rest[3]))
        print(json.dumps(found))
        return
    options.work = options.work.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    said = measured(options)
    (options.out / "sampled.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    (options.out / "README.md").write_text(markdown(said), encoding="utf-8")


if __name__ == "__main__":
    main()
