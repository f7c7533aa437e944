"""How long the newest pieces of work took, so that nobody is let wait for what would come too late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

Done = TypeVar("Done")
#: Share of the newest work in the mean.
NEWEST: Final = 0.2
#: Times that the quickest work is taken to be slower with each that is slower.
SLOWER: Final = 1.1
#: Times that work takes longer than before, from which on it is believed only when it happens again.
LATE: Final = 2.0
#: Share of the time left that work may be expected to take; what would take longer is not begun, so that what is begun
#: is still waited for when it is done.
PROMISE: Final = 0.8
#: Pieces without limit.
NO_LIMIT: Final = 1 << 30


class Pace:
    """Seconds a piece of work takes.

    Attributes
    ----------
    seconds : float
        From its beginning until it was there, whatever else ran: a mean that forgets.
    alone : float
        Without others beside it, about: the quickest of late. 0 where nothing is known.
    inside : int
        Pieces being done now.
    goes_on : bool
        Whether more waits for the end of what was done last: the next work began then, whatever comes between.

    Examples
    --------
    >>> pace = Pace()
    >>> with pace.of(3):
    ...     print(pace.inside, pace.timed(3, lambda: "done"))
    3 done
    >>> pace.inside, 0 < pace.alone < pace.seconds < 1
    (0, True)
    >>> pace.alone = 0.3
    >>> pace.fit(1.0), pace.fit(0.1) == NO_LIMIT
    (3, True)
    """

    def __init__(self) -> None:
        self.seconds = self.alone = 0.0
        self.inside = 0
        self.goes_on = False
        self._ended, self._late = 0.0, False

    def fit(self, seconds: float) -> int:
        """Return how many pieces fit into so many seconds; no limit where not even one does, or nothing is known."""
        return int(seconds / self.alone) or NO_LIMIT if self.alone else NO_LIMIT

    @contextmanager
    def of(self, pieces: int) -> Iterator[None]:
        """Do some pieces together."""
        began = self._ended if self.goes_on else time.perf_counter()
        self.inside += pieces
        try:
            yield
        finally:
            self.inside -= pieces
            self._ended = time.perf_counter()
            took = (self._ended - began) / pieces
            self.seconds += (took - self.seconds) * (NEWEST if self.seconds else 1.0)

    def timed(self, pieces: int, work: Callable[[], Done], *, beside: bool = False) -> Done:
        """Return what ``work`` returns, and take its time; ``beside`` others, it may have waited for them."""
        began = time.perf_counter()
        done = work()
        took = (time.perf_counter() - began) / pieces
        late = took > LATE * self.alone > 0
        if beside and self.alone:
            self.alone = min(took, SLOWER * self.alone)
        elif self._late or not late:  # once may be chance
            self.alone = took
        self._late = late
        return done
