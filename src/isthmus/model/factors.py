"""Matrix factorisations and the factorisation machine, through kept libraries (implicit, LightFM).

The libraries learn; what they learned of the items is kept here, and every person, old or new, is placed among
the items by the events of the history.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import ClassVar, cast

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Method, Settings, State, TrainingData
from isthmus.types import Floats

#: Persons folded in at once: bounds the (persons, D, D) normal equations to a few tens of megabytes.
BLOCK = 512
#: Only the newest events of a history are folded in.
NEWEST = 100


def _library(name: str, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{name.split('.')[0]} is not installed", fix=f"pip install 'isthmus[{extra}]'") from error


class Als(Method):
    """Weighted matrix factorisation by alternating least squares, through ``implicit``.

    A history is placed by ``x = (Y'Y + l2 I + sum_j (c_j - 1) y_j y_j')^-1 sum_j c_j y_j`` with
    ``c_j = 1 + alpha * w_j``: equation 4 of Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback
    Datasets", ICDM 2008.
    """

    name = "ials"
    defaults: ClassVar[Settings] = {
        "dim": 128,
        "l2": 0.05,
        "alpha": 10.0,
        "iterations": 15,
        "decay": 0.8,
        "sources": True,
    }
    grid: ClassVar = {"sources": (True, False), "alpha": (10.0, 40.0), "dim": (128, 64)}

    def _fit(self, data: TrainingData, seed: int) -> None:
        als = cast("Callable[..., _Fitted]", _library("implicit.cpu.als", "methods").AlternatingLeastSquares)
        matrix = data.learn_from(bool(self.settings["sources"])).matrix(data.n_items)
        model = als(
            factors=int(self.number("dim")),
            regularization=self.number("l2"),
            alpha=1.0,
            iterations=int(self.number("iterations")),
            random_state=seed,
            num_threads=1,
        )
        confidence = matrix.copy()
        confidence.data = 1 + self.number("alpha") * confidence.data
        model.fit(sparse.csr_matrix(confidence), show_progress=False)
        met = np.asarray(matrix.sum(axis=0)).ravel() > 0
        self.factors = np.where(met[:, None], model.item_factors, 0).astype(np.float32)

    def score(self, histories: Histories) -> Floats:
        """Return the factor scores of the target items, (B, T); 0 for an empty history."""
        profile = self.profile(histories.last(NEWEST))
        persons = [self._place(profile[start : start + BLOCK]) for start in range(0, len(histories), BLOCK)]
        placed = np.concatenate(persons) if persons else np.zeros((0, self.factors.shape[1]), np.float32)
        return np.asarray(placed @ self.factors[self.target].T, dtype=np.float32)

    def _place(self, profile: sparse.csr_array) -> Floats:
        """Return the person factors of one block of profiles, (B, D)."""
        rows, dim = profile.shape[0], self.factors.shape[1]
        base = self.factors.T @ self.factors + self.number("l2") * np.eye(dim, dtype=np.float32)
        extra = (self.number("alpha") * profile.data)[:, None]
        near = self.factors[profile.indices]
        normal = np.repeat(base[None], rows, axis=0)
        right = np.zeros((rows, dim), np.float32)
        busy = np.flatnonzero(np.diff(profile.indptr))
        if busy.size:
            starts = profile.indptr[:-1][busy]
            normal[busy] += np.add.reduceat((extra * near)[:, :, None] * near[:, None, :], starts, axis=0)
            right[busy] = np.add.reduceat((1 + extra) * near, starts, axis=0)
        return np.asarray(np.linalg.solve(normal, right[:, :, None])[:, :, 0], dtype=np.float32)

    def state(self) -> State:
        """Return the item factors."""
        return {"factors": self.factors}

    def restore(self, state: State) -> None:
        """Take back the item factors."""
        self.factors = state["factors"].astype(np.float32)


class InnerProduct(Method):
    """A method that scores ``mean of inputs over the history @ outputs.T + bias``."""

    inputs: Floats
    outputs: Floats
    bias: Floats

    def score(self, histories: Histories) -> Floats:
        """Return the inner product of history and item plus the item's bias, (B, T)."""
        persons = np.asarray(_unit(self.profile(histories)) @ self.inputs)
        return np.asarray(persons @ self.outputs.T + self.bias, dtype=np.float32)

    def state(self) -> State:
        """Return the embeddings: inputs (N, D), outputs (T, D), bias (T,)."""
        return {"inputs": self.inputs, "outputs": self.outputs, "bias": self.bias}

    def restore(self, state: State) -> None:
        """Take back the embeddings."""
        self.inputs = state["inputs"].astype(np.float32)
        self.outputs, self.bias = state["outputs"].astype(np.float32), state["bias"].astype(np.float32)


class Bpr(InnerProduct):
    """Matrix factorisation for pairwise ranking, BPR-MF (Rendle et al., UAI 2009), through ``implicit``.

    A history is placed by the mean of its items' factors, mapped to the persons' factors by ridge regression over the
    training persons.
    """

    name = "bpr"
    defaults: ClassVar[Settings] = {"dim": 64, "iterations": 60, "decay": 0.9, "sources": True}
    grid: ClassVar = {"sources": (True, False)}

    def _fit(self, data: TrainingData, seed: int) -> None:
        bpr = cast("Callable[..., _Fitted]", _library("implicit.cpu.bpr", "methods").BayesianPersonalizedRanking)
        histories = data.learn_from(bool(self.settings["sources"]))
        model = bpr(
            factors=int(self.number("dim")),
            learning_rate=0.05,
            regularization=0.01,
            iterations=int(self.number("iterations")),
            random_state=seed,
            num_threads=1,
        )
        model.fit(sparse.csr_matrix(histories.matrix(data.n_items)), show_progress=False)
        met = data.popularity > 0
        items = np.where(met[:, None], model.item_factors[:, :-1], 0).astype(np.float32)
        means = np.asarray(_unit(self.profile(histories)) @ items, dtype=np.float64)
        ridge = means.T @ means + 1e-3 * len(histories) * np.eye(items.shape[1])
        self.inputs = (items @ np.linalg.solve(ridge, means.T @ model.user_factors[:, :-1])).astype(np.float32)
        bias = model.item_factors[:, -1]
        self.outputs = items[data.target]
        self.bias = np.where(met, bias, bias[met].min(initial=0))[data.target].astype(np.float32)


class _Fitted:
    """What we use of a model of ``implicit``."""

    item_factors: Floats
    user_factors: Floats

    def fit(self, matrix: sparse.csr_matrix, show_progress: bool) -> None:
        """Learn."""


class HybridFm(InnerProduct):
    """Factorisation machine over ids and texts: LightFM (Kula, CBRecSys 2015) with the WARP loss.

    A person is the sum of the items of the history, an item the sum of its id and its TF-IDF words, so new persons
    and new items have a place too. It learns to rank the newest third of each history by the rest.
    """

    name = "fm"
    defaults: ClassVar[Settings] = {"dim": 32, "epochs": 10, "words": 3000, "decay": 0.9, "sources": True}
    grid: ClassVar = {"sources": (True, False), "decay": (0.9, 0.8)}
    inductive = True

    def _fit(self, data: TrainingData, seed: int) -> None:
        if data.text is None:
            raise InputError("the method fm needs item texts")
        lightfm = cast("Callable[..., _LightFm]", _library("lightfm", "methods").LightFM)
        histories = data.learn_from(bool(self.settings["sources"]))
        newest = histories.age < np.maximum(histories.lengths // 3, 1)[histories.rows]
        given = self.profile(histories.keep(~newest))
        wanted = histories.keep(newest)
        items = sparse.hstack([sparse.eye_array(data.n_items), self._words(data.text)]).tocsr().astype(np.float32)
        model = lightfm(no_components=int(self.number("dim")), loss="warp", random_state=seed)
        positive = _narrow(sparse.csr_matrix((np.ones(wanted.items.size), (wanted.rows, wanted.items)), given.shape))
        epochs = int(self.number("epochs"))
        model.fit(positive.tocoo(), _unit(given), _narrow(sparse.csr_matrix(items)), epochs=epochs, num_threads=1)
        met = np.concatenate([data.popularity > 0, np.ones(items.shape[1] - data.n_items, dtype=bool)])
        self.inputs = np.where(met[: data.n_items, None], model.user_embeddings, 0).astype(np.float32)
        learned = np.where(met[:, None], model.item_embeddings, 0).astype(np.float32)
        bias = np.where(met, model.item_biases, 0).astype(np.float32)
        self.outputs = np.asarray((items @ learned)[self.target], dtype=np.float32)
        self.bias = np.asarray((items @ bias)[self.target], dtype=np.float32)

    def _words(self, text: sparse.csr_array) -> sparse.csr_array:
        """Return the most frequent words only."""
        frequency = np.bincount(text.indices, minlength=text.shape[1])
        chosen = np.sort(np.argsort(-frequency, kind="stable")[: int(self.number("words"))])
        return text[:, chosen]


class _LightFm:
    """What we use of LightFM."""

    user_embeddings: Floats
    item_embeddings: Floats
    item_biases: Floats

    def fit(
        self, interactions: object, user_features: object, item_features: object, epochs: int, num_threads: int
    ) -> None:
        """Learn."""


def _unit(profile: sparse.csr_array) -> sparse.csr_matrix:
    """Return ``profile`` with rows that sum to 1 (or are empty)."""
    total = np.asarray(profile.sum(axis=1)).ravel()
    return _narrow(sparse.csr_matrix(sparse.diags_array(1 / np.maximum(total, 1e-12)) @ profile))


def _narrow(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return ``matrix`` in float32 with 32-bit indices, the only ones LightFM reads."""
    parts = (matrix.data.astype(np.float32), matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return sparse.csr_matrix(parts, shape=matrix.shape)
