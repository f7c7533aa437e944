"""One rating from those of several models: weights from 0 up, learned on validation, apart for who and what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import nnls

from isthmus.errors import DataError
from isthmus.model.base import Doubles
from isthmus.model.rating_base import Ratings
from isthmus.types import Bools, Ints

#: Persons whose ratings the pull towards the best model counts like, and that of a cohort towards the common weights.
PULL: Final = 2.0
COHORT_PULL: Final = 10.0
#: Parts of the persons that are left out by turns to see whether the blend is worth it.
FOLDS: Final = 5
#: A person with at most this many known ratings is little known.
FEW: Final = 3


def rating_cohorts(known: Ratings, taught: Ratings, persons: Ints, items: Ints) -> dict[str, Bools]:
    """Return which pairs are of a person, and of an item, that little is known of; arrays (n,).

    Parameters
    ----------
    known : Ratings
        Known ratings of the persons.
    taught : Ratings
        What models learned from: an item not among them is new.
    persons, items : int64 arrays (n,)
        The pairs.
    """
    had = known.person_counts[persons]
    new = taught.item_counts[items] == 0
    return {
        "new person": had == 0,
        f"1-{FEW} ratings": (had > 0) & (had <= FEW),
        "known person": had > FEW,
        "new item": new,
        "known item": ~new,
        "both known": (had > FEW) & ~new,
    }


#: Cohorts with weights of their own; together they hold each pair once.
CELLS: Final = tuple((who, what) for who in ("new person", f"1-{FEW} ratings", "known person")
                     for what in ("known item", "new item"))  # fmt: skip


@dataclass(frozen=True)
class RatingBlend:
    """Weights of several models.

    Parameters
    ----------
    models : tuple of str
        Names.
    mean : float
        What all predictions are taken relative to.
    weights : mapping of str to float64 array (M,)
        For everybody (``all``) and for each cohort that has its own.
    scale : tuple of float
        Lowest and highest rating; predictions stay inside.
    """

    models: tuple[str, ...]
    mean: float
    weights: Mapping[str, Doubles]
    scale: tuple[float, float]

    def predict(self, predictions: Doubles, cohorts: Mapping[str, Bools]) -> Doubles:
        """Return the blended rating of each pair, (n,).

        Parameters
        ----------
        predictions : float64 array (n, M)
            Those of the models, in their order.
        cohorts : mapping of str to bool array (n,)
            From :func:`rating_cohorts`.
        """
        above = predictions - self.mean
        found = above @ self.weights["all"]
        for cell, rows in _cells(cohorts).items():
            if cell in self.weights:
                found[rows] = above[rows] @ self.weights[cell]
        clipped: Doubles = np.clip(self.mean + found, *self.scale)
        return clipped


@dataclass(frozen=True)
class Stack:
    """What the models say of validation pairs, and what was right.

    Parameters
    ----------
    persons : int64 array (n,)
        Who gave each rating.
    truth : float64 array (n,)
        The ratings.
    predictions : float64 array (n, M)
        What each model says.
    cohorts : mapping of str to bool array (n,)
        From :func:`rating_cohorts`.

    Raises
    ------
    DataError
        Lengths do not fit, or there is nothing to learn from.
    """

    persons: Ints
    truth: Doubles
    predictions: Doubles
    cohorts: Mapping[str, Bools]

    def __post_init__(self) -> None:
        """Check that all fits together."""
        n = self.truth.size
        if not n or self.predictions.ndim != 2 or len(self.predictions) != n or self.persons.size != n:
            raise DataError(f"{n} ratings and predictions of shape {self.predictions.shape}", where="blend of ratings")

    def take(self, rows: Bools) -> Stack:
        """Return some of the pairs."""
        cohorts = {name: flags[rows] for name, flags in self.cohorts.items()}
        return Stack(self.persons[rows], self.truth[rows], self.predictions[rows], cohorts)

    def error(self, blend: RatingBlend) -> float:
        """Return the summed squared error of a blend."""
        return float(((blend.predict(self.predictions, self.cohorts) - self.truth) ** 2).sum())


def learn_blend(models: Sequence[str], stack: Stack, taught: Ratings) -> RatingBlend:
    """Return the weights that fit best, pulled towards the model that is best alone.

    Stacking with weights from 0 up (Breiman, "Stacked Regressions", Machine Learning 1996) as ridge regression:
    the weights of all pairs are pulled towards 1 for the best model and 0 for the others, those of a cohort towards
    those of all. A pull counts like the ratings of :data:`PULL` persons. The best model is all there is where the
    weights, learned without a fifth of the persons at a time, are no better on those.

    Parameters
    ----------
    models : sequence of str
        Names of the M models.
    stack : Stack
        Validation pairs.
    taught : Ratings
        What the models learned from: gives mean and scale.

    Examples
    --------
    >>> truth = np.array([1.0, 5.0, 2.0, 4.0])
    >>> taught = Ratings.of(np.arange(4), np.arange(4), truth, (4, 4))
    >>> stack = Stack(np.arange(4), truth, np.column_stack([truth, 6 - truth]), {})
    >>> learn_blend(("good", "bad"), stack, taught).weights["all"].round(2).tolist()
    [1.0, 0.0]
    """
    both = np.concatenate([stack.truth, taught.values])
    mean, scale = float(taught.values.mean()), (float(both.min()), float(both.max()))
    errors = ((np.clip(stack.predictions, *scale) - stack.truth[:, None]) ** 2).sum(axis=0)
    best = np.eye(len(models))[int(errors.argmin())]

    def learn(some: Stack) -> RatingBlend:
        return RatingBlend(tuple(models), mean, _weights(some, best, mean), scale)

    places = np.unique(stack.persons, return_inverse=True)[1]
    left = 0.0
    for fold in range(min(FOLDS, int(places.max()) + 1)):
        out = places % FOLDS == fold
        if out.all():
            continue
        left += stack.take(out).error(learn(stack.take(~out)))
    alone = RatingBlend(tuple(models), mean, {"all": best}, scale)
    return learn(stack) if 0 < left < stack.error(alone) else alone


def _weights(stack: Stack, best: Doubles, mean: float) -> dict[str, Doubles]:
    """Return the weights of all pairs and of each cohort."""
    above, wanted = stack.predictions - mean, stack.truth - mean
    # the unit of a pull: what the ratings of one person weigh
    unit = float((above**2).sum() / above.shape[1] / np.unique(stack.persons).size) or 1.0
    weights = {"all": _pulled(above, wanted, best, PULL * unit)}
    for cell, rows in _cells(stack.cohorts).items():
        if rows.any():
            weights[cell] = _pulled(above[rows], wanted[rows], weights["all"], COHORT_PULL * unit)
    return weights


def _pulled(above: Doubles, wanted: Doubles, towards: Doubles, pull: float) -> Doubles:
    """Return the weights from 0 up that minimise ``|wanted - above w|^2 + pull |w - towards|^2``."""
    root = np.sqrt(pull)
    left = np.vstack([above, root * np.eye(towards.size)])
    found: Doubles = nnls(left, np.concatenate([wanted, root * towards]))[0]
    return found


def _cells(cohorts: Mapping[str, Bools]) -> dict[str, Bools]:
    return {f"{who}, {what}": cohorts[who] & cohorts[what] for who, what in CELLS if who in cohorts}


def as_chances(told: Doubles, truth: Doubles, asked: Doubles) -> Doubles:
    """Return predicted ratings of yes (1) or no (0) as chances of a yes, (n,).

    A logistic curve through predictions and answers (Platt, "Probabilistic Outputs for Support Vector Machines", 1999).

    Parameters
    ----------
    told, truth : float64 arrays (v,)
        Predictions of validation pairs, and the answers; both answers must occur.
    asked : float64 array (n,)
        Predictions to turn into chances.

    Examples
    --------
    >>> chances = as_chances(np.array([0.1, 0.2, 0.6, 0.7] * 9), np.array([0.0, 1, 0, 1] * 9), np.array([0.0, 0.9]))
    >>> bool(0 < chances[0] < 0.5 < chances[1] < 1)
    True
    """
    from sklearn.linear_model import LogisticRegression

    curve = LogisticRegression(C=100.0).fit(told[:, None], truth)
    return np.asarray(curve.predict_proba(asked[:, None])[:, 1], dtype=np.float64)
