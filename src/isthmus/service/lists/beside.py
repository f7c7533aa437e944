"""Work that requests wait for besides lists: one piece between two blocks of lists, bounded in number and in time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from isthmus.service.lists.pace import PROMISE, Pace
from isthmus.service.problems import BusyError
from isthmus.service.settings import ServiceSettings

Done = TypeVar("Done")
#: Deadlines of a list that work may take which has no simpler form: an explanation, what goes with an item.
PATIENCE: Final = 8.0


@dataclass(eq=False)
class _Piece:
    work: Callable[[], object]
    done: asyncio.Future[object]


class Beside:
    """A bounded queue of work; belongs to one event loop.

    Parameters
    ----------
    settings : ServiceSettings
        How many may wait, and how long.
    wake : callable
        Called when there is something to do.
    """

    def __init__(self, settings: ServiceSettings, wake: Callable[[], None]) -> None:
        self._most, self._deadline, self._wake = settings.waiting, settings.deadline, wake
        self._pieces: deque[_Piece] = deque()
        self._pace = Pace()

    @property
    def waiting(self) -> int:
        """Pieces that wait for their turn."""
        return len(self._pieces)

    def until(self, *, simpler: bool = False) -> float:
        """Return the time of the event loop up to which a request may wait; sooner if there is a ``simpler`` answer."""
        return asyncio.get_running_loop().time() + self._deadline * (1.0 if simpler else PATIENCE)

    async def result(self, work: Callable[[], Done], until: float) -> Done:
        """Return what ``work`` returns; ``until`` is a time of the event loop.

        Raises
        ------
        BusyError
            Too much waits, or it was not done in time: what nobody waits for any more is not begun.
        """
        loop = asyncio.get_running_loop()
        if self._too_much(until - loop.time()):
            raise BusyError("too much waits to be scored")
        piece = _Piece(work, loop.create_future())
        self._pieces.append(piece)
        self._wake()
        try:
            async with asyncio.timeout_at(until):
                return cast("Done", await piece.done)
        except TimeoutError:
            raise BusyError("there was no time to score it") from None
        finally:
            if piece in self._pieces:
                self._pieces.remove(piece)

    def _too_much(self, left: float) -> bool:
        """Return whether a piece would come too late, judging by how long the newest ones took."""
        waiting = len(self._pieces)
        expected = (waiting + 1 + self._pace.inside) * self._pace.seconds
        return left <= 0 or waiting >= self._most or (waiting > 0 and expected > PROMISE * left)

    async def next(self, do: Callable[[Callable[[], object]], Awaitable[object]]) -> None:
        """Have the piece done that waits longest."""
        piece = self._pieces.popleft()
        try:
            with self._pace.of(1):
                made = await do(piece.work)
        except Exception as error:
            if not piece.done.done():
                piece.done.set_exception(error)
        else:
            if not piece.done.done():
                piece.done.set_result(made)
