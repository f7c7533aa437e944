"""Outcomes side by side: slices of persons and catalogue, intervals, paired differences, metrics of the lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from isthmus.errors import DataError
from isthmus.evaluate import lists
from isthmus.evaluate.protocol import Outcome
from isthmus.evaluate.ranks import Doubles
from isthmus.evaluate.stats import detectable_effect, holm, mean_intervals, sign_flip, wilcoxon
from isthmus.rng import generator
from isthmus.split.task import Task
from isthmus.types import Bools, Floats


@dataclass(frozen=True)
class Slice:
    """Some persons of a task, and which of their targets count.

    Parameters
    ----------
    name : str
        Name in tables.
    persons : bool array (P,)
        Persons that count; each has a target that counts.
    targets : bool array (nnz,) or None
        Targets that count; None for all.
    """

    name: str
    persons: Bools
    targets: Bools | None = None

    def values(self, outcome: Outcome, metrics: Sequence[str]) -> Doubles:
        """Return the metrics of the persons of this slice, (n, len(metrics))."""
        table = outcome.metrics if self.targets is None else outcome.on(self.targets)
        return np.stack([table[metric][self.persons] for metric in metrics], axis=1)


def everybody(task: Task) -> Slice:
    """Return the slice of all persons and all targets."""
    return Slice("all", np.ones(len(task), dtype=bool))


def slices(task: Task) -> list[Slice]:
    """Return a slice for each cohort of persons and for each group of the catalogue, empty ones left out.

    In a slice of the catalogue only targets of that group count, at their places in the whole ranking.
    """
    cohorts = [Slice(name, flags) for name, flags in task.cohorts.items()]
    rows = task.target_rows
    groups = []
    for name, columns in task.item_groups.items():
        targets = columns[task.targets]
        groups.append(Slice(name, np.bincount(rows[targets], minlength=len(task)) > 0, targets))
    return [part for part in cohorts + groups if part.persons.any()]


def summarise(
    outcomes: Sequence[Outcome], part: Slice, metrics: Sequence[str], *, seed: int = 0, draws: int = 1000
) -> pl.DataFrame:
    """Return each system's mean of each metric in a slice, with 95 % bootstrap intervals over persons.

    Returns
    -------
    polars.DataFrame
        slice, system, metric, mean, low, high, n; systems in the order given. All systems share the resamples.
    """
    _same_task(outcomes)
    values = np.concatenate([part.values(outcome, metrics) for outcome in outcomes], axis=1)
    rng = generator(seed, "summarise", part.name)
    mean, low, high = mean_intervals(values, rng=rng, draws=draws)
    return pl.DataFrame(
        {
            "slice": part.name,
            "system": np.repeat([outcome.system for outcome in outcomes], len(metrics)),
            "metric": list(metrics) * len(outcomes),
            "mean": mean,
            "low": low,
            "high": high,
            "n": int(part.persons.sum()),
        }
    )


def compare(
    outcomes: Sequence[Outcome],
    parts: Sequence[Slice],
    metric: str,
    *,
    main: str,
    seed: int = 0,
    draws: int = 10_000,
) -> pl.DataFrame:
    """Return the paired difference of the main system to each other system, in each slice.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of the same task; one of them is ``main``.
    parts : sequence of Slice
        Where to compare.
    metric : str
        One metric, for example ``ndcg@10``.
    main : str
        Name of the system that the others are compared with.
    seed : int
        Seed of the resampling.
    draws : int
        Sign patterns of the test; a tenth of it resamples for the interval.

    Returns
    -------
    polars.DataFrame
        slice, system (the rival), n, difference (main minus rival), low, high (95 % bootstrap), p (sign-flip
        permutation over persons), p_holm (corrected over all rows of this table), p_wilcoxon, detectable (smallest
        true difference found 8 times in 10).
    """
    _same_task(outcomes)
    named = {outcome.system: outcome for outcome in outcomes}
    if main not in named:
        raise DataError(f"no system '{main}'", fix=f"systems: {', '.join(named)}")
    rivals = [name for name in named if name != main]
    frames = [_gaps(part, named, (main, *rivals), metric, (seed, draws)) for part in parts if rivals]
    table = pl.concat([pl.DataFrame(schema=_COMPARED), *frames])
    return table.with_columns(p_holm=pl.Series(holm(table["p"].to_numpy()), dtype=pl.Float64))


_COMPARED = {
    "slice": pl.String,
    "system": pl.String,
    "n": pl.Int64,
    **dict.fromkeys(("difference", "low", "high", "p", "p_holm", "p_wilcoxon", "detectable"), pl.Float64),
}


def _gaps(
    part: Slice, named: dict[str, Outcome], names: tuple[str, ...], metric: str, chance: tuple[int, int]
) -> pl.DataFrame:
    """Return the rows of one slice: the first of ``names`` against the rest, not yet corrected."""
    values = np.concatenate([part.values(named[name], [metric]) for name in names], axis=1)
    gaps = values[:, :1] - values[:, 1:]
    (seed, draws), rivals = chance, list(names[1:])
    rng = generator(seed, "compare", part.name, metric)
    mean, low, high = mean_intervals(gaps, rng=rng, draws=max(draws // 10, 200))
    p, n = sign_flip(gaps, rng=rng, draws=draws), [int(part.persons.sum())] * len(rivals)
    rows = ([part.name] * len(rivals), rivals, n, mean, low, high, p, p, wilcoxon(gaps), detectable_effect(gaps))
    return pl.DataFrame(dict(zip(_COMPARED, rows, strict=True)), schema=_COMPARED)


def list_metrics(outcome: Outcome, k: int, vectors: Floats | None = None) -> dict[str, float]:
    """Return what the first ``k`` places of all lists are like together.

    Parameters
    ----------
    outcome : Outcome
        Its lists are at least ``k`` long.
    k : int
        List length.
    vectors : float32 array (T, D), optional
        A vector for each column; needed for the diversity of lists.

    Returns
    -------
    dict of str to float
        ``coverage``, ``gini``, ``novelty`` (bits), ``popularity`` (mean training persons of listed items),
        ``popularity_lift`` (that over the mean of the persons' own histories in the domain; 1 means no bias),
        ``diversity`` if ``vectors`` are given.
    """
    task, top = outcome.task, outcome.top[:, :k]
    if k > outcome.top.shape[1]:
        raise DataError(f"lists have {outcome.top.shape[1]} places, not {k}", where=f"system {outcome.system}")
    popularity = lists.mean_popularity(top, task.popularity)
    rows, columns = task.seen(0, len(task))
    past = float(task.popularity[columns].mean()) if rows.size else float("nan")
    table = {
        "coverage": lists.coverage(top, task.items.size),
        "gini": lists.gini(top, task.items.size),
        "novelty": lists.novelty(top, task.popularity, task.train_persons),
        "popularity": popularity,
        "popularity_lift": popularity / past if past > 0 else float("nan"),
    }
    return table if vectors is None else {**table, "diversity": lists.diversity(top, vectors)}


def seed_spread(outcomes: Sequence[Outcome], metrics: Sequence[str]) -> pl.DataFrame:
    """Return how much the metrics of one system vary over runs with other seeds.

    Returns
    -------
    polars.DataFrame
        metric, seeds (number of runs), mean, sd (between runs; null for one run), low, high (smallest and largest).
    """
    means = pl.DataFrame({metric: [outcome.mean(metric) for outcome in outcomes] for metric in metrics})
    long = means.unpivot(variable_name="metric")
    return long.group_by("metric", maintain_order=True).agg(
        seeds=pl.len(),
        mean=pl.col("value").mean(),
        sd=pl.col("value").std(),
        low=pl.col("value").min(),
        high=pl.col("value").max(),
    )


def require_same_task(outcomes: Sequence[Outcome]) -> None:
    """Refuse outcomes that cannot be paired person by person.

    Raises
    ------
    DataError
        There are none, or they differ in persons, right answers, the rule for seen items, or list lengths.
    """
    if not outcomes:
        raise DataError("no outcomes to compare", fix="judge at least one system")
    first = outcomes[0].task
    for outcome in outcomes:
        task = outcome.task
        same = np.array_equal(task.persons, first.persons) and np.array_equal(task.targets, first.targets)
        if not same or task.exclude_seen != first.exclude_seen or outcome.ks != outcomes[0].ks:
            raise DataError("was judged on another task", where=f"system {outcome.system}", fix="judge all alike")


def _same_task(outcomes: Sequence[Outcome]) -> None:
    """Refuse outcomes that cannot be paired, or that cannot be told apart by name."""
    names = [outcome.system for outcome in outcomes]
    if len(set(names)) < len(names):
        raise DataError(f"two systems have one name: {', '.join(sorted(names))}", fix="name each system differently")
    require_same_task(outcomes)
