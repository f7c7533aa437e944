"""What every method is given, what it promises, and the item-to-item form most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.types import Bools, Floats, Indices

#: One setting of a method.
Setting: TypeAlias = float | int | bool | str
Settings: TypeAlias = dict[str, Setting]
#: What a fitted method keeps, as plain arrays: the only thing stored on disk.
State: TypeAlias = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class TrainingData:
    """What may be learned from.

    Parameters
    ----------
    histories : Histories
        The training events of all persons over all platforms.
    target : int32 array (T,)
        Corpus item index of each item of the target domain, rising.
    n_items : int
        Items of the corpus ``N``.
    now : int
        Time of the newest training event, microseconds since 1970.
    text : csr array (N, F) float32, optional
        TF-IDF features of every item's text, rows of length 1 or 0.
    vectors : float32 array (N, D), optional
        Language-model vectors of every item's text.
    """

    histories: Histories
    target: Indices
    n_items: int
    now: int
    text: sparse.csr_array | None = None
    vectors: Floats | None = None

    @cached_property
    def in_target(self) -> Bools:
        """Whether each item belongs to the target domain, (N,)."""
        mask = np.zeros(self.n_items, dtype=bool)
        mask[self.target] = True
        return mask

    @cached_property
    def popularity(self) -> Floats:
        """Persons with a training event on each item, (N,)."""
        return np.asarray((self.histories.matrix(self.n_items) > 0).sum(axis=0), dtype=np.float32).ravel()

    def learn_from(self, sources: bool) -> Histories:
        """Return the histories, without the events of other domains unless ``sources``; only persons with an event."""
        kept = self.histories if sources else self.histories.keep(self.in_target[self.histories.items])
        return kept.take(np.flatnonzero(kept.lengths > 0))


class Method(ABC):
    """A way to score the items of a target domain for a history.

    A method keeps nothing about persons: a person met after training is scored like everybody else. Every
    method takes the setting ``sources`` (learn from, and look at, events of other domains) and has a ``name``.
    """

    name: ClassVar[str]
    #: Settings with their defaults.
    defaults: ClassVar[Settings]
    #: Settings worth trying, best guess first.
    grid: ClassVar[Mapping[str, tuple[Setting, ...]]]
    #: Whether the method can score items without any training event.
    inductive: ClassVar[bool] = False

    def __init__(self, settings: Mapping[str, Setting] | None = None) -> None:
        unknown = set(settings or {}) - set(self.defaults)
        if unknown:
            raise InputError(f"method {self.name} has no setting {', '.join(sorted(unknown))}")
        self.settings: Settings = {**self.defaults, **(settings or {})}
        self.target: Indices = np.zeros(0, np.int32)
        self.n_items = 0

    def fit(self, data: TrainingData, *, seed: int = 0) -> Method:
        """Learn from ``data``; return self."""
        self.target, self.n_items = data.target, data.n_items
        self._fit(data, seed)
        return self

    @abstractmethod
    def _fit(self, data: TrainingData, seed: int) -> None: ...

    @abstractmethod
    def score(self, histories: Histories) -> Floats:
        """Return the score of each target item for each history, (B, T) float32; higher is better, 0 says nothing."""

    @abstractmethod
    def state(self) -> State:
        """Return what was learned."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Take back what :meth:`state` returned."""

    def number(self, setting: str) -> float:
        """Return a setting as a number."""
        return float(self.settings[setting])

    def profile(self, histories: Histories) -> sparse.csr_array:
        """Return what counts of each history: persons × items (B, N), newest events most (setting ``decay``)."""
        seen = histories
        if not self.settings.get("sources", True):
            mask = np.zeros(self.n_items, dtype=bool)
            mask[self.target] = True
            seen = seen.keep(mask[seen.items])
        return seen.matrix(self.n_items, decay=self.number("decay") if "decay" in self.settings else 1.0)


class ItemToItem(Method):
    """A method that scores ``profile @ weights``, with ``weights`` a sparse items × target matrix (N, T)."""

    weights: sparse.csr_array

    def score(self, histories: Histories) -> Floats:
        """Return ``profile @ weights``, (B, T) float32."""
        return np.asarray((self.profile(histories) @ self.weights).toarray(), dtype=np.float32)

    def state(self) -> State:
        """Return the weights as CSR arrays."""
        return {"data": self.weights.data, "indices": self.weights.indices, "indptr": self.weights.indptr}

    def restore(self, state: State) -> None:
        """Take back the weights."""
        parts = (state["data"], state["indices"], state["indptr"])
        self.weights = sparse.csr_array(parts, shape=(self.n_items, self.target.size))


def strongest(block: Floats, k: int) -> sparse.csr_array:
    """Return ``block`` with only the ``k`` entries of largest size of each row, as CSR.

    Examples
    --------
    >>> strongest(np.array([[1.0, -3.0, 2.0]], np.float32), 2).toarray().tolist()
    [[0.0, -3.0, 2.0]]
    """
    rows, columns = block.shape
    if k >= columns:
        return sparse.csr_array(block)
    kept = np.sort(np.argpartition(-np.abs(block), k, axis=1)[:, :k], axis=1)
    data = np.take_along_axis(block, kept, axis=1).ravel()
    indptr = np.arange(0, rows * k + 1, k)
    return sparse.csr_array((data, kept.ravel().astype(np.int32), indptr), shape=block.shape)
