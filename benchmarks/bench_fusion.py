"""What graphs and pictures add to texts: new items, people with few events, everybody.

    ISTHMUS_DATA=... python benchmarks/bench_fusion.py --out benchmarks/reports/NAME --seeds 3 [SET ...]
    python benchmarks/bench_fusion.py --scale --out benchmarks/reports/NAME

For each set: leave-last; a tenth of the items lose all training events, a third of the people all but one, a tenth all;
each method is tuned once on validation, then a blend is learned for each arm. ``--seeds`` repeats this with other items
and people; differences are paired by person and seed, averaged for each person, and tested over persons. Writes
SET.json, scale.json and README.md. Nothing row by row, no title and no id of the data enters a report.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
import warnings
from dataclasses import dataclass, field, replace
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
from isthmus.evaluate.compare import Slice, everybody, slices
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.evaluate.stats import holm, mean_intervals, sign_flip
from isthmus.model.base import Features, Method
from isthmus.recommender.facade import System
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.rng import generator
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
MORE = ("told", "fused")
HIDDEN, FEW, COLD, PERSONS = 0.1, 0.33, 0.1, 1500
WANTED = ("all", "warm person", "1-3 events", "cold person", "known item", "new item")
#: Arm -> (whether it reads texts, methods beside them); each also has popularity and kNN.
ARMS = {
    "text": (True, ()),
    "text + graph": (True, ("graph",)),
    "text + image": (True, ("image",)),
    "all": (True, ("graph", "image")),
    "all but text": (False, ("graph", "image")),
    "text + told": (True, ("told",)),
    "text + fused": (True, ("fused",)),
}
#: Arm -> what it lacks of all.
WITHOUT = {"text + image": "graph", "text + graph": "image", "all but text": "text"}


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


#: One value a person, seed and slice: arm -> columns.
Values = dict[str, list[pl.DataFrame]]


@dataclass
class Measured:
    """What was measured of one set, over the seeds of what is hidden."""

    facts: list[dict[str, object]] = field(default_factory=list)
    arms: Values = field(default_factory=dict)
    alone: Values = field(default_factory=dict)

    def add(self, table: Values, name: str, outcome: Outcome, parts: list[Slice], seed: int) -> None:
        """Keep what one arm reached in each slice."""
        rows = []
        for part in parts:
            persons = outcome.task.persons[part.persons]
            value = part.values(outcome, ["ndcg@10"]).ravel()
            rows.append(pl.DataFrame({"slice": part.name, "seed": seed, "person": persons, "value": value}))
        table.setdefault(name, []).append(pl.concat(rows))

    def data(self) -> dict[str, object]:
        """Return everything a report says of the set."""
        arms, alone = ({name: pl.concat(rows) for name, rows in table.items()} for table in (self.arms, self.alone))
        first = self.facts[0]
        fullest = str(first["fullest"])
        return {
            **first, "seeds": [fact["seed"] for fact in self.facts], "runs": self.facts[1:],
            "arms": {name: means(rows) for name, rows in arms.items()},
            "alone": {name: means(rows) for name, rows in alone.items()},
            "against text": against(arms, "text", [name for name in arms if name not in ("text", "half gone")]),
            "contribution": against(arms, fullest, [name for name in WITHOUT if name in arms and name != fullest]),
            "half gone": against(arms, fullest, ["half gone"]),
        }  # fmt: skip


def means(rows: pl.DataFrame) -> dict[str, list[float]]:
    """Return N@10 over persons (each the mean of its seeds) and the number of persons in each slice."""
    each = rows.group_by("slice", "person").agg(pl.col("value").mean())
    found = each.group_by("slice").agg(pl.col("value").mean(), n=pl.len())
    return {name: [float(value), int(n)] for name, value, n in found.iter_rows()}


def against(arms: dict[str, pl.DataFrame], main: str, others: list[str]) -> list[dict[str, object]]:
    """Return each other arm minus the main one, paired by person and seed, tested over persons; Holm over all rows."""
    rows = []
    for name in (name for name in others if name in arms):
        pairs = arms[name].join(arms[main], on=["slice", "seed", "person"], suffix="_main")
        each = pairs.group_by("slice", "person", maintain_order=True).agg(
            gap=(pl.col("value") - pl.col("value_main")).mean()
        )
        for part in WANTED:
            gaps = each.filter(pl.col("slice") == part)["gap"].to_numpy()[:, None]
            if gaps.size:
                rng = generator(0, "fusion", part, name)
                mean, low, high = (float(value[0]) for value in mean_intervals(gaps, rng=rng, draws=1000))
                p = float(sign_flip(gaps, rng=rng, draws=10_000)[0])
                rows.append(
                    {"slice": part, "arm": name, "n": gaps.size, "difference": mean, "low": low, "high": high, "p": p}
                )
    for row, p in zip(rows, holm(np.array([row["p"] for row in rows])), strict=True):
        row["p_holm"] = float(p)
    return rows


def measure(name: str, corpus: Corpus, budget: float, seed: int, kept: Measured, more: tuple[str, ...]) -> None:
    """Fit and judge every arm with one seed of what is hidden, and add it to ``kept``."""
    _, _, domain, texts = SETS[name]
    begun, started = time.perf_counter(), time.process_time()
    split = hide(Split.make(corpus, protocol="leave-last"), seed).few_shot(domain, keep=1, share=FEW, seed=seed)
    split = split.few_shot(domain, keep=0, share=COLD, seed=seed + 100)
    more = more if "text" in texts else ()
    knowledge = Knowledge.of(corpus, ("graph", "image", *more))
    features = Readers(vocabulary(split), None, vectors="text" in texts, knowledge=knowledge).read(corpus.items)
    read = time.process_time() - started
    there = ["graph", *(["image"] if "image" in features.more else []), *more]
    settings = FitSettings(methods=(*BASE, *texts, *there), budget=budget, persons=PERSONS, refit=False, seed=seed)
    fitting = Fitting(split, domain, features, settings)
    methods = {method.name: method for method in fitting.tune(settings.methods)}
    task = build_task(split, TEST, domain, most=PERSONS)
    parts = [part for part in [everybody(task), *slices(task)] if part.name in WANTED]
    weights = {}
    arms = {arm: (*BASE, *(texts if with_text else ()), *added) for arm, (with_text, added) in ARMS.items()}
    arms = {arm: names for arm, names in arms.items() if set(names) <= set(methods)}
    fullest = "all" if "all" in arms else "text + graph"
    for arm, names in arms.items():
        chosen, blend = fitting.blend([methods[some] for some in names])
        kept.add(kept.arms, arm, judge(System(fitting.target(chosen, blend, chosen), name=arm), task), parts, seed)
        weights[arm] = {cohort: dict(zip(blend.methods, row, strict=True)) for cohort, row in blend.weights.items()}
        weights[arm]["new items"] = {**dict(zip(blend.methods, blend.voice, strict=True)), "level": blend.level}
        if arm == fullest:
            least = thinned(features, 0.5)
            target = fitting.target(chosen, blend, [reread(method, least) for method in chosen])
            kept.add(kept.arms, "half gone", judge(System(target, name="half gone"), task), parts, seed)
    for some in methods.values():
        target = fitting.target([some], blend_of(some.name), [some])
        kept.add(kept.alone, some.name, judge(System(target, name=some.name), task), parts, seed)
    relations = dict(
        zip(features.graph.relations, np.round(methods["graph"].state()["weights"], 3).tolist(), strict=True)
    )
    kept.facts.append({
        "set": name, "seed": seed, "fingerprint": corpus.fingerprint, "fullest": fullest,
        "counts": corpus.manifest["counts"], "graph": corpus.manifest["graph"],
        "persons": len(task), "items": int(task.items.size),
        "pictures": int((features.more["image"] != 0).any(axis=1).sum()) if "image" in features.more else 0,
        "read_seconds": round(read, 1), "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - started, 1),
        "relations": relations, "weights": weights, "settings": {m.name: m.settings for m in methods.values()},
    })  # fmt: skip


def blend_of(name: str):
    from isthmus.model.blend import COHORTS, Blend

    return Blend((name,), dict.fromkeys(COHORTS, (1.0,)))


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
        f"{data['persons']:,} test persons a seed, {data['items']:,} items, {data['pictures']:,} with a picture; "
        f"graph: {sum(data['graph']['relations'].values()):,} edges, {data['graph']['linked_items']:,} items linked; "
        f"fingerprint `{str(data['fingerprint'])[:12]}`; seeds of what is hidden: {data['seeds']}; "
        f"{data['cpu_seconds']} s of processor time for the first.",
        "", "| N@10 | " + " | ".join(f"{name} (n = {data['arms']['text'][name][1]})" for name in parts) + " |",
        "|---" * (len(parts) + 1) + "|",
    ]  # fmt: skip
    for arm, row in data["arms"].items():
        shown = f"{data['fullest']}, half of ties and pictures gone" if arm == "half gone" else arm
        lines.append(f"| {shown} | " + " | ".join(f"{row[name][0]:.4f}" for name in parts) + " |")
    for arm, row in data["alone"].items():
        lines.append(f"| `{arm}` alone | " + " | ".join(f"{row[name][0]:.4f}" for name in parts) + " |")
    heads = {
        "against text": "Difference to text alone",
        "half gone": f"Half of ties and pictures gone, difference to {data['fullest']}",
        "contribution": f"What each modality contributes: {data['fullest']} minus the arm without it",
    }  # fmt: skip
    for key, head in heads.items():
        if data[key]:
            lines += ["", f"{head} (paired, 95 % interval over persons, p by sign flips, Holm-corrected):", ""]
            lines += ["| slice | arm | n | difference | p |", "|---|---|---|---|---|"]
        for row in data[key]:
            arm, gap = row["arm"], [row[part] for part in ("difference", "low", "high")]
            if key == "contribution":
                arm, gap = WITHOUT[arm], [-gap[0], -gap[2], -gap[1]]
            told = f"{gap[0]:+.4f} [{gap[1]:+.4f}, {gap[2]:+.4f}]"
            lines.append(f"| {row['slice']} | {arm} | {row['n']} | {told} | {row['p_holm']:.4f} |")
    top = sorted(data["relations"].items(), key=lambda pair: -pair[1])
    used = ", ".join(f"{name} {weight:.2f}" for name, weight in top if abs(weight - 1) > 0.005)
    lines += ["", f"Weights of the relations (first seed): {used or 'all 1, validation preferred that'}.", ""]
    return lines


def page(folder: Path) -> str:
    preface = folder / "preface.md"
    lines = ["# Graphs and pictures beside texts", ""]
    lines += [preface.read_text("utf-8").strip(), ""] if preface.exists() else []
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text("utf-8"))
        if file.stem == "scale":
            lines += ["## A graph of a million edges", "", ", ".join(f"{k} {v:,}" for k, v in data.items()) + ".", ""]
        elif file.stem == "transfer":
            lines += data["page"]
        else:
            lines += table(data)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="the methods told and fused too")
    parser.add_argument("--scale", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    machine = {"system": platform.platform(), "python": platform.python_version(), "polars": version("polars")}

    def write(name: str, data: dict) -> None:
        (options.out / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", "utf-8")

    with TemporaryDirectory() as work:
        corpora = {name: corpus_of(*SETS[name][:2], Path(work)) for name in options.sets}
        kept = {name: Measured() for name in options.sets}
        for seed in range(options.seeds):
            for name, corpus in corpora.items():
                measure(name, corpus, options.budget, seed, kept[name], MORE if options.more else ())
                write(name, {**kept[name].data(), "machine": machine})
                print(
                    json.dumps({"done": name, "seed": seed, "seconds": kept[name].facts[-1]["cpu_seconds"]}), flush=True
                )
    if options.scale:
        write("scale", scale())
    (options.out / "README.md").write_text(page(options.out), "utf-8")


if __name__ == "__main__":
    main()
