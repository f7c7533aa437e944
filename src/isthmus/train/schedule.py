"""Which examples make up which batch: of like length together, groups by temperature sampling, the same always."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import InputError
from isthmus.rng import generator
from isthmus.types import Ints

#: Batches that are shuffled together before they are sorted by length.
POOL: Final = 16


@dataclass(frozen=True)
class TextSettings:
    """How texts are put into batches.

    Parameters
    ----------
    batch_size : int
        Texts or pairs of a batch.
    alpha : float
        Groups (domains) of ``n`` examples are drawn with a share that grows as ``n ** alpha``: 1 as often as they
        are, 0 all alike.
    seed : int
        Order, and whatever is drawn.
    """

    batch_size: int = 32
    alpha: float = 0.5
    seed: int = 0


def temperature_shares(sizes: Ints, alpha: float) -> NDArray[np.float64]:
    """Return ``n ** alpha / sum(n ** alpha)``, (G,) (Conneau et al., XLM-R, ACL 2020, section 3.1; there alpha is 0.3).

    Examples
    --------
    >>> temperature_shares(np.array([100, 1]), 0.5).round(3).tolist()
    [0.909, 0.091]
    """
    raised = np.where(sizes > 0, np.maximum(sizes, 1).astype(np.float64) ** alpha, 0.0)
    shares: NDArray[np.float64] = raised / raised.sum()
    return shares


class Schedule:
    """The examples of each batch; all of a batch are of one group.

    An epoch has as many batches as it takes to see every example once if there is one group. With more, the batches
    are shared out by temperature sampling, so an epoch repeats small groups and leaves out some of the large ones.

    Parameters
    ----------
    lengths : int64 array (E,)
        Length of each example: those of like length meet, which saves padding.
    settings : TextSettings
        Sizes and seed.
    groups : int64 array (E,), optional
        Group of each example; one for all if not given.
    purpose : str
        Schedules of other purposes draw independently.

    Raises
    ------
    InputError
        No example.

    Examples
    --------
    >>> schedule = Schedule(np.ones(10, np.int64), TextSettings(batch_size=4))
    >>> len(schedule), sorted(np.concatenate([schedule.rows(step) for step in range(3)]).tolist())
    (3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    def __init__(
        self, lengths: Ints, settings: TextSettings, groups: Ints | None = None, *, purpose: str = "texts"
    ) -> None:
        if not lengths.size:
            raise InputError("there is nothing to train on", where=purpose, fix="give texts or events")
        if settings.batch_size < 1:
            raise InputError(f"batch_size is {settings.batch_size}", where=purpose, fix="give at least 1")
        self.lengths, self.settings, self.purpose = lengths, settings, purpose
        _, number = np.unique(np.zeros_like(lengths) if groups is None else groups, return_inverse=True)
        order = np.argsort(number, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(number))[:-1])
        self._n = -(-lengths.size // settings.batch_size)
        self._epoch, self._plan = -1, [np.zeros(0, np.int64)]

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._n

    def rows(self, step: int) -> Ints:
        """Return the examples of the batch of a step, which counts from 0 over all epochs."""
        epoch, place = divmod(step, self._n)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._planned(epoch)
        return self._plan[place]

    def _planned(self, epoch: int) -> list[Ints]:
        rng = generator(self.settings.seed, self.purpose, epoch)
        sizes = np.array([rows.size for rows in self.members])
        exact = temperature_shares(sizes, self.settings.alpha) * self._n
        counts = np.floor(exact + 1e-6).astype(np.int64)
        missing = self._n - int(counts.sum())
        if missing:
            left = np.maximum(exact - counts, 1e-9)
            counts += rng.multinomial(missing, left / left.sum())
        plan: list[Ints] = []
        for rows, n in zip(self.members, counts.tolist(), strict=True):
            plan += self._some(rows, n, rng)
        return [plan[place] for place in rng.permutation(len(plan))]

    def _some(self, rows: Ints, n: int, rng: np.random.Generator) -> list[Ints]:
        """Return ``n`` batches of one group: whole passes over it, then a part of one."""
        found: list[Ints] = []
        size = self.settings.batch_size
        while len(found) < n:
            order = rng.permutation(rows)
            pool = np.arange(order.size) // (POOL * size)
            order = order[np.lexsort((self.lengths[order], pool))]
            batches = [order[start : start + size] for start in range(0, order.size, size)]
            found += [batches[place] for place in rng.permutation(len(batches))]
        return found[:n]
