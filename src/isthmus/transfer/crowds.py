"""Crowds: groups of people alike in what they met, and how likely each crowd meets each item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, InputError
from isthmus.model.base import Doubles
from isthmus.rng import generator
from isthmus.types import Bools, Floats, Indices, Ints

#: A crowd has this many persons or more on average.
PERSONS: Final = 15


@dataclass(frozen=True)
class CrowdSettings:
    """How people are put into crowds.

    Parameters
    ----------
    crowds : int
        Crowds at most; few people give fewer.
    dim : int
        Dimensions in which people are compared.
    smoothing : float
        As many persons of everybody are added to each crowd when its chances are counted.
    persons : int
        People that are looked at, at most.
    seed : int
        Which people, and where the search for crowds starts.
    """

    crowds: int = 32
    dim: int = 32
    smoothing: float = 10.0
    persons: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.crowds, self.dim, self.persons) < 1 or self.smoothing <= 0 or self.seed < 0:
            raise InputError("the settings of crowds are impossible", fix="counts from 1, smoothing above 0")


@dataclass(frozen=True)
class Crowds:
    """Groups of people, ``C`` of them.

    Parameters
    ----------
    share : float64 array (C,)
        Share of the people in each, of sum 1.
    chance : float32 array (C, N)
        Chance that somebody of the crowd meets each item, in (0, 1) for items that somebody met, else 0.
    """

    share: Doubles
    chance: Floats

    @classmethod
    def of(cls, histories: Histories, n_items: int, settings: CrowdSettings | None = None) -> Crowds:
        """Return the crowds of the people of ``histories``: k-means on what they met, in fewer dimensions.

        The dimensions are the leading singular vectors of persons × items, with inverse item frequency and rows of
        length 1. The chances of a crowd are those counted in it, smoothed towards everybody's.

        Raises
        ------
        DataError
            Nobody met anything.

        Examples
        --------
        >>> people = Histories.of([[0, 1], [0, 1], [2, 3], [2, 3]] * 20)
        >>> crowds = Crowds.of(people, 4, CrowdSettings(crowds=2, dim=2))
        >>> crowds.share.tolist(), (np.sort(crowds.chance[:, 0]) * 100).round().tolist()
        ([0.5, 0.5], [10.0, 90.0])
        """
        settings = settings or CrowdSettings()
        active = np.flatnonzero(histories.lengths > 0)
        if active.size == 0:
            raise DataError("nobody met anything", where="crowds", fix="learn from people with events")
        rng = generator(settings.seed, "crowds")
        if active.size > settings.persons:
            active = np.sort(rng.choice(active, settings.persons, replace=False))
        met = sparse.csr_array(histories.take(active).matrix(n_items) > 0, dtype=np.float32)
        member = _members(met, settings, rng)
        count = np.bincount(member).astype(np.float64)
        belongs = sparse.csr_array((np.ones(member.size, np.float32), (member, np.arange(member.size))))
        own = np.asarray((belongs @ met).todense(), dtype=np.float64)
        everybody = own.sum(axis=0) / (active.size + 1)
        chance = (own + settings.smoothing * everybody) / (count + settings.smoothing)[:, None]
        return cls(count / count.sum(), chance.astype(np.float32))

    def posterior(self, answers: Answers, prior: Doubles | None = None) -> Doubles:
        """Return how likely each crowd is for each of ``B`` people after their answers, (B, C); rows of sum 1."""
        start = np.broadcast_to(self.share if prior is None else prior, (len(answers), self.share.size))
        safe = np.clip(self.chance[:, answers.items].astype(np.float64), 1e-9, 1 - 1e-9)
        told = np.where(answers.yes, np.log(safe), np.log1p(-safe))
        rows = sparse.csr_array(
            (np.ones(answers.rows.size), (answers.rows, np.arange(answers.rows.size))),
            shape=(len(answers), answers.rows.size),
        )
        return _softmax(np.log(np.maximum(start, 1e-300)) + rows @ told.T)


@dataclass(frozen=True)
class Answers:
    """What ``B`` people said about items.

    Parameters
    ----------
    persons : int
        Number of people ``B``.
    rows : int64 array (A,)
        Who answered, 0..B-1.
    items : int32 array (A,)
        Corpus item index.
    yes : bool array (A,)
        Whether they met and liked it; no and "never met it" are both false.
    """

    persons: int
    rows: Ints
    items: Indices
    yes: Bools

    @classmethod
    def none(cls, persons: int = 1) -> Answers:
        """Return the answers of people who have not been asked."""
        return cls(persons, np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, bool))

    def __len__(self) -> int:
        """Return the number of people ``B``."""
        return self.persons

    def and_then(self, rows: Ints, items: Indices, yes: Bools) -> Answers:
        """Return these answers and some more."""
        return Answers(
            self.persons,
            np.concatenate([self.rows, rows]),
            np.concatenate([self.items, items]),
            np.concatenate([self.yes, yes]),
        )

    def first(self, n: int) -> Answers:
        """Return the first ``n`` answers of each person."""
        order = np.argsort(self.rows, kind="stable")
        rows = self.rows[order]
        kept = np.sort(order[np.arange(rows.size) - np.searchsorted(rows, rows) < n])
        return Answers(self.persons, self.rows[kept], self.items[kept], self.yes[kept])

    def span(self, start: int, stop: int) -> Answers:
        """Return the answers of persons ``start..stop-1``, counted from 0."""
        kept = (self.rows >= start) & (self.rows < stop)
        return Answers(stop - start, self.rows[kept] - start, self.items[kept], self.yes[kept])

    @property
    def histories(self) -> Histories:
        """The items with yes, as histories: the last answer is the newest event."""
        rows, items = self.rows[self.yes], self.items[self.yes]
        order = np.argsort(rows, kind="stable")
        lengths = np.bincount(rows, minlength=self.persons)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ones = np.ones(order.size, np.float32)
        return Histories(indptr, items[order].astype(np.int32), ones, np.arange(order.size, dtype=np.int64))


def _members(met: sparse.csr_array, settings: CrowdSettings, rng: np.random.Generator) -> Ints:
    """Return the crowd of each person, 0..C-1, every one with somebody in it."""
    from sklearn.cluster import KMeans

    count = np.asarray(met.sum(axis=0)).ravel()
    rarity = np.log(1 + met.shape[0] / np.maximum(count, 1))
    weighted = met @ sparse.diags_array(rarity)
    length = np.sqrt(np.asarray(weighted.power(2).sum(axis=1)).ravel())
    unit = sparse.csr_array(sparse.diags_array(1 / np.maximum(length, 1e-9)) @ weighted)
    vectors = _leading(unit, settings.dim, rng)
    distinct = np.unique(vectors.round(6), axis=0).shape[0]
    crowds = max(1, min(settings.crowds, met.shape[0] // PERSONS, distinct))
    model = KMeans(crowds, n_init=2, random_state=int(rng.integers(2**31))).fit(vectors)
    return np.unique(model.labels_, return_inverse=True)[1].astype(np.int64)


def _leading(unit: sparse.csr_array, dim: int, rng: np.random.Generator) -> Doubles:
    """Return the rows of ``unit`` on its leading singular vectors, (P, dim or fewer), made of length 1."""
    from sklearn.utils.extmath import randomized_svd

    width = min(dim, *unit.shape)
    left, sizes, _ = randomized_svd(sparse.csr_matrix(unit), width, n_iter=4, random_state=int(rng.integers(2**31)))
    vectors = np.asarray(left * sizes, dtype=np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _softmax(logits: Doubles) -> Doubles:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
