"""Reasons: which items of a history speak most for those of a list; made ready once anybody asked for reasons."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Thread
from typing import Final, NamedTuple

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.service.lists.kept import Kept, Key
from isthmus.service.lists.live import Live, Top
from isthmus.service.lists.pace import NEWEST
from isthmus.service.lists.scoring import WIDE, without_each
from isthmus.types import Floats

#: Items of a list that reasons are made ready for, and reasons of each, at most.
ITEMS: Final = 20
MOST: Final = 3
#: Digits of what an item gives.
DIGITS: Final = 4
#: Lists explained together, at most, and seconds that should take at most: others wait meanwhile.
TOGETHER: Final = 4
QUICK: Final = 0.015
#: Seconds of work that may wait: lists beyond that are explained when that is asked for.
LONGEST: Final = 1200.0

#: Rows of items met with what they give, the strongest first.
Why = list[tuple[int, float]]


def strongest(items: Sequence[int], gains: Floats, most: int, told: Callable[[int], bool]) -> list[Why]:
    """Return for each of ``R`` items those of a history that give it most, (H, R); each once, and only if ``told``.

    Examples
    --------
    >>> gains = np.array([[0.1, 0.0], [-0.5, 0.0], [0.2, 3.0], [0.2, 3.0]], np.float32)
    >>> strongest([7, 8, 9, 9], gains, 2, lambda row: row != 8)
    [[(9, 0.2), (7, 0.1)], [(9, 3.0), (7, 0.0)]]
    """
    order = np.argsort(-np.abs(gains), axis=0, kind="stable").T.tolist()
    given = gains.astype(np.float64).round(DIGITS).T.tolist()
    allowed = {row for row in set(items) if told(row)}
    found = []
    for places, gave in zip(order, given, strict=True):
        first: dict[int, int] = {}
        for place in places:
            if len(first) == most:
                break
            if items[place] in allowed:
                first.setdefault(items[place], place)
        found.append([(row, gave[place]) for row, place in first.items()])
    return found


def named(live: Live, whys: Sequence[Why]) -> list[list[dict[str, object]]]:
    """Return reasons as they are told: platform, item, title, domain, contribution."""
    shelf, domains = live.shelf, live.shelf.table["domain"]
    names = {
        row: {
            "platform": shelf.platforms[row],
            "item": shelf.ids[row],
            "title": shelf.title(row),
            "domain": domains[row],
        }
        for row in {row for why in whys for row, _ in why}
    }
    return [[{**names[row], "contribution": gain} for row, gain in why] for why in whys]


class Turn(NamedTuple):
    """A list to be explained: whose of what, what that person did, and what is listed."""

    key: Key
    history: Histories
    top: Top


class Reasons:
    """Reasons of lists that are kept ready; nothing is made before somebody asked for reasons.

    Kept as numbers: 480 bytes for a list of 20 items with three reasons each. Of the lists that wait, those kept last
    come first; of a model that explains slowly as many as :data:`LONGEST` allows.
    """

    def __init__(self) -> None:
        self._wanted = False
        self._waiting: OrderedDict[Key, None] = OrderedDict()
        self._made: dict[Key, tuple[Top, bytes]] = {}
        self._seconds = 0.0

    @property
    def waiting(self) -> int:
        """Lists whose reasons will be made ready."""
        return len(self._waiting)

    @property
    def ready(self) -> int:
        """Lists whose reasons are ready."""
        return len(self._made)

    def want(self, kept: Iterable[Key], live: Live) -> None:
        """Make reasons ready from now on, first for the lists that are ``kept``."""
        if not self._wanted:
            self._wanted = True
            self._waiting.update(dict.fromkeys(kept))
            _prepare(live)

    def came(self, key: Key) -> None:
        """Take note of a new list, whose reasons are others."""
        self._made.pop(key, None)
        if self._wanted:
            self._waiting[key] = None

    def drop(self, keys: Iterable[Key]) -> None:
        """Forget lists that are kept no longer."""
        for key in keys:
            self._made.pop(key, None)
            self._waiting.pop(key, None)

    def anew(self, live: Live) -> None:
        """Forget all lists: those of another model, or with more items, come."""
        self._made.clear()
        self._waiting.clear()
        if self._wanted:
            _prepare(live)

    def turn(self, live: Live, kept: Mapping[Key, Kept]) -> list[Turn]:
        """Return the lists whose turn it is, among those ``kept`` that are of the model ``live``."""
        size = int(np.clip(QUICK / self._seconds, 1, TOGETHER)) if self._seconds else 1
        while self._seconds and len(self._waiting) > max(LONGEST / self._seconds, size):
            self._waiting.popitem(last=False)
        taken = [self._waiting.popitem()[0] for _ in range(min(size, len(self._waiting)))]
        return [
            Turn(key, live.heard(key[1], live.ask([key[0]])).last(WIDE), kept[key].top)
            for key in taken
            if key in kept and kept[key].live is live
        ]

    def make(self, live: Live, turn: Sequence[Turn]) -> list[list[Why]]:
        """Return the reasons of some lists; a thread may do it."""
        began = time.perf_counter()
        made = [_explained(live, one) for one in turn]
        if turn:
            newest = (time.perf_counter() - began) / len(turn)
            self._seconds += NEWEST * (newest - self._seconds) if self._seconds else newest
        return made

    def keep(self, turn: Sequence[Turn], made: Sequence[Sequence[Why]], kept: Mapping[Key, Kept]) -> None:
        """Keep the reasons ``made`` of lists that are still ``kept``."""
        for one, whys in zip(turn, made, strict=True):
            if one.key not in kept or kept[one.key].top is not one.top:
                continue
            rows = np.full((len(whys), MOST), -1, np.int32)
            gains = np.zeros(rows.shape, np.float32)
            for place, why in enumerate(whys):
                for rank, (row, gain) in enumerate(why):
                    rows[place, rank], gains[place, rank] = row, gain
            self._made[one.key] = one.top, rows.tobytes() + gains.tobytes()

    def find(self, key: Key, top: Top, most: int) -> list[Why] | None:
        """Return up to ``most`` reasons of each item of ``top``, None if they are not ready."""
        found = self._made.get(key)
        if found is None or most > MOST:
            return None
        whole, held = found
        size = top.rows.size
        if whole.live is not top.live or size > ITEMS or not np.array_equal(whole.rows[:size], top.rows):
            return None
        rows, gains = np.frombuffer(held, np.int32), np.frombuffer(held, np.float32)
        half = rows.size // 2
        told = rows[:half].reshape(-1, MOST)[:size, :most], gains[half:].reshape(-1, MOST)[:size, :most]
        given = told[1].astype(np.float64).round(DIGITS).tolist()
        return [
            [(row, gain) for row, gain in zip(some, gave, strict=True) if row >= 0]
            for some, gave in zip(told[0].tolist(), given, strict=True)
        ]


def _prepare(live: Live) -> None:
    """Make ready in a thread what makes reasons quick: until then they are worked out more slowly."""

    def work() -> None:
        for domain in live.scorers.keys() - live.shortlists.keys():
            live.scorers[domain].prepare()

    Thread(target=work, name="prepare", daemon=True).start()


def _explained(live: Live, one: Turn) -> list[Why]:
    scores = without_each(live, one.key[1], one.history, one.top.rows[:ITEMS].tolist())
    return strongest(one.history.items.tolist(), scores[0] - scores[1:], MOST, lambda _: True)
