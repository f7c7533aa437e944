"""Did transfer help? One word and one sentence, against every rival, with what the test could have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl

from isthmus.errors import DataError, InputError
from isthmus.evaluate.compare import everybody, require_same_task, seed_spread, slices
from isthmus.evaluate.gaps import Gap, Result, corrected, frame, gaps_in, values_of
from isthmus.evaluate.protocol import Outcome
from isthmus.evaluate.sentences import NO_SOURCE, Teller
from isthmus.evaluate.stats import two_level
from isthmus.files import Json


@dataclass(frozen=True)
class Finding:
    """The outcome against one rival.

    Parameters
    ----------
    rival : str
        Name of the arm.
    outcome : str
        ``helped``, ``no detectable difference`` or ``hurt``.
    sentence : str
        The same in words and numbers.
    """

    rival: str
    outcome: Result
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """Whether transfer helped on one task; made by :meth:`Verdict.of`.

    Parameters
    ----------
    main : str
        The arm that is judged.
    metric : str
        The metric it is judged by.
    outcome : str
        ``helped`` if better than every rival; ``hurt`` if worse than a rival that used no source
        (:data:`NO_SOURCE`); else ``no detectable difference``. All after correction.
    sentence : str
        The same in words and numbers.
    findings : tuple of Finding
        One for each rival.
    arms : polars.DataFrame
        arm, role (main, rival, control), runs, mean, low, high (95 % over persons and runs), sd (of the means of the
        runs; null for one run).
    table : polars.DataFrame
        A row for each rival and slice, and for each control: ``main`` and ``other`` (means), ``difference`` with its
        standard ``error`` (``freedom`` degrees of freedom) and 95 % interval over persons and runs (``low``, ``high``),
        the bootstrap interval over persons alone (``low_persons``, ``high_persons``); ``p_persons`` (sign-flip over
        persons), ``p_runs`` (t test over persons and runs), ``p`` (the larger), ``p_holm`` (corrected); ``detectable``
        (smallest true difference found 8 times in 10 at the corrected level); ``outcome``.
    domain : str
        Domain of the task.
    seed : int
        Seed of the resampling.
    margin : float or None
        Differences up to this count as none.
    """

    main: str
    metric: str
    outcome: Result
    sentence: str
    findings: tuple[Finding, ...]
    arms: pl.DataFrame
    table: pl.DataFrame
    domain: str
    seed: int = 0
    margin: float | None = None

    @classmethod
    def of(
        cls,
        arms: Mapping[str, Sequence[Outcome]],
        *,
        main: str = "transfer",
        rivals: Sequence[str] = NO_SOURCE,
        metric: str = "ndcg@10",
        seed: int = 0,
        margin: float | None = None,
    ) -> Verdict:
        """Return the verdict on some arms, each run with one or more seeds on the same task.

        Parameters
        ----------
        arms : mapping of str to sequence of Outcome
            Arm to its runs. An arm with one run is taken as one without chance. Arms that are neither ``main`` nor in
            ``rivals`` are controls: compared on the whole task, without a say in the outcome.
        main : str
            The arm that is judged.
        rivals : sequence of str
            The arms that it must beat.
        metric : str
            One ranking metric.
        seed : int
            Seed of the resampling.
        margin : float, optional
            Smallest difference that matters: smaller ones count as none, and a test asks for more than this
            (minimum-effect test, Murphy and Myors 1999).

        Raises
        ------
        DataError
            An arm or the metric is missing, an arm has no run, or the runs are of different tasks.
        InputError
            A negative margin.

        Notes
        -----
        A difference counts if both tests see it: the sign-flip test over persons, of the values averaged over runs, and
        the t test of :func:`isthmus.evaluate.stats.two_level`, to which the runs too are a sample. Holm's correction
        runs over all rivals for the whole task, and over all rivals times all slices for the slices.
        """
        _check(arms, (main, *rivals), metric, margin)
        gaps = _families(arms, (main, *rivals), metric, seed=seed, margin=margin or 0.0)
        teller = Teller(main, metric, gaps)
        outcome, sentence = teller.overall()
        return cls(
            main=main,
            metric=metric,
            outcome=outcome,
            sentence=sentence,
            findings=tuple(Finding(gap.rival, gap.outcome, teller.one(gap)) for gap in teller.whole),
            arms=_arms(arms, (main, *rivals), metric),
            table=frame(gaps),
            domain=arms[main][0].task.domain,
            seed=seed,
            margin=margin,
        )

    @property
    def data(self) -> Json:
        """Everything in the verdict, as JSON values; a number without a value is None."""
        return {
            "domain": self.domain,
            "main": self.main,
            "metric": self.metric,
            "outcome": self.outcome,
            "sentence": self.sentence,
            "findings": [asdict(finding) for finding in self.findings],
            "arms": self.arms.fill_nan(None).to_dicts(),
            "rows": self.table.fill_nan(None).to_dicts(),
            "seed": self.seed,
            "margin": self.margin,
        }


@dataclass(frozen=True)
class Curve:
    """A metric over the share of target people that was learned from; made by :func:`few_shot_curve`.

    Parameters
    ----------
    metric : str
        Name of the metric.
    table : polars.DataFrame
        arm, share, n, runs, mean, low, high (95 % over persons and runs); shares rise.
    """

    metric: str
    table: pl.DataFrame

    @property
    def data(self) -> Json:
        """Everything in the curve, as JSON values."""
        return {"metric": self.metric, "rows": self.table.fill_nan(None).to_dicts()}


def few_shot_curve(points: Mapping[str, Mapping[float, Sequence[Outcome]]], *, metric: str = "ndcg@10") -> Curve:
    """Return how the metric of each arm grows with the share of target people that it learned from.

    Parameters
    ----------
    points : mapping of str to mapping of float to sequence of Outcome
        Arm to share (0 to 1) to its runs; all judged on the same persons.
    metric : str
        One ranking metric.

    Raises
    ------
    DataError
        A share is outside 0 to 1, a point has no run, the metric is missing, or the runs are of different tasks.
    """
    found = [(arm, share, shares[share]) for arm, shares in points.items() for share in sorted(shares)]
    for arm, share, runs in found:
        if not 0 <= share <= 1:
            raise DataError(f"share {share} is not between 0 and 1", where=f"arm {arm}", fix="write 10 % as 0.1")
        _has(runs, arm, metric)
    require_same_task([outcome for _, _, runs in found for outcome in runs])
    rows = [{"arm": arm, "share": float(share), **_estimate(runs, metric)} for arm, share, runs in found]
    return Curve(metric, pl.DataFrame(rows))


def _families(
    arms: Mapping[str, Sequence[Outcome]], named: Sequence[str], metric: str, *, seed: int, margin: float
) -> list[Gap]:
    """Return all rows, corrected in three families: rivals on the whole task, rivals in slices, controls."""
    task = arms[named[0]][0].task
    whole = everybody(task)
    rivals = {name: arms[name] for name in named}
    controls = {name: runs for name, runs in arms.items() if name == named[0] or name not in named}
    families = [
        ("rival", gaps_in(whole, rivals, metric, seed=seed, margin=margin)),
        ("rival", [gap for part in slices(task) for gap in gaps_in(part, rivals, metric, seed=seed, margin=margin)]),
        ("control", gaps_in(whole, controls, metric, seed=seed, margin=margin) if len(controls) > 1 else []),
    ]
    return [replace(gap, role=role) for role, gaps in families for gap in corrected(gaps, margin)]


def _arms(arms: Mapping[str, Sequence[Outcome]], named: Sequence[str], metric: str) -> pl.DataFrame:
    """Return one row an arm, in the order of main, rivals, controls."""
    rows = []
    for name in [*named, *(name for name in arms if name not in named)]:
        role = "main" if name == named[0] else "rival" if name in named else "control"
        spread = seed_spread(arms[name], [metric])["sd"].item()
        rows.append({"arm": name, "role": role, **_estimate(arms[name], metric), "sd": spread})
    return pl.DataFrame(rows, schema_overrides={"sd": pl.Float64})


def _estimate(runs: Sequence[Outcome], metric: str) -> dict[str, float]:
    """Return the mean of an arm over persons and runs with its interval."""
    values = values_of(everybody(runs[0].task), runs, metric)
    values = values[:, ~np.isnan(values).any(axis=0)]
    found = two_level(values)
    low, high = found.interval()
    return {"n": values.shape[1], "runs": len(values), "mean": found.mean, "low": low, "high": high}


def _check(arms: Mapping[str, Sequence[Outcome]], names: Sequence[str], metric: str, margin: float | None) -> None:
    """Refuse arms that no verdict can be made of."""
    if not (margin or 0.0) >= 0:
        raise InputError(f"margin {margin} is not 0 or more", fix="give the smallest difference that matters, or none")
    missing = [name for name in names if name not in arms]
    if missing:
        raise DataError(f"no arm '{missing[0]}'", fix=f"arms: {', '.join(arms) or 'none'}; name main and rivals")
    if len(set(names)) < len(names) or len(names) < 2:
        raise DataError("main and rivals must be two or more different arms", where=", ".join(names))
    for name, runs in arms.items():
        _has(runs, name, metric)
    require_same_task([outcome for runs in arms.values() for outcome in runs])


def _has(runs: Sequence[Outcome], arm: str, metric: str) -> None:
    if not runs:
        raise DataError("has no run", where=f"arm {arm}", fix="judge it with one or more seeds")
    if any(metric not in run.metrics for run in runs):
        raise DataError(f"no metric '{metric}'", where=f"arm {arm}", fix=f"metrics: {', '.join(runs[0].metrics)}")
