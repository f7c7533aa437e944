"""The last hour by the minute: what the overview shows without a Prometheus beside it."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from isthmus.service.lock.operations import OPERATIONS

#: Minutes remembered.
MINUTES: Final = 60
#: Scopes of the operations that clients of the service use; looking at it is no traffic.
_TRAFFIC: Final = ("recommend", "events", "items", "persons")
_COUNTED: Final = {one.name for one in OPERATIONS if one.scope in _TRAFFIC and not one.look}
_FINEST: Final = 5e-5
_STEPS: Final = 4
_BUCKETS: Final = 80
_SHARES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


@dataclass
class Times:
    """How long things took, in buckets that grow by a fifth: shares of them are right to a tenth.

    Examples
    --------
    >>> times = Times()
    >>> for seconds in (0.001, 0.001, 0.001, 0.5):
    ...     times.add(seconds)
    >>> 0.0009 < times.below(0.5) < 0.0011, 0.45 < times.below(0.99) < 0.55, Times().below(0.5)
    (True, True, None)
    """

    buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def add(self, seconds: float) -> None:
        """Count one."""
        place = int(_STEPS * math.log2(max(seconds, _FINEST) / _FINEST))
        self.buckets[min(place, _BUCKETS - 1)] += 1

    def below(self, share: float) -> float | None:
        """Return the seconds that ``share`` of all took at most; None of nothing."""
        wanted, seen = share * sum(self.buckets), 0
        for place, count in enumerate(self.buckets):
            seen += count
            if count and seen >= wanted:
                return float(_FINEST * 2 ** ((place + 0.5) / _STEPS))
        return None


def _together(several: Iterable[Times]) -> Times:
    columns = zip(*(one.buckets for one in several), strict=True)
    return Times([sum(column) for column in columns] or [0] * _BUCKETS)


@dataclass
class Minute:
    """What happened in a minute of one tenant or all."""

    number: int
    calls: Counter[tuple[str, int]] = field(default_factory=Counter)
    times: dict[str, Times] = field(default_factory=dict)
    lists: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    commits: Times = field(default_factory=Times)


class Trend:
    """Counts of the last hour.

    Parameters
    ----------
    clock : callable
        Returns seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minutes: deque[Minute] = deque(maxlen=MINUTES)
        self.began = clock()

    def _now(self) -> Minute:
        number = int(self._clock() // 60)
        if not self._minutes or self._minutes[-1].number != number:
            self._minutes.append(Minute(number))
        return self._minutes[-1]

    def request(self, operation: str, status: int, seconds: float) -> None:
        """Count a request of a client."""
        if operation in _COUNTED:
            minute = self._now()
            minute.calls[operation, status // 100] += 1
            times = minute.times.get(operation)
            if times is None:
                times = minute.times[operation] = Times()
            times.add(seconds)

    def lists(self, layer: str, n: int) -> None:
        """Count lists by their layer."""
        self._now().lists[layer] += n

    def events(self, outcome: str, n: int) -> None:
        """Count events."""
        self._now().events[outcome] += n

    def commit(self, seconds: float) -> None:
        """Count the way of events to the disk."""
        self._now().commits.add(seconds)

    def hour(self) -> dict[str, object]:
        """Return the last hour: a figure a minute, the newest last, and each operation's as a whole."""
        now = int(self._clock() // 60)
        known = {minute.number: minute for minute in self._minutes}
        minutes = [known.get(number, Minute(number)) for number in range(now - MINUTES + 1, now + 1)]
        lists: Counter[str] = sum((one.lists for one in minutes), Counter())
        events: Counter[str] = sum((one.events for one in minutes), Counter())
        commits = _together(one.commits for one in minutes)
        return {
            "minutes": [_minute(one) for one in minutes],
            "operations": _operations(minutes),
            "lists": dict(lists),
            "events": dict(events),
            "commit": {name: commits.below(share) for name, share in _SHARES},
        }


def _minute(one: Minute) -> dict[str, object]:
    times = _together(one.times.values())
    return {
        "start": one.number * 60,
        "requests": sum(one.calls.values()),
        "refused": sum(n for (_, kind), n in one.calls.items() if kind == 4),
        "failed": sum(n for (_, kind), n in one.calls.items() if kind == 5),
        "lists": sum(one.lists.values()),
        "degraded": sum(n for layer, n in one.lists.items() if layer != "model"),
        "events": one.events["stored"],
        **{name: times.below(share) for name, share in _SHARES},
    }


def _operations(minutes: list[Minute]) -> list[dict[str, object]]:
    calls: Counter[tuple[str, int]] = sum((one.calls for one in minutes), Counter())
    rows: list[dict[str, object]] = []
    for name in sorted({name for name, _ in calls}):
        times = _together(one.times[name] for one in minutes if name in one.times)
        rows.append(
            {
                "operation": name,
                "calls": sum(n for (op, _), n in calls.items() if op == name),
                "refused": calls[name, 4],
                "failed": calls[name, 5],
                **{said: times.below(share) for said, share in _SHARES},
            }
        )
    return rows
