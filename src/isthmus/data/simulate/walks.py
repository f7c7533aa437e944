"""Walks over themes: what is met next is decided by what was met last."""

from __future__ import annotations

import numpy as np

from isthmus.data.sequences import ranges
from isthmus.types import Ints


def successors(themes: int, rng: np.random.Generator) -> Ints:
    """Return which theme follows on each, (themes,): one round through all of them.

    Examples
    --------
    >>> successors(5, np.random.default_rng(0)).tolist()
    [1, 2, 4, 0, 3]
    """
    order = rng.permutation(themes)
    after = np.empty(themes, dtype=np.int64)
    after[order] = np.roll(order, -1)
    return after


def walk(counts: Ints, themes: Ints, after: Ints, follows: float, rng: np.random.Generator) -> Ints:
    """Return the items that persons meet one after the other.

    With probability ``follows`` the theme of a meeting is ``after`` that of the meeting before, else any. The item is
    any of that theme that the person has not met.

    Parameters
    ----------
    counts : int64 array (P,)
        Meetings of each person.
    themes : int64 array (N,)
        Theme of each item; each theme has one.
    after : int64 array (themes,)
        Which theme follows on each.
    follows : float
        In [0, 1].
    rng : numpy.random.Generator
        Source of chance.

    Returns
    -------
    int64 array (counts.sum(),)
        Item of each meeting, person by person; -1 where the person has met all of the theme.
    """
    met = _themes_met(counts, after, follows, rng)
    who = np.repeat(np.arange(counts.size), counts)
    theme = met[who, ranges(np.zeros_like(counts), counts)]
    size = np.bincount(themes, minlength=after.size)
    keys = themes + rng.random((counts.size, themes.size))
    shelf = np.argsort(keys, axis=1)
    nth = _times_before(who * after.size + theme)
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    found = shelf[who, np.minimum(start[theme] + nth, themes.size - 1)]
    return np.where(nth < size[theme], found, -1)


def _themes_met(counts: Ints, after: Ints, follows: float, rng: np.random.Generator) -> Ints:
    """Return the theme of each meeting, (P, longest)."""
    longest = int(counts.max(initial=1))
    met = rng.integers(after.size, size=(counts.size, longest))
    moved = rng.random(met.shape) < follows
    for step in range(1, longest):
        met[:, step] = np.where(moved[:, step], after[met[:, step - 1]], met[:, step])
    return met


def _times_before(keys: Ints) -> Ints:
    """Return how often each key stood before, (E,).

    Examples
    --------
    >>> _times_before(np.array([7, 5, 7, 7, 5])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    nth = np.empty(keys.size, dtype=np.int64)
    nth[order] = np.arange(keys.size) - np.searchsorted(ordered, ordered)
    return nth
