"""One way to judge any system: score the whole catalogue for every person, rank, keep what all metrics need."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Protocol

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.errors import DataError
from isthmus.evaluate.metrics import per_person
from isthmus.evaluate.ranks import Doubles, Ranks, top_k
from isthmus.log import progress
from isthmus.split.task import Task
from isthmus.types import Bools, Floats, Indices

#: Persons ranked at a time by one thread: their scores stay in the processor's cache.
_PIECE = 32


_Found = list[tuple[Ranks, Indices]]


class RankingSystem(Protocol):
    """Anything that can be judged: it has a name and scores the target catalogue for histories."""

    @property
    def name(self) -> str:
        """Name in tables; unique among the systems that are compared."""
        ...

    def score(self, histories: Histories) -> Floats:
        """Return scores (B, T), higher is better, one column an item of the task; -inf for an item never to list."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How one system did on one task.

    Parameters
    ----------
    system : str
        Name of the system.
    task : Task
        What was asked; its ``exclude_seen`` is the rule that was applied here.
    ks : tuple of int
        List lengths of the metrics.
    ranks : Ranks
        Places of all targets, persons in the order of the task.
    top : int32 array (P, max(ks))
        Columns of each person's list, best first; -1 marks an empty place.
    seconds : float
        Time spent in the system's ``score``.
    ranking_seconds : float
        Time spent on ranks and lists.
    other : Outcome or None
        The same scores judged with the opposite rule for seen items, if asked for.
    """

    system: str
    task: Task
    ks: tuple[int, ...]
    ranks: Ranks
    top: Indices
    seconds: float
    ranking_seconds: float
    other: Outcome | None = None

    @cached_property
    def metrics(self) -> dict[str, Doubles]:
        """Each ranking metric of each person: ``recall@10`` ... ``auc``; arrays (P,)."""
        return per_person(self.ranks, self.ks)

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over persons, those without a value left out."""
        return float(np.nanmean(self.metrics[metric]))

    def on(self, targets: Bools) -> dict[str, Doubles]:
        """Return the metrics when only the targets where ``targets`` (nnz,) is true count; places stay as they are.

        Persons without such a target have NaN.
        """
        return per_person(self.ranks.keep(targets), self.ks)

    @property
    def frame(self) -> pl.DataFrame:
        """One row a person: ``person`` (corpus index) and every metric."""
        return pl.DataFrame({"person": self.task.persons, **self.metrics})


def judge(
    system: RankingSystem,
    task: Task,
    *,
    ks: Sequence[int] = (10, 50),
    block: int = 512,
    both: bool = False,
    threads: int = 2,
) -> Outcome:
    """Return how ``system`` does on ``task``.

    Parameters
    ----------
    system : RankingSystem
        What is judged.
    task : Task
        Persons, histories, catalogue, targets.
    ks : sequence of int
        List lengths.
    block : int
        Persons scored at a time; bounds the memory to ``block * T`` scores.
    both : bool
        Judge the opposite rule for seen items too (:attr:`Outcome.other`), from the same scores.
    threads : int
        Threads that rank; the system is called from one thread only.

    Raises
    ------
    DataError
        The system returns another shape or a score that is not a number.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Popular:
    ...     name: str = "popularity"
    ...     def score(self, histories):
    ...         return np.tile(np.float32([3, 1, 0]), (len(histories), 1))
    >>> task = Task(
    ...     domain="books", part="test", items=np.array([4, 7, 9], np.int32), persons=np.array([0, 5]),
    ...     histories=Histories.of([[4, 1], [2]]), target_indptr=np.array([0, 1, 2]),
    ...     targets=np.array([1, 1], np.int32), popularity=np.array([3, 1, 0]), train_persons=4, exclude_seen=True,
    ... )
    >>> judge(Popular(), task, ks=(1,)).metrics["recall@1"].tolist()
    [1.0, 0.0]
    """
    if not len(task):
        raise DataError("no person has a target", where=f"task {task.domain}/{task.part}", fix="widen the test part")
    rules = (task.exclude_seen, not task.exclude_seen)[: 1 + both]
    parts: list[_Found] = []
    seconds, begin = 0.0, perf_counter()
    with progress(f"judge {system.name}", len(task)) as advance, ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(task), block):
            scores, spent = _scores(system, task, range(start, min(start + block, len(task))))
            pieces = range(0, len(scores), _PIECE)
            jobs = [pool.submit(_rank, scores[i : i + _PIECE], task, start + i, rules, max(ks)) for i in pieces]
            parts += [job.result() for job in jobs]
            seconds += spent
            advance(len(scores))
    spans = (seconds, perf_counter() - begin - seconds)
    made = [
        Outcome(
            system.name,
            replace(task, exclude_seen=rule),
            tuple(ks),
            Ranks.join([part[i][0] for part in parts]),
            np.concatenate([part[i][1] for part in parts]),
            *spans,
        )
        for i, rule in enumerate(rules)
    ]
    return replace(made[0], other=made[1]) if both else made[0]


def _scores(system: RankingSystem, task: Task, persons: range) -> tuple[Floats, float]:
    """Return the system's scores of some persons, checked, and the seconds it took."""
    histories = task.histories.take(np.arange(persons.start, persons.stop))
    begin = perf_counter()
    scores = np.asarray(system.score(histories))
    seconds = perf_counter() - begin
    where = f"system {system.name}"
    wanted = (len(persons), task.items.size)
    if scores.shape != wanted:
        raise DataError(f"scores of shape {scores.shape}, expected {wanted} (persons, items)", where=where)
    if np.isnan(scores.max(axis=1)).any():
        raise DataError("a score is not a number", where=where, fix="return -inf for an item never to list")
    return scores, seconds


def _rank(scores: Floats, task: Task, start: int, rules: Sequence[bool], k: int) -> _Found:
    """Return the ranks and lists of the persons from ``start`` on, under each rule for seen items."""
    stop = start + len(scores)
    indptr = task.target_indptr[start : stop + 1]
    targets = task.targets[indptr[0] : indptr[-1]]
    own = np.array(scores, dtype=np.float32)
    found = {}
    for rule in sorted(rules):
        if rule:
            own[task.seen(start, stop)] = -np.inf
        found[rule] = (Ranks.of(own, indptr - indptr[0], targets), top_k(own, k))
    return [found[rule] for rule in rules]
