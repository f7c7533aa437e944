"""Stacking: the weights of a blend, learned on validation only (Wolpert, Neural Networks 5, 1992)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, TypeVar, cast

import numpy as np
from scipy.optimize import minimize
from scipy.special import ndtr

from isthmus.evaluate.ranks import Doubles, top_k
from isthmus.model.base import Method
from isthmus.model.blend import COHORTS, Blend, standardise
from isthmus.rng import generator
from isthmus.split.task import Task
from isthmus.types import Bools, Floats, Indices, Ints

#: Items of each method's validation lists that take part in learning.
CANDIDATES: Final = 100
#: A kind of person with fewer validation persons than this uses the weights of all.
ENOUGH: Final = 60
#: Powers of the methods' own NDCG that are tried as weights: 0 is equal weights, the last the best method alone.
POWERS: Final = (0.0, 1.0, 2.0, 4.0, 16.0, 1e6)
#: Cuts of the validation persons into two halves, each learned from and judged by the other.
CUTS: Final = 3
#: Penalty on the squared distance of the most likely weights from where they start.
PENALTY: Final = 0.01
#: Where nothing is known, the most likely weights start from this sum (an inverse temperature).
SUM: Final = 0.3

#: Standard errors a gain must be above to count as sure: one chance in twenty that nothing looks like that.
SURE: Final = 1.645

Wide = TypeVar("Wide", Floats, Bools)
#: From candidates to the weights (M,) of the methods.
Learner = Callable[["Candidates"], Doubles]


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
        return float(self.each(totals).mean())

    @cached_property
    def wanted(self) -> tuple[Ints, Ints]:
        """Person and place of each target among the candidates, (R,) each."""
        rows, places = np.nonzero(self.right & self.real)
        return rows, places

    def each(self, totals: Floats) -> Doubles:
        """Return the NDCG@10 of each person, (P,): only the ranks of the targets are counted, nothing is sorted."""
        rows, places = self.wanted
        listed = np.where(self.real, totals, -np.inf)
        gained = np.zeros(rows.size)
        for start in range(0, rows.size, 4096):
            some, mine = rows[start : start + 4096], places[start : start + 4096, None]
            others, own = listed[some], listed[some, mine[:, 0]][:, None]
            rank = np.count_nonzero(others > own, axis=1)
            rank += np.count_nonzero((others == own) & (np.arange(listed.shape[1]) < mine), axis=1)
            shown = (rank < 10) & np.isfinite(own[:, 0])
            gained[start : start + 4096] = np.where(shown, 1 / np.log2(rank + 2.0), 0.0)
        summed: Doubles = np.bincount(rows, weights=gained, minlength=len(listed)) / self.ideal
        return summed


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
        listed[_top(masked, CANDIDATES)] = True
        if method.inductive and new.any():
            listed[_top(np.where(new, masked, -np.inf), CANDIDATES // 4)] = True
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


def _top(scores: Floats, k: int) -> tuple[Ints, Indices]:
    """Return (rows, columns) of the best items of each row, as far as they can be listed."""
    best = top_k(scores, min(k, scores.shape[1]))
    rows, places = np.nonzero(best >= 0)
    return rows, best[rows, places]


def _pad(listed: Bools) -> Ints:
    """Return the places of the true values of each row, (B, C), -1 where a row has fewer."""
    rows, columns = np.nonzero(listed)
    counts = listed.sum(axis=1)
    chosen = np.full((listed.shape[0], max(int(counts.max(initial=0)), 1)), -1, dtype=np.int64)
    chosen[rows, np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)] = columns
    return chosen


def learn(methods: Sequence[Method], task: Task, *, seed: int = 0, guarded: Collection[str] = ()) -> Blend:
    """Return the blend that serves best on ``task``, which must be validation.

    Two ways of weighing (:func:`merits`, :func:`likeliest`) count as much as the chance that theirs is the better
    NDCG@10 on persons they did not learn from. A kind of person gets weights of its own, near those of all, if they do
    better there.

    The ``guarded`` methods get no weight unless the blend is surely better with them than without on persons it was
    not learned from (:data:`SURE` standard errors): a guard against negative transfer.
    """
    candidates = gather(methods, task)
    names = tuple(method.name for method in methods)
    guard = np.array([name in guarded for name in names])
    if guard.any() and not guard.all() and not _worth(candidates, guard, seed):
        rest = learn([method for method in methods if method.name not in guarded], task, seed=seed)
        return rest.among(names)
    everybody = _best(candidates, generator(seed, "blend"))
    weights = {}
    for cohort in COHORTS:
        own = everybody
        if int(task.cohorts[cohort].sum()) >= ENOUGH:
            own = _own(candidates.take(task.cohorts[cohort]), everybody, generator(seed, "blend", cohort))
        weights[cohort] = tuple((own / own.sum()).tolist())
    return Blend(names, weights)


def merits(candidates: Candidates) -> Doubles:
    """Return a power of each method's own NDCG@10, (M,) of sum 1, with the best of a few powers."""
    alone = np.array([candidates.ndcg(candidates.scores[:, :, m]) for m in range(candidates.scores.shape[2])])
    merit = np.maximum(alone, 1e-6) / max(float(alone.max()), 1e-6)
    rising = [merit**power for power in POWERS]
    shares = [row / row.sum() for row in rising]
    return max(shares, key=lambda row: candidates.ndcg(_total(candidates, row)))


def likeliest(candidates: Candidates, start: Doubles | None = None) -> Doubles:
    """Return the weights (M,), not negative, under which the wishes are most likely among the candidates.

    The conditional logit (McFadden, in: Frontiers in Econometrics, 1974): a person takes an item with a chance
    proportional to the exponential of its weighted score. Several wishes of a person count as one in all. The
    optimum is the only one, and needs far fewer persons than searching for the best NDCG. The sum of the weights is
    an inverse temperature.

    Parameters
    ----------
    candidates : Candidates
        Scores and wishes. If no wish is among them, the start is returned.
    start : float array (M,), optional
        Weights to begin with and to stay near; equal ones by default, and nothing to stay near but 0.

    Examples
    --------
    >>> scores = np.array([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]], np.float32)
    >>> right = np.array([[True, False], [True, False]])
    >>> every = np.ones((2, 2), bool)
    >>> found = likeliest(Candidates(scores, every, right, ~every, np.ones(2, np.float32)))
    >>> bool(found[0] > found[1])
    True
    """
    count = candidates.scores.shape[2]
    first = np.full(count, SUM / count) if start is None else start
    near = np.zeros(count) if start is None else start
    some = candidates.take(np.flatnonzero((candidates.right & candidates.real).any(axis=1)))
    persons = some.real.shape[0]
    if persons == 0:
        return first
    shut = np.where(some.real, np.float32(0), np.float32(-np.inf))
    rows, places = some.wanted
    shares = 1 / np.bincount(rows, minlength=persons)[rows]
    taken = shares @ some.scores[rows, places] / persons
    flat = some.scores.reshape(-1, count)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        totals = _total(some, weights) + shut
        largest = totals.max(axis=1, keepdims=True)
        chances = np.exp(totals - largest)
        sums = chances.sum(axis=1, keepdims=True)
        chances /= sums
        expected = chances.reshape(-1) @ flat / persons
        away = weights - near
        value = float(np.mean(np.log(sums) + largest)) - float(taken @ weights) + PENALTY * float(away @ away)
        return value, np.asarray(expected - taken + 2 * PENALTY * away, np.float64)

    found: Doubles = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=[(0, None)] * count).x
    return found if found.sum() > 0 else first


#: Ways of weighing all persons.
WAYS: Final[tuple[Learner, Learner]] = (merits, likeliest)


def _best(candidates: Candidates, rng: np.random.Generator) -> Doubles:
    """Return the mean of both ways of weighing, each by its chance to be the better one, with the most likely sum."""
    found = [way(candidates) for way in WAYS]
    shares: Doubles = _chances(_held_back(candidates, WAYS, rng)) @ np.stack([row / row.sum() for row in found])
    summed = replace(candidates, scores=_total(candidates, shares)[:, :, None])
    return shares * likeliest(summed)


def _own(candidates: Candidates, everybody: Doubles, rng: np.random.Generator) -> Doubles:
    """Return the most likely weights of a kind of person, near those of ``everybody``; or these, if they do better."""
    learners: list[Learner] = [lambda _: everybody, lambda some: likeliest(some, everybody)]
    reached = _held_back(candidates, learners, rng).mean(axis=1)
    return learners[int(np.argmax(reached))](candidates)


def _worth(candidates: Candidates, guard: Bools, seed: int) -> bool:
    """Return whether blends with the methods of ``guard`` (M,) are surely better than those without."""
    without = replace(candidates, scores=candidates.scores[:, :, ~guard])
    reached = [_held_back(some, WAYS, generator(seed, "blend", "guard")) for some in (candidates, without)]
    return _surely(_chances(reached[0] + reached[1]) @ (reached[0] - reached[1]))


def _chances(reached: Doubles) -> Doubles:
    """Return the chances, (2,) of sum 1, that the one or the other of two rows (2, P) has the better mean."""
    gains = reached[0] - reached[1]
    error = float(gains.std()) / np.sqrt(max(gains.size, 1))
    first = float(ndtr(gains.mean() / error)) if error else 0.5
    return np.array([first, 1 - first])


def _held_back(candidates: Candidates, learners: Sequence[Learner], rng: np.random.Generator) -> Doubles:
    """Return the NDCG@10 of each person under weights that each learner learned from others, (L, P)."""
    persons = candidates.real.shape[0]
    reached = np.zeros((len(learners), persons))
    for _ in range(CUTS if persons > 1 else 0):
        order = rng.permutation(persons)
        halves = np.sort(order[: persons // 2]), np.sort(order[persons // 2 :])
        for mine, other in (halves, halves[::-1]):
            taught, judged = candidates.take(mine), candidates.take(other)
            for place, learner in enumerate(learners):
                reached[place, other] += judged.each(_total(judged, learner(taught))) / CUTS
    return reached


def _surely(gains: Doubles) -> bool:
    """Return whether the mean of ``gains`` (P,) would be as high in less than one case of twenty if it were nothing."""
    return bool(gains.mean() > SURE * gains.std() / np.sqrt(gains.size))


def _total(candidates: Candidates, weights: Doubles) -> Floats:
    """Return the weighted sum of the methods' scores, (P, C)."""
    return np.asarray(candidates.scores @ weights.astype(np.float32), dtype=np.float32)
