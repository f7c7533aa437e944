"""The items nearest to a vector among those on the lists, for shortlists: graphs that are never changed in place.

What is taken off the lists is left out of what a graph finds, and of the next graph. After so many items went or came
back the recall is measured beside the work; below its floor vectors are scanned until there is a better graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Final, Protocol

import numpy as np

from isthmus.index.ann import CHECKED, CHURN, CLOSE, FLOOR, LARGE, make_index
from isthmus.index.exact import Index
from isthmus.log import logger
from isthmus.recommender.parts import Columns
from isthmus.types import Bools, Floats, Ints

#: A graph is made anew when so large a share of its items came, or went, since.
GROWN: Final = 0.1
#: The recall is that of the best so many, among as many as a shortlist asks for.
BEST: Final = 10
ASKED: Final = 1000
#: What is found is widened so many times, up to this share of the items, where much of it is off the lists.
WIDER: Final = 4
WHOLE: Final = 0.25


class Source(Protocol):
    """Vectors that are looked through."""

    def of(self, columns: Ints) -> Floats:
        """Return the vectors of some target items, (C, D)."""
        ...

    def every(self, query: Floats) -> Floats:
        """Return the score of each target item, (T,)."""
        ...


@dataclass(frozen=True)
class _Made:
    """Indices, and which columns were off the lists when they were made: these are in none of them."""

    indices: list[Index]
    without: Bools


class Indexed:
    """Indices over the first columns: over all of them, or over known and new ones apart where many are new.

    Graphs of large catalogues take minutes: they are made beside the work, and all vectors are scanned until then.

    Parameters
    ----------
    source : Source
        The vectors.
    columns : Columns
        The items.
    """

    def __init__(self, source: Source, columns: Columns) -> None:
        self.size, self.sampled = columns.size, source.of(columns.sample)
        #: Recall@10 of what is proposed, when it was last measured; None where it never was.
        self.recall: float | None = None
        self._groups = [np.arange(columns.size)]
        if columns.many_new:
            self._groups = [np.flatnonzero(~columns.new), columns.fresh]
        self._off: Bools = np.zeros(self.size, dtype=bool)
        self._off[columns.off] = True
        self._made: _Made | None = None
        self._back: set[int] = set()
        self._moved, self._busy, self._lock = 0, True, Lock()
        if self.size < LARGE:
            self._make(source)
            self._busy = False
        else:
            self._beside(self._make, source)

    @property
    def ready(self) -> bool:
        """Whether it can be searched."""
        return self._made is not None

    def find(self, query: Floats, count: int) -> Ints | None:
        """Return about ``count`` columns nearest to a query (D,) that are on the lists, and those that came back.

        ``count`` of the known and of the new items, where they are apart; None if vectors have to be scanned.
        """
        made = self._made
        if made is None:
            return None
        found = [self._nearest(index, query, count) for index in made.indices]
        return np.concatenate([*found, np.array(list(self._back), np.int64)])

    def listed(self, columns: Ints) -> Bools:
        """Return which columns are on the lists; those that came after the index all count as listed."""
        return ~self._off[np.minimum(columns, self.size - 1)] | (columns >= self.size)

    def show(self, columns: Ints, source: Source, *, shown: bool) -> None:
        """Put columns on the lists, or take them off; the recall is measured beside the work when many have moved."""
        with self._lock:
            mine = columns[columns < self.size]
            mine = mine[self._off[mine] == shown]
            self._off[mine] = not shown
            if self._made is not None:
                known = set(mine[self._made.without[mine]].tolist())
                self._back = self._back | known if shown else self._back - known
            self._moved += mine.size
            due = not self._busy and self._moved >= max(1, CHURN * self.size)
            if due:
                self._moved, self._busy = 0, True
        if due:
            self._beside(self._look, source)

    def _nearest(self, index: Index, query: Floats, count: int) -> Ints:
        """Return about ``count`` keys of an index that are on the lists, never less than half of what there is."""
        wanted = count
        while True:
            found: Ints = index.search(query[None], min(wanted, len(index)))[0][0]
            keys = found[found >= 0]
            keys = keys[~self._off[keys]]
            if keys.size * 2 >= count or wanted >= len(index):
                return keys[:count]
            wanted *= WIDER
            if wanted > WHOLE * len(index):
                found = index.search(query[None], min(count, len(index)), ~self._off)[0][0]
                return found[found >= 0]

    def _beside(self, work: Callable[[Source], None], source: Source) -> None:
        def run() -> None:
            try:
                work(source)
            except Exception:
                logger.exception("no index: vectors are scanned")
                self._made = None
            finally:
                self._busy = False

        Thread(target=run, daemon=True, name="index").start()

    def _look(self, source: Source) -> None:
        """Measure the recall; make indices anew where it is too low or much of what they hold has moved."""
        made = self._made
        if made is not None:
            self.recall = self._measured(made, source)
            logger.info("index: recall %.3f after items went or came back", self.recall)
            if self.recall < FLOOR:
                logger.warning("index: recall is below %.2f: vectors are scanned until it is made anew", FLOOR)
                self._made = made = None
        moved = self.size if made is None else int((made.without != self._off).sum())
        if moved > GROWN * self.size:
            self._make(source)

    def _make(self, source: Source) -> None:
        """Make indices of what is on the lists, and use them if their recall is what it has to be."""
        began = time.perf_counter()
        without = self._off.copy()
        kept = [group[~without[group]] for group in self._groups]
        made = _Made([make_index(group, source.of(group), floor=0.0) for group in kept if group.size], without)
        if self.size >= LARGE:
            logger.info("index over %d vectors made in %.0f s", self.size, time.perf_counter() - began)
            self.recall = self._measured(made, source)
            if self.recall < FLOOR:
                logger.warning("index: recall %.3f is below %.2f: vectors are scanned", self.recall, FLOOR)
                return
        with self._lock:
            self._back = set(np.flatnonzero(without & ~self._off).tolist())
            self._made = made

    def _measured(self, made: _Made, source: Source) -> float:
        """Return the share of the best ten on the lists that is found, for items that ask for their like."""
        rows = np.linspace(0, len(self.sampled) - 1, min(CHECKED, len(self.sampled))).astype(np.int64)
        here = np.flatnonzero(~self._off)
        best, hits = min(BEST, here.size), 0
        if not best:
            return 1.0
        for query in self.sampled[rows]:
            scores = source.every(query)
            least = np.partition(scores[here], here.size - best)[here.size - best]
            found = [self._nearest(index, query, ASKED) for index in made.indices]
            own = scores[np.concatenate([*found, np.array(list(self._back), np.int64)])]
            hits += min(int((own >= least - CLOSE * abs(least)).sum()), best)  # of equals any will do
        return hits / (best * rows.size)
