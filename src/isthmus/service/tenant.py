"""One tenant: its log, its model, its lists. All that changes does so on one event loop, in the order of the log."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from isthmus.errors import DataError, IsthmusError, NotFoundError, StorageError, nearest
from isthmus.log import logger
from isthmus.recommender import Recommender
from isthmus.service.events import EventLog
from isthmus.service.exposure import Exposure
from isthmus.service.items import TEXTS, Account
from isthmus.service.lists import Lister
from isthmus.service.live import Live, Version, clock
from isthmus.service.models import Models, Pointer
from isthmus.service.problems import ConflictError
from isthmus.service.records import CONSENT, ERASE, ITEM, REMOVE, Entry, Receipt, Record
from isthmus.service.settings import ServiceSettings
from isthmus.service.watch.observer import Observer
from isthmus.service.watch.reference import Reference

_FILE: Final = "{}.db"
_DRIFT: Final = "{}.drift.json"
#: Seconds for which a failed write makes the service not ready, unless one succeeds.
SICK: Final = 10.0


class Tenant:
    """Everything of one tenant.

    Parameters
    ----------
    name : str
        Its name.
    models : Models
        Its models.
    folder : Path
        Where its log lies.
    settings : ServiceSettings
        Sizes and times.

    Raises
    ------
    InputError
        The log is in use or damaged, or there is no model.
    """

    def __init__(self, name: str, models: Models, folder: Path, settings: ServiceSettings) -> None:
        self.name, self.models = name, models
        self.consent_required = settings.consent == "required"
        opened, version = models.first()
        self.log = EventLog(folder / _FILE.format(name), pending=settings.pending)
        try:
            self.live = self._built(opened, version, self.log.read())
        except BaseException:
            self.log.close()
            raise
        self.live.seq = self.log.seq
        self.loaded = clock()
        self.lister = Lister(lambda: self.live, settings)
        self.exposure = Exposure()
        reference = Reference.of(opened, version.digest)
        self.observer = Observer(self.live, reference, folder / _DRIFT.format(name), settings.drift_seconds)
        self._tail: list[Record] | None = None
        self._changing = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._writing: dict[int, float] = {}
        self._failed = -SICK

    def _built(self, base: Recommender, version: Version, records: Iterable[Sequence[Record]]) -> Live:
        """Return a model with what ``records`` say."""
        return Live.build(base, version, records, self.log.secret, consent_required=self.consent_required)

    def start(self) -> None:
        """Begin to score, and make ready to read texts: the first one would take seconds."""
        self.lister.start()
        self._reading = asyncio.create_task(asyncio.to_thread(_read_something, self.live.base))

    async def stop(self) -> None:
        """Write what waits, end scoring, let go of the files."""
        if self._reading is not None:
            await self._reading
        await self.lister.stop()
        await asyncio.to_thread(self.log.close)

    async def write(self, entries: Sequence[Entry]) -> Receipt:
        """Return when ``entries`` are on disk and count; of events, the next list knows them."""
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[Receipt] = loop.create_future()
        self._writing[id(landed)] = time.monotonic()

        def done(outcome: Receipt | IsthmusError) -> None:
            loop.call_soon_threadsafe(self._land, outcome, landed)

        try:
            self.log.append(entries, done)
            return await landed
        finally:
            self._writing.pop(id(landed), None)

    @property
    def lag(self) -> float:
        """Age in seconds of the oldest entry that is not counted in yet; 0 if there is none."""
        oldest = next(iter(self._writing.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def troubles(self) -> list[str]:
        """Return why requests should go elsewhere, see :func:`isthmus.service.watch.health.reasons`."""
        found = [] if self.lister.started else ["starting"]
        if time.monotonic() - self._failed < SICK:
            found.append("events cannot be written")
        return found if self.lister.alive else [*found, "lists are not scored"]

    def _land(self, outcome: Receipt | IsthmusError, landed: asyncio.Future[Receipt]) -> None:
        if isinstance(outcome, StorageError):
            self._failed = time.monotonic()
        if isinstance(outcome, IsthmusError):
            if not landed.done():
                landed.set_exception(outcome)
            return
        self._failed = -SICK
        try:
            self._count_in(outcome)
        except Exception as error:
            if not landed.done():
                landed.set_exception(error)
            raise
        if not landed.done():
            landed.set_result(outcome)

    def _count_in(self, receipt: Receipt) -> None:
        live = self.live
        grown: dict[int, None] = {}
        for record in receipt.records:
            entry = record.entry
            self.observer.event(entry)
            if entry.kind == ERASE:
                persons = [live.state.person(*account) for account in _accounts(entry)]
                self.lister.forget([person for person in persons if person is not None])
            person = live.state.apply(entry)
            if person is not None and entry.kind == CONSENT:
                self.lister.forget([person])
            if person is not None:
                grown[person] = None
            if entry.kind == REMOVE:
                live.show((entry.platform, entry.item), shown=False)
        live.seq = receipt.seq
        if self._tail is not None:
            self._tail.extend(receipt.records)
        self.lister.warm(grown, soon=True)

    async def put_items(self, items: Sequence[tuple[Account, dict[str, object]]]) -> tuple[int, int]:
        """Make items known, or change what is said of items that came since the model was made.

        Returns
        -------
        tuple of int
            Items written, and those that were known just so. When this returns they can be in lists.

        Raises
        ------
        NotFoundError
            No item of the model is in the domain.
        ConflictError
            The item is part of the model and says something else there.
        """
        async with self._changing:
            live = self.live
            bodies = {name: json.dumps(said, ensure_ascii=False, sort_keys=True) for name, said in items}
            if len(bodies) < len(items):
                raise DataError("an item is given twice", fix="name each item once")
            fresh = {name: body for name, body in bodies.items() if name not in live.shelf.names}
            changed = {name: body for name, body in bodies.items() if name in live.added and live.added[name] != body}
            back = [name for name in bodies if name in live.shelf.removed and name not in changed]
            self._refuse_what_cannot_be(live, {**dict(items)})
            wanted = {**fresh, **changed, **{name: bodies[name] for name in back}}
            longer = await asyncio.to_thread(live.extended, fresh) if fresh and not changed else None
            if wanted:
                await self.write([_item(name, body) for name, body in wanted.items()])
            if changed:
                await self._rebuild(live.base, live.version)
            elif longer is not None:
                longer.adopt(live)
                self.live = longer
                self.lister.replaced()
                self.observer.grown(longer)
                self.observer.items(fresh)
            for name in back:
                self.live.show(name, shown=True)
            return len(wanted), len(bodies) - len(wanted)

    def _refuse_what_cannot_be(self, live: Live, items: dict[Account, dict[str, object]]) -> None:
        known = live.shelf.table["domain"].unique().sort().to_list()
        for (platform, item), said in items.items():
            domain = str(said["domain"])
            if domain not in known:
                hint = nearest(domain, known)
                raise NotFoundError(f"no domain '{domain}'{hint}", where="items", fix=f"domains: {', '.join(known)}")
            row = live.shelf.names.get((platform, item))
            if row is None or (platform, item) in live.added:
                continue
            have = live.shelf.table.select(TEXTS).row(row, named=True)
            if any(_plain(have[name]) != _plain(said.get(name)) for name in TEXTS if said.get(name) is not None):
                raise ConflictError(
                    f"'{platform}:{item}' is part of the model and says something else there",
                    fix="fit the model again, or give the item another id",
                )

    async def remove_item(self, name: Account) -> bool:
        """Take an item off the lists; return whether it was on them."""
        async with self._changing:
            self.live.row(*name)
            if name in self.live.shelf.removed:
                return False
            await self.write([Entry(uuid.uuid4().hex, REMOVE, name[0], "", name[1], ts=clock())])
            return True

    async def erase(self, accounts: Sequence[Account]) -> Receipt:
        """Take all events of some accounts off the disk, and the accounts out of everybody's sight.

        What they said about the use of events goes on to hold for the person's other accounts.
        """
        body = json.dumps({"accounts": [list(account) for account in accounts]})
        entries = [Entry(uuid.uuid4().hex, ERASE, ts=clock(), body=body)]
        state = self.live.state
        person = state.person(*accounts[0])
        if person is not None:
            left = [account for account in state.linked[person] if account not in accounts]
            said = [one for one in state.consents.of(person) if one.account in accounts]
            entries += [one.entry(uuid.uuid4().hex, left[0]) for one in said if left]
        return await self.write(entries)

    async def activate(self, pointer: Pointer) -> Version:
        """Load a model beside the one that answers, then let it answer; on any problem nothing changes."""
        async with self._changing:
            opened, version = await asyncio.to_thread(self.models.open, pointer.active)
            if version != self.live.version:
                await self._rebuild(opened, version)
            await asyncio.to_thread(self.models.point, pointer)
            return version

    async def _rebuild(self, base: Recommender, version: Version) -> None:
        """Replay the log beside the model that answers; what arrives meanwhile is counted in at the end.

        What was loaded is taken out of the garbage collector's rounds, which would halt requests for long.
        """
        self._tail = []
        records = self.log.read(until=self.live.seq)
        try:
            made = await asyncio.to_thread(self._built, base, version, records)
            reference = None
            if version != self.live.version:
                reference = await asyncio.to_thread(Reference.of, base, version.digest)
            for record in self._tail:
                made.state.apply(record.entry)
            made.seq = self.live.seq
        finally:
            self._tail = None
        self.live, self.loaded = made, clock()
        self.lister.replaced()
        if reference is None:
            self.observer.grown(made)
        else:
            self.observer.replaced(made, reference)
        gc.freeze()


def _read_something(model: Recommender) -> None:
    try:
        model.content.readers.read(model.items.head(1))
    except Exception:
        logger.exception("texts of new items cannot be read")


def _item(name: Account, body: str) -> Entry:
    return Entry(uuid.uuid4().hex, ITEM, name[0], "", name[1], ts=clock(), body=body)


def _accounts(entry: Entry) -> list[Account]:
    return [(platform, user) for platform, user in json.loads(entry.body)["accounts"]]


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1e6)
    return list(value) if isinstance(value, (list, tuple)) else value
