"""Which items to have labelled next, when labels cost: those the model is unsure of, spread over all there is."""

from __future__ import annotations

from typing import Literal

import numpy as np

from isthmus.errors import InputError
from isthmus.types import Floats, Indices, Ints

Doubt = Literal["margin", "entropy"]


def choose_to_label(
    vectors: Floats,
    probabilities: Floats | None,
    known: Ints | Indices,
    n: int,
    rng: np.random.Generator,
    *,
    doubt: Doubt = "margin",
) -> Ints:
    """Return ``n`` items to label, the most telling first.

    One item after the other is taken, each the one of largest ``doubt * distance`` to the nearest item that is labelled
    or taken before. The distance alone is the greedy k-center of Sener & Savarese, "Active Learning for Convolutional
    Neural Networks: A Core-Set Approach", ICLR 2018 (algorithm 1); the doubt keeps it from items that the classifier is
    sure of, and the distance from taking ten copies of one doubtful item.

    Parameters
    ----------
    vectors : float32 array (N, D)
        Vectors of all items; distances are Euclidean.
    probabilities : float32 array (N, C), optional
        Probability of each class, from a classifier that learned from ``known``; without them distance decides alone.
    known : int array
        Items that have a label already.
    n : int
        How many more.
    rng : numpy.random.Generator
        Decides between equals, and the first item if nothing is known.
    doubt : {"margin", "entropy"}
        See :func:`doubts`.

    Returns
    -------
    int64 array (n,)
        No item twice, none of ``known``.

    Raises
    ------
    InputError
        Fewer than ``n`` items are left, or shapes do not fit.

    Examples
    --------
    >>> places = np.array([[0.0], [0.1], [5.0], [9.0]], dtype="float32")
    >>> choose_to_label(places, None, np.array([0]), 2, np.random.default_rng(0)).tolist()
    [3, 2]
    """
    size = len(vectors)
    left = rng.permutation(np.setdiff1d(np.arange(size), known))
    if not 0 <= n <= left.size:
        raise InputError(f"{n} items to label but {left.size} without a label", where="labelling", fix="take fewer")
    if probabilities is not None and len(probabilities) != size:
        raise InputError(f"{size} vectors but {len(probabilities)} rows of probabilities", where="labelling")
    worth = np.ones(left.size) if probabilities is None else doubts(probabilities[left], doubt).astype(np.float64)
    places = vectors[left].astype(np.float64)
    nearest = np.full(left.size, np.inf)
    for centre in np.unique(known).tolist():
        nearest = np.minimum(nearest, _distance(places, vectors[centre]))
    chosen = np.zeros(n, dtype=np.int64)
    open_ = np.ones(left.size, dtype=bool)
    for place in range(n):
        score = np.where(open_, worth * np.where(np.isinf(nearest), 1.0, nearest), -1.0)
        best = int(score.argmax())
        chosen[place], open_[best] = left[best], False
        nearest = np.minimum(nearest, _distance(places, vectors[left[best]]))
    return chosen


def doubts(probabilities: Floats, kind: Doubt = "margin") -> Floats:
    """Return how unsure each row of probabilities (N, C) is, (N,) float32 in [0, 1].

    ``margin``: one less the gap between the two most likely classes. ``entropy``: entropy over its largest value.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], dtype="float32")
    >>> doubts(rows).tolist(), doubts(rows, "entropy").round(2).tolist()
    ([0.0, 1.0], [0.0, 0.6299999952316284])
    """
    if kind not in ("margin", "entropy"):
        raise InputError(f"no doubt '{kind}'", where="labelling", fix="use margin or entropy")
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), dtype=np.float32)
    if kind == "margin":
        top = np.partition(probabilities, -2, axis=1)
        return np.asarray(1 - (top[:, -1] - top[:, -2]), dtype=np.float32)
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return np.asarray(np.abs((probabilities * logs).sum(axis=1)) / np.log(probabilities.shape[1]), dtype=np.float32)


def _distance(places: Floats, centre: Floats) -> Floats:
    return np.asarray(np.linalg.norm(places - centre, axis=1))
