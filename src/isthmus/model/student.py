"""Students: small methods that learned to say what a larger model says, and cost a fraction of it to serve."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Final

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.encode.base import unit
from isthmus.errors import InputError
from isthmus.model.base import Features, Method, Settings, State, TrainingData
from isthmus.split.cohorts import FEW
from isthmus.types import Bools, Floats, Indices, Ints

#: A new item speaks through this many known items of the nearest texts.
NEIGHBOURS: Final = 10
#: Items compared by text at a time.
_BLOCK: Final = 256


class Student(Method):
    """A method that learns from a model instead of events: :func:`isthmus.transfer.distil.distil_target` teaches it.

    The score of a history is one row of ``bias`` (C, T), by the kind of person in
    :data:`isthmus.model.blend.COHORTS`, plus what its items add, each weighted by its share of the history's length.
    A new item is scored as the known items with the nearest texts are.
    """

    defaults: ClassVar[Settings] = {"decay": 0.7}
    grid: ClassVar = {}
    reading = ()
    inductive = True
    bias: Floats

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        raise InputError(f"the method {self.name} learns from a model, not from events", fix="use isthmus distil")

    def read(self, histories: Histories) -> sparse.csr_array:
        """Return the profile of each history scaled to length 1, persons × items (B, N) float32."""
        profile = self.profile(histories)
        rows = np.repeat(np.arange(profile.shape[0]), np.diff(profile.indptr))
        length = np.sqrt(np.bincount(rows, profile.data.astype(np.float64) ** 2, minlength=profile.shape[0]))
        parts = ((profile.data / length[rows]).astype(np.float32), *_narrow(profile))
        return sparse.csr_array(parts, shape=profile.shape)

    def cohorts(self, histories: Histories) -> Ints:
        """Return the place of each person's kind in :data:`isthmus.model.blend.COHORTS`, (B,)."""
        own = np.bincount(histories.rows[self._in_target[histories.items]], minlength=len(histories))
        kinds: Ints = (own > 0).astype(np.int64) + (own > FEW)
        return kinds

    @cached_property
    def _in_target(self) -> Bools:
        mask = np.zeros(self.n_items, dtype=bool)
        mask[self.target] = True
        return mask

    def extended(self, features: Features, target: Indices, n_items: int) -> Method:
        """Return a copy that knows a longer corpus: ``features`` of all items, and the longer list of targets."""
        longer = super().extended(features, target, n_items)
        vars(longer).pop("_in_target", None)
        return longer

    def _like(self, features: Features, target: Indices) -> tuple[sparse.csr_array, sparse.csr_array]:
        """Return how new items are made of known ones: rows of weights (new, N), and of columns (new targets, T)."""
        known, old = self._known, self.bias.shape[1]
        new = np.arange(known, self.n_items)
        rows = nearest_texts(features, new, np.arange(known))
        columns = nearest_texts(features, target[old:].astype(np.int64), target[:old].astype(np.int64))
        return rows, columns

    @property
    def _known(self) -> int:
        """Items that have weights."""
        raise NotImplementedError

    def _grow_bias(self, columns: sparse.csr_array) -> None:
        """Give new targets the bias of the items they are made of; the lowest to one without a text."""
        grown = np.asarray((columns @ self.bias.T).T, dtype=np.float32)
        silent = np.diff(columns.indptr) == 0
        grown[:, silent] = self.bias.min(axis=1, initial=0.0)[:, None]
        self.bias = np.concatenate([self.bias, grown], axis=1)


class ListStudent(Student):
    """Weights from item to item (N, T), the ``kept`` largest of each row: serving is one sparse product."""

    name = "student-lists"
    defaults: ClassVar[Settings] = {"decay": 0.7, "kept": 200}
    weights: sparse.csr_array

    def score(self, histories: Histories) -> Floats:
        """Return the bias of each person's kind plus ``profile @ weights``, (B, T) float32."""
        scores: Floats = (self.read(histories) @ self.weights).toarray().astype(np.float32, copy=False)
        scores += self.bias[self.cohorts(histories)]
        return scores

    def state(self) -> State:
        """Return the weights as CSR arrays, and the bias (C, T)."""
        said = {"data": self.weights.data, "indices": self.weights.indices, "indptr": self.weights.indptr}
        return {**said, "bias": self.bias}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take back the weights and the bias."""
        parts = (state["data"].astype(np.float32), state["indices"], state["indptr"])
        self.weights = sparse.csr_array(parts, shape=(self.n_items, self.target.size))
        self.bias = state["bias"].astype(np.float32)

    @property
    def _known(self) -> int:
        return int(self.weights.shape[0])

    def extend(self, features: Features, target: Indices) -> None:
        """Make new items, as target and in histories, of the known items with the nearest texts."""
        rows, columns = self._like(features, target)
        wider = sparse.hstack([self.weights, self.weights @ columns.T], format="csr")
        longer = sparse.vstack([wider, rows @ wider], format="csr")
        self.weights = sparse.csr_array(longer).astype(np.float32)
        self._grow_bias(columns)


class VectorStudent(Student):
    """Two vectors an item, one for where it was met (N, D) and one for where it is listed (T, D): a two-tower model."""

    name = "student-vectors"
    defaults: ClassVar[Settings] = {"decay": 0.7, "dim": 64}
    given: Floats
    listed: Floats

    def score(self, histories: Histories) -> Floats:
        """Return the bias of each person's kind plus ``(profile @ given) @ listed.T``, (B, T) float32."""
        persons = np.asarray(self.read(histories) @ self.given, dtype=np.float32)
        scores: Floats = persons @ self.listed.T
        scores += self.bias[self.cohorts(histories)]
        return scores

    def state(self) -> State:
        """Return the vectors and the bias (C, T)."""
        return {"given": self.given, "listed": self.listed, "bias": self.bias}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take back the vectors and the bias."""
        self.given, self.listed, self.bias = (state[name].astype(np.float32) for name in ("given", "listed", "bias"))

    @property
    def _known(self) -> int:
        return len(self.given)

    def extend(self, features: Features, target: Indices) -> None:
        """Make the vectors of new items of those of the known items with the nearest texts."""
        rows, columns = self._like(features, target)
        self.given = np.concatenate([self.given, np.asarray(rows @ self.given, dtype=np.float32)])
        self.listed = np.concatenate([self.listed, np.asarray(columns @ self.listed, dtype=np.float32)])
        self._grow_bias(columns)


#: Methods that :mod:`isthmus.transfer.distil` teaches, by name.
STUDENTS: Final[dict[str, type[Student]]] = {kind.name: kind for kind in (ListStudent, VectorStudent)}


def _narrow(matrix: sparse.csr_array) -> tuple[Indices, Indices]:
    """Return indices and indptr as int32: SciPy copies the weights for every product with wider ones."""
    return matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)


def nearest_texts(features: Features, new: Ints, known: Ints) -> sparse.csr_array:
    """Return what share of each known item a new one is made of, (len(new), len(known)) float32.

    The :data:`NEIGHBOURS` known items of largest cosine ``c`` above 0 take part with ``c / (1 - c)``, scaled to sum 1:
    where the same text is known, that item says it all. A row is empty without a text, or without one that is alike.

    Examples
    --------
    >>> text = sparse.csr_array(np.array([[1, 0], [0, 1], [1, 0], [0, 0]], np.float32))
    >>> nearest_texts(Features(text), np.array([2, 3]), np.array([0, 1])).toarray().round(3).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    parts = [sparse.csr_array((0, known.size), dtype=np.float32)]
    for start in range(0, new.size, _BLOCK):
        alike = _cosines(features, new[start : start + _BLOCK], known)
        kept = min(NEIGHBOURS, known.size)
        best = np.argpartition(-alike, kept - 1, axis=1)[:, :kept] if kept else np.zeros((len(alike), 0), np.int64)
        cosine = np.clip(np.take_along_axis(alike, best, axis=1), 0.0, 1.0 - 1e-6)
        weight = cosine / (1.0 - cosine)
        total = weight.sum(axis=1, keepdims=True)
        share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        rows, places = np.nonzero(share)
        block = (share[rows, places].astype(np.float32), (rows, best[rows, places]))
        parts.append(sparse.csr_array(block, shape=(len(alike), known.size)))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def _cosines(features: Features, new: Ints, known: Ints) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the cosine of the texts of new and known items: of their words, else of their vectors."""
    if features.text is not None:
        return np.asarray((features.text[new] @ features.text[known].T).toarray(), dtype=np.float64)
    if features.vectors is not None:
        vectors = unit(features.vectors)
        return np.asarray(vectors[new] @ vectors[known].T, dtype=np.float64)
    return np.zeros((new.size, known.size))
