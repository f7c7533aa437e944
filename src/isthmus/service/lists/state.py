"""Who is known and what they did: the model's people, and what the log says since.

A projection of the log: the same records give the same state, in whatever order events of one time arrive.
"""

from __future__ import annotations

import hashlib
import json
from bisect import insort
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.recommender.people import People
from isthmus.service.lock.consents import Consents, Said
from isthmus.service.log.records import CONSENT, ERASE, EVENT, Entry, tombstone
from isthmus.types import EVENT_WEIGHTS, EVENTS, Codes, Floats, Indices, Ints

Account = tuple[str, str]
#: Accounts taken in together: many at once would halt requests while a model is loaded beside another.
STEP: Final = 2000
_CODES: Final = {name: code for code, name in enumerate(EVENTS)}


class Deed(NamedTuple):
    """An event of a person since the model was made; sorts by time, then by id."""

    ts: int
    id: str
    item: int
    weight: float
    event: int


class Waiting(NamedTuple):
    """An event on an item that is not known yet."""

    person: int
    deed: Deed


class State:
    """Accounts and histories.

    Parameters
    ----------
    people : People
        What the model knows of people.
    names : mapping of (str, str) to int
        Row of each item (platform, item); grows when items come.
    platforms : list of str
        Platform of each item row; grows too.
    secret : bytes
        Key of the log's tombstones.

    Raises
    ------
    InputError
        The model has pseudonyms, and their key is not there.
    """

    def __init__(self, people: People, names: Mapping[Account, int], platforms: list[str], secret: bytes) -> None:
        self.names, self.platforms, self._secret = names, platforms, secret
        self._pseudonyms = people.pseudonyms
        if self._pseudonyms is not None:
            self._pseudonyms.require()
        self.aliases: dict[Account, Account] = {}  # what the log calls accounts that have another name here
        self.accounts: dict[Account, int] = {}
        for some in people.accounts.select("platform", "user", "person").iter_slices(STEP):
            platforms_of, users, persons = (column.to_list() for column in some)
            self.accounts.update(zip(zip(platforms_of, users, strict=True), persons, strict=True))
        numbers = people.accounts["person"]
        self._old = 1 + int(numbers.to_numpy().max()) if len(numbers) else 0
        self._next = self._old
        self.linked: dict[int, list[Account]] = defaultdict(list)
        for account, number in self.accounts.items():
            self.linked[number].append(account)
        frame = people.events
        self._indptr: Ints = np.searchsorted(frame["person"].to_numpy(), np.arange(self._old + 1)).astype(np.int64)
        self._items: Indices = frame["item"].to_numpy().astype(np.int32)
        self._weights: Floats = frame["weight"].to_numpy().astype(np.float32)
        self._ts: Ints = frame["ts"].to_physical().to_numpy().astype(np.int64)
        self._events: Codes = frame["event"].to_numpy().astype(np.int8)
        self._fresh: dict[int, list[Deed]] = {}
        self._hidden: dict[int, set[str]] = {}
        self._waiting: dict[Account, list[Waiting]] = defaultdict(list)
        self._stamps: dict[int, int] = {}
        self._stones: dict[str, Account] | None = None
        self.consents = Consents()

    def person(self, platform: str, user: str) -> int | None:
        """Return the person of an account, None for somebody never seen."""
        return self.accounts.get(self.hidden((platform, user)))

    def hidden(self, account: Account) -> Account:
        """Return what an account is called here: as in the model."""
        return account if self._pseudonyms is None else (account[0], self._pseudonyms.user(*account))

    def stamp(self, person: int | None) -> int:
        """Return a number that changes whenever the person's history does; 0 for somebody never seen."""
        return 0 if person is None else self._stamps.get(person, 0)

    @property
    def persons(self) -> int:
        """Persons with an account."""
        return len(self.linked)

    @property
    def waiting(self) -> int:
        """Events on items that are not known yet."""
        return sum(map(len, self._waiting.values()))

    def apply(self, entry: Entry) -> int | None:
        """Take in an event, a consent or an erasure; return the person concerned, None where nothing changes."""
        if entry.kind == EVENT:
            return self._event(entry)
        if entry.kind == CONSENT:
            person = self._known((entry.platform, entry.user))
            self.consents.say(person, Said.of(entry))
            self._stamps[person] = self._stamps.get(person, 0) + 1
            return person
        if entry.kind == ERASE:
            self.forget(self._erased(json.loads(entry.body)))
        return None

    def _known(self, account: Account) -> int:
        """Return the person of an account, who is new if it is."""
        known = self.hidden(account)
        if known != account:
            self.aliases[known] = account
        person = self.accounts.get(known)
        if person is None:
            person = self.accounts[known] = self._next
            self.linked[person].append(known)
            self._next += 1
        return person

    def _event(self, entry: Entry) -> int | None:
        person = self._known((entry.platform, entry.user))
        weight = EVENT_WEIGHTS[entry.event]
        if not weight:
            return person
        row = self.names.get((entry.platform, entry.item))
        deed = Deed(entry.ts, entry.id, -1 if row is None else row, weight, _CODES[entry.event])
        if row is None:
            self._waiting[entry.platform, entry.item].append(Waiting(person, deed))
        else:
            self._add(person, deed)
        return person

    def _add(self, person: int, deed: Deed) -> None:
        if person < self._old:
            start, stop = self._indptr[person], self._indptr[person + 1]
            late = start < stop and deed.ts <= self._ts[stop - 1]
            if late and not self._hidden.get(person) and self._holds(slice(start, stop), deed):
                return  # the model was made from this event
        insort(self._fresh.setdefault(person, []), deed)
        self._stamps[person] = self._stamps.get(person, 0) + 1

    def _holds(self, span: slice, deed: Deed) -> bool:
        """Return whether an event is among those the model knows, whose places are ``span``."""
        same = (self._ts[span] == deed.ts) & (self._items[span] == deed.item) & (self._events[span] == deed.event)
        return bool(same.any())

    def came(self, items: Iterable[Account]) -> list[int]:
        """Let the events count that waited for ``items``, now in :attr:`names`; return the persons concerned."""
        persons = []
        for item in items:
            for waiting in self._waiting.pop(item, []):
                self._add(waiting.person, waiting.deed._replace(item=self.names[item]))
                persons.append(waiting.person)
        return persons

    def forget(self, accounts: Iterable[Account]) -> None:
        """Drop accounts and what they did; of a person, those of one platform go together."""
        for account in accounts:
            known = self.hidden(account)
            person = self.accounts.pop(known, None)
            if person is None:
                continue
            account = self.aliases.pop(known, account)
            self.linked[person].remove(known)
            if not self.linked[person]:
                del self.linked[person]
            self.consents.forget(person, account)
            self._hidden.setdefault(person, set()).add(account[0])
            kept = [deed for deed in self._fresh.get(person, []) if self.platforms[deed.item] != account[0]]
            self._fresh[person] = kept
            self._stamps[person] = self._stamps.get(person, 0) + 1
            for item in [item for item in self._waiting if item[0] == account[0]]:
                left = [waiting for waiting in self._waiting[item] if waiting.person != person]
                self._waiting[item] = left
                if not left:
                    del self._waiting[item]
            if person not in self.linked:  # nobody is called by that number any more
                for held in (self._fresh, self._hidden, self._stamps):
                    held.pop(person, None)

    def _erased(self, body: Mapping[str, list[str]]) -> list[Account]:
        """Return the accounts an erasure names, by name or by tombstone."""
        if "accounts" in body:
            return [(pair[0], pair[1]) for pair in body["accounts"]]
        if self._stones is None:
            self._stones = {tombstone(self._secret, *account): account for account in self.accounts}
        return [self._stones[stone] for stone in body["stones"] if stone in self._stones]

    def batch(self, persons: Sequence[int | None]) -> Histories:
        """Return the histories of some persons; None is somebody without one."""
        parts = [self._history(person) for person in persons]
        lengths = np.array([part[0].size for part in parts], dtype=np.int64)
        columns = [np.concatenate([part[n] for part in parts]) if parts else np.zeros(0) for n in range(4)]
        return Histories(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            columns[0].astype(np.int32),
            columns[1].astype(np.float32),
            columns[2].astype(np.int64),
            columns[3].astype(np.int8),
        )

    def _learned(self, person: int | None) -> tuple[Indices, Floats, Ints, Codes]:
        """Return what the model knows of one person, less what was erased, oldest first."""
        rows = self._rows(person)
        return self._items[rows], self._weights[rows], self._ts[rows], self._events[rows]

    def _rows(self, person: int | None) -> slice | Ints:
        """Return the rows of the model's events that count for a person: less what was erased."""
        if person is None or person >= self._old:
            return slice(0, 0)
        span = slice(int(self._indptr[person]), int(self._indptr[person + 1]))
        hidden = self._hidden.get(person, ())
        if not hidden:
            return span
        kept = [row for row in range(span.start, span.stop) if self.platforms[self._items[row]] not in hidden]
        return np.array(kept, dtype=np.int64)

    def _history(self, person: int | None) -> tuple[Indices, Floats, Ints, Codes]:
        """Return items, weights, times and event codes of one person, oldest first."""
        items, weights, ts, events = self._learned(person)
        deeds = [] if person is None else self._fresh.get(person, [])
        if not deeds:
            return items, weights, ts, events
        items = np.concatenate([items, np.array([deed.item for deed in deeds], np.int32)])
        weights = np.concatenate([weights, np.array([deed.weight for deed in deeds], np.float32)])
        events = np.concatenate([events, np.array([deed.event for deed in deeds], np.int8)])
        late = ts.size > 0 and deeds[0].ts < ts[-1]
        ts = np.concatenate([ts, np.array([deed.ts for deed in deeds], np.int64)])
        if not late:
            return items, weights, ts, events
        order = np.argsort(ts, kind="stable")
        return items[order], weights[order], ts[order], events[order]

    def met(self, person: int | None) -> set[int]:
        """Return the items of a person's history."""
        return set(self._history(person)[0].tolist())

    def met_by(self, row: int) -> int:
        """Return how many persons had met an item when the model was made, less what was erased."""
        hits = np.flatnonzero(self._items == row)
        persons = np.unique(np.searchsorted(self._indptr, hits, "right") - 1).tolist()
        platform = self.platforms[row]
        return sum(person in self.linked and platform not in self._hidden.get(person, ()) for person in persons)

    def learned(self, person: int | None) -> Ints:
        """Return the rows of the model's events that it knows of a person, less what was erased."""
        rows = self._rows(person)
        return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows

    def newest(self, rows: Container[int], since: int) -> list[tuple[Account, Deed]]:
        """Return the newest event after ``since`` of each person on one of the items ``rows``, by an account."""
        found = []
        for person in list(self._fresh):
            linked = self.linked.get(person)
            for deed in reversed(self._fresh[person][:]):
                if deed.ts <= since:
                    break
                if deed.item in rows and linked:
                    found.append((min(linked), deed))
                    break
        return found

    def digest(self) -> str:
        """Return a hash of all accounts and histories, the same for the same content."""
        rows = list(self.names)
        whole = hashlib.sha256()
        for account in sorted(self.accounts):
            items, weights, ts, events = self._history(self.accounts[account])
            said = [[*rows[item]] for item in items] + self.consents.told(self.accounts[account])
            whole.update(json.dumps([account, said, ts.tolist(), weights.tolist(), events.tolist()]).encode())
        for item in sorted(self._waiting):
            waiting = sorted(deed[:2] for _, deed in self._waiting[item])
            whole.update(json.dumps([item, waiting]).encode() if waiting else b"")
        return whole.hexdigest()
