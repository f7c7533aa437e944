"""Which reader reads a source, and which files it names."""

from __future__ import annotations

from collections.abc import Iterator
from glob import has_magic
from pathlib import Path

import polars as pl

from isthmus.config import expand
from isthmus.data.sources.base import FILE, Batch
from isthmus.data.sources.delimited import read_delimited
from isthmus.data.sources.records import read_json, read_jsonl, read_parquet
from isthmus.data.sources.segments import read_segments
from isthmus.data.sources.sequences import read_sequences
from isthmus.data.sources.sql import read_sql
from isthmus.data.spec import Source
from isthmus.errors import DataError

_READERS = {
    "csv": read_delimited,
    "rating": read_delimited,
    "edgelist": read_delimited,
    "jsonl": read_jsonl,
    "json": read_json,
    "parquet": read_parquet,
    "sequence": read_sequences,
    "segments": read_segments,
}


def read_source(source: Source, spec_path: Path) -> Iterator[Batch]:
    """Yield the raw rows of a source, batch by batch; memory does not grow with the source.

    Each batch has the file's columns, ``@line``, and ``@file`` (the file's name without endings).
    """
    if source.shape == "sql":
        yield from read_sql(source, where=spec_path)
        return
    for path in files_of(source.path or "", spec_path):
        label = "/".join(path.parts[-2:]) if "/" in (source.path or "") else path.name
        for batch in _READERS[source.shape](path, source, label):
            frame = batch.frame.with_columns(pl.lit(_stem(path)).alias(FILE))
            yield Batch(label, frame, batch.spoilt, batch.blank)


def files_of(pattern: str, spec_path: Path) -> list[Path]:
    """Return the files that ``pattern`` names, sorted; relative to the spec's folder."""
    path = Path(expand(pattern, where=spec_path)).expanduser()
    full = path if path.is_absolute() else spec_path.parent / path
    if not has_magic(str(full)) or full.exists():
        return [full]
    anchor = Path(full.anchor or ".")
    found = sorted(match for match in anchor.glob(str(full.relative_to(anchor))) if match.is_file())
    if not found:
        raise DataError("no file matches", where=full, fix="check path in the spec; it is relative to the spec")
    return found


def _stem(path: Path) -> str:
    name = path.name
    for ending in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(ending)
    return Path(name).stem
