"""People cut off from a target: what their events elsewhere are worth, and what adapting to a few events is.

    ISTHMUS_DATA=... python benchmarks/bench_people.py --out benchmarks/reports/NAME [--keeps 0,3] [SET:DOMAIN ...]

Some people keep only their newest 0, 1, 3 or 5 events of the target domain; only they choose (validation) and are
measured (test). With source: all events, with the bridge. Without: the events of the target alone. Each arm is tuned
and blended on validation people who were cut off in the same way. Writes SET-DOMAIN-KEEP.json, and README.md from all
of these, words.md and what bench_meta.py wrote; prints the rows as one JSON object. Nothing row by row of the data
enters a report.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from sklearn.utils.extmath import randomized_svd

import isthmus as im
from isthmus.data.importer import import_corpus
from isthmus.evaluate.compare import Slice, compare, summarise
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.evaluate.stats import holm
from isthmus.model.base import Features
from isthmus.recommender.facade import System
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.rng import generator
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, TRAIN, VALID, Split
from isthmus.train.fit import FitSettings, fit_target
from isthmus.train.methods import METHODS

HERE = Path(__file__).parent
#: Set -> (spec, protocol).
SETS = {"fedcsr": ("fedcsr", "time"), "five": ("five_platforms", "leave-last")}
CELLS = [
    *(f"five:{domain}" for domain in ("Beauty", "Toys", "Sports", "Food", "Kitchen")),
    "fedcsr:Food",
    "fedcsr:Kitchen",
]
#: Share of the people with events elsewhere who are cut off.
SHARE = 0.4
#: Fewer settings than the library tries, both arms alike: the machine is small.
NARROW = {
    "recent": {"half_life": (30.0, 7.0, 3.0)},
    "knn": {"sources": (True, False), "fame": (0.3, 0.1), "decay": (0.7, 0.9)},
    "tfidf": {"sources": (True,)},
    "bridge": {
        "half_life": (30.0, 7.0),
        "kind": ("ridge", "meta"),
        "loud": (0.1, 0.3, 0.05),
        "text": (0.5, 0.0, 1.0),
        "fame": (0.3, 0.0),
    },
}
#: Goals of the ratio of N@10 with source to the best without, by target events kept.
GOALS = {0: 1.5, 3: 1.2}


def corpus_of(spec: str, folder: Path) -> im.Corpus:
    """Return the corpus; items without a title are left out, and people with events in one domain only."""
    corpus = import_corpus(HERE.parent / "configs" / f"{spec}.toml", folder / spec)
    items = corpus.items.filter(pl.col("title").is_not_null())
    events = corpus.events.join(items, on=["platform", "item"], how="semi", maintain_order="left")
    found = events.join(corpus.identities, on=["platform", "user"]).join(items, on=["platform", "item"])
    shared = found.group_by("person").agg(pl.col("domain").n_unique()).filter(pl.col("domain") > 1)
    identities = corpus.identities.join(shared, on="person", how="semi", maintain_order="left")
    events = events.join(identities, on=["platform", "user"], how="semi", maintain_order="left")
    notes = {key: corpus.manifest[key] for key in ("time", "cleaning") if key in corpus.manifest}
    tables = {"events": events, "items": items, "identities": identities}
    return im.Corpus.from_tables(tables, name=corpus.name, notes=notes)


def features_of(split: Split) -> Features:
    """Return the words of items, and 64 factors of the words as their vectors: the bridge reads those."""
    read = Readers(vocabulary(split), None, vectors=False).read(split.corpus.items)
    _, _, axes = randomized_svd(read.text, 64, n_iter=2, random_state=0)
    return replace(read, vectors=np.asarray(read.text @ axes.T, dtype=np.float32))


def cut_off(split: Split, domain: str, keep: int, seed: int = 0) -> Split:
    """Return the split in which only people who were cut off from ``domain``, and are elsewhere, are asked about it."""
    cut = split.few_shot(domain, keep=keep, share=SHARE, seed=seed)
    chosen = pl.Series(generator(seed, "few-shot", domain).random(len(split.corpus.persons)) < SHARE)
    inside = cut.corpus.items["domain"].gather(cut.events["item"]) == domain
    events = cut.events.with_columns(chosen=chosen.gather(cut.events["person"]), inside=inside)
    elsewhere = (~pl.col("inside") & (pl.col("part") == TRAIN)).any().over("person")
    asked = pl.col("inside") & pl.col("part").is_in([VALID, TEST])
    kept = events.filter(~asked | (pl.col("chosen") & elsewhere)).drop("chosen", "inside")
    return Split(cut.corpus, kept, {**cut.card, "asked": "cut off, with events elsewhere"})


def arm(split: Split, domain: str, features: Features, methods: tuple[str, ...], task_of: Split) -> list[Outcome]:
    """Return the blend and each of its methods on the test people of ``task_of``."""
    fitted = fit_target(split, domain, features, FitSettings(methods=methods, budget=3600.0))
    task = build_task(task_of, TEST, domain)
    systems = [System(fitted), *(System(fitted, name=m.name, method=m.name) for m in fitted.methods)]
    weights = {c: dict(zip(fitted.blend.methods, row, strict=True)) for c, row in fitted.blend.weights.items()}
    print(domain, "weights", {c: {n: round(w, 2) for n, w in row.items()} for c, row in weights.items()}, flush=True)
    print({method.name: method.settings for method in fitted.methods}, flush=True)
    return [judge(system, task, ks=(10,), threads=1) for system in systems]


def measure(split: Split, features: Features, domain: str, keep: int) -> dict[str, object]:
    """Return one cell: both arms, the best rival, the ratio and the paired test."""
    start = time.process_time()
    cut = cut_off(split, domain, keep)
    dated = () if split.corpus.order_only else ("recent",)
    content = ("tfidf",) if keep else ()
    without = arm(cut.only(domain), domain, features, ("popularity", *dated, *(("knn", *content) if keep else ())), cut)
    with_source = arm(cut, domain, features, ("popularity", *dated, "knn", *content, "bridge"), cut)
    rivals = [replace(out, system=f"no source: {out.system}") for out in without]
    mine = [replace(out, system=f"source: {out.system}") for out in with_source]
    best = max(rivals, key=lambda out: out.mean("ndcg@10"))
    everybody = Slice("all", np.ones(len(best.task), dtype=bool))
    test = compare([mine[0], best], [everybody], "ndcg@10", main=mine[0].system).to_dicts()[0]
    rows = summarise([*mine, *rivals], everybody, ["ndcg@10", "recall@10"]).to_dicts()
    value, other = mine[0].mean("ndcg@10"), best.mean("ndcg@10")
    return {
        "domain": domain, "keep": keep, "persons": len(best.task), "items": int(best.task.items.size),
        "protocol": cut.card, "systems": rows, "best rival": best.system, "ndcg@10": value, "rival": other,
        "ratio": value / other if other else None, "goal": GOALS.get(keep), "test": test,
        "cpu_seconds": round(time.process_time() - start, 1),
    }  # fmt: skip


def page(folder: Path) -> str:
    """Return the README of all cells of ``folder``."""
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*-*-[0-9].json"))]
    corrected = holm([cell["test"]["p"] for cell in cells])
    lines = [
        "# New people: what their events elsewhere are worth", "",
        "`python benchmarks/bench_people.py --out …`; "
        f"{platform.platform()}, Python {platform.python_version()}, torch {version('torch')}, one thread.", "",
        f"{SHARE:.0%} of the people keep their newest 0, 1, 3 or 5 events of the target; only those with events",
        "elsewhere choose and are measured. Whole catalogue, history excluded. Only people with events in two or more",
        "domains, only items with a title. The best rival is the best on *test* of all methods, and their blend, that",
        "see the target alone.",
        "", "| set | target | kept | people | items | N@10 with source | best without | ratio | goal "
        "| difference [95 %] | p | p (Holm) | CPU s |", "|---" * 13 + "|",
    ]  # fmt: skip
    for cell, p in zip(cells, corrected, strict=True):
        test = cell["test"]
        gap = f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]"
        ratio = "–" if cell["ratio"] is None else f"{cell['ratio']:.2f}"
        lines.append(
            f"| {cell['set']} | {cell['domain']} | {cell['keep']} | {cell['persons']:,} | {cell['items']:,} "
            f"| {cell['ndcg@10']:.4f} | {cell['rival']:.4f} ({cell['best rival'].removeprefix('no source: ')}) "
            f"| {ratio} | {cell['goal'] or ''} | {gap} | {test['p']:.4f} | {p:.4f} | {cell['cpu_seconds']:.0f} |"
        )
    for name in ("words.md", "meta.md", *sorted(file.name for file in folder.glob("meta-*.md"))):
        if (folder / name).is_file():
            lines += ["", (folder / name).read_text(encoding="utf-8").strip()]
    for cell in cells:
        lines += ["", f"## {cell['set']}: {cell['domain']}, {cell['keep']} kept", ""]
        lines += [f"Data `{cell['protocol']['fingerprint'][:12]}`, {cell['protocol']['protocol']}.", ""]
        lines += ["| system | N@10 [95 %] |", "|---|---|"]
        lines += [
            f"| {row['system']} | {row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}] |"
            for row in cell["systems"]
            if row["metric"] == "ndcg@10"
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cells", nargs="*", default=CELLS)
    parser.add_argument("--out", type=Path, default=Path("out/people"))
    parser.add_argument("--keeps", default="0,3,1,5")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name, grid in NARROW.items():
        METHODS[name].grid = grid
    options.out.mkdir(parents=True, exist_ok=True)
    splits: dict[str, tuple[Split, Features]] = {}
    rows = []
    with TemporaryDirectory() as folder:
        for keep in (int(word) for word in options.keeps.split(",")):
            for name in options.cells:
                kind, domain = name.split(":")
                if kind not in splits:
                    spec, protocol = SETS[kind]
                    split = Split.make(corpus_of(spec, Path(folder)), protocol=protocol)
                    splits[kind] = split, features_of(split)
                cell = {"set": kind, **measure(*splits[kind], domain, keep)}
                file = options.out / f"{kind}-{domain}-{keep}.json"
                file.write_text(json.dumps(cell, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
                (options.out / "README.md").write_text(page(options.out), encoding="utf-8")
                rows.append({key: cell[key] for key in ("set", "domain", "keep", "ndcg@10", "rival", "ratio")})
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
