"""How wrong predicted ratings are: MAE, MSE, RMSE and R squared with intervals over persons, slices, paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from isthmus.errors import DataError
from isthmus.evaluate.ranks import Doubles
from isthmus.evaluate.stats import holm, sign_flip
from isthmus.rng import generator
from isthmus.types import Bools, Ints

#: Resamples of an interval.
DRAWS: Final = 1000
_BLOCK: Final = 4_000_000
ERRORS: Final = ("mae", "mse", "rmse", "r2")


@dataclass(frozen=True)
class Rated:
    """What several systems said of the same pairs, and what was right.

    Parameters
    ----------
    persons : int64 array (n,)
        Who gave each rating: intervals and tests take persons, not ratings, as the sample.
    truth : float64 array (n,)
        The ratings.
    predictions : mapping of str to float64 array (n,)
        By system.
    slices : mapping of str to bool array (n,)
        Which pairs belong to each slice.

    Raises
    ------
    DataError
        No ratings, lengths that do not fit, or a value that is not finite.
    """

    persons: Ints
    truth: Doubles
    predictions: Mapping[str, Doubles]
    slices: Mapping[str, Bools]

    def __post_init__(self) -> None:
        """Check that all fits together."""
        parts = [self.persons, *self.predictions.values(), *self.slices.values()]
        if not self.truth.size or any(part.shape != self.truth.shape for part in parts):
            raise DataError(f"{self.truth.size} ratings and what was said of them do not fit", where="ratings")
        if not all(np.isfinite(part).all() for part in (self.truth, *self.predictions.values())):
            raise DataError("a true or predicted rating is not finite", where="ratings")


def rating_errors(rated: Rated, *, seed: int = 0, level: float = 0.95) -> pl.DataFrame:
    """Return the errors of each system in each slice.

    Returns
    -------
    polars.DataFrame
        slice (``all`` first), system, n (ratings), persons, metric (mae, mse, rmse, r2), value, low, high. R squared is
        ``1 - mse / variance of the slice's ratings``: 0 for who knows their mean, below 0 for worse; null where all
        ratings are the same. Intervals: percentile bootstrap over persons, the same resamples for all systems.

    Examples
    --------
    >>> rated = Rated(np.array([0, 1]), np.array([4.0, 2.0]), {"bias": np.array([3.0, 2.0])}, {})
    >>> dict(rating_errors(rated).select("metric", "value").iter_rows())["mae"]
    0.5
    """
    rows = []
    for name, where in {"all": np.ones(rated.truth.size, bool), **rated.slices}.items():
        if not where.any():
            continue
        truth = rated.truth[where]
        people, codes = np.unique(rated.persons[where], return_inverse=True)
        sums = [np.ones(truth.size), truth, truth**2]
        for said in rated.predictions.values():
            gap = said[where] - truth
            sums += [np.abs(gap), gap**2]
        table: Doubles = np.column_stack([np.bincount(codes, part, people.size) for part in sums]).astype(np.float64)
        whole = _figures(table.sum(axis=0)[None])
        drawn = _figures(_resampled(table, generator(seed, "errors", name)))
        edges = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0) if people.size > 1 else whole[[0, 0]]
        for place, system in enumerate(rated.predictions):
            rows += [
                (name, system, truth.size, people.size, metric, *_finite(whole[0], *edges, at=(place, k)))
                for k, metric in enumerate(ERRORS)
            ]
    columns = {"slice": pl.String, "system": pl.String, "n": pl.Int64, "persons": pl.Int64, "metric": pl.String}
    return pl.DataFrame(rows, schema={**columns, **dict.fromkeys(("value", "low", "high"), pl.Float64)}, orient="row")


def rating_tests(rated: Rated, main: str, *, seed: int = 0) -> pl.DataFrame:
    """Return the paired tests of ``main`` against each other system in each slice, Holm-corrected over all of them.

    Returns
    -------
    polars.DataFrame
        slice, system, difference (squared error of ``main`` less that of the system, mean over ratings: below 0 is
        better), p, p_holm. The test flips the signs of persons' summed differences.

    Raises
    ------
    DataError
        ``main`` is not among the systems.
    """
    if main not in rated.predictions:
        raise DataError(f"no system '{main}'", where="ratings")
    rivals = [name for name in rated.predictions if name != main]
    rows = []
    for name, where in {"all": np.ones(rated.truth.size, bool), **rated.slices}.items():
        if not where.any() or not rivals:
            continue
        codes = np.unique(rated.persons[where], return_inverse=True)[1]
        squares = {system: (said[where] - rated.truth[where]) ** 2 for system, said in rated.predictions.items()}
        table = np.column_stack([np.bincount(codes, squares[main] - squares[rival]) for rival in rivals])
        p = sign_flip(table, rng=generator(seed, "tests", name), draws=2000)
        rows += [
            (name, rival, float(table[:, place].sum() / where.sum()), float(p[place]))
            for place, rival in enumerate(rivals)
        ]
    frame = pl.DataFrame(
        rows, schema={"slice": pl.String, "system": pl.String, "difference": pl.Float64, "p": pl.Float64}, orient="row"
    )
    return frame.with_columns(p_holm=pl.Series(holm(frame["p"].to_numpy()), dtype=pl.Float64))


def chance_metrics(truth: Doubles, predicted: Doubles) -> dict[str, float]:
    """Return how good predicted chances of a yes are.

    Parameters
    ----------
    truth : float64 array (n,)
        1 for yes, 0 for no; both must occur.
    predicted : float64 array (n,)
        Chances from 0 to 1; they are kept from the ends by a millionth.

    Returns
    -------
    dict of str to float
        ``log_loss`` (nats), ``auc`` (ties count half), ``calibration``: mean predicted chance over the share of yes.

    Raises
    ------
    DataError
        Other values, or only one of the two answers.

    Examples
    --------
    >>> chance_metrics(np.array([1.0, 0.0]), np.array([0.8, 0.4]))["auc"]
    1.0
    """
    from scipy.stats import rankdata

    yes = truth == 1
    n_yes, n_no = int(yes.sum()), int((truth == 0).sum())
    if n_yes + n_no != truth.size or not (n_yes and n_no):
        raise DataError("chances need answers 0 and 1, both of them", where="ratings")
    chance = np.clip(predicted, 1e-6, 1 - 1e-6)
    loss = -np.where(yes, np.log(chance), np.log1p(-chance)).mean()
    auc = (rankdata(predicted)[yes].sum() - n_yes * (n_yes + 1) / 2) / (n_yes * n_no)
    return {"log_loss": float(loss), "auc": float(auc), "calibration": float(chance.mean() / yes.mean())}


def _resampled(table: Doubles, rng: np.random.Generator) -> Doubles:
    """Return the sums of the columns (P, M) over persons drawn with replacement, (draws, M)."""
    persons = len(table)
    step = max(1, _BLOCK // persons)
    found = []
    for start in range(0, DRAWS, step):
        rows = min(step, DRAWS - start)
        drawn = rng.integers(0, persons, (rows, persons)) + np.arange(rows)[:, None] * persons
        found.append(np.bincount(drawn.ravel(), minlength=rows * persons).reshape(rows, persons) @ table)
    return np.concatenate(found)


def _figures(sums: Doubles) -> Doubles:
    """Return the errors from sums (R, 3 + 2 S), as (R, S, 4)."""
    n, total, squares = (sums[:, k, None] for k in range(3))
    mae, mse = sums[:, 3::2] / n, sums[:, 4::2] / n
    spread = squares / n - (total / n) ** 2
    # a spread of rounding errors is none
    r2 = np.where(spread > 1e-9 * np.maximum(squares / n, 1e-12), 1 - mse / np.where(spread > 0, spread, 1), np.nan)
    return np.stack([mae, mse, np.sqrt(mse), r2], axis=2)


def _finite(*tables: Doubles, at: tuple[int, int]) -> list[float | None]:
    found = [float(table[at]) for table in tables]
    return [value if np.isfinite(value) else None for value in found]
