"""The seven strategies on both carriers: N@10 on test, trainable parameters, seconds and peak memory.

    ISTHMUS_DATA=... python benchmarks/bench_strategies.py --out benchmarks/reports/NAME [--targets Toys ...]
        [--carriers sequence language] [--share 0.05] [--work FOLDER]

The sequence carrier goes on from the pre-trained model of ``bench_transfer.py`` (``--work``); the language carrier from
the bundled MiniLM. Each strategy has the same epochs; the best epoch is chosen on validation; nothing is refitted.
Only a share of the target's people teaches, the same for all, which is where strategies differ most.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from datetime import UTC, datetime
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


def measure(
    carrier: str, strategy: str, split: Split, domain: str, start: str, persons: int, features: Features
) -> dict[str, object]:
    data = training_data(split, VALID, domain, features)
    valid = build_task(split, VALID, domain, most=1000)
    task = build_task(split, TEST, domain, most=persons)
    chosen = {**CHOSEN[carrier], "start": start, "strategy": strategy}
    method = make(carrier, chosen)
    method.hooks = Hooks(watch=lambda fitted: validate(fitted, valid))
    begin = time.perf_counter()
    method.fit(data, seed=0)
    seconds = time.perf_counter() - begin
    outcome = judge(Named(method, carrier), task)
    values = outcome.metrics["ndcg@10"]
    rng = np.random.default_rng(0)
    draws = [values[rng.integers(values.size, size=values.size)].mean() for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "carrier": carrier,
        "strategy": strategy,
        "persons": len(task),
        "ndcg@10": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "trainable": method.log.trainable,
        "seconds": round(seconds, 1),
        "peak_mib": round(method.log.peak_memory / 2**20),
        "epoch": method.settings["epochs"],
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


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
            "| carrier | strategy | N@10 [95 %] | trainable | s | peak MiB | best epoch |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['carrier']} | {row['strategy']} | {row['ndcg@10']:.4f} [{row['low']:.4f}, {row['high']:.4f}] "
            f"| {row['trainable']:,} | {row['seconds']} | {row['peak_mib']} | {row['epoch']} |"
            for row in rows
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="*", default=["Toys", "Food"], choices=list(TARGETS))
    parser.add_argument("--carriers", nargs="*", default=["sequence", "language"])
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--persons", type=int, default=5000)
    parser.add_argument("--share", type=float, default=0.05, help="of the target's people that teach")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("out/transfer-work"))
    parser.add_argument("--out", type=Path, default=Path("out/strategies"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    for target in options.targets:
        spec, protocol, domain, source = TARGETS[target]
        split = split_of(spec, protocol, options.work.resolve()).thinned(domain, share=options.share, seed=0)
        features = Readers(vocabulary(split), None, vectors=True, texts=True).read(split.corpus.items)
        file = options.out / f"{target}.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        done = {(row["carrier"], row["strategy"]) for row in rows}
        for carrier in options.carriers:
            start = str(pretrained(source, options.work.resolve())) if carrier == "sequence" else ""
            for strategy in options.strategies:
                if (carrier, strategy) in done:
                    continue
                rows.append(measure(carrier, strategy, split, domain, start, options.persons, features))
                file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
                (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")
                print(target, rows[-1], flush=True)


if __name__ == "__main__":
    main()
