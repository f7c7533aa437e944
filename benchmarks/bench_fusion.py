"""What graphs and pictures add to texts: new items, people with few events, everybody.

    ISTHMUS_DATA=... python benchmarks/bench_fusion.py --out benchmarks/reports/NAME [SET ...]
    python benchmarks/bench_fusion.py --scale --out benchmarks/reports/NAME

For each set: leave-last; a tenth of the items lose all training events, a third of the people all but one; each method
is tuned once on validation, then a blend is learned for each arm. Writes SET.json, scale.json and README.md. Nothing
row by row, no title and no id of the data enters a report.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus
from isthmus.encode.embed import factors
from isthmus.encode.graph import Graph
from isthmus.encode.modalities import Knowledge
from isthmus.evaluate.compare import compare, everybody, slices
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.model.base import Features, Method
from isthmus.recommender.facade import System
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, TRAIN, Split
from isthmus.train.fit import FitSettings, Fitting
from isthmus.train.methods import make

CONFIGS = Path(__file__).parents[1] / "configs"
DATA = "${ISTHMUS_DATA:-../../shared/data}"
#: Beside the specs of configs/: posters by IMDb number; authors and publishers of Douban's books as edges, and covers.
POSTERS = f"""
[[source]]
kind = "items"
platform = "movielens"
domain = "movies"
path = "{DATA}/movielens_latest_small/links.csv"
columns = {{ item = "movieId", image = "imdbId" }}
files = {{ image = "{DATA}/movie_posters_imdb/posters/tt{{}}.jpg" }}
"""
DOUBAN = f"""
[[source]]
kind = "items"
platform = "douban"
domain = "books"
path = "{DATA}/douban_books_catalog/Books_detail.csv"
columns = {{ item = "ID", title = "Title", image = "ID" }}
files = {{ image = "{DATA}/douban_books_catalog/covers/{{}}.jpg" }}

[[source]]
kind = "items"
platform = "douban"
domain = "books"
path = "{DATA}/douban_books_catalog/book_descriptions.json"
format = "json"
columns = {{ item = "@key", text = "@value" }}

[[source]]
kind = "links"
platform = "douban"
path = "{DATA}/douban_books_doulists/Doulists/*.csv"
rest = true
columns = {{ item = "ID", entity = "ID" }}
""" + "".join(
    f"""
[[source]]
kind = "edges"
path = "{DATA}/douban_books_doulists/Doulists/*.csv"
rest = true
columns = {{ head = "ID", tail = "{column}" }}
relation = "{column.lower()}"
"""
    for column in ("Author", "Publisher")
)
#: Set -> (spec, what is added to it, domain, methods that read texts).
SETS = {
    "librarything": ("librarything", "", "books", ("tfidf", "text")),
    "lastfm": ("lastfm", "", "artists", ("tfidf", "text")),
    "movielens": ("movielens_latest_small", POSTERS, "movies", ("tfidf", "text")),
    "douban": ("douban_books_doulists", DOUBAN, "books", ("tfidf",)),
}
BASE = ("popularity", "knn")
HIDDEN, FEW, PERSONS = 0.1, 0.33, 1500
WANTED = ("all", "warm person", "1-3 events", "new item")


def corpus_of(spec: str, added: str, folder: Path) -> Corpus:
    file = folder / f"{spec}.toml"
    text = (CONFIGS / f"{spec}.toml").read_text("utf-8") + added
    root = os.environ.get("ISTHMUS_DATA", str(CONFIGS / "../../shared/data"))
    file.write_text(text.replace(DATA, str(Path(root).resolve())), encoding="utf-8")
    return import_corpus(file, folder / spec)


def hide(split: Split, seed: int) -> Split:
    """Return the split in which a tenth of the items have no training event."""
    items = np.random.default_rng(seed).random(split.corpus.items.height) < HIDDEN
    gone = pl.Series(items).gather(split.events["item"]) & (split.events["part"] == TRAIN)
    return Split(split.corpus, split.events.filter(~gone), split.card)


def thinned(features: Features, share: float) -> Features:
    """Return the features with a share of the ties and of the pictures gone."""
    rng, graph = np.random.default_rng(1), features.graph
    if graph is not None:
        kept = rng.random(graph.rows.size) >= share
        parts = {name: getattr(graph, name)[kept] for name in ("rows", "relation", "entity", "value")}
        graph = replace(graph, **parts)
    more = {name: rows * (rng.random(len(rows)) >= share)[:, None] for name, rows in features.more.items()}
    return replace(features, graph=graph, more={name: rows.astype(np.float32) for name, rows in more.items()})


def reread(method: Method, features: Features) -> Method:
    """Return a method as it is when it sees other features of the items."""
    again = make(method.name, method.settings)
    again.target, again.n_items = method.target, method.n_items
    again.restore(method.state(), features)
    return again


def measure(name: str, folder: Path, budget: float, seed: int = 0) -> dict[str, object]:
    spec, added, domain, texts = SETS[name]
    begun = time.perf_counter()
    corpus = corpus_of(spec, added, folder)
    split = hide(Split.make(corpus, protocol="leave-last"), seed).few_shot(domain, keep=1, share=FEW, seed=seed)
    started = time.perf_counter()
    kinds = ("graph", "image")
    reader = Readers(vocabulary(split), None, vectors="text" in texts, knowledge=Knowledge.of(corpus, kinds))
    features = reader.read(corpus.items)
    read = time.perf_counter() - started
    there = ["graph", *(["image"] if "image" in features.more else [])]
    settings = FitSettings(methods=(*BASE, *texts, *there), budget=budget, persons=PERSONS, refit=False, seed=seed)
    fitting = Fitting(split, domain, features, settings)
    methods = {method.name: method for method in fitting.tune(settings.methods)}
    task = build_task(split, TEST, domain, most=PERSONS)
    arms = {"text": (*BASE, *texts), "text + graph": (*BASE, *texts, "graph")}
    if "image" in there:
        arms["text + image"] = (*BASE, *texts, "image")
        arms["all"] = (*BASE, *texts, "graph", "image")
        arms["all but text"] = (*BASE, "graph", "image")
    outcomes, weights = [], {}
    for arm, names in arms.items():
        kept, blend = fitting.blend([methods[some] for some in names])
        target = fitting.target(kept, blend, kept)
        outcomes.append(judge(System(target, name=arm), task))
        weights[arm] = {cohort: dict(zip(blend.methods, row, strict=True)) for cohort, row in blend.weights.items()}
    fullest = "all" if "all" in arms else "text + graph"
    least = thinned(features, 0.5)
    kept, blend = fitting.blend([methods[some] for some in arms[fullest]])
    outcomes.append(
        judge(System(fitting.target(kept, blend, [reread(m, least) for m in kept]), name="half gone"), task)
    )
    alone = {
        some.name: judge(System(fitting.target([some], blend_of(some.name), [some]), name=some.name), task)
        for some in methods.values()
    }
    graph = methods["graph"]
    relations = dict(zip(features.graph.relations, np.round(graph.state()["weights"], 3).tolist(), strict=True))
    whole = [outcome for outcome in outcomes if outcome.system != "half gone"]
    parts = [part for part in [everybody(task), *slices(task)] if part.name in WANTED]
    return {
        "set": name, "fingerprint": corpus.fingerprint,
        "counts": corpus.manifest["counts"], "graph": corpus.manifest["graph"],
        "persons": len(task), "items": int(task.items.size),
        "pictures": int((features.more["image"] != 0).any(axis=1).sum()) if "image" in features.more else 0,
        "read_seconds": round(read, 1), "seconds": round(time.perf_counter() - begun, 1),
        "relations": relations, "weights": weights, "tuning": fitting.log,
        "alone": {key: means(value, parts) for key, value in alone.items()},
        "arms": {outcome.system: means(outcome, parts) for outcome in outcomes},
        "against text": compare(whole, parts, "ndcg@10", main="text").to_dicts(),
        "contribution": compare(whole, parts, "ndcg@10", main=fullest).to_dicts(),
        "fullest": fullest,
    }  # fmt: skip


def blend_of(name: str):
    from isthmus.model.blend import COHORTS, Blend

    return Blend((name,), dict.fromkeys(COHORTS, (1.0,)))


def means(outcome: Outcome, parts: list) -> dict[str, list[float]]:
    """Return N@10 and the number of persons in each slice."""
    found = {}
    for part in parts:
        values = part.values(outcome, ["ndcg@10"]).ravel()
        found[part.name] = [float(np.nanmean(values)), int(values.size)]
    return found


def scale(edges: int = 1_000_000) -> dict[str, float]:
    """Return how long a drawn graph of a million edges takes to become ties and vectors, and the most memory."""
    rng = np.random.default_rng(0)
    head = rng.integers(0, 200_000, edges)
    tail = 200_000 + (rng.pareto(1.2, edges) * 50).astype(np.int64) % 100_000
    frame = pl.DataFrame({"head": head, "relation": rng.integers(0, 12, edges), "tail": tail}).cast(pl.String)
    items = pl.DataFrame({"platform": "p", "item": np.arange(100_000)}).cast(pl.String)
    start = time.perf_counter()
    graph = Graph(frame, items.with_columns(entity="item"))
    ties = graph.neighbours(items)
    tied = time.perf_counter() - start
    factors(ties, 64)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "edges": graph.edges.height, "entities": graph.entities.len(), "items": items.height,
        "ties": int(ties.rows.size),
        "ties_seconds": round(tied, 1), "seconds": round(time.perf_counter() - start, 1), "peak_gib": round(peak, 2),
    }  # fmt: skip


def table(data: dict) -> list[str]:
    parts = [name for name in WANTED if name in data["arms"]["text"]]
    lines = [
        f"## {data['set']}", "",
        f"{data['persons']:,} test persons, {data['items']:,} items, {data['pictures']:,} with a picture; graph: "
        f"{sum(data['graph']['relations'].values()):,} edges, {data['graph']['linked_items']:,} items linked; "
        f"fingerprint `{str(data['fingerprint'])[:12]}`; "
        f"features read in {data['read_seconds']} s, {data['seconds']} s in all.",
        "", "| N@10 | " + " | ".join(f"{name} (n = {data['arms']['text'][name][1]})" for name in parts) + " |",
        "|---" * (len(parts) + 1) + "|",
    ]  # fmt: skip
    for arm, row in data["arms"].items():
        shown = f"{data['fullest']}, half of ties and pictures gone" if arm == "half gone" else arm
        lines.append(f"| {shown} | " + " | ".join(f"{row[name][0]:.4f}" for name in parts) + " |")
    for arm, row in data["alone"].items():
        lines.append(f"| `{arm}` alone | " + " | ".join(f"{row[name][0]:.4f}" for name in parts) + " |")
    lines += ["", "Difference to text alone (paired over persons, 95 % interval, p by sign flips, Holm-corrected):", ""]
    lines += ["| slice | arm | difference | p |", "|---|---|---|---|"]
    for row in data["against text"]:
        lines.append(
            f"| {row['slice']} | {row['system']} | {-row['difference']:+.4f} [{-row['high']:+.4f}, {-row['low']:+.4f}] "
            f"| {row['p_holm']:.4f} |"
        )
    if data["fullest"] == "all":
        lines += ["", "What each modality contributes: all less the arm without it.", ""]
        lines += ["| slice | modality | contribution | p |", "|---|---|---|---|"]
        without = {"text + image": "graph", "text + graph": "image", "all but text": "text"}
        for row in data["contribution"]:
            if row["system"] in without:
                lines.append(
                    f"| {row['slice']} | {without[row['system']]} | {row['difference']:+.4f} "
                    f"[{row['low']:+.4f}, {row['high']:+.4f}] | {row['p_holm']:.4f} |"
                )
    top = sorted(data["relations"].items(), key=lambda pair: -pair[1])
    lines += ["", "Weights of the relations: " + ", ".join(f"{name} {weight:.2f}" for name, weight in top) + ".", ""]
    return lines


def page(folder: Path) -> str:
    preface = folder / "preface.md"
    lines = ["# Graphs and pictures beside texts", ""]
    lines += [preface.read_text("utf-8").strip(), ""] if preface.exists() else []
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text("utf-8"))
        if file.stem == "scale":
            lines += ["## A graph of a million edges", "", ", ".join(f"{k} {v:,}" for k, v in data.items()) + ".", ""]
        else:
            lines += table(data)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=60)
    parser.add_argument("--scale", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    machine = {"system": platform.platform(), "python": platform.python_version(), "polars": version("polars")}
    jobs = {name: lambda folder, name=name: measure(name, folder, options.budget) for name in options.sets}
    if options.scale:
        jobs["scale"] = lambda _: scale()
    with TemporaryDirectory() as work:
        for name, job in jobs.items():
            data = {**job(Path(work)), **({} if name == "scale" else {"machine": machine})}
            (options.out / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", "utf-8")
            print(json.dumps({"done": name, "seconds": data["seconds"]}), flush=True)
    (options.out / "README.md").write_text(page(options.out), "utf-8")


if __name__ == "__main__":
    main()
