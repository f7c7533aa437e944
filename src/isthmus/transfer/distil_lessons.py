"""What a teacher said: about single items, about nobody in particular, and about people; and losses against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.evaluate.ranks import top_k
from isthmus.log import progress
from isthmus.split.cohorts import FEW, person_cohorts
from isthmus.types import Floats, Indices, Ints

#: Scores a history: (B,) -> (B, T), higher is better.
Teacher: TypeAlias = Callable[[Histories], Floats]
#: Best items of each person that are kept, and items drawn besides.
TOP: Final = 200
DRAWN: Final = 200
#: Largest additions of a single item that are kept.
MOST: Final = 400
#: Histories asked about at a time.
BLOCK: Final = 256


@dataclass(frozen=True)
class Lessons:
    """What the teacher said.

    Parameters
    ----------
    histories : Histories
        ``P`` persons.
    target : int32 array (T,)
        Items that are ranked.
    n_items : int
        Items of the corpus.
    columns : int32 array (P, C)
        Columns kept of each person: the best of those not seen, best first, then columns drawn at random.
    scores : float32 array (P, C)
        The teacher's scores there; minus infinity where the column was seen.
    top : int
        How many of the ``C`` columns are the best.
    bias : float32 array (3, T)
        Mean scores of the persons of each kind, cold first; of a kind nobody is of, the empty history's.
    added : csr array (N, T) float32
        What each item says beyond the bias when it is all that is known: its largest additions above 0.
    """

    histories: Histories
    target: Indices
    n_items: int
    columns: Indices
    scores: Floats
    top: int
    bias: Floats
    added: sparse.csr_array

    def seen(self, persons: Ints) -> tuple[Ints, Ints]:
        """Return row (counted in ``persons``) and column of what these persons had."""
        return seen_of(self.histories.take(persons), self.target)


def hear(teacher: Teacher, histories: Histories, target: Indices, n_items: int, probes: int) -> Lessons:
    """Return what ``teacher`` says of the ``histories`` (P,), of nobody, and of up to ``probes`` items one by one."""
    columns, scores, total, counts = [], [], np.zeros((3, target.size)), np.zeros(3)
    nobody = teacher(Histories.of([[]]))[0]
    drawn = np.random.default_rng(0)
    top = min(TOP, target.size)
    kinds = kinds_of(histories, target)
    with progress("ask about people", len(histories)) as advance:
        for start in range(0, len(histories), BLOCK):
            some = np.arange(start, min(start + BLOCK, len(histories)))
            said = teacher(histories.take(some))
            np.add.at(total, kinds[some], said)
            np.add.at(counts, kinds[some], 1)
            said[seen_of(histories.take(some), target)] = -np.inf
            best = np.maximum(top_k(said, top), 0)
            other = drawn.integers(0, target.size, (some.size, min(DRAWN, target.size)), dtype=np.int32)
            columns.append(np.concatenate([best, other], axis=1).astype(np.int32))
            scores.append(np.take_along_axis(said, columns[-1], axis=1))
            advance(some.size)
    bias = np.where(counts[:, None] > 0, total / np.maximum(counts, 1)[:, None], nobody).astype(np.float32)
    added = _probe(teacher, histories, bias, (target, n_items), probes)
    return Lessons(histories, target, n_items, np.concatenate(columns), np.concatenate(scores), top, bias, added)


def _probe(
    teacher: Teacher, histories: Histories, bias: Floats, where: tuple[Indices, int], probes: int
) -> sparse.csr_array:
    """Return what single items add, (N, T): the target's own first, then those that are met most often elsewhere."""
    target, n_items = where
    met = np.bincount(histories.items, minlength=n_items).astype(np.float64)
    met[target] += met.max(initial=0.0) + 1.0
    asked = np.sort(np.argsort(-met, kind="stable")[: min(probes, n_items)])
    asked = asked[met[asked] > 0]
    inside = np.isin(asked, target).astype(np.int64)
    most = min(MOST, target.size)
    parts = []
    with progress("ask about items", asked.size) as advance:
        for start in range(0, asked.size, BLOCK):
            some = asked[start : start + BLOCK]
            said = teacher(single(some)) - bias[inside[start : start + BLOCK]]
            said -= np.median(said, axis=1, keepdims=True)
            best = np.argpartition(-said, most - 1, axis=1)[:, :most]
            value = np.maximum(np.take_along_axis(said, best, axis=1), 0.0)
            rows = np.repeat(some, most)
            parts.append(sparse.coo_array((value.ravel(), (rows, best.ravel())), shape=(n_items, target.size)))
            advance(some.size)
    total = sparse.csr_array((n_items, target.size), dtype=np.float32)
    if parts:
        data = np.concatenate([part.data for part in parts])
        coords = tuple(np.concatenate([part.coords[axis] for part in parts]) for axis in (0, 1))
        total = sparse.csr_array((data, coords), shape=total.shape, dtype=np.float32)
    total.eliminate_zeros()
    return total


def single(items: Ints) -> Histories:
    """Return one history an item, of that item alone."""
    size = items.size
    return Histories(
        np.arange(size + 1, dtype=np.int64), items.astype(np.int32), np.ones(size, np.float32), np.zeros(size, np.int64)
    )


def kinds_of(histories: Histories, target: Indices) -> Ints:
    """Return the place of each person's kind in :data:`isthmus.model.blend.COHORTS`, (B,)."""
    cohorts = person_cohorts(histories, target)
    kinds: Ints = np.where(cohorts["cold person"], 0, np.where(cohorts[f"1-{FEW} events"], 1, 2)).astype(np.int64)
    return kinds


def seen_of(histories: Histories, target: Indices) -> tuple[Ints, Ints]:
    """Return row and column of every event on an item of ``target``."""
    places = np.searchsorted(target, histories.items)
    places[places == target.size] = 0
    known = target[places] == histories.items if target.size else np.zeros(0, dtype=bool)
    return histories.rows[known], places[known].astype(np.int64)


def gradient(
    scores: Floats, said: tuple[Indices, Floats, int], seen: tuple[Ints, Ints], weights: tuple[float, float, float]
) -> tuple[float, Floats]:
    """Return the loss of a batch and its gradient by the scores (B, T).

    With the teacher's scores ``t`` on the columns kept, the student's scores ``s`` and the temperature ``h``:
    ``score * mean (s - t)²`` plus ``list * h² * cross-entropy(softmax(t / h), softmax(s / h))`` over the items not
    seen, where the first softmax is over the best columns. The factor ``h²`` keeps both parts of one size (Hinton,
    Vinyals and Dean 2015, section 2).

    Parameters
    ----------
    scores : float32 array (B, T)
        The student's.
    said : int32 array (B, C), float32 array (B, C), int
        Columns kept, the teacher's scores there, and how many of them are the best.
    seen : int64 arrays (E,), (E,)
        Row and column of what was seen.
    weights : tuple of float
        Of score and list, and the temperature.
    """
    columns, taught, top = said
    by_score, by_list, heat = weights
    size = len(scores)
    if by_list:
        hot = scores / np.float32(heat)
        hot[seen] = -np.inf
        hot -= hot.max(axis=1, keepdims=True)
        mine = np.exp(hot)
        norm = mine.sum(axis=1, keepdims=True)
        best = taught[:, :top] / np.float32(heat)
        share = np.exp(best - best.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        told = np.take_along_axis(hot, columns[:, :top], axis=1) - np.log(norm)
        loss = -float((share * np.where(share > 0, told, 0.0)).sum()) * by_list * heat**2 / size
        slope = mine / norm
        rows = np.repeat(np.arange(size), top)
        np.subtract.at(slope, (rows, columns[:, :top].ravel()), share.ravel())
        slope *= np.float32(by_list * heat / size)
    else:
        loss, slope = 0.0, np.zeros_like(scores)
    if by_score:
        known = np.isfinite(taught)
        error = np.where(known, np.take_along_axis(scores, columns, axis=1) - np.where(known, taught, 0.0), 0.0)
        loss += by_score * float((error**2).mean())
        rows = np.repeat(np.arange(size), columns.shape[1])
        np.add.at(slope, (rows, columns.ravel()), (2 * by_score / error.size * error).ravel())
    return loss, slope
