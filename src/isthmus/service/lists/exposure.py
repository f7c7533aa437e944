"""Which items were listed of late: the newest lists are remembered, without the persons they were for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

from isthmus.evaluate.ranks import Doubles
from isthmus.service.lists.live import Live, Top
from isthmus.types import Ints

#: Lists remembered.
LISTS: Final = 20_000
#: Spans of time, all as long, into which those lists fall.
SPANS: Final = 24


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
        """Return how many of the lists hold an item, at which rank on average, and how that went over time."""
        lists, now = list(self._lists), self._clock()
        if not lists:
            return {"lists": 0, "shown": 0, "mean_rank": None, "since": None, "spans": []}
        lengths = np.array([len(rows) for _, rows in lists]) // np.dtype(np.int32).itemsize
        hits = np.flatnonzero(np.frombuffer(b"".join(rows for _, rows in lists), np.int32) == row)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        holding = np.searchsorted(starts, hits, "right") - 1
        ranks = hits - starts[holding] + 1
        mean = round(float(ranks.mean()), 1) if ranks.size else None
        times = np.array([when for when, _ in lists])
        return {
            "lists": len(lists),
            "shown": int(ranks.size),
            "mean_rank": mean,
            "since": lists[0][0],
            "spans": _spans(times, holding, now),
        }


def _spans(times: Doubles, holding: Ints, now: float) -> list[dict[str, object]]:
    """Return the lists given in each span between the first and now, and how many of them are among ``holding``."""
    edges = np.linspace(times[0], max(now, float(times.max())), SPANS + 1)
    span = np.clip(np.searchsorted(edges, times, "right") - 1, 0, SPANS - 1)
    given = np.bincount(span, minlength=SPANS).tolist()
    shown = np.bincount(span[holding], minlength=SPANS).tolist()
    return [
        {"start": start, "lists": of, "shown": with_it}
        for start, of, with_it in zip(edges[:-1].tolist(), given, shown, strict=True)
    ]
