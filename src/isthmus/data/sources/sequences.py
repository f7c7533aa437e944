"""Sequence files: one user and an ordered list of items a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from isthmus.data.sources.base import LINE, Batch, Block, blocks, lines_of, no_spoilt
from isthmus.data.spec import Source


def read_sequences(path: Path, source: Source, label: str) -> Iterator[Batch]:
    """Yield one row an entry, in the order of the line: user, the entry's fields (item, ts, …) and @line."""
    for block in blocks(path, encoding=source.encoding):
        yield _batch(block, source, label)


def _batch(block: Block, source: Source, label: str) -> Batch:
    shape = source.sequence
    delimiter = source.delimiter or "\t"
    text = lines_of(block.data).to_frame()
    numbered = text.with_row_index(LINE, offset=block.first_line).with_columns(pl.col(LINE).cast(pl.Int64))
    lines = numbered.filter(pl.col(LINE) > source.skip_lines)
    full = lines.filter(pl.col("raw").str.strip_chars() != "")
    head = 1 + shape.skip_fields
    parts = pl.col("raw").str.strip_chars_end("\r").str.splitn(delimiter, head + 1)
    split = full.select(
        LINE,
        "raw",
        parts.struct.field("field_0").alias("user"),
        parts.struct.field(f"field_{head}").str.split(shape.item_delimiter or delimiter).alias("entry"),
    )
    entries = split.explode("entry").filter(pl.col("entry").str.strip_chars() != "")
    none = split.join(entries, on=LINE, how="anti")
    spoilt = none.select(LINE, pl.lit("no items in the line").alias("reason"), "raw")
    frame = entries.select(LINE, "user", *_fields(source))
    return Batch(label, frame, pl.concat([no_spoilt(), spoilt]), lines.height - full.height)


def _fields(source: Source) -> list[pl.Expr]:
    entry = source.sequence.entry
    if entry is None:
        return [pl.col("entry").alias("item")]
    parts = pl.col("entry").str.splitn(entry.delimiter, len(entry.fields) + 1)
    return [parts.struct.field(f"field_{place}").alias(name) for place, name in enumerate(entry.fields)]
