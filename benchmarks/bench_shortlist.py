"""Lists from a shortlist against lists from every item's score, on real data, at sizes where both can be had.

    ISTHMUS_DATA=... python benchmarks/bench_shortlist.py [--out FOLDER] [DATASET:DOMAIN ...]

The shortlist is made as it is for a large catalogue: vectors through the graph, few of the words of a text, and each
method proposes a small part of the items. Then a fifth of the items is withdrawn and as many new ones come in four
steps. Writes shortlist.json and README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

import isthmus as im
from bench_methods import SETS, corpus_of
from isthmus.data.sequences import Histories
from isthmus.evaluate.ranks import top_k
from isthmus.index.ann import make_index
from isthmus.model.blend import COHORTS, Blend
from isthmus.recommender import nearest, shortlist, sketches
from isthmus.recommender.items import with_items
from isthmus.recommender.people import People
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.recommender.serving import Scorer
from isthmus.recommender.shortlist import Shortlist, Wanted
from isthmus.recommender.store import Content
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST
from isthmus.train.fit import Target, training_data
from isthmus.train.methods import make
from isthmus.types import Indices

DEFAULT = ("fedcsr:Food", "fedcsr:Kitchen", "steam:games")
#: Methods and their weights in the blend.
METHODS = {
    "popularity": 0.05,
    "recent": 0.1,
    "launch": 0.05,
    "knn": 0.25,
    "tfidf": 0.2,
    "text": 0.1,
    "aligned": 0.15,
    "ials": 0.1,
}
#: The methods whose lists are compared: all that the blend weighs, and the three of the benchmark of the service.
SOME = ("popularity", "knn", "tfidf")
K = 20
WIDE = 100
PERSONS = 150
#: Items that each method proposes, and entries of the inverted index that are looked at.
SETTINGS = ((1000, 200_000), (300, 50_000))


def lists(target: Target, histories: Histories, off: Indices) -> tuple[list[np.ndarray], float]:
    """Return the exact lists of 100, and the milliseconds of processor time that one takes."""
    scorer, found, took = Scorer(target), [], 0.0
    out = np.isin(target.items, off)
    for place in range(len(histories)):
        one = histories.take(np.array([place]))
        start = time.process_time()
        scores = scorer.score(one)
        scorer.seen(one, scores)
        scores[:, out] = -np.inf
        best = top_k(scores, WIDE)[0]
        took += time.process_time() - start
        found.append(best[best >= 0])
    return found, 1000 * took / len(histories)


def short(made: Shortlist, histories: Histories, off: Indices) -> tuple[list[np.ndarray], float, int]:
    """Return the lists of a shortlist, milliseconds, and how often everything had to be scored."""
    found, took, gave_up = [], 0.0, 0
    for place in range(len(histories)):
        one = histories.take(np.array([place]))
        start = time.process_time()
        picked = made.pick(one, Wanted(WIDE, one, lambda items: ~np.isin(items, off)))[0]
        took += time.process_time() - start
        gave_up += picked is None
        found.append(np.empty(0, np.int64) if picked is None else picked.columns)
    return found, 1000 * took / len(histories), gave_up


def gain(found: list[np.ndarray], task: Task) -> float:
    """Return the mean NDCG@10 of lists of columns."""
    worth, total = 1 / np.log2(np.arange(2, 12)), 0.0
    for place, columns in enumerate(found):
        right = task.targets[task.target_indptr[place] : task.target_indptr[place + 1]]
        hits = np.isin(columns[:10], right)
        total += float(worth[: hits.size][hits].sum() / worth[: min(10, right.size)].sum())
    return total / len(found)


def against(target: Target, made: Shortlist, task: Task, off: Indices) -> dict[str, float]:
    histories = task.histories
    right, slow = lists(target, histories, off)
    found, quick, gave_up = short(made, histories, off)
    shared = [np.isin(a[:K], b[:K]).mean() for a, b in zip(right, found, strict=True) if b.size]
    wide = [np.isin(a, b).mean() for a, b in zip(right, found, strict=True) if b.size]
    return {
        "recall@20": float(np.mean(shared)),
        "recall@100": float(np.mean(wide)),
        "ndcg@10 exact": gain(right, task),
        "ndcg@10": gain(found, task),
        "exact_ms": slow,
        "ms": quick,
        "all_scored": gave_up,
    }


def churned(model: im.Recommender, domain: str, made: Shortlist) -> tuple[Target, Shortlist, Indices]:
    """Return what is known after a fifth of the items went and as many, like others, came in four steps."""
    rng = np.random.default_rng(7)
    content, items = model.content, model.targets[domain].items
    off = rng.choice(items, items.size // 5, replace=False).astype(np.int32)
    like = rng.choice(items, items.size // 5, replace=False)
    for step, some in enumerate(np.array_split(like, 4)):
        new = content.items[some].with_columns(item=pl.format("again-{}-{}", pl.lit(step), pl.int_range(some.size)))
        content = with_items(content, new)
        made = Shortlist(content.targets[domain], made)
    return content.targets[domain], made, off


def fitted(split: im.Split, domain: str) -> im.Recommender:
    """Return a model of methods with their usual settings, and a blend with the weights above."""
    readers = Readers(vocabulary(split), vectors=True)
    features = readers.read(split.corpus.items)
    data = training_data(split, TEST, domain, features)
    methods = [make(name).fit(data) for name in METHODS]
    blend = Blend(tuple(METHODS), dict.fromkeys(COHORTS, tuple(METHODS.values())))
    target = Target(domain, data.target, data.popularity[data.target] == 0, methods, blend)
    content = Content({domain: target}, split.corpus.items, People.of(split), readers, features, {})
    return im.Recommender(content)


def measure(name: str, domain: str, folder: Path) -> list[dict[str, object]]:
    spec, protocol, _ = SETS[name]
    corpus = corpus_of(spec, folder)
    split = im.Split.make(corpus, protocol=protocol, valid_share=0.1, test_share=0.1)
    model = fitted(split, domain)
    task = build_task(split, TEST, domain, most=PERSONS)
    whole, rows = model.targets[domain], []
    places = [whole.blend.methods.index(method) for method in SOME]
    few = whole.blend.without([method for method in whole.blend.methods if method not in SOME])
    plain = type(few)(SOME, {cohort: tuple(row[place] for place in places) for cohort, row in few.weights.items()})
    for label, target in (
        ("all methods", whole),
        (", ".join(SOME), replace(whole, methods=[whole.methods[place] for place in places], blend=plain)),
    ):
        for proposed, entries in SETTINGS:
            shortlist.PROPOSED, shortlist.FOR_A_PLACE, sketches.ENTRIES = proposed, proposed // WIDE, entries
            made, nobody = Shortlist(target), np.zeros(0, np.int32)
            head = {"data": f"{name}: {domain}", "items": target.items.size, "persons": len(task), "blend": label}
            head |= {"proposed": proposed, "entries": entries}
            rows.append({**head, "after": "fit", **against(target, made, task, nobody)})
            print(json.dumps(rows[-1]), flush=True)
            if proposed != SETTINGS[0][0]:
                continue
            content = replace(model.content, targets={domain: target})
            longer, later, off = churned(im.Recommender(content), domain, made)
            rows.append({**head, "after": "a fifth went, a fifth came", **against(longer, later, task, off)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def page(data: dict) -> str:
    lines = [
        "# Lists from a shortlist",
        "",
        f"{data['created']}; {data['machine']}; `python benchmarks/bench_shortlist.py`.",
        f"Lists of {WIDE} for {PERSONS} test persons at most, vectors through the graph. Recall is the share of the",
        "exact list that is listed; time is processor time of a list.",
        "",
        "| data | items | blend | after | proposed, entries | recall@20 | @100 | N@10 exact | N@10 | exact ms | ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        names = ("recall@20", "recall@100", "ndcg@10 exact", "ndcg@10")
        figures = " | ".join(f"{row[name]:.4f}" for name in names)
        lines.append(
            f"| {row['data']} | {row['items']:,} | {row['blend']} | {row['after']} | {row['proposed']:,}, "
            f"{row['entries']:,} | {figures} | {row['exact_ms']:.1f} | {row['ms']:.1f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=DEFAULT)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    nearest.make_index = partial(make_index, large=0)
    rows = []
    with TemporaryDirectory() as folder:
        for one in args.sets:
            name, _, domain = one.partition(":")
            rows += measure(name, domain, Path(folder))
    machine = f"{platform.platform()}, {len(os.sched_getaffinity(0))} core(s)"
    data = {"created": datetime.now(UTC).date().isoformat(), "machine": machine, "rows": rows}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "shortlist.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (args.out / "README.md").write_text(page(data), encoding="utf-8")
    print(page(data))


if __name__ == "__main__":
    main()
