"""What people said to the service about the use of their events, and which use that leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.recommender.consents import ANY, Cube, allowed_for, stated
from isthmus.recommender.people import People
from isthmus.service.log.records import CONSENT, Entry
from isthmus.types import Ints

Account = tuple[str, str]
_BODY: Final = ("from_platform", "to_platform", "allowed")


@dataclass(frozen=True, slots=True)
class Said:
    """One thing said.

    Parameters
    ----------
    account : (str, str)
        By whom: platform and user.
    from_platform, to_platform : str
        Events of the first, used for lists on the second; ``*`` is any other platform.
    allowed : bool
        Whether that may be done.
    ts : int
        When, in microseconds since 1970.
    """

    account: Account
    from_platform: str
    to_platform: str
    allowed: bool
    ts: int

    @property
    def pair(self) -> tuple[str, str]:
        """From where to where."""
        return self.from_platform, self.to_platform

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """Return what an entry of the log says."""
        body = json.loads(entry.body)
        said = str(body["from_platform"]), str(body["to_platform"]), bool(body["allowed"])
        return cls((entry.platform, entry.user), *said, entry.ts)

    def entry(self, name: str, account: Account | None = None) -> Entry:
        """Return the entry of the log with the id ``name``, said by ``account`` of the same person if given."""
        platform, user = account or self.account
        body = json.dumps({part: getattr(self, part) for part in _BODY}, sort_keys=True)
        return Entry(name, CONSENT, platform, user, ts=self.ts, body=body)


class Consents:
    """What was said, by person; what is said last of a pair of platforms holds.

    Parameters
    ----------
    required : bool
        Whether the use on another platform needs a consent; else it needs that nobody forbade it.

    Examples
    --------
    >>> consents = Consents()
    >>> consents.say(3, Said(("shop", "u"), "shop", "*", True, 1))
    >>> consents.say(3, Said(("shop", "u"), "shop", "radio", False, 2))
    >>> [(one.pair, one.allowed) for one in consents.of(3)]
    [(('shop', '*'), True), (('shop', 'radio'), False)]
    """

    def __init__(self, *, required: bool = False) -> None:
        self.required = required
        self._said: dict[int, tuple[Said, ...]] = {}

    def __bool__(self) -> bool:
        """Whether anybody said anything."""
        return bool(self._said)

    def say(self, person: int, said: Said) -> None:
        """Take in what a person said."""
        before = self._said.get(person, ())
        self._said[person] = (*(one for one in before if one.pair != said.pair), said)

    def of(self, person: int | None) -> tuple[Said, ...]:
        """Return what a person said, in order: another object whenever something changed; None said nothing."""
        return () if person is None else self._said.get(person, ())

    def forget(self, person: int, account: Account) -> None:
        """Drop what was said by an account."""
        kept = tuple(one for one in self.of(person) if one.account != account)
        if kept:
            self._said[person] = kept
        else:
            self._said.pop(person, None)

    def told(self, person: int) -> list[list[str]]:
        """Return what a person said as plain texts."""
        return [[*one.account, *one.pair, str(one.allowed)] for one in self.of(person)]


class Uses:
    """Which events may be used for which lists: what the model knows, then what people said since.

    Parameters
    ----------
    people : People
        What the model knows.
    platforms : sequence of str
        The ``Q`` platforms, in their order.
    said : Consents
        What was said since, and whether it is needed.
    """

    def __init__(self, people: People, platforms: Sequence[str], said: Consents) -> None:
        self.platforms, self._said = list(platforms), said
        size = len(self.platforms)
        self._default: Cube = ~np.eye(size, dtype=bool) if said.required else np.zeros((size, size), dtype=bool)
        self._model: dict[int, list[tuple[str, str, bool]]] = {}
        if people.consents.height:
            rows = stated(people.consents, people.accounts)
            for person, *words in rows.select("person_number", "from_platform", "to_platform", "allowed").iter_rows():
                self._model.setdefault(int(person), []).append((words[0], words[1], words[2]))
        self._kept: dict[int, tuple[tuple[Said, ...], Cube]] = {}

    def of_model(self, person: int) -> list[tuple[str, str, bool]]:
        """Return what the model knows a person to have said: from, to, allowed."""
        return self._model.get(person, [])

    def denied(self, persons: Ints) -> Cube | None:
        """Return which use each of ``persons`` denies, (B, Q, Q); None if nobody denies any.

        A negative number is somebody never seen, who said nothing.
        """
        if not (self._said.required or self._model or self._said):
            return None
        found: Cube = np.stack([self.of(one) if one >= 0 else self._default for one in persons.tolist()])
        return found if found.any() else None

    def used(
        self, persons: Ints, histories: Histories, platform: Ints, ends: Ints, shown: Sequence[str] = ()
    ) -> Histories:
        """Return the events (B histories) that may be used for lists of items of the platforms ``ends``, numbers.

        ``platform`` (N,) has that of each item; what is ``shown`` on other platforms uses what is allowed there too.
        """
        denied = self.denied(persons)
        if denied is None:
            return histories
        if shown and not any(self.platforms[end] in shown for end in ends):
            known = [code for code, name in enumerate(self.platforms) if name in shown]
            if len(known) < len(shown) and self._said.required:  # nobody can have allowed a use there
                return histories.keep(np.zeros(histories.items.size, dtype=bool))
            ends = np.union1d(ends, np.array(known, np.int64))
        return histories.keep(allowed_for(histories, denied, platform, ends))

    def of(self, person: int) -> Cube:
        """Return which use one person denies, (Q, Q)."""
        said, model = self._said.of(person), self._model.get(person)
        if not said and not model:
            return self._default
        found = self._kept.get(person)
        if found is None or found[0] is not said:
            denied = self._default.copy()
            for start, end, allowed in (*(model or ()), *((*one.pair, one.allowed) for one in said)):
                self._set(denied, start, end, not allowed)
            found = self._kept[person] = said, denied
        return found[1]

    def _set(self, denied: Cube, start: str, end: str, value: bool) -> None:
        mixed = ANY in (start, end)
        for row in self._codes(start):
            for column in self._codes(end):
                if not (mixed and row == column):
                    denied[row, column] = value

    def _codes(self, platform: str) -> list[int]:
        if platform == ANY:
            return list(range(len(self.platforms)))
        return [code for code, name in enumerate(self.platforms) if name == platform]
