"""The blend: one weight a method and a kind of person, learned on validation only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.evaluate.ranks import top_k
from isthmus.model.base import Method
from isthmus.rng import generator
from isthmus.split.cohorts import FEW, person_cohorts
from isthmus.split.task import Task
from isthmus.types import Bools, Floats, Indices, Ints

#: Kinds of persons with weights of their own.
COHORTS: Final = ("cold person", f"1-{FEW} events", "warm person")
#: Items of each method's validation lists that take part in learning.
CANDIDATES: Final = 100
#: A kind of person with fewer validation persons than this uses the weights of all.
ENOUGH: Final = 300
#: Steps of the ascent: a weight becomes this many times itself, or this share of the largest.
FACTORS: Final = (0.0, 0.5, 0.8, 1.25, 2.0)
SHARES: Final = (0.1, 0.3)
#: Extra scores for new items that the ascent may try, in standard deviations of the blend.
BONUSES: Final = (0.0, 0.5, 1.0, 2.0)
#: Learning is repeated on this many random halves of the validation persons, and the weights averaged.
BAGS: Final = 6


Wide = TypeVar("Wide", Floats, Bools)


def standardise(scores: Floats) -> Floats:
    """Return ``scores`` (B, T) with mean 0 and standard deviation 1 for each person; a constant row gives zeros.

    Examples
    --------
    >>> standardise(np.array([[1.0, 3.0], [5.0, 5.0]], np.float32)).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.einsum("bt,bt->b", centred, centred) / max(scores.shape[1], 1))[:, None]
    rounding = 1e-6 * np.abs(scores).max(axis=1, keepdims=True, initial=1e-3)
    scaled: Floats = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > rounding)
    return scaled


@dataclass(frozen=True)
class Blend:
    """Weights of the methods.

    Parameters
    ----------
    methods : tuple of str
        Names, ``M``.
    weights : mapping of str to tuple of float
        Weights (M,) of each kind of person in :data:`COHORTS`, not negative, of sum 1.
    bonus : mapping of str to float
        What is added to the score of an item without any training event.
    """

    methods: tuple[str, ...]
    weights: Mapping[str, tuple[float, ...]]
    bonus: Mapping[str, float] = field(default_factory=dict)

    def score(self, methods: Sequence[Method], histories: Histories, new: Bools) -> Floats:
        """Return the weighted sum of standardised scores, (B, T) float32.

        Parameters
        ----------
        methods : sequence of Method
            The fitted methods, in the order of :attr:`methods`.
        histories : Histories
            ``B`` histories.
        new : bool array (T,)
            Target items without any training event.
        """
        cohorts = person_cohorts(histories, methods[0].target)
        flags = np.stack([cohorts[name] for name in COHORTS], axis=1).astype(np.float32)
        weights = flags @ np.array([self.weights[name] for name in COHORTS], np.float32)
        bonus = flags @ np.array([self.bonus.get(name, 0.0) for name in COHORTS], np.float32)
        total = bonus[:, None] * new.astype(np.float32)[None, :]
        for place, method in enumerate(methods):
            rows = np.flatnonzero(weights[:, place])
            if rows.size == 0:
                continue
            some = histories if rows.size == len(histories) else histories.take(rows)
            total[rows] += weights[rows, place][:, None] * standardise(method.score(some))
        return total

    def without(self, methods: Sequence[str]) -> Blend:
        """Return the blend with no weight on some methods and no bonus; the others keep their proportions."""
        kept = np.array([name not in methods for name in self.methods], dtype=np.float64)
        table = {cohort: np.array(row) * kept for cohort, row in self.weights.items()}
        scaled = {cohort: tuple((row / (row.sum() or 1.0)).tolist()) for cohort, row in table.items()}
        return Blend(self.methods, scaled)

    def used(self, floor: float = 0.005) -> list[int]:
        """Return the places of the methods that any kind of person gives more than ``floor``."""
        table = np.array(list(self.weights.values()))
        return [int(place) for place in np.flatnonzero(table.max(axis=0) > floor)]


@dataclass(frozen=True)
class Candidates:
    """What learning a blend looks at: the best items of every method for each person, and the right answers.

    Parameters
    ----------
    scores : float32 array (P, C, M)
        Standardised scores of the candidates; those of an empty place are 0.
    real : bool array (P, C)
        Whether the place holds an item that may be listed.
    right : bool array (P, C)
        Whether the item is a target.
    new : bool array (P, C)
        Whether the item has no training event.
    ideal : float64 array (P,)
        The best possible DCG@10.
    """

    scores: Floats
    real: Bools
    right: Bools
    new: Bools
    ideal: Floats

    def take(self, persons: Ints | Bools) -> Candidates:
        """Return the candidates of some persons."""
        return Candidates(
            self.scores[persons], self.real[persons], self.right[persons], self.new[persons], self.ideal[persons]
        )

    def ndcg(self, totals: Floats) -> float:
        """Return the mean NDCG@10 of the candidates ordered by ``totals`` (P, C)."""
        listed = np.where(self.real, totals, -np.inf)
        width = min(10, listed.shape[1])
        best = np.argpartition(-listed, width - 1, axis=1)[:, :width]
        order = np.argsort(-np.take_along_axis(listed, best, axis=1), axis=1, kind="stable")
        hits = np.take_along_axis(self.right, np.take_along_axis(best, order, axis=1), axis=1)
        return float(((hits / np.log2(np.arange(2, width + 2))).sum(axis=1) / self.ideal).mean())


def gather(methods: Sequence[Method], task: Task, *, block: int = 256) -> Candidates:
    """Return the candidates of every person of ``task``; methods are scored once, in blocks of persons."""
    new = task.item_groups["new item"]
    parts = [_gather(methods, task, new, start, min(start + block, len(task))) for start in range(0, len(task), block)]
    width = max(part.real.shape[1] for part in parts)
    gains = np.cumsum(1 / np.log2(np.arange(2, 12)))
    return Candidates(
        np.concatenate([_widen(part.scores, width) for part in parts]),
        np.concatenate([_widen(part.real, width) for part in parts]),
        np.concatenate([_widen(part.right, width) for part in parts]),
        np.concatenate([_widen(part.new, width) for part in parts]),
        ideal=gains[np.minimum(np.diff(task.target_indptr), 10) - 1].astype(np.float32),
    )


def _widen(array: Wide, width: int) -> Wide:
    """Return ``array`` with zeros added along its second axis up to ``width``."""
    return cast("Wide", np.pad(array, [(0, 0), (0, width - array.shape[1])] + [(0, 0)] * (array.ndim - 2)))


def _gather(methods: Sequence[Method], task: Task, new: Bools, start: int, stop: int) -> Candidates:
    histories = task.histories.take(np.arange(start, stop))
    seen = task.seen(start, stop)
    listed = np.zeros((stop - start, task.items.size), dtype=bool)
    scores = []
    for method in methods:
        own = standardise(method.score(histories))
        scores.append(own)
        masked = own.copy()
        if task.exclude_seen:
            masked[seen] = -np.inf
        listed[_top(masked)] = True
    chosen = _pad(listed)
    places = np.maximum(chosen, 0)
    right = np.zeros(listed.shape, dtype=bool)
    span = slice(task.target_indptr[start], task.target_indptr[stop])
    right[task.target_rows[span] - start, task.targets[span]] = True
    real = chosen >= 0
    stacked = np.stack([np.take_along_axis(own, places, axis=1) * real for own in scores], axis=2)
    return Candidates(
        stacked, real, np.take_along_axis(right, places, axis=1) & real, new[places] & real, np.zeros(0, np.float32)
    )


def _top(scores: Floats) -> tuple[Ints, Indices]:
    """Return (rows, columns) of the best items of each row, as far as they can be listed."""
    best = top_k(scores, min(CANDIDATES, scores.shape[1]))
    rows, places = np.nonzero(best >= 0)
    return rows, best[rows, places]


def _pad(listed: Bools) -> Ints:
    """Return the places of the true values of each row, (B, C), -1 where a row has fewer."""
    rows, columns = np.nonzero(listed)
    counts = listed.sum(axis=1)
    chosen = np.full((listed.shape[0], max(int(counts.max(initial=0)), 1)), -1, dtype=np.int64)
    chosen[rows, np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)] = columns
    return chosen


def learn(methods: Sequence[Method], task: Task, *, seed: int = 0) -> Blend:
    """Return the blend with the best NDCG@10 on ``task``, which must be validation.

    For all persons, then for each kind of person that is frequent enough, weights climb from equal ones by coordinate
    ascent on each of several random halves of the persons; the halves' weights are averaged, which keeps a small
    validation set from being fitted too closely (bagging; Breiman, Machine Learning 24, 1996).
    """
    candidates = gather(methods, task)
    names = tuple(method.name for method in methods)
    start = np.full(len(names) + 1, 1 / len(names))
    start[-1] = 0.0
    everybody = _bagged(candidates, start, generator(seed, "blend"))
    weights, bonus = {}, {}
    for cohort in COHORTS:
        persons = task.cohorts[cohort]
        enough = int(persons.sum()) >= ENOUGH
        own = _bagged(candidates.take(persons), everybody, generator(seed, "blend", cohort)) if enough else everybody
        weights[cohort], bonus[cohort] = tuple(own[:-1].tolist()), float(own[-1])
    return Blend(names, weights, bonus)


def _bagged(candidates: Candidates, start: Floats, rng: np.random.Generator) -> Floats:
    """Return the mean of the best weights on random halves, (M + 1,): M weights of sum 1 and the new-item bonus."""
    persons = candidates.real.shape[0]
    found = []
    for _ in range(BAGS):
        half = np.sort(rng.permutation(persons)[: max(persons // 2, min(persons, 50))])
        found.append(_climb(candidates.take(half), start))
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def _climb(candidates: Candidates, start: Floats, rounds: int = 4) -> Floats:
    """Return the weights that coordinate ascent on NDCG@10 ends at, from ``start`` (M + 1,)."""
    weights = start.copy()
    features = np.concatenate([candidates.scores, candidates.new[:, :, None].astype(np.float32)], axis=2)
    totals = np.asarray(features @ weights.astype(np.float32))
    best = candidates.ndcg(totals)
    for _ in range(rounds):
        before = best
        for place in range(weights.size):
            for value in _steps(weights, place):
                if value == 0 and place < weights.size - 1 and weights[place] == weights[:-1].sum():
                    continue  # the last method with a weight keeps it
                moved = totals + np.float32(value - weights[place]) * features[:, :, place]
                reached = candidates.ndcg(moved)
                if reached > best + 1e-5:
                    best, totals, weights[place] = reached, moved, value
        if best <= before + 1e-4:
            break
    scaled: Floats = weights / weights[:-1].sum()
    scaled[-1] = min(scaled[-1], BONUSES[-1])
    return scaled


def _steps(weights: Floats, place: int) -> list[float]:
    """Return the values to try for one weight."""
    if place == weights.size - 1:
        return [bonus * float(weights[:-1].sum()) for bonus in BONUSES]
    largest = float(weights[:-1].max())
    return [factor * float(weights[place]) for factor in FACTORS] + [share * largest for share in SHARES]
