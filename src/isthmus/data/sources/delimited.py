"""CSV, TSV and other delimited text: every field a string, every broken line kept with its number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from isthmus.data.sources.base import LINE, LONGEST_LINE, SPOILT_SCHEMA, Batch, Block, blocks, lines_of, no_spoilt
from isthmus.data.spec import Source
from isthmus.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

_SPARE = "@spare"
_LONG_DELIMITER = "\x1f"
_LONGEST_RECORD = 1_000
_END = "\n"
_NAMES = "give names = [...] and header = false"


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written; ``names`` are its columns, the last takes the ``rest`` of a line if asked to."""

    delimiter: str
    quote: str
    names: tuple[str, ...] = ()
    rest: bool = False

    @classmethod
    def of(cls, source: Source, path: Path) -> Dialect:
        """Return the dialect that a spec declares, with the defaults of the file's name."""
        delimiter = source.delimiter or _usual_delimiter(path, source.shape)
        quote = source.quote if source.quote is not None else ('"' if delimiter in (",", ";", "|") else "")
        return cls(delimiter, "" if source.rest else quote, rest=source.rest)


def read_delimited(path: Path, source: Source, label: str) -> Iterator[Batch]:
    """Yield the rows of a delimited text file, all columns as text.

    Raises
    ------
    DataError
        The file is empty, lacks its header or a column has no name.
    """
    dialect = Dialect.of(source, path)
    waiting = source.skip_lines
    for block in blocks(path, encoding=source.encoding, quote=dialect.quote):
        data, line = block.data, block.first_line
        data, line, waiting = _skip(data, line, waiting)
        if not dialect.names:
            if source.has_header:
                head, _, data = data.partition(b"\n")
                line += 1
                dialect = _with_names(dialect, _names_of(head, dialect, path), source, path)
            else:
                dialect = _with_names(dialect, source.field_names, source, path)
        if data:
            yield _batch(Block(data, line, block.replaced), dialect, label)
    if not dialect.names:
        raise DataError("is empty", where=path, fix="remove the source or give it rows")


def _with_names(dialect: Dialect, names: tuple[str, ...], source: Source, path: Path) -> Dialect:
    if source.has_header and source.field_names:
        names = (*source.field_names, *names[len(source.field_names) :])
    if not names or names == ("",):
        raise DataError("has no header line", where=path, fix=_NAMES)
    double = sorted({name for name in names if name and names.count(name) > 1})
    if double:
        raise DataError(f"two columns are called '{double[0]}'", where=path, fix="give names = [...], header = true")
    named = tuple(name or f"@column{number}" for number, name in enumerate(names, 1))
    return replace(dialect, names=named)


def _usual_delimiter(path: Path, shape: str) -> str:
    if shape == "edgelist":
        return " "
    name = path.name.lower()
    return "\t" if any(part in name for part in (".tsv", ".inter", ".item", ".user", ".kg", ".link")) else ","


def _skip(data: bytes, line: int, waiting: int) -> tuple[bytes, int, int]:
    while waiting and data:
        data = data.partition(b"\n")[2]
        line, waiting = line + 1, waiting - 1
    return data, line, waiting


def _names_of(head: bytes, dialect: Dialect, path: Path) -> tuple[str, ...]:
    text = head.decode().rstrip("\r")
    if len(dialect.delimiter) > 1:
        return tuple(name.strip() for name in text.split(dialect.delimiter))
    try:
        fields = next(_reader([text], dialect), [])
    except csv.Error as error:  # a carriage return that ends no line, a name without end
        raise DataError(f"has no header line: {error}", where=path, fix=_NAMES) from None
    return tuple(name.strip() for name in fields)


def _reader(lines: list[str], dialect: Dialect) -> Reader:
    if dialect.quote:
        return csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote)
    return csv.reader(lines, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE)


def _batch(block: Block, dialect: Dialect, label: str) -> Batch:
    if dialect.rest:
        return _sorted_out(_rest(block.data, dialect, block.first_line), None, block, label)
    data, delimiter = block.data, dialect.delimiter
    if len(delimiter) > 1:
        data, delimiter = data.replace(delimiter.encode(), _LONG_DELIMITER.encode()), _LONG_DELIMITER
    quoted = bool(dialect.quote) and dialect.quote.encode() in data
    shape = Dialect(delimiter, dialect.quote if quoted else "", dialect.names)
    frame = _fast(data, shape, block.first_line) if not quoted or _whole(data, dialect.quote) else None
    spoilt = None
    if frame is None:
        frame, spoilt = _slow(data, shape, block.first_line)
    return _sorted_out(frame, spoilt, block, label)


def _whole(data: bytes, quote: str) -> bool:
    return data.count(quote.encode()) % 2 == 0


def _fast(data: bytes, dialect: Dialect, first_line: int) -> pl.DataFrame | None:
    """Return the rows of well-formed text, or None where it is not."""
    names = [*dialect.names, _SPARE]
    header = dialect.delimiter.join(f"c{number}" for number in range(len(names))).encode() + b"\n"
    try:
        frame = pl.read_csv(
            header + data,
            separator=dialect.delimiter,
            quote_char=dialect.quote or None,
            schema=dict.fromkeys([f"c{number}" for number in range(len(names))], pl.String()),
            truncate_ragged_lines=True,
            empty_string_is_null=False,
        )
    except pl.exceptions.PolarsError:
        return None
    frame.columns = names
    lines = pl.int_range(first_line, first_line + pl.len(), dtype=pl.Int64)
    if dialect.quote and frame.height != data.count(b"\n"):
        inside = pl.sum_horizontal(pl.col(names).str.count_matches("\n", literal=True)).cast(pl.Int64)
        lines = lines + inside.cum_sum() - inside
    return frame.with_columns(lines.alias(LINE))


def _rest(data: bytes, dialect: Dialect, first_line: int) -> pl.DataFrame:
    """Return the rows of text without quotes whose last column takes what is left of the line."""
    text = lines_of(data).to_frame()
    parts = pl.col("raw").str.strip_chars_end("\r").str.splitn(dialect.delimiter, len(dialect.names))
    frame = text.select(parts.struct.rename_fields(dialect.names).alias("parts")).unnest("parts")
    lines = pl.int_range(first_line, first_line + pl.len(), dtype=pl.Int64).alias(LINE)
    return frame.with_columns(pl.all().fill_null(""), pl.lit("").alias(_SPARE), lines)


def _slow(data: bytes, dialect: Dialect, first_line: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of text with broken quotes, and the lines that are no rows: only such blocks come here."""
    csv.field_size_limit(LONGEST_LINE)
    lines = io.StringIO(data.decode(), newline="").readlines()
    width = len(dialect.names) + 1
    rows: list[list[str]] = []
    numbers: list[int] = []
    broken: list[tuple[int, str, str]] = []
    at = 0
    while at < len(lines):
        reach = _LONGEST_RECORD if lines[at].count(dialect.quote) % 2 else 1
        window = lines[at : at + reach]
        reader = _reader([*window, _END], dialect)
        fields = next(reader)
        if reader.line_num > len(window):
            broken.append((first_line + at, "unclosed quote", lines[at].rstrip("\r\n")))
            at += 1
            continue
        rows.append((fields + [""] * width)[:width])
        numbers.append(first_line + at)
        at += reader.line_num
    frame = pl.DataFrame(rows, schema=dict.fromkeys([*dialect.names, _SPARE], pl.String()), orient="row")
    spoilt = pl.DataFrame(broken, schema=SPOILT_SCHEMA, orient="row")
    return frame.with_columns(pl.Series(LINE, numbers, dtype=pl.Int64)), spoilt


def _sorted_out(frame: pl.DataFrame, spoilt: pl.DataFrame | None, block: Block, label: str) -> Batch:
    """Set blank lines, lines with too many fields and lines with replaced bytes apart."""
    names = [name for name in frame.columns if name != LINE]
    blank = pl.all_horizontal(pl.col(names) == "")
    full = frame.filter(~blank) if (frame[names[0]] == "").any() else frame
    passed = frame.height - full.height
    tests = {"too many fields": pl.col(_SPARE) != ""}
    if block.replaced:
        tests["bytes that are not in the declared encoding"] = pl.any_horizontal(
            pl.col(names).str.contains("\ufffd", literal=True)
        )
    apart = [] if spoilt is None else [spoilt]
    for reason, test in tests.items():
        if full.select(test.any()).item():
            bad = full.filter(test)
            raw = pl.struct(names).struct.json_encode()
            apart.append(bad.select(LINE, pl.lit(reason).alias("reason"), raw.alias("raw")))
            full = full.filter(~test)
    return Batch(label, full.drop(_SPARE), pl.concat([no_spoilt(), *apart]), passed)
