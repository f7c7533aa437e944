"""One tenant: its log, its model, its lists. All that changes does so on one event loop, in the order of the log."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from datetime import datetime
from typing import Final

from isthmus.errors import ArtefactError, IsthmusError, NotFoundError, StorageError, nearest
from isthmus.log import logger
from isthmus.recommender import Recommender
from isthmus.service.lists.items import TEXTS, Account
from isthmus.service.lists.lister import Lister, rehearse
from isthmus.service.lists.live import Live, LiveRules, Version, clock
from isthmus.service.lists.loading import beside_requests, free_model, freeze
from isthmus.service.lists.reading import read_first
from isthmus.service.log.base import Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import ERASE, ITEM, REMOVE, Entry, Receipt, Record
from isthmus.service.log.upkeep import Upkeep
from isthmus.service.problems import BusyError, ConflictError
from isthmus.service.rollout.arm import Arm, Canary, count_in
from isthmus.service.rollout.arms import Rollout
from isthmus.service.rollout.models import Models
from isthmus.service.rollout.pointer import ROLES, Pointer, Role, Trial
from isthmus.service.rollout.shadow import Shadow
from isthmus.service.settings import ServiceSettings
from isthmus.service.watch.health import SICK, Writes, log_troubles
from isthmus.service.watch.observer import Observer
from isthmus.service.watch.reference import Reference
from isthmus.service.watch.traces import step

_DRIFT: Final = "{}.drift.json"
#: Seconds an erasure may take: the store is written anew.
ERASING: Final = 600.0
#: Seconds in which a model makes lists ready before it answers, about.
PREPARING: Final = 2.0


class Tenant:
    """Everything of one tenant.

    Parameters
    ----------
    name : str
        Its name.
    models : Models
        Its models.
    place : Place
        Where its log is.
    settings : ServiceSettings
        Sizes and times.

    Raises
    ------
    InputError
        The log is in use or damaged, or there is no model.
    """

    def __init__(self, name: str, models: Models, place: Place, settings: ServiceSettings) -> None:
        self.name, self.models = name, models
        self.rules = LiveRules(settings.consent == "required", settings.large)
        opened, version = models.first()
        self.log = open_log(place, name, pending=settings.pending)
        try:
            self.live = self._built(opened, version, self.log.read())
        except BaseException:
            self.log.close()
            raise
        self.live.seq = self.log.seq
        self.loaded = clock()
        self.settings = settings
        self.lister = Lister(lambda: self.live, settings)
        reference = Reference.of(opened, version.digest)
        self.observer = Observer(self.live, reference, place.folder / _DRIFT.format(name), settings.drift_seconds)
        self.rollout = Rollout(name, self._over)
        self.changing = asyncio.Lock()
        #: Writes to the audit log what happens by itself.
        self.noted: Callable[[str, dict[str, object]], Awaitable[None]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tail: list[Record] | None = None
        self._reading: asyncio.Task[None] | None = None
        self.writes = Writes()
        self.upkeep = Upkeep(self, place.folder)
        self._resume()

    def _resume(self) -> None:
        """Go on with the trials that were under way; one that cannot go on is over."""
        for role in ROLES:
            trial = self.models.pointer.trial(role)
            if trial is None:
                continue
            try:
                opened, version = self.models.open(trial.model)
                if version.digest != trial.version:
                    raise ArtefactError("was written anew since", where=trial.model)
                live = self._built(opened, version, self.log.read())
            except Exception as error:
                said = str(error) if isinstance(error, IsthmusError) else type(error).__name__
                logger.error("%s %s is over: %s", role, trial.model, said)
                self.models.point(self.models.pointer.over(role, said, clock()))
                continue
            live.seq = self.log.seq
            self.rollout.put(self.arm(role, live, trial))

    def arm(self, role: Role, live: Live, trial: Trial) -> Canary | Shadow:
        """Return a model as something that can be tried."""
        if role == "canary":
            return Canary(live, self.settings, trial, self.log.secret)
        return Shadow(live, self.settings, trial, lambda: self.lister.waiting > 0)

    def _over(self, arm: Arm, role: Role, reason: str) -> None:
        """Remember that a trial ended by itself."""
        logger.warning("%s %s is over: %s", role, arm.trial.model, reason)
        task = asyncio.get_running_loop().create_task(self._forget_trial(arm, role, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget_trial(self, arm: Arm, role: Role, reason: str) -> None:
        await self.rollout.end(arm)
        async with self.changing:
            pointer = self.models.pointer
            if pointer.trial(role) == arm.trial:
                await asyncio.to_thread(self.models.point, pointer.over(role, reason, clock()))
        if self.noted is not None:
            await self.noted(f"{role} rolled back", {"model": arm.trial.model, "reason": reason})

    def _built(self, base: Recommender, version: Version, records: Iterable[Sequence[Record]]) -> Live:
        """Return a model with what ``records`` say; one that cannot rank is refused, however it fails."""
        try:
            return Live.build(base, version, records, self.log.secret, rules=self.rules)
        except IsthmusError:
            raise
        except Exception as error:
            logger.info("model %s", version.name, exc_info=True)
            said = f"cannot be served: {type(error).__name__}"
            raise ArtefactError(said, where=version.name, fix="fit it again") from error

    async def start(self) -> None:
        """Begin to score; when this returns the first list is as quick as the next ones."""
        self.lister.start()
        await rehearse(self.lister)
        self.rollout.start()
        self.upkeep.start()
        self._reading = asyncio.create_task(read_first(self.live.base, lambda: self.lister.cold))

    async def stop(self) -> None:
        """Write what waits, end scoring, let go of the files."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.upkeep.stop()
        await self.rollout.stop()
        await self.lister.stop()
        await asyncio.to_thread(self.log.close)

    async def write(self, entries: Sequence[Entry], *, patience: float | None = None) -> Receipt:
        """Return when ``entries`` are on disk and count; of events, the next list knows them.

        A BusyError after ``patience`` seconds (the log's own if None), or while the store is away, does not say that
        they will not get there, and count: sent again, they are duplicates then.
        """
        loop = asyncio.get_running_loop()
        landed: asyncio.Future[Receipt] = loop.create_future()
        self.writes.begin(id(landed))

        def done(outcome: Receipt | IsthmusError) -> None:
            loop.call_soon_threadsafe(self._land, outcome, landed, context=here)

        try:
            with step("log commit", {"isthmus.records": len(entries)}):
                here = copy_context()  # the writer's thread has no trace
                self.log.append(entries, done)
                return await asyncio.wait_for(asyncio.shield(landed), patience or self.log.patience)
        except TimeoutError:
            landed.add_done_callback(_heard)
            self.writes.failed = time.monotonic()
            raise BusyError("the event log does not answer") from None
        finally:
            self.writes.end(id(landed))

    def troubles(self) -> list[str]:
        """Return why requests should go elsewhere, see :func:`isthmus.service.watch.health.reasons`."""
        found = [*([] if self.lister.started else ["starting"]), *log_troubles(self)]
        return found if self.lister.alive else [*found, "lists are not scored"]

    def _land(self, outcome: Receipt | IsthmusError, landed: asyncio.Future[Receipt]) -> None:
        if isinstance(outcome, StorageError):
            self.writes.failed = time.monotonic()
        if isinstance(outcome, IsthmusError):
            if not landed.done():
                landed.set_exception(outcome)
            return
        self.writes.failed = -SICK
        try:
            with step("count in", {"isthmus.records": len(outcome.records)}):
                self._count_in(outcome)
        except Exception as error:
            if not landed.done():
                landed.set_exception(error)
            raise
        if not landed.done():
            landed.set_result(outcome)

    def _count_in(self, receipt: Receipt) -> None:
        for record in receipt.records:
            self.observer.event(record.entry)
        count_in(self.live, self.lister, receipt)
        self.rollout.count_in(receipt)
        if self._tail is not None:
            self._tail.extend(receipt.records)

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
        async with self.changing:
            live = self.live
            bodies = {name: json.dumps(said, ensure_ascii=False, sort_keys=True) for name, said in items}
            if len(bodies) < len(items):
                raise ConflictError("an item is given twice", fix="name each item once")
            fresh = {name: body for name, body in bodies.items() if name not in live.shelf.names}
            changed = {name: body for name, body in bodies.items() if name in live.added and live.added[name] != body}
            back = [name for name in bodies if name in live.shelf.removed and name not in changed]
            self._refuse_what_cannot_be(live, {**dict(items)})
            wanted = {**fresh, **changed, **{name: bodies[name] for name in back}}
            longer = await asyncio.to_thread(live.extended, fresh) if fresh and not changed else None
            if wanted:
                await self.write([_item(name, body) for name, body in wanted.items()])
            if changed:
                self.take(await self.built(live.base, live.version))
            elif longer is not None:
                longer.adopt(live)
                self.live = longer
                self.lister.replaced(grown=True)
                self.observer.grown(longer)
                self.observer.items(fresh)
            for name in back:
                self.live.show(name, shown=True)
            for arm in await self.rollout.put_items(wanted):
                arm.replace(await self.built(arm.live.base, arm.live.version))
            return len(wanted), len(bodies) - len(wanted)

    def _refuse_what_cannot_be(self, live: Live, items: dict[Account, dict[str, object]]) -> None:
        known = live.shelf.domains
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
        async with self.changing:
            self.live.row(*name)
            if name in self.live.shelf.removed:
                return False
            await self.write([Entry(uuid.uuid4().hex, REMOVE, name[0], "", name[1], ts=clock())])
            return True

    async def erase(self, accounts: Sequence[Account]) -> Receipt:
        """Take all events of some accounts off the disk, and the accounts out of everybody's sight.

        What they said about the use of events goes on to hold for the person's other accounts.
        """
        state = self.live.state
        both = dict.fromkeys([*accounts, *map(state.hidden, accounts)])
        body = json.dumps({"accounts": [list(account) for account in both]})
        entries = [Entry(uuid.uuid4().hex, ERASE, ts=clock(), body=body)]
        person = state.person(*accounts[0])
        if person is not None:
            left = [state.aliases.get(one, one) for one in state.linked[person] if one not in both]
            said = [one for one in state.consents.of(person) if one.account in accounts]
            entries += [one.entry(uuid.uuid4().hex, left[0]) for one in said if left]
        return await self.write(entries, patience=ERASING)

    async def activate(self, name: str | None) -> Version:
        """Load a model beside the one that answers, then let it answer; on any problem nothing changes.

        Parameters
        ----------
        name : str, optional
            The model; the one before if not given.
        """
        async with self.changing:
            pointer = self.models.back() if name is None else self.models.activated(name)
            with beside_requests():
                opened, version = await asyncio.to_thread(self.models.open, pointer.active)
                if version == self.live.version:
                    await self.let_answer(self.live, pointer)
                    return version
                live = await self.built(opened, version)
                self.rollout.coming = coming = Arm(live, self.settings, Trial(version.name, version.digest, 1.0))
                try:
                    await coming.lister.prepare(self.lister.lately(live), PREPARING)
                    await self.let_answer(live, pointer)
                finally:
                    await self.rollout.end(coming)
            return version

    async def let_answer(self, live: Live, pointer: Pointer) -> None:
        """Remember that a model answers, then let it: what is killed in between starts with it.

        The model is the one that answers, or one that the rollout keeps up with the log.
        """
        reference = None
        if live.version != self.live.version:
            reference = await asyncio.to_thread(Reference.of, live.base, live.version.digest)
        await asyncio.to_thread(self.models.point, pointer)
        rollout = self.rollout
        trials = [(rollout.arm(role), pointer.trial(role)) for role in ROLES]
        over = [arm for arm, trial in trials if arm is not None and trial is None]
        ready = next((arm.lister for arm in rollout.arms if arm.live is live), None)
        for gone in [*over, *(arm for arm in rollout.arms if arm.live is live)]:
            rollout.let_go(gone)
        if live is not self.live:
            self.take(live, reference, ready)
        for arm in over:
            await rollout.end(arm)

    async def built(self, base: Recommender, version: Version) -> Live:
        """Return a model with the log replayed beside the one that answers; :attr:`changing` is held.

        What arrives meanwhile is counted in at the end.
        """
        self._tail = []
        records = self.log.read(until=self.live.seq)
        try:
            made = await asyncio.to_thread(self._built, base, version, records)
            for record in self._tail:
                made.state.apply(record.entry)
            made.seq = self.live.seq
        finally:
            self._tail = None
        return made

    def take(self, live: Live, reference: Reference | None = None, ready: Lister | None = None) -> None:
        """Let a model answer; another one brings the ``reference`` its lists are held against, and lists ``ready``.

        What was loaded is taken out of the garbage collector's rounds, which would halt requests for long; so a model
        that is no longer used must be in no circle of references.
        """
        if live.state is not self.live.state:
            free_model(self.live)
        self.live, self.loaded = live, clock()
        self.lister.replaced(ready)
        if reference is None:
            self.observer.grown(live)
        else:
            self.observer.replaced(live, reference)
        freeze()


def _heard(landed: asyncio.Future[Receipt]) -> None:
    """Take note of an outcome that nobody waits for any longer."""
    landed.exception()


def _item(name: Account, body: str) -> Entry:
    return Entry(uuid.uuid4().hex, ITEM, name[0], "", name[1], ts=clock(), body=body)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1e6)
    return list(value) if isinstance(value, (list, tuple)) else value
