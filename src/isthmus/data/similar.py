"""Which items are alike: by their vectors, or by who met them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.types import Floats, Indices

#: Cosines held at once.
_CELLS: Final = 1 << 24


def similar_items(vectors: Floats, k: int, *, least: float = 0.0, most: float = 2.0) -> Indices:
    """Return the ``k`` rows nearest to each row by cosine, nearest first.

    Parameters
    ----------
    vectors : float32 array (N, D)
        One row an item; a row of zeros is near to nothing.
    k : int
        How many.
    least, most : float
        Only cosines above ``least`` and below ``most`` count.

    Returns
    -------
    int32 array (N, k)
        Never the row itself; -1 where there are no more. Of equal cosines the lower row stands first.

    Examples
    --------
    >>> similar_items(np.array([[1, 0], [1, 0.1], [0, 1], [0, 0]], np.float32), 2).tolist()
    [[1, -1], [0, 2], [1, -1], [-1, -1]]
    """
    n = len(vectors)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors, dtype=np.float32), where=length > 0)
    nothing = np.flatnonzero(length.ravel() == 0)
    table = np.full((n, k), -1, dtype=np.int32)
    width = min(k, n)
    step = max(1, _CELLS // max(n, 1))
    for start in range(0, n if width else 0, step):
        cosine = unit[start : start + step] @ unit.T
        rows = np.arange(len(cosine))
        cosine[rows, rows + start] = -np.inf
        cosine[:, nothing] = -np.inf
        cosine[nothing[(nothing >= start) & (nothing < start + step)] - start] = -np.inf
        if most <= 1:
            cosine[cosine >= most] = -np.inf
        bound = np.maximum(_reached(cosine, width), np.nextafter(np.float32(least), np.float32(2)))
        who, column = np.nonzero(cosine >= bound)
        _fill(table[start : start + step], who, column, cosine[who, column])
    return table


def _reached(values: Floats, width: int) -> Floats:
    """Return a value for each row, (B, 1), that at least ``width`` columns reach and few more."""
    rows, columns = values.shape
    size = max(1, columns // (8 * width))
    groups = columns // size
    heads = values[:, : size * groups].reshape(rows, size, groups).max(axis=1)
    heads = np.concatenate([heads, values[:, size * groups :]], axis=1)
    reached: Floats = np.partition(heads, heads.shape[1] - width, axis=1)[:, -width, None]
    return reached


def similar_by_company(histories: Histories, n_items: int, k: int) -> Indices:
    """Return the ``k`` items that each item most often shares a person with.

    The weight of a pair is the sum over persons with both of ``1 / log2(1 + items of the person)``, divided by the
    root of the number of persons of either: cosine with inverse user frequency (Breese, Heckerman & Kadie,
    "Empirical Analysis of Predictive Algorithms for Collaborative Filtering", UAI 1998, section 2.2.2), which CoSeRec
    uses.

    Returns
    -------
    int32 array (n_items, k)
        As :func:`similar_items`.

    Examples
    --------
    >>> similar_by_company(Histories.of([[0, 1], [0, 1, 2]]), 4, 2).tolist()
    [[1, 2], [0, 2], [0, 1], [-1, -1]]
    """
    met = (histories.matrix(n_items) > 0).astype(np.float64)
    size = np.diff(met.indptr)
    worth = 1 / np.log2(1 + np.maximum(size, 1))
    pairs = sparse.coo_array(met.T @ sparse.diags_array(worth) @ met)
    persons = np.maximum(np.asarray(met.sum(axis=0)).ravel(), 1)
    other = pairs.row != pairs.col
    row, column = pairs.row[other], pairs.col[other]
    table = np.full((n_items, k), -1, dtype=np.int32)
    _fill(table, row, column, pairs.data[other] / np.sqrt(persons[row] * persons[column]))
    return table


def _fill(table: Indices, row: NDArray[np.integer], column: NDArray[np.integer], value: NDArray[np.floating]) -> None:
    """Write the columns of largest value of each row into ``table``; of equal ones the lower."""
    order = np.lexsort((column, -value, row))
    row, column = row[order], column[order]
    place = np.arange(row.size) - np.searchsorted(row, row)
    kept = place < table.shape[1]
    table[row[kept], place[kept]] = column[kept]
