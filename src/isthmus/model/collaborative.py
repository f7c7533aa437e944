"""Methods that learn from who met what: co-occurrence neighbours and EASE."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import linalg, sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import DAY, Doubles, ItemToItem, Settings, TrainingData, strongest
from isthmus.types import Floats, Indices

#: Weights kept for each item of a history: dropping the rest changes no list that we measured.
KEPT = 400
#: Items that take part while settings are chosen.
QUICK = 4000
#: When not all items fit in, one of the target domain goes before one of a source that is met this often more.
OWN_FIRST = 4.0


class CoOccurrence(ItemToItem):
    """Items met close together by the same person, sequence-aware item kNN.

    The weight of a pair is the sum over persons of ``near ** (distance - 1)`` for events at most ``window`` apart,
    divided by ``count_i ** norm * count_j ** fame`` for ``i`` in the history and ``j`` in the list: cosine where both
    are 0.5; a smaller ``fame`` prefers popular items (Deshpande & Karypis, "Item-based top-N recommendation
    algorithms", TOIS 2004, give both ends). With ``half_life`` above 0 pairs count half after so many days.
    """

    name = "knn"
    defaults: ClassVar[Settings] = {
        "window": 10,
        "near": 0.8,
        "norm": 0.3,
        "fame": 0.3,
        "shrink": 1.0,
        "half_life": 0.0,
        "decay": 0.7,
        "sources": True,
    }
    grid: ClassVar = {
        "sources": (True, False),
        "fame": (0.3, 0.5, 0.1),
        "half_life": (0.0, 60.0),
        "norm": (0.3, 0.5),
        "decay": (0.7, 0.5, 0.9, 1.0),
    }
    dated = ("half_life",)

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        histories = data.learn_from(bool(self.settings["sources"]))
        age = (data.now - histories.ts) / DAY
        half_life = self.number("half_life")
        worth = 0.5 ** (age / half_life) if half_life else np.ones(age.size)
        pairs = self._pairs(histories, worth, data.n_items)
        counts = np.bincount(histories.items, weights=worth, minlength=data.n_items) + self.number("shrink")
        given, listed = counts ** -self.number("norm"), counts[data.target] ** -self.number("fame")
        scaled = sparse.diags_array(given) @ pairs[:, data.target] @ sparse.diags_array(listed)
        self.weights = sparse.csr_array(scaled.astype(np.float32))

    def _pairs(self, histories: Histories, worth: Doubles, n_items: int) -> sparse.csr_array:
        """Return the symmetric co-occurrence matrix (N, N); one pass a distance, over all events at once."""
        total = sparse.csr_array((n_items, n_items), dtype=np.float64)
        rows, items = histories.rows, histories.items
        for distance in range(1, int(self.number("window")) + 1):
            pair = (rows[distance:] == rows[:-distance]) & (items[distance:] != items[:-distance])
            if not pair.any():
                continue
            first, second = items[:-distance][pair], items[distance:][pair]
            value = worth[distance:][pair] * self.number("near") ** (distance - 1)
            total = total + sparse.csr_array((value, (first, second)), shape=total.shape)
        return total + total.T


class Ease(ItemToItem):
    """Closed-form linear autoencoder: EASE (Steck, WWW 2019), over several domains jointly and with item text.

    ``B = I - P diag(P)^-1`` with ``P = (X'X + s S + l2 I)^-1``. ``X`` holds the persons' events; ``S`` is the
    similarity of the items' texts, so that a text counts like ``text`` more persons: the collective EASE of Jeunen,
    Van Balen & Goethals (RecSys 2020) with TF-IDF as side information. With ``text`` above 0 items without any event
    get weights too. The ``max_items`` most popular items take part.
    """

    name = "ease"
    defaults: ClassVar[Settings] = {
        "l2": 100.0,
        "text": 0.0,
        "source_weight": 1.0,
        "decay": 0.7,
        "sources": True,
        "max_items": 15000,
    }
    grid: ClassVar = {
        "sources": (True, False),
        "text": (0.0, 30.0),
        "l2": (100.0, 500.0),
        "decay": (0.7, 0.5, 0.9, 1.0),
    }

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        histories = data.learn_from(bool(self.settings["sources"]))
        chosen = self._choose(histories, data)
        matrix = histories.matrix(data.n_items)[:, chosen]
        matrix.data[:] = 1.0
        if not data.in_target[chosen].all():
            worth = np.where(data.in_target[chosen], 1.0, self.number("source_weight")).astype(np.float32)
            matrix = sparse.csr_array(matrix @ sparse.diags_array(worth))
        gram = np.asarray((matrix.T @ matrix).toarray(), dtype=np.float32)
        if self.number("text") and data.features.text is not None:
            text = data.features.text[chosen]
            gram += np.float32(self.number("text")) * np.asarray((text @ text.T).toarray(), dtype=np.float32)
        weights = _ease(gram, self.number("l2"))
        columns = np.flatnonzero(data.in_target[chosen])
        kept = strongest(np.ascontiguousarray(weights[:, columns]), KEPT)
        self.weights = _embed(
            kept, chosen, np.searchsorted(data.target, chosen[columns]), (data.n_items, data.target.size)
        )

    def quick(self, data: TrainingData) -> Settings:
        """Return fewer items for a large corpus: time grows with their third power."""
        return {"max_items": QUICK} if data.n_items > QUICK else {}

    def _choose(self, histories: Histories, data: TrainingData) -> Indices:
        """Return the items that take part, rising: with events (or any text if it counts), the most popular first."""
        counts = np.bincount(histories.items, minlength=data.n_items).astype(np.float64)
        if self.number("text") and data.features.text is not None:
            allowed = data.in_target if not self.settings["sources"] else np.ones(data.n_items, dtype=bool)
            counts += 0.5 * (allowed & (np.diff(data.features.text.indptr) > 0))
        present = np.flatnonzero(counts > 0)
        most = int(self.number("max_items"))
        if present.size > most:
            own = data.in_target[present]
            place = np.argsort(np.argsort(-counts[present] * np.where(own, OWN_FIRST, 1.0), kind="stable"))
            present = present[place < most]
        return present.astype(np.int32)


def _ease(gram: Floats, l2: float) -> Floats:
    """Return the EASE weights for a Gram matrix (n, n), with a zero diagonal; overwrites ``gram``."""
    gram[np.diag_indices_from(gram)] += np.float32(l2)
    factor, failed = linalg.lapack.spotrf(gram.T, lower=True, overwrite_a=True)
    if failed:
        raise InputError(f"EASE cannot invert its matrix at l2 = {l2}", fix="take a larger l2")
    inverse, _ = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    full = inverse + inverse.T  # only the lower triangle was filled
    full[np.diag_indices_from(full)] /= 2
    full /= -np.diag(full)
    full[np.diag_indices_from(full)] = 0.0
    return np.ascontiguousarray(full, dtype=np.float32)


def _embed(
    kept: sparse.csr_array, rows: Indices, columns: np.ndarray[tuple[int], np.dtype[np.int64]], shape: tuple[int, int]
) -> sparse.csr_array:
    """Return ``kept`` as a part of a larger matrix, its rows and columns at the given places."""
    coo = kept.tocoo()
    return sparse.csr_array((coo.data, (rows[coo.row], columns[coo.col])), shape=shape)
