"""What every method is given, what it promises, and the item-to-item form most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.encode.graph import Neighbours
from isthmus.errors import InputError
from isthmus.room import appended
from isthmus.types import Bools, Floats, Indices, Ints

#: Microseconds.
DAY: Final = 86_400_000_000

Doubles: TypeAlias = NDArray[np.float64]
#: One setting of a method.
Setting: TypeAlias = float | int | bool | str
Settings: TypeAlias = dict[str, Setting]
#: What a fitted method keeps, as plain arrays: the only thing stored on disk.
State: TypeAlias = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Places:
    """Where each item lives.

    Parameters
    ----------
    domain, platform : int32 arrays (N,)
        Place of each item's domain in ``domains``, of its platform in ``platforms``.
    domains, platforms : tuple of str
        Names.

    Examples
    --------
    >>> items = pl.DataFrame({"platform": ["shop", "shop", "radio"], "domain": ["books", "films", "music"]})
    >>> Places.of(items).platform.tolist()
    [0, 0, 1]
    """

    domain: Indices
    platform: Indices
    domains: tuple[str, ...]
    platforms: tuple[str, ...]

    @classmethod
    def of(cls, items: pl.DataFrame) -> Places:
        """Return the places of an items table; names stand in the order they are met."""
        names = [items[column].unique(maintain_order=True).to_list() for column in ("domain", "platform")]
        codes = [
            items[column].replace_strict(known, range(len(known)), return_dtype=pl.Int32).to_numpy()
            for column, known in zip(("domain", "platform"), names, strict=True)
        ]
        return cls(codes[0], codes[1], tuple(names[0]), tuple(names[1]))

    @classmethod
    def nameless(cls, n_items: int) -> Places:
        """Return the places of items of which nothing is said: one domain, one platform."""
        return cls(np.zeros(n_items, np.int32), np.zeros(n_items, np.int32), ("",), ("",))

    def __add__(self, other: Places) -> Places:
        """Return the places of these items followed by those of others; these names keep their codes."""
        domains, platforms = (
            tuple(dict.fromkeys((*mine, *theirs)))
            for mine, theirs in ((self.domains, other.domains), (self.platforms, other.platforms))
        )
        domain = np.array([domains.index(name) for name in other.domains], np.int32)[other.domain]
        platform = np.array([platforms.index(name) for name in other.platforms], np.int32)[other.platform]
        return Places(appended(self.domain, domain), appended(self.platform, platform), domains, platforms)


@dataclass(frozen=True)
class Features:
    """What is known of the items besides events, one row an item of the corpus.

    Parameters
    ----------
    text : csr array (N, F) float32, optional
        TF-IDF features, rows of length 1 or 0.
    vectors : float32 array (N, D), optional
        Language-model vectors; a row of zeros for an item without text.
    places : Places, optional
        Domain and platform of each item.
    texts : tuple of str, optional
        Text of each item, N; empty where there is none.
    graph : Neighbours, optional
        Entities of a knowledge graph that each item is tied to.
    more : mapping of str to float32 array (N, D)
        Other vectors of the items by modality (``image``, ``audio``, ``video``, ``told``); a row of zeros for an item
        without.
    """

    text: sparse.csr_array | None = None
    vectors: Floats | None = None
    places: Places | None = None
    texts: tuple[str, ...] | None = None
    graph: Neighbours | None = None
    more: Mapping[str, Floats] = field(default_factory=dict)

    def texts_of(self, rows: Ints | Indices | slice) -> Features:
        """Return TF-IDF features and language-model vectors of some items only."""
        text = None if self.text is None else sparse.csr_array(self.text[rows])
        return Features(text, None if self.vectors is None else self.vectors[rows])


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
    dated : bool
        Whether times are dates; if not, they only give the order.
    features : Features
        What the items' texts say.
    """

    histories: Histories
    target: Indices
    n_items: int
    now: int
    features: Features = Features()
    dated: bool = True

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


@dataclass(frozen=True)
class Hooks:
    """What others do while a carrier is trained.

    Parameters
    ----------
    watch : callable, optional
        Judges the method after each epoch, higher is better: the best epoch is kept.
    """

    watch: Callable[[Method], float] | None = None


class Method(ABC):
    """A way to score the items of a target domain for a history.

    A method keeps nothing about persons: a person met after training is scored like everybody else. Every
    method takes the setting ``sources`` (learn from, and look at, events of other domains) and has a ``name``.
    """

    name: ClassVar[str]
    #: Settings with their defaults.
    defaults: ClassVar[Settings]
    #: Settings worth trying, the default first.
    grid: ClassVar[Mapping[str, tuple[Setting, ...]]]
    #: Settings that only change how a history is read: they can be tried without learning again.
    reading: ClassVar[tuple[str, ...]] = ("decay",)
    #: Settings that mean something only where events have dates.
    dated: ClassVar[tuple[str, ...]] = ()
    #: Whether the method can score items without any training event.
    inductive: ClassVar[bool] = False

    def __init__(self, settings: Mapping[str, Setting] | None = None) -> None:
        unknown = set(settings or {}) - set(self.defaults)
        if unknown:
            raise InputError(f"method {self.name} has no setting {', '.join(sorted(unknown))}")
        self.settings: Settings = {**self.defaults, **(settings or {})}
        self.target: Indices = np.zeros(0, np.int32)
        self.n_items = 0
        self.hooks = Hooks()

    def quick(self, data: TrainingData) -> Settings:  # noqa: ARG002
        """Return settings that stand in while the others are chosen, where learning from ``data`` is slow."""
        return {}

    def axes(self) -> Mapping[str, tuple[Setting, ...]]:
        """Return the settings worth trying with the others as they are."""
        return self.grid

    def fit(self, data: TrainingData, *, seed: int = 0) -> Method:
        """Learn from ``data``; return self."""
        self.target, self.n_items = data.target, data.n_items
        self._fit(data, seed)
        return self

    def take_over(self, other: Method) -> None:
        """Take what ``other`` learned: a method of the same kind whose settings differ in :attr:`reading` only."""
        learned = {name: value for name, value in vars(other).items() if name != "settings"}
        vars(self).update(learned)

    @abstractmethod
    def _fit(self, data: TrainingData, seed: int) -> None: ...

    @abstractmethod
    def score(self, histories: Histories) -> Floats:
        """Return the score of each target item for each history, (B, T) float32; higher is better, 0 says nothing."""

    @abstractmethod
    def state(self) -> State:
        """Return what was learned."""

    @abstractmethod
    def restore(self, state: State, features: Features) -> None:
        """Take back what :meth:`state` returned, given the item features it was learned with."""

    def extended(self, features: Features, target: Indices, n_items: int) -> Method:
        """Return a copy that knows a longer corpus: ``features`` of all items, and the longer list of targets."""
        longer = copy(self)
        longer.target, longer.n_items = target, n_items
        longer.extend(features, target)
        return longer

    @abstractmethod
    def extend(self, features: Features, target: Indices) -> None:
        """Make room for new items at the end of the corpus: their ``features`` and the longer list of targets."""

    def number(self, setting: str) -> float:
        """Return a setting as a number."""
        return float(self.settings[setting])

    def profile(self, histories: Histories) -> sparse.csr_array:
        """Return what counts of each history: persons × items (B, N), newest events most (setting ``decay``).

        Events of other domains count as the settings say: not at all without ``sources``, else ``away`` times as much;
        then those of the target and the others fade apart, each by their own order.
        """
        decay = self.number("decay") if "decay" in self.settings else 1.0
        away = float(self.settings.get("away", 1.0)) if self.settings.get("sources", True) else 0.0
        if away == 1.0:
            return histories.matrix(self.n_items, decay=decay)
        inside = np.zeros(self.n_items, dtype=bool)
        inside[self.target] = True
        here = inside[histories.items]
        own = histories.keep(here).matrix(self.n_items, decay=decay)
        if away == 0.0 or here.all():
            return own
        others = histories.keep(~here).matrix(self.n_items, decay=decay)
        return sparse.csr_array(own + others * np.float32(away))


class ItemToItem(Method):
    """A method that scores ``profile @ weights``, with ``weights`` a sparse items × target matrix (N, T)."""

    weights: sparse.csr_array

    def score(self, histories: Histories) -> Floats:
        """Return ``profile @ weights``, (B, T) float32."""
        return np.asarray((self.profile(histories) @ self.weights).toarray(), dtype=np.float32)

    def state(self) -> State:
        """Return the weights as CSR arrays."""
        return {"data": self.weights.data, "indices": self.weights.indices, "indptr": self.weights.indptr}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take back the weights."""
        parts = (state["data"], state["indices"], state["indptr"])
        self.weights = sparse.csr_array(parts, shape=(self.n_items, self.target.size))

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """New items have no neighbours yet."""
        known = self.weights
        indptr = appended(known.indptr, np.full(self.n_items - known.shape[0], known.indptr[-1], known.indptr.dtype))
        self.weights = sparse.csr_array((known.data, known.indices, indptr), shape=(self.n_items, target.size))


def grown(array: Floats, rows: int, fill: float = 0.0) -> Floats:
    """Return ``array`` with ``rows`` rows, the new ones filled with ``fill``."""
    new = np.full((rows - array.shape[0], *array.shape[1:]), fill, array.dtype)
    return appended(array, new)


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
