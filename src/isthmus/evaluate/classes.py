"""How good predicted classes are: accuracy, precision, recall and F1, whole and by class, with intervals and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from isthmus.errors import DataError
from isthmus.evaluate.ranks import Doubles
from isthmus.evaluate.stats import holm, sign_flip
from isthmus.rng import generator
from isthmus.types import Ints

#: Resamples of an interval.
DRAWS: Final = 1000
WHOLE: Final = ("accuracy", "precision", "recall", "f1")
BY_CLASS: Final = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Told:
    """What several systems said of the same items, and what was right.

    Parameters
    ----------
    names : sequence of str
        The C classes.
    truth : int64 array (n,)
        Class of each item.
    predictions : mapping of str to int64 array (n,)
        By system.

    Raises
    ------
    DataError
        No items, lengths that do not fit, or a class that there is not.
    """

    names: Sequence[str]
    truth: Ints
    predictions: Mapping[str, Ints]

    def __post_init__(self) -> None:
        """Check that all fits together."""
        parts = (self.truth, *self.predictions.values())
        if not self.truth.size or any(part.shape != self.truth.shape for part in parts):
            raise DataError(f"{self.truth.size} items and what was said of them do not fit", where="classes")
        if any(part.min() < 0 or part.max() >= len(self.names) for part in parts):
            raise DataError("a class that there is not", where="classes")


def class_errors(told: Told, *, seed: int = 0, level: float = 0.95) -> pl.DataFrame:
    """Return how good each system is.

    Returns
    -------
    polars.DataFrame
        system, class (``all`` for the whole), n (items of the class), metric (accuracy, precision, recall, f1), value,
        low, high. Macro means are over the classes among the true ones; a ratio without cases counts 0. Intervals:
        percentile bootstrap over items.

    Examples
    --------
    >>> told = Told(["a", "b"], np.array([0, 1, 1]), {"tfidf": np.array([0, 0, 1])})
    >>> class_errors(told).filter(pl.col("class") == "all")["value"].round(3).to_list()
    [0.667, 0.75, 0.75, 0.667]
    """
    rows: list[tuple[object, ...]] = []
    n_classes = len(told.names)
    per_class = np.bincount(told.truth, minlength=n_classes)
    edges = [(1 - level) / 2, (1 + level) / 2]
    for system, said in told.predictions.items():
        cells, counts = np.unique(told.truth * n_classes + said, return_counts=True)
        rng = generator(seed, "classes", system)
        drawn = rng.multinomial(told.truth.size, counts / counts.sum(), DRAWS).astype(np.float64)
        whole, each = _figures(cells, counts[None].astype(np.float64), n_classes, per_class > 0)
        some, many = _figures(cells, drawn, n_classes, per_class > 0)
        low, high = np.quantile(some, edges, axis=0)
        rows += [
            (system, "all", told.truth.size, metric, float(whole[0, k]), float(low[k]), float(high[k]))
            for k, metric in enumerate(WHOLE)
        ]
        low, high = np.quantile(many, edges, axis=0)
        rows += [
            (system, name, int(per_class[code]), metric, *(float(part[k, code]) for part in (each[0], low, high)))
            for code, name in enumerate(told.names)
            for k, metric in enumerate(BY_CLASS)
        ]
    columns = {"system": pl.String, "class": pl.String, "n": pl.Int64, "metric": pl.String}
    return pl.DataFrame(rows, schema={**columns, **dict.fromkeys(("value", "low", "high"), pl.Float64)}, orient="row")


def class_tests(told: Told, main: str, *, seed: int = 0) -> pl.DataFrame:
    """Return the paired tests of the accuracy of ``main`` against each other system, Holm-corrected.

    Returns
    -------
    polars.DataFrame
        system, difference (accuracy of ``main`` less that of the system), p, p_holm; signs are flipped by item.

    Raises
    ------
    DataError
        ``main`` is not among the systems.
    """
    if main not in told.predictions:
        raise DataError(f"no system '{main}'", where="classes")
    rivals = [name for name in told.predictions if name != main]
    right = {name: (said == told.truth).astype(np.float64) for name, said in told.predictions.items()}
    schema = {"system": pl.String, "difference": pl.Float64, "p": pl.Float64, "p_holm": pl.Float64}
    if not rivals:
        return pl.DataFrame(schema=schema)
    gaps = np.column_stack([right[main] - right[rival] for rival in rivals])
    p = sign_flip(gaps, rng=generator(seed, "class tests"))
    return pl.DataFrame([rivals, gaps.mean(axis=0), p, holm(p)], schema=schema)


def _figures(cells: Ints, counts: Doubles, n_classes: int, there: np.ndarray) -> tuple[Doubles, Doubles]:
    """Return accuracy and macro means (R, 4), and the figures by class (R, 3, C), from counts (R, cells)."""
    true, said = np.divmod(cells, n_classes)
    sides = [np.equal.outer(part, np.arange(n_classes)).astype(np.float64) for part in (true, said)]
    hits = counts @ (sides[0] * sides[1])
    actual, named = counts @ sides[0], counts @ sides[1]
    precision, recall = _ratio(hits, named), _ratio(hits, actual)
    each = np.stack([precision, recall, _ratio(2 * hits, named + actual)], axis=1)
    accuracy = hits.sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    return np.concatenate([accuracy, each[:, :, there].mean(axis=2)], axis=1), each


def _ratio(top: Doubles, bottom: Doubles) -> Doubles:
    found: Doubles = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    return found
