"""Calibration: lists in which the person's interests have the shares they have in the person's history."""

from __future__ import annotations

from typing import Final

import numpy as np

from isthmus.errors import InputError
from isthmus.model.base import Doubles
from isthmus.types import Floats, Indices

#: Share of the taste mixed into a list's distribution, so that no theme has probability 0 (Steck's alpha).
SMOOTHING: Final = 0.01
#: Persons re-ranked at a time.
_PERSONS: Final = 64


def divergence(taste: Doubles, listed: Doubles) -> Doubles:
    """Return the Kullback-Leibler divergence of a list's themes from the taste, in nats, (...,).

    Source: Steck, "Calibrated Recommendations", RecSys 2018, equations 4 and 5: ``sum p log(p / q')`` with
    ``q' = (1 - a) q + a p`` and ``a`` = :data:`SMOOTHING`. 0 where they agree, or where the taste is not known.

    Examples
    --------
    >>> half = np.array([[0.5, 0.5]])
    >>> divergence(half, half).tolist(), bool(divergence(half, np.array([[1.0, 0.0]]))[0] > 1)
    ([0.0], True)
    """
    smooth = (1 - SMOOTHING) * listed + SMOOTHING * taste
    ratio = np.divide(taste, smooth, out=np.ones_like(smooth), where=taste > 0)
    found: Doubles = (taste * np.log(ratio)).sum(axis=-1)
    return found


def calibrated(scores: Floats, themes: Doubles, taste: Doubles, k: int, weight: float) -> Indices:
    """Return the places of the ``k`` candidates chosen for each person, in the order they were chosen, (B, k).

    Maximises ``(1 - weight) * mean score - weight * divergence`` step by step (Steck 2018, equation 6; the
    greedy choice is within 1 - 1/e of the best list). Scores are first brought to 0..1 over each person's candidates.

    Parameters
    ----------
    scores : float32 array (B, C)
        Of the candidates; -inf where there is none.
    themes : float64 array (B, C, G)
        Share of each theme in each candidate.
    taste : float64 array (B, G)
        Share of each theme in the history, themes that the platform does not carry left out.
    k : int
        Length of the lists.
    weight : float
        From 0 (scores only) to 1 (themes only).

    Returns
    -------
    int32 array (B, k)
        -1 where a person has fewer candidates.

    Raises
    ------
    InputError
        The weight is not within 0 and 1.

    Examples
    --------
    >>> scores, themes = np.float32([[3, 2.9, 1]]), np.eye(2)[[[0, 0, 1]]]
    >>> [calibrated(scores, themes, np.array([[0.5, 0.5]]), 2, weight).tolist() for weight in (0.0, 0.9)]
    [[[0, 1]], [[0, 2]]]
    """
    if not 0 <= weight <= 1:
        raise InputError(f"weight {weight} of calibration", fix="give a number from 0 to 1")
    spans = [slice(start, start + _PERSONS) for start in range(0, len(scores), _PERSONS)]
    parts = [_some(scores[span], themes[span], taste[span], k, weight) for span in spans]
    return np.concatenate(parts) if parts else np.zeros((0, k), np.int32)


def _some(scores: Floats, themes: Doubles, taste: Doubles, k: int, weight: float) -> Indices:
    persons, width = scores.shape
    free = scores > -np.inf
    low = np.where(free, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = scores.max(axis=1, keepdims=True, initial=-np.inf)
    worth = np.divide(scores - low, high - low, out=np.zeros(scores.shape), where=free & (high > low))
    chosen = np.full((persons, k), -1, np.int32)
    every, known, total = np.arange(persons), np.zeros_like(taste), np.zeros(persons)
    for step in range(min(k, width)):
        listed = known[:, None, :] + themes
        mass = listed.sum(axis=2, keepdims=True)
        listed = np.divide(listed, mass, out=np.zeros_like(listed), where=mass > 0)
        gain = (1 - weight) * (total[:, None] + worth) / (step + 1) - weight * divergence(taste[:, None, :], listed)
        best = np.where(free, gain, -np.inf).argmax(axis=1)
        some = free[every, best]
        chosen[some, step] = best[some]
        known[some] += themes[every, best][some]
        total[some] += worth[every, best][some]
        free[every, best] = False
    return chosen
