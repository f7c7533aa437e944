"""A content method that reads topics: words that people's histories hold together, in whatever language or domain."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, svds

from isthmus.encode.base import unit
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Doubles, Features, Settings, State, TrainingData
from isthmus.model.content import AWAY, TextContent
from isthmus.model.terms import learn
from isthmus.rng import generator
from isthmus.room import appended
from isthmus.types import Floats, Indices

#: Persons whose histories are looked at, drawn by chance from more.
PERSONS: Final = 20_000
#: So many times as many rows or columns as directions are handled at once, as a dense table; more one by one.
SMALL: Final = 4


class TopicContent(TextContent):
    """Cosine of topics, summed over the history with decay.

    The words of a person's history, TF-IDF times the weight learned by :func:`isthmus.model.terms.learn`, make a row of
    a table; the average person is taken away and rows get unit length. The ``dim`` strongest directions of that table
    (latent semantic analysis; Deerwester et al. 1990, of people in the place of documents) place an item by its words.
    So items are alike that share no word, if people who meet the words of one meet those of the other.
    """

    name = "topics"
    defaults: ClassVar[Settings] = {"decay": 0.7, "away": 1.0, "sources": True, "dim": 32}
    grid: ClassVar = {"away": AWAY, "sources": (True, False), "decay": (0.7, 0.5, 0.9, 1.0)}

    def _fit(self, data: TrainingData, seed: int) -> None:
        text = data.features.text
        if text is None:
            raise InputError("the method topics needs item texts")
        root = np.sqrt(learn(data, seed))
        histories = data.histories.take(np.flatnonzero(data.histories.lengths > 1))
        if len(histories) > PERSONS:
            drawn = generator(seed, "topics").permutation(len(histories))[:PERSONS]
            histories = histories.take(np.sort(drawn))
        met = histories.matrix(data.n_items, decay=1.0)
        met.data[:] = 1.0
        words = sparse.csr_array((met @ text) @ sparse.diags_array(root))
        self.space = np.asarray(root[:, None] * directions(words, int(self.number("dim"))), dtype=np.float32)
        self.vectors = self._placed(text)

    def _placed(self, text: sparse.csr_array) -> Floats:
        return unit(np.asarray(text @ self.space, dtype=np.float32))

    def state(self) -> State:
        """Return where each word lies."""
        return {"space": self.space}

    def restore(self, state: State, features: Features) -> None:
        """Take back where words lie, and place the items."""
        if features.text is None:
            raise ArtefactError("the model lacks its item texts")
        self.space = state["space"].astype(np.float32)
        self.vectors = self._placed(features.text)

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Place new items by their words."""
        if features.text is None:
            raise ArtefactError("the model lacks its item texts")
        fresh = self._placed(sparse.csr_array(features.text[len(self.vectors) :]))
        self.vectors = appended(self.vectors, fresh)


def directions(table: sparse.csr_array, dim: int) -> Doubles:
    """Return the ``dim`` directions (F, dim) in which rows (P, F) differ most from their average, strongest first.

    A row's average is the common one times its sum. Directions are as long as the root of their strength; those that
    the table has too few rows or columns for are 0.

    Examples
    --------
    >>> found = directions(sparse.csr_array(np.array([[2.0, 0, 1], [0, 1, 1], [1, 0, 1], [0, 2, 1]])), 1)
    >>> bool(found[0, 0] * found[1, 0] < 0), bool(abs(found[2, 0]) < 0.1)
    (True, True)
    """
    found = np.zeros((table.shape[1], dim))
    most = min(dim, min(table.shape) - 1)
    sums = np.asarray(table.sum(axis=1), dtype=np.float64).ravel()
    if most < 1 or not sums.sum():
        return found
    usual = np.asarray(table.sum(axis=0), dtype=np.float64).ravel() / sums.sum()
    squares = np.asarray(table.multiply(table).sum(axis=1), dtype=np.float64).ravel()
    squares += sums**2 * float(usual @ usual) - 2 * sums * (table @ usual)
    scale = np.where(squares > 1e-9, 1 / np.sqrt(np.maximum(squares, 1e-9)), 0.0)
    rows, share = sparse.csr_array(sparse.diags_array(scale) @ table), scale * sums
    across = sparse.csr_array(rows.T)
    if min(table.shape) <= SMALL * most:
        _, strength, axes = np.linalg.svd(rows.toarray() - np.outer(share, usual), full_matrices=False)
        found[:, :most] = axes[:most].T * np.sqrt(strength[:most])
        return found
    operator = LinearOperator(
        table.shape,
        matvec=lambda v: rows @ v.ravel() - share * (usual @ v.ravel()),
        rmatvec=lambda v: across @ v.ravel() - usual * (share @ v.ravel()),
        dtype=np.float64,
    )
    _, strength, axes = svds(operator, k=most, v0=np.random.default_rng(0).random(min(table.shape)))
    order = np.argsort(-strength)
    found[:, :most] = axes[order].T * np.sqrt(np.maximum(strength[order], 0.0))
    return found
