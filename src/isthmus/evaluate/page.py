"""The page of a report: its plain data through one template, with styles and plots inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, cast

from jinja2 import Environment, StrictUndefined, Template

from isthmus.evaluate.forest import ARMS, curve, forest, result
from isthmus.evaluate.plots import Scale, axis, bar, interval
from isthmus.files import Json

#: Metrics as tables write them.
_TITLES: Final = {
    "recall": "Recall",
    "precision": "Precision",
    "f1": "F1",
    "hit_rate": "Hit rate",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "map": "MAP",
    "auc": "AUC",
}
_LISTS: Final = {
    "coverage": ("Coverage", "share of the catalogue that stands in some list"),
    "gini": ("Gini", "inequality of exposure: 0 all items alike, 1 one item has it all"),
    "novelty": ("Novelty", "mean self-information of listed items, bits"),
    "popularity": ("Popularity", "mean number of training persons of listed items"),
    "popularity_lift": ("Popularity lift", "popularity of the lists over that of the persons' own histories"),
    "diversity": ("Diversity", "one minus the mean cosine of the items of a list"),
}
#: A corrected p-value below this counts as a difference.
ALPHA: Final = 0.05

Row = dict[str, object]
Estimate = Mapping[str, float | None]


def render(data: Json) -> str:
    """Return the HTML page of a report's data."""
    sections = [_view(section) for section in cast("list[Json]", data["sections"])]
    return _template().render(report=data, sections=sections, style=_read("report.css"))


def name_of(metric: str) -> str:
    """Return a metric's name as tables write it.

    Examples
    --------
    >>> name_of("ndcg@10")
    'NDCG@10'
    """
    name, at, k = metric.partition("@")
    return f"{_TITLES.get(name, name)}{at}{k}"


def number(value: object, digits: int = 4) -> str:
    """Return a number as tables write it; a dash where there is none.

    Examples
    --------
    >>> number(0.12345), number(None), number(12345.6, 1), number(7)
    ('0.1235', '–', '12,345.6', '7')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return str(value)
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
    return text.replace("-", "−")


def chance(p: object) -> str:
    """Return a p-value as tables write it.

    Examples
    --------
    >>> chance(0.0123), chance(0.00001), chance(None)
    ('0.012', '< 0.001', '–')
    """
    if not isinstance(p, (int, float)):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict(test: Mapping[str, object] | None) -> str:
    """Return ``win`` or ``loss`` where the main system differs from a rival after correction, else an empty string."""
    if not test or not isinstance(p := test["p_holm"], float) or p >= ALPHA:
        return ""
    return "win" if cast("float", test["difference"]) > 0 else "loss"


def triple(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    """Return mean (or difference), low and high of an estimate."""
    if estimate is None:
        return None, None, None
    return estimate.get("mean", estimate.get("difference")), estimate["low"], estimate["high"]


def columns(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return all keys of some rows, in the order they come."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _view(section: Json) -> Row:
    """Return what the template needs to show a section beside its data."""
    systems = cast("list[Json]", section["systems"])
    metric, main = str(section["metric"]), str(section["main"])
    ks = cast("list[int]", section["ks"])
    parts = cast("list[Json]", section["slices"])
    platforms = [part for part in parts if str(part["name"]).startswith("platform ")]
    others = [part for part in parts if part not in platforms]
    whole = [cast("dict[str, Estimate]", system["metrics"]) for system in systems]
    return {
        **section,
        "metric_name": name_of(metric),
        "scale": Scale.over(value for row in whole for value in triple(row[metric])),
        "first": [f"{name}@{k}" for k in ks for name in ("ndcg", "recall")],
        "more": [f"{name}@{k}" for k in ks for name in ("hit_rate", "mrr", "map", "precision", "f1")] + ["auc"],
        "best": {name: max((row[name]["mean"] or 0.0) for row in whole) for name in (whole[0] if whole else ())},
        "leader": next((system for system in systems if system["name"] == main), None),
        "rival": next((system for system in systems if system["name"] != main), None),
        "groups": [
            _group(title, found, metric, main)
            for title, found in (("People and items", others), ("Platforms", platforms if len(platforms) > 1 else []))
            if found
        ],
        "list_names": [name for name in _LISTS if name in columns([_lists(system, ks[0]) for system in systems])],
        "weights": _weights(section["blend"]),
        "verdict": section.get("verdict"),
        "curve": section.get("curve"),
        "contributions": section.get("contributions"),
    }


def _lists(system: Json, k: int) -> Row:
    return cast("dict[str, Row]", system["lists"])[str(k)]


def _group(title: str, parts: Sequence[Json], metric: str, main: str) -> Row:
    """Return a table of slices: the main system, its best rival there, and the difference."""
    rows = []
    for part in parts:
        systems = cast("dict[str, dict[str, Estimate]]", part["systems"])
        rivals = {name: found[metric]["mean"] or 0.0 for name, found in systems.items() if name != main}
        rival = max(rivals, key=lambda name: rivals[name]) if rivals else None
        tests = cast("dict[str, Json]", part["tests"])
        rows.append(
            {
                "part": part,
                "main": systems[main][metric],
                "rival": rival,
                "rival_estimate": systems[rival][metric] if rival else None,
                "test": tests.get(rival) if rival else None,
            }
        )
    edges = [
        value for row in rows for key in ("main", "rival_estimate") for value in triple(cast("Estimate", row[key]))
    ]
    gaps = [value for row in rows for value in triple(cast("Estimate", row["test"]))]
    names = list(cast("dict[str, object]", parts[0]["systems"]))
    return {"title": title, "rows": rows, "scale": Scale.over(edges), "gap_scale": Scale.over(gaps), "names": names}


def _weights(blend: object) -> list[Row]:
    """Return the cohorts of a blend whose parts are numbers, each with its own scale."""
    found: list[Row] = []
    for cohort, parts in cast("Mapping[str, object]", blend).items():
        if isinstance(parts, Mapping):
            numbers = {name: float(value) for name, value in parts.items() if isinstance(value, (int, float))}
            ordered = dict(sorted(numbers.items(), key=lambda pair: -abs(pair[1])))
            found.append({"cohort": cohort, "parts": ordered, "scale": Scale.over(ordered.values())})
    return found


def _read(name: str) -> str:
    return files("isthmus.evaluate").joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    shared = {
        "arm_titles": ARMS,
        "axis": axis,
        "bar": bar,
        "curve": curve,
        "forest": forest,
        "interval": interval,
        "Scale": Scale,
        "chance": chance,
        "columns": columns,
        "list_titles": _LISTS,
        "name_of": name_of,
        "number": number,
        "result": result,
        "triple": triple,
        "verdict": verdict,
    }
    environment.globals.update(shared)
    return environment.from_string(_read("report.html"))
