"""Tasks to learn to adapt from: a new person with a few events of the target, or a domain with a few people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Places
from isthmus.model.catalogue import shaped
from isthmus.types import Bools, Floats, Indices, Ints


@dataclass(frozen=True)
class Tasks:
    """``K`` tasks of ``M`` histories of up to ``L`` events.

    Parameters
    ----------
    events : int64 array (3, K, M, L)
        Item row, event code and gap bucket, oldest first, filled with zeros at the end.
    nexts : int64 array (K, M, L)
        Row of the item that came next at each place; 0 at the last one.
    support, query : float32 arrays (K, M, L)
        How much the next item counts in adapting, and in judging how well that went; 0 for not at all.
    last : int64 array (K, M)
        Place of the newest event.
    domain : int64 array (K,)
        Place of the list of items (see ``pools``) that next items are compared with.
    pools : tuple of int32 arrays
        Items of each domain.
    """

    events: Ints
    nexts: Ints
    support: Floats
    query: Floats
    last: Ints
    domain: Ints
    pools: tuple[Indices, ...]

    def __len__(self) -> int:
        """Return the number of tasks ``K``."""
        return len(self.nexts)

    def take(self, tasks: Ints) -> Tasks:
        """Return some tasks, with no more places than they need."""
        width = int(self.last[tasks].max(initial=0)) + 1
        return Tasks(
            self.events[:, tasks, :, :width],
            self.nexts[tasks, :, :width],
            self.support[tasks, :, :width],
            self.query[tasks, :, :width],
            self.last[tasks],
            self.domain[tasks],
            self.pools,
        )


@dataclass(frozen=True)
class Shape:
    """How tasks are cut.

    Parameters
    ----------
    shots : int
        Target events of a new person, at most; people of a new domain that teach.
    queries : int
        Target events after those that judge, at most; people of a domain that judge.
    length : int
        Events of a history that are looked at, the newest.
    """

    shots: int = 5
    queries: int = 3
    length: int = 50

    def __post_init__(self) -> None:
        """Refuse shapes without support or query."""
        if min(self.shots, self.queries) < 1 or self.length < 2:
            raise InputError(
                f"shots {self.shots}, queries {self.queries}, length {self.length}", fix="take 1, 1 and 2 or more"
            )


def serving_tasks(histories: Histories, target: Indices, shape: Shape, *, dated: bool) -> Tasks:
    """Return one task a person in which the newest ``shots`` target events teach; nothing is asked."""
    some = histories.last(shape.length)
    inside = np.isin(some.items, target)
    from_end = _from_end(some, inside)
    return _people(some, inside & (from_end < shape.shots), np.zeros(inside.size, bool), target, dated)


def person_tasks(
    histories: Histories, target: Indices, shape: Shape, rng: np.random.Generator, *, dated: bool = True
) -> Tasks:
    """Return one task for each person with two target events or more, made new: cut before the end of the history.

    A person is shown with the first ``n`` target events, ``n`` drawn from 1 to ``shots``, and all events of other
    domains that came before; the target events after them, up to ``queries``, judge.

    Examples
    --------
    >>> histories = Histories.of([[0, 5, 6, 1, 7], [5], [0, 1]])
    >>> tasks = person_tasks(histories, np.array([5, 6, 7], np.int32), Shape(1, 1), np.random.default_rng(0))
    >>> tasks.events[0].tolist(), tasks.support.tolist(), tasks.query.tolist()
    ([[[0, 5, 6]]], [[[1.0, 0.0, 0.0]]], [[[0.0, 1.0, 0.0]]])
    """
    inside = np.isin(histories.items, target)
    counts = np.bincount(histories.rows[inside], minlength=len(histories))
    some = histories.take(np.flatnonzero(counts > 1))
    inside = np.isin(some.items, target)
    counts = np.bincount(some.rows[inside], minlength=len(some))
    shots = 1 + np.floor(rng.random(len(some)) * np.minimum(counts - 1, shape.shots)).astype(np.int64)
    place = _from_start(some, inside)
    wanted = shots[some.rows]
    kept = place < wanted + shape.queries - (~inside)  # other events after the last query say nothing any more
    some, inside, place, wanted = some.keep(kept), inside[kept], place[kept], wanted[kept]
    near = some.age < shape.length
    some, inside, place, wanted = some.keep(near), inside[near], place[near], wanted[near]
    return _people(some, inside & (place < wanted), inside & (place >= wanted), target, dated)


def domain_tasks(
    histories: Histories, places: Places, shape: Shape, rng: np.random.Generator, *, dated: bool = True
) -> Tasks:
    """Return tasks of one domain each: ``shots`` people of it teach, ``queries`` other people of it judge.

    Every person with two events or more in a domain is in one task of it; people left over are in none. All other
    domains' events are shown, and only items of the domain are asked for.
    """
    parts = []
    for domain in range(len(places.domains)):
        pool = np.flatnonzero(places.domain == domain).astype(np.int32)
        inside = places.domain[histories.items] == domain
        people = np.flatnonzero(np.bincount(histories.rows[inside], minlength=len(histories)) > 1)
        width = shape.shots + shape.queries
        groups = rng.permutation(people)[: people.size // width * width]
        if groups.size:
            some = histories.take(groups).last(shape.length)
            own = places.domain[some.items] == domain
            teaches = (some.rows % width) < shape.shots
            alone = _people(some, own & teaches, own & ~teaches, pool, dated)
            parts.append(_grouped(replace(alone, domain=np.full(len(alone), domain)), width))
    if not parts:
        raise InputError("no domain has people enough for a task", fix="take fewer shots or queries")
    return _joined(
        parts, tuple(np.flatnonzero(places.domain == d).astype(np.int32) for d in range(len(places.domains)))
    )


def newest(histories: Histories, target: Indices, keep: Ints) -> Histories:
    """Return the histories in which each person has only the newest ``keep`` (B,) target events; others stay.

    Examples
    --------
    >>> newest(Histories.of([[0, 5, 6, 1, 7], [5]]), np.array([5, 6, 7], np.int32), np.array([2, 0])).items.tolist()
    [0, 6, 1, 7]
    """
    inside = np.isin(histories.items, target)
    return histories.keep(~inside | (_from_end(histories, inside) < keep[histories.rows]))


def _people(histories: Histories, support: Bools, query: Bools, pool: Indices, dated: bool) -> Tasks:
    """Return one task a person; flags (E,) say of each event whether it is to be told from what came before it."""
    batch, last = shaped(histories, dated)
    width = batch.shape[2]
    cell = histories.rows * width + np.arange(histories.items.size) - histories.indptr[:-1][histories.rows]
    first = np.zeros(histories.items.size, dtype=bool)
    first[histories.indptr[:-1][histories.lengths > 0]] = True
    flags = []
    for flag in (support, query):
        table = np.zeros(len(histories) * width, np.float32)
        table[cell[flag & ~first] - 1] = 1.0
        flags.append(table.reshape(-1, 1, width))
    nexts = np.zeros((len(histories), 1, width), np.int64)
    nexts[:, 0, :-1] = batch[0, :, 1:]
    none = np.zeros(len(histories), np.int64)
    return Tasks(batch[:, :, None], nexts, flags[0], flags[1], last[:, None], none, (pool,))


def _grouped(tasks: Tasks, width: int) -> Tasks:
    """Return tasks of ``width`` histories each, of tasks of one history."""
    shape = (-1, width, tasks.nexts.shape[2])
    return Tasks(
        tasks.events.reshape(3, *shape),
        tasks.nexts.reshape(shape),
        tasks.support.reshape(shape),
        tasks.query.reshape(shape),
        tasks.last.reshape(-1, width),
        tasks.domain[::width],
        tasks.pools,
    )


def _joined(parts: Sequence[Tasks], pools: tuple[Indices, ...]) -> Tasks:
    """Return the tasks of all parts, padded to one length."""
    width = max(part.nexts.shape[2] for part in parts)

    def wide(arrays: list[Ints] | list[Floats]) -> Ints:
        padded = [np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])]) for array in arrays]
        return np.concatenate(padded, axis=-3)

    return Tasks(
        wide([part.events for part in parts]),
        wide([part.nexts for part in parts]),
        wide([part.support for part in parts]).astype(np.float32),
        wide([part.query for part in parts]).astype(np.float32),
        np.concatenate([part.last for part in parts]),
        np.concatenate([part.domain for part in parts]),
        pools,
    )


def _from_start(histories: Histories, flags: Bools) -> Ints:
    """Return for each event how many flagged events of its person came before it, (E,)."""
    total = np.concatenate([[0], np.cumsum(flags)])
    before: Ints = total[:-1] - total[histories.indptr[:-1]][histories.rows]
    return before


def _from_end(histories: Histories, flags: Bools) -> Ints:
    """Return for each event how many flagged events of its person come after it, (E,)."""
    total = np.concatenate([[0], np.cumsum(flags)])
    after: Ints = total[histories.indptr[1:]][histories.rows] - total[1:]
    return after
