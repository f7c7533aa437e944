"""How often a key may ask: a bucket of tokens each, filled at a steady rate."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final


class Buckets:
    """Token buckets: ``burst`` at once, then ``rate`` a second.

    Parameters
    ----------
    rate : float
        Requests a second; 0 for no limit.
    burst : int
        Requests at once.
    clock : callable
        Returns seconds.
    most : int
        Buckets remembered; the one used longest ago is forgotten first.

    Examples
    --------
    >>> buckets = Buckets(10.0, 2, clock=lambda: 0.0)
    >>> [round(buckets.take(name), 3) for name in ("a", "a", "a", "b")]
    [0.0, 0.0, 0.1, 0.0]
    """

    def __init__(
        self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic, most: int = 100_000
    ) -> None:
        self.rate, self.burst, self._clock, self._most = rate, burst, clock, most
        self._free: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str) -> float:
        """Return 0 if ``name`` may ask now, which it then has, else the seconds until it may.

        The generic cell rate algorithm: for each name only the time at which its bucket is full again is kept.
        """
        wait = self.wait(name)
        if wait or not self.rate:
            return wait
        now = self._clock()
        self._free[name] = max(self._free.get(name, now), now) + 1 / self.rate
        self._free.move_to_end(name)
        if len(self._free) > self._most:
            self._free.popitem(last=False)
        return 0.0

    def wait(self, name: str) -> float:
        """Return 0 if ``name`` may ask now, else the seconds until it may; nothing is taken."""
        full = self._free.get(name)
        if full is None or not self.rate:
            return 0.0
        wait = full - self._clock() + (1 - self.burst) / self.rate
        return wait if wait > 1e-9 else 0.0


#: Parts of a quota that are taken at a time: what a killed process had taken and not used is lost for the day.
PARTS: Final = 100
_DAY: Final = 86400


class Quotas:
    """What each key may use up in a day (UTC), over restarts and in all processes.

    Parameters
    ----------
    lease : callable
        Takes name, kind, day, wanted, most; returns how many of ``wanted`` may be used, which then count as used.
    clock : callable
        Returns seconds since 1970.

    Examples
    --------
    >>> left = {"a": 5}
    >>> def lease(name, kind, day, wanted, most):
    ...     granted = min(wanted, left[name])
    ...     left[name] -= granted
    ...     return granted
    >>> quotas = Quotas(lease, clock=lambda: 0.0)
    >>> [quotas.take("a", "events", n, 5) for n in (3, 3, 2, 1)]
    [0.0, 86400.0, 0.0, 86400.0]
    >>> quotas.give_back("a", "events", 2, quotas.day)
    >>> [quotas.take("a", "events", n, 5) for n in (1, 1, 1)]
    [0.0, 0.0, 86400.0]
    """

    def __init__(
        self, lease: Callable[[str, str, int, int, int], int], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._lease, self._clock = lease, clock
        self._left: dict[tuple[str, str], tuple[int, int]] = {}
        self._lock = threading.Lock()

    @property
    def day(self) -> int:
        """Today, in days since 1970."""
        return int(self._clock() // _DAY)

    def take(self, name: str, kind: str, n: int, most: int) -> float:
        """Return 0 if ``name`` may use ``n`` more today, else the seconds until tomorrow."""
        now = self._clock()
        day = int(now // _DAY)
        with self._lock:
            known, left = self._left.get((name, kind), (day, 0))
            if known != day:
                left = 0
            if left < n:
                left += self._lease(name, kind, day, max(n - left, most // PARTS), most)
            enough = left >= n
            self._left[name, kind] = day, left - n if enough else left
        return 0.0 if enough else (day + 1) * _DAY - now

    def give_back(self, name: str, kind: str, n: int, day: int) -> None:
        """Take back that ``n`` were used on a day; what was left on an earlier day than today is gone."""
        with self._lock:
            known, left = self._left.get((name, kind), (day, 0))
            if known == day == self.day:
                self._left[name, kind] = day, left + n
