"""Lists of one person on several platforms: how consistent they are, and what calibration costs, on validation.

    ISTHMUS_DATA=... python benchmarks/bench_platforms.py --out benchmarks/reports/NAME [SET ...]

Sets: twin, unrelated (simulated, tastes carry over or not), town (simulated), fedcsr (Amazon Food and Kitchen), five
(Amazon Food, Kitchen, Beauty, Sports, Toys; people with events on two or more; leave-last). Models
learn from train, the weights are compared on valid; test is not read. Prints one JSON object; writes platforms.json, in
which other sets stay, and README.md to the folder. Nothing row by row, no title and no id of the data enters a report.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

import isthmus as im
from bench_people import corpus_of
from isthmus.data.importer import import_corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, town, twin_world, unrelated_world
from isthmus.evaluate.cards import machine_card
from isthmus.evaluate.stats import mean_intervals
from isthmus.recommender.calibration import divergence
from isthmus.recommender.listing import Lister, Rules
from isthmus.recommender.persons import Question, model_consistency
from isthmus.recommender.themes import shares
from isthmus.recommender.works import find_works
from isthmus.rng import generator
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import VALID, Split
from isthmus.train.fit import FitSettings

HERE = Path(__file__).parent
WEIGHTS = (0.0, 0.05, 0.1, 0.3, 0.6)
METHODS = ("popularity", "knn", "tfidf")
PLAN = replace(WORLD, persons=400, items=120)
K = 10


def amazon() -> im.Corpus:
    """Return Food and Kitchen as two platforms, only items with a title."""
    with TemporaryDirectory() as folder:
        corpus = import_corpus(HERE.parent / "configs" / "fedcsr.toml", Path(folder) / "fedcsr")
        items = corpus.items.filter(pl.col("title").is_not_null())
        events = corpus.events.join(items, on=["platform", "item"], how="semi", maintain_order="left")
        domain = events.join(items.select("platform", "item", "domain"), on=["platform", "item"], maintain_order="left")
        accounts = corpus.identities.select("user", "person").unique()
        accounts = accounts.join(pl.DataFrame({"platform": sorted(items["domain"].unique())}), how="cross")
        tables = {
            "events": events.with_columns(platform=domain["domain"]),
            "items": items.with_columns(platform=pl.col("domain")),
            "identities": accounts.select("platform", "user", "person"),
        }
        return im.Corpus.from_tables(tables, name="fedcsr")


def five() -> im.Corpus:
    """Return the five platforms: people with events on two or more, only items with a title."""
    with TemporaryDirectory() as folder:
        return corpus_of("five_platforms", Path(folder))


SETS: dict[str, Callable[[], im.Corpus]] = {
    "twin": lambda: im.Corpus.from_tables(twin_world(0, PLAN).tables, name="twin"),
    "unrelated": lambda: im.Corpus.from_tables(unrelated_world(0, PLAN).tables, name="unrelated"),
    "town": lambda: im.Corpus.from_tables(town(0, persons=800).tables, name="town"),
    "fedcsr": amazon,
    "five": five,
}
#: Sets with an order and no dates everywhere.
UNDATED = ("five",)


def known_before(model: im.Recommender, split: Split, part: int) -> im.Recommender:
    """Return the model as it knew people before ``part``."""
    events = split.known(part).select("person", "item", "event", "weight", "ts")
    return im.Recommender(replace(model.content, people=replace(model.content.people, events=events)))


def ndcg(lists: pl.DataFrame, targets: pl.DataFrame, persons: np.ndarray) -> np.ndarray:
    """Return NDCG@10 of each person's list: index, rank against the items taken (Järvelin and Kekäläinen 2002)."""
    hits = lists.join(targets, left_on=["person", "index"], right_on=["person", "item"], how="semi")
    found, best = np.zeros(persons.size), np.zeros(persons.size)
    np.add.at(found, np.searchsorted(persons, hits["person"].to_numpy()), 1 / np.log2(1 + hits["rank"].to_numpy()))
    counts = targets.group_by("person").len()
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, K + 2)))])
    best[np.searchsorted(persons, counts["person"].to_numpy())] = ideal[np.minimum(counts["len"].to_numpy(), K)]
    return found / best


def trade(model: im.Recommender, split: Split, domain: str, most: int) -> list[dict[str, object]]:
    """Return for each weight N@10 on valid, its difference to weight 0, and the mean divergence of the lists."""
    task = build_task(split, VALID, domain, most=most)
    pairs = {"person": task.persons[task.target_rows], "item": task.items[task.targets]}
    targets = pl.DataFrame(pairs, schema={"person": pl.UInt32, "item": pl.Int32})
    rows, first = [], None
    for weight in WEIGHTS:
        rules = Rules(by_platform=True, calibrate=weight)
        lister = Lister(model.content, model.content.people, rules, k=K, exclude_seen=True, domains=[domain])
        begin = time.perf_counter()
        lists = lister.lists(task.persons)
        seconds = time.perf_counter() - begin
        value = ndcg(lists, targets, task.persons)
        first = value if first is None else first
        shown = np.full((task.persons.size, K), -1, np.int32)
        place = np.searchsorted(task.persons, lists["person"].to_numpy())
        shown[place, lists["rank"].to_numpy() - 1] = lists["index"].to_numpy()
        carried = lister.themes.carried(task.items)
        histories = Histories.from_frame(model.content.people.events, task.persons)
        taste = shares(lister.taste(histories, lister.shelves[0]) * carried)
        away = divergence(taste, lister.themes.of_lists(shown))[taste.sum(axis=1) > 0]
        mean, low, high = mean_intervals(np.stack([value, value - first], axis=1), rng=generator(0, "bench", domain))
        rows.append(
            {
                "weight": weight,
                "ndcg": round(float(mean[0]), 4),
                "difference": round(float(mean[1]), 4),
                "low": round(float(low[1]), 4),
                "high": round(float(high[1]), 4),
                "divergence": round(float(away.mean()), 3),
                "ms_a_person": round(1000 * seconds / task.persons.size, 2),
            }
        )
    return rows


def measure(name: str, budget: float, most: int) -> dict[str, object]:
    """Return the figures of one set."""
    corpus = SETS[name]()
    protocol = "leave-last" if name in UNDATED else "time"
    split = Split.make(corpus, protocol=protocol, valid_share=0.1, test_share=0.1)
    settings = FitSettings(methods=METHODS, budget=budget, refit=False, persons=most)
    model = known_before(im.Recommender.fit(split, settings=settings), split, VALID)
    begin = time.perf_counter()
    pairs = find_works(corpus.items)
    seconds = time.perf_counter() - begin
    said = {
        weight: model_consistency(model, Question(k=K, rules=Rules(by_platform=True, calibrate=weight)), people=500)
        for weight in (0.0, 0.3)
    }
    return {
        "set": name,
        "fingerprint": corpus.fingerprint,
        "protocol": split.card,
        "items": corpus.items.height,
        "consistency": said,
        "calibration": {domain: trade(model, split, domain, most) for domain in sorted(model.targets)},
        "works": {"pairs": pairs.height, "same": int((pairs["same"] == "yes").sum()), "seconds": round(seconds, 1)},
    }


def markdown(data: dict[str, object], preface: str) -> str:
    """Return the report."""
    lines = [preface.strip(), "", "## Consistency", ""]
    lines += ["| set | weight | own | chance | gap [95 %] | consistency | with taste | themes | people |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for found in data["sets"]:  # type: ignore[attr-defined]
        for weight, row in found["consistency"].items():
            gap = f"{row['gap']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
            kind = f"{row['themes']} {row['kind']}"
            values = f"{row['own']:.3f} | {row['chance']:.3f} | {gap} | {row['score']:.2f} | {row['taste_score']:.2f}"
            lines.append(f"| {found['set']} | {weight} | {values} | {kind} | {row['persons']:.0f} |")
    lines += ["", "## Calibration, on valid", ""]
    lines += [
        "| set, domain | weight | N@10 | difference [95 %] | divergence | ms a person |",
        "|---|---|---|---|---|---|",
    ]
    for found in data["sets"]:  # type: ignore[attr-defined]
        for domain, rows in found["calibration"].items():
            for row in rows:
                gap = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"
                values = f"{row['weight']} | {row['ndcg']:.4f} | {gap} | {row['divergence']:.3f} | {row['ms_a_person']}"
                lines.append(f"| {found['set']}, {domain} | {values} |")
    lines += [
        "",
        "## Works",
        "",
        "| set | items | pairs shown | taken for one work | seconds |",
        "|---|---|---|---|---|",
    ]
    for found in data["sets"]:  # type: ignore[attr-defined]
        row = found["works"]
        lines.append(f"| {found['set']} | {found['items']:,} | {row['pairs']:,} | {row['same']:,} | {row['seconds']} |")
    prints = ", ".join(f"{found['set']} `{found['fingerprint'][:12]}`" for found in data["sets"])  # type: ignore[attr-defined]
    lines += ["", f"Data: {prints}. Machine and versions: platforms.json.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=10.0)
    parser.add_argument("--most", type=int, default=2000)
    asked = parser.parse_args()
    found: list[dict[str, object]] = []
    asked.out.mkdir(parents=True, exist_ok=True)
    names = asked.sets or list(SETS)
    if (file := asked.out / "platforms.json").is_file():  # sets measured before stay
        found = [one for one in json.loads(file.read_text(encoding="utf-8"))["sets"] if one["set"] not in names]
    preface = (HERE / "platforms_preface.md").read_text(encoding="utf-8")
    for name in names:
        found.append(measure(name, asked.budget, asked.most))
        data: dict[str, object] = {"machine": machine_card(), "methods": METHODS, "k": K, "sets": found}
        text = json.dumps(data, indent=1, default=str, ensure_ascii=False)
        (asked.out / "platforms.json").write_text(text + "\n", encoding="utf-8")
        (asked.out / "README.md").write_text(markdown(json.loads(text), preface), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
