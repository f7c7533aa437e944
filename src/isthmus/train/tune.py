"""Settings of one method, chosen on validation within a time budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.ranks import Doubles, Ranks
from isthmus.model.base import Hooks, Method, Setting, Settings, TrainingData
from isthmus.split.task import Task
from isthmus.train.methods import CARRIERS, make

#: Persons scored at a time.
BLOCK = 512


@dataclass
class Trial:
    """One row of the tuning log."""

    method: str
    settings: Settings
    ndcg: float
    seconds: float


@dataclass(frozen=True)
class Begun:
    """A method that was tried once.

    Parameters
    ----------
    method : Method
        Fitted.
    reached : float64 array (P,)
        NDCG@10 of each validation person.
    full : dict
        What it is learned with in the end, where quicker settings stand in for it until then.
    """

    method: Method
    reached: Doubles
    full: Settings


@dataclass
class Search:
    """Coordinate search over a method's grid: each setting in turn, the rest at their best so far.

    Parameters
    ----------
    data : TrainingData
        The training part.
    task : Task
        The validation question.
    seed : int
        For methods that draw.
    deadline : float
        ``time.monotonic()`` after which no new trial starts, but the first of a method.
    starts : dict of str to dict
        Settings to start from instead of the defaults, by method.
    hooks : Hooks
        What transfer adds to the training of carriers.
    """

    data: TrainingData
    task: Task
    seed: int
    deadline: float
    log: list[Trial] = field(default_factory=list)
    starts: Mapping[str, Settings] = field(default_factory=dict)
    hooks: Hooks = field(default_factory=Hooks)

    def begin(self, name: str) -> Begun:
        """Return the method ``name`` as it starts, which is tried however late it is.

        Unless the start says which domains teach, only the target does: that is the quicker way, and whoever has no
        time for more has no method that other domains slowed down so much that another had to be left out. A method
        that is slow to learn has its :meth:`~isthmus.model.base.Method.quick` settings until :meth:`finish`.
        """
        given = self.starts.get(name, {})
        usual = make(name, given)
        quick = usual.quick(self.data)
        alone = "sources" in usual.axes() and "sources" not in given and not self._only
        first = make(name, {**usual.settings, **quick, **({"sources": False} if alone else {})})
        return Begun(*self._trial(first, None), {setting: usual.settings[setting] for setting in quick})

    def finish(self, begun: Begun) -> Method:
        """Return the method, fitted with the best settings found until the deadline."""
        best = self._search(begun)
        return self._trial(make(best.name, {**best.settings, **begun.full}), None)[0] if begun.full else best

    def _search(self, begun: Begun) -> Method:
        best, reached = begun.method, begun.reached
        for setting, values in self._axes(best):
            for value in values:
                if value == best.settings[setting] or time.monotonic() > self.deadline:
                    continue
                reuse = best if setting in best.reading else None
                rival, scores = self._trial(make(best.name, {**best.settings, setting: value}), reuse)
                if _better(scores - reached, transfers=value is True if setting == "sources" else None):
                    best, reached = rival, scores
        return best

    @property
    def _only(self) -> bool:
        """Whether no event of another domain can be learned from."""
        return bool(self.data.in_target[self.data.histories.items].all())

    def _axes(self, method: Method) -> Iterator[tuple[str, tuple[Setting, ...]]]:
        """Yield what can be tried: how other domains count where there are any, times where they are dates."""
        idle = {"sources", "away"} if self._only else set()
        idle |= set() if self.data.dated else set(method.dated)
        yield from ((setting, values) for setting, values in method.axes().items() if setting not in idle)

    def _trial(self, method: Method, reuse: Method | None) -> tuple[Method, Doubles]:
        """Return the fitted method and each person's NDCG@10; with ``reuse`` what that one learned is taken over."""
        start = time.monotonic()
        if reuse is None:
            if method.name in CARRIERS:
                method.hooks = replace(self.hooks, watch=lambda fitted: validate(fitted, self.task))
            method.fit(self.data, seed=self.seed)
        else:
            method.take_over(reuse)
        each = validate_each(method, self.task)
        score = round(float(np.nanmean(each)), 6)
        self.log.append(Trial(method.name, dict(method.settings), score, round(time.monotonic() - start, 2)))
        return method, each


def _better(gains: Doubles, transfers: bool | None) -> bool:
    """Return whether a rival is taken, by what each person gains (P,).

    Whether other domains are learned from (``transfers``) is no setting like others: a chance gain on validation
    would carry over what hurts elsewhere. They must gain more than one standard error, whichever was tried first.
    """
    known = gains[~np.isnan(gains)]
    if transfers is None:
        return bool(known.mean() > 0)
    error = float(known.std() / np.sqrt(known.size))
    return bool(known.mean() > error if transfers else known.mean() >= -error)


def validate(method: Method, task: Task) -> float:
    """Return the mean NDCG@10 of a fitted method on ``task``."""
    return float(np.nanmean(validate_each(method, task)))


def validate_each(method: Method, task: Task) -> Doubles:
    """Return the NDCG@10 of each person of ``task``, (P,)."""
    parts = []
    for start in range(0, len(task), BLOCK):
        stop = min(start + BLOCK, len(task))
        scores = method.score(task.histories.take(np.arange(start, stop)))
        if task.exclude_seen:
            scores[task.seen(start, stop)] = -np.inf
        indptr = task.target_indptr[start : stop + 1]
        parts.append(Ranks.of(scores, indptr - indptr[0], task.targets[indptr[0] : indptr[-1]]))
    return ndcg(Ranks.join(parts), 10)
