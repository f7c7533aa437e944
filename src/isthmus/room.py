"""Arrays with room at their end: rows that come later take it, and what is there already is not copied.

An array that was given rows stays as it is; only the room behind it is used, and only once: whoever appends to an array
behind which somebody else already did gets a copy.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from threading import Lock
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Number = TypeVar("Number", bound=np.generic)
#: Room as a share of the rows there are, and rows at least.
SHARE: Final = 0.25
LEAST: Final = 64
#: Numbers from which on places in a sparse array need 64 bits.
WIDE: Final = np.iinfo(np.int32).max

_lock = Lock()
#: Rows in use of each array that has room, by its id.
_used: dict[int, int] = {}


def roomy(shape: Sequence[int], dtype: np.dtype[Number]) -> NDArray[Number]:
    """Return an array of that shape with room for more rows behind it; it holds whatever was in memory.

    Parameters
    ----------
    shape : sequence of int
        Rows first.
    dtype : dtype
        Of its numbers.
    """
    rows = shape[0]
    owner: NDArray[Number] = np.empty((rows + max(int(SHARE * rows), LEAST), *shape[1:]), dtype)
    with _lock:
        _used[id(owner)] = rows
    weakref.finalize(owner, _used.pop, id(owner), None).atexit = False
    return owner[:rows]


def appended(rows: NDArray[Number], more: NDArray[Number]) -> NDArray[Number]:
    """Return ``rows`` followed by ``more``, of the same type as ``rows``; copies only where there is no room.

    Examples
    --------
    >>> first = np.arange(3)
    >>> longer = appended(first, np.array([7]))
    >>> longest = appended(longer, np.array([8]))
    >>> longest.tolist(), np.shares_memory(longer, longest), np.shares_memory(first, longer)
    ([0, 1, 2, 7, 8], True, False)
    """
    before, total = len(rows), len(rows) + len(more)
    if before == total:
        return rows
    owner = _taken(rows, total)
    if owner is not None:
        owner[before:] = more
        return owner
    copied = roomy((total, *rows.shape[1:]), rows.dtype)
    copied[:before], copied[before:] = rows, more
    return copied


def _taken(rows: NDArray[Number], total: int) -> NDArray[Number] | None:
    """Return ``total`` rows of the array that ``rows`` is the beginning of; None if there is no room behind them."""
    owner = rows.base
    if not isinstance(owner, np.ndarray) or owner.dtype != rows.dtype or owner.strides != rows.strides:
        return None
    if owner.shape[1:] != rows.shape[1:] or owner.ctypes.data != rows.ctypes.data or total > len(owner):
        return None
    with _lock:
        if _used.get(id(owner)) != len(rows):
            return None
        _used[id(owner)] = total
    return owner[:total]


def stacked(rows: sparse.csr_array, more: sparse.csr_array) -> sparse.csr_array:
    """Return the rows of one sparse array followed by those of another with the same columns, as :func:`appended`.

    Examples
    --------
    >>> eye = sparse.csr_array(np.eye(2))
    >>> stacked(eye, sparse.csr_array(np.array([[0.0, 5.0]]))).toarray().tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 5.0]]
    """
    cells = int(rows.indptr[-1]) + int(more.indptr[-1])
    kind = np.int64 if cells > WIDE else rows.indptr.dtype
    indices, indptr = (array.astype(kind, copy=False) for array in (rows.indices, rows.indptr))
    parts = (
        appended(rows.data, more.data),
        appended(indices, more.indices),
        appended(indptr, more.indptr[1:].astype(kind) + indptr[-1]),
    )
    return sparse.csr_array(parts, shape=(rows.shape[0] + more.shape[0], rows.shape[1]))
