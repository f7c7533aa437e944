"""What the service says about items, and which of them may be listed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

import numpy as np
import orjson
import polars as pl

from isthmus.data.tables import SCHEMAS
from isthmus.room import appended
from isthmus.service.log.records import ITEM, REMOVE, Entry
from isthmus.types import Bools, Indices, Ints

Account = tuple[str, str]
_ALWAYS: Final = np.iinfo(np.int64).max
#: Columns of an item's text as the log keeps them.
TEXTS: Final = ("domain", "title", "text", "categories", "attributes", "lang", "available_from", "available_until")
#: Items taken in together: many at once would halt requests, as no other thread has its turn meanwhile.
STEP: Final = 2000
#: Combinations of filters whose items are remembered.
FILTERS: Final = 64


@dataclass(frozen=True)
class Filters:
    """Which items are asked for; nothing set means all.

    Parameters
    ----------
    platforms, categories, langs : tuple of str
        One of these each.
    """

    platforms: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    langs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is filtered."""
        return bool(self.platforms or self.categories or self.langs)


class Names(Mapping[Account, int]):
    """The row of each item, by platform and id: the first ``size`` of a dictionary that shelves of one model share.

    Parameters
    ----------
    rows : dict of (str, str) to int
        Rows, rising; what lies beyond ``size`` belongs to items that this shelf does not know yet.
    size : int
        Items known.

    Examples
    --------
    >>> shared = {("shop", "a"): 0, ("shop", "b"): 1}
    >>> names = Names(shared, 1)
    >>> list(names), names.get(("shop", "b")), ("shop", "a") in names
    ([('shop', 'a')], None, True)
    """

    def __init__(self, rows: dict[Account, int], size: int) -> None:
        self.rows, self._size = rows, size

    def __getitem__(self, name: Account) -> int:
        """Return the row of an item."""
        row = self.rows[name]
        if row >= self._size:
            raise KeyError(name)
        return row

    def __contains__(self, name: object) -> bool:
        """Return whether an item is known."""
        return self.rows.get(name, self._size) < self._size  # type: ignore[call-overload, no-any-return]

    def __iter__(self) -> Iterator[Account]:
        """Go through the items in the order of their rows."""
        return islice(self.rows, self._size)

    def __len__(self) -> int:
        """Return how many items are known."""
        return self._size


class Shelf:
    """The items table as lists need it: names, ready-made JSON, availability.

    Parameters
    ----------
    table : polars.DataFrame
        The items table; the row is the item's index.
    removed : set of (str, str)
        Items (platform, item) taken off the lists.
    before : Shelf, optional
        That of the same model with the first items only: what it knows is shared, and so is what :meth:`show` changes.
    """

    def __init__(self, table: pl.DataFrame, removed: set[Account], before: Shelf | None = None) -> None:
        self.table, self.removed = table, removed
        self.platforms: list[str] = []
        self.ids: list[str] = []
        rows: dict[Account, int] = {}
        self._json: dict[int, bytes] = {}
        self._passed: dict[Filters, Bools] = {}
        self._off: Bools = np.zeros(0, dtype=bool)
        self._from, self._until = np.zeros(0, np.int64), np.zeros(0, np.int64)
        old = 0
        if before is not None:
            old, rows = before.table.height, before.names.rows
            self.platforms, self.ids, self._json = before.platforms, before.ids, before._json
            if len(rows) > old:  # another one went on from it already, and came to nothing
                self.platforms, self.ids, self._json = self.platforms[:old], self.ids[:old], {}
                rows = dict(islice(rows.items(), old))
            self._off, self._from, self._until = before._off, before._from, before._until
            self._passed = before._passed.copy()
        fresh = table[old:]
        for some in fresh.select("platform", "item").iter_slices(STEP):
            platforms, ids = [*map(sys.intern, some["platform"].to_list())], some["item"].to_list()
            rows.update(zip(zip(platforms, ids, strict=True), count(len(self.ids))))
            self.platforms += platforms
            self.ids += ids
        self.names: Names = Names(rows, table.height)
        self.domains: list[str] = table["domain"].unique().sort().to_list() if before is None else before.domains
        gone = np.fromiter(self._gone(old), bool, fresh.height) if removed else np.zeros(fresh.height, dtype=bool)
        self._off = appended(self._off, gone)
        self._from = appended(self._from, _times(fresh["available_from"], 0))
        self._until = appended(self._until, _times(fresh["available_until"], _ALWAYS))
        begins, ends = self._from[old:], self._until[old:]
        known = np.zeros(0, np.int64) if before is None else before._edges
        self._edges: Ints = np.unique(np.concatenate([known, begins[begins > 0], ends[ends < _ALWAYS]]))

    def _gone(self, start: int) -> Iterator[bool]:
        """Return whether each item from row ``start`` on is off the lists."""
        return (name in self.removed for name in zip(self.platforms[start:], self.ids[start:], strict=True))

    def show(self, name: Account, *, shown: bool) -> None:
        """Put an item on the lists, or take it off."""
        (self.removed.discard if shown else self.removed.add)(name)
        if name in self.names:
            self._off[self.names[name]] = not shown

    def off(self, rows: Indices) -> Ints:
        """Return the places in ``rows`` of what was taken off the lists."""
        return np.flatnonzero(self._off[rows]) if self.removed else np.zeros(0, np.int64)

    def json(self, row: int) -> bytes:
        """Return an item as JSON: platform, item, title."""
        found = self._json.get(row)
        if found is None:
            title = self.table["title"][row]
            found = orjson.dumps({"platform": self.platforms[row], "item": self.ids[row], "title": title})
            self._json[row] = found
        return found

    def jsons(self, rows: Indices) -> list[bytes]:
        """Return some items as JSON."""
        known, wanted = self._json, rows.tolist()
        try:
            return [known[row] for row in wanted]
        except KeyError:
            return [self.json(row) for row in wanted]

    def title(self, row: int) -> str | None:
        """Return an item's title."""
        found: str | None = self.table["title"][row]
        return found

    def listable(self, rows: Indices, now: int) -> Bools | None:
        """Return which of ``rows`` may be listed at the time ``now``; None if all may."""
        allowed = None
        if self._off.any():
            allowed = ~self._off[rows]
        if self._edges.size:
            here = (self._from[rows] <= now) & (now < self._until[rows])
            allowed = here if allowed is None else allowed & here
        return allowed

    def times(self, row: int) -> tuple[int, int]:
        """Return from when until before when an item may be listed, in microseconds since 1970."""
        return int(self._from[row]), int(self._until[row])

    def changes(self, now: int) -> int:
        """Return the next time after ``now`` at which an item comes or goes."""
        place = int(np.searchsorted(self._edges, now, "right"))
        return int(self._edges[place]) if place < self._edges.size else _ALWAYS

    def filtered(self, filters: Filters) -> Bools:
        """Return which items of the table pass ``filters``, (N,)."""
        found = self._passed.get(filters)
        if found is None or found.size < self.table.height:
            found = np.zeros(0, dtype=bool) if found is None else found
            if len(self._passed) >= FILTERS:
                self._passed.clear()
            self._passed[filters] = found = appended(found, self._pass(filters, self.table[found.size :]))
        return found

    @staticmethod
    def _pass(filters: Filters, table: pl.DataFrame) -> Bools:
        passed = pl.lit(value=True)
        if filters.platforms:
            passed &= pl.col("platform").is_in(filters.platforms)
        if filters.langs:
            passed &= pl.col("lang").is_in(filters.langs).fill_null(value=False)
        if filters.categories:
            wanted = pl.element().is_in(filters.categories)
            passed &= pl.col("categories").list.eval(wanted).list.any().fill_null(value=False)
        return np.broadcast_to(table.select(passed.alias("x"))["x"].to_numpy(), (table.height,))


def _times(column: pl.Series, default: int) -> Ints:
    return column.to_physical().fill_null(default).to_numpy().astype(np.int64)


def items_frame(bodies: Sequence[tuple[Account, str]]) -> pl.DataFrame:
    """Return items from the log, ((platform, item), JSON), as a table of items."""
    schema = SCHEMAS["items"]
    times = ("available_from", "available_until")
    plain = {name: pl.Int64() if name in times else kind for name, kind in schema.items()}
    rows = [{"platform": platform, "item": item, **json.loads(body)} for (platform, item), body in bodies]
    columns = {name: [row.get(name) for row in rows] for name in schema}
    frame = pl.DataFrame(columns, schema=plain)
    return frame.with_columns(pl.col(name).cast(schema[name]) for name in times)


def note(entry: Entry, added: dict[Account, str], removed: set[Account]) -> None:
    """Keep account of the items that came and went."""
    name = (entry.platform, entry.item)
    if entry.kind == ITEM:
        added[name] = entry.body
        removed.discard(name)
    elif entry.kind == REMOVE:
        removed.add(name)


def domain_of(body: str) -> str:
    """Return the domain of an item written as JSON."""
    return str(json.loads(body)["domain"])
