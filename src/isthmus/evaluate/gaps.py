"""Arms side by side, each with one or more runs: paired differences to which both persons and runs are samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Final, Literal

import numpy as np
import polars as pl

from isthmus.evaluate.compare import Slice
from isthmus.evaluate.page import ALPHA
from isthmus.evaluate.protocol import Outcome
from isthmus.evaluate.ranks import Doubles
from isthmus.evaluate.stats import Estimate, differences, holm, mean_intervals, sign_flip, two_level
from isthmus.rng import generator

Result = Literal["helped", "no detectable difference", "hurt"]
HELPED: Final = "helped"
NONE: Final = "no detectable difference"
HURT: Final = "hurt"
#: Name of the slice of all persons, in the column ``of`` too.
ALL: Final = "all"
_DRAWS: Final = 10_000


@dataclass(frozen=True)
class Gap:
    """One arm against another in one slice; the columns are explained at :class:`isthmus.evaluate.verdict.Verdict`."""

    rival: str
    role: str
    of: str
    slice: str
    n: int
    runs: int
    rival_runs: int
    main: float
    other: float
    difference: float
    error: float
    freedom: float
    low: float
    high: float
    low_persons: float
    high_persons: float
    p_persons: float
    p_runs: float
    p: float
    p_holm: float = 1.0
    detectable: float = float("nan")
    outcome: Result = NONE


_KINDS: Final = {"str": pl.String, "int": pl.Int64, "float": pl.Float64, "Result": pl.String}


def frame(gaps: Sequence[Gap]) -> pl.DataFrame:
    """Return one row a gap."""
    schema = {part.name: _KINDS[str(part.type)] for part in fields(Gap)}
    return pl.DataFrame([asdict(gap) for gap in gaps], schema=schema)


def values_of(part: Slice, runs: Sequence[Outcome], metric: str) -> Doubles:
    """Return the metric of each run and person of a slice, (S, n)."""
    return np.stack([part.values(run, [metric])[:, 0] for run in runs])


def gaps_in(
    part: Slice, arms: Mapping[str, Sequence[Outcome]], metric: str, *, seed: int = 0, margin: float = 0.0
) -> list[Gap]:
    """Return the first arm against each other one in a slice, not yet corrected.

    Parameters
    ----------
    part : Slice
        Persons without a value in some run are left out.
    arms : mapping of str to sequence of Outcome
        Arm to its runs, all of one task.
    metric : str
        One ranking metric.
    seed : int
        Seed of the resampling.
    margin : float
        Differences up to this count as none.
    """
    tables = {name: values_of(part, runs, metric) for name, runs in arms.items()}
    known = ~np.any([np.isnan(table).any(axis=0) for table in tables.values()], axis=0)
    if not known.any():
        return []
    first, *rest = (table[:, known] for table in tables.values())
    gaps = np.stack([differences(first, table) for table in rest], axis=1)
    rng = generator(seed, "verdict", part.name, metric)
    mean, low, high = mean_intervals(gaps, rng=rng, draws=_DRAWS // 10)
    flipped = sign_flip(gaps - np.sign(mean) * margin, rng=rng, draws=_DRAWS)
    of = ("persons" if part.targets is None else "items") if part.name != ALL else ALL
    made = []
    for i, (name, table) in enumerate(zip(list(arms)[1:], rest, strict=True)):
        found, means = two_level(first, table), (float(first.mean()), float(table.mean()))
        p_runs, p_persons = found.p(margin), float(flipped[i]) if abs(mean[i]) > margin else 1.0
        ends = (*found.interval(), float(low[i]), float(high[i]))
        counts = (int(known.sum()), len(first), len(table))
        error = (found.mean, found.error, found.freedom)
        tests = (p_persons, p_runs, max(p_persons, p_runs))
        made.append(Gap(name, "", of, part.name, *counts, *means, *error, *ends, *tests))
    return made


def corrected(gaps: Sequence[Gap], margin: float = 0.0) -> list[Gap]:
    """Return the rows of one family of tests with Holm's correction, what they could have seen, and their outcome."""
    made = []
    for gap, p in zip(gaps, holm([gap.p for gap in gaps]).tolist(), strict=True):
        found = Estimate(gap.difference, gap.error, gap.freedom)
        seen = margin + found.detectable(alpha=ALPHA / len(gaps))
        outcome: Result = NONE if p >= ALPHA else HELPED if gap.difference > 0 else HURT
        made.append(replace(gap, p_holm=p, detectable=seen, outcome=outcome))
    return made
