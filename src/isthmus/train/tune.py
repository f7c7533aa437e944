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
        ``time.monotonic()`` after which no new trial starts.
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

    def run(self, name: str) -> Method:
        """Return the method ``name``, fitted with the best settings found; the start is always tried.

        A method that is slow to learn is tried with its :meth:`~isthmus.model.base.Method.quick` settings, and
        learned once in full.
        """
        usual = make(name, self.starts.get(name))
        quick = usual.quick(self.data)
        best = self._search(make(name, {**usual.settings, **quick}))
        if not quick:
            return best
        full = {setting: usual.settings[setting] for setting in quick}
        return self._trial(make(name, {**best.settings, **full}), None)[0]

    def _search(self, first: Method) -> Method:
        best, reached = self._trial(first, None)
        for setting, values in self._axes(best):
            for value in values:
                if time.monotonic() > self.deadline:
                    return best
                if value == best.settings[setting]:
                    continue
                reuse = best if setting in best.reading else None
                rival, scores = self._trial(make(first.name, {**best.settings, setting: value}), reuse)
                if _better(scores - reached, transfers=value is True if setting == "sources" else None):
                    best, reached = rival, scores
        return best

    def _axes(self, method: Method) -> Iterator[tuple[str, tuple[Setting, ...]]]:
        """Yield what can be tried: how other domains count where there are any, times where they are dates."""
        idle = {"sources", "away"} if self.data.in_target.all() else set()
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
