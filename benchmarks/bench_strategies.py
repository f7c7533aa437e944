"""The seven strategies on both carriers: N@10 on test, trainable parameters, seconds and peak memory.

    ISTHMUS_DATA=... python benchmarks/bench_strategies.py --out benchmarks/reports/NAME [--targets Toys ...]
        [--carriers sequence language] [--share 0.05] [--work FOLDER]

The sequence carrier goes on from the pre-trained model of ``bench_transfer.py`` (``--work``); the language carrier from
the bundled MiniLM. Each strategy has the same epochs; the best epoch is chosen on validation; nothing is refitted.
Only a share of the target's people teaches, which is where strategies differ most; compare rows of as many people.
Every row is a process of its own: its peak of memory is what loading, training and validation took.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from bench_transfer import TARGETS, pretrained, split_of
from isthmus.evaluate.protocol import judge
from isthmus.model.base import Features, Hooks
from isthmus.model.strategies import STRATEGIES
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.train.fit import training_data
from isthmus.train.methods import make
from isthmus.train.tune import validate

HERE = Path(__file__).parent
CHOSEN = {
    "sequence": {"epochs": 8, "learning_rate": 2e-3, "batch": 256, "sources": False},
    "language": {"epochs": 1, "learning_rate": 2e-4, "sources": False, "person": "items"},
}


@dataclass(frozen=True)
class Row:
    """What a row of the table is of."""

    target: str
    carrier: str
    strategy: str
    share: float
    persons: int
    threads: int
    work: Path

    def split(self) -> Split:
        """Return the data, in which only a share of the target's people teaches."""
        spec, protocol, domain, _ = TARGETS[self.target]
        return split_of(spec, protocol, self.work).thinned(domain, share=self.share, seed=0)


def measure(row: Row) -> dict[str, object]:
    """Return a row, measured in this process."""
    warnings.filterwarnings("ignore")
    if row.threads:
        torch.set_num_threads(row.threads)
    split, (_, _, domain, source) = row.split(), TARGETS[row.target]
    texts = row.carrier == "language"
    features = Readers(vocabulary(split), None, vectors=not texts, texts=texts).read(split.corpus.items)
    data = training_data(split, VALID, domain, features)
    valid = build_task(split, VALID, domain, most=1000)
    task = build_task(split, TEST, domain, most=row.persons)
    start = "" if texts else str(pretrained(source, row.work))
    method = make(row.carrier, {**CHOSEN[row.carrier], "start": start, "strategy": row.strategy})
    method.hooks = Hooks(watch=lambda fitted: validate(fitted, valid))
    begin = time.perf_counter()
    method.fit(data, seed=0)
    seconds = time.perf_counter() - begin
    outcome = judge(Named(method, row.carrier), task)
    values = outcome.metrics["ndcg@10"]
    rng = np.random.default_rng(0)
    draws = [values[rng.integers(values.size, size=values.size)].mean() for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "carrier": row.carrier,
        "strategy": row.strategy,
        "persons": len(task),
        "teachers": teachers(split, domain, features),
        "ndcg@10": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "trainable": method.log.trainable,
        "seconds": round(seconds, 1),
        "peak_mib": round(method.log.peak_memory / 2**20),
        "epoch": method.settings["epochs"],
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def teachers(split: Split, domain: str, features: Features | None = None) -> int:
    """Return how many people teach."""
    data = training_data(split, VALID, domain, features or Features())
    return int((data.learn_from(False).lengths > 0).sum())


def in_own_process(row: Row) -> dict[str, object]:
    """Return a row, measured in a process of its own: what the rows before it left counts in no peak of memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, row).result()


class Named:
    """A method as a system."""

    def __init__(self, method: object, name: str) -> None:
        self.name, self.score = name, method.score


def markdown(folder: Path) -> str:
    lines = ["# Strategies", "", __doc__.split("\n\n")[-1].strip(), ""]
    lines.append("One seed; intervals: 95 % bootstrap over test persons. Seconds include validation after each epoch.")
    for file in sorted(folder.glob("*.json")):
        rows = json.loads(file.read_text(encoding="utf-8"))
        lines += ["", f"## {file.stem}", ""]
        lines += [
            "| carrier | people that teach | strategy | N@10 [95 %] | trainable | s | peak MiB | best epoch |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['carrier']} | {row['teachers']:,} | {row['strategy']} "
            f"| {row['ndcg@10']:.4f} [{row['low']:.4f}, {row['high']:.4f}] "
            f"| {row['trainable']:,} | {row['seconds']} | {row['peak_mib']} | {row['epoch']} |"
            for row in rows
        ]
    preface = HERE / "strategies_preface.md"
    return "\n".join([*lines, "", "## What this says", "", preface.read_text(encoding="utf-8")])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="*", default=["Toys", "Food"], choices=list(TARGETS))
    parser.add_argument("--carriers", nargs="*", default=["sequence", "language"])
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--persons", type=int, default=5000, help="test persons, at most")
    parser.add_argument("--share", type=float, default=0.05, help="of the target's people that teach")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("out/transfer-work"))
    parser.add_argument("--out", type=Path, default=Path("out/strategies"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for target, carrier, strategy in product(options.targets, options.carriers, options.strategies):
        work = options.work.resolve()
        row = Row(target, carrier, strategy, options.share, options.persons, options.threads, work)
        file = options.out / f"{target}.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        done = {(row["carrier"], row["strategy"], row["teachers"]) for row in rows}
        if (carrier, strategy, teachers(row.split(), TARGETS[target][2])) in done:
            continue
        rows.append(in_own_process(row))
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")
        print(target, rows[-1], flush=True)


if __name__ == "__main__":
    main()
