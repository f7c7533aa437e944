"""Alignment: a map, in closed form, from what an item's text says to what the people who meet it meet besides."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Features, Method, Settings, State, TrainingData
from isthmus.model.content import without_self
from isthmus.model.space import ContentSpace
from isthmus.room import appended
from isthmus.types import Bools, Floats, Indices, Ints

#: Newest events of a person that take part: a person with thousands says little more and takes their square in time.
NEWEST = 100


def behaviour(histories: Histories, n_items: int) -> sparse.csr_array:
    """Return how often two items are met by one person, as a cosine, (N, N); the diagonal is 0.

    ``n_ij / sqrt((n_i + 1) (n_j + 1))`` with ``n`` counted in persons: the 1 shrinks pairs of rare items.

    Examples
    --------
    >>> behaviour(Histories.of([[0, 1], [1, 2], [0, 1]]), 3).toarray().astype(float).round(2).tolist()
    [[0.0, 0.58, 0.0], [0.58, 0.0, 0.35], [0.0, 0.35, 0.0]]
    """
    met = histories.last(NEWEST).matrix(n_items)
    met.data[:] = 1.0
    together = sparse.coo_array(met.T @ met)
    scale = (np.asarray(met.sum(axis=0)).ravel() + 1.0) ** -0.5
    apart = together.row != together.col
    rows, columns = together.row[apart], together.col[apart]
    values = (together.data[apart] * scale[rows] * scale[columns]).astype(np.float32)
    return sparse.csr_array((values, (rows, columns)), shape=(n_items, n_items))


def wishes(features: Floats, behaviour: sparse.csr_array, *, l2: float) -> Floats:
    """Return what each item's company is like: the ridge regression of its behaviour on content.

    ``Q = C X (X'X + l2 I)^-1``, so that ``Q x_j`` is the behaviour that an item with content ``x_j`` can be
    expected to have: also an item nobody has met.

    Parameters
    ----------
    features : float32 array (K, D)
        Content of the items that can be met together.
    behaviour : csr array (N, K)
        How often each item is met together with them.
    l2 : float
        Ridge.

    Returns
    -------
    float32 array (N, D)
    """
    crossed = np.asarray(behaviour @ features, dtype=np.float32)
    return np.asarray(np.linalg.solve(_ridge(features, l2), crossed.T).T, dtype=np.float32)


def align(features: Floats, behaviour: sparse.csr_array, *, l2: float) -> Floats:
    """Return the map ``M`` (D, D) for which ``x_i M x_j`` is the behaviour two items can be expected to have.

    ``M = (X'X + l2 I)^-1 X' C X (X'X + l2 I)^-1``: the solution of ``C = X M X'`` by a ridge on either side. It
    needs no id, so it can be learned in one domain and used in another whose features lie in the same space.

    Parameters
    ----------
    features : float32 array (N, D)
        Content of the items.
    behaviour : csr array (N, N)
        How often two items are met together (:func:`behaviour`).
    l2 : float
        Ridge.

    Examples
    --------
    >>> features = np.eye(2, dtype=np.float32)
    >>> align(features, sparse.csr_array(np.array([[0, 4], [4, 0]], np.float32)), l2=1.0).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    wished = wishes(features, behaviour, l2=l2)
    return np.asarray(np.linalg.solve(_ridge(features, l2), features.T @ wished), dtype=np.float32)


def _ridge(features: Floats, l2: float) -> Floats:
    return features.T @ features + np.float32(l2) * np.eye(features.shape[1], dtype=np.float32)


class Aligned(Method):
    """Items whose content is like that of the company the history keeps; ``share`` of the score is plain likeness.

    An item of the history that others have met has its own wishes (:func:`wishes`); any other one has those that
    its content predicts by the map (:func:`align`). In the manner of the attribute-to-feature maps of Gantner et
    al., "Learning attribute-to-feature mappings for cold-start recommendations", ICDM 2010, in one closed form.
    Of the same family: DropoutNet (Volkovs et al., NeurIPS 2017) and CLCRec (Wei et al., ACM MM 2021), trained.
    """

    name = "aligned"
    defaults: ClassVar[Settings] = {"l2": 3.0, "share": 0.4, "dim": 256, "decay": 0.7, "sources": True}
    grid: ClassVar = {"sources": (True, False), "decay": (0.7, 0.5, 0.9, 1.0)}
    reading = ("decay", "share")
    inductive = True

    def _fit(self, data: TrainingData, seed: int) -> None:
        if data.features.text is None and data.features.vectors is None:
            raise InputError("the method aligned needs item texts")
        self.space = ContentSpace.fit(data.features, dim=int(self.number("dim")), seed=seed)
        self._take(data.features)
        met = behaviour(data.learn_from(bool(self.settings["sources"])), data.n_items)
        self.known = np.diff(met.indptr) > 0
        l2, inside = self.number("l2"), np.flatnonzero(self.known & data.in_target)
        self.wished = wishes(self.rows[inside], met[:, inside], l2=l2)
        near = self.rows[self.known]
        self.map = np.linalg.solve(_ridge(near, l2), near.T @ self.wished[self.known]).astype(np.float32)
        self._expect(self.known)
        some = sparse.csr_array(sparse.eye_array(data.n_items, dtype=np.float32).tocsr()[_spread(self.known)])
        sizes = [float(channel.std()) or 1.0 for channel in self._channels(some)] if some.shape[0] else [1.0, 1.0]
        self.sizes = np.array(sizes, np.float32)

    def _take(self, features: Features) -> None:
        self.rows = self.space.rows(features)
        self.text = features.text

    def _expect(self, known: Bools) -> None:
        """Give items without behaviour the wishes that their content predicts."""
        self.wished[~known] = self.rows[~known] @ self.map

    def score(self, histories: Histories) -> Floats:
        """Return the sum of both channels, each of deviation 1 for a history of one item, (B, T)."""
        expected, alike = self._channels(self.profile(histories))
        share = np.float32(self.number("share"))
        return np.asarray((1 - share) / self.sizes[0] * expected + share / self.sizes[1] * alike, dtype=np.float32)

    def _channels(self, profile: sparse.csr_array) -> tuple[Floats, Floats]:
        """Return the behaviour expected of each target item, and its likeness, (B, T) each."""
        expected = np.asarray(profile @ self.wished) @ self.rows[self.target].T
        return expected, self._likeness(profile)

    def _likeness(self, profile: sparse.csr_array) -> Floats:
        """Return the cosine of texts (of vectors, where there are no texts) summed over the history, (B, T)."""
        if self.text is None:
            known = np.any(self.rows != 0, axis=1)
            return without_self(np.asarray(profile @ self.rows) @ self.rows[self.target].T, profile, self.target, known)
        scores = ((profile @ self.text) @ self.text[self.target].T).toarray()
        return without_self(scores, profile, self.target, np.diff(self.text.indptr) > 0)

    def state(self) -> State:
        """Return the space, the map, and the wishes of items that were met."""
        own = np.flatnonzero(self.known)
        return {**self.space.state(), "map": self.map, "own": own, "wished": self.wished[own], "sizes": self.sizes}

    def restore(self, state: State, features: Features) -> None:
        """Take back what was learned."""
        self.space, self.map = ContentSpace.of(state), state["map"].astype(np.float32)
        self.sizes = state["sizes"].astype(np.float32)
        self._take(features)
        self.known = np.zeros(self.n_items, dtype=bool)
        self.known[state["own"].astype(np.int64)] = True
        self.wished = np.zeros(self.rows.shape, np.float32)
        self.wished[self.known] = state["wished"]
        self._expect(self.known)

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Place new items by their content."""
        fresh = self.space.rows(features.texts_of(slice(len(self.rows), None)))
        self.rows, self.wished = appended(self.rows, fresh), appended(self.wished, fresh @ self.map)
        self.known = appended(self.known, np.zeros(len(fresh), dtype=bool))
        self.text = features.text


def _spread(flags: Bools, most: int = 256) -> Ints:
    """Return the places of at most ``most`` true flags, spread evenly."""
    places = np.flatnonzero(flags)
    return places[np.linspace(0, places.size - 1, min(most, places.size)).astype(np.int64)] if places.size else places
