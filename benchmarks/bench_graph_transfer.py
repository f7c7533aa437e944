"""Does a graph carry taste between books and films? LibraryThing and MovieLens in one corpus, no person in both.

    ISTHMUS_DATA=... python benchmarks/bench_graph_transfer.py --out benchmarks/reports/NAME

Leave-last; a tenth of the items of each domain lose all training events. Per domain, scored by the graph alone:
its own graph against both graphs together; and a small network over vectors of both graphs that learned from people of
the other domain (zero-shot), of this one, of both, of nobody. Writes transfer.json, which bench_fusion.py puts into
its page.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from bench_fusion import CONFIGS, DATA, PERSONS, blend_of, hide
from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus
from isthmus.encode.graph import Graph
from isthmus.evaluate.compare import slices
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.evaluate.verdict import Verdict
from isthmus.model import fused
from isthmus.model.base import Features, Method
from isthmus.model.graph import GraphContent
from isthmus.recommender.facade import System
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import Target, training_data

PLATFORMS = {"books": "librarything", "movies": "movielens"}
#: The arm that is judged, and the arm it is compared with.
QUESTIONS = (
    ("both graphs", "own graph"),
    ("network from the other domain", "vectors, nothing learned"),
    ("network from the other domain", "network from this domain"),
    ("network from both", "network from this domain"),
)


def joint(folder: Path) -> Corpus:
    """Return both sets as one corpus; the relations of each keep their names, entities are DBpedia's in both."""
    first, second = (
        (CONFIGS / f"{name}.toml").read_text("utf-8") for name in ("librarything", "movielens_latest_small")
    )
    root = os.environ.get("ISTHMUS_DATA", str(CONFIGS / "../../shared/data"))
    spec = first + second[second.index("[[source]]") :]
    (folder / "joint.toml").write_text(spec.replace(DATA, str(Path(root).resolve())), "utf-8")
    return import_corpus(folder / "joint.toml", folder / "joint")


def own_graph(corpus: Corpus, domain: str) -> Graph:
    """Return the edges of one domain's files: those whose relations lie near its items only."""
    links = corpus.links.filter(pl.col("platform") == PLATFORMS[domain])
    near = pl.col("head").is_in(links["entity"].implode()) | pl.col("tail").is_in(links["entity"].implode())
    relations = corpus.edges.filter(near).group_by("relation").len()
    other = corpus.edges.filter(~near).group_by("relation").len("far")
    mostly = relations.join(other, on="relation", how="left").filter(pl.col("len") > pl.col("far").fill_null(0))
    return Graph(corpus.edges.join(mostly, on="relation", how="semi"), links)


def on(method: Method, target: np.ndarray, features: Features) -> Method:
    """Return what a method learned, at work on another target."""
    again = type(method)(method.settings)
    again.target, again.n_items = target, method.n_items
    again.restore(method.state(), features)
    return again


def outcome(method: Method, name: str, task: Task) -> Outcome:
    new = task.item_groups["new item"]
    return judge(System(Target(task.domain, task.items, new, [method], blend_of(method.name)), name=name), task)


def once(make: object) -> object:
    """Return the factors of a graph, made the first time only: seeds differ in the network alone."""
    kept: dict[int, object] = {}

    def factors(ties: object, dim: int, *, seed: int = 0) -> object:  # noqa: ARG001
        if id(ties) not in kept:
            kept[id(ties)] = make(ties, dim)
        return kept[id(ties)]

    return factors


def networks(split: Split, features: Features, seeds: int) -> dict[str, list[Method]]:
    """Return the networks that learned from nobody, books people, films people, both; by seed."""
    shown = Features(graph=features.graph)
    data = training_data(split, TEST, "books", shown)
    found: dict[str, list[Method]] = {"nobody": [fused.FusedContent({"how": "concat"}).fit(data)]}
    for who, some in [("books", split.only("books")), ("movies", split.only("movies")), ("both", split)]:
        taught = training_data(some, TEST, "books", shown)
        found[who] = [fused.FusedContent({"how": "gated"}).fit(taught, seed=seed) for seed in range(seeds)]
    return found


def arms(corpus: Corpus, split: Split, features: Features, nets: dict[str, list[Method]], domain: str) -> dict:
    task = build_task(split, TEST, domain, most=PERSONS)
    target, other = target_items(split, domain), next(name for name in PLATFORMS if name != domain)
    known = own_graph(corpus, domain)
    found = {}
    for name, ties, some in [
        ("own graph", known.neighbours(corpus.items), target), ("both graphs", features.graph, None),
    ]:  # fmt: skip
        data = training_data(split, TEST, domain, Features(graph=ties))
        method = GraphContent({"learned": False}).fit(data)
        method.idf = ties.idf(known=some)
        found[name] = [outcome(on(method, target, Features(graph=ties)), name, task)]
    shown = Features(graph=features.graph)
    for name, who in [
        ("vectors, nothing learned", "nobody"), ("network from the other domain", other),
        ("network from this domain", domain), ("network from both", "both"),
    ]:  # fmt: skip
        found[name] = [outcome(on(method, target, shown), name, task) for method in nets[who]]
    return found


def rows(domain: str, found: dict[str, list[Outcome]]) -> list[str]:
    task = next(iter(found.values()))[0].task
    parts = [part for part in slices(task) if part.name in ("known item", "new item")]
    heads = ["all", *(part.name for part in parts)]
    counts = [len(task), *(int(part.persons.sum()) for part in parts)]
    lines = [
        "",
        f"| {domain}, N@10 | " + " | ".join(f"{h} (n = {n})" for h, n in zip(heads, counts, strict=True)) + " |",
    ]
    lines += ["|---" * (len(heads) + 1) + "|"]
    for name, runs in found.items():
        each = [np.mean([run.mean("ndcg@10") for run in runs])]
        each += [np.mean([np.nanmean(part.values(run, ["ndcg@10"])) for run in runs]) for part in parts]
        lines.append(f"| {name} | " + " | ".join(f"{value:.4f}" for value in each) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    fused.factors = once(fused.factors)  # type: ignore[assignment]
    with TemporaryDirectory() as work:
        corpus = joint(Path(work))
        split = hide(Split.make(corpus, protocol="leave-last"), 0)
        graph = Graph(corpus.edges, corpus.links)
        features = Features(graph=graph.neighbours(corpus.items))
        ends = [set(own_graph(corpus, domain).entities) for domain in PLATFORMS]
        nets = networks(split, features, options.seeds)
        lines = [
            "## Transfer through the graph: LibraryThing and MovieLens", "",
            f"One corpus, {corpus.items.height:,} items, {corpus.edges.height:,} edges, no person in both; the "
            f"two graphs share {len(ends[0] & ends[1]):,} of {len(ends[0] | ends[1]):,} entities and no relation; "
            f"{options.seeds} seeds of each network.",
        ]  # fmt: skip
        verdicts = []
        for domain in PLATFORMS:
            found = arms(corpus, split, features, nets, domain)
            lines += [*rows(domain, found), ""]
            for main_arm, rival in QUESTIONS:
                told = Verdict.of({name: found[name] for name in (main_arm, rival)}, main=main_arm, rivals=(rival,))
                verdicts.append({"domain": domain, "arm": main_arm, "rival": rival, **told.data})
                lines.append(f"- *{domain}*: {told.sentence} **{told.outcome}**")
        data = {"page": [*lines, ""], "verdicts": verdicts, "cpu_seconds": round(time.process_time(), 1)}
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, ensure_ascii=False, indent=1, default=str) + "\n"
    (options.out / "transfer.json").write_text(text, "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
