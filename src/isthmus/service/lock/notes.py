"""What was done is noted in the audit log, if not now then later: a change that happened is never without its entry."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from isthmus.log import logger
from isthmus.service.lock.vault import Vault

#: Seconds between two tries.
AGAIN: Final = 1.0
Note = tuple[str, str, str, dict[str, object]]


class Notes:
    """Entries that are written in their order as soon as they can be; belongs to one event loop.

    Parameters
    ----------
    vault : Vault
        Where the audit log is.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._waiting: deque[Note] = deque()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def add(self, tenant: str, actor: str, action: str, said: dict[str, object]) -> None:
        """Write an entry, or keep it until that can be done."""
        self._waiting.append((tenant, actor, action, said))
        if not await self._write() and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """Write what waits, or say what could not be."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if not await self._write():
            logger.error("not noted in the audit log: %s", ", ".join(note[2] for note in self._waiting))

    async def _write(self) -> bool:
        """Write all that waits; return whether nothing is left."""
        async with self._writing:
            try:
                while self._waiting:
                    await asyncio.to_thread(self._vault.note, *self._waiting[0])
                    self._waiting.popleft()
            except Exception as error:
                logger.error("the audit log cannot be written, and it is tried again: %s", type(error).__name__)
        return not self._waiting

    async def _go_on(self) -> None:
        while not await self._write():
            await asyncio.sleep(AGAIN)
