"""New items on real data: a tenth of the items lose all their events, and are then what people are tested on.

    ISTHMUS_DATA=... python benchmarks/bench_new_items.py --out benchmarks/reports/NAME [SET ...]
    ... --methods popularity knn tfidf aligned sequence --untuned --id-dropout 0.3 --practise [SET ...]

Writes SET.json and rebuilds README.md from preface.md and all JSON files of the folder. Nothing row by row enters it.
With --untuned every method keeps its default settings, but for the sequence model's --id-dropout and --epochs; with
--practise that model has a say about new items.
"""

from __future__ import annotations

import argparse
import json
import platform
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
from isthmus.evaluate.compare import Slice, compare, slices, summarise
from isthmus.evaluate.protocol import RankingSystem, judge
from isthmus.recommender.facade import System
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.rng import generator
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.task import Task
from isthmus.split.temporal import CONTEXT, TEST
from isthmus.train.fit import FitSettings, Fitting, Target, task_names
from isthmus.train.methods import make

#: Set -> (spec, protocol, target domain).
SETS = {
    "food": ("fedcsr", "time", "Food"),
    "kitchen": ("fedcsr", "time", "Kitchen"),
    "beauty": ("beauty_sports_toys", "leave-last", "Beauty"),
    "sports": ("beauty_sports_toys", "leave-last", "Sports"),
    "toys": ("beauty_sports_toys", "leave-last", "Toys"),
    "movielens": ("movielens_latest_small", "leave-last", "movies"),
    "steam": ("steam_australian", "leave-last", "games"),
    "librarything": ("librarything", "leave-last", "books"),
}
METHODS = ("popularity", "recent", "knn", "tfidf", "text", "aligned", "launch", "ease")


#: What may be added to the score of every new item, to see what it would cost.
LOUDER = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
#: Shares of the N@10 of known items that might be given up.
PRICES = (0.01, 0.02, 0.05, 0.1)


@dataclass
class Said:
    """The scores of a system for a task, kept: asked for in the order of its persons, block by block."""

    name: str
    scores: np.ndarray
    at: int = 0

    @classmethod
    def of(cls, system: RankingSystem, task: Task) -> Said:
        """Return what ``system`` says of everybody in ``task``."""
        parts = [task.histories.take(np.arange(at, min(at + 512, len(task)))) for at in range(0, len(task), 512)]
        return cls(system.name, np.concatenate([system.score(part) for part in parts]))

    def score(self, histories: im.Histories) -> np.ndarray:
        """Return the scores of the next persons."""
        start, self.at = self.at, (self.at + len(histories)) % len(self.scores)
        return self.scores[start : start + len(histories)].copy()

    def plus(self, name: str, new: float, known: float, flags: np.ndarray) -> Said:
        """Return the scores under another name, with something added to those of new and of known items."""
        return Said(name, self.scores + np.where(flags, np.float32(new), np.float32(known)))


def hide(split: im.Split, domain: str, share: float, seed: int) -> im.Split:
    """Return the split without any event before test on a share of the items of ``domain`` that have some."""
    known = split.events.filter((pl.col("part") < TEST) | (pl.col("part") == CONTEXT))["item"].unique().to_numpy()
    items = np.intersect1d(target_items(split, domain), known)
    gone = generator(seed, "new items").choice(items, int(share * items.size), replace=False)
    hidden = np.zeros(split.corpus.items.height, dtype=bool)
    hidden[gone] = True
    kept = (pl.col("part") == TEST) | ~pl.Series(hidden).gather(split.events["item"])
    return im.Split(split.corpus, split.events.filter(kept), split.card)


def fitted(split: im.Split, domain: str, settings: FitSettings) -> Target:
    """Return the target with settings chosen on validation."""
    return im.Recommender.fit(split, targets=[domain], settings=settings).targets[domain]


def untuned(split: im.Split, domain: str, settings: FitSettings) -> Target:
    """Return the target with the settings as they are given; the blend and the voice are chosen on validation."""
    features = Readers(vocabulary(split), None).read(split.corpus.items)
    fitting = Fitting(split, domain, features, settings)
    names = task_names(split, settings, features)
    methods = [make(name, settings.settings.get(name)).fit(fitting.data, seed=settings.seed) for name in names]
    kept, blend = fitting.blend(methods)
    return fitting.target(kept, blend, fitting.refit(kept))


def measure(name: str, folder: Path, settings: FitSettings, *, plain: bool = False) -> dict[str, object]:
    seed, persons = settings.seed, settings.persons
    spec, protocol, domain = SETS[name]
    split = im.Split.make(corpus_of(spec, folder), protocol=protocol, valid_share=0.1, test_share=0.1)
    split = hide(split, domain, 0.1, seed)
    start = time.process_time()
    target = untuned(split, domain, settings) if plain else fitted(split, domain, settings)
    seconds = time.process_time() - start
    task = build_task(split, TEST, domain, most=persons)
    alone = [System(target, name=one.name, method=one.name) for one in target.methods if one.inductive]
    outcomes, among, louder = [], [], []
    for system in (System(target), *alone):
        said = Said.of(system, task)
        outcomes.append(judge(said, task, ks=(10,)))
        among.append(judge(said.plus(f"{said.name}, among new", 0.0, -np.inf, target.new), task, ks=(10,)))
        if said.name == "blend":
            outcomes.append(judge(said.plus("blend, no new item", -np.inf, 0.0, target.new), task, ks=(10,)))
            louder = [judge(said.plus(f"blend + {by:g}", by, 0.0, target.new), task, ks=(10,)) for by in LOUDER]
    parts = {part.name: part for part in slices(task)}
    new, known = parts["new item"], parts["known item"]
    return {
        "set": name,
        "domain": domain,
        "protocol": protocol,
        "fingerprint": split.corpus.fingerprint,
        "seed": seed,
        "methods": list(target.blend.methods),
        "untuned": plain,
        "practise": settings.practise,
        "sequence": dict(settings.settings.get("sequence", {})),
        "persons": len(task),
        "items": int(task.items.size),
        "new_items": int(task.item_groups["new item"].sum()),
        "new": int(new.persons.sum()),
        "fit_seconds": round(seconds, 1),
        "voice": dict(zip(target.blend.methods, target.blend.voice or (), strict=False)),
        "level": target.blend.level,
        "created": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, one core; Python {platform.python_version()}, NumPy {np.__version__}",
        "valid": target.valid,
        "weights": {cohort: list(row) for cohort, row in target.blend.weights.items()},
        "means": [*rows(outcomes, new), *rows(outcomes, known), *rows(among, new)],
        "louder": [*rows(louder, new), *rows(louder, known)],
        "tests": [
            *compare([outcomes[0], *outcomes[2:]], [new], "ndcg@10", main="blend", seed=seed).to_dicts(),
            *compare(among, [new], "ndcg@10", main="blend, among new", seed=seed).to_dicts(),
            *compare(outcomes[:2], [known], "ndcg@10", main="blend", seed=seed).to_dicts(),
        ],
    }


def rows(outcomes: list, part: Slice) -> list[dict[str, object]]:
    return summarise(outcomes, part, ["ndcg@10"]).to_dicts()


#: What is shown of single methods, as far as a set has them.
SHOWN = ("tfidf", "text", "aligned", "towers")


def markdown(folder: Path) -> str:
    preface = folder / "preface.md"
    lines = [preface.read_text(encoding="utf-8").strip() if preface.is_file() else "# New items", ""]
    said = [
        json.loads(file.read_text(encoding="utf-8")) for name in SETS if (file := folder / f"{name}.json").is_file()
    ]
    lines += ["## Among all items", ""]
    lines += [
        f"| set | persons | new | {' | '.join(SHOWN)} | blend [95 %] | ratio | p (Holm) | warm: silent | warm | tfidf |"
    ]
    lines += ["|---" * (len(SHOWN) + 9) + "|"]
    for data in said:
        found = {(row["slice"], row["system"]): row for row in data["means"]}
        known = [found["known item", system]["mean"] for system in ("blend, no new item", "blend", "tfidf")]
        silent, warm, plain = known
        lines.append(
            f"| {data['set']} | {data['persons']:,} | {data['new']} | {line(data, '')} | {silent:.4f} "
            f"| {warm:.4f} ({100 * (warm / max(silent, 1e-9) - 1):+.1f} %) | {plain:.4f} |"
        )
    lines += ["", "## What louder new items would cost, on test", ""]
    lines += [f"| set | tfidf | {' | '.join(f'at most {price:.0%} lost' for price in PRICES)} |", "|---" * 6 + "|"]
    lines += [f"| {data['set']} | {' | '.join(prices(data))} |" for data in said]
    lines += ["", "## Ranked among new items only", ""]
    lines += [
        f"| set | {' | '.join(SHOWN)} | blend [95 %] | ratio | p (Holm) | fit s |",
        "|---" * (len(SHOWN) + 5) + "|",
    ]
    lines += [f"| {data['set']} | {line(data, ', among new')} | {data['fit_seconds']:.0f} |" for data in said]
    return "\n".join(lines) + "\n"


def prices(data: dict) -> list[str]:
    """Return N@10 of new items with TF-IDF, and the most that louder ones reach for each price of known ones."""
    found = {(row["slice"], row["system"]): row["mean"] for row in [*data["means"], *data["louder"]]}
    silent = found["known item", "blend, no new item"]
    tried = ["blend", *(f"blend + {by:g}" for by in LOUDER)]
    cells = [f"{found['new item', 'tfidf']:.4f}"]
    for price in PRICES:
        borne = [found["new item", name] for name in tried if found["known item", name] >= (1 - price) * silent]
        cells.append(f"{max(borne):.4f}" if borne else "–")
    return cells


def line(data: dict, mark: str) -> str:
    """Return the cells of single methods, and of the blend with its ratio to TF-IDF and the test of it."""
    found = {row["system"]: row for row in data["means"] if row["slice"] == "new item"}
    test = {row["system"]: row for row in data["tests"] if row["slice"] == "new item"}
    cells = [f"{found[name + mark]['mean']:.4f}" if name + mark in found else "–" for name in SHOWN]
    blend, plain = found[f"blend{mark}"], found[f"tfidf{mark}"]["mean"]
    reach = f"{blend['mean']:.4f} [{blend['low']:.4f}, {blend['high']:.4f}]"
    ratio = blend["mean"] / max(plain, 1e-9)
    return " | ".join([*cells, reach, f"{ratio:.2f}", f"{test[f'tfidf{mark}']['p_holm']:.4f}"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("out/new-items"))
    parser.add_argument("--budget", type=float, default=90, help="seconds of tuning; a busy machine needs more")
    parser.add_argument("--persons", type=int, default=3000, help="validation and test persons, at most")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--untuned", action="store_true", help="every method as it is by default")
    parser.add_argument("--id-dropout", type=float, default=0.0, help="of the sequence model, untuned")
    parser.add_argument("--epochs", type=float, default=6, help="of the sequence model, untuned")
    parser.add_argument("--practise", action="store_true", help="the sequence model has a say about new items")
    options = parser.parse_args()
    own = {"id_dropout": options.id_dropout, "epochs": options.epochs, "sources": False} if options.untuned else {}
    settings = FitSettings(
        methods=options.methods,
        budget=options.budget,
        persons=options.persons,
        seed=options.seed,
        settings={"sequence": own} if own and "sequence" in options.methods else {},
        practise=options.practise,
    )
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for name in options.sets:
            data = measure(name, Path(folder), settings, plain=options.untuned)
            print(json.dumps(data), flush=True)
            (options.out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")


if __name__ == "__main__":
    main()
