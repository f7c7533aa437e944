"""Tables of people, events and items in, tables of lists out: CSV, TSV, JSON lines or Parquet, by the file's ending."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from isthmus.errors import DataError, InputError, nearest
from isthmus.files import new_file
from isthmus.model.constraints import check_rules

LISTS: Final = ("platform", "user", "domain", "item", "rank", "score", "item_platform")
_READ: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_WRITTEN: Final = (".parquet", ".csv", ".jsonl")
#: Texts a spreadsheet takes for a formula; signed numbers and ids are none.
_FORMULA: Final = r"(?s)^([=@\t\r\n]|[+\-].*[^0-9A-Za-z_.:\-])"


def read_users(path: Path, *, more: bool = False) -> pl.DataFrame:
    """Return the accounts in ``path``: columns platform, user, as text (leading zeros are kept); ``more``: all columns.

    Raises
    ------
    InputError
        The ending tells no format.
    DataError
        The file cannot be read, lacks a column, or has an empty cell in one.
    """
    found = _as_text(path, ("platform", "user"))
    return found if more else found.select("platform", "user")


def read_events(path: Path) -> pl.DataFrame:
    """Return the new events in ``path``, in the file's order: platform, user, item, event (``click`` if not given)."""
    frame = _as_text(path, ("platform", "user", "item"))
    event = pl.col("event").fill_null("click") if "event" in frame.columns else pl.lit("click").alias("event")
    return frame.select("platform", "user", "item", event)


def read_answers(path: Path) -> pl.DataFrame:
    """Return the answers in ``path``: platform, item, answer (lower case); rows that are not answered are left out."""
    frame = _as_text(path, ("platform", "item"))
    _need(path, frame, ("platform", "item", "answer"))
    answer = pl.col("answer").str.strip_chars().str.to_lowercase()
    return frame.select("platform", "item", answer).filter(pl.col("answer").fill_null("") != "")


def read_shown(path: Path) -> pl.DataFrame:
    """Return how often items were shown, from ``path``: platform, item, shown.

    Raises
    ------
    DataError
        A column is lacking, or a number is none or below 0.
    """
    frame = _as_text(path, ("platform", "item"))
    _need(path, frame, ("platform", "item", "shown"))
    shown = frame.select("platform", "item", shown=pl.col("shown").cast(pl.Int64, strict=False))
    if shown.filter(pl.col("shown").is_null() | (pl.col("shown") < 0)).height:
        raise DataError("a number of times shown is none", where=f"{path}: shown", fix="give whole numbers from 0")
    return shown


def read_items(path: Path) -> pl.DataFrame:
    """Return the new items in ``path``: platform, item, domain and, where given, title, text, categories, attributes.

    Categories are a list (JSON lines, Parquet), or words with ``|`` between them.
    """
    frame = _read(path)
    _need(path, frame, ("platform", "item", "domain"))
    named = [name for name in ("platform", "item", "domain", "title", "text", "attributes") if name in frame.columns]
    columns = [pl.col(name).cast(pl.String) for name in named]
    if "categories" in frame.columns:
        listed = isinstance(frame.schema["categories"], pl.List)
        categories = pl.col("categories") if listed else pl.col("categories").cast(pl.String).str.split("|")
        columns.append(categories.cast(pl.List(pl.String)))
    return frame.select(columns)


def read_consents(path: Path) -> pl.DataFrame:
    """Return what people said in ``path``: from_platform, to_platform, allowed, and person, or platform and user."""
    return _as_text(path, ("from_platform", "to_platform", "allowed"))


def read_rules(path: Path) -> pl.DataFrame:
    """Return the declared rules in ``path``: rule, head, tail and, where given, weight; a word that is no rule is told.

    Raises
    ------
    DataError
        A column or cell is missing, there is no such rule, or a weight is no number.
    """
    frame = _as_text(path, ("rule", "head", "tail"))
    check_rules(frame)
    if "weight" not in frame.columns:
        return frame.select("rule", "head", "tail")
    weight = pl.col("weight").cast(pl.Float64, strict=False)
    wrong = frame.filter(pl.col("weight").is_not_null() & ~weight.is_finite().fill_null(value=False))
    if wrong.height:
        raise DataError(f"the weight '{wrong['weight'][0]}' is no number", where=path, fix="write it as 1.5, or not")
    return frame.select("rule", "head", "tail", weight)


def harmless(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a table for a spreadsheet: texts that it would run as a formula begin with an apostrophe.

    Examples
    --------
    >>> harmless(pl.DataFrame({"title": ["=1+1", "-5", "+49151", "- a tale", "plain"]}))["title"].to_list()
    ["'=1+1", '-5', '+49151', "'- a tale", 'plain']
    """
    return frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'$1"))


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a table of plain values to ``path`` (.parquet, .csv, .jsonl), whole or not at all.

    CSV is made :func:`harmless`; the other two hold every text as it is.
    """
    check_lists_path(path)
    with new_file(path) as part:
        if path.suffix == ".parquet":
            frame.write_parquet(part)
        elif path.suffix == ".csv":
            harmless(frame).write_csv(part)
        else:
            frame.write_ndjson(part)


def write_lists(frame: pl.DataFrame, path: Path) -> None:
    """Write lists to ``path``, whole or not at all; the ending (.parquet, .csv, .jsonl) tells the format."""
    write_table(frame.select(LISTS), path)


def check_lists_path(path: Path) -> None:
    """Refuse, before any work, a path that lists cannot be written to."""
    if path.suffix not in _WRITTEN:
        raise InputError(f"the ending '{path.suffix}' tells no format", where=path, fix=f"use {', '.join(_WRITTEN)}")
    if path.is_dir():
        raise InputError("is a folder", where=path, fix="name a file")


def _as_text(path: Path, needed: tuple[str, ...]) -> pl.DataFrame:
    frame = _read(path)
    _need(path, frame, needed)
    nested = [name for name in needed if frame.schema[name].is_nested()]
    if nested:
        raise DataError(f"column {nested[0]} is no plain value", where=path)
    empty = [name for name in needed if frame[name].null_count()]
    if empty:
        raise DataError(
            f"{frame[empty[0]].null_count()} empty cell(s) in column {empty[0]}", where=path, fix="fill them"
        )
    return frame.select(pl.all().exclude([n for n, t in frame.schema.items() if t.is_nested()]).cast(pl.String))


def _need(path: Path, frame: pl.DataFrame, needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise DataError(
            f"lacks column(s) {', '.join(missing)}{nearest(missing[0], frame.columns)}",
            where=path,
            fix=f"give {', '.join(needed)}",
        )


def _read(path: Path) -> pl.DataFrame:
    suffix = path.suffix.lower()
    if suffix not in _READ:
        raise InputError(f"the ending '{path.suffix}' tells no format", where=path, fix=f"use {', '.join(_READ)}")
    try:
        if suffix == ".parquet":
            return pl.read_parquet(path)
        if suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(path, infer_schema_length=None)
        return pl.read_csv(path, separator="\t" if suffix == ".tsv" else ",", infer_schema=False)
    except FileNotFoundError:
        raise DataError("no such file", where=path, fix="check the path") from None
    except IsADirectoryError:
        raise DataError("is a folder", where=path, fix="name a file") from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"cannot be read as {suffix[1:]}: {reason}", where=path) from None
