"""Classes of items from what was read of them: linear classifiers, and one opinion from several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from scipy import optimize, sparse
from scipy.special import logsumexp

from isthmus.errors import DataError, InputError
from isthmus.model.base import Doubles, State
from isthmus.types import Floats, Ints

Rows: TypeAlias = sparse.csr_array | Floats

#: Strengths of the linear classifier that are tried on validation.
STRENGTHS: Final = (1.0, 10.0, 100.0)
#: Logarithm of the chance of a class that was never taught.
NEVER: Final = -20.0
#: Items that the pull towards the best opinion counts like.
PULL: Final = 5.0
#: Parts of the items that are left out by turns to see whether the pool is worth it.
FOLDS: Final = 5


class Majority:
    """Says the shares of the classes among what was taught, of every item."""

    def fit(self, rows: Rows, codes: Ints, n_classes: int) -> Majority:  # noqa: ARG002
        """Take the shares."""
        counts = np.bincount(codes, minlength=n_classes).astype(np.float64)
        self.logs = np.log(np.maximum(counts / counts.sum(), np.exp(NEVER)))
        return self

    def log_chances(self, rows: Rows) -> Doubles:
        """Return the logarithm of the chance of each class, (n, C)."""
        return np.tile(self.logs, (rows.shape[0], 1))

    def state(self) -> State:
        """Return the logarithms of the shares."""
        return {"logs": self.logs}

    def restore(self, state: State, n_classes: int) -> Majority:  # noqa: ARG002
        """Take back the shares; return self."""
        self.logs = state["logs"].astype(np.float64)
        return self


class Linear:
    """Multinomial logistic regression, through scikit-learn.

    Dense columns are divided by one common spread; sparse rows are taken as they are.

    Parameters
    ----------
    strength : float
        Inverse of the penalty: larger fits closer.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], dtype="float32")
    >>> model = Linear(10.0).fit(rows, np.array([0, 0, 2, 2]), 3)
    >>> model.log_chances(rows).argmax(axis=1).tolist()
    [0, 0, 2, 2]
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def fit(self, rows: Rows, codes: Ints, n_classes: int) -> Linear:
        """Learn from the rows (n, F) and their classes (n,), of ``n_classes`` in all.

        Raises
        ------
        InputError
            All have the same class.
        """
        from sklearn.linear_model import LogisticRegression

        self.known = np.unique(codes)
        if self.known.size < 2:
            raise InputError("all items that teach have the same class", where="classify", fix="label more items")
        self.n_classes = n_classes
        dense = not sparse.issparse(rows)
        self.centre = rows.mean(axis=0) if dense else np.float32(0)
        self.spread = max(float((rows - self.centre).std()), 1e-12) if dense else 1.0
        # dense columns of spread 1 are longer rows than those of TF-IDF, and fit closer at the same strength
        model = LogisticRegression(C=self.strength / (10.0 if dense else 1.0), max_iter=1000, tol=1e-3)
        model.fit(self._shaped(rows), codes)
        self.slopes, self.levels = model.coef_, model.intercept_
        if self.known.size == 2:  # one row tells the second class from the first
            self.slopes = np.concatenate([np.zeros_like(self.slopes), self.slopes])
            self.levels = np.concatenate([np.zeros_like(self.levels), self.levels])
        return self

    def log_chances(self, rows: Rows) -> Doubles:
        """Return the logarithm of the chance of each class, (n, C)."""
        found = np.full((rows.shape[0], self.n_classes), NEVER)
        if rows.shape[0]:
            said = np.asarray(self._shaped(rows) @ self.slopes.T) + self.levels
            found[:, self.known] = np.maximum(said - logsumexp(said, axis=1, keepdims=True), NEVER)
        return found

    def state(self) -> State:
        """Return what was learned."""
        return {
            "known": self.known,
            "slopes": self.slopes,
            "levels": self.levels,
            "centre": np.atleast_1d(np.asarray(self.centre)),
            "spread": np.array([self.spread]),
        }

    def restore(self, state: State, n_classes: int) -> Linear:
        """Take back what :meth:`state` returned, for ``n_classes`` in all; return self."""
        self.known, self.n_classes = state["known"].astype(np.int64), n_classes
        self.slopes, self.levels = state["slopes"].astype(np.float64), state["levels"].astype(np.float64)
        self.centre, self.spread = state["centre"].astype(np.float32), float(state["spread"][0])
        return self

    def _shaped(self, rows: Rows) -> Rows:
        return rows if sparse.issparse(rows) else np.asarray((rows - self.centre) / self.spread, dtype=np.float64)


def pool(logs: Sequence[Doubles], weights: Doubles) -> Doubles:
    """Return the logarithm of the pooled chances, (n, C): the weighted sum of ``logs``, normalised.

    The logarithmic opinion pool of Genest & Zidek, "Combining Probability Distributions", Statistical Science 1986.

    Examples
    --------
    >>> one = np.log([[0.8, 0.2]])
    >>> np.exp(pool([one, np.log([[0.5, 0.5]])], np.array([1.0, 1.0]))).round(2).tolist()
    [[0.8, 0.2]]
    """
    total = np.einsum("m,mnc->nc", weights, np.stack(logs))
    return np.asarray(total - logsumexp(total, axis=1, keepdims=True))


def learn_pool(logs: Sequence[Doubles], codes: Ints, rng: np.random.Generator) -> Doubles:
    """Return the weights, from 0 up, that make the true classes of validation items likeliest, (M,).

    They are pulled towards the opinion that is right most often alone; it is all there is where the pool, learned
    without a fifth of the items at a time, is right less often on those.

    Parameters
    ----------
    logs : sequence of float64 arrays (n, C)
        What each of the M opinions says.
    codes : int64 array (n,)
        The true classes.
    rng : numpy.random.Generator
        Draws the fifths.

    Raises
    ------
    DataError
        No items, or shapes that do not fit.
    """
    if not codes.size or any(table.shape != logs[0].shape or len(table) != codes.size for table in logs):
        raise DataError(f"{codes.size} classes but opinions of shapes {[table.shape for table in logs]}", where="pool")
    stack = np.stack(logs)
    right = (stack.argmax(axis=2) == codes).mean(axis=1)
    sure = stack[:, np.arange(codes.size), codes].mean(axis=1)
    best = np.eye(len(logs))[int(np.lexsort((sure, right))[-1])]
    folds = rng.permutation(codes.size) % FOLDS
    hits = 0
    for fold in range(FOLDS):
        out = folds == fold
        if not out.any() or out.all():
            continue
        weights = _likeliest(stack[:, ~out], codes[~out], best)
        hits += int((pool(list(stack[:, out]), weights).argmax(axis=1) == codes[out]).sum())
    return _likeliest(stack, codes, best) if hits >= right.max() * codes.size else best


def _likeliest(stack: Doubles, codes: Ints, best: Doubles) -> Doubles:
    """Return the weights of least log loss, pulled towards ``best``: convex, since the loss is in the weights."""
    rows = np.arange(codes.size)
    true = stack[:, rows, codes].sum(axis=1)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        total = np.einsum("m,mnc->nc", weights, stack)
        norm = logsumexp(total, axis=1, keepdims=True)
        expected = np.einsum("nc,mnc->m", np.exp(total - norm), stack)
        value = float(norm.sum() - weights @ true + PULL * ((weights - best) ** 2).sum())
        return value, expected - true + 2 * PULL * (weights - best)

    found = optimize.minimize(loss, best, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * best.size)
    return np.asarray(found.x, dtype=np.float64)
