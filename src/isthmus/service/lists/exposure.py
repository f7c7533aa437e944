"""Which items were listed of late: the newest lists are remembered, without the persons they were for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from isthmus.service.lists.live import Live, Top

#: Lists remembered.
LISTS: Final = 20_000


class Exposure:
    """The newest lists of the model that answers, as bytes: an array would keep the long list it was cut from.

    Parameters
    ----------
    clock : callable
        Returns seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._model = clock, ""
        self._lists: deque[tuple[float, bytes]] = deque(maxlen=LISTS)

    def note(self, top: Top, live: Live) -> None:
        """Remember a list of the model that answers, ``live``; those of the one before go, as they count other rows."""
        digest = live.version.digest
        if top.live.version.digest != digest:
            return
        if digest != self._model:
            self._lists.clear()
            self._model = digest
        self._lists.append((self._clock(), top.rows.astype(np.int32, copy=False).tobytes()))

    def of(self, row: int) -> dict[str, object]:
        """Return how many of the lists hold an item, and at which rank on average."""
        lists = list(self._lists)
        if not lists:
            return {"lists": 0, "shown": 0, "mean_rank": None, "since": None}
        lengths = np.array([len(rows) for _, rows in lists]) // np.dtype(np.int32).itemsize
        hits = np.flatnonzero(np.frombuffer(b"".join(rows for _, rows in lists), np.int32) == row)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        ranks = hits - starts[np.searchsorted(starts, hits, "right") - 1] + 1
        mean = round(float(ranks.mean()), 1) if ranks.size else None
        return {"lists": len(lists), "shown": int(ranks.size), "mean_rank": mean, "since": lists[0][0]}
