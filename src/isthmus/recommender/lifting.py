"""Whether something said on top of the blend is worth it: chosen on validation, kept only if it is surely better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.ranks import Doubles, Ranks
from isthmus.files import Json
from isthmus.model.blend import standardise
from isthmus.rng import generator
from isthmus.split.task import Task
from isthmus.types import Bools, Floats, Ints

#: Parts of the score that may be given to what is said on top.
SHARES: Final = (0.1, 0.25, 0.5, 0.75, 0.95)
#: Validation persons it takes to choose.
NEEDED: Final = 30
#: Cuts of them into two halves.
CUTS: Final = 6
#: Persons scored at a time.
BLOCK: Final = 128


@dataclass(frozen=True)
class Choice:
    """What validation says of it.

    Parameters
    ----------
    share : float
        Part of the score that it gets; 0 where it is not kept.
    people : int
        Validation persons that chose.
    before : float
        Their NDCG@10 without it.
    gain, error : float
        What it adds on persons that did not choose the share, and the standard error of that.
    """

    share: float
    people: int
    before: float = 0.0
    gain: float = 0.0
    error: float = 0.0

    @property
    def said(self) -> Json:
        """The same as JSON."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def mixed(base: Floats, own: Floats, share: float, fixed: Bools | None = None) -> Floats:
    """Return ``(1 - share) * base + share * own``, both standardised, (B, T) float32.

    An item that is never to be listed (``-inf`` in ``base``) stays so, and the columns of ``fixed`` keep their
    standardised ``base``.

    Examples
    --------
    >>> base = np.array([[0.0, 2.0, -np.inf]], np.float32)
    >>> mixed(base, np.array([[9.0, 0.0, 0.0]], np.float32), 0.75).argmax(axis=1).tolist()
    [0]
    """
    shut = np.isneginf(base)
    least = np.where(shut, np.inf, base).min(axis=1, keepdims=True)
    first = standardise(np.where(shut, np.where(np.isfinite(least), least, 0.0), base).astype(np.float32))
    total = np.float32(1 - share) * first + np.float32(share) * standardise(own)
    if fixed is not None:
        total[:, fixed] = first[:, fixed]
    total[shut] = -np.inf
    return total


def each_ndcg(task: Task, score: Callable[[Ints], Sequence[Floats]]) -> Doubles:
    """Return the NDCG@10 of each person of ``task`` under each of several scores, (S, P).

    Parameters
    ----------
    task : Task
        Who is asked.
    score : callable
        Given places of persons, returns ``S`` arrays of scores (B, T).
    """
    parts = []
    for start in range(0, len(task), BLOCK):
        stop = min(start + BLOCK, len(task))
        indptr = task.target_indptr[start : stop + 1]
        targets, seen = task.targets[indptr[0] : indptr[-1]], task.seen(start, stop)
        rows = []
        for scores in score(np.arange(start, stop)):
            own = scores.copy()
            if task.exclude_seen:
                own[seen] = -np.inf
            rows.append(ndcg(Ranks.of(own, indptr - indptr[0], targets), 10))
        parts.append(np.stack(rows))
    return np.concatenate(parts, axis=1)


def chosen(table: Doubles, shares: Sequence[float] = SHARES, *, seed: int = 0) -> Choice:
    """Return the share that is best on validation, or 0.

    Half of the persons choose a share and the other half judges it, many times over; it is kept only if the gain of
    those who did not choose is more than its standard error.

    Parameters
    ----------
    table : float64 array (1 + S, P)
        NDCG@10 of each person: without, then with each of ``shares``.
    shares : sequence of float
        What was tried.
    seed : int
        Of the halves.

    Examples
    --------
    >>> chosen(np.stack([np.zeros(40), np.full(40, 0.1), np.full(40, 0.3)]), (0.5, 1.0)).share
    1.0
    >>> chosen(np.stack([np.full(40, 0.3), np.zeros(40)]), (0.5,)).share
    0.0
    """
    people = table.shape[1]
    if people < NEEDED:
        return Choice(0.0, people)
    rng, gained, times = generator(seed, "lifting"), np.zeros(people), np.zeros(people)
    for _ in range(CUTS):
        order = rng.permutation(people)
        for mine, other in ((order[: people // 2], order[people // 2 :]), (order[people // 2 :], order[: people // 2])):
            best = int(table[:, mine].mean(axis=1).argmax())
            gained[other] += table[best, other] - table[0, other]
            times[other] += 1
    gain = gained / times
    error, place = float(gain.std() / np.sqrt(people)), int(table.mean(axis=1).argmax())
    kept = place > 0 and gain.mean() > error
    return Choice(float(shares[place - 1]) if kept else 0.0, people, float(table[0].mean()), float(gain.mean()), error)
