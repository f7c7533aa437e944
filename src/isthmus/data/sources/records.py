"""JSON Lines, JSON and Parquet: rows with names, only the mapped columns read."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import polars as pl

from isthmus.data.sources.base import LINE, Batch, blocks, lines_of
from isthmus.data.spec import Source
from isthmus.errors import DataError, nearest

KEY: Final = "@key"
VALUE: Final = "@value"
_ROWS = 200_000


def read_jsonl(path: Path, source: Source, label: str) -> Iterator[Batch]:
    """Yield one row a line, mapped columns as text; ``a.b`` reaches into objects, lists stay JSON text.

    Lines in Python's notation (as in Amazon's 2014 metadata) and bare ``NaN`` are understood too.
    """
    for block in blocks(path, encoding=source.encoding):
        yield _rows(lines_of(block.data), block.first_line, source, label)


def read_json(path: Path, source: Source, label: str) -> Iterator[Batch]:
    """Yield the objects of a JSON array, or the members of an object as ``@key`` and their fields or ``@value``."""
    text = b"".join(block.data for block in blocks(path, encoding=source.encoding))
    try:
        content = json.loads(text, parse_constant=_null)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"is not valid JSON: {error}", where=path, fix="for one object a line use format jsonl"
        ) from None
    if isinstance(content, dict):
        records: Iterable[object] = (_member(key, value) for key, value in content.items())
    elif isinstance(content, list):
        records = iter(content)
    else:
        raise DataError("holds neither a list nor an object", where=path)
    first = 1
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    while part := list(islice(lines, _ROWS)):
        yield _rows(pl.Series(part, dtype=pl.String), first, source, label)
        first += len(part)


def read_parquet(path: Path, source: Source, label: str) -> Iterator[Batch]:
    """Yield the rows of a Parquet file, mapped columns with their types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise DataError("no such file", where=path, fix="check path in the spec; it is relative to the spec")
    try:
        with pq.ParquetFile(path) as file:
            names = _present(wanted(source), file.schema_arrow.names, path)
            first = 1
            for part in file.iter_batches(batch_size=_ROWS, columns=names):
                frame = pl.DataFrame(pl.from_arrow(part))
                yield Batch(label, frame.with_columns(pl.int_range(first, first + pl.len()).alias(LINE)))
                first += frame.height
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"is not a readable Parquet file: {str(error).splitlines()[0]}", where=path) from None


def wanted(source: Source) -> list[str]:
    """Return the columns of the file that the mapping uses, each once."""
    names = [name for columns in source.mapping.values() for name in columns]
    return list(dict.fromkeys(name for name in names if name != "@file"))


def _present(names: list[str], known: list[str], where: object) -> list[str]:
    for name in names:
        if name not in known:
            raise DataError(
                f"no column '{name}'{nearest(name, known)}", where=where, fix=f"columns: {', '.join(known)}"
            )
    return names


def _rows(text: pl.Series, first_line: int, source: Source, label: str) -> Batch:
    names = wanted(source)
    lines = pl.DataFrame({LINE: pl.int_range(first_line, first_line + len(text), eager=True), "raw": text})
    frame = _fields(lines, names)
    nothing = frame.filter(pl.all_horizontal(pl.col(names).is_null()))
    if nothing.is_empty():
        return Batch(label, frame)
    odd = lines.join(nothing.select(LINE), on=LINE, how="semi")
    blank = odd.filter(pl.col("raw").str.strip_chars() == "")
    mended = odd.join(blank, on=LINE, how="anti").with_columns(
        pl.Series("mended", [_mend(line) for line in odd.join(blank, on=LINE, how="anti")["raw"]], dtype=pl.String)
    )
    bad = mended.filter(pl.col("mended").is_null()).select(
        LINE, pl.lit("not a JSON object").alias("reason"), pl.col("raw").str.slice(0, 2_000)
    )
    rescued = _fields(mended.filter(pl.col("mended").is_not_null()).select(LINE, raw="mended"), names)
    empty = rescued.filter(pl.all_horizontal(pl.col(names).is_null())).height
    rescued = rescued.filter(~pl.all_horizontal(pl.col(names).is_null()))
    good = pl.concat([frame.join(odd, on=LINE, how="anti"), rescued]).sort(LINE)
    return Batch(label, good, bad, blank.height + empty)


def _fields(lines: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    return lines.select(LINE, *(pl.col("raw").str.json_path_match(_path(name)).alias(name) for name in names))


def _path(name: str) -> str:
    return "$" + "".join(f"['{part}']" for part in name.split("."))


def _mend(line: str) -> str | None:
    try:
        content = json.loads(line, parse_constant=_null)
    except (ValueError, RecursionError):
        try:
            content = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    return json.dumps(content, ensure_ascii=False, default=str) if isinstance(content, dict) else None


def _null(_: str) -> None:
    return None


def _member(key: str, value: object) -> dict[str, object]:
    return {KEY: key, **value} if isinstance(value, dict) else {KEY: key, VALUE: value}
