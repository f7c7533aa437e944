"""Ratings from those that the person gave to similar items: item-item neighbours on what the biases leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np
from scipy import sparse

from isthmus.model.base import Doubles, State
from isthmus.model.bias import Bias
from isthmus.model.rating_base import RatingModel, Ratings, inner, outer
from isthmus.types import Ints

#: Items whose neighbours are found at a time, and pairs predicted at a time.
_ITEMS: Final = 512
_PAIRS: Final = 8192
#: Neighbours kept of an item.
KEPT: Final = 100
#: Newest ratings of a person that make neighbours: one person with a hundred thousand does not decide all.
NEWEST: Final = 1000


class ResidualKnn(RatingModel):
    """Bias plus the mean of the person's other residuals, weighted by how alike the items were rated.

    Alike is the cosine of two items' residuals, its lengths damped by ``shrink`` so that few common raters do not
    make a neighbour; the mean is damped by ``damping`` (Bell & Koren, "Scalable Collaborative Filtering with Jointly
    Derived Neighborhood Interpolation Weights", ICDM 2007, section 2; here with the shrunk cosine itself as weight).

    Parameters
    ----------
    settings : mapping, optional
        ``shrink``: squared residuals added to the length of an item; ``damping``: similarity that counts as no news.
    bias : mapping, optional
        Settings of the biases underneath.
    """

    name = "knn"
    reading = ("damping",)
    grid: ClassVar = tuple(
        {"shrink": shrink, "damping": damping} for shrink in (10.0, 30.0) for damping in (0.5, 1.5, 5.0)
    )

    def __init__(self, settings: Mapping[str, float] | None = None, *, bias: Mapping[str, float] | None = None) -> None:
        super().__init__(settings)
        self.bias = Bias(bias)

    def fit(self, ratings: Ratings, *, seed: int = 0) -> ResidualKnn:  # noqa: ARG002
        """Learn the biases and the neighbours of each item."""
        self.bias.fit(ratings)
        some = ratings.newest(NEWEST)
        above = self.bias.residuals(some)
        unit = float(np.mean(above**2)) or 1.0
        table = sparse.csc_array(some.matrix(above))
        length = np.sqrt(np.bincount(some.items, above**2, some.shape[1]) + self.settings["shrink"] * unit)
        self.alike = neighbours(table, length)
        return self

    def predict(self, known: Ratings, persons: Ints, items: Ints) -> Doubles:
        """Return the rating of each pair, (n,)."""
        above = known.matrix(self.bias.residuals(known))
        given = known.matrix(np.ones(len(known)))
        near = np.zeros(items.size)
        for start in range(0, items.size, _PAIRS):
            some = slice(start, start + _PAIRS)
            alike = self.alike[items[some]]
            told = alike.multiply(above[persons[some]]).sum(axis=1)
            weight = abs(alike).multiply(given[persons[some]]).sum(axis=1)
            near[some] = np.asarray(told).ravel() / (np.asarray(weight).ravel() + self.settings["damping"])
        return self.bias.predict(known, persons, items) + near

    def state(self) -> State:
        """Return the biases and the neighbours."""
        alike = {"data": self.alike.data, "indices": self.alike.indices, "indptr": self.alike.indptr}
        return {**outer("bias", self.bias.state()), **alike}

    def restore(self, state: State) -> None:
        """Take back the biases and the neighbours."""
        self.bias.restore(inner("bias", state))
        parts = state["data"].astype(np.float32), state["indices"], state["indptr"]
        self.alike = sparse.csr_array(parts, shape=(self.bias.items.size, self.bias.items.size))


def neighbours(table: sparse.csc_array, length: Doubles, k: int = KEPT) -> sparse.csr_array:
    """Return the ``k`` items most alike each item, items × items (N, N), without the item itself.

    Parameters
    ----------
    table : csc array (P, N)
        Residuals.
    length : float64 array (N,)
        What the products of two columns are divided by.
    k : int
        Neighbours kept, of largest size of similarity.
    """
    columns = sparse.csc_array(table @ sparse.diags_array(1 / np.maximum(length, 1e-12))).astype(np.float32)
    rows = columns.T.tocsr()
    blocks = [
        _strongest(rows[start : start + _ITEMS] @ columns, start, k) for start in range(0, table.shape[1], _ITEMS)
    ]
    return sparse.csr_array(sparse.vstack(blocks, format="csr"))


def _strongest(block: sparse.csr_array, first: int, k: int) -> sparse.csr_array:
    """Return the ``k`` strongest of each row of a block, of the items from ``first`` on, without the item itself."""
    found = sparse.coo_array(block)
    other = (found.col != found.row + first) & (found.data != 0)
    row, column, value = found.row[other], found.col[other], found.data[other]
    size = np.abs(value)
    order = np.argsort(row - size / (size.max(initial=0) * 1.001 + 1e-30), kind="stable")
    row, column, value = row[order], column[order], value[order]
    starts = np.searchsorted(row, np.arange(block.shape[0]))
    near = np.arange(row.size) - starts[row] < k
    return sparse.csr_array((value[near], (row[near], column[near])), shape=block.shape)
