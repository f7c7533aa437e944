"""How often a key may ask: a bucket of tokens each, filled at a steady rate."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


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
        """Return 0 if ``name`` may ask now, else the seconds until it may.

        The generic cell rate algorithm: for each name only the time at which its bucket is full again is kept.
        """
        if not self.rate:
            return 0.0
        now = self._clock()
        full = max(self._free.get(name, now), now)
        wait = full + 1 / self.rate - (now + self.burst / self.rate)
        if wait > 1e-9:
            return wait
        self._free[name] = full + 1 / self.rate
        self._free.move_to_end(name)
        if len(self._free) > self._most:
            self._free.popitem(last=False)
        return 0.0
