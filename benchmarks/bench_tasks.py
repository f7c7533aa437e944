"""Predicted ratings and classes of items on real data, against their baselines, with intervals and paired tests.

    ISTHMUS_DATA=... python benchmarks/bench_tasks.py --out benchmarks/reports/NAME [--from MODEL] [SET ...]

Writes SET.json (all figures) for each set, and README.md of the folder from all JSON files there; prints one JSON
object. With ``--from`` a model that ``isthmus pretrain`` wrote takes part, the language model it reads with beside it,
and the file is SET-transfer-STRATEGY.json. No title and no id of the data enters.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
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


@dataclass(frozen=True)
class Carried:
    """What is carried over: a pre-trained model, what of it is trained on, and for how long; or nothing."""

    start: Path | None = None
    strategy: str = "frozen"
    epochs: float | None = None

    @property
    def mark(self) -> str:
        """What the file of a set is called by, after the name of the set."""
        return f"-transfer-{self.strategy}" if self.start else ""

    @property
    def told(self) -> dict[str, object]:
        """Where the model comes from, and what was done with it."""
        if self.start is None:
            return {}
        card = json.loads((self.start / "isthmus.json").read_text(encoding="utf-8"))
        return {
            "domains": [f"{row['domain']} ({row['corpus']})" for row in card["domains"]],
            "events": card["events"],
            "strategy": self.strategy,
            "epochs": self.epochs,
        }


def met_only(corpus: im.Corpus) -> im.Corpus:
    """Return the corpus without items that nobody met: thousands of them would only be read."""
    items = corpus.items.join(corpus.events, on=["platform", "item"], how="semi", maintain_order="left")
    tables = {"events": corpus.events, "items": items, "identities": corpus.identities}
    notes = {key: corpus.manifest[key] for key in ("time", "cleaning") if key in corpus.manifest}
    return im.Corpus.from_tables(tables, name=corpus.name, notes=notes)


def ratings(name: str, folder: Path, carried: Carried) -> dict[str, object]:
    spec, domain, protocol, read, points = RATINGS[name]
    corpus = import_corpus(HERE.parent / "configs" / f"{spec}.toml", folder / name)
    split = im.Split.make(met_only(corpus), protocol=protocol)
    begun = time.process_time()
    read = read or carried.start is not None
    fitted = rate(split, RateSettings(domain, carried.start, carried.strategy, epochs=carried.epochs, read=read))
    said = rating_report(fitted).data
    stack = fitted.stack
    told = [*stack.predictions.T, fitted.blend.predict(stack.predictions, stack.cohorts)]
    valid = [float(np.mean((column - stack.truth) ** 2) ** 0.5) for column in told]
    seconds = round(time.process_time() - begun, 1)
    names = [*fitted.blend.models, "blend"]
    return {
        **said,
        "points": points,
        "cpu_seconds": seconds,
        "carried": carried.told,
        "valid": dict(zip(names, valid, strict=True)),
    }


def classes(name: str, folder: Path, carried: Carried) -> dict[str, object]:
    spec, domain, label, read = CLASSES[name]
    corpus = import_corpus(HERE.parent / "configs" / f"{spec}.toml", folder / name)
    if corpus.events.height:
        met_only(corpus).save(folder / "met")
    split = open_items(folder / "met" if corpus.events.height else folder / name)
    how = LabelSettings(target=domain, **label)  # type: ignore[arg-type]
    begun = time.process_time()
    read = read or carried.start is not None
    fitted = classify(split, ClassifySettings(how, carried.start, carried.strategy, carried.epochs, read=read))
    said = class_report(fitted, data_card(split.corpus), how).data
    valid = {str(line["model"]): line["accuracy"] for line in fitted.log}
    seconds = round(time.process_time() - begun, 1)
    return {**said, "cpu_seconds": seconds, "carried": carried.told, "valid": valid}


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
        *origin(data.get("carried")),
    ]


def origin(carried: dict | None) -> list[str]:
    """Return where the model that was carried over comes from."""
    if not carried:
        return []
    epochs = "" if carried["epochs"] is None else f" for at most {carried['epochs']:g} epochs"
    return [
        f"Carried over: a sequence model of {', '.join(carried['domains'])} ({carried['events']:,} events), "
        f"strategy `{carried['strategy']}`{epochs}.",
        "",
    ]


def rating_table(name: str, data: dict) -> list[str]:
    errors = pl.DataFrame(data["errors"])
    points, valid = data["points"], data.get("valid", {})
    tests = {(row["slice"], row["system"]): row for row in data["tests"]}
    lines = [
        *head(name, data),
        f"Errors in points of the data's own scale ({points:g} from lowest to highest).",
        "",
        f"| system |{' RMSE on valid |' if valid else ''} MAE | RMSE [95 %] | R² [95 %] "
        "| MSE: blend − system, p (Holm) |",
        "|---" * (6 if valid else 5) + "|",
    ]
    whole = errors.filter(pl.col("slice") == "all")
    for (system,), part in whole.group_by("system", maintain_order=True):
        row = {r["metric"]: r for r in part.to_dicts()}
        test = tests.get(("all", system))
        rmse, r2 = (
            interval(*(row[m][k] * f for k in ("value", "low", "high"))) for m, f in (("rmse", points), ("r2", 1))
        )
        against = f"{test['difference'] * points**2:+.4f}, {test['p_holm']:.3f}" if test else ""
        chosen = f" {valid[system] * points:.4f} |" if valid else ""
        lines.append(f"| {system} |{chosen} {row['mae']['value'] * points:.4f} | {rmse} | {r2} | {against} |")
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
    errors, valid = pl.DataFrame(data["errors"]), data.get("valid", {})
    tests = {row["system"]: row for row in data["tests"]}
    lines = [
        *head(name, data),
        f"| system |{' on valid |' if valid else ''} accuracy [95 %] | macro P | macro R | macro F1 [95 %] "
        "| accuracy: blend − system, p (Holm) |",
        "|---" * (7 if valid else 6) + "|",
    ]
    for (system,), part in errors.filter(pl.col("class") == "all").group_by("system", maintain_order=True):
        row = {r["metric"]: r for r in part.to_dicts()}
        cells = [interval(*(row[m][k] for k in ("value", "low", "high")), 3) for m in ("accuracy", "f1")]
        test = tests.get(system)
        against = f"{test['difference']:+.3f}, {test['p_holm']:.3f}" if test else ""
        middle = f"{row['precision']['value']:.3f} | {row['recall']['value']:.3f}"
        chosen = "" if not valid else f" {valid[system]:.3f} |" if system in valid else " |"
        lines.append(f"| {system} |{chosen} {cells[0]} | {middle} | {cells[1]} | {against} |")
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
    parser.add_argument("--strategy", default="frozen", help="what of the model of --from is trained on")
    parser.add_argument("--epochs", type=float, help="of that, at most")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    told, carried = {}, Carried(options.start, options.strategy, options.epochs)
    for name in options.sets:
        with TemporaryDirectory() as folder:
            data = (ratings if name in RATINGS else classes)(name, Path(folder), carried)
        file = name + carried.mark
        (options.out / f"{file}.json").write_text(
            json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")
        told[file] = data["notes"]
    print(json.dumps(told, ensure_ascii=False))


if __name__ == "__main__":
    main()
