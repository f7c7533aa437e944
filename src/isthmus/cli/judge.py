"""Verbs that measure: evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.evaluate.report import Report

app = typer.Typer()

Out = Annotated[Path, typer.Option(metavar="REPORT", help="Folder for report.json and report.html.")]


@app.command("evaluate")
def evaluate_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")],
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of the split it was fitted on.")],
    out: Out,
    seeds: Annotated[int, typer.Option(min=1, help="Fit again with other seeds, so many runs in all.")] = 1,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Measure a model on the test part: the blend against each of its methods, with intervals and paired tests."""
    from isthmus.pipeline import evaluate
    from isthmus.recommender import Recommender
    from isthmus.recommender.store import version_of
    from isthmus.split.temporal import Split

    opened = Recommender.open(model)
    first = int(str(opened.card["seed"]))
    report = evaluate(opened, Split.open(split), seeds=range(first + 1, first + seeds))
    report = report.of({model.resolve().name: version_of(model)})
    report.save(out)
    show(report, out)


@app.command("compare")
def compare_(
    folders: Annotated[
        list[Path], typer.Argument(metavar="MODEL MODEL … SPLIT", help="Folders of two or more models, then the split.")
    ],
    out: Out,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Measure several models on the same people; the first is compared with each other one."""
    from isthmus.pipeline import compare
    from isthmus.recommender import Recommender
    from isthmus.recommender.store import version_of
    from isthmus.split.temporal import Split

    if len(folders) < 3:
        raise InputError(f"{len(folders)} folder(s) given", fix="give two or more models, then the split they share")
    *models, split = folders
    opened = Split.open(split)
    named = _names(models)
    report = compare([(name, Recommender.open(path)) for name, path in named.items()], opened)
    report = report.of({name: version_of(path) for name, path in named.items()})
    report.save(out)
    show(report, out)


def show(report: Report, out: Path) -> None:
    """Write the main figures of a report, and where it lies."""
    sections = cast("list[dict[str, object]]", report.data["sections"])
    if wants_json():
        put_json({"report": str(out / "report.html"), "sections": [_figures(section) for section in sections]})
        return
    for section in sections:
        rows = [
            (row["name"], row["ndcg"], f"{row['low']:.4f}–{row['high']:.4f}", row["recall"], row["p"], row["seconds"])
            for row in cast("list[dict[str, object]]", _figures(section)["systems"])
        ]
        columns = ("", "NDCG@10", "95 %", "recall@10", "p (Holm)", "seconds")
        table(f"{section['title']}: {section['persons']:,} persons, {section['items']:,} items", columns, rows)
    say(f"report: {out / 'report.html'}")


def _figures(section: dict[str, object]) -> dict[str, object]:
    """Return the row of each system, the best first."""
    rows = []
    for system in cast("list[dict[str, object]]", section["systems"]):
        metrics = cast("dict[str, dict[str, float]]", system["metrics"])
        test = cast("dict[str, float] | None", system["test"])
        ndcg, recall = metrics["ndcg@10"], metrics["recall@10"]
        rows.append(
            {
                "name": system["name"],
                "ndcg": ndcg["mean"],
                "low": ndcg["low"],
                "high": ndcg["high"],
                "recall": recall["mean"],
                "p": None if test is None else test["p_holm"],
                "seconds": system["seconds"],
            }
        )
    return {"title": section["title"], "main": section["main"], "persons": section["persons"], "systems": rows}


def _names(models: list[Path]) -> dict[str, Path]:
    """Return the models by the name of their folder, or by the whole path where two folders have one name."""
    short = [path.resolve().name for path in models]
    named = dict(zip(short if len(set(short)) == len(short) else map(str, models), models, strict=True))
    if len(named) < len(models):
        raise InputError("one model is given twice", fix="give different models")
    return named
