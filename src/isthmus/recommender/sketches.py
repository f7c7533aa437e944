"""Methods as a shortlist needs them: what is the same for everybody, sparse weights, sparse texts, and any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.model.base import Doubles, ItemToItem, Method
from isthmus.recommender.parts import Columns, Fixed, Own, Part, Row, Spread, pour, rows_of
from isthmus.types import Floats, Indices, Ints

#: Entries of the inverted index that are looked at for one history, at most: those of the words that tell most.
ENTRIES: Final = 200_000

#: From histories to what counts of each, (B, N).
Profile = Callable[[Histories], sparse.csr_array]


@dataclass(frozen=True)
class Says:
    """What a method knows that compares sparse rows.

    Parameters
    ----------
    rows : csr array (N, F)
        What is said of each item of the corpus.
    itself : float32 array (N,)
        The score of an item for itself, which does not count.
    profile : callable
        From histories to what counts of each.
    """

    rows: sparse.csr_array
    itself: Floats
    profile: Profile


class WholeSketch:
    """Any method: it scores every item."""

    def __init__(self, method: Method, columns: Columns) -> None:
        self._method, self._columns = method, columns

    def parts(self, histories: Histories) -> Sequence[Part]:
        """Return what the method says for each history."""
        return [Row(row, self._columns) for row in self._method.score(histories)]


class FixedSketch:
    """A method that says the same for everybody.

    Parameters
    ----------
    values : float32 array (T,)
        Its scores.
    columns : Columns
        The items.
    before : FixedSketch, optional
        That of the same model with the first items only.
    """

    def __init__(self, values: Floats, columns: Columns, before: FixedSketch | None = None) -> None:
        self._part: Fixed = Fixed(values, columns, None if before is None else before._part)

    def parts(self, histories: Histories) -> Sequence[Part]:
        """Return what the method says for each history."""
        return [self._part] * len(histories)


class SparseSketch:
    """A method with a sparse weight for each two items: only items next to the history are touched."""

    def __init__(self, method: ItemToItem, columns: Columns) -> None:
        self._method, self._columns = method, columns

    def parts(self, histories: Histories) -> Sequence[Part]:
        """Return what the method says for each history."""
        profile, found = self._method.profile(histories), list[Part]()
        for mine in rows_of(profile):
            row = np.zeros(self._columns.size, np.float32)
            pour(row, (mine.indices, mine.data), self._method.weights)
            found.append(Row(row, self._columns, np.flatnonzero(row != 0)))
        return found


@dataclass(frozen=True)
class Words:
    """An inverted index of some of the items of a target.

    Parameters
    ----------
    size : int
        How many items.
    block : csr array (F, size)
        The items of each word.
    counts : int64 array (F,)
        How many these are.
    sums : float64 array (F,)
        What they add up to.
    """

    size: int
    block: sparse.csr_array
    counts: Ints
    sums: Doubles

    @classmethod
    def of(cls, rows: sparse.csr_array) -> Words:
        """Return the index of ``rows``, items by words."""
        sums = np.bincount(rows.indices, rows.data, rows.shape[1]).astype(np.float64)
        return cls(rows.shape[0], sparse.csr_array(rows.T), np.bincount(rows.indices, None, rows.shape[1]), sums)


class TextSketch:
    """A method that compares sparse rows of the items (words, entities) with those of the history: an inverted index.

    Parameters
    ----------
    says : Says
        What the method knows.
    columns : Columns
        The items.
    before : TextSketch, optional
        That of the same model with the first items only: its indices are kept, new items are indexed beside them. The
        newest indices become one where they hold no more items than come after them, so that there are few.
    """

    def __init__(self, says: Says, columns: Columns, before: TextSketch | None = None) -> None:
        self.rows, self.itself, self.profile, self.columns = says.rows, says.itself, says.profile, columns
        self.sampled: sparse.csr_array = _some(says.rows, columns.items[columns.sample])
        self.blocks: list[Words] = [] if before is None else before.blocks.copy()
        start = sum(block.size for block in self.blocks)
        while self.blocks and self.blocks[-1].size <= columns.size - start:
            start -= self.blocks.pop().size
        if start < columns.size or not self.blocks:
            self.blocks.append(Words.of(_some(says.rows, columns.items[start:])))
        self.counts: Ints = np.sum([block.counts for block in self.blocks], axis=0)
        self.sums: Doubles = np.sum([block.sums for block in self.blocks], axis=0)

    def parts(self, histories: Histories) -> Sequence[Part]:
        """Return what the method says for each history."""
        profile = self.profile(histories)
        asked = sparse.csr_array(profile @ self.rows)
        return [self._part(mine, query) for mine, query in zip(rows_of(profile), rows_of(asked), strict=True)]

    def _part(self, profile: sparse.csr_array, query: sparse.csr_array) -> Part:
        own = Own.of(profile, self.itself, self.columns)
        words, weights = query.indices.astype(np.int64), query.data
        counts = self.counts[words]
        telling = weights * self.sums[words] / np.maximum(counts, 1)
        order = np.argsort(-telling, kind="stable")
        order = order[: max(int(np.searchsorted(np.cumsum(counts[order]), ENTRIES, "right")), 1)]
        row = np.zeros(self.columns.size, np.float32)
        taken = words[order], weights[order]
        offset = 0
        for block in self.blocks:
            pour(row, taken, block.block, offset)
            offset += block.size
        touched = np.flatnonzero(row != 0)
        if order.size == words.size:
            row[own.columns] -= own.values
            return Row(row, self.columns, touched)
        return Texts(self, own, query, Row(row, self.columns, touched))


class Texts:
    """A part that looked at the words that tell most only: what it proposes is scored with all of them.

    Parameters
    ----------
    sketch : TextSketch
        The method.
    own : Own
        What the items of the history give to themselves.
    query : csr array (1, F)
        The words of the history.
    rough : Row
        What the words that tell most say of each item.
    """

    def __init__(self, sketch: TextSketch, own: Own, query: sparse.csr_array, rough: Row) -> None:
        self._sketch, self._own, self._rough = sketch, own, rough
        self._words: Floats = np.zeros(query.shape[1], np.float32)
        self._words[query.indices] = query.data
        self._total = float(query.data @ sketch.sums[query.indices])

    @cached_property
    def sampled(self) -> Floats:
        """The scores of the sample of items, with what items of the history give to themselves."""
        return np.asarray(self._sketch.sampled @ self._words, dtype=np.float32)

    @cached_property
    def spread(self) -> Spread:
        """Mean, and the deviation of the rough scores corrected by what the rest adds to a sample."""
        size = self._sketch.columns.size
        full, rough = self.sampled, self._rough.sampled
        square = self._rough.square + size * float(
            (full.astype(np.float64) ** 2 - rough.astype(np.float64) ** 2).mean()
        )
        total, more = self._own.moved(self._scores(self._own.columns))
        return Spread.of(self._total + total, square + more, size, float(full.max(initial=0.0)))

    def propose(self, count: int) -> Ints:
        """Return the columns with the highest rough scores."""
        return self._rough.propose(count)

    def at(self, columns: Ints) -> Floats:
        """Return the scores of some columns."""
        return self._own.less(columns, self._scores(columns))

    def _scores(self, columns: Ints) -> Floats:
        rows = self._sketch.rows[self._sketch.columns.items[columns]]
        return np.asarray(rows @ self._words, dtype=np.float32)


def _some(rows: sparse.csr_array, items: Indices) -> sparse.csr_array:
    whole = items.size == rows.shape[0] and bool((items == np.arange(items.size)).all())
    return rows if whole else cast("sparse.csr_array", sparse.csr_array(rows[items]))
