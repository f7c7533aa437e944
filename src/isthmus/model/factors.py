"""Matrix factorisations and the factorisation machine, through kept libraries (implicit, LightFM).

The libraries learn; what they learned of the items is kept here, and every person, old or new, is placed among
the items by the events of the history.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType
from typing import ClassVar, cast

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Features, Method, Settings, State, TrainingData, grown
from isthmus.types import Floats, Indices, Ints


def _one_blas_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread: implicit brings its own."""
    return cast("AbstractContextManager[object]", _library("threadpoolctl", "methods").threadpool_limits(1, "blas"))


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
    _gram: tuple[Floats, Floats] | None = None

    def _fit(self, data: TrainingData, seed: int) -> None:
        als = cast("Callable[..., _Fitted]", _library("implicit.cpu.als", "methods").AlternatingLeastSquares)
        matrix = data.learn_from(bool(self.settings["sources"])).matrix(data.n_items)
        confidence = sparse.csr_matrix(matrix)
        confidence.data = 1 + self.number("alpha") * confidence.data
        with _one_blas_thread():
            model = als(
                factors=int(self.number("dim")),
                regularization=self.number("l2"),
                iterations=int(self.number("iterations")),
                random_state=seed,
            )
            model.fit(confidence, show_progress=False)
        met = np.asarray(matrix.sum(axis=0)).ravel() > 0
        self.factors = np.where(met[:, None], model.item_factors, 0).astype(np.float32)

    def score(self, histories: Histories) -> Floats:
        """Return the factor scores of the target items, (B, T); 0 for an empty history."""
        return np.asarray(self.place(histories) @ self.factors[self.target].T, dtype=np.float32)

    def place(self, histories: Histories) -> Floats:
        """Return the factors of each history, (B, D)."""
        if self._gram is None or self._gram[0] is not self.factors:
            self._gram = self.factors, self.factors.T @ self.factors
        alpha, l2 = self.number("alpha"), self.number("l2")
        return fold_in(self.profile(histories), self.factors, alpha=alpha, l2=l2, gram=self._gram[1])

    def state(self) -> State:
        """Return the item factors."""
        return {"factors": self.factors}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take back the item factors."""
        self.factors = state["factors"].astype(np.float32)

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """New items have no factors yet."""
        self.factors = grown(self.factors, self.n_items)


def fold_in(
    profile: sparse.csr_array,
    factors: Floats,
    *,
    alpha: float,
    l2: float,
    steps: int = 12,
    gram: Floats | None = None,
) -> Floats:
    """Return the factors of the persons whose histories are ``profile``, for given item factors.

    Solves the normal equations of :class:`Als` for all persons at once by conjugate gradients, as Takács, Pilászy &
    Tikk (RecSys 2011) do in training: no (D, D) matrix a person is formed.

    Parameters
    ----------
    profile : csr array (B, N)
        Weight of each item in each history.
    factors : float32 array (N, D)
        Item factors.
    alpha, l2 : float
        Confidence of a weight, and regularisation.
    steps : int
        Steps of the conjugate gradients.
    gram : float32 array (D, D), optional
        ``factors.T @ factors``, where it is at hand.

    Returns
    -------
    float32 array (B, D)
        Zeros for an empty history.
    """
    base = (factors.T @ factors if gram is None else gram) + np.float32(l2) * np.eye(factors.shape[1], dtype=np.float32)
    rows = np.repeat(np.arange(profile.shape[0]), np.diff(profile.indptr))
    extra, near = np.float32(alpha) * profile.data, factors[profile.indices]

    def spread(values: Floats) -> Floats:
        """Return the sum of each person's item factors times ``values`` (E,)."""
        weighted = sparse.csr_array((values, profile.indices, profile.indptr), shape=profile.shape)
        return np.asarray(weighted @ factors, dtype=np.float32)

    def apply(x: Floats) -> Floats:
        return np.asarray(x @ base + spread(extra * np.einsum("ed,ed->e", near, x[rows])), dtype=np.float32)

    residual = spread(1 + extra)
    x, direction = np.zeros_like(residual), residual.copy()
    size = np.einsum("bd,bd->b", residual, residual)
    for _ in range(steps):
        image = apply(direction)
        step = size / np.maximum(np.einsum("bd,bd->b", direction, image), 1e-20)
        x += step[:, None] * direction
        residual -= step[:, None] * image
        smaller = np.einsum("bd,bd->b", residual, residual)
        direction = residual + (smaller / np.maximum(size, 1e-20))[:, None] * direction
        size = smaller
    return x


class InnerProduct(Method):
    """A method that scores ``mean of inputs over the history @ outputs.T + bias``."""

    inputs: Floats
    outputs: Floats
    bias: Floats

    def score(self, histories: Histories) -> Floats:
        """Return the inner product of history and item plus the item's bias, (B, T)."""
        return np.asarray(self.place(histories) @ self.outputs.T + self.bias, dtype=np.float32)

    def place(self, histories: Histories) -> Floats:
        """Return the vector of each history, (B, D): the mean of its items."""
        return np.asarray(_unit(self.profile(histories)) @ self.inputs, dtype=np.float32)

    def state(self) -> State:
        """Return the embeddings: inputs (N, D), outputs (T, D), bias (T,)."""
        return {"inputs": self.inputs, "outputs": self.outputs, "bias": self.bias}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take back the embeddings."""
        self.inputs = state["inputs"].astype(np.float32)
        self.outputs, self.bias = state["outputs"].astype(np.float32), state["bias"].astype(np.float32)

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """New items have no embedding yet and the least popular item's bias."""
        self.inputs, self.outputs = grown(self.inputs, self.n_items), grown(self.outputs, target.size)
        self.bias = grown(self.bias, target.size, float(self.bias.min(initial=0)))


class Bpr(InnerProduct):
    """Matrix factorisation for pairwise ranking, BPR-MF (Rendle et al., UAI 2009), through ``implicit``.

    A history is placed by the mean of its items' factors, mapped to the persons' factors by ridge regression over the
    training persons.
    """

    name = "bpr"
    defaults: ClassVar[Settings] = {"dim": 64, "iterations": 60, "decay": 0.9, "sources": True}
    grid: ClassVar = {"sources": (True, False)}
    reading = ()

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
    reading = ()
    inductive = True
    chosen: Ints
    words: Floats
    word_bias: Floats

    def _fit(self, data: TrainingData, seed: int) -> None:
        if data.features.text is None:
            raise InputError("the method fm needs item texts")
        lightfm = cast("Callable[..., _LightFm]", _library("lightfm", "methods").LightFM)
        histories = data.learn_from(bool(self.settings["sources"]))
        newest = histories.age < np.maximum(histories.lengths // 3, 1)[histories.rows]
        given = self.profile(histories.keep(~newest))
        wanted = histories.keep(newest)
        self.chosen = self._frequent(data.features.text)
        said = data.features.text[:, self.chosen]
        items = sparse.hstack([sparse.eye_array(data.n_items), said]).tocsr().astype(np.float32)
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
        self.words, self.word_bias = learned[data.n_items :], bias[data.n_items :]

    def _frequent(self, text: sparse.csr_array) -> Ints:
        """Return the columns of the most frequent words, rising."""
        frequency = np.bincount(text.indices, minlength=text.shape[1])
        return np.sort(np.argsort(-frequency, kind="stable")[: int(self.number("words"))])

    def state(self) -> State:
        """Return the embeddings of items and of words: chosen (W,), words (W, D), word_bias (W,)."""
        return {**super().state(), "chosen": self.chosen, "words": self.words, "word_bias": self.word_bias}

    def restore(self, state: State, features: Features) -> None:
        """Take back the embeddings."""
        super().restore(state, features)
        self.chosen = state["chosen"].astype(np.int64)
        self.words, self.word_bias = state["words"].astype(np.float32), state["word_bias"].astype(np.float32)

    def extend(self, features: Features, target: Indices) -> None:
        """Place new items by their words; one without a known word stays where the parent puts it."""
        old = self.bias.size
        super().extend(features, target)
        if features.text is None:
            return
        said = sparse.csr_array(features.text[target[old:]][:, self.chosen])
        self.outputs[old:] = said @ self.words
        self.bias[old:] = np.where(np.diff(said.indptr) > 0, said @ self.word_bias, self.bias[old:])


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
