"""The blend: one weight a method and a kind of person, learned on validation only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, TypeVar, cast

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.evaluate.ranks import Doubles, top_k
from isthmus.model.base import Method
from isthmus.model.constraints import Constraints
from isthmus.rng import generator
from isthmus.split.cohorts import FEW, person_cohorts
from isthmus.split.task import Task
from isthmus.types import Bools, Floats, Indices, Ints

#: Kinds of persons with weights of their own.
COHORTS: Final = ("cold person", f"1-{FEW} events", "warm person")
#: Items of each method's validation lists that take part in learning.
CANDIDATES: Final = 100
#: A kind of person with fewer validation persons than this uses the weights of all.
ENOUGH: Final = 60
#: Steps of the ascent: a weight becomes this many times itself, or this share of the largest.
FACTORS: Final = (0.0, 0.5, 0.8, 1.25, 2.0)
SHARES: Final = (0.1, 0.3)
#: Powers of the methods' own NDCG that the ascent may start from: 0 is equal weights, the last the best method alone.
POWERS: Final = (0.0, 1.0, 2.0, 4.0, 16.0, 1e6)
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
    voice : tuple of float, optional
        Weights (M,) that count for new items, those without any training event, in place of ``weights``: what reads
        has a say in them, what only knows who met what has none (:func:`isthmus.model.voice.give_voice`). The usual
        weights by default.
    level : float
        Added to the score of every new item.
    constraints : Constraints, optional
        Declared rules that the scores keep; none by default.
    """

    methods: tuple[str, ...]
    weights: Mapping[str, tuple[float, ...]]
    voice: tuple[float, ...] | None = None
    level: float = 0.0
    constraints: Constraints | None = field(default=None, compare=False)

    @property
    def plain(self) -> Blend:
        """The blend without declared rules: its scores are all finite."""
        return replace(self, constraints=None)

    @property
    def bare(self) -> bool:
        """Whether there is one method alone, whose scores are taken as they are."""
        alone = len(self.methods) == 1 and all(map(any, self.weights.values()))
        return alone and self == Blend(self.methods, self.weights)

    def of_persons(self, cohorts: Mapping[str, Bools]) -> Floats:
        """Return the weights of persons of some kinds, (B, M)."""
        flags = np.stack([cohorts[name] for name in COHORTS], axis=1).astype(np.float32)
        return np.asarray(flags @ np.array([self.weights[name] for name in COHORTS], np.float32))

    def keep(self, scores: Floats, histories: Histories, target: Indices) -> Floats:
        """Return ``scores`` (B, T) of the items ``target`` as the rules want them: lifted, or ``-inf``."""
        return scores if self.constraints is None else self.constraints.apply(scores, histories, target)

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
        if self.bare:
            return self.keep(methods[0].score(histories), histories, methods[0].target)
        weights = self.of_persons(person_cohorts(histories, methods[0].target))
        total = np.zeros((len(histories), new.size), np.float32)
        total[:, new] = self.level
        for place, method in enumerate(methods):
            spoken = self.voice[place] if self.voice is not None and new.any() else 0.0
            rows = np.arange(len(histories)) if spoken else np.flatnonzero(weights[:, place])
            if rows.size == 0:
                continue
            some = histories if rows.size == len(histories) else histories.take(rows)
            own, scores = weights[rows, place][:, None], standardise(method.score(some))
            if self.voice is None:
                scores *= own
            else:
                scores *= np.where(new, np.float32(spoken), own)
            total[rows] += scores
        return self.keep(total, histories, methods[0].target)

    def among(self, methods: Sequence[str]) -> Blend:
        """Return the same blend over more ``methods``, in that order; the new ones have no weight."""
        table = {
            cohort: tuple(dict(zip(self.methods, row, strict=True)).get(name, 0.0) for name in methods)
            for cohort, row in self.weights.items()
        }
        spoken = None if self.voice is None else dict(zip(self.methods, self.voice, strict=True))
        voice = None if spoken is None else tuple(spoken.get(name, 0.0) for name in methods)
        return replace(self, methods=tuple(methods), weights=table, voice=voice)

    def weighs(self, method: str) -> bool:
        """Return whether ``method`` has a weight for anybody."""
        place = self.methods.index(method)
        return any(row[place] > 0 for row in self.weights.values())

    def less(self, methods: Sequence[str]) -> Blend:
        """Return the blend as it is when some methods say nothing: the others keep their proportions, and their voice.

        Examples
        --------
        >>> blend = Blend(("knn", "graph"), dict.fromkeys(COHORTS, (0.5, 0.5)), voice=(0.0, 2.0), level=-1.0)
        >>> rest = blend.less(["graph"])
        >>> rest.weights["warm person"], rest.voice, rest.level
        ((1.0, 0.0), (0.0, 0.0), -1.0)
        """
        spoken = None if self.voice is None else zip(self.methods, self.voice, strict=True)
        voice = None if spoken is None else tuple(0.0 if name in methods else said for name, said in spoken)
        return replace(self, weights=self.without(methods).weights, voice=voice)

    def without(self, methods: Sequence[str]) -> Blend:
        """Return the blend with no weight on some methods, no voice and no rules; the others keep their proportions."""
        kept = np.array([name not in methods for name in self.methods], dtype=np.float64)
        table = {cohort: np.array(row) * kept for cohort, row in self.weights.items()}
        scaled = {cohort: tuple((row / (row.sum() or 1.0)).tolist()) for cohort, row in table.items()}
        return Blend(self.methods, scaled)


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
    """Return the blend with the best NDCG@10 on ``task``, which must be validation.

    Weights climb by coordinate ascent on each of several random halves of the persons and are averaged, which keeps
    a small validation set from being fitted too closely (bagging; Breiman, Machine Learning 24, 1996). They replace
    what they started from only if they are better by more than one standard error on the halves they were not
    learned from; so do the weights of a kind of person. Last, new items get a voice: as loud as gains most for them
    while all targets together lose at most :data:`TOLERATED`.

    The ``guarded`` methods get no weight unless the blend is better with them than without, on persons it was not
    learned from: a guard against negative transfer.
    """
    candidates = gather(methods, task)
    names = tuple(method.name for method in methods)
    guard = np.array([name in guarded for name in names])
    if guard.any() and not guard.all() and not _worth(candidates, guard, generator(seed, "blend", "guard")):
        rest = learn([method for method in methods if method.name not in guarded], task, seed=seed)
        return rest.among(names)
    everybody = _bagged(candidates, merits(candidates), generator(seed, "blend"))
    weights = {}
    for cohort in COHORTS:
        own = everybody
        if int(task.cohorts[cohort].sum()) >= ENOUGH:
            own = _bagged(candidates.take(task.cohorts[cohort]), everybody, generator(seed, "blend", cohort))
        weights[cohort] = tuple(own.tolist())
    return Blend(names, weights)


def _worth(candidates: Candidates, guard: Bools, rng: np.random.Generator) -> bool:
    """Return whether blends with the methods of ``guard`` (M,) are better than those without, on held-back halves.

    Better means by more than one standard error over persons, as everywhere in a blend.
    """
    without = replace(candidates, scores=candidates.scores[:, :, ~guard])
    persons = candidates.real.shape[0]
    gained, times = np.zeros(persons), np.zeros(persons)
    for _ in range(BAGS):
        order = rng.permutation(persons)
        halves = np.sort(order[: persons // 2]), np.sort(order[persons // 2 :])
        for mine, other in (halves, halves[::-1]):
            for sign, some in ((1, candidates), (-1, without)):
                half, rest = some.take(mine), some.take(other)
                gained[other] += sign * rest.each(_total(rest, _climb(half, merits(half), rounds=2)))
            times[other] += 1
    gain = gained / np.maximum(times, 1)
    return bool(gain.mean() > gain.std() / np.sqrt(gain.size))


def merits(candidates: Candidates) -> Doubles:
    """Return the weights to climb from, (M,): a power of each method's own NDCG@10, the best of a few powers."""
    alone = np.array([candidates.ndcg(candidates.scores[:, :, m]) for m in range(candidates.scores.shape[2])])
    merit = np.maximum(alone, 1e-6) / max(float(alone.max()), 1e-6)
    rising = [merit**power for power in POWERS]
    shares = [row / row.sum() for row in rising]
    return max(shares, key=lambda row: candidates.ndcg(_total(candidates, row)))


def _bagged(candidates: Candidates, start: Doubles, rng: np.random.Generator) -> Doubles:
    """Return the mean of the best weights on random halves, (M,) of sum 1; ``start`` if they do no better elsewhere."""
    persons = candidates.real.shape[0]
    found, gained, times = [], np.zeros(persons), np.zeros(persons)
    for _ in range(BAGS):
        order = rng.permutation(persons)
        mine, other = np.sort(order[: max(persons // 2, 1)]), np.sort(order[persons // 2 :])
        best = _climb(candidates.take(mine), start)
        found.append(best)
        rest = candidates.take(other)
        gained[other] += rest.each(_total(rest, best)) - rest.each(_total(rest, start))
        times[other] += 1
    gain = gained[times > 0] / times[times > 0]
    better = gain.mean() > gain.std() / np.sqrt(gain.size)
    return np.asarray(np.mean(found, axis=0)) if better else start


def _total(candidates: Candidates, weights: Doubles) -> Floats:
    """Return the weighted sum of the methods' scores, (P, C)."""
    return np.asarray(candidates.scores @ weights.astype(np.float32), dtype=np.float32)


def _climb(candidates: Candidates, start: Doubles, rounds: int = 4) -> Doubles:
    """Return the weights (M,) of sum 1 that coordinate ascent on NDCG@10 ends at."""
    weights = start.copy()
    totals = _total(candidates, weights)
    best = candidates.ndcg(totals)
    for _ in range(rounds):
        before = best
        for place in range(weights.size):
            largest = float(weights.max())
            own = np.ascontiguousarray(candidates.scores[:, :, place])
            for value in [f * float(weights[place]) for f in FACTORS] + [share * largest for share in SHARES]:
                if value == 0 and weights[place] == weights.sum():
                    continue  # the last method with a weight keeps it
                moved = totals + np.float32(value - weights[place]) * own
                reached = candidates.ndcg(moved)
                if reached > best + 1e-5:
                    best, totals, weights[place] = reached, moved, value
        if best <= before + 1e-4:
            break
    scaled: Doubles = weights / weights.sum()
    return scaled
