"""Making ready to read texts of new items: the first text takes seconds, so lists come before it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from isthmus.log import logger
from isthmus.recommender import Recommender
from isthmus.service.lists.loading import beside_requests

#: Seconds that reading waits for lists to be made ready, at most, and seconds between two looks.
WAIT: Final = 10.0
LOOK: Final = 0.1


async def read_first(model: Recommender, cold: Callable[[], int]) -> None:
    """Read a text of ``model`` in a thread, once no lists of people known wait to be made ready (``cold``)."""
    until = time.monotonic() + WAIT
    while cold() and time.monotonic() < until:
        await asyncio.sleep(LOOK)
    with beside_requests():
        await asyncio.to_thread(_read, model)


def _read(model: Recommender) -> None:
    try:
        model.content.readers.read(model.items.head(1))
    except Exception:
        logger.exception("texts of new items cannot be read")
