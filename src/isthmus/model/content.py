"""Methods that read: items whose text is like the texts of the history. They score new items."""

from __future__ import annotations

from typing import ClassVar, Final, cast

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.encode.base import unit
from isthmus.encode.whiten import Whitening
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Features, Method, Settings, State, TrainingData
from isthmus.room import appended
from isthmus.types import Floats, Indices

#: How much an event of another domain counts beside one of the target's.
AWAY: Final = (1.0, 0.3, 0.1)


class TfidfContent(Method):
    """Cosine of TF-IDF texts, summed over the history with decay; an item does not speak for itself."""

    name = "tfidf"
    defaults: ClassVar[Settings] = {"decay": 0.7, "away": 1.0, "sources": True}
    grid: ClassVar = {"away": AWAY, "sources": (True, False), "decay": (0.7, 0.5, 0.9, 1.0)}
    reading = ("decay", "away", "sources")
    inductive = True
    text: sparse.csr_array
    itself: Floats
    _by_feature: sparse.csr_array | None = None

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        if data.features.text is None:
            raise InputError(f"the method {self.name} needs item texts")
        self._take(data.features.text)

    def _read(self, text: sparse.csr_array) -> sparse.csr_array:
        """Return the texts (N, F) as this method reads them."""
        return text

    def _joined(self, text: sparse.csr_array, fresh: sparse.csr_array) -> sparse.csr_array:  # noqa: ARG002
        """Return all texts as this method reads them, where it read those before and the ``fresh`` ones."""
        return text

    def _take(self, text: sparse.csr_array, before: int = 0) -> None:
        """Keep the texts, the first ``before`` of which are known."""
        fresh = self._read(sparse.csr_array(text[before:]) if before else text)
        self.text = self._joined(text, fresh) if before else fresh
        squares = np.asarray(fresh.multiply(fresh).sum(axis=1), dtype=np.float32).ravel()
        self.itself = appended(self.itself, squares) if before else squares
        self._by_feature = None

    def score(self, histories: Histories) -> Floats:
        """Return the summed cosine of each target item to the history, (B, T)."""
        profile = self.profile(histories)
        if self._by_feature is None:  # made when first needed: taking in an item does not wait for it
            self._by_feature = sparse.csr_array(self.text[self.target].T)
        scores = ((profile @ self.text) @ self._by_feature).toarray()
        return without_self(scores, profile, self.target, self.itself)

    def state(self) -> State:
        """Return nothing: the features say it all."""
        return {}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take the features."""
        if features.text is None:
            raise ArtefactError("the model lacks its item texts")
        self._take(features.text)

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Take the features of old and new items."""
        if features.text is None:
            raise ArtefactError("the model lacks its item texts")
        self._take(features.text, before=self.itself.size)


class TextContent(Method):
    """Cosine of language-model vectors after whitening, summed over the history with decay.

    Whitening undoes the narrow cone that such vectors lie in (see :mod:`isthmus.encode.whiten`); ``shrink`` from 0
    (fully) to 1 (only centred).
    """

    name = "text"
    defaults: ClassVar[Settings] = {"decay": 0.7, "away": 1.0, "sources": True, "shrink": 0.0}
    grid: ClassVar = {"away": AWAY, "sources": (True, False), "shrink": (0.0, 0.1), "decay": (0.7, 0.5, 0.9, 1.0)}
    reading = ("decay", "away", "sources")
    inductive = True

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        if data.features.vectors is None:
            raise InputError("the method text needs item vectors", fix="pip install 'isthmus[text]'")
        self.whitening = Whitening.fit(data.features.vectors, shrink=self.number("shrink"))
        self.vectors = unit(self.whitening.transform(data.features.vectors))

    def score(self, histories: Histories) -> Floats:
        """Return the summed cosine of each target item to the history, (B, T)."""
        profile = self.profile(histories)
        scores = self.place(histories) @ self.vectors[self.target].T
        return without_self(scores, profile, self.target, (self.vectors**2).sum(axis=1))

    def place(self, histories: Histories) -> Floats:
        """Return the sum of the vectors of each history, (B, D)."""
        return np.asarray(self.profile(histories) @ self.vectors, dtype=np.float32)

    def state(self) -> State:
        """Return the whitening."""
        return {"mean": self.whitening.mean, "directions": self.whitening.directions}

    def restore(self, state: State, features: Features) -> None:
        """Take back the whitening and apply it to the vectors."""
        if features.vectors is None:
            raise ArtefactError("the model lacks its item vectors")
        self.whitening = Whitening(state["mean"].astype(np.float32), state["directions"].astype(np.float32))
        self.vectors = unit(self.whitening.transform(features.vectors))

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Whiten the vectors of new items as those of the old."""
        if features.vectors is None:
            raise ArtefactError("the model lacks its item vectors")
        fresh = unit(self.whitening.transform(features.vectors[len(self.vectors) :]))
        self.vectors = appended(self.vectors, fresh)


def without_self(scores: Floats, profile: sparse.csr_array, target: Indices, itself: Floats) -> Floats:
    """Return ``scores`` less what each item of a history gives to itself: its weight times ``itself`` (N,)."""
    own = cast("sparse.csr_array", profile[:, target]).tocoo()
    scores = np.asarray(scores, dtype=np.float32)
    scores[own.row, own.col] -= own.data * itself[target[own.col]]
    return scores
