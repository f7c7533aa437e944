"""Verbs for tasks beside lists: classify items, predict ratings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.evaluate.tables import TableReport

app = typer.Typer()

Out = Annotated[Path, typer.Option(metavar="REPORT", help="Folder for report.json and report.html.")]
Start = Annotated[
    Path | None, typer.Option("--from", metavar="MODEL", help="Pre-trained model that takes part: pretrain wrote it.")
]
Strategy = Annotated[
    str,
    typer.Option(metavar="NAME", help="What of MODEL is trained: frozen, full, top, adapter, lora, adalora or prefix."),
]
Epochs = Annotated[float | None, typer.Option(help="Of that training; default by carrier.")]
Read = Annotated[bool, typer.Option("--read/--no-read", help="Whether a language model reads the items.")]
Model = Annotated[
    str | None, typer.Option(metavar="NAME_OR_PATH", help="Language model that reads the items; default MiniLM.")
]
Seed = Annotated[int, typer.Option(min=0, help="For everything that draws.")]


@app.command("classify")
def classify_(
    items: Annotated[Path, typer.Argument(metavar="CORPUS|SPLIT", help="Folder of a corpus or a split.")],
    out: Out,
    target: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="Domain of the items; all with --label domain.")
    ] = None,
    label: Annotated[
        str, typer.Option(metavar="LABEL", help="category (the last named), single-category, domain or attribute:NAME.")
    ] = "category",
    start: Start = None,
    strategy: Strategy = "frozen",
    epochs: Epochs = None,
    predict: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Classes of items without a label: .csv, .jsonl or .parquet.")
    ] = None,
    ask: Annotated[int, typer.Option(min=0, help="Rank so many items in FILE as those to label next.")] = 0,
    share: Annotated[float, typer.Option(help="Share of the labels that teach.")] = 1.0,
    least: Annotated[int, typer.Option(help="Items that a class needs.")] = 10,
    hide_names: Annotated[
        bool, typer.Option("--hide-names", help="Cut the names of the classes out of titles and texts.")
    ] = False,
    model: Model = None,
    read: Read = True,
    seed: Seed = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Tell the classes of items from their texts; measured on held-out items, each label hidden from what is read."""
    from isthmus.evaluate.cards import data_card
    from isthmus.files import require_free
    from isthmus.pipeline.classify import ClassifySettings, classify
    from isthmus.pipeline.frames import check_lists_path, write_table
    from isthmus.pipeline.labels import LabelSettings, open_items
    from isthmus.pipeline.task_reports import class_report

    require_free(out)
    if predict is not None:
        check_lists_path(predict)
    elif ask:
        raise InputError("--ask ranks items in a file", where="--ask", fix="name one with --predict")
    how = LabelSettings(label, target, least=least, share=share, hide_names=hide_names, seed=seed)
    settings = ClassifySettings(how, start=start, strategy=strategy, epochs=epochs, model=model, read=read)
    split = open_items(items)
    fitted = classify(split, settings)
    report = class_report(fitted, data_card(split.corpus), how)
    report.save(out)
    if predict is not None:
        write_table(fitted.predict(split.corpus.items, ask=ask, seed=seed), predict)
    _tell(report, out, predict)


@app.command("rate")
def rate_(
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of a split.")],
    target: Annotated[str, typer.Option(metavar="DOMAIN", help="Target domain.")],
    out: Out,
    start: Start = None,
    strategy: Strategy = "frozen",
    loss: Annotated[
        str, typer.Option(metavar="NAME", help="Of the rating head: mse, bce01, squared-log-ratio.")
    ] = "mse",
    epochs: Epochs = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs to rate (platform, user, item); default the test pairs.")
    ] = None,
    predict: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where predicted ratings go: .csv, .jsonl or .parquet.")
    ] = None,
    model: Model = None,
    read: Read = True,
    seed: Seed = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Predict the rating that an account would give an item, new ones too; measured on the test part."""
    from isthmus.files import require_free
    from isthmus.pipeline.frames import check_lists_path, read_events, write_table
    from isthmus.pipeline.rate import RateSettings, find_pairs, pairs_of_test, rate
    from isthmus.pipeline.task_reports import rating_report
    from isthmus.split.temporal import Split

    require_free(out)
    if predict is not None:
        check_lists_path(predict)
    elif pairs is not None:
        raise InputError("--pairs needs a place for the ratings", where="--pairs", fix="name one with --predict")
    asked = None if pairs is None else read_events(pairs).select("platform", "user", "item")
    settings = RateSettings(target, start, strategy, loss, epochs, model, read, seed)
    fitted = rate(Split.open(split), settings)
    report = rating_report(fitted, seed=seed)
    report.save(out)
    if predict is not None:
        write_table(find_pairs(fitted, pairs_of_test(fitted) if asked is None else asked), predict)
    _tell(report, out, predict)


def _tell(report: TableReport, out: Path, predict: Path | None) -> None:
    """Write the first table of a report, what it says, and where everything lies."""
    data = report.data
    if wants_json():
        told = {name: data[name] for name in ("errors", "tests", "weights")}
        put_json({"report": str(out / "report.html"), "predictions": None if predict is None else str(predict), **told})
        return
    first = report.sheets[0]
    table(f"{report.title}: {first.title}", first.columns, first.rows)
    say(str(report.notes[0]))
    say(f"report: {out / 'report.html'}")
    if predict is not None:
        say(f"predictions: {predict}")
