"""What the service says about items, and which of them may be listed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np
import orjson
import polars as pl

from isthmus.data.tables import SCHEMAS
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


class Shelf:
    """The items table as lists need it: names, ready-made JSON, availability.

    Parameters
    ----------
    table : polars.DataFrame
        The items table; the row is the item's index.
    removed : set of (str, str)
        Items (platform, item) taken off the lists.
    before : Shelf, optional
        A shelf of the first items of the table: what it knows need not be made again.
    """

    def __init__(self, table: pl.DataFrame, removed: set[Account], before: Shelf | None = None) -> None:
        self.table, self.removed = table, set(removed)
        self.platforms: list[str] = [] if before is None else before.platforms.copy()
        self.ids: list[str] = [] if before is None else before.ids.copy()
        self.names: dict[Account, int] = {} if before is None else before.names.copy()
        self._json: dict[int, bytes] = {} if before is None else before._json.copy()
        old = len(self.ids)
        for some in table.select("platform", "item")[old:].iter_slices(STEP):
            platforms, ids = (column.to_list() for column in some)
            self.names.update(zip(zip(platforms, ids, strict=True), count(len(self.ids))))
            self.platforms += platforms
            self.ids += ids
        self._from = _times(table["available_from"], 0)
        self._until = _times(table["available_until"], _ALWAYS)
        self._bounded = bool((self._from > 0).any() or (self._until < _ALWAYS).any())
        self._edges = np.unique(np.concatenate([self._from, self._until])) if self._bounded else np.zeros(0, np.int64)
        self._off = np.zeros(table.height, dtype=bool)
        self._off[[self.names[name] for name in removed if name in self.names]] = True
        self._passed: dict[Filters, Bools] = {}

    def show(self, name: Account, *, shown: bool) -> None:
        """Put an item on the lists, or take it off."""
        (self.removed.discard if shown else self.removed.add)(name)
        if name in self.names:
            self._off[self.names[name]] = not shown

    def json(self, row: int) -> bytes:
        """Return an item as JSON: platform, item, title."""
        found = self._json.get(row)
        if found is None:
            title = self.table["title"][row]
            found = orjson.dumps({"platform": self.platforms[row], "item": self.ids[row], "title": title})
            self._json[row] = found
        return found

    def title(self, row: int) -> str | None:
        """Return an item's title."""
        found: str | None = self.table["title"][row]
        return found

    def listable(self, rows: Indices, now: int) -> Bools | None:
        """Return which of ``rows`` may be listed at the time ``now``; None if all may."""
        allowed = None
        if self._off.any():
            allowed = ~self._off[rows]
        if self._bounded:
            here = (self._from[rows] <= now) & (now < self._until[rows])
            allowed = here if allowed is None else allowed & here
        return allowed

    def changes(self, now: int) -> int:
        """Return the next time after ``now`` at which an item comes or goes."""
        place = int(np.searchsorted(self._edges, now, "right"))
        return int(self._edges[place]) if place < self._edges.size else _ALWAYS

    def filtered(self, filters: Filters) -> Bools:
        """Return which items of the table pass ``filters``, (N,)."""
        if filters not in self._passed:
            if len(self._passed) >= FILTERS:
                self._passed.clear()
            self._passed[filters] = self._pass(filters)
        return self._passed[filters]

    def _pass(self, filters: Filters) -> Bools:
        passed = pl.lit(value=True)
        if filters.platforms:
            passed &= pl.col("platform").is_in(filters.platforms)
        if filters.langs:
            passed &= pl.col("lang").is_in(filters.langs).fill_null(value=False)
        if filters.categories:
            wanted = pl.element().is_in(filters.categories)
            passed &= pl.col("categories").list.eval(wanted).list.any().fill_null(value=False)
        return np.broadcast_to(self.table.select(passed.alias("x"))["x"].to_numpy(), (self.table.height,))


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
