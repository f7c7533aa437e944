"""Predicted ratings and classes of items on real data, against their baselines, with intervals and paired tests.

    ISTHMUS_DATA=... python benchmarks/bench_tasks.py --out benchmarks/reports/NAME [--from MODEL] [SET ...]

Writes SET.json (all figures) for each set, and README.md of the folder from all JSON files there; prints one JSON
object. With ``--from`` a model that ``isthmus pretrain`` wrote takes part. No title and no id of the data enters.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

import isthmus as im
from isthmus.data.importer import import_corpus
from isthmus.evaluate.cards import data_card
from isthmus.evaluate.tables import interval
from isthmus.pipeline.classify import ClassifySettings, classify
from isthmus.pipeline.labels import LabelSettings, open_items
from isthmus.pipeline.rate import RateSettings, rate
from isthmus.pipeline.task_reports import class_report, rating_report

HERE = Path(__file__).parent
#: Set -> (spec, domain, protocol, whether a language model reads, points of the rating scale).
RATINGS = {
    "ratings-movielens": ("movielens_latest_small", "movies", "time", True, 4.5),
    "ratings-movielens-last": ("movielens_latest_small", "movies", "leave-last", True, 4.5),
    "ratings-steam": ("steam_australian", "games", "time", False, 1.0),
    "ratings-librarything": ("librarything", "books", "leave-last", False, 9.0),
}
#: Set -> (spec, domain, label settings, whether a language model reads).
CLASSES = {
    "classes-movielens": ("movielens_latest_small", "movies", {"label": "single-category", "least": 20}, True),
    "classes-movielens-few": (
        "movielens_latest_small",
        "movies",
        {"label": "single-category", "least": 20, "share": 0.1},
        True,
    ),
    "classes-steam": ("steam_australian", "games", {"label": "category", "least": 50, "hide_names": True}, False),
    "classes-douban": ("douban_books_catalog", "books", {"label": "attribute:publisher", "least": 50}, False),
}


def met_only(corpus: im.Corpus) -> im.Corpus:
    """Return the corpus without items that nobody met: thousands of them would only be read."""
    items = corpus.items.join(corpus.events, on=["platform", "item"], how="semi", maintain_order="left")
    tables = {"events": corpus.events, "items": items, "identities": corpus.identities}
    notes = {key: corpus.manifest[key] for key in ("time", "cleaning") if key in corpus.manifest}
    return im.Corpus.from_tables(tables, name=corpus.name, notes=notes)


def ratings(name: str, folder: Path, start: Path | None) -> dict[str, object]:
    spec, domain, protocol, read, points = RATINGS[name]
    corpus = import_corpus(HERE.parent / "configs" / f"{spec}.toml", folder / name)
    split = im.Split.make(met_only(corpus), protocol=protocol)
    begun = time.process_time()
    fitted = rate(split, RateSettings(domain, start, read=read))
    said = rating_report(fitted).data
    return {**said, "points": points, "cpu_seconds": round(time.process_time() - begun, 1)}


def classes(name: str, folder: Path, start: Path | None) -> dict[str, object]:
    spec, domain, label, read = CLASSES[name]
    corpus = import_corpus(HERE.parent / "configs" / f"{spec}.toml", folder / name)
    if corpus.events.height:
        met_only(corpus).save(folder / "met")
    split = open_items(folder / "met" if corpus.events.height else folder / name)
    how = LabelSettings(target=domain, **label)  # type: ignore[arg-type]
    begun = time.process_time()
    fitted = classify(split, ClassifySettings(how, start=start, read=read))
    said = class_report(fitted, data_card(split.corpus), how).data
    return {**said, "cpu_seconds": round(time.process_time() - begun, 1)}


def markdown(folder: Path) -> str:
    """Return the report of all JSON files of ``folder``; what stands between the two marks of README.md is kept."""
    old = folder / "README.md"
    text = old.read_text(encoding="utf-8") if old.is_file() else ""
    mark = "<!-- tables -->"
    preface = text.partition(mark)[0].strip() or "# Ratings and classes on real data"
    lines = [preface, "", mark, ""]
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        lines += rating_table(file.stem, data) if data["kind"] == "ratings" else class_table(file.stem, data)
    return "\n".join(lines) + "\n"


def head(name: str, data: dict) -> list[str]:
    card = data["cards"]["data"]
    found = " ".join(str(note) for note in data["notes"])
    return [
        f"## {name}",
        "",
        f"{found} Data `{str(card['fingerprint'])[:12]}` ({card['persons']:,} persons, {card['events']:,} events, "
        f"{sum(card['items'].values()):,} items); {data['cpu_seconds']:.0f} s of one core; {data['created']}.",
        "",
    ]


def rating_table(name: str, data: dict) -> list[str]:
    errors = pl.DataFrame(data["errors"])
    points = data["points"]
    tests = {(row["slice"], row["system"]): row for row in data["tests"]}
    lines = [
        *head(name, data),
        f"Errors in points of the data's own scale ({points:g} from lowest to highest).",
        "",
        "| system | MAE | RMSE [95 %] | R² [95 %] | MSE: blend − system, p (Holm) |",
        "|---|---|---|---|---|",
    ]
    whole = errors.filter(pl.col("slice") == "all")
    for (system,), part in whole.group_by("system", maintain_order=True):
        row = {r["metric"]: r for r in part.to_dicts()}
        test = tests.get(("all", system))
        rmse, r2 = (
            interval(*(row[m][k] * f for k in ("value", "low", "high"))) for m, f in (("rmse", points), ("r2", 1))
        )
        against = f"{test['difference'] * points**2:+.4f}, {test['p_holm']:.3f}" if test else ""
        lines.append(f"| {system} | {row['mae']['value'] * points:.4f} | {rmse} | {r2} | {against} |")
    systems = whole["system"].unique(maintain_order=True).to_list()
    lines += ["", f"| RMSE by slice | n | {' | '.join(systems)} |", "|---" * (len(systems) + 2) + "|"]
    for (where, n), part in errors.filter((pl.col("metric") == "rmse") & (pl.col("slice") != "all")).group_by(
        "slice", "n", maintain_order=True
    ):
        by = dict(part.select("system", "value").iter_rows())
        lines.append(f"| {where} | {n:,} | " + " | ".join(f"{by[s] * points:.4f}" for s in systems) + " |")
    if data["chances"]:
        lines += ["", "| as chances of a yes | log loss | AUC |", "|---|---|---|"]
        lines += [f"| {row['system']} | {row['log_loss']:.4f} | {row['auc']:.4f} |" for row in data["chances"]]
    return [*lines, ""]


def class_table(name: str, data: dict) -> list[str]:
    errors = pl.DataFrame(data["errors"])
    tests = {row["system"]: row for row in data["tests"]}
    lines = [
        *head(name, data),
        "| system | accuracy [95 %] | macro P | macro R | macro F1 [95 %] | accuracy: blend − system, p (Holm) |",
        "|---|---|---|---|---|---|",
    ]
    for (system,), part in errors.filter(pl.col("class") == "all").group_by("system", maintain_order=True):
        row = {r["metric"]: r for r in part.to_dicts()}
        cells = [interval(*(row[m][k] for k in ("value", "low", "high")), 3) for m in ("accuracy", "f1")]
        test = tests.get(system)
        against = f"{test['difference']:+.3f}, {test['p_holm']:.3f}" if test else ""
        middle = f"{row['precision']['value']:.3f} | {row['recall']['value']:.3f}"
        lines.append(f"| {system} | {cells[0]} | {middle} | {cells[1]} | {against} |")
    lines += ["", "| class, of the blend | n | precision | recall | F1 [95 %] |", "|---|---|---|---|---|"]
    each = errors.filter((pl.col("class") != "all") & (pl.col("system") == "blend")).sort("n", descending=True)
    for (label, n), part in each.group_by("class", "n", maintain_order=True):
        row = {r["metric"]: r for r in part.to_dicts()}
        score = interval(*(row["f1"][k] for k in ("value", "low", "high")), 2)
        lines.append(f"| {label} | {n} | {row['precision']['value']:.2f} | {row['recall']['value']:.2f} | {score} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=[*RATINGS, *CLASSES])
    parser.add_argument("--out", type=Path, default=Path("out/tasks"))
    parser.add_argument("--from", dest="start", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    told = {}
    for name in options.sets:
        with TemporaryDirectory() as folder:
            data = (ratings if name in RATINGS else classes)(name, Path(folder), options.start)
        file = f"{name}-transfer" if options.start else name
        (options.out / f"{file}.json").write_text(
            json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")
        told[file] = data["notes"]
    print(json.dumps(told, ensure_ascii=False))


if __name__ == "__main__":
    main()
