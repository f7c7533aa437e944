"""Questions for people of whom nothing is known: which strategy leads to the best list after 1, 3, 5 and 10 answers.

    ISTHMUS_DATA=... python benchmarks/bench_ask.py --out benchmarks/reports/NAME [DATASET ...]

People are held back whole: nothing of them is learned. The newest fifth of a person's events in the target domain is
what the list should hold; an answer is yes if the item is among the events before. Every strategy asks, and the same
list maker makes the list of its answers: the model's blend for the items with yes, plus the person's crowds. The
settings of questions are chosen on other held-back people (validation). Writes ask.json and README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

import isthmus as im
from bench_methods import corpus_of
from isthmus.data.simulate import WORLD, twin_world
from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.ranks import Ranks
from isthmus.evaluate.stats import holm, mean_intervals, sign_flip
from isthmus.model.base import TrainingData
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.rng import generator
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import CONTEXT, TEST, TRAIN, VALID, Split
from isthmus.train.fit import FitSettings, Target, fit_target, training_data
from isthmus.transfer.ask import Asker, AskSettings, asked_all, has_met
from isthmus.transfer.crowds import Answers, Crowds, CrowdSettings

LENGTHS = (1, 3, 5, 10)
#: Data set -> (spec, target domain, domain of the questions, folds).
SETS = {
    "movielens": ("movielens_latest_small", "movies", "movies", 4),
    "librarything": ("librarything", "books", "books", 4),
    "Food, asked about Kitchen": ("fedcsr", "Food", "Kitchen", 1),
    "Food, asked about Food": ("fedcsr", "Food", "Food", 1),
    "Kitchen, asked about Food": ("fedcsr", "Kitchen", "Food", 1),
    "Kitchen, asked about Kitchen": ("fedcsr", "Kitchen", "Kitchen", 1),
    "twin world, asked about the source": ("world", "target", "source", 4),
    "twin world, asked about the target": ("world", "target", "target", 4),
}
METHODS = ("popularity", "knn")
#: Settings tried on validation people; the list's first, then the questions'.
CROWDS = (8, 24, 64)
CROWD = (0.3, 1.0, 3.0, 10.0)
KNOWN = (0.0, 0.5, 1.0, 2.0, 4.0, 16.0)
OURS = ("information, one by one", "information, all at once")
#: People asked at most, of each kind and fold.
PEOPLE = 800
SEED = 7


def held_back(corpus: im.Corpus, domain: str, fold: int) -> Split:
    """Return a split in which some people are validation, some test, and everybody else trains."""
    events = corpus.interactions().with_row_index("row")
    inside = corpus.items["domain"].gather(events["item"]) == domain
    draw = generator(SEED, "held back").permutation(corpus.persons.len())
    size = corpus.persons.len() // 4
    kind = np.full(draw.size, TRAIN)
    kind[draw[fold * size : (fold + 1) * size]] = TEST
    kind[np.roll(draw, -(fold + 1) * size)[:size]] = VALID
    mine = pl.col("inside")
    events = events.with_columns(inside=inside, kind=pl.Series(kind).gather(events["person"]))
    from_end = (mine.cum_sum(reverse=True)).over("person")
    wanted = (mine.sum() / 5).ceil().over("person")
    events = events.with_columns(aim=mine & (from_end <= wanted), n=mine.sum().over("person"))
    after = pl.col("aim").cum_sum().over("person") > 0
    out = (pl.col("kind") != TRAIN) & after & ~pl.col("aim")
    events = events.filter(~out)
    part = pl.when(pl.col("kind") == TRAIN).then(TRAIN).when("aim").then("kind").otherwise(CONTEXT)
    events = events.with_columns(part=part.cast(pl.UInt8))
    # everybody's last fifth must follow on something: people with one event in the domain tell nothing here
    events = events.filter((pl.col("kind") == TRAIN) | (pl.col("n") > 1))
    names = ["person", "item", "event", "weight", "value", "ts", "part"]
    return Split(corpus, events.select(names), {"protocol": "people held back", "fingerprint": corpus.fingerprint})


@dataclass
class Scene:
    """One fold: what was learned, and the people who are asked."""

    target: Target
    data: TrainingData
    valid: Task
    test: Task
    askable: np.ndarray
    values: pl.DataFrame

    @classmethod
    def of(cls, corpus: im.Corpus, domain: str, about: str, fold: int) -> Scene:
        """Return what is learned without the people of one fold."""
        split = held_back(corpus, domain, fold)
        features = Readers(vocabulary(split), None, vectors=False).read(corpus.items)
        quick = FitSettings(methods=METHODS, budget=60, persons=1000, refit=False)
        target = fit_target(split, domain, features, quick)
        data = training_data(split, VALID, domain, features)
        askable = (corpus.items["domain"] == about).to_numpy()
        values = split.events.filter(pl.col("part") == TRAIN).select("person", "item", "value")
        tasks = [build_task(split, part, domain, most=PEOPLE) for part in (VALID, TEST)]
        return cls(target, data, tasks[0], tasks[1], askable, values)

    def met(self, task: Task) -> Callable:
        """Return what tells whether people of a task met items."""
        return has_met(task.histories, self.data.n_items)


def orders(scene: Scene, k: int) -> dict[str, np.ndarray]:
    """Return what the strategies that ask everybody the same ask, best first."""
    levels = scene.values.drop_nulls("value").with_columns(level=(pl.col("value") * 4).round().cast(pl.Int64))
    n_items, people = scene.data.n_items, len(scene.data.histories)
    met = scene.data.popularity.astype(np.float64)
    rated = np.zeros((n_items, 5))
    np.add.at(rated, (levels["item"].to_numpy(), levels["level"].to_numpy().clip(0, 4)), 1)
    share = rated / np.maximum(rated.sum(axis=1, keepdims=True), 1)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
    unmet = 1 - met / people
    parts = share * (met / people)[:, None]
    if not levels.height:  # no values: met or not is all there is
        p = met / people
        entropy = -p * np.log(np.maximum(p, 1e-12)) - unmet * np.log(np.maximum(unmet, 1e-12))
        parts = p[:, None]
    zero = -(parts * np.log(np.maximum(parts, 1e-12))).sum(axis=1) - 0.5 * unmet * np.log(np.maximum(unmet, 1e-12))
    frequency, spread = np.log(np.maximum(met, 1)) / np.log(people), entropy / np.log(5)
    merits = {
        "popularity": met,
        "entropy": entropy,
        "entropy0": zero,
        "log pop × entropy": np.log(np.maximum(met, 1)) * entropy,
        "HELF": 2 * frequency * spread / np.maximum(frequency + spread, 1e-12),
        "random": generator(SEED, "random").random(n_items),
    }
    able = np.flatnonzero(scene.askable & (met > 0))
    return {name: able[np.argsort(-merit[able], kind="stable")[:k]].astype(np.int32) for name, merit in merits.items()}


def values(asker: Asker, target: Target, task: Task, answers: Answers, block: int = 250) -> np.ndarray:
    """Return the N@10 of each person's list."""
    found = []
    for start in range(0, len(task), block):
        stop = min(start + block, len(task))
        some = answers.span(start, stop)
        scores = asker.list_scores(target, some)
        known = some.histories
        place = np.searchsorted(target.items, known.items).clip(max=target.items.size - 1)
        seen = target.items[place] == known.items
        scores[known.rows[seen], place[seen]] = -np.inf
        indptr = task.target_indptr[start : stop + 1]
        found.append(ndcg(Ranks.of(scores, indptr - indptr[0], task.targets[indptr[0] : indptr[-1]]), 10))
    return np.concatenate(found)


def chosen(scene: Scene) -> tuple[Asker, dict[str, float]]:
    """Return the asker with the settings that do best on validation people.

    The list's settings are chosen on answers about popular items, so that no rival is left with settings made for us.
    """
    task, met = scene.valid, scene.met(scene.valid)
    popular = asked_all(met, len(task), orders(scene, max(LENGTHS))["popularity"])
    best, reached = None, -1.0
    for crowds in CROWDS:
        made = Crowds.of(scene.data.histories, scene.data.n_items, CrowdSettings(crowds=crowds, seed=SEED))
        for crowd in CROWD:
            asker = Asker(made, scene.askable, AskSettings(crowd=crowd))
            score = np.mean([values(asker, scene.target, task, popular.first(n)).mean() for n in (3, 10)])
            if score > reached:
                best, reached = asker, float(score)
    assert best is not None
    first, reached = best, -1.0
    for known in KNOWN:
        asker = Asker(first.crowds, scene.askable, replace(first.settings, known=known))
        answers = asker.interview(met, len(task), max(LENGTHS))
        score = np.mean([values(asker, scene.target, task, answers.first(n)).mean() for n in LENGTHS])
        if score > reached:
            best, reached = asker, float(score)
    said = {"crowds": best.crowds.share.size, "crowd": best.settings.crowd, "known": best.settings.known}
    return best, said


def measured(corpus: im.Corpus, domain: str, about: str, folds: int) -> dict[str, object]:
    """Return the N@10 of every strategy on all folds together."""
    start = time.perf_counter()
    table: dict[str, dict[int, list[np.ndarray]]] = {}
    yes: dict[str, list[float]] = {}
    settings, bound = [], []
    for fold in range(folds):
        scene = Scene.of(corpus, domain, about, fold)
        asker, said = chosen(scene)
        settings.append(said)
        task, met = scene.test, scene.met(scene.test)
        given = {name: asked_all(met, len(task), items) for name, items in orders(scene, max(LENGTHS)).items()}
        given[OURS[1]] = asked_all(met, len(task), asker.questions(max(LENGTHS)))
        given[OURS[0]] = asker.interview(met, len(task), max(LENGTHS))
        for name, answers in given.items():
            yes.setdefault(name, []).append(answers.yes.sum() / len(task))
            for n in LENGTHS:
                found = values(asker, scene.target, task, answers.first(n))
                table.setdefault(name, {}).setdefault(n, []).append(found)
        table.setdefault("nothing asked", {}).setdefault(0, []).append(
            values(asker, scene.target, task, Answers.none(len(task)))
        )
        h = task.histories
        whole = Answers(len(task), h.rows, h.items, np.ones(h.items.size, bool))
        bound.append(values(asker, scene.target, task, whole))
    joined = {name: {n: np.concatenate(parts) for n, parts in by.items()} for name, by in table.items()}
    return {
        "persons": int(joined["nothing asked"][0].size),
        "fingerprint": corpus.fingerprint,
        "settings": settings,
        "yes": {name: float(np.mean(parts)) for name, parts in yes.items()},
        "nothing": float(joined.pop("nothing asked")[0].mean()),
        "whole history": float(np.concatenate(bound).mean()),
        "systems": {name: {str(n): estimate(found) for n, found in by.items()} for name, by in joined.items()},
        "tests": tests(joined),
        "seconds": round(time.perf_counter() - start, 1),
    }


def estimate(found: np.ndarray) -> dict[str, float]:
    mean, low, high = mean_intervals(found[:, None], rng=generator(SEED, "interval"), draws=1000)
    return {"mean": float(mean[0]), "low": float(low[0]), "high": float(high[0])}


def tests(joined: dict[str, dict[int, np.ndarray]]) -> list[dict[str, object]]:
    """Return ours against each rival after each number of questions, paired over persons, Holm over all rows."""
    rows = []
    for rival in [name for name in joined if name not in OURS]:
        for n in LENGTHS:
            gap = (joined[OURS[0]][n] - joined[rival][n])[:, None]
            p = float(np.asarray(sign_flip(gap, rng=generator(SEED, "test"), draws=5000)).ravel()[0])
            rows.append({"rival": rival, "questions": n, "difference": float(gap.mean()), "p": p})
    for row, p in zip(rows, holm(np.array([row["p"] for row in rows])).tolist(), strict=True):
        row["p_holm"] = float(p)
    return rows


def line(cells: list[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def page(data: dict, preface: str) -> str:
    machine = data["machine"]
    lines = [
        "# Which questions lead to the best list", "",
        f"{data['created']}; {machine['system']}, Python {machine['python']}, numpy {machine['numpy']}, scikit-learn "
        f"{machine['scikit-learn']}, one thread. `python benchmarks/bench_ask.py --out …`; everything: `ask.json`.", "",
        preface.strip(), "",
    ]  # fmt: skip
    for name, found in data["sets"].items():
        told = "; ".join(", ".join(f"{key} {value:g}" for key, value in one.items()) for one in found["settings"])
        lines += [
            f"## {name}", "",
            f"{found['persons']:,} test persons; data `{found['fingerprint'][:12]}`; nothing asked "
            f"{found['nothing']:.4f}, whole history known {found['whole history']:.4f}; settings chosen on "
            f"validation: {told}; "
            f"{found['seconds']:.0f} s.", "",
            line(["N@10 after", *(f"{n} question{'s' * (n > 1)}" for n in LENGTHS), "yes of 10"]),
            line(["---"] * (len(LENGTHS) + 2)),
        ]  # fmt: skip
        marks = {(row["rival"], row["questions"]): row for row in found["tests"]}
        for system, by in found["systems"].items():
            cells = []
            for n in LENGTHS:
                row = marks.get((system, n))
                sign = "" if row is None or row["p_holm"] >= 0.05 else " −" if row["difference"] > 0 else " +"
                cells.append(f"{by[str(n)]['mean']:.4f}{sign}")
            shown = f"**{system}**" if system in OURS else system
            lines.append(line([shown, *cells, f"{found['yes'][system]:.2f}"]))
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("out/ask"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "ask.json"
    data = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"sets": {}}
    with TemporaryDirectory() as folder:
        for name in options.sets or list(SETS):
            spec, domain, about, folds = SETS[name]
            if spec == "world":
                corpus = im.Corpus.from_tables(twin_world(SEED, replace(WORLD, persons=1200)).tables, name="twin world")
            else:
                corpus = corpus_of(spec, Path(folder))
            data["sets"][name] = measured(corpus, domain, about, folds)
            write(data, options.out)
            print(json.dumps({name: data["sets"][name]["systems"]}), flush=True)


def write(data: dict, out: Path) -> None:
    machine = {name: version(name) for name in ("numpy", "polars", "scikit-learn", "isthmus")}
    data["machine"] = {"system": platform.platform(), "python": platform.python_version(), **machine}
    data["created"] = time.strftime("%Y-%m-%d")
    (out / "ask.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    preface = out / "preface.md"
    told = preface.read_text(encoding="utf-8") if preface.exists() else ""
    (out / "README.md").write_text(page(data, told), encoding="utf-8")


if __name__ == "__main__":
    main()
