"""What each item of a history gives to few items, standardised as over all: for many versions of one history at once.

A method that is linear in the history scores ``profile @ rows``, with one row of scores for each item met. Mean and
spread over all ``T`` target items, by which the blend standardises, follow from sums and products of these rows, so
that the rows themselves need not be made, and versions of one history share what is known of its items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from scipy import sparse

from isthmus.model.base import Doubles, ItemToItem
from isthmus.model.content import TextContent, TfidfContent
from isthmus.types import Bools, Floats, Indices, Ints

#: Products of words of the texts of a catalogue that are kept at most; with more, all items are scored.
WORDS: Final = 60_000_000
#: Variance as a share of the mean square below which it is lost in rounding, and all items are scored.
LOST: Final = 1e-6


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


#: From items met (H,) and places among the targets (R,), and those of the items met (-1: none), to what they give.
Give = Callable[[Indices, Ints, Ints], Pieces]


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
        """Return the scores (B, R) for histories (B, N), None where rounding would tell."""
        items, where = np.unique(profile.indices, return_inverse=True)
        if not items.size:
            return np.zeros((profile.shape[0], columns.size), np.float32)
        weights = np.zeros((profile.shape[0], items.size))
        weights[np.repeat(np.arange(profile.shape[0]), np.diff(profile.indptr)), where] = profile.data
        place = self._place[items]
        some = self._give(items, columns, place)
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


class OfWords:
    """Pieces of the cosine of TF-IDF texts; see :data:`Give`."""

    def __init__(self, method: TfidfContent) -> None:
        self._method = method

    @classmethod
    def fits(cls, method: TfidfContent) -> bool:
        """Return whether the products of all words that stand together are few enough to be kept."""
        lengths = np.diff(method.text.indptr)[method.target].astype(np.int64)
        return min(int((lengths**2).sum()), int(method.text.shape[1]) ** 2) <= WORDS

    @cached_property
    def _words(self) -> tuple[Doubles, sparse.csr_array]:
        """Sums (F,) and products (F, F) of the words of all target items; of two words, where the first comes first."""
        listed = sparse.csr_array(self._method.text[self._method.target])
        products = sparse.csr_array(sparse.triu(listed.T @ listed, format="csr"))
        return np.asarray(listed.sum(axis=0), dtype=np.float64).ravel(), products

    def __call__(self, items: Indices, columns: Ints, place: Ints) -> Pieces:
        """Return what items give."""
        method = self._method
        sums, products = self._words
        words, text = _dense(sparse.csr_array(method.text[items]))
        shown = sparse.csr_array(method.text[method.target[columns]])
        told = np.zeros((columns.size, words.size))
        known, where = _found(shown.indices, words)
        told[np.repeat(np.arange(columns.size), np.diff(shown.indptr))[known], where] = shown.data[known]
        upper = sparse.csr_array(sparse.csr_array(products[words])[:, words]).toarray()
        half = (text.astype(np.float32) @ upper).astype(np.float64) @ text.T
        listed = place >= 0
        return Pieces(
            text @ told.T,
            text @ text.T * listed,
            text @ sums[words],
            half + half.T - (text * upper.diagonal()) @ text.T,
            np.where(listed, method.itself[items], 0.0).astype(np.float64),
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


class OfVectors:
    """Pieces of the cosine of vectors; see :data:`Give`."""

    def __init__(self, method: TextContent) -> None:
        self._method = method
        self._itself = (method.vectors**2).sum(axis=1)

    @cached_property
    def _all(self) -> tuple[Doubles, Doubles]:
        """Sum (D,) and products (D, D) of the vectors of all target items."""
        listed = self._method.vectors[self._method.target]
        return listed.sum(axis=0, dtype=np.float64), (listed.T @ listed).astype(np.float64)

    def __call__(self, items: Indices, columns: Ints, place: Ints) -> Pieces:
        """Return what items give."""
        method = self._method
        sums, products = self._all
        rows = method.vectors[items].astype(np.float64)
        listed = place >= 0
        return Pieces(
            rows @ method.vectors[method.target[columns]].T,
            rows @ rows.T * listed,
            rows @ sums,
            rows @ products @ rows.T,
            np.where(listed, self._itself[items], 0.0).astype(np.float64),
        )
