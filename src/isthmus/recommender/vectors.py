"""Methods that compare dense vectors, as a shortlist needs them: the nearest items come from an index."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Thread
from typing import Final

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.index.ann import LARGE, make_index
from isthmus.index.exact import Index
from isthmus.log import logger
from isthmus.recommender.parts import FEW_NEW, Columns, Own, Part, Spread, rows_of
from isthmus.types import Floats, Indices, Ints

#: The index is made anew when so large a share of its items came since.
GROWN: Final = 0.1


@dataclass(frozen=True)
class Vectors:
    """What a method knows that compares vectors.

    Parameters
    ----------
    table : float32 array (N, D) or (T, D)
        The items' vectors.
    asks : callable
        From histories to what is looked for, (B, D).
    rows : int32 array (T,), optional
        Row of each target item in ``table``; the same order by default.
    bias : float32 array (T,), optional
        Added to the score of each target item.
    itself : float32 array (N,), optional
        The score of an item for itself, which does not count.
    profile : callable, optional
        From histories to what counts of each, (B, N), where ``itself`` is given.
    """

    table: Floats
    asks: Callable[[Histories], Floats]
    rows: Indices | None = None
    bias: Floats | None = None
    itself: Floats | None = None
    profile: Callable[[Histories], sparse.csr_array] | None = None

    def of(self, columns: Ints) -> Floats:
        """Return the vectors of some target items, (C, D), with the bias beside them."""
        found = self.table[columns if self.rows is None else self.rows[columns]]
        return found if self.bias is None else np.column_stack([found, self.bias[columns]])

    def every(self, query: Floats) -> Floats:
        """Return the score of each target item, (T,)."""
        scores = self.table @ query[: self.table.shape[1]]
        listed = scores if self.rows is None else scores[self.rows]
        return np.asarray(listed if self.bias is None else listed + self.bias)

    def queries(self, histories: Histories) -> Floats:
        """Return what is looked for, (B, D), with a 1 for the bias."""
        asked = self.asks(histories)
        return asked if self.bias is None else np.column_stack([asked, np.ones(len(asked), np.float32)])

    def own(self, histories: Histories, columns: Columns) -> Sequence[Own]:
        """Return what the items of each history give to themselves."""
        if self.itself is None or self.profile is None:
            return [Own(np.zeros(0, np.int64), np.zeros(0, np.float32))] * len(histories)
        return [Own.of(profile, self.itself, columns) for profile in rows_of(self.profile(histories))]


class Indexed:
    """Indices over the first columns: over all of them, or over known and new ones apart where many are new.

    Graphs of large catalogues take minutes: they are made beside the work, and all vectors are scanned until then.

    Parameters
    ----------
    vectors : Vectors
        What is indexed.
    columns : Columns
        The items.
    """

    def __init__(self, vectors: Vectors, columns: Columns) -> None:
        self.size, self.sampled = columns.size, vectors.of(columns.sample)
        self._indices: list[Index] | None = None
        if self.size < LARGE:
            self._build(vectors, columns)
        else:
            Thread(target=self._build_beside, args=(vectors, columns), daemon=True, name="index").start()

    @property
    def ready(self) -> bool:
        """Whether it can be searched."""
        return self._indices is not None

    def find(self, query: Floats, count: int) -> Ints:
        """Return the columns nearest to a query (D,); of known and of new items, where they are apart."""
        found = [index.search(query[None], min(count, len(index)))[0][0] for index in self._indices or ()]
        together = np.concatenate(found) if found else np.empty(0, np.int64)
        return together[together >= 0]

    def _build(self, vectors: Vectors, columns: Columns) -> None:
        groups = [np.arange(columns.size)]
        if columns.many_new:
            groups = [np.flatnonzero(~columns.new), columns.fresh]
        self._indices = [make_index(group, vectors.of(group)) for group in groups if group.size]

    def _build_beside(self, vectors: Vectors, columns: Columns) -> None:
        began = time.perf_counter()
        try:
            self._build(vectors, columns)
        except Exception:
            logger.exception("no index: vectors are scanned")
        else:
            logger.info("index over %d vectors made in %.0f s", self.size, time.perf_counter() - began)


class VectorSketch:
    """A method that compares dense vectors.

    Parameters
    ----------
    vectors : Vectors
        What the method knows.
    columns : Columns
        The items.
    before : VectorSketch, optional
        That of the same model with the first items only: its index is kept, new items are looked at one by one.
    """

    def __init__(self, vectors: Vectors, columns: Columns, before: VectorSketch | None = None) -> None:
        self.vectors, self.columns = vectors, columns
        keeps = before is not None and columns.size - before.near.size <= max(GROWN * before.near.size, FEW_NEW)
        self.near: Indexed = before.near if before is not None and keeps else Indexed(vectors, columns)

    def parts(self, histories: Histories) -> Sequence[Part]:
        """Return what the method says for each history."""
        own = self.vectors.own(histories, self.columns)
        return [Near(self, query, mine) for query, mine in zip(self.vectors.queries(histories), own, strict=True)]


class Near:
    """A part that looks for the vectors nearest to a query.

    Parameters
    ----------
    sketch : VectorSketch
        The method.
    query : float32 array (D,)
        What is looked for.
    own : Own
        What the items of the history give to themselves.
    """

    def __init__(self, sketch: VectorSketch, query: Floats, own: Own) -> None:
        self._sketch, self._query, self._own = sketch, query, own

    @cached_property
    def sampled(self) -> Floats:
        """The scores of the sample of items, with what items of the history give to themselves."""
        return np.asarray(self._sketch.near.sampled @ self._query)

    @cached_property
    def spread(self) -> Spread:
        """Mean and deviation, from the sample; what items give to themselves is counted."""
        size, some = self._sketch.columns.size, self.sampled.astype(np.float64)
        total, square = self._own.moved(self._scores(self._own.columns))
        total, square = total + size * float(some.mean()), square + size * float(np.mean(some * some))
        return Spread.of(total, square, size, float(np.abs(some).max(initial=0.0)))

    def propose(self, count: int) -> Ints:
        """Return the nearest columns, and all that came after the index was made."""
        near, columns = self._sketch.near, self._sketch.columns
        size = columns.size
        if not near.ready:
            return columns.best(np.arange(size), self._sketch.vectors.every(self._query), count)
        return np.concatenate([near.find(self._query, count), np.arange(near.size, size)])

    def at(self, columns: Ints) -> Floats:
        """Return the scores of some columns."""
        return self._own.less(columns, self._scores(columns))

    def _scores(self, columns: Ints) -> Floats:
        return np.asarray(self._sketch.vectors.of(columns) @ self._query)
