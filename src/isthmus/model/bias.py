"""Ratings from who gives them and what gets them alone: damped biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np

from isthmus.errors import InputError
from isthmus.model.base import Doubles, State
from isthmus.model.rating_base import RatingModel, Ratings
from isthmus.types import Ints

#: Rounds of the alternation; ten leave the last digits only.
ROUNDS: Final = 10


class Constant(RatingModel):
    """The mean of all ratings, for everybody and everything."""

    name = "mean"

    def fit(self, ratings: Ratings, *, seed: int = 0) -> Constant:  # noqa: ARG002
        """Take the mean."""
        self.mean = mean_of(ratings)
        return self

    def predict(self, known: Ratings, persons: Ints, items: Ints) -> Doubles:  # noqa: ARG002
        """Return the mean for each pair, (n,)."""
        return np.full(items.size, self.mean)

    def state(self) -> State:
        """Return the mean."""
        return {"mean": np.array([self.mean])}

    def restore(self, state: State) -> None:
        """Take back the mean."""
        self.mean = float(state["mean"][0])


class Bias(RatingModel):
    """``mean + person + item``, each effect damped: those of which little is known stay near 0.

    Least squares with one penalty for the effects of items and one for those of persons (Koren, Bell & Volinsky,
    "Matrix Factorization Techniques for Recommender Systems", IEEE Computer 2009, equations 3 and 4 without factors),
    solved by turns: an item's effect is the sum of what its ratings are above the rest, over their number plus
    ``items``; a person's likewise with ``persons``.

    Parameters
    ----------
    settings : mapping, optional
        ``items`` and ``persons``: ratings that the damping counts like.
    prior : float64 array (N,), optional
        Effect of an item that nobody rated; 0 if not given.

    Examples
    --------
    >>> known = Ratings.of(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([5.0, 3.0, 4.0]), (3, 3))
    >>> model = Bias({"items": 1.0, "persons": 1.0}).fit(known)
    >>> model.predict(known, np.array([2, 0]), np.array([2, 0])).round(2).tolist()
    [4.0, 4.43]
    """

    name = "bias"
    grid: ClassVar = tuple(
        {"items": items, "persons": persons} for items in (5.0, 2.0, 15.0) for persons in (10.0, 3.0, 30.0)
    )

    def __init__(self, settings: Mapping[str, float] | None = None, *, prior: Doubles | None = None) -> None:
        super().__init__(settings)
        self.prior = prior
        if min(self.settings.values()) <= 0:
            raise InputError("a damping must be above 0", where="rating model bias")

    def fit(self, ratings: Ratings, *, seed: int = 0) -> Bias:  # noqa: ARG002
        """Learn the mean and the effects of items."""
        self.mean = mean_of(ratings)
        prior = np.zeros(ratings.shape[1]) if self.prior is None else self.prior
        self.items = prior.copy()
        above, counts, damping = ratings.values - self.mean, ratings.item_counts, self.settings["items"]
        for _ in range(ROUNDS):
            rest = above - self.persons(ratings)[ratings.persons]
            total = np.bincount(ratings.items, rest, ratings.shape[1])
            self.items = (total + damping * prior) / (counts + damping)
        return self

    def persons(self, known: Ratings) -> Doubles:
        """Return the effect of each person, (P,); 0 without ratings."""
        rest = known.values - self.mean - self.items[known.items]
        total = np.bincount(known.persons, rest, known.shape[0])
        effects: Doubles = total / (known.person_counts + self.settings["persons"])
        return effects

    def predict(self, known: Ratings, persons: Ints, items: Ints) -> Doubles:
        """Return the rating of each pair, (n,)."""
        found: Doubles = self.mean + self.persons(known)[persons] + self.items[items]
        return found

    def state(self) -> State:
        """Return the mean and the effects of items."""
        return {"mean": np.array([self.mean]), "items": self.items}

    def restore(self, state: State) -> None:
        """Take back the mean and the effects."""
        self.mean, self.items = float(state["mean"][0]), state["items"].astype(np.float64)

    def residuals(self, known: Ratings) -> Doubles:
        """Return what each known rating is above its prediction, (E,)."""
        return known.values - self.predict(known, known.persons, known.items)


def mean_of(ratings: Ratings) -> float:
    """Return the mean rating.

    Raises
    ------
    InputError
        There are no ratings.
    """
    if not len(ratings):
        raise InputError("there are no ratings to learn from", fix="cut later, or import a column of ratings as value")
    return float(ratings.values.mean())
