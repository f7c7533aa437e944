"""Methods that compare dense vectors, as a shortlist needs them: the nearest items come from an index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.recommender.nearest import GROWN, Indexed
from isthmus.recommender.parts import FEW_NEW, Columns, Own, Part, Spread, rows_of
from isthmus.types import Floats, Indices, Ints


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

    def show(self, columns: Ints, *, shown: bool) -> None:
        """Put columns on the lists, or take them off."""
        self.near.show(columns, self.vectors, shown=shown)

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
        """Return the nearest columns on the lists, and all that came after the index was made."""
        near, columns = self._sketch.near, self._sketch.columns
        found = near.find(self._query, count)
        if found is None:
            listed = np.flatnonzero(near.listed(np.arange(columns.size)))
            return columns.best(listed, self._sketch.vectors.every(self._query)[listed], count)
        return np.concatenate([found, np.arange(near.size, columns.size)])

    def at(self, columns: Ints) -> Floats:
        """Return the scores of some columns."""
        return self._own.less(columns, self._scores(columns))

    def _scores(self, columns: Ints) -> Floats:
        return np.asarray(self._sketch.vectors.of(columns) @ self._query)
