"""Ratings as flat arrays, what every rating model promises, and the ridge that places many people at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from scipy import sparse

from isthmus.errors import DataError, InputError
from isthmus.model.base import Doubles, State
from isthmus.types import Bools, Ints

#: Ratings whose factors are looked up at a time: bounds the memory of :func:`ridge_rows`.
_BLOCK: Final = 262_144


@dataclass(frozen=True)
class Ratings:
    """Who gave which item what, each pair once.

    Parameters
    ----------
    persons : int64 array (E,)
        Person of each rating, rising; those of one person in the order they were given.
    items : int64 array (E,)
        Item of each rating.
    values : float64 array (E,)
        The ratings, finite.
    shape : tuple of int
        Number of persons, number of items.

    Examples
    --------
    >>> ratings = Ratings.of(np.array([1, 0, 1]), np.array([2, 2, 2]), np.array([3.0, 5.0, 4.0]), (2, 3))
    >>> ratings.persons.tolist(), ratings.values.tolist()
    ([0, 1], [5.0, 4.0])
    """

    persons: Ints
    items: Ints
    values: Doubles
    shape: tuple[int, int]

    @classmethod
    def of(cls, persons: Ints, items: Ints, values: Doubles, shape: tuple[int, int]) -> Ratings:
        """Return ratings given in the order of time; of one person's ratings of one item the last counts.

        Raises
        ------
        DataError
            A value that is not finite, or a person or item outside ``shape``.
        """
        if not np.isfinite(values).all():
            raise DataError("a rating is not finite", where="ratings", fix="leave such rows out")
        outside = persons.size and (min(persons.min(), items.min()) < 0 or persons.max() >= shape[0])
        if outside or (items.size and items.max() >= shape[1]):
            raise DataError("a rating is of a person or item that there is not", where="ratings")
        keys = persons.astype(np.int64)[::-1] * shape[1] + items[::-1]
        last = persons.size - 1 - np.unique(keys, return_index=True)[1]
        order = last[np.lexsort((last, persons[last]))]
        return cls(persons[order].astype(np.int64), items[order].astype(np.int64), values[order].astype(float), shape)

    def __len__(self) -> int:
        """Return the number of ratings ``E``."""
        return self.values.size

    @property
    def person_counts(self) -> Ints:
        """Ratings of each person, (P,)."""
        return np.bincount(self.persons, minlength=self.shape[0])

    @property
    def item_counts(self) -> Ints:
        """Ratings of each item, (N,)."""
        return np.bincount(self.items, minlength=self.shape[1])

    def keep(self, which: Bools) -> Ratings:
        """Return the ratings where ``which`` (E,) is true."""
        return Ratings(self.persons[which], self.items[which], self.values[which], self.shape)

    def newest(self, most: int) -> Ratings:
        """Return the last ``most`` ratings of each person."""
        ends = np.cumsum(self.person_counts)
        return self.keep(ends[self.persons] - np.arange(len(self)) <= most)

    def matrix(self, values: Doubles) -> sparse.csr_array:
        """Return persons × items (P, N) with ``values`` (E,), one for each rating; zeros among them are kept."""
        indptr = np.concatenate([[0], np.cumsum(self.person_counts)])
        return sparse.csr_array((values, self.items, indptr), shape=self.shape)


class RatingModel(ABC):
    """A way to say which rating a person would give an item.

    It keeps nothing about persons: who they are is told by their known ratings when it predicts, so that a person met
    after training is served like everybody else.
    """

    #: Name in tables; unique among the models that are compared.
    name: str
    #: Settings worth trying, the default first.
    grid: ClassVar[Sequence[Mapping[str, float]]] = ({},)
    #: Settings that matter when it predicts only: they can be tried without learning again.
    reading: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Mapping[str, float] | None = None) -> None:
        chosen = dict(settings or {})
        unknown = set(chosen) - set(self.grid[0])
        if unknown:
            raise InputError(f"rating model {type(self).__name__} has no setting {', '.join(sorted(unknown))}")
        self.settings: dict[str, float] = {**self.grid[0], **chosen}

    def read_with(self, settings: Mapping[str, float]) -> Self:
        """Return a copy that learned the same and predicts with other settings, those of :attr:`reading`."""
        other = copy(self)
        other.settings = {**self.settings, **settings}
        return other

    @abstractmethod
    def fit(self, ratings: Ratings, *, seed: int = 0) -> RatingModel:
        """Learn from ``ratings``; return self."""

    @abstractmethod
    def predict(self, known: Ratings, persons: Ints, items: Ints) -> Doubles:
        """Return the rating of each pair, (n,).

        Parameters
        ----------
        known : Ratings
            What may be known of the persons: their own ratings.
        persons, items : int64 arrays (n,)
            The pairs.
        """

    @abstractmethod
    def state(self) -> State:
        """Return what was learned, as plain arrays."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Take back what :meth:`state` returned."""


def inner(prefix: str, state: State) -> State:
    """Return a state within a larger one, by the names that begin with ``prefix`` and a dot.

    Examples
    --------
    >>> list(inner("bias", {"bias.mean": np.zeros(1), "factors": np.zeros(2)}))
    ['mean']
    """
    return {name.removeprefix(f"{prefix}."): array for name, array in state.items() if name.startswith(f"{prefix}.")}


def outer(prefix: str, state: State) -> State:
    """Return a state to be put into a larger one: the opposite of :func:`inner`."""
    return {f"{prefix}.{name}": array for name, array in state.items()}


def ridge_rows(
    matrix: sparse.csr_array, factors: Doubles, l2: float, *, steps: int = 12, start: Doubles | None = None
) -> Doubles:
    """Return the ridge regression of each row's entries on the factors of their columns.

    Row ``u`` solves ``(sum_j f_j f_j' + l2 I) x_u = sum_j e_uj f_j`` over its entries: all rows at once by conjugate
    gradients, so that no (D, D) matrix a row is formed.

    Parameters
    ----------
    matrix : csr array (R, C)
        Entries ``e_uj``; zeros that are stored count as entries.
    factors : float64 array (C, D)
        Factors of the columns.
    l2 : float
        Above 0.
    steps : int
        Steps of the conjugate gradients, at most ``D`` are ever needed.
    start : float64 array (R, D), optional
        Where to start.

    Returns
    -------
    float64 array (R, D)
        Zeros for a row without entries.

    Examples
    --------
    >>> ridge_rows(sparse.csr_array([[2.0, 0.0], [0.0, 0.0]]), np.eye(2), 1.0).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))

    def spread(values: Doubles) -> Doubles:
        weighted = sparse.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)
        return np.asarray(weighted @ factors)

    def apply(x: Doubles) -> Doubles:
        said = np.empty(rows.size)
        for begin in range(0, rows.size, _BLOCK):
            some = slice(begin, begin + _BLOCK)
            said[some] = np.einsum("ed,ed->e", factors[matrix.indices[some]], x[rows[some]])
        return spread(said) + l2 * x

    x = np.zeros((matrix.shape[0], factors.shape[1])) if start is None else start.copy()
    residual = spread(matrix.data) - (0.0 if start is None else apply(x))
    direction = residual.copy()
    size = np.einsum("rd,rd->r", residual, residual)
    for _ in range(min(steps, factors.shape[1])):
        image = apply(direction)
        step = size / np.maximum(np.einsum("rd,rd->r", direction, image), 1e-30)
        x += step[:, None] * direction
        residual -= step[:, None] * image
        smaller = np.einsum("rd,rd->r", residual, residual)
        direction = residual + (smaller / np.maximum(size, 1e-30))[:, None] * direction
        size = smaller
    return x
