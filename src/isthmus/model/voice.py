"""The voice of new items: how those nobody has met are placed among the others, practised on items that are hidden."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from isthmus.evaluate.ranks import Doubles, top_k
from isthmus.model.base import Method, TrainingData
from isthmus.model.blend import Blend, standardise
from isthmus.model.stacking import Candidates, gather, merits
from isthmus.rng import generator
from isthmus.split.task import Task
from isthmus.types import Bools, Floats

#: Share of the known target items that are hidden, so that there are new items to practise on.
HIDDEN: Final = 0.1
#: Validation persons that take part, at most.
PERSONS: Final = 1500
#: Where fewer of them want a new item that any method would list, those that read speak by their merit with known
#: items, as loud as is borne.
ENOUGH_NEW: Final = 30
#: Share of the NDCG@10 of known items that may be given up for new ones.
TOLERATED: Final = 0.0075
#: More may be given up, to this share, where what new items gain repays it so many times.
MOST: Final = 0.05
REPAID: Final = 1.0
#: Known items that take part for each person, and new ones for each method that reads.
KNOWN, FRESH = 40, 20
#: What the ascent starts from and tries; weights never sum to less than the first, or the level alone would decide.
LOUDNESS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
LEVELS: Final = (-16.0, -8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0)
FACTORS: Final = (0.0, 0.5, 0.8, 1.25, 2.0)
STEPS: Final = (-3.0, -1.0, -0.3, -0.1, 0.1, 0.3, 1.0, 3.0)
#: Persons scored at a time.
BLOCK: Final = 256


@dataclass(frozen=True)
class Rehearsal:
    """What the voice is learned from.

    Parameters
    ----------
    candidates : Candidates
        ``scores`` (P, C, 1 + R): what the blend says of known items, and what each of ``R`` methods says of new ones.
    unhidden : float
        Share of the wishes for new items that would be such without anything hidden; 0 where nobody wants one.
    """

    candidates: Candidates
    unhidden: float = 0.0

    def fresh(self) -> Candidates:
        """Return the persons who want a new item, and only those wishes."""
        return self._only(self.candidates.right & self.candidates.new)

    def known(self) -> Candidates:
        """Return the persons who want a known item, and only those wishes."""
        return self._only(self.candidates.right & ~self.candidates.new)

    def _only(self, right: Bools) -> Candidates:
        gains = np.cumsum(1 / np.log2(np.arange(2, 12)))
        some = np.flatnonzero(right.any(axis=1))
        ideal = gains[np.minimum(right.sum(axis=1), 10) - 1].astype(np.float32)
        return replace(self.candidates, right=right, ideal=ideal).take(some)


@dataclass(frozen=True)
class Practice:
    """What methods learn again from, with a tenth of the items hidden.

    Parameters
    ----------
    data : TrainingData
        What they learned from.
    seed : int
        Seed of what is hidden.
    slow : collection of str
        Methods too slow to learn again: they do not practise, and have no say about new items.
    learned : dict of str to Method
        Those that have learned again, by name and settings: the next blend of them need not wait.
    """

    data: TrainingData
    seed: int = 0
    slow: Collection[str] = ()
    learned: dict[str, Method] = field(default_factory=dict)

    def hidden(self, task: Task) -> Bools:
        """Return the target items that are hidden, (T,)."""
        known = np.flatnonzero(task.popularity > 0)
        hidden = np.zeros(task.items.size, dtype=bool)
        drawn = generator(self.seed, "voice").choice(known, int(np.ceil(HIDDEN * known.size)), replace=False)
        hidden[drawn] = known.size > 1
        return hidden

    def again(self, method: Method, without: Bools) -> Method:
        """Return ``method`` as it is when learned from the items ``without`` (N,) the hidden ones."""
        name = f"{method.name} {sorted(method.settings.items())}"
        if name not in self.learned:
            taught = replace(self.data, histories=self.data.histories.keep(without[self.data.histories.items]))
            self.learned[name] = type(method)(method.settings).fit(taught, seed=self.seed)
        return self.learned[name]


def give_voice(blend: Blend, methods: Sequence[Method], task: Task, practice: Practice) -> Blend:
    """Return the blend with a voice for new items, learned on a validation task.

    A tenth of the known items of the target are hidden: their events leave the training data and the histories, and
    the methods that read learn again without them. The voice is what then gains most NDCG@10 for new items while
    known items lose at most :data:`TOLERATED` of theirs, compared with lists that hold no new item at all; or up to
    :data:`MOST` of it, where new items gain :data:`REPAID` times as much over all wishes, in the proportion in which
    they are wished for when nothing is hidden.

    Parameters
    ----------
    blend : Blend
        Weights of the methods.
    methods : sequence of Method
        The fitted methods, in the order of the blend.
    task : Task
        Validation persons.
    practice : Practice
        What methods that read learn again from.
    """
    places = tuple(n for n, method in enumerate(methods) if method.inductive and method.name not in practice.slow)
    if not places:
        return replace(blend, voice=(0.0,) * len(methods), level=min(LEVELS))
    rehearsal = _rehearse(blend, methods, task, places, practice)
    trial = _Trial.of(rehearsal)
    if len(trial.fresh.ideal) < ENOUGH_NEW:
        readers = [methods[place] for place in places]
        weights, level = _unpractised(trial, merits(gather(readers, _some(task, PERSONS))))
    else:
        weights, level = _learn(trial, len(places))
    voice = np.zeros(len(methods))
    voice[list(places)] = weights
    return replace(blend, voice=tuple(voice.tolist()), level=level)


def _rehearse(
    blend: Blend, methods: Sequence[Method], task: Task, places: tuple[int, ...], practice: Practice
) -> Rehearsal:
    hidden = practice.hidden(task)
    without = np.ones(practice.data.n_items, dtype=bool)
    without[task.items[hidden]] = False
    again = [practice.again(method, without) if n in places else method for n, method in enumerate(methods)]
    asked = _some(task, PERSONS)
    asked = replace(asked, histories=asked.histories.keep(without[asked.histories.items]))
    new = hidden | task.item_groups["new item"]
    quiet = replace(blend, voice=(0.0,) * len(methods), level=0.0)
    readers = [again[place] for place in places]
    parts = [_block(quiet, again, readers, asked, new, start) for start in range(0, len(asked), BLOCK)]
    width = max(part.real.shape[1] for part in parts)
    wide = [np.pad(part.scores, ((0, 0), (0, width - part.real.shape[1]), (0, 0))) for part in parts]
    flags = [
        np.concatenate([np.pad(flag, ((0, 0), (0, width - flag.shape[1]))) for flag in row])
        for row in zip(*((part.real, part.right, part.new) for part in parts), strict=True)
    ]
    ideal = np.ones(len(asked), np.float32)
    wished = new[asked.targets].sum()
    unhidden = float(task.item_groups["new item"][asked.targets].sum() / max(wished, 1))
    return Rehearsal(Candidates(np.concatenate(wide), flags[0], flags[1], flags[2], ideal), unhidden)


def _some(task: Task, most: int) -> Task:
    """Return the task of at most ``most`` persons, spread evenly."""
    if len(task) <= most:
        return task
    return task.take(np.linspace(0, len(task) - 1, most).astype(np.int64))


def _block(
    quiet: Blend, methods: Sequence[Method], readers: Sequence[Method], task: Task, new: Bools, start: int
) -> Candidates:
    """Return the candidates of the persons from ``start`` on: the best known items, and the best new ones."""
    stop = min(start + BLOCK, len(task))
    histories, seen = task.histories.take(np.arange(start, stop)), task.seen(start, stop)
    said = quiet.score(methods, histories, new)
    read = [standardise(method.score(histories)) for method in readers]
    listed = np.zeros(said.shape, dtype=bool)
    for scores, allowed, most in [
        (said, ~new, KNOWN),
        *((own, new, FRESH) for own in read),
        (np.sum(read, axis=0), new, FRESH),
    ]:
        masked = np.where(allowed, scores, -np.inf).astype(np.float32)
        if task.exclude_seen:
            masked[seen] = -np.inf
        best = top_k(masked, min(most, masked.shape[1]))
        rows, columns = np.nonzero(best >= 0)
        listed[rows, best[rows, columns]] = True
    order = np.argsort(~listed, axis=1, kind="stable")[:, : max(int(listed.sum(axis=1).max()), 1)]
    real = np.take_along_axis(listed, order, axis=1)
    right = np.zeros(listed.shape, dtype=bool)
    span = slice(task.target_indptr[start], task.target_indptr[stop])
    right[task.target_rows[span] - start, task.targets[span]] = True
    fresh = new[order] & real
    told = [np.where(fresh, 0, np.take_along_axis(said, order, axis=1))]
    told += [np.take_along_axis(own, order, axis=1) * fresh for own in read]
    wanted = np.take_along_axis(right, order, axis=1) & real
    scores = np.stack(told, axis=2).astype(np.float32)
    return Candidates(scores, real, wanted, fresh, np.ones(stop - start, np.float32))


def _total(candidates: Candidates, weights: Doubles, level: float) -> Floats:
    own = np.concatenate([[1.0], weights]).astype(np.float32)
    return np.asarray(candidates.scores @ own + np.float32(level) * candidates.new, dtype=np.float32)


@dataclass(frozen=True)
class _Trial:
    """What a voice gains for new items, and whether known ones bear it; sums over persons.

    Parameters
    ----------
    fresh, known : Candidates
        Those who want a new item, and those who want a known one.
    silent : float
        What known items reach in lists without any new item.
    price : float
        What new items have to gain here for each unit that known ones lose beyond what is tolerated.
    """

    fresh: Candidates
    known: Candidates
    silent: float
    price: float

    @classmethod
    def of(cls, rehearsal: Rehearsal) -> _Trial:
        fresh, known = rehearsal.fresh(), rehearsal.known()
        silent = np.where(known.new, -np.inf, known.scores[:, :, 0]).astype(np.float32)
        hidden = (1 - rehearsal.unhidden) * len(fresh.ideal)
        grown = 1 + hidden / max(len(known.ideal), 1)  # the hidden are known ones, when nobody hides them
        price = REPAID * grown / rehearsal.unhidden if rehearsal.unhidden else np.inf
        return cls(fresh, known, float(known.each(silent).sum()), price)

    def worth(self, weights: Doubles, level: float) -> float:
        """Return what the voice gains, less the price of what known items lose; ``-inf`` where they lose too much."""
        lost = self.lost(weights, level)
        beyond = lost - TOLERATED * self.silent
        if beyond > 0 and (np.isinf(self.price) or lost > MOST * self.silent):
            return -np.inf
        gained = float(self.fresh.each(_total(self.fresh, weights, level)).sum())
        return gained - (self.price * beyond if beyond > 0 else 0.0)

    def lost(self, weights: Doubles, level: float) -> float:
        return self.silent - float(self.known.each(_total(self.known, weights, level)).sum())

    def borne(self, weights: Doubles, level: float) -> bool:
        return self.lost(weights, level) <= TOLERATED * self.silent


def _unpractised(trial: _Trial, shares: Doubles) -> tuple[Doubles, float]:
    """Return ``shares`` (R,) as loud as known items bear, and the level."""
    plain = [(size * shares, level) for size in LOUDNESS[:-1] for level in LEVELS if -2 <= level <= 0]
    borne = [pair for pair in plain if trial.borne(*pair)]
    quietest = LOUDNESS[0] * shares, LEVELS[0]
    return max(borne, key=lambda pair: (pair[0].sum(), pair[1])) if borne else quietest


def _learn(trial: _Trial, count: int) -> tuple[Doubles, float]:
    """Return the weights (R,) of the ``count`` methods that read, for new items, and the level."""
    equal = np.full(count, 1 / count)
    loud = [(size * start, level) for start in (equal, *np.eye(count)) for size in LOUDNESS for level in LEVELS]
    best, reached = _best(trial, loud, loud[0], -np.inf)
    for _ in range(3):
        before = reached
        for place in range(count + 1):
            best, reached = _best(trial, _moves(*best, place), best, reached)
        if reached <= before + 1e-2:
            break
    return best


def _best(
    trial: _Trial, tried: list[tuple[Doubles, float]], best: tuple[Doubles, float], reached: float
) -> tuple[tuple[Doubles, float], float]:
    """Return the voice that is worth most of those tried and of the best so far, and its worth."""
    for weights, level in tried:
        worth = trial.worth(weights, level)
        if worth > reached + 1e-4:
            best, reached = (weights, level), worth
    return best, reached


def _moves(weights: Doubles, level: float, place: int) -> list[tuple[Doubles, float]]:
    """Return the neighbours along one axis: a weight, with the level as it is or a step lower; or the level."""
    if place == weights.size:
        softer = [f for f in FACTORS[1:] if f * weights.sum() >= LOUDNESS[0]]
        return [(weights, level + step) for step in STEPS] + [(weights * f, level) for f in softer]
    moved = []
    for value in [f * weights[place] for f in FACTORS] + [0.3 * float(weights.max())]:
        other = weights.copy()
        other[place] = value
        if other.sum() >= LOUDNESS[0]:
            moved += [(other, level), *((other, level + step) for step in (-2.0, -0.5, 0.5, 2.0))]
    return moved
