"""What each item of a history gives to few items, standardised as over all: for many versions of one history at once.

A method that is linear in the history scores ``profile @ rows``, with one row of scores for each item met. Mean and
spread over all ``T`` target items, by which the blend standardises, follow from sums and products of these rows, so
that the rows themselves need not be made, and versions of one history share what is known of its items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, cast

import numpy as np
from scipy import sparse

from isthmus.model.base import Doubles, ItemToItem
from isthmus.model.content import TextContent, TfidfContent
from isthmus.types import Bools, Floats, Indices, Ints

#: Products of words of the texts of a catalogue that are kept at most; with more, all items are scored.
WORDS: Final = 60_000_000
#: Variance as a share of the mean square below which it is lost in rounding, and all items are scored.
LOST: Final = 1e-4
#: New items that are counted in one by one; with more, sums are made anew.
MANY: Final = 1000


@dataclass(frozen=True)
class Pieces:
    """What ``H`` items of a history give.

    Parameters
    ----------
    here : float64 array (H, R)
        To each of the ``R`` items asked for.
    met : float64 array (H, H)
        To each item of the history that is a target; 0 where it is none.
    sums : float64 array (H,)
        To all target items together.
    products : float64 array (H, H)
        Sum over all target items of the products of what two of them give.
    itself : float64 array (H,)
        To itself, which is taken away; 0 where it is no target or nothing is taken away.
    """

    here: Doubles
    met: Doubles
    sums: Doubles
    products: Doubles
    itself: Doubles


#: From items met (H,) and places among the targets (R,), and those of the items met (-1: none), to what they give; None
#: where that is not :meth:`Summed.prepare`\ d.
Give = Callable[[Indices, Ints, Ints], Pieces | None]


class Linear:
    """Standardised scores of few items by a method that is linear in the history.

    Parameters
    ----------
    give : callable
        What items of a history give.
    target : int32 array (T,)
        The target items.
    n_items : int
        Items in all ``N``.
    """

    def __init__(self, give: Give, target: Indices, n_items: int) -> None:
        self._give, self._target, self._size, self._n_items = give, target, target.size, n_items

    @cached_property
    def _place(self) -> Ints:
        """Place of each item among the targets, -1 if it is none."""
        place = np.full(self._n_items, -1, np.int64)
        place[self._target] = np.arange(self._size)
        return place

    def at(self, profile: sparse.csr_array, columns: Ints) -> Floats | None:
        """Return the scores (B, R) for histories (B, N), None where all items have to be scored."""
        items, where = np.unique(profile.indices, return_inverse=True)
        if not items.size:
            return np.zeros((profile.shape[0], columns.size), np.float32)
        weights = np.zeros((profile.shape[0], items.size))
        weights[np.repeat(np.arange(profile.shape[0]), np.diff(profile.indptr)), where] = profile.data
        place = self._place[items]
        some = self._give(items, columns, place)
        if some is None:
            return None
        own = weights * some.itself
        scores = weights @ some.here
        row, column = np.nonzero(place[:, None] == columns[None, :])
        scores[:, column] -= own[:, row]
        met = weights @ some.met
        squares = np.einsum("bh,bh->b", weights @ some.products, weights) + ((met - own) ** 2 - met**2).sum(axis=1)
        mean, square = (weights @ some.sums - own.sum(axis=1)) / self._size, squares / self._size
        variance = square - mean**2
        said = square != 0
        if (variance[said] < LOST * square[said]).any():
            return None
        spread = np.sqrt(np.where(said, variance, 1.0))
        return np.where(said[:, None], (scores - mean[:, None]) / spread[:, None], 0.0).astype(np.float32)


class OfNeighbours:
    """Pieces of a method that scores ``profile @ weights``; see :data:`Give`."""

    def __init__(self, method: ItemToItem) -> None:
        self._weights = method.weights

    @cached_property
    def _sums(self) -> Doubles:
        return np.asarray(self._weights.sum(axis=1), dtype=np.float64).ravel()

    def __call__(self, items: Indices, columns: Ints, place: Ints) -> Pieces:  # noqa: ARG002
        """Return what items give."""
        rows = np.asarray(self._weights[items].toarray(), dtype=np.float32)
        none = np.zeros((items.size, items.size))
        products = (rows @ rows.T).astype(np.float64)
        return Pieces(rows[:, columns].astype(np.float64), none, self._sums[items], products, none[0])


@dataclass(frozen=True)
class Sums:
    """Of what is known of the first ``count`` target items: the sum (F,), and the products of any two (F, F)."""

    count: int
    sums: Doubles
    products: sparse.csr_array | Floats


class Summed(ABC):
    """Pieces of a method that compares what is known of items; it can give them once that is summed over all of them.

    Parameters
    ----------
    target : int32 array (T,)
        The target items.
    """

    def __init__(self, target: Indices) -> None:
        self._target = target
        self._made: Sums | None = None

    def prepare(self) -> None:
        """Sum over all target items: that takes tenths of a second for some ten thousand."""
        if self._made is None:
            self._made = self._summed(self._target)

    def follow(self, before: Summed) -> None:
        """Go on from the sums ``before`` items came at the end of the targets; many new ones are summed anew."""
        made = before._made
        if made is not None and self._target.size - made.count <= MANY:
            self._made = made
        elif made is not None:
            self.prepare()

    @abstractmethod
    def _summed(self, target: Indices) -> Sums: ...

    @abstractmethod
    def _pieces(self, made: Sums, items: Indices, columns: Ints, place: Ints) -> Pieces: ...

    @abstractmethod
    def _between(self, items: Indices, others: Indices) -> Doubles:
        """Return what each of some items (H,) gives to each of ``others`` (R,)."""

    def __call__(self, items: Indices, columns: Ints, place: Ints) -> Pieces | None:
        """Return what items give, None before it is prepared."""
        made, target = self._made, self._target
        if made is None:
            return None
        found = self._pieces(made, items, columns, place)
        if target.size > made.count:
            more = self._between(items, target[made.count :])
            found = replace(found, sums=found.sums + more.sum(axis=1), products=found.products + more @ more.T)
        return found


class OfWords(Summed):
    """Pieces of the cosine of TF-IDF texts; products of words are kept where the first comes first."""

    def __init__(self, method: TfidfContent) -> None:
        super().__init__(method.target)
        self.method = method

    @classmethod
    def fits(cls, method: TfidfContent) -> bool:
        """Return whether the products of all words that stand together are few enough to be kept."""
        lengths = np.diff(method.text.indptr)[method.target].astype(np.int64)
        return min(int((lengths**2).sum()), int(method.text.shape[1]) ** 2) <= WORDS

    def _summed(self, target: Indices) -> Sums:
        listed = sparse.csr_array(self.method.text[target])
        products = sparse.csr_array(sparse.triu(listed.T @ listed, format="csr"))
        return Sums(target.size, np.asarray(listed.sum(axis=0), dtype=np.float64).ravel(), products)

    def _between(self, items: Indices, others: Indices) -> Doubles:
        given = sparse.csr_array(self.method.text[items]) @ sparse.csr_array(self.method.text[others]).T
        return np.asarray(given.toarray(), dtype=np.float64)

    def _pieces(self, made: Sums, items: Indices, columns: Ints, place: Ints) -> Pieces:
        method = self.method
        words, text = _dense(sparse.csr_array(method.text[items]))
        shown = sparse.csr_array(method.text[method.target[columns]])
        told = np.zeros((columns.size, words.size))
        known, where = _found(shown.indices, words)
        told[np.repeat(np.arange(columns.size), np.diff(shown.indptr))[known], where] = shown.data[known]
        products = cast("sparse.csr_array", made.products)
        upper = sparse.csr_array(sparse.csr_array(products[words])[:, words]).toarray()
        half = (text.astype(np.float32) @ upper).astype(np.float64) @ text.T
        listed = place >= 0
        return Pieces(
            text @ told.T,
            text @ text.T * listed,
            text @ made.sums[words],
            half + half.T - (text * upper.diagonal()) @ text.T,
            np.where(listed, method.itself[items], 0.0).astype(np.float64),
        )


class OfVectors(Summed):
    """Pieces of the cosine of vectors."""

    def __init__(self, method: TextContent) -> None:
        super().__init__(method.target)
        self.method = method

    def _summed(self, target: Indices) -> Sums:
        listed = self.method.vectors[target]
        return Sums(target.size, listed.sum(axis=0, dtype=np.float64), listed.T @ listed)

    def _between(self, items: Indices, others: Indices) -> Doubles:
        return np.asarray(self.method.vectors[items].astype(np.float64) @ self.method.vectors[others].T)

    def _pieces(self, made: Sums, items: Indices, columns: Ints, place: Ints) -> Pieces:
        rows = self.method.vectors[items].astype(np.float64)
        listed = place >= 0
        return Pieces(
            self._between(items, self.method.target[columns]),
            rows @ rows.T * listed,
            rows @ made.sums,
            rows @ cast("Floats", made.products) @ rows.T,
            np.where(listed, (rows**2).sum(axis=1), 0.0),
        )


def _dense(rows: sparse.csr_array) -> tuple[Ints, Doubles]:
    """Return the columns that hold anything, rising, and the rows with these columns alone."""
    columns, where = np.unique(rows.indices, return_inverse=True)
    dense = np.zeros((rows.shape[0], columns.size))
    dense[np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), where] = rows.data
    return columns, dense


def _found(asked: Ints, known: Ints) -> tuple[Bools, Ints]:
    """Return which of ``asked`` are among ``known``, which rise, and the places of those."""
    place = np.searchsorted(known, asked)
    place[place == known.size] = 0
    found = known[place] == asked if known.size else np.zeros(asked.size, dtype=bool)
    return found, place[found]
