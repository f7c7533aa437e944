"""Ratings of new items and by what items say: biases with a content prior, tastes over contents, and the FM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
from scipy import sparse

from isthmus.errors import DataError
from isthmus.model.base import Doubles, State
from isthmus.model.bias import Bias
from isthmus.model.rating_base import RatingModel, Ratings, inner, outer, ridge_rows
from isthmus.rng import generator
from isthmus.types import Floats, Ints

#: Strength of the regression from contents to items' effects: ratings that each direction of length 1 counts like.
PRIOR: Final = 50.0


class ContentRatings(RatingModel):
    """Bias whose items start from what their content says, plus a taste of each person over contents.

    An item's effect is damped towards a ridge regression of effects on contents, so that a new item has one. A
    person's taste is the ridge regression, with strength ``taste``, of what the biases leave of the known ratings on
    the contents of their items (Pazzani & Billsus 1997's content-based profile as a linear model).

    Parameters
    ----------
    vectors : float array (N, D)
        Content of each item; a row of zeros says nothing. Scaled here to a mean squared length of 1.
    settings : mapping, optional
        ``taste`` and ``prior``: the larger, the less contents are trusted to tell persons and items apart.
    name : str
        Name in tables: whose vectors they are.
    bias : mapping, optional
        Settings of the biases.
    """

    grid: ClassVar[Sequence[Mapping[str, float]]] = tuple(
        {"taste": taste, "prior": prior} for prior in (50.0, 10.0, 200.0) for taste in (10.0, 3.0, 30.0, 100.0)
    )
    reading = ("taste",)

    def __init__(
        self,
        vectors: Floats | Doubles,
        settings: Mapping[str, float] | None = None,
        *,
        name: str = "content",
        bias: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(settings)
        self.name = name
        self.vectors = _scaled(vectors)
        self.bias_settings = dict(bias or {})

    def fit(self, ratings: Ratings, *, seed: int = 0) -> ContentRatings:  # noqa: ARG002
        """Learn what contents say of the effects of items, then the effects."""
        if len(self.vectors) != ratings.shape[1]:
            raise DataError(f"{ratings.shape[1]} items but {len(self.vectors)} vectors", where=f"model {self.name}")
        plain = Bias(self.bias_settings).fit(ratings)
        damping = plain.settings["items"]
        rest = ratings.values - plain.mean - plain.persons(ratings)[ratings.persons]
        counts = ratings.item_counts
        total = np.bincount(ratings.items, rest, ratings.shape[1])
        raw = total / np.maximum(counts, 1)
        self.prior = regress(self.vectors, raw, counts / (counts + damping), l2=self.settings.get("prior", PRIOR))
        self.bias = Bias(self.bias_settings, prior=self.prior).fit(ratings)
        return self

    def predict(self, known: Ratings, persons: Ints, items: Ints) -> Doubles:
        """Return the rating of each pair, (n,)."""
        return self.bias.predict(known, persons, items) + self._taste(known, persons, items, self.vectors, "taste")

    def state(self) -> State:
        """Return the biases and the contents."""
        return {**outer("bias", self.bias.state()), "vectors": self.vectors}

    def restore(self, state: State) -> None:
        """Take back the biases and the contents."""
        self.bias = Bias(self.bias_settings)
        self.bias.restore(inner("bias", state))
        self.vectors = state["vectors"].astype(np.float64)

    def _taste(self, known: Ratings, persons: Ints, items: Ints, factors: Doubles, strength: str) -> Doubles:
        """Return the product of person and item, the persons placed among ``factors`` by what they rated."""
        asked = np.unique(persons)
        above = known.matrix(self.bias.residuals(known))[asked]
        placed = ridge_rows(above, factors, self.settings[strength])
        found: Doubles = np.einsum("nd,nd->n", placed[np.searchsorted(asked, persons)], factors[items])
        return found


class FactorRatings(ContentRatings):
    """Factorisation machine over person, item and the content of the item.

    ``mean + w_u + w_i + w'x_i + <p_u, q_i + G x_i>``: equation 1 of Rendle, "Factorization Machines", ICDM 2010, for
    these features, without the products inside one item. Learned by alternating least squares on what the biases
    leave; a new item stands where its content says, a new person where the known ratings say.

    Parameters
    ----------
    vectors, settings, name, bias
        As :class:`ContentRatings`; settings ``l2`` (strength of the ridge) and ``dim`` (length of the factors).
    """

    grid: ClassVar[Sequence[Mapping[str, float]]] = (
        {"l2": 20.0, "dim": 16.0},
        {"l2": 8.0, "dim": 16.0},
        {"l2": 50.0, "dim": 16.0},
    )
    #: Turns of the alternation.
    rounds: ClassVar[int] = 8

    def fit(self, ratings: Ratings, *, seed: int = 0) -> FactorRatings:
        """Learn biases, then the factors of items and what contents say of them."""
        super().fit(ratings, seed=seed)
        dim, l2 = int(self.settings["dim"]), self.settings["l2"]
        rest = self.bias.residuals(ratings)
        # the product of two ridges shrinks by its size: residuals of spread 1 make one strength fit every scale
        self.unit = float(rest.std()) or 1.0
        above = ratings.matrix(rest / self.unit)
        turned = _transposed(above)
        counts = np.diff(turned.indptr)
        rows = np.repeat(np.arange(turned.shape[0]), counts)
        own = generator(seed, "factors").normal(0, dim**-0.5, (ratings.shape[1], dim))
        said = np.zeros_like(own)
        persons: Doubles | None = None
        for _ in range(self.rounds):
            persons = ridge_rows(above, own + said, l2, steps=4, start=persons)
            told = np.einsum("ed,ed->e", persons[turned.indices], said[rows])
            left = sparse.csr_array((turned.data - told, turned.indices, turned.indptr), shape=turned.shape)
            own = ridge_rows(left, persons, l2, steps=4, start=own)
            said = regress(self.vectors, own + said, counts / (counts + l2))
        self.factors: Doubles = own + said
        return self

    def predict(self, known: Ratings, persons: Ints, items: Ints) -> Doubles:
        """Return the rating of each pair, (n,)."""
        return self.bias.predict(known, persons, items) + self._taste(known, persons, items, self.factors, "l2")

    def state(self) -> State:
        """Return the biases and the factors of items."""
        return {**outer("bias", self.bias.state()), "factors": self.factors}

    def restore(self, state: State) -> None:
        """Take back the biases and the factors."""
        self.bias = Bias(self.bias_settings)
        self.bias.restore(inner("bias", state))
        self.factors = state["factors"].astype(np.float64)


def regress(vectors: Doubles, wanted: Doubles, weights: Doubles, *, l2: float = PRIOR) -> Doubles:
    """Return the weighted ridge regression of ``wanted`` on ``vectors`` and a constant, for all rows.

    Parameters
    ----------
    vectors : float64 array (N, D)
        Contents.
    wanted : float64 array (N,) or (N, K)
        What is to be told from them.
    weights : float64 array (N,)
        How much each row counts; those of weight 0 are told all the same.
    l2 : float
        Penalty; the constant has none to speak of.

    Returns
    -------
    float64 array (N,) or (N, K)
        What the contents say; the weighted mean where they say nothing.
    """
    features = np.column_stack([vectors, np.ones(len(vectors))])
    penalty = np.full(features.shape[1], l2)
    penalty[-1] = 1e-9
    gram = features.T @ (features * weights[:, None]) + np.diag(penalty)
    found: Doubles = features @ np.linalg.solve(gram, features.T @ (wanted.T * weights).T)
    return found


def _scaled(vectors: Floats | Doubles) -> Doubles:
    """Return float64 vectors about the mean of those that say something, of mean squared length 1; zeros stay zeros."""
    rows = np.asarray(vectors, dtype=np.float64)
    said = np.any(rows != 0, axis=1)
    if not said.any():
        return rows
    rows = np.where(said[:, None], rows - rows[said].mean(axis=0), 0.0)
    length = float(np.sqrt((rows[said] ** 2).sum(axis=1).mean()))
    return rows / length if length > 0 else rows


def _transposed(matrix: sparse.csr_array) -> sparse.csr_array:
    """Return the transpose as CSR with every stored entry, zeros too."""
    turned = sparse.csr_array(matrix.T.tocsr())
    turned.sort_indices()
    return turned
