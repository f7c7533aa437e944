"""Verbs for tasks beside lists: classify items, predict ratings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.evaluate.tables import TableReport
    from isthmus.pipeline.classify import ClassifySettings
    from isthmus.pipeline.rate import RateSettings

app = typer.Typer()
Given = TypeVar("Given")

Out = Annotated[Path | None, typer.Option(metavar="REPORT", help="Folder for report.json and report.html.")]
Save = Annotated[
    Path | None, typer.Option(metavar="MODEL", help="Keep what was learned in this folder, to be used again.")
]
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
    source: Annotated[
        Path, typer.Argument(metavar="CORPUS|SPLIT|MODEL", help="Folder of a corpus or a split; or what --save kept.")
    ],
    out: Out = None,
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
    save: Save = None,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Items for MODEL: platform, item, domain, title, text, ….")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Tell the classes of items from their texts; measured on held-out items, each label hidden from what is read."""
    from isthmus.pipeline.kept import is_kept

    if is_kept(source, "classes"):
        _refuse_learning({"--out": out, "--save": save, "--from": start, "--target": target, "--ask": ask or None})
        _classify_with(source, items, predict)
        return
    if items is not None:
        raise InputError("--items are for what --save kept", where="--items", fix="name its folder first")
    from isthmus.pipeline.classify import ClassifySettings
    from isthmus.pipeline.labels import LabelSettings

    if ask and predict is None:
        raise InputError("--ask ranks items in a file", where="--ask", fix="name one with --predict")
    written = _Written(_needed(out, "--out"), predict, save).free(start)
    how = LabelSettings(label, target, least=least, share=share, hide_names=hide_names, seed=seed)
    settings = ClassifySettings(how, start=start, strategy=strategy, epochs=epochs, model=model, read=read)
    _learn_classes(source, settings, ask, written)


@app.command("rate")
def rate_(
    source: Annotated[Path, typer.Argument(metavar="SPLIT|MODEL", help="Folder of a split; or of what --save kept.")],
    target: Annotated[str | None, typer.Option(metavar="DOMAIN", help="Target domain, of a split.")] = None,
    out: Out = None,
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
    save: Save = None,
    seed: Seed = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Predict the rating that an account would give an item, new ones too; measured on the test part."""
    from isthmus.pipeline.kept import is_kept

    if is_kept(source, "ratings"):
        _refuse_learning({"--out": out, "--save": save, "--from": start, "--target": target})
        _rate_with(source, pairs, predict)
        return
    from isthmus.pipeline.rate import RateSettings

    target = _needed(target, "--target")
    if pairs is not None and predict is None:
        raise InputError("--pairs needs a place for the ratings", where="--pairs", fix="name one with --predict")
    written = _Written(_needed(out, "--out"), predict, save).free(start)
    _learn_ratings(source, RateSettings(target, start, strategy, loss, epochs, model, read, seed), pairs, written)


@dataclass(frozen=True)
class _Written:
    """Where learning writes: the report, what is predicted, and what was learned."""

    out: Path
    predict: Path | None
    save: Path | None

    def free(self, start: Path | None) -> _Written:
        """Refuse before long work what could not be written after it."""
        from isthmus.files import require_free
        from isthmus.pipeline.frames import check_lists_path

        require_free(self.out)
        if self.predict is not None:
            check_lists_path(self.predict)
        if self.save is not None:
            require_free(self.save)
            if start is not None:
                raise InputError(
                    "what a pre-trained model says cannot be kept", where="--save", fix="learn without --from"
                )
        return self


def _learn_classes(source: Path, settings: ClassifySettings, ask: int, written: _Written) -> None:
    """Learn classes, and write what was asked for."""
    from isthmus.evaluate.cards import data_card
    from isthmus.pipeline.classifier import Classifier
    from isthmus.pipeline.classify import classify
    from isthmus.pipeline.frames import write_table
    from isthmus.pipeline.labels import open_items
    from isthmus.pipeline.task_reports import class_report

    split = open_items(source)
    fitted = classify(split, settings)
    report = class_report(fitted, data_card(split.corpus), settings.labels)
    report.save(written.out)
    if written.save is not None:
        Classifier.of(fitted, settings).save(written.save)
    if written.predict is not None:
        write_table(fitted.predict(split.corpus.items, ask=ask, seed=settings.labels.seed), written.predict)
    _tell(report, written)


def _learn_ratings(source: Path, settings: RateSettings, pairs: Path | None, written: _Written) -> None:
    """Learn ratings, and write what was asked for."""
    from isthmus.pipeline.frames import read_events, write_table
    from isthmus.pipeline.rate import pairs_of_test, rate
    from isthmus.pipeline.rater import find_pairs
    from isthmus.pipeline.task_reports import rating_report
    from isthmus.split.temporal import Split

    asked = None if pairs is None else read_events(pairs).select("platform", "user", "item")
    fitted = rate(Split.open(source), settings)
    report = rating_report(fitted, seed=settings.seed)
    report.save(written.out)
    if written.save is not None:
        fitted.rater.save(written.save)
    if written.predict is not None:
        wanted = pairs_of_test(fitted) if asked is None else asked
        write_table(find_pairs(fitted.rater, wanted), written.predict)
    _tell(report, written)


def _needed(value: Given | None, option: str) -> Given:
    """Return an option that learning needs."""
    if value is None:
        raise InputError(f"{option} is lacking", where=option, fix="it is needed unless MODEL is what --save kept")
    return value


def _refuse_learning(given: Mapping[str, object]) -> None:
    """Refuse options of learning where everything is learned."""
    for option, value in given.items():
        if value is not None:
            raise InputError(f"{option} is for learning, and this model has learned", where=option, fix="leave it out")


def _classify_with(model: Path, items: Path | None, predict: Path | None) -> None:
    """Write the classes of new items."""
    from isthmus.pipeline.classifier import Classifier
    from isthmus.pipeline.frames import check_lists_path, read_items, write_table

    file, place = _needed_with(items, "--items"), _needed_with(predict, "--predict")
    check_lists_path(place)
    told = Classifier.open(model).tell(read_items(file))
    write_table(told, place)
    _say_written(place, told.height, "items")


def _rate_with(model: Path, pairs: Path | None, predict: Path | None) -> None:
    """Write the ratings of pairs."""
    from isthmus.pipeline.frames import check_lists_path, read_events, write_table
    from isthmus.pipeline.rater import Rater, find_pairs

    file, place = _needed_with(pairs, "--pairs"), _needed_with(predict, "--predict")
    check_lists_path(place)
    told = find_pairs(Rater.open(model), read_events(file).select("platform", "user", "item"))
    write_table(told, place)
    _say_written(place, told.height, "pairs")


def _needed_with(value: Path | None, option: str) -> Path:
    """Return an option that using a kept model needs."""
    if value is None:
        raise InputError(f"{option} is lacking", where=option, fix="name a file: the model is ready")
    return value


def _say_written(place: Path, rows: int, what: str) -> None:
    if wants_json():
        put_json({"predictions": str(place), "rows": rows})
        return
    say(f"{rows:,} {what}: {place}")


def _tell(report: TableReport, written: _Written) -> None:
    """Write the first table of a report, what it says, and where everything lies."""
    data = report.data
    if wants_json():
        told = {name: data[name] for name in ("errors", "tests", "weights")}
        places = {
            "predictions": None if written.predict is None else str(written.predict),
            "model": None if written.save is None else str(written.save),
        }
        put_json({"report": str(written.out / "report.html"), **places, **told})
        return
    first = report.sheets[0]
    table(f"{report.title}: {first.title}", first.columns, first.rows)
    say(str(report.notes[0]))
    say(f"report: {written.out / 'report.html'}")
    if written.predict is not None:
        say(f"predictions: {written.predict}")
    if written.save is not None:
        say(f"model: {written.save}")
