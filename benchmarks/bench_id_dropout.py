"""Id dropout of the sequence model: what it does for new and for known items, on validation.

    ISTHMUS_DATA=... python benchmarks/bench_id_dropout.py --out benchmarks/reports/NAME [SET ...]

As in bench_new_items.py a tenth of the known items loses every event before test. Another tenth loses every event
before validation, and validation people want them among others; test is never read. The model learns once for every
share of dropped ids. Writes id-dropout-SET.json, and id-dropout.md from all of these.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

import isthmus as im
from bench_methods import corpus_of
from bench_new_items import SETS, Said, hide
from isthmus.evaluate.compare import Slice, compare, slices, summarise
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.model.base import Method
from isthmus.model.blend import standardise
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.rng import generator
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.task import Task
from isthmus.split.temporal import CONTEXT, VALID
from isthmus.train.fit import training_data
from isthmus.train.methods import make

#: What the sequence model is measured beside, and the weights of the sum it is added to.
READERS = ("tfidf", "aligned")
GROUND = {"knn": 1.0, "tfidf": 0.3, "aligned": 0.3}
#: Weights of the sequence model in that sum.
ADDED = (0.3, 1.0)


@dataclass(frozen=True)
class Model:
    """How the sequence model learns."""

    epochs: float
    sources: bool
    persons: int
    seed: int


def hide_before_valid(split: im.Split, domain: str, share: float, seed: int) -> im.Split:
    """Return the split without any event before validation on a share of the items of ``domain`` that have some."""
    early = (pl.col("part") < VALID) | (pl.col("part") == CONTEXT)
    known = split.events.filter(early)["item"].unique().to_numpy()
    items = np.intersect1d(target_items(split, domain), known)
    hidden = np.zeros(split.corpus.items.height, dtype=bool)
    hidden[generator(seed, "new items, practised").choice(items, int(share * items.size), replace=False)] = True
    kept = ~early | ~pl.Series(hidden).gather(split.events["item"])
    return im.Split(split.corpus, split.events.filter(kept), split.card)


def measure(name: str, folder: Path, shares: list[float], how: Model) -> dict[str, object]:
    spec, protocol, domain = SETS[name]
    split = im.Split.make(corpus_of(spec, folder), protocol=protocol, valid_share=0.1, test_share=0.1)
    split = hide_before_valid(hide(split, domain, 0.1, how.seed), domain, 0.1, how.seed)
    features = Readers(vocabulary(split), None).read(split.corpus.items)
    data, task = training_data(split, VALID, domain, features), build_task(split, VALID, domain, most=how.persons)
    told: dict[str, Said] = {}
    seconds: dict[str, float] = {}

    def learn(system: str, method: Method) -> None:
        start = time.process_time()
        told[system] = Said.of(method.fit(data, seed=how.seed), task)
        told[system].name, told[system].scores = system, standardise(told[system].scores)
        seconds[system] = round(time.process_time() - start, 1)

    for rival in dict.fromkeys((*READERS, *GROUND)):
        learn(rival, make(rival))
    own = {"epochs": how.epochs, "sources": how.sources}
    names = [f"sequence, id dropout {share:g}" for share in shares]
    for share, system in zip(shares, names, strict=True):
        learn(system, make("sequence", {**own, "id_dropout": share}))
    ground = np.sum([np.float32(weight) * told[part].scores for part, weight in GROUND.items()], axis=0)
    together = " + ".join(part if weight == 1 else f"{weight:g} {part}" for part, weight in GROUND.items())
    told[together] = Said(together, ground)
    for weight in ADDED:
        for system in names:
            added = f"the same + {weight:g} {system}"
            told[added] = Said(added, ground + np.float32(weight) * told[system].scores)
    return {**outcome(task, told), "set": name, "domain": domain, "protocol": protocol, "cpu_seconds": seconds} | {
        "fingerprint": split.corpus.fingerprint,
        "epochs": how.epochs,
        "sources": how.sources,
        "seed": how.seed,
        "items": int(task.items.size),
        "created": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def outcome(task: Task, told: dict[str, Said]) -> dict[str, object]:
    """Return N@10 of known and new items, and paired tests of each share of dropped ids against none."""
    parts = {part.name: part for part in slices(task)}
    new, known = parts["new item"], parts["known item"]
    flags = task.item_groups["new item"]
    whole = {name: judge(said, task, ks=(10,)) for name, said in told.items()}
    among = {name: judge(said.plus(name, 0.0, -np.inf, flags), task, ks=(10,)) for name, said in told.items()}
    silent = {name: judge(said.plus(name, -np.inf, 0.0, flags), task, ks=(10,)) for name, said in told.items()}
    views: list[tuple[str, dict[str, Outcome], Slice]] = [
        ("known", whole, known), ("known, no new item", silent, known), ("new", whole, new), ("among new", among, new),
    ]  # fmt: skip
    rows: list[dict[str, object]] = []
    for view, outcomes, part in views:
        means = {row["system"]: row for row in summarise(list(outcomes.values()), part, ["ndcg@10"]).to_dicts()}
        rows += [
            {"view": view, "system": name, "mean": row["mean"], "low": row["low"], "high": row["high"]}
            for name, row in means.items()
        ]
    tests: list[dict[str, object]] = []
    for view, outcomes, part in views:
        for plain in (name for name in outcomes if name.endswith("id dropout 0")):
            family = [out for name, out in outcomes.items() if name.startswith(plain.removesuffix("0"))]
            found = compare(family, [part], "ndcg@10", main=plain).to_dicts() if len(family) > 1 else []
            tests += [
                {"view": view, "system": row["system"], "difference": -row["difference"], "p_holm": row["p_holm"]}
                for row in found
            ]
    counts = {"persons": len(task), "new": int(new.persons.sum()), "new_items": int(flags.sum())}
    return {**counts, "rows": rows, "tests": tests}


VIEWS = ("known", "known, no new item", "new", "among new")


def markdown(folder: Path) -> str:
    lines = [
        "N@10 on validation; *: differs from the same with id dropout 0, p < .05 (sign flips paired over people, Holm",
        "over the shares).", "",
    ]  # fmt: skip
    for file in sorted(folder.glob("id-dropout-*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        found = {(row["view"], row["system"]): row["mean"] for row in data["rows"]}
        sure = {(row["view"], row["system"]) for row in data["tests"] if row["p_holm"] < 0.05}
        taught = "all domains" if data["sources"] else "the target alone"
        lines += [
            f"**{data['set']}**: {data['persons']:,} people, {data['new']} of whom want one of {data['new_items']:,}",
            f"new items among {data['items']:,}; {data['epochs']:g} epochs on {taught}; {data['created']}.", "",
            "| | known | known, new ones never listed | new | among new | CPU s |", "|---" * 6 + "|",
        ]  # fmt: skip
        for system in dict.fromkeys(row["system"] for row in data["rows"]):
            cells = [f"{found[view, system]:.4f}{'*' if (view, system) in sure else ''}" for view in VIEWS]
            spent = data["cpu_seconds"].get(system)
            lines.append(f"| {system} | {' | '.join(cells)} | {'' if spent is None else f'{spent:.0f}'} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=["steam", "librarything", "toys"])
    parser.add_argument("--out", type=Path, default=Path("out/id-dropout"))
    parser.add_argument("--shares", type=float, nargs="*", default=[0.0, 0.3, 0.6])
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--sources", action="store_true", help="learn from the events of all domains")
    parser.add_argument("--persons", type=int, default=3000, help="validation people, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    how = Model(options.epochs, options.sources, options.persons, options.seed)
    with TemporaryDirectory() as folder:
        for name in options.sets:
            data = measure(name, Path(folder), options.shares, how)
            print(json.dumps(data), flush=True)
            (options.out / f"id-dropout-{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            (options.out / "id-dropout.md").write_text(markdown(options.out), encoding="utf-8")


if __name__ == "__main__":
    main()
