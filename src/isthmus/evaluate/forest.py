"""The plots of a verdict: differences by slice (forest plot), and a metric over the share of target people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import log10
from typing import Final, cast

from markupsafe import Markup

from isthmus.evaluate.plots import Scale, axis, interval

#: What the usual arms are.
ARMS: Final = {
    "transfer": "Learned from the source domains first, then adapted to the target.",
    "scratch": "The same model, steps and seeds, from random weights: the difference is what pre-training brought.",
    "no source": "The best blend of methods that learn from the target alone.",
    "shuffled": "A control: transfer with the events of each history in random order. Where it does as well, the order "
    "of events brought nothing.",
}
#: A slice with fewer persons does not widen the axis; its interval may leave the plot.
_STEADY: Final = 30
#: Lines of a plot: the first is the main arm's.
_LINES: Final = 6
#: Free room in a plot of lines, in percent of its width or height: left of the first point, right, above, below.
_LEFT, _RIGHT, _TOP, _BOTTOM = 12.0, 5.0, 5.0, 12.0

Row = Mapping[str, object]


def result(outcome: str) -> str:
    """Return the CSS class of an outcome: ``win``, ``loss``, or empty.

    Examples
    --------
    >>> result("helped"), result("hurt"), result("no detectable difference")
    ('win', 'loss', '')
    """
    return {"helped": "win", "hurt": "loss"}.get(outcome, "")


def signed(value: float | None) -> str:
    """Return a difference as tables and sentences write it.

    Examples
    --------
    >>> signed(0.00412), signed(-0.5), signed(-0.00001), signed(None)
    ('+0.0041', '−0.5000', '0.0000', '–')
    """
    if value is None:
        return "–"
    return f"{value:+.4f}".replace("-", "−") if round(value, 4) else "0.0000"


def forest(rows: Sequence[Row]) -> Markup:
    """Return differences by slice, grouped by rival: a point, its interval and the number of persons, on one axis.

    Parameters
    ----------
    rows : sequence of mapping
        ``rows`` of :attr:`isthmus.evaluate.verdict.Verdict.data`.
    """
    if not rows:
        return Markup("")
    scale = _scale(rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["rival"]), []).append(row)
    head = Markup('<tbody><tr class="group"><th colspan="3" scope="rowgroup">against {}{}</th></tr>{}</tbody>')
    bodies = [
        head.format(
            rival,
            Markup(' <span class="soft small">control</span>') if found[0]["role"] == "control" else "",
            Markup("").join(_line(row, scale) for row in found),
        )
        for rival, found in groups.items()
    ]
    foot = Markup('<tfoot><tr><th></th><td class="plot">{}</td><td></td></tr></tfoot>').format(axis(scale))
    return Markup('<div class="scroll"><table class="forest">{}{}</table></div>').format(Markup("").join(bodies), foot)


def curve(rows: Sequence[Row]) -> Markup:
    """Return lines of a metric over the share of target people: a logarithmic axis that begins with 0.

    Parameters
    ----------
    rows : sequence of mapping
        ``rows`` of :attr:`isthmus.evaluate.verdict.Curve.data`.
    """
    if not rows:
        return Markup("")
    shares = sorted({_of(row, "share") or 0.0 for row in rows})
    places = dict(zip(shares, places_of(shares), strict=True))
    scale = Scale.over(_of(row, key) for row in rows for key in ("mean", "low", "high"))
    arms = list(dict.fromkeys(str(row["arm"]) for row in rows))
    lines = [
        _points([row for row in rows if row["arm"] == arm], places, scale, kind=f"line-{i % _LINES}")
        for i, arm in enumerate(arms)
    ]
    label = f"{', '.join(arms)} by share of target people"
    plot = Markup('<svg class="curve" role="img" aria-label="{}">{}{}</svg>').format(
        label, _frame(places, scale), Markup("").join(lines)
    )
    key = Markup("").join(Markup('<li class="line-{}">{}</li>').format(i % _LINES, arm) for i, arm in enumerate(arms))
    return Markup('<figure class="card">{}<ul class="key">{}</ul></figure>').format(plot, key)


def places_of(shares: Sequence[float]) -> list[float]:
    """Return where each share stands, in percent: by its logarithm, and 0 one step before the smallest other.

    Examples
    --------
    >>> places_of([0.0, 0.01, 0.1, 1.0])
    [12.0, 39.667, 67.333, 95.0]
    """
    known = [log10(share) for share in shares if share > 0]
    step = min([b - a for a, b in pairwise(known)] + [1.0]) if known else 1.0
    step = max(step, (known[-1] - known[0]) / 3) if known else step
    at = [log10(share) if share > 0 else (known[0] - step if known else 0.0) for share in shares]
    wide = at[-1] - at[0]
    return [round(_LEFT + (100 - _LEFT - _RIGHT) * ((x - at[0]) / wide if wide else 0.5), 3) for x in at]


def _scale(rows: Sequence[Row]) -> Scale:
    """Return an axis for all points, and the intervals of slices that are not tiny; 0 has a label."""
    steady = [row for row in rows if (_of(row, "n") or 0) >= _STEADY] or rows
    edges = [_of(row, key) for row in steady for key in ("low", "high")]
    scale = Scale.over([*edges, *(_of(row, "difference") for row in rows)])
    below = round(-scale.low / scale.step)
    # every second tick has a label where there are many: 0 shall have one
    return replace(scale, low=scale.low - scale.step) if below % 2 and len(scale.ticks) > 4 else scale


def _line(row: Row, scale: Scale) -> Markup:
    """Return one row: name and n, point and interval, the difference in figures."""
    kind = result(str(row["outcome"]))
    found = (_of(row, "difference"), _of(row, "low"), _of(row, "high"))
    cut = " low-cut" * (found[1] is not None and found[1] < scale.low - 1e-12)
    cut += " high-cut" * (found[2] is not None and found[2] > scale.high + 1e-12)
    return Markup(
        '<tr class="{}"><th scope="row">{}<small>n = {}</small></th><td class="plot{}">{}</td>'
        '<td class="num {}">{}<small>{}</small></td></tr>'
    ).format(
        "whole" if row["of"] == "all" else "",
        "all people" if row["of"] == "all" else row["slice"],
        f"{row['n']:,}",
        cut,
        interval(scale, found, kind=kind),
        kind,
        signed(found[0]),
        "" if found[1] is None else f"{signed(found[1])} to {signed(found[2])}",
    )


def _frame(places: Mapping[float, float], scale: Scale) -> Markup:
    """Return grid and labels of a plot of lines."""
    grid = Markup('<line class="grid" x1="{}%" x2="{}%" y1="{}%" y2="{}%"/>')
    text = Markup('<text x="{}%" y="{}%" dy="{}" text-anchor="{}">{}</text>')
    parts = []
    for tick in scale.ticks:
        y = _height(scale, tick)
        parts += [grid.format(_LEFT - 2, 100, y, y), text.format(_LEFT - 3, y, "0.35em", "end", f"{tick:g}")]
    for share, x in places.items():
        name = f"{100 * share:g} %" if share else "0"
        parts += [grid.format(x, x, _TOP, 100 - _BOTTOM), text.format(x, 100, "-0.3em", "middle", name)]
    return Markup("").join(parts)


def _points(rows: Sequence[Row], places: Mapping[float, float], scale: Scale, *, kind: str) -> Markup:
    """Return the line of one arm: a point and an interval at each share, joined."""
    line = Markup('<line class="{}" x1="{}%" y1="{}%" x2="{}%" y2="{}%"/>')
    dot = Markup('<circle class="dot" cx="{}%" cy="{}%" r="4"><title>{}</title></circle>')
    known = [(places[_of(row, "share") or 0.0], mean, row) for row in rows if (mean := _of(row, "mean")) is not None]
    at = [(x, _height(scale, mean)) for x, mean, _ in known]
    parts = [line.format("join", *start, *end) for start, end in pairwise(at)]
    for (x, y), (_, mean, row) in zip(at, known, strict=True):
        low, high = _of(row, "low"), _of(row, "high")
        if low is not None and high is not None:
            parts.append(line.format("span", x, _height(scale, low), x, _height(scale, high)))
        parts.append(dot.format(x, y, f"{row['arm']}: {mean:.4f}"))
    return Markup('<g class="{}">{}</g>').format(kind, Markup("").join(parts))


def _height(scale: Scale, value: float) -> float:
    """Return the place of ``value`` in percent of the height, counted from the top."""
    share = (value - scale.low) / (scale.high - scale.low)
    return round(100 - _BOTTOM - (100 - _TOP - _BOTTOM) * share, 3)


def _of(row: Row, key: str) -> float | None:
    return cast("float | None", row[key])
