"""Methods that read: items whose text is like the texts of the history. They score new items."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Method, Settings, State, TrainingData
from isthmus.types import Bools, Floats, Indices


class TfidfContent(Method):
    """Cosine of TF-IDF texts, summed over the history with decay; an item does not speak for itself."""

    name = "tfidf"
    defaults: ClassVar[Settings] = {"decay": 0.8, "sources": True}
    grid: ClassVar = {"sources": (True, False), "decay": (0.8, 0.95)}
    inductive = True

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        if data.text is None:
            raise InputError("the method tfidf needs item texts")
        self.text = data.text

    def score(self, histories: Histories) -> Floats:
        """Return the summed cosine of each target item to the history, (B, T)."""
        profile = self.profile(histories)
        scores = ((profile @ self.text) @ self.text[self.target].T).toarray()
        return without_self(scores, profile, self.target, np.diff(self.text.indptr) > 0)

    def state(self) -> State:
        """Return the features."""
        return {"data": self.text.data, "indices": self.text.indices, "indptr": self.text.indptr}

    def restore(self, state: State) -> None:
        """Take back the features."""
        width = int(state["indices"].max()) + 1 if state["indices"].size else 1
        parts = (state["data"], state["indices"], state["indptr"])
        self.text = sparse.csr_array(parts, shape=(self.n_items, width))


class TextContent(Method):
    """Cosine of language-model vectors after whitening, summed over the history with decay.

    Whitening (Su et al., "Whitening Sentence Representations", 2021; as the parametric one of UniSRec, KDD 2022)
    undoes the narrow cone that such vectors lie in. ``whiten`` from 0 (as they are) to 1 (all directions equal):
    directions are divided by ``standard deviation ** whiten``.
    """

    name = "text"
    defaults: ClassVar[Settings] = {"decay": 0.8, "sources": True, "whiten": 1.0}
    grid: ClassVar = {"sources": (True, False), "whiten": (1.0, 0.5), "decay": (0.8, 0.95)}
    inductive = True

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        if data.vectors is None:
            raise InputError("the method text needs item vectors", fix="run isthmus encode, or install isthmus[text]")
        self.vectors = whitened(data.vectors, self.number("whiten"))

    def score(self, histories: Histories) -> Floats:
        """Return the summed cosine of each target item to the history, (B, T)."""
        profile = self.profile(histories)
        scores = np.asarray(profile @ self.vectors) @ self.vectors[self.target].T
        return without_self(scores, profile, self.target, np.abs(self.vectors).sum(axis=1) > 0)

    def state(self) -> State:
        """Return the whitened vectors."""
        return {"vectors": self.vectors}

    def restore(self, state: State) -> None:
        """Take back the whitened vectors."""
        self.vectors = state["vectors"].astype(np.float32)


def whitened(vectors: Floats, power: float) -> Floats:
    """Return ``vectors`` centred, whitened by ``power`` and of length 1; rows of zeros (no text) stay zero.

    Parameters
    ----------
    vectors : float32 array (N, D)
        One row an item.
    power : float
        0 only centres, 1 gives the identity as covariance.
    """
    there = np.abs(vectors).sum(axis=1) > 0
    known = vectors[there].astype(np.float64)
    if known.shape[0] < 2:
        return vectors
    known -= known.mean(axis=0)
    values, basis = np.linalg.eigh(known.T @ known / known.shape[0])
    floor = max(float(values.max()), 1e-12) * 1e-4
    known = known @ (basis * np.maximum(values, floor) ** (-power / 2))
    known /= np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-12)
    result = np.zeros_like(vectors)
    result[there] = known
    return result


def without_self(scores: Floats, profile: sparse.csr_array, target: Indices, has_text: Bools) -> Floats:
    """Return ``scores`` less what each item of a history gives to itself (its weight: texts have length 1)."""
    own = cast("sparse.csr_array", profile[:, target]).tocoo()
    scores = np.asarray(scores, dtype=np.float32)
    scores[own.row, own.col] -= own.data * has_text[target[own.col]]
    return scores
