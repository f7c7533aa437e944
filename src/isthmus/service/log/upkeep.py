"""What a tenant's data needs besides requests: segments are sealed, and events end after their term."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isthmus.errors import IsthmusError
from isthmus.log import logger
from isthmus.service.lists.items import Account
from isthmus.service.lists.live import clock
from isthmus.service.log.records import EXPIRE, Entry
from isthmus.service.log.segments import Segments

if TYPE_CHECKING:
    from isthmus.service.tenant import Tenant

#: Folder of the segments in the folder of the service, one folder a tenant in it.
FOLDER: Final = "segments"
DAY: Final = 86_400
#: Seconds between two tries of what failed.
AGAIN: Final = 60.0


class Upkeep:
    """Seals and ends; belongs to the tenant's event loop.

    Parameters
    ----------
    tenant : Tenant
        Whose.
    folder : Path
        Folder of the service.
    """

    def __init__(self, tenant: Tenant, folder: Path) -> None:
        self.segments = Segments(folder / FOLDER / tenant.name)
        self._tenant = tenant
        self._erasing: set[Account] = set()
        self._unclean = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin: what was erased before a crash is taken out of the segments first."""
        self._task = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """End; what is under way is finished."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def erase(self, accounts: Sequence[Account]) -> tuple[int, bool]:
        """Take accounts that were erased from the log out of the segments.

        Returns
        -------
        tuple of int and bool
            How many events, and whether all are out; if not, it is tried again, also after a restart: the manifest of
            the segments knows up to which record of the log they are clean.
        """
        self._erasing |= set(accounts)
        try:
            gone = await asyncio.to_thread(self.segments.clean, self._tenant.log, list(self._erasing))
        except Exception as error:
            said = error if isinstance(error, (IsthmusError, OSError)) else type(error).__name__
            logger.error("erased events are still in the segments, and it is tried again: %s", said)
            self._unclean = True
            return 0, False
        finally:
            self._erasing -= set(accounts)
        self._unclean = False
        return gone, True

    async def end_terms(self, days: float) -> int:
        """End events older than ``days`` in log, state and segments; return how many."""
        tenant = self._tenant
        entry = Entry(uuid.uuid4().hex, EXPIRE, ts=clock() - int(days * DAY * 1e6))
        async with tenant.changing:
            receipt = await tenant.write([entry], patience=600.0)
            if receipt.erased:
                tenant.take(await tenant.built(tenant.live.base, tenant.live.version))
                for arm in tenant.rollout.arms:
                    arm.replace(await tenant.built(arm.live.base, arm.live.version))
        await asyncio.to_thread(self.segments.clean, tenant.log)
        return receipt.erased

    async def _go_on(self) -> None:
        settings = self._tenant.settings
        sealed, ended = time.monotonic(), -float(DAY)
        await self.erase(())
        pause = min([seconds for seconds in (settings.seal, AGAIN) if seconds])
        while True:
            if self._unclean:
                await self.erase(())
            if (
                settings.keep_days
                and time.monotonic() >= ended + DAY
                and await self._attempt("ending events", self.end_terms(settings.keep_days))
            ):
                ended = time.monotonic()
            if (
                settings.seal
                and time.monotonic() >= sealed + settings.seal
                and await self._attempt("sealing", asyncio.to_thread(self.segments.seal, self._tenant.log))
            ):
                sealed = time.monotonic()
            await asyncio.sleep(pause)

    async def _attempt(self, what: str, work: object) -> bool:
        try:
            done = await work  # type: ignore[misc]
        except (IsthmusError, OSError) as error:
            logger.error("%s failed, and is tried again: %s", what, error)
            return False
        except Exception:
            logger.exception("%s failed, and is tried again", what)
            return False
        if done:
            logger.info("%s: %d events", what, done)
        return True
