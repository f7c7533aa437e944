"""Metrics of each person from the ranks of the targets, and metrics of scores on a scale.

Every ranking metric is the expected value over all orders of the tied items (McSherry and Najork, ECIR 2008,
"Computing information retrieval performance measures efficiently in the presence of tied scores"). A scorer that
cannot tell items apart gets what a random list gets. ``k`` is the list length. A person without targets gets NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.errors import DataError
from isthmus.evaluate.ranks import Doubles, Ranks
from isthmus.types import Ints

A = TypeVar("A", bound=np.generic)


def recall(ranks: Ranks, k: int) -> Doubles:
    """Return the share of each person's targets that are among the first ``k``, (B,).

    Examples
    --------
    >>> tied = Ranks.of(np.zeros((1, 100), np.float32), np.array([0, 1]), np.array([7], np.int32))
    >>> recall(tied, 10).tolist()
    [0.1]
    """
    return _divide(_hits(ranks, k), ranks.counts)


def precision(ranks: Ranks, k: int) -> Doubles:
    """Return the share of the first ``k`` places that hold a target, (B,)."""
    return _divide(_hits(ranks, k), np.where(ranks.counts > 0, k, 0))


def f1(ranks: Ranks, k: int) -> Doubles:
    """Return the harmonic mean of precision and recall, (B,): twice the hits over ``k`` plus the number of targets."""
    return _divide(2 * _hits(ranks, k), np.where(ranks.counts > 0, k + ranks.counts, 0))


def hit_rate(ranks: Ranks, k: int) -> Doubles:
    """Return the probability that at least one target is among the first ``k``, (B,)."""
    return _first_hit(ranks, k)[0]


def mrr(ranks: Ranks, k: int) -> Doubles:
    """Return one over the place of the first target, 0 if that is after ``k``, (B,)."""
    return _first_hit(ranks, k)[1]


def ndcg(ranks: Ranks, k: int) -> Doubles:
    """Return the normalised discounted cumulative gain with gains 0 and 1, (B,).

    A target at place ``r`` adds ``1 / log2(r + 1)``; the sum is divided by that of a list with all targets on top
    (Järvelin and Kekäläinen, TOIS 2002).
    """
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    low, high = _window(ranks, k)
    gains = _per_person(ranks, (discounts[high] - discounts[low]) / ranks.ties)
    return _divide(gains, discounts[np.minimum(ranks.counts, k)])


def average_precision(ranks: Ranks, k: int) -> Doubles:
    """Return the average precision of the first ``k`` (its mean over persons is MAP), (B,).

    The precisions at the places of the targets are summed and divided by ``min(targets, k)``.
    """
    order, before, together = _groups(ranks)
    sorted_ranks = Ranks(ranks.indptr, ranks.above[order], ranks.ties[order], ranks.listed)
    low, high = _window(sorted_ranks, k)
    # A target at place r = above + j has 1 + before + slope * (j - 1) targets at or above it on average.
    slope = (together - 1) / np.maximum(sorted_ranks.ties - 1, 1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, k + 1))])
    steady = (1 + before - slope * (low + 1)) * (harmonic[high] - harmonic[low])
    total = _per_person(sorted_ranks, (steady + slope * (high - low)) / sorted_ranks.ties)
    return _divide(total, np.minimum(ranks.counts, k))


def auc(ranks: Ranks) -> Doubles:
    """Return the probability that a target stands above another item that is not excluded, ties counting half, (B,).

    An excluded target stands below everything. NaN where there is no other item.
    """
    reachable = np.isfinite(ranks.above)
    n = _per_person(ranks, reachable.astype(np.float64))
    others = ranks.listed - n
    places = _per_person(ranks, np.where(reachable, ranks.mid, 0.0))
    below = n * others - (places - n * (n + 1) / 2)
    return _divide(below, ranks.counts * others)


#: Metrics at a list length, by the name they have in tables.
AT_K: Final[dict[str, Callable[[Ranks, int], Doubles]]] = {
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "hit_rate": hit_rate,
    "ndcg": ndcg,
    "mrr": mrr,
    "map": average_precision,
}


def per_person(ranks: Ranks, ks: Sequence[int]) -> dict[str, Doubles]:
    """Return every ranking metric of every person: ``recall@10``, ..., ``map@50``, ``auc``; arrays (B,)."""
    table = {f"{name}@{k}": metric(ranks, k) for k in ks for name, metric in AT_K.items()}
    return {**table, "auc": auc(ranks)}


def _divide(top: Doubles, bottom: Doubles | Ints) -> Doubles:
    result: Doubles = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=np.asarray(bottom) > 0)
    return result


def _per_person(ranks: Ranks, values: Doubles) -> Doubles:
    sums: Doubles = np.bincount(ranks.rows, weights=values, minlength=len(ranks)).astype(np.float64)
    return sums


def _window(ranks: Ranks, k: int) -> tuple[Ints, Ints]:
    """Return how many of the first ``k`` places are above, and how many above or tied with, each target, (nnz,)."""
    low = np.minimum(ranks.above, k).astype(np.int64)
    return low, np.minimum(ranks.above + ranks.ties, k).astype(np.int64)


def _hits(ranks: Ranks, k: int) -> Doubles:
    low, high = _window(ranks, k)
    return _per_person(ranks, (high - low) / ranks.ties)


def _groups(ranks: Ranks) -> tuple[Ints, Ints, Ints]:
    """Sort the targets of each person by place and look at those that tie with one another.

    Returns
    -------
    order : int64 array (nnz,)
        Targets by person, best first.
    before, together : int64 arrays (nnz,)
        For each target in that order: targets of the person strictly above it, and with its score (itself too).
    """
    rows = ranks.rows
    order = np.lexsort((ranks.above, rows))
    above = ranks.above[order]
    new = np.ones(order.size, dtype=bool)
    new[1:] = (rows[1:] != rows[:-1]) | (above[1:] != above[:-1])
    starts = np.flatnonzero(new)
    together = np.diff(np.concatenate([starts, [order.size]]))
    group = np.cumsum(new) - 1
    return order, (starts - ranks.indptr[rows[starts]])[group], together[group]


def _first_hit(ranks: Ranks, k: int) -> tuple[Doubles, Doubles]:
    """Return the probability of a hit in the first ``k`` and the expected reciprocal place of the first hit, (B,)."""
    order, _, together = _groups(ranks)
    some = np.flatnonzero(ranks.counts > 0)
    lead = ranks.indptr[:-1][some]
    above, ties, targets = ranks.above[order][lead], ranks.ties[order][lead], together[lead]
    missed, reciprocal = np.ones(some.size), np.zeros(some.size)
    for place in range(1, k + 1):
        left = ties - (place - 1 - above)
        chance = np.where((place > above) & (left > 0), np.minimum(targets / np.maximum(left, 1), 1.0), 0.0)
        reciprocal += missed * chance / place
        missed = missed * (1 - chance)
    hit, first = np.full(len(ranks), np.nan), np.full(len(ranks), np.nan)
    hit[some], first[some] = 1 - missed, reciprocal
    return hit, first


def scale_metrics(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Return the errors of predicted ratings or other scores on a scale.

    Parameters
    ----------
    truth, predicted : float arrays (n,)
        Same unit; the result of ``mae`` and ``rmse`` has it too.

    Returns
    -------
    dict of str to float
        ``mae``, ``mse``, ``rmse``.

    Raises
    ------
    DataError
        Different lengths, no values, or a value that is not finite.

    Examples
    --------
    >>> scale_metrics([4.0, 2.0], [3.0, 2.0])
    {'mae': 0.5, 'mse': 0.5, 'rmse': 0.7071067811865476}
    """
    error = np.subtract(*_pair(np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)))
    if not np.isfinite(error).all():
        raise DataError("a true or predicted value is not finite", fix="leave such rows out and count them")
    mse = float(np.mean(error**2))
    return {"mae": float(np.abs(error).mean()), "mse": mse, "rmse": float(np.sqrt(mse))}


def class_metrics(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Return the quality of predicted classes (a rating rounded to its step is one).

    Parameters
    ----------
    truth, predicted : arrays (n,)
        Class labels, numbers or words.

    Returns
    -------
    dict of str to float
        ``accuracy`` and the macro means over the classes of truth and prediction of ``precision``, ``recall``,
        ``f1``; a ratio without cases counts 0.

    Raises
    ------
    DataError
        Different lengths, or no values.

    Examples
    --------
    >>> class_metrics(["a", "b", "b"], ["a", "a", "b"])["accuracy"]
    0.6666666666666666
    """
    true, guess = _pair(np.asarray(truth), np.asarray(predicted))
    classes, codes = np.unique(np.concatenate([true, guess]), return_inverse=True)
    true, guess = codes[: true.size], codes[true.size :]
    hits = np.bincount(true[true == guess], minlength=classes.size)
    actual = np.bincount(true, minlength=classes.size)
    named = np.bincount(guess, minlength=classes.size)
    return {
        "accuracy": float(np.mean(true == guess)),
        "precision": float(np.mean(hits / np.maximum(named, 1))),
        "recall": float(np.mean(hits / np.maximum(actual, 1))),
        "f1": float(np.mean(2 * hits / (actual + named))),
    }


def _pair(truth: NDArray[A], predicted: NDArray[A]) -> tuple[NDArray[A], NDArray[A]]:
    if truth.shape != predicted.shape or truth.ndim != 1 or not truth.size:
        raise DataError(f"true values {truth.shape} and predicted values {predicted.shape} do not fit")
    return truth, predicted
