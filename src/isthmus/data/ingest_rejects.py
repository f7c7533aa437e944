"""Rows that do not reach the corpus: each kept with its source, line and reason, and counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from isthmus.data.sources.base import LINE
from isthmus.errors import DataError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SCHEMA: Final = {"source": pl.String(), "line": pl.Int64(), "reason": pl.String(), "raw": pl.String()}
_RAW_CHARACTERS = 10_000


class Rejects:
    """The rejects file while it is written, with counts by reason.

    Two kinds of rows come here: *rejected* ones cannot be used (they count towards ``max_reject_share``), *cleaned*
    ones were taken out by a cleaning rule.

    Parameters
    ----------
    path : Path
        The file.
    raw : bool
        Whether the rows themselves are kept, not only where they stood and why they do not count.
    """

    def __init__(self, path: Path, *, raw: bool = True) -> None:
        self.path = path
        self.raw = raw
        self.rejected: Counter[str] = Counter()
        self.cleaned: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self._writer: pq.ParquetWriter | None = None

    def add(self, label: str, rows: pl.DataFrame, *, cleaned: bool = False) -> None:
        """Store rows with columns @line, reason, raw of the source called ``label``."""
        if rows.is_empty():
            return
        counts = dict(rows.group_by("reason").len().rows())
        (self.cleaned if cleaned else self.rejected).update(counts)
        if not cleaned:
            for reason, line in rows.unique("reason", keep="first").select("reason", LINE).rows():
                self.examples.setdefault(reason, f"{label} line {line}")
        self._write(
            rows.select(
                pl.lit(label).alias("source"),
                pl.col(LINE).cast(pl.Int64).alias("line"),
                "reason",
                (pl.col("raw") if self.raw else pl.lit(None, pl.String)).str.slice(0, _RAW_CHARACTERS).alias("raw"),
            )
        )

    def count(self, rule: str, rows: int) -> None:
        """Count rows that a rule changed or passed over, without keeping them."""
        self.cleaned[rule] += rows

    def check(self, rows: int, share: float, where: object) -> None:
        """Raise :class:`DataError` with a summary if more than ``share`` of ``rows`` were rejected."""
        bad = sum(self.rejected.values())
        if bad == 0 or bad <= share * rows:
            return
        top = "; ".join(
            f"{count} × {reason} ({self.examples[reason]})" for reason, count in self.rejected.most_common(5)
        )
        raise DataError(
            f"{bad} of {rows} rows rejected ({bad / max(rows, 1):.0%}, allowed {share:.0%}): {top}",
            where=where,
            fix="correct the spec or the file, or raise max_reject_share; nothing was changed",
        )

    def close(self) -> None:
        """Finish the file; an empty one is written if nothing was rejected."""
        if self._writer is None:
            self._write(pl.DataFrame(schema=SCHEMA))
        if self._writer is not None:
            self._writer.close()

    def _write(self, frame: pl.DataFrame) -> None:
        import pyarrow.parquet as pq

        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd", store_schema=False)
        self._writer.write_table(table)
