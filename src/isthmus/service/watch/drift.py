"""Whether what comes now is still what the model was made for: counts of a window against those of a reference.

Each window gives an e-value, the ratio of two chances of its counts: under any shares at all, and under those of the
reference (Dirichlet-multinomial both, so that a small reference counts for little). Over windows they are multiplied,
beginning anew whenever the product is below one (the e-CUSUM of Shin, Ramdas, Rinaldo 2023). Where nothing changes, the
product passes ``c`` once in ``c`` windows at most, however long one watches; a change adds up until it shows. An alarm
needs a distance that matters besides: with many counts any difference is certain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Counts = npt.NDArray[np.float64]
#: Evidence of an alarm, as a power of ten: once in a thousand windows at most where nothing changed.
ENOUGH: Final = 3.0
#: Evidence is counted up to this power of ten, so that an alarm ends soon after its cause.
MOST: Final = 6.0
#: Distance (PSI) below which a difference does not matter.
MATTERS: Final = 0.05
#: Counts that each bucket has from the start.
START: Final = 0.5


def distance(seen: Counts, reference: Counts) -> float:
    """Return the population stability index of two rows of counts; 0 if they are alike, from 0.25 on they hardly are.

    Examples
    --------
    >>> round(distance(np.array([700.0, 300.0]), np.array([5000.0, 5000.0])), 2)
    0.17
    """
    p, q = (_shares(counts) for counts in (seen, reference))
    return float(((p - q) * np.log(p / q)).sum())


def evidence(seen: Counts, reference: Counts) -> float:
    """Return the power of ten of the e-value of ``seen``: how much more likely it is with other shares.

    Examples
    --------
    >>> same, other = np.array([510.0, 490.0]), np.array([600.0, 400.0])
    >>> evidence(same, np.array([5000.0, 5000.0])) < 0, evidence(other, np.array([5000.0, 5000.0])) > 3
    (True, True)
    """
    start = np.full(seen.shape, START)
    return (_chance(seen, start) - _chance(seen, start + reference)) / math.log(10)


def _chance(counts: Counts, start: Counts) -> float:
    """Return the logarithm of the chance of ``counts`` if shares are drawn from a Dirichlet distribution."""
    inside = (gammaln(start + counts) - gammaln(start)).sum()
    return float(gammaln(start.sum()) - gammaln(start.sum() + counts.sum()) + inside)


def _shares(counts: Counts) -> Counts:
    smoothed = counts + START
    return np.asarray(smoothed / smoothed.sum())


@dataclass(frozen=True)
class Finding:
    """What the newest full window said.

    Parameters
    ----------
    psi : float
        Distance from the reference.
    evidence : float
        Power of ten of the evidence of all windows since it last was none.
    alarm : bool
        Whether both are too large.
    at : float
        When the window was full, seconds since 1970; 0 if none was yet.
    seen : mapping of str to int
        Counts.
    """

    psi: float = 0.0
    evidence: float = 0.0
    alarm: bool = False
    at: float = 0.0
    seen: Mapping[str, int] | None = None


class Feature:
    """One thing that is counted, such as the domain of each event.

    Parameters
    ----------
    about : str
        What it is, for people.
    size : int
        Counts of a window, at least.
    reference : mapping of str to float, optional
        Counts expected; without it the first window becomes the reference.
    """

    def __init__(self, about: str, size: int, reference: Mapping[str, float] | None = None) -> None:
        self.about, self.size = about, size
        self.reference = dict(reference) if reference else None
        self.finding = Finding()
        self.counts: dict[str, int] = {}
        self.n = 0
        self.opened = 0.0

    def add(self, bucket: str) -> None:
        """Count something."""
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.n += 1

    def due(self, now: float, seconds: float) -> bool:
        """Return whether the window is full: enough counts, and open for ``seconds``."""
        if not self.opened:
            self.opened = now
        return self.n >= self.size and now - self.opened >= seconds

    def close(self, now: float) -> bool:
        """Judge the window and begin another; return whether it became the reference instead."""
        counts, self.counts, self.n, self.opened = self.counts, {}, 0, now
        if self.reference is None:
            self.reference = {bucket: float(n) for bucket, n in counts.items()}
            return True
        names = sorted({*self.reference, *counts})
        seen = np.array([counts.get(name, 0) for name in names], np.float64)
        reference = np.array([self.reference.get(name, 0.0) for name in names])
        psi = distance(seen, reference)
        total = min(max(self.finding.evidence, 0.0) + evidence(seen, reference), MOST)
        self.finding = Finding(psi, total, psi >= MATTERS and total >= ENOUGH, now, counts)
        return False
