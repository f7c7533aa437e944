"""A model that makes lists nobody sees: after the answer is sent, to compare."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from isthmus.log import logger
from isthmus.service.lists.lister import Listed
from isthmus.service.lists.live import Live, Top
from isthmus.service.lists.scoring import Ask
from isthmus.service.rollout.arm import Arm
from isthmus.service.rollout.figures import Figures
from isthmus.service.rollout.pointer import Trial
from isthmus.service.settings import ServiceSettings

#: Requests that may wait for a shadow; it sees no more.
WAITING: Final = 64
#: Seconds after which a shadow looks at a request: its answer is on the way by then.
LATER: Final = 0.01
#: Times as long as a list took it rests: whoever asks meanwhile waits, and at half load as many again until all are
#: answered, which so happens to one in five hundred at most and leaves their p99 alone. And seconds it rests at most.
REST: Final = 999.0
LONGEST: Final = 30.0
_DEADLINE: Final = 10.0


class Shadow(Arm):
    """A model that is compared.

    Parameters
    ----------
    live, settings, trial
        As of :class:`~isthmus.service.rollout.arm.Arm`.
    busy : callable
        Returns whether lists that somebody waits for are being made.
    """

    def __init__(self, live: Live, settings: ServiceSettings, trial: Trial, busy: Callable[[], bool]) -> None:
        super().__init__(live, settings.model_copy(update={"warm": False, "deadline": _DEADLINE}), trial)
        self._busy = busy
        self._queue: asyncio.Queue[tuple[Sequence[Ask], Sequence[Listed]]] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None
        self._random = random.Random()  # noqa: S311
        self.lists = self.failed = 0
        self.overlaps = 0.0

    def start(self, tenant: str, figures: Figures) -> None:
        """Begin to compare."""
        self._task = asyncio.get_running_loop().create_task(self._compare(tenant, figures))

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    def offer(self, asks: Sequence[Ask], answered: Sequence[Listed], dropped: Callable[[int], None]) -> None:
        """Have lists made too, of a share of the requests; of more than it can take it sees none."""
        if self._random.random() >= self.trial.share:
            return
        try:
            self._queue.put_nowait((asks, answered))
        except asyncio.QueueFull:
            dropped(len(asks))

    async def _compare(self, tenant: str, figures: Figures) -> None:
        while True:
            asks, answered = await self._queue.get()
            await asyncio.sleep(LATER)
            for ask, listed in zip(asks, answered, strict=True):
                while self._busy():
                    await asyncio.sleep(LATER)
                began = time.perf_counter()
                figures.shadow_lists.labels(tenant, await self._one(ask, listed.top, tenant, figures)).inc()
                await asyncio.sleep(min(REST * (time.perf_counter() - began), LONGEST))

    async def _one(self, ask: Ask, seen: Top, tenant: str, figures: Figures) -> str:
        """Make one list; return what became of it."""
        self.lists += 1
        if ask.domain not in self.live.scorers:
            return "domain"
        began = time.perf_counter()
        try:
            top = (await self.lister.answer(ask)).top
        except Exception as error:
            self.failed += 1
            if self.failed == 1:
                logger.warning("shadow %s failed: %s", self.trial.model, type(error).__name__)
            return "failed"
        figures.shadow_seconds.labels(tenant).observe(time.perf_counter() - began)
        same = len(names(top) & names(seen)) / max(seen.rows.size, 1)
        figures.overlap.labels(tenant).observe(same)
        self.overlaps += same
        return "made"


def names(top: Top) -> set[tuple[str, str]]:
    """Return platform and id of the items of a list."""
    shelf = top.live.shelf
    return {(shelf.platforms[row], shelf.ids[row]) for row in top.rows.tolist()}
