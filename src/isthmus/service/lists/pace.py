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

    Examples
    --------
    >>> pace = Pace()
    >>> with pace.of(3):
    ...     print(pace.inside, pace.timed(3, lambda: "done"))
    3 done
    >>> pace.inside, 0 < pace.alone < pace.seconds < 1
    (0, True)
    """

    def __init__(self) -> None:
        self.seconds = self.alone = 0.0
        self.inside = 0

    @contextmanager
    def of(self, pieces: int) -> Iterator[None]:
        """Do some pieces together."""
        began = time.perf_counter()
        self.inside += pieces
        try:
            yield
        finally:
            self.inside -= pieces
            took = (time.perf_counter() - began) / pieces
            self.seconds += (took - self.seconds) * (NEWEST if self.seconds else 1.0)

    def timed(self, pieces: int, work: Callable[[], Done], *, beside: bool = False) -> Done:
        """Return what ``work`` returns, and take its time; ``beside`` others, it may have waited for them."""
        began = time.perf_counter()
        done = work()
        took = (time.perf_counter() - began) / pieces
        self.alone = min(took, SLOWER * self.alone) if beside and self.alone else took
        return done
