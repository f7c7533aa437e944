"""What is looked at now and then while the service runs: the chain of the audit log."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from isthmus.errors import IsthmusError
from isthmus.log import logger

if TYPE_CHECKING:
    from isthmus.service.lock.vault import Vault

#: Going through the chain may take one part in so many of the time.
RARELY: Final = 50


class Patrol:
    """Goes through the audit log at the start and then every ``seconds``, or less often where that takes long.

    Parameters
    ----------
    vault : Vault
        Where the audit log is.
    seconds : float
        Time between two rounds.

    Attributes
    ----------
    intact : bool
        Whether the chain held at the last round.
    entries : int
        Entries it had.
    checked : float
        When that was, seconds of the monotonic clock.
    """

    def __init__(self, vault: Vault, seconds: float) -> None:
        self._vault, self._seconds = vault, seconds
        self._task: asyncio.Task[None] | None = None
        self.intact, self.entries, self.checked = True, 0, time.monotonic()

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._walk())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look(self) -> None:
        """Go through the audit log once."""
        try:
            self.entries = sum(self._vault.verify(whole=True).values())
            self.intact = True
        except IsthmusError as error:
            if self.intact:
                logger.error("%s", error)
            self.intact = False
        except Exception:
            logger.exception("the audit log cannot be read")
            self.intact = False
        self.checked = time.monotonic()

    async def _walk(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.to_thread(self.look)
            await asyncio.sleep(max(self._seconds, RARELY * (time.monotonic() - began)))
