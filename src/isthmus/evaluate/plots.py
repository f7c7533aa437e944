"""Small plots for reports: SVG marks that stretch with their table cell, while the text around them stays HTML.

Positions are percentages, so nothing has to know the width of the page, and letters never shrink with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

#: Free room at both ends of a plot, in percent, for the marks and the first and last label of the axis.
_MARGIN = 4.0


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high`` with round ticks.

    Examples
    --------
    >>> scale = Scale.over([0.02, 0.17])
    >>> scale.ticks
    [0.0, 0.05, 0.1, 0.15, 0.2]
    >>> scale.at(0.1)
    50.0
    """

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Iterable[float | None], *, zero: bool = True) -> Scale:
        """Return an axis that shows all finite ``values``, and 0 if ``zero``."""
        known = [value for value in values if value is not None and isfinite(value)] + [0.0] * zero
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        if high - low < 1e-12:
            low, high = (low, low + 1.0) if zero else (low - 0.5, high + 0.5)
        step = _round_step((high - low) / 4)
        return cls(floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step, step)

    @property
    def ticks(self) -> list[float]:
        """Values of the ticks."""
        count = round((self.high - self.low) / self.step)
        return [round(self.low + i * self.step, 10) for i in range(count + 1)]

    def at(self, value: float) -> float:
        """Return the place of ``value`` on the plot, in percent of its width."""
        share = (value - self.low) / (self.high - self.low)
        return round(_MARGIN + (100 - 2 * _MARGIN) * min(max(share, 0.0), 1.0), 3)


def interval(scale: Scale, estimate: tuple[float | None, float | None, float | None], *, kind: str = "") -> Markup:
    """Return one mark: a dot at the mean, a line over the interval, and the grid of the axis behind.

    Parameters
    ----------
    scale : Scale
        Axis shared by the marks of a plot.
    estimate : tuple of float or None
        Mean, low, high; without a mean only the grid is drawn.
    kind : str
        CSS class of the mark: ``main``, ``win``, ``loss`` or empty.
    """
    mean, low, high = estimate
    parts, label = [_grid(scale)], "no value" if mean is None else f"{mean:.4f}"
    if mean is not None:
        if low is not None and high is not None:
            label = f"{label}, {low:.4f} to {high:.4f}"
            ends = Markup('<line class="span" x1="{}%" x2="{}%" y1="50%" y2="50%"/>')
            parts.append(ends.format(scale.at(low), scale.at(high)))
        parts.append(Markup('<circle class="dot" cx="{}%" cy="50%" r="4.5"/>').format(scale.at(mean)))
    head = Markup('<svg class="mark {}" role="img" aria-label="{}"><title>{}</title>').format(kind, label, label)
    return head + Markup("").join(parts) + Markup("</svg>")


def bar(scale: Scale, value: float | None, *, kind: str = "") -> Markup:
    """Return a bar from 0 to ``value``."""
    if value is None or not isfinite(value):
        return Markup('<svg class="mark" role="img" aria-label="no value"></svg>')
    ends = sorted((scale.at(0.0), scale.at(value)))
    head = Markup('<svg class="mark {}" role="img" aria-label="{:.4g}">').format(kind, value)
    body = Markup('<rect class="bar" x="{}%" width="{}%" y="25%" height="50%"/></svg>')
    return head + _grid(scale) + body.format(ends[0], round(max(ends[1] - ends[0], 0.2), 3))


def axis(scale: Scale) -> Markup:
    """Return the labels of the axis, to stand under the marks."""
    label = Markup('<text x="{}%" y="13" text-anchor="middle">{}</text>')
    digits = max(0, -floor(log10(scale.step) + 1e-9))
    texts = (label.format(scale.at(tick), f"{tick:.{digits}f}".replace("-", "−")) for tick in _few(scale.ticks))
    return Markup('<svg class="axis" aria-hidden="true">{}</svg>').format(Markup("").join(texts))


def _grid(scale: Scale) -> Markup:
    line = Markup('<line class="{}" x1="{}%" x2="{}%" y1="0" y2="100%"/>')
    places = ((tick, scale.at(tick)) for tick in scale.ticks)
    return Markup("").join(line.format("grid zero" if tick == 0 else "grid", x, x) for tick, x in places)


def _few(ticks: list[float]) -> list[float]:
    """Return every second tick where there are many, so that labels do not touch on a narrow page."""
    return ticks[::2] if len(ticks) > 4 else ticks


def _round_step(rough: float) -> float:
    power: float = 10.0 ** floor(log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
