"""Where the right answers stand in a ranking of the whole catalogue, and the top of that ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import DataError
from isthmus.types import Bools, Floats, Indices, Ints

Doubles = NDArray[np.float64]
#: Targets compared with their rows at a time: few enough that the copied rows stay in the processor's cache.
_AT_ONCE = 16


@dataclass(frozen=True)
class Ranks:
    """The places of every person's targets, ties included.

    A target that ties with others has no single place: it stands somewhere among ``ties`` places that begin after
    ``above`` better items. :attr:`mid` gives the middle of them; the metrics of :mod:`isthmus.evaluate.metrics` give
    the expected value over all orders of the tied items, so that a constant scorer scores as chance does.

    Parameters
    ----------
    indptr : int64 array (B + 1,)
        Where each person's targets start.
    above : float64 array (nnz,)
        Number of items that score higher than the target; infinite for an excluded target.
    ties : float64 array (nnz,)
        Number of items with the score of the target, itself included; at least 1.
    listed : int64 array (B,)
        Number of items that are not excluded for the person.

    Examples
    --------
    >>> scores = np.array([[0.9, 0.5, 0.5, 0.1]], np.float32)
    >>> Ranks.of(scores, np.array([0, 2]), np.array([2, 0], np.int32)).mid.tolist()
    [2.5, 1.0]
    """

    indptr: Ints
    above: Doubles
    ties: Doubles
    listed: Ints

    @classmethod
    def of(cls, scores: Floats, indptr: Ints, items: Indices) -> Ranks:
        """Return the ranks of the targets ``items`` (columns, CSR with ``indptr``) in ``scores`` (B, T).

        A score of minus infinity excludes an item. Other targets of the same person count like any item.

        Raises
        ------
        DataError
            A score is not a number, or the shapes do not fit.
        """
        if scores.shape[0] + 1 != indptr.size or indptr[-1] != items.size:
            raise DataError(f"{scores.shape[0]} rows of scores do not fit {indptr.size - 1} rows of targets")
        if scores.size and np.isnan(scores.max(axis=1)).any():
            raise DataError("a score is not a number", fix="return a finite score, or -inf for an item never to list")
        rows = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
        values = scores[rows, items]
        above, ties = np.empty(rows.size), np.empty(rows.size)
        for start in range(0, rows.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            compared, value = scores[rows[part]], values[part, None]
            above[part] = _count(compared > value)
            ties[part] = _count(compared == value)
        above[values == -np.inf] = np.inf
        return cls(np.asarray(indptr, dtype=np.int64), above, ties, _count(scores > -np.inf))

    @classmethod
    def join(cls, parts: Sequence[Ranks]) -> Ranks:
        """Return the ranks of several batches of persons as one."""
        counts = np.concatenate([part.counts for part in parts])
        return cls(
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([part.above for part in parts]),
            np.concatenate([part.ties for part in parts]),
            np.concatenate([part.listed for part in parts]),
        )

    def __len__(self) -> int:
        """Return the number of persons ``B``."""
        return self.indptr.size - 1

    @property
    def counts(self) -> Ints:
        """Number of targets of each person, (B,)."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> Ints:
        """Person number ``0..B-1`` of each target, (nnz,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def mid(self) -> Doubles:
        """Mid-point rank of each target, from 1, (nnz,); infinite for an excluded target."""
        return 1 + self.above + (self.ties - 1) / 2

    def keep(self, targets: Bools) -> Ranks:
        """Return the ranks of only the targets where ``targets`` (nnz,) is true; places stay as they are."""
        counts = np.bincount(self.rows[targets], minlength=len(self))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Ranks(indptr, self.above[targets], self.ties[targets], self.listed)


def target_ranks(scores: Floats, indptr: Ints, items: Indices) -> Doubles:
    """Return the mid-point rank of each target.

    Parameters
    ----------
    scores : float32 array (B, T)
        Higher is better; minus infinity excludes an item.
    indptr : int64 array (B + 1,)
        Where each person's targets start in ``items``.
    items : int32 array (nnz,)
        Columns of the targets.

    Returns
    -------
    float64 array (nnz,)
        ``1 + #greater + (#equal - 1) / 2``; infinite for an excluded target.

    Examples
    --------
    >>> target_ranks(np.zeros((1, 5), np.float32), np.array([0, 1]), np.array([4], np.int32)).tolist()
    [3.0]
    """
    return Ranks.of(scores, indptr, items).mid


def top_k(scores: Floats, k: int) -> Indices:
    """Return the columns of the ``k`` highest scores of each row, best first; ties go to the lower column.

    Parameters
    ----------
    scores : float32 array (B, T)
        Higher is better; minus infinity excludes an item, NaN is not allowed.
    k : int
        List length, at least 1.

    Returns
    -------
    int32 array (B, k)
        Column numbers; -1 where a row has fewer than ``k`` items that are not excluded.

    Notes
    -----
    The columns are dealt into at least ``k`` groups. The ``k``-th highest of the groups' maxima cannot be above the
    ``k``-th highest score, so only the few scores that reach it have to be sorted.

    Examples
    --------
    >>> top_k(np.array([[0.1, 0.7, 0.7, -np.inf]], np.float32), 4).tolist()
    [[1, 2, 0, -1]]
    """
    rows, width = scores.shape
    length = min(k, width)
    if not rows or not length:
        return np.full((rows, k), -1, dtype=np.int32)
    scores = np.ascontiguousarray(scores)
    bound = _bound(scores, length)
    better = np.flatnonzero(scores > bound)
    missing = length - np.bincount(better // width, minlength=rows)
    tied = scores == bound
    # Most ties are long runs of one score, such as 0: where the first columns hold enough of them, forget the rest.
    near = 16 * length
    tied[_count(tied[:, :near]) >= missing, near:] = False
    equal = np.flatnonzero(tied)
    equal_rows = equal // width
    place = np.arange(equal.size) - np.searchsorted(equal, np.arange(rows) * width)[equal_rows]
    chosen = np.concatenate([better, equal[place < missing[equal_rows]]])
    chosen_rows, columns = np.divmod(chosen, width)
    values = scores.reshape(-1)[chosen]
    order = np.lexsort((columns, -values, chosen_rows))
    first = np.searchsorted(chosen_rows[order], np.arange(rows))[:, None] + np.arange(length)
    best = np.where(values[order] > -np.inf, columns[order], -1)[first].astype(np.int32)
    return np.pad(best, ((0, 0), (0, k - length)), constant_values=-1)


def _bound(scores: Floats, length: int) -> Floats:
    """Return a score for each row, (B, 1), that at least ``length`` items reach and few exceed."""
    rows, width = scores.shape
    size = max(1, width // (8 * length))
    groups = width // size
    whole = scores[:, : size * groups].reshape(rows, size, groups).max(axis=1)
    best = np.concatenate([whole, scores[:, size * groups :]], axis=1)
    bound: Floats = np.partition(best, best.shape[1] - length, axis=1)[:, -length, None]
    return bound


def _count(flags: Bools) -> Ints:
    """Return the number of true values in each row."""
    counts: Ints = np.bitwise_count(np.packbits(flags, axis=1)).sum(axis=1, dtype=np.int64)
    return counts
