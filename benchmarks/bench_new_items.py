"""New items on real data: a tenth of the items lose all their events, and are then what people are tested on.

    ISTHMUS_DATA=... python benchmarks/bench_new_items.py --out benchmarks/reports/NAME [SET ...]

Writes SET.json and rebuilds README.md from preface.md and all JSON files of the folder. Nothing row by row enters it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from dataclasses import dataclass, replace
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
from isthmus.rng import generator
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.temporal import CONTEXT, TEST
from isthmus.train.fit import FitSettings, Target

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


@dataclass
class Silent:
    """The blend of a target, never listing a new item."""

    target: Target
    name: str = "blend, no new item"

    def score(self, histories: im.Histories) -> np.ndarray:
        """Return the blend's scores, minus infinity for new items."""
        scores = System(self.target).score(histories)
        scores[:, self.target.new] = -np.inf
        return scores


@dataclass
class Among:
    """A system that lists new items only."""

    system: RankingSystem
    target: Target

    @property
    def name(self) -> str:
        """The system's, and that it lists new items only."""
        return f"{self.system.name}, among new"

    def score(self, histories: im.Histories) -> np.ndarray:
        """Return the system's scores, minus infinity for known items."""
        scores = self.system.score(histories)
        scores[:, ~self.target.new] = -np.inf
        return scores


def hide(split: im.Split, domain: str, share: float, seed: int) -> im.Split:
    """Return the split without any event before test on a share of the items of ``domain`` that have some."""
    known = split.events.filter((pl.col("part") < TEST) | (pl.col("part") == CONTEXT))["item"].unique().to_numpy()
    items = np.intersect1d(target_items(split, domain), known)
    gone = generator(seed, "new items").choice(items, int(share * items.size), replace=False)
    hidden = np.zeros(split.corpus.items.height, dtype=bool)
    hidden[gone] = True
    kept = (pl.col("part") == TEST) | ~pl.Series(hidden).gather(split.events["item"])
    return im.Split(split.corpus, split.events.filter(kept), split.card)


def measure(name: str, folder: Path, settings: FitSettings) -> dict[str, object]:
    seed, persons = settings.seed, settings.persons
    spec, protocol, domain = SETS[name]
    split = im.Split.make(corpus_of(spec, folder), protocol=protocol, valid_share=0.1, test_share=0.1)
    split = hide(split, domain, 0.1, seed)
    start = time.perf_counter()
    model = im.Recommender.fit(split, targets=[domain], settings=settings)
    seconds = time.perf_counter() - start
    target, task = model.targets[domain], build_task(split, TEST, domain, most=persons)
    plain = System(replace(target, blend=replace(target.blend, voice=None, level=0.0)), name="blend, no voice")
    alone = [model.system(domain, method.name) for method in target.methods if method.inductive]
    outcomes = [judge(one, task, ks=(10,)) for one in (model.system(domain), *alone, plain, Silent(target))]
    among = [judge(Among(one, target), task, ks=(10,)) for one in (model.system(domain), *alone)]
    parts = {part.name: part for part in slices(task)}
    new, known = parts["new item"], parts["known item"]
    return {
        "set": name,
        "domain": domain,
        "protocol": protocol,
        "fingerprint": split.corpus.fingerprint,
        "seed": seed,
        "methods": list(target.blend.methods),
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
        "tests": [
            *compare(outcomes[: len(alone) + 1], [new], "ndcg@10", main="blend", seed=seed).to_dicts(),
            *compare(among, [new], "ndcg@10", main="blend, among new", seed=seed).to_dicts(),
            *compare([outcomes[0], outcomes[-1]], [known], "ndcg@10", main="blend", seed=seed).to_dicts(),
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
    lines += ["", "## Ranked among new items only", ""]
    lines += [
        f"| set | {' | '.join(SHOWN)} | blend [95 %] | ratio | p (Holm) | fit s |",
        "|---" * (len(SHOWN) + 5) + "|",
    ]
    lines += [f"| {data['set']} | {line(data, ', among new')} | {data['fit_seconds']:.0f} |" for data in said]
    return "\n".join(lines) + "\n"


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
    options = parser.parse_args()
    settings = FitSettings(methods=options.methods, budget=options.budget, persons=options.persons, seed=options.seed)
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for name in options.sets:
            data = measure(name, Path(folder), settings)
            print(json.dumps(data), flush=True)
            (options.out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")


if __name__ == "__main__":
    main()
