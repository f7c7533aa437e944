"""What a system is asked and what the right answers are: the persons, their histories, the catalogue, the targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import DataError
from isthmus.types import Bools, Indices, Ints


@dataclass(frozen=True)
class Task:
    """One question to every recommender: rank the ``T`` items of a domain for each of ``P`` persons.

    Parameters
    ----------
    domain : str
        Target domain.
    part : str
        Part of the split that the targets come from: ``valid`` or ``test``.
    items : int32 array (T,)
        Corpus item index of each column of the scores, rising: the whole catalogue of the domain.
    persons : int64 array (P,)
        Corpus person index of each person.
    histories : Histories
        What each person did before (corpus item indices, all platforms, oldest first).
    target_indptr : int64 array (P + 1,)
        Where each person's targets start in ``targets``; everybody has at least one.
    targets : int32 array (nnz,)
        Column ``0..T-1`` of each right answer; no column twice for one person.
    popularity : int64 array (T,)
        Number of persons with a training event on each column's item.
    train_persons : int
        Number of persons with a training event in the domain.
    exclude_seen : bool
        Whether items of a person's history may not be listed again.
    cohorts : mapping of str to bool array (P,)
        Which persons belong to each slice (``cold person``, ``overlap`` ...).
    item_groups : mapping of str to bool array (T,)
        Which columns belong to each slice of the catalogue (``new item``, ``head``, ``tail``, ``platform NAME`` ...).

    Raises
    ------
    DataError
        Lengths do not fit, a person has no target or one target twice, or a column is outside the catalogue.

    Notes
    -----
    A target that is in the history of its person cannot be listed when ``exclude_seen`` holds; it counts as
    missed for every system. :attr:`unreachable` counts such targets.

    Examples
    --------
    >>> task = Task(
    ...     domain="books", part="test", items=np.array([4, 7, 9], np.int32), persons=np.array([0, 5]),
    ...     histories=Histories.of([[4, 1], [2, 9, 9]]), target_indptr=np.array([0, 1, 3]),
    ...     targets=np.array([1, 0, 1], np.int32), popularity=np.array([3, 1, 0]), train_persons=4,
    ...     exclude_seen=True,
    ... )
    >>> task.seen(0, 2)
    (array([0, 1, 1]), array([0, 2, 2]))
    """

    domain: str
    part: str
    items: Indices
    persons: Ints
    histories: Histories
    target_indptr: Ints
    targets: Indices
    popularity: Ints
    train_persons: int
    exclude_seen: bool
    cohorts: Mapping[str, Bools] = field(default_factory=dict)
    item_groups: Mapping[str, Bools] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that all parts fit together."""
        self._check(self.persons.size == len(self.histories), "one history a person")
        self._check(self.target_indptr.size == self.persons.size + 1, "one set of targets a person")
        self._check(int(self.target_indptr[-1]) == self.targets.size, "target_indptr ends at the last target")
        self._check(bool((np.diff(self.target_indptr) > 0).all()), "at least one target a person")
        self._check(bool((np.diff(self.items) > 0).all()), "items rise")
        inside = self.targets.size == 0 or (self.targets.min() >= 0 and self.targets.max() < self.items.size)
        self._check(bool(inside), "targets are columns of the catalogue")
        keys = self.target_rows * self.items.size + self.targets
        self._check(np.unique(keys).size == keys.size, "no target twice for one person")
        self._check(self.popularity.shape == self.items.shape, "one popularity an item")
        self._check(all(flag.shape == self.persons.shape for flag in self.cohorts.values()), "one cohort flag a person")
        self._check(all(flag.shape == self.items.shape for flag in self.item_groups.values()), "one group flag an item")

    def _check(self, holds: bool, rule: str) -> None:
        if not holds:
            raise DataError(f"broken rule: {rule}", where=f"task {self.domain}/{self.part}")

    def __len__(self) -> int:
        """Return the number of persons ``P``."""
        return self.persons.size

    @property
    def target_rows(self) -> Ints:
        """Person number ``0..P-1`` of each target, (nnz,)."""
        return np.repeat(np.arange(self.persons.size, dtype=np.int64), np.diff(self.target_indptr))

    def take(self, persons: Ints) -> Task:
        """Return the task of some of its persons (places ``0..P-1``, rising).

        Examples
        --------
        >>> task = Task(
        ...     domain="books", part="test", items=np.array([4, 7, 9], np.int32), persons=np.array([0, 5]),
        ...     histories=Histories.of([[4, 1], [2, 9, 9]]), target_indptr=np.array([0, 1, 3]),
        ...     targets=np.array([1, 0, 2], np.int32), popularity=np.array([3, 1, 0]), train_persons=4,
        ...     exclude_seen=True,
        ... )
        >>> task.take(np.array([1])).targets.tolist()
        [0, 2]
        """
        counts = np.diff(self.target_indptr)[persons]
        return replace(
            self,
            persons=self.persons[persons],
            histories=self.histories.take(persons),
            target_indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            targets=self.targets[np.isin(self.target_rows, persons)],
            cohorts={name: flags[persons] for name, flags in self.cohorts.items()},
        )

    def seen(self, start: int, stop: int) -> tuple[Ints, Ints]:
        """Return what persons ``start..stop-1`` already had of the catalogue.

        Returns
        -------
        rows : int64 array (E,)
            Person number counted from ``start``.
        columns : int64 array (E,)
            Column of the catalogue; a repeated event repeats here.
        """
        history = self.histories.take(np.arange(start, min(stop, len(self))))
        columns = np.searchsorted(self.items, history.items)
        columns[columns == self.items.size] = 0
        known = self.items[columns] == history.items if self.items.size else np.zeros(0, dtype=bool)
        return history.rows[known], columns[known].astype(np.int64)

    @property
    def unreachable(self) -> int:
        """Number of targets that are in the history of their person."""
        rows, columns = self.seen(0, len(self))
        return int(np.isin(self.target_rows * self.items.size + self.targets, rows * self.items.size + columns).sum())
