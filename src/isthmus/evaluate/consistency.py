"""Consistency: whether a person's lists on several platforms show one taste, more than lists of others do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from isthmus.errors import DataError
from isthmus.evaluate.ranks import Doubles
from isthmus.types import Bools


@dataclass(frozen=True)
class Consistency:
    """How far the lists of each of ``P`` persons agree, and how far lists of different persons do.

    Parameters
    ----------
    own : float64 array (P,)
        Mean agreement of the person's lists on two platforms; NaN where there are no two lists with a common theme.
    chance : float64 array (P,)
        The same with the second list taken from other persons.
    taste : float64 array (P,)
        Mean agreement of the person's lists with what the person met; NaN without events.
    taste_chance : float64 array (P,)
        The same with what other persons met.
    """

    own: Doubles
    chance: Doubles
    taste: Doubles
    taste_chance: Doubles

    @property
    def score(self) -> Doubles:
        """Consistency of each person, (P,): 1 for equal lists, 0 for lists as of two different persons."""
        return corrected(self.own, self.chance)

    @property
    def taste_score(self) -> Doubles:
        """Agreement with the person's taste, corrected for chance in the same way, (P,)."""
        return corrected(self.taste, self.taste_chance)

    def mean(self) -> dict[str, float]:
        """Return the means over persons: own, chance, score, taste, taste_chance, taste_score, persons.

        The scores are those of the mean agreements, so that persons whom nobody could tell from others do not blow up
        the mean of ratios.
        """
        found = {name: _mean(getattr(self, name)) for name in ("own", "chance", "taste", "taste_chance")}
        found["score"] = float(corrected(np.array(found["own"]), np.array(found["chance"])))
        found["taste_score"] = float(corrected(np.array(found["taste"]), np.array(found["taste_chance"])))
        return {**found, "persons": float(np.isfinite(self.own).sum())}


def agreement(one: Doubles, other: Doubles) -> Doubles:
    """Return 1 minus the Jensen-Shannon divergence (base 2) of each pair of rows, (P,): 1 equal, 0 nothing in common.

    Source: Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Information Theory 37(1), 1991,
    equation 4.1. Rows are distributions (P, G); a row of zeros says nothing and gives NaN.

    Examples
    --------
    >>> agreement(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.5, 0.5], [0.0, 1.0]])).tolist()
    [1.0, 0.0]
    """
    middle = (one + other) / 2
    lost = (_entropy_terms(one, middle) + _entropy_terms(other, middle)) / 2
    says = (one.sum(axis=-1) > 0) & (other.sum(axis=-1) > 0)
    return np.where(says, np.clip(1 - lost, 0, 1), np.nan)


def corrected(own: Doubles, chance: Doubles) -> Doubles:
    """Return ``(own - chance) / (1 - chance)``: agreement beyond chance; 0 where chance agrees as well as can be.

    Source: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20(1),
    1960, equation 1.

    Examples
    --------
    >>> corrected(np.array([1.0, 0.6, 1.0]), np.array([0.6, 0.6, 1.0])).tolist()
    [1.0, 0.0, 0.0]
    """
    room = np.asarray(1 - chance)
    found = np.divide(own - chance, room, out=np.zeros_like(room), where=room > 1e-9)
    return np.where(np.isnan(own) | np.isnan(chance), np.nan, found)


def consistency(
    lists: Sequence[Doubles], carried: Sequence[Bools], tastes: Doubles, *, rng: np.random.Generator, others: int = 20
) -> Consistency:
    """Return how consistent the lists of ``P`` persons over several platforms are.

    Parameters
    ----------
    lists : sequence of float64 array (P, G)
        For each platform the share of each theme in each person's list (Steck, RecSys 2018, equation 3).
    carried : sequence of bool array (G,)
        For each platform the themes it has items of. Two platforms are compared on the themes both carry.
    tastes : float64 array (P, G)
        Share of each theme in what each person met.
    rng : numpy.random.Generator
        Chooses the other persons.
    others : int
        With how many other persons chance is measured, at most.

    Raises
    ------
    DataError
        Fewer than two persons: there is nobody else to compare with.

    Examples
    --------
    >>> lists, carried = np.eye(4), np.ones(4, bool)
    >>> found = consistency([lists, lists], [carried, carried], lists, rng=np.random.default_rng(0))
    >>> found.score.tolist(), found.taste_score.tolist()
    ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0])
    >>> same = np.tile(lists[:1], (4, 1))
    >>> consistency([same, same], [carried, carried], lists, rng=np.random.default_rng(0)).score.tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    persons = len(tastes)
    if persons < 2:
        raise DataError("consistency needs lists of two persons or more", fix="ask about more people")
    order = rng.permutation(persons)
    shifts = 1 + rng.permutation(persons - 1)[:others]
    pairs = [
        (_within(lists[a], carried[a] & carried[b]), _within(lists[b], carried[a] & carried[b]))
        for a, b in combinations(range(len(lists)), 2)
    ]
    met = [(_within(shown, has), _within(tastes, has)) for shown, has in zip(lists, carried, strict=True)]
    return Consistency(*_against(pairs, order, shifts), *_against(met, order, shifts))


def _against(
    pairs: Sequence[tuple[Doubles, Doubles]], order: np.ndarray, shifts: np.ndarray
) -> tuple[Doubles, Doubles]:
    """Return the mean agreement of each person's own pairs, and with the second of each pair from others, (P,) each."""
    size = order.size
    place = np.empty(size, np.int64)
    place[order] = np.arange(size)
    nothing = np.full(size, np.nan)
    own = _mean_of([agreement(one, other) for one, other in pairs], nothing)
    chance = [
        _mean_of([agreement(one, other[order[(place + shift) % size]]) for shift in shifts], nothing)
        for one, other in pairs
    ]
    return own, _mean_of(chance, nothing)


def _within(rows: Doubles, themes: Bools) -> Doubles:
    kept = rows * themes
    total = kept.sum(axis=1, keepdims=True)
    found: Doubles = np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)
    return found


def _entropy_terms(one: Doubles, middle: Doubles) -> Doubles:
    ratio = np.divide(one, middle, out=np.ones_like(middle), where=one > 0)
    terms: Doubles = (one * np.log2(ratio)).sum(axis=-1)
    return terms


def _mean_of(values: Sequence[Doubles], nothing: Doubles) -> Doubles:
    """Return the mean of some (P,) arrays, NaN left out; ``nothing`` where there is no value."""
    if not values:
        return nothing
    table = np.stack(values)
    known = ~np.isnan(table)
    count = known.sum(axis=0)
    total = np.where(known, table, 0.0).sum(axis=0)
    mean: Doubles = np.divide(total, count, out=nothing.copy(), where=count > 0)
    return mean


def _mean(values: Doubles) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
