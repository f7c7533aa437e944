"""What a method says of the items for one history, without saying it of every item: the parts of a shortlist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories, ranges
from isthmus.model.base import Doubles
from isthmus.rng import generator
from isthmus.types import Bools, Floats, Indices, Ints

#: Items on which means and deviations are estimated where counting them all is dear.
SAMPLE: Final = 4096
#: With more new items than this known and new ones are proposed apart.
FEW_NEW: Final = 1000


@dataclass(frozen=True)
class Columns:
    """The ``T`` items of a target as a shortlist counts them.

    Parameters
    ----------
    items : int32 array (T,)
        Corpus item index, rising.
    new : bool array (T,)
        Those without any training event.
    sample : int64 array (S,)
        Columns for estimates, rising; all of them where they are few.
    off : int64 array
        Columns that were off the lists when this was made.
    """

    items: Indices
    new: Bools
    sample: Ints
    off: Ints

    @classmethod
    def of(cls, items: Indices, new: Bools, sample: Ints | None = None, off: Ints | None = None) -> Columns:
        """Return the columns, with the ``sample`` of a shorter list of them if it is given; none ``off`` by default."""
        if sample is None:
            sample = np.arange(items.size, dtype=np.int64)
            if items.size > SAMPLE:
                sample = np.sort(generator(0, "shortlist").choice(items.size, SAMPLE, replace=False)).astype(np.int64)
        return cls(items, new, sample, np.zeros(0, np.int64) if off is None else off)

    @property
    def size(self) -> int:
        """How many there are, ``T``."""
        return self.items.size

    @cached_property
    def fresh(self) -> Ints:
        """The columns of the new items."""
        return np.flatnonzero(self.new)

    @property
    def many_new(self) -> bool:
        """Whether known and new items are proposed apart; else all new ones are looked at."""
        return self.fresh.size > FEW_NEW

    def of_items(self, items: Indices) -> Ints:
        """Return the column of each item, -1 for an item that is not of the target."""
        place = np.minimum(np.searchsorted(self.items, items), max(self.size - 1, 0))
        return np.where(self.items[place] == items, place, -1) if self.size else np.full(items.size, -1)

    def best(self, columns: Ints, values: Floats, count: int) -> Ints:
        """Return the ``count`` columns with the highest values; of known and of new items, where these are many."""
        if not self.many_new:
            return _highest(columns, values, count)
        new = self.new[columns]
        groups = (_highest(columns[group], values[group], count) for group in (~new, new))
        return np.concatenate(list(groups))


def _highest(columns: Ints, values: Floats, count: int) -> Ints:
    if values.size <= count:
        return columns
    return columns[np.argpartition(values, values.size - count)[values.size - count :]]


@dataclass(frozen=True)
class Spread:
    """Mean and deviation of a method's scores over all items; a deviation of 0 says they are all alike."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, total: float, square: float, size: int, peak: float) -> Spread:
        """Return them from sum, sum of squares, number and largest size of the scores."""
        mean = total / max(size, 1)
        deviation = float(np.sqrt(max(square / max(size, 1) - mean * mean, 0.0)))
        return cls(mean, deviation if deviation > 1e-6 * max(peak, 1e-3) else 0.0)


class Part(Protocol):
    """What one method says for one history."""

    @property
    def spread(self) -> Spread:
        """Mean and deviation over all items."""
        ...

    @property
    def sampled(self) -> Floats:
        """The scores of the sample of items; what items of the history give to themselves may be in them."""
        ...

    def propose(self, count: int) -> Ints:
        """Return the columns of about ``count`` items with the highest scores, in any order."""
        ...

    def at(self, columns: Ints) -> Floats:
        """Return the scores of some columns."""
        ...


class Row:
    """A part that knows the score of every item.

    Parameters
    ----------
    row : float32 array (T,)
        The scores.
    columns : Columns
        The items.
    touched : int64 array, optional
        Columns whose score is not 0; all by default.
    """

    def __init__(self, row: Floats, columns: Columns, touched: Ints | None = None) -> None:
        self._row, self._columns, self._touched = row, columns, touched

    @cached_property
    def _some(self) -> Doubles:
        return (self._row if self._touched is None else self._row[self._touched]).astype(np.float64)

    @property
    def square(self) -> float:
        """Sum of the squares of all scores."""
        return float(self._some @ self._some)

    @cached_property
    def spread(self) -> Spread:
        """Mean and deviation over all items."""
        peak = float(np.abs(self._some).max(initial=0.0))
        return Spread.of(float(self._some.sum()), self.square, self._row.size, peak)

    @property
    def sampled(self) -> Floats:
        """The scores of the sample of items."""
        return self._row[self._columns.sample]

    def propose(self, count: int) -> Ints:
        """Return the columns with the highest scores; only those above 0 where others were not touched."""
        if self._touched is None:
            return self._columns.best(np.arange(self._row.size), self._row, count)
        values = self._row[self._touched]
        above = values > 0
        return self._columns.best(self._touched[above], values[above], count)

    def at(self, columns: Ints) -> Floats:
        """Return the scores of some columns."""
        return self._row[columns]


class Fixed:
    """A part that is the same for everybody; sorted once.

    Parameters
    ----------
    values : float32 array (T,)
        The scores.
    columns : Columns
        The items.
    before : Fixed, optional
        The part of the first items, all known ones among them: their order, and sums of their scores, are taken over.
    """

    def __init__(self, values: Floats, columns: Columns, before: Fixed | None = None) -> None:
        self._values, self.sampled = values, values[columns.sample]
        since = values if before is None else values[before._values.size :]
        self._sums: Doubles = _sums(since) if before is None else _joined(before._sums, _sums(since))
        self.spread = Spread.of(float(self._sums[0]), float(self._sums[1]), values.size, float(self._sums[2]))
        self._known: Ints = _falling(values, np.flatnonzero(~columns.new)) if before is None else before._known
        self._new: Ints = _falling(values, columns.fresh)

    def propose(self, count: int) -> Ints:
        """Return the columns with the highest scores, known and new ones apart."""
        return np.concatenate([self._known[:count], self._new[:count]])

    def at(self, columns: Ints) -> Floats:
        """Return the scores of some columns."""
        return self._values[columns]


def _sums(values: Floats) -> Doubles:
    """Return the sum, the sum of squares and the largest size of some scores."""
    wide = values.astype(np.float64)
    return np.array([wide.sum(), wide @ wide, np.abs(wide).max(initial=0.0)])


def _joined(first: Doubles, second: Doubles) -> Doubles:
    return np.array([first[0] + second[0], first[1] + second[1], max(first[2], second[2])])


def _falling(values: Floats, columns: Ints) -> Ints:
    return columns[np.argsort(-values[columns], kind="stable")]


@dataclass(frozen=True)
class Own:
    """What the items of a history give to themselves, which does not count.

    Parameters
    ----------
    columns : int64 array (H,)
        Their columns.
    values : float32 array (H,)
        What is taken from the score of each.
    """

    columns: Ints
    values: Floats

    @classmethod
    def of(cls, profile: sparse.csr_array, itself: Floats, columns: Columns) -> Own:
        """Return it for a profile (1, N), where ``itself`` (N,) is the score of each item for itself."""
        place = columns.of_items(profile.indices)
        mine = place >= 0
        worth = profile.data[mine] * itself[profile.indices[mine]]
        return cls(place[mine], worth.astype(np.float32))

    def moved(self, scores: Floats) -> tuple[float, float]:
        """Return what it adds to the sum of all scores, and to that of their squares; ``scores`` (H,) are its own."""
        before = scores.astype(np.float64)
        after = self.less(self.columns, scores.copy()).astype(np.float64)
        return float((after - before).sum()), float(after @ after - before @ before)

    def less(self, columns: Ints, scores: Floats) -> Floats:
        """Return the scores of some columns without it."""
        if self.columns.size:
            order = np.argsort(self.columns, kind="stable")
            place = np.minimum(np.searchsorted(self.columns, columns, sorter=order), self.columns.size - 1)
            hit = self.columns[order[place]] == columns
            scores[hit] -= self.values[order[place[hit]]]
        return scores


def rows_of(matrix: sparse.csr_array) -> Sequence[sparse.csr_array]:
    """Return each row of a sparse matrix, (1, N)."""
    bounds = [slice(start, stop) for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)]
    shape = (1, matrix.shape[1])
    return [
        sparse.csr_array((matrix.data[b], matrix.indices[b], np.array([0, b.stop - b.start])), shape=shape)
        for b in bounds
    ]


def pour(row: Floats, taken: tuple[Ints, Floats], block: sparse.csr_array, offset: int = 0) -> None:
    """Add the rows ``taken`` (numbers, weights) of a sparse matrix to ``row`` (T,), from column ``offset`` on."""
    numbers, weights = taken
    start, stop = block.indptr[numbers], block.indptr[numbers + 1]
    cells = ranges(start, stop)
    worth = block.data[cells] * np.repeat(weights.astype(np.float32), stop - start)
    np.add.at(row, block.indices[cells] + offset if offset else block.indices[cells], worth)


class Sketch(Protocol):
    """A method as a shortlist needs it."""

    def parts(self, histories: Histories) -> Sequence[Part]:
        """Return what the method says for each history."""
        ...
