"""The process that carries events from a stream to the service, until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final

from isthmus.client import ServiceError
from isthmus.errors import InputError
from isthmus.log import logger
from isthmus.service.monitor import JsonLines
from isthmus.service.streams.intake import Counts, EventSource, Intake, Send
from isthmus.service.streams.letters import Letters
from isthmus.service.streams.source import DRAIN
from isthmus.service.watch.traces import Tracing

#: Statuses that say the address or the key is wrong.
_WRONG: Final = (401, 403, 404, 405, 421)
_ANSWER: Final = 15.0


@dataclass(frozen=True)
class Pace:
    """How long a consumer waits.

    Parameters
    ----------
    idle : float
        Seconds without a message after which it ends; 0 for never.
    progress : float
        Seconds between lines of progress.
    look : float
        Seconds between looks at the source.
    """

    idle: float = 0.0
    progress: float = 10.0
    look: float = 1.0


def run(
    source: EventSource, label: str, send: Send, letters: Letters, pace: Pace, tracing: Tracing | None = None
) -> Counts:
    """Carry events from ``source`` to ``send`` until SIGTERM, SIGINT or ``pace.idle``; return what became of them.

    The broker and the service may come and go meanwhile: it waits for both.

    Raises
    ------
    InputError
        The service refuses the key, or there is no such stream.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    logging.getLogger("isthmus.broker").setLevel(logging.ERROR)
    _require_welcome(send)
    return asyncio.run(_Carrier(source, Intake(send, letters, label, tracing=tracing), label, pace).run())


def _require_welcome(send: Send) -> None:
    """Send no events: the service refuses that in one way if the key is good, in another if it is not."""
    try:
        send([])
    except ServiceError as error:
        if error.status in _WRONG:
            raise InputError(f"the service refuses: {error.what}", fix=error.fix or "look at --to and --key") from None


class _Carrier:
    def __init__(self, source: EventSource, intake: Intake, label: str, pace: Pace) -> None:
        self._source, self._intake, self._label, self._pace = source, intake, label, pace
        self._ending = asyncio.Event()

    async def run(self) -> Counts:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        sender = asyncio.create_task(self._intake.run())
        try:
            await self._carry()
        finally:
            loop.call_later(DRAIN / 2, self._intake.end)
            await self._quietly_stop()
            sender.cancel()
        self._say("ended")
        return self._intake.counts

    async def _carry(self) -> None:
        """Keep the source alive until the end."""
        wait, last, spoke = 0.2, time.monotonic(), time.monotonic()
        while not self._ending.is_set():
            if not await self._source.alive():
                await self._quietly_stop()
                if await self._start():
                    wait, last = 0.2, time.monotonic()
                else:
                    await self._sleep(wait)
                    wait = min(2 * wait, 5.0)
                    continue
            before = self._intake.counts.messages
            await self._sleep(self._pace.look)
            now = time.monotonic()
            if self._intake.inside or self._intake.counts.messages != before:
                last = now
            if now - spoke >= self._pace.progress and self._intake.counts.messages:
                self._say("progress")
                spoke = now
            if self._pace.idle and now - last >= self._pace.idle:
                return

    async def _start(self) -> bool:
        try:
            async with asyncio.timeout(_ANSWER):
                await self._source.start(self._intake.take)
        except InputError:
            raise
        except Exception as error:
            logger.warning("%s does not answer, trying again: %s", self._label, type(error).__name__)
            return False
        logger.info("taking events from %s", self._label)
        return True

    async def _quietly_stop(self) -> None:
        try:
            async with asyncio.timeout(DRAIN + 5.0):
                await self._source.stop()
        except Exception as error:
            logger.warning("%s: the connection did not end well: %s", self._label, type(error).__name__)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return

    def _say(self, what: str) -> None:
        logger.info(what, extra={"fields": {**asdict(self._intake.counts), "inside": self._intake.inside}})
