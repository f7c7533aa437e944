"""One section of a report as plain data: everything said about the systems on one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from isthmus.errors import DataError
from isthmus.evaluate.compare import compare, everybody, list_metrics, seed_spread, slices, summarise
from isthmus.evaluate.protocol import Outcome
from isthmus.evaluate.verdict import Curve, Verdict
from isthmus.files import Json
from isthmus.types import Floats


@dataclass(frozen=True)
class Section:
    """What a report shows of one task.

    Parameters
    ----------
    outcomes : sequence of Outcome
        All systems, judged on the same task.
    main : str
        The system the others are compared with.
    title : str
        Heading; the domain if empty.
    vectors : float32 array (T, D), optional
        Vectors of the items for the diversity of lists.
    blend : mapping
        What the blend uses: cohort to part to weight.
    tuning : sequence of mapping
        Rows of the tuning log, shown as given.
    seeds : sequence of Outcome
        Runs of the main system with different seeds.
    examples : sequence of mapping
        As :func:`isthmus.evaluate.cards.examples` gives them.
    verdict : Verdict, optional
        Whether transfer helped on this task.
    curve : Curve, optional
        What more target people bring.
    left_out : sequence of Outcome
        The main system without one part of what it knows each; the name is the part that is left out.
    """

    outcomes: Sequence[Outcome]
    main: str
    title: str = ""
    vectors: Floats | None = None
    blend: Mapping[str, object] = field(default_factory=dict)
    tuning: Sequence[Mapping[str, object]] = ()
    seeds: Sequence[Outcome] = ()
    examples: Sequence[Mapping[str, object]] = ()
    verdict: Verdict | None = None
    curve: Curve | None = None
    left_out: Sequence[Outcome] = ()


def describe(section: Section, *, metric: str = "ndcg@10", seed: int = 0) -> Json:
    """Return the content of a section as JSON values.

    Parameters
    ----------
    section : Section
        Outcomes and what belongs to them.
    metric : str
        The metric that is plotted and tested.
    seed : int
        Seed of intervals and tests.

    Raises
    ------
    DataError
        The outcomes do not belong to one task, ``main`` is not among them, or nobody measured ``metric``.
    """
    outcomes = section.outcomes
    whole = [everybody(outcomes[0].task)] if outcomes else []
    if outcomes and metric not in outcomes[0].metrics:
        raise DataError(f"no metric '{metric}'", fix=f"metrics: {', '.join(outcomes[0].metrics)}")
    tested = compare(outcomes, whole, metric, main=section.main, seed=seed)
    return {
        **_task_card(outcomes[0]),
        "title": section.title or outcomes[0].task.domain,
        "main": section.main,
        "metric": metric,
        "systems": _systems(section, metric, tested, seed),
        "slices": _slices(section, metric, seed),
        "blend": dict(section.blend),
        "tuning": [dict(row) for row in section.tuning],
        "seeds": seed_spread(section.seeds, list(section.seeds[0].metrics)).to_dicts() if section.seeds else [],
        "examples": [dict(example) for example in section.examples],
        "verdict": section.verdict.data if section.verdict else None,
        "curve": section.curve.data if section.curve else None,
        "contributions": _contributions(section, metric, seed),
    }


def _task_card(outcome: Outcome) -> Json:
    task = outcome.task
    return {
        "domain": task.domain,
        "part": task.part,
        "ks": list(outcome.ks),
        "persons": len(task),
        "items": int(task.items.size),
        "targets": int(task.targets.size),
        "unreachable": task.unreachable,
        "exclude_seen": task.exclude_seen,
    }


def _systems(section: Section, metric: str, tested: pl.DataFrame, seed: int) -> list[Json]:
    """Return a row a system, the best by ``metric`` first."""
    first = section.outcomes[0]
    table = summarise(section.outcomes, everybody(first.task), list(first.metrics), seed=seed)
    estimates = _estimates(table)
    tests = {row["system"]: row for row in tested.drop("slice").iter_rows(named=True)}
    rows: list[Json] = [
        {
            "name": outcome.system,
            "metrics": estimates[outcome.system],
            "test": tests.get(outcome.system),
            "lists": {str(k): list_metrics(outcome, k, section.vectors) for k in outcome.ks},
            "opposite": {name: outcome.other.mean(name) for name in outcome.metrics} if outcome.other else None,
            "seconds": outcome.seconds,
            "ranking_seconds": outcome.ranking_seconds,
        }
        for outcome in section.outcomes
    ]
    order = {outcome.system: -outcome.mean(metric) for outcome in section.outcomes}
    return sorted(rows, key=lambda row: order[str(row["name"])])


def _contributions(section: Section, metric: str, seed: int) -> list[Json]:
    """Return what the main system loses, in each slice, when a part of what it knows is left out."""
    if not section.left_out:
        return []
    main = next(outcome for outcome in section.outcomes if outcome.system == section.main)
    parts = [everybody(main.task), *slices(main.task)]
    table = compare([main, *section.left_out], parts, metric, main=section.main, seed=seed)
    shown = table.select(
        "slice", left_out="system", n="n", contribution="difference", low="low", high="high", p="p_holm"
    )
    return shown.sort("left_out", maintain_order=True).to_dicts()


def _slices(section: Section, metric: str, seed: int) -> list[Json]:
    """Return, for each slice, every system's estimate of the metric and its test against the main system."""
    parts = slices(section.outcomes[0].task)
    tested = compare(section.outcomes, parts, metric, main=section.main, seed=seed)
    shown = list(dict.fromkeys([metric, *(name for name in section.outcomes[0].metrics if name.startswith("recall"))]))
    rows: list[Json] = []
    for part in parts:
        table = summarise(section.outcomes, part, shown, seed=seed)
        tests = tested.filter(pl.col("slice") == part.name).drop("slice", "n")
        rows.append(
            {
                "name": part.name,
                "of": "persons" if part.targets is None else "items",
                "n": int(part.persons.sum()),
                "targets": int(
                    section.outcomes[0].task.target_rows.size if part.targets is None else part.targets.sum()
                ),
                "systems": _estimates(table),
                "tests": {row.pop("system"): row for row in tests.iter_rows(named=True)},
            }
        )
    return rows


def _estimates(table: pl.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Return system to metric to mean, low, high."""
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for system, metric, mean, low, high in table.select("system", "metric", "mean", "low", "high").iter_rows():
        nested.setdefault(system, {})[metric] = {"mean": mean, "low": low, "high": high}
    return nested
