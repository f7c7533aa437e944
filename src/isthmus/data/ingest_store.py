"""Events as numbers while they wait to be cleaned and sorted: words interned, rows spilled to disk when many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from isthmus.types import Indices, Ints

_PARTS = 16

#: Rows kept in memory, and rows of one partition when they are on disk.
ROWS_IN_MEMORY: Final = 2_000_000

CODES: Final[dict[str, pl.DataType]] = {
    "platform": pl.UInt32(),
    "user": pl.UInt32(),
    "item": pl.UInt32(),
    "event": pl.UInt8(),
    "value": pl.Float64(),
    "ts": pl.Int64(),
    "source": pl.UInt32(),
    "line": pl.Int64(),
}


class Words:
    """Distinct words, numbered as they come; memory grows with their number only.

    Examples
    --------
    >>> words = Words()
    >>> words.codes(pl.Series(["b", "a", "b"])).to_list(), words.all().to_list()
    ([0, 1, 0], ['b', 'a'])
    """

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random())
        self._anchor = pl.Series([], dtype=self._type)  # the numbering lives as long as a series of its type
        self.size = 0

    def codes(self, words: pl.Series) -> pl.Series:
        """Return the number (u32) of each word."""
        codes = words.cast(self._type).to_physical().cast(pl.UInt32)
        top = codes.max()
        self.size = max(self.size, int(top) + 1) if isinstance(top, int) else self.size
        return codes

    def code(self, word: str) -> int:
        """Return the number of one word."""
        return int(self.codes(pl.Series([word], dtype=pl.String))[0])

    def all(self) -> pl.Series:
        """Return all words in the order of their numbers."""
        return pl.int_range(self.size, dtype=pl.UInt32, eager=True).cat.to(self._type).cast(pl.String)


class Tally:
    """How often each key came, over many frames; memory grows with the keys only.

    Parameters
    ----------
    key : tuple of str
        Columns counted by.
    first : str
        A column whose first value is kept for each key; empty for none.
    """

    def __init__(self, key: tuple[str, ...], first: str = "") -> None:
        self.key = key
        self.first = first
        self._parts: list[pl.DataFrame] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Count the keys of some rows (key columns are u32)."""
        fixed = {name: rows[name].min() for name in self.columns if rows.height and _constant(rows[name])}
        key = [name for name in self.key if name not in fixed] or [self.key[-1]]
        first = [pl.col(name).drop_nulls().first() for name in self.columns if name not in (*key, *fixed)]
        counts = rows.group_by(key).agg(pl.len().cast(pl.Int64).alias("rows"), *first)
        constants = [pl.lit(value, dtype=pl.UInt32).alias(name) for name, value in fixed.items() if name not in key]
        self._parts.append(counts.with_columns(constants).select(*self.columns, "rows"))
        if len(self._parts) >= _PARTS:
            self._parts = [self.total()]

    @property
    def columns(self) -> tuple[str, ...]:
        """The key, and the column whose first value is kept."""
        return (*self.key, self.first) if self.first else self.key

    def total(self) -> pl.DataFrame:
        """Return one row a key, sorted: the key, the first value, and ``rows``."""
        none = pl.DataFrame(schema={**dict.fromkeys(self.columns, pl.UInt32), "rows": pl.Int64})
        first = [pl.col(self.first).drop_nulls().first()] if self.first else []
        whole = pl.concat([none, *self._parts])
        counts = whole.group_by(self.key, maintain_order=True).agg(*first, pl.col("rows").sum())
        return counts.select(*self.columns, "rows").sort(self.key)


def _constant(column: pl.Series) -> bool:
    return column.null_count() == 0 and column.min() == column.max()


class EventStore:
    """Rows of :data:`CODES`: in memory while few, in files of a scratch folder when many.

    Parameters
    ----------
    scratch : Path
        Folder for the files; made when needed.
    limit : int
        Rows in memory, and rows of a partition.
    """

    def __init__(self, scratch: Path, limit: int = ROWS_IN_MEMORY) -> None:
        self.scratch = scratch
        self.limit = limit
        self.rows = 0
        self._waiting: list[pl.DataFrame] = []
        self._files: list[Path] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Keep some rows, in the order they came."""
        self._waiting.append(rows)
        self.rows += rows.height
        if sum(frame.height for frame in self._waiting) > self.limit:
            self._spill()

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield all rows, some at a time."""
        for file in self._files:
            yield pl.read_parquet(file, memory_map=False)
        yield from self._waiting

    def partitions(self, account_of: AccountIndex) -> Iterator[pl.DataFrame]:
        """Yield the rows with a column ``account`` (u32), all rows of an account in one frame, accounts rising."""
        if not self._files:
            if self._waiting:
                yield _with_account(pl.concat(self._waiting), account_of)
            return
        self._spill()
        bounds = account_of.bounds(self.limit)
        parts = [self._part(number) for number in range(len(bounds) - 1)]
        for number, file in enumerate(self._files):
            rows = _with_account(pl.read_parquet(file, memory_map=False), account_of)
            place = np.searchsorted(bounds, rows["account"].to_numpy(), side="right") - 1
            rows = rows.with_columns(pl.Series("part", place))
            for (part,), group in rows.partition_by("part", as_dict=True, include_key=False).items():
                group.write_parquet(parts[int(str(part))] / f"{number:06d}.parquet", compression="lz4")
            file.unlink()
        for folder in parts:
            files = sorted(folder.glob("*.parquet"))
            if files:
                yield pl.concat([pl.read_parquet(file, memory_map=False) for file in files])

    def _part(self, number: int) -> Path:
        folder = self.scratch / f"part-{number:05d}"
        folder.mkdir(parents=True)
        return folder

    def _spill(self) -> None:
        if not self._waiting:
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        file = self.scratch / f"rows-{len(self._files):06d}.parquet"
        pl.concat(self._waiting).write_parquet(file, compression="lz4")
        self._files.append(file)
        self._waiting = []


class AccountIndex:
    """Numbers of accounts in the order of platform, then user.

    Parameters
    ----------
    accounts : polars.DataFrame
        platform, user (text), platform_code, user_code (u32) and rows (how many events), in the final order.
    """

    def __init__(self, accounts: pl.DataFrame) -> None:
        self.accounts = accounts
        platforms = accounts["platform_code"].to_numpy()
        users = accounts["user_code"].to_numpy()
        shape = (int(platforms.max(initial=0)) + 1, int(users.max(initial=0)) + 1)
        self._index: Indices = np.full(shape, -1, dtype=np.int32)
        self._index[platforms, users] = np.arange(accounts.height, dtype=np.int32)

    def of(self, platforms: pl.Series, users: pl.Series) -> Indices:
        """Return the account number of each pair of codes."""
        found: Indices = self._index[platforms.to_numpy(), users.to_numpy()]
        return found

    def bounds(self, limit: int) -> Ints:
        """Return account numbers that cut all accounts into runs of about ``limit`` rows."""
        ends = np.cumsum(self.accounts["rows"].to_numpy().astype(np.int64))
        total = int(ends[-1]) if ends.size else 0
        steps = np.arange(limit, total, limit)
        inner = np.unique(np.searchsorted(ends, steps, side="right"))
        inner = inner[(inner > 0) & (inner < ends.size)]
        return np.concatenate([[0], inner, [ends.size]]).astype(np.int64)


def _with_account(rows: pl.DataFrame, index: AccountIndex) -> pl.DataFrame:
    return rows.with_columns(pl.Series("account", index.of(rows["platform"], rows["user"]).astype(np.uint32)))
