"""How sure a mean is: bootstrap intervals, paired tests over persons, correction for many, the smallest visible effect.

All functions take a matrix with one column a quantity and resample persons once for all columns, so that intervals
of many systems and metrics cost little more than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from isthmus.errors import DataError
from isthmus.evaluate.ranks import Doubles

#: Numbers held at a time while resampling: persons × draws of one block.
_BLOCK = 4_000_000
#: Two means of the same numbers differ by less than this share of themselves.
_ROUNDING = 1e-12


def mean_intervals(
    values: ArrayLike, *, rng: np.random.Generator, level: float = 0.95, draws: int = 1000
) -> tuple[Doubles, Doubles, Doubles]:
    """Return the mean of each column and its bootstrap percentile interval over persons.

    Parameters
    ----------
    values : float64 array (P, M)
        One row a person; NaN where a quantity is not defined for the person.
    rng : numpy.random.Generator
        Source of the resampling.
    level : float
        Share of intervals that hold the true mean.
    draws : int
        Number of resamples.

    Returns
    -------
    mean, low, high : float64 arrays (M,)
        NaN for a column without values; ``low`` and ``high`` equal the mean for a single value.

    Notes
    -----
    Percentile bootstrap (Efron and Tibshirani, 1993, chapter 13).

    Examples
    --------
    >>> mean, low, high = mean_intervals(np.arange(100.0)[:, None], rng=np.random.default_rng(0))
    >>> bool(low[0] < mean[0] == 49.5 < high[0])
    True
    """
    table = _matrix(values)
    known = ~np.isnan(table)
    filled = np.where(known, table, 0.0)
    mean = _ratio(filled.sum(axis=0), known.sum(axis=0).astype(np.float64))
    if not table.size:
        return mean, mean.copy(), mean.copy()
    whole = bool(known.all())
    means = []
    for counts in _resamples(len(table), draws, rng):
        below = np.full((len(counts), table.shape[1]), float(len(table))) if whole else counts @ known
        means.append(_ratio(counts @ filled, below))
    drawn = np.concatenate(means)
    low, high = np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    some = known.any(axis=0)
    edges = [(1 - level) / 2, (1 + level) / 2]
    if some.any():
        low[some], high[some] = np.nanquantile(drawn[:, some], edges, axis=0)
    return mean, low, high


def sign_flip(differences: ArrayLike, *, rng: np.random.Generator, draws: int = 10_000) -> Doubles:
    """Return the two-sided p-value that the mean of each column is 0: the paired permutation test over persons.

    Parameters
    ----------
    differences : float64 array (P, M)
        Value of one system minus that of the other, a row a person; NaN counts as no difference.
    rng : numpy.random.Generator
        Source of the signs.
    draws : int
        Number of random sign patterns; no p-value is below ``1 / (draws + 1)``.

    Returns
    -------
    float64 array (M,)
        1 for a column of zeros.

    Notes
    -----
    Under the null hypothesis each difference is as likely with the other sign (Fisher 1935; for retrieval
    Smucker, Allan and Carterette, CIKM 2007). Persons without any difference do not matter and are left out.
    """
    table = np.nan_to_num(_matrix(differences))
    table = table[(table != 0).any(axis=1)]
    total = table.sum(axis=0)
    extreme = np.ones(table.shape[1])
    for start in range(0, draws, step := max(1, _BLOCK // max(1, len(table)))):
        noise = rng.integers(0, 256, (min(step, draws - start), -(-len(table) // 8)), dtype=np.uint8)
        kept = np.unpackbits(noise, axis=1, count=len(table)).astype(np.float64) @ table
        extreme += (np.abs(2 * kept - total) >= np.abs(total) * (1 - 1e-9)).sum(axis=0)
    result: Doubles = extreme / (draws + 1)
    return result


def wilcoxon(differences: ArrayLike) -> Doubles:
    """Return the two-sided p-value of Wilcoxon's signed-rank test for each column of (P, M), zeros left out.

    Tests whether differences are symmetric around 0: with many persons it sees changes of order more than of size.
    """
    from scipy.stats import wilcoxon as test

    table = np.nan_to_num(_matrix(differences))
    moved = [column[column != 0] for column in table.T]
    return np.array([float(test(column, method="approx").pvalue) if column.size else 1.0 for column in moved])


def holm(p: ArrayLike) -> Doubles:
    """Return p-values adjusted for testing them all at once (Holm, 1979); same order as given.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def detectable_effect(differences: ArrayLike, *, alpha: float = 0.05, power: float = 0.8) -> Doubles:
    """Return the smallest true mean difference that a two-sided paired test finds with probability ``power``, (M,).

    ``(z(1 - alpha / 2) + z(power)) * sd / sqrt(P)`` with the standard deviation of each column of (P, M).
    NaN for fewer than two persons.
    """
    table = _matrix(differences)
    known = (~np.isnan(table)).sum(axis=0)
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    result = np.full(table.shape[1], np.nan)
    some = known > 1
    if some.any():
        result[some] = z * np.nanstd(table[:, some], axis=0, ddof=1) / np.sqrt(known[some])
    return result


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error, and how many degrees of freedom the error was estimated with.

    Parameters
    ----------
    mean : float
        What was estimated.
    error : float
        Standard error of the mean; NaN if it cannot be told.
    freedom : float
        Degrees of freedom of the error; infinite where it is known.
    """

    mean: float
    error: float
    freedom: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the ends of the t interval that holds the true mean with probability ``level``."""
        reach = self._t((1 + level) / 2) * self.error
        return self.mean - reach, self.mean + reach

    def p(self, margin: float = 0.0) -> float:
        """Return the two-sided p-value that the true mean is within ``margin`` of 0; 1 where the error is not known."""
        from scipy.special import stdtr

        beyond = abs(self.mean) - margin
        if not beyond > 0 or np.isnan(self.error):
            return 1.0
        return float(2 * stdtr(self.freedom, -beyond / self.error)) if self.error > 0 else 0.0

    def detectable(self, *, alpha: float = 0.05, power: float = 0.8) -> float:
        """Return the smallest true mean that a two-sided test at ``alpha`` finds with probability ``power``."""
        return (self._t(1 - alpha / 2) + self._t(power)) * self.error

    def _t(self, share: float) -> float:
        """Return the quantile of the t distribution."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, share)) if np.isfinite(self.freedom) else NormalDist().inv_cdf(share)


def differences(main: ArrayLike, rival: ArrayLike) -> Doubles:
    """Return what each person gains: the mean over the runs of one system, less that of another.

    Parameters
    ----------
    main, rival : float64 array (S, P) and (R, P)
        One row a run, one column a person.

    Returns
    -------
    float64 array (P,)
        Exactly 0 where the two means differ by no more than the rounding of a mean, so that equal systems with
        another number of runs, or with their runs in another order, are equal to every test.

    Examples
    --------
    >>> differences([[0.1], [0.1], [0.1]], [[0.1]])
    array([0.])
    """
    one, other = (_matrix(table).mean(axis=0) for table in (main, rival))
    gaps: Doubles = one - other
    gaps[np.abs(gaps) <= _ROUNDING * np.maximum(np.abs(one), np.abs(other))] = 0.0
    return gaps


def two_level(main: ArrayLike, rival: ArrayLike | None = None) -> Estimate:
    """Return the mean of ``main``, less that of ``rival``, where both persons and runs are samples.

    Parameters
    ----------
    main : float64 array (S, P)
        One row a run with another seed, one column a person.
    rival : float64 array (R, P), optional
        Runs of another system for the same persons, with seeds of their own.

    Returns
    -------
    Estimate
        Its error has one part for persons, and one for the runs of each system that ran more than once. A system
        with one run is taken as one without chance. NaN for fewer than two persons.

    Notes
    -----
    Persons and runs cross: each run serves each person. With ``d`` the difference of a person, averaged over runs, and
    ``m`` the mean of a run, the squared error is ``var(d) / P`` plus, for each system, ``var(m) / S`` less the share of
    it that single persons explain (``residual mean square / (P S)``), at least 0: variance components of the two-way
    layout (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4). Degrees of freedom as Satterthwaite
    (1946) combines them. A bootstrap of both levels (Owen, The pigeonhole bootstrap, 2007) has no such correction
    for few runs: ``docs/evaluation.md`` tells what that does.

    Examples
    --------
    >>> same = two_level([[0.1, 0.3, 0.2]], [[0.1, 0.2, 0.0]])
    >>> round(same.mean, 3), round(same.error, 3), same.freedom
    (0.1, 0.058, 2.0)
    """
    tables = [_matrix(table) for table in (main, rival) if table is not None]
    gaps = tables[0].mean(axis=0) if rival is None else differences(*tables)
    if gaps.size < 2:
        return Estimate(float(gaps.mean()) if gaps.size else float("nan"), float("nan"), 1.0)
    persons = float(gaps.var(ddof=1)) / gaps.size
    square, unsure = persons, persons**2 / (gaps.size - 1)
    for table in tables:
        whole, own = _of_runs(table)
        square += own
        unsure += whole**2 / (len(table) - 1) if own > 0 else 0.0
    return Estimate(float(gaps.mean()), square**0.5, square**2 / unsure if unsure > 0 else float(gaps.size - 1))


def _of_runs(table: Doubles) -> tuple[float, float]:
    """Return the squared error of the mean of all runs: as it looks, and without what single persons explain."""
    runs, persons = table.shape
    if runs < 2:
        return 0.0, 0.0
    table = table - table[0]  # changes nothing but that runs which all say the same have no error at all
    means = table.mean(axis=1)
    rest = table - means[:, None] - table.mean(axis=0) + means.mean()
    noise = float((rest**2).sum()) / ((runs - 1) * (persons - 1)) / persons
    whole = float(means.var(ddof=1))
    return whole / runs, max(0.0, whole - noise) / runs


def _resamples(persons: int, draws: int, rng: np.random.Generator) -> Iterator[Doubles]:
    """Yield blocks (draws of the block, P) of how often each person is drawn; each row sums to P."""
    step = max(1, _BLOCK // persons)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = rng.integers(0, persons, (rows, persons))
        drawn += np.arange(rows)[:, None] * persons
        yield np.bincount(drawn.reshape(-1), minlength=rows * persons).reshape(rows, persons).astype(np.float64)


def _matrix(values: ArrayLike) -> Doubles:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise DataError(f"expected a row a person and a column a quantity, got {table.ndim} dimension(s)")
    return table


def _ratio(top: Doubles, bottom: Doubles) -> Doubles:
    result: Doubles = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return result
