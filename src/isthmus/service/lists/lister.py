"""Lists for persons: kept ready, scored many at a time, and from a cheaper layer rather than late."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, Literal, TypeVar

from isthmus.data.sequences import Histories
from isthmus.errors import NotFoundError
from isthmus.log import logger
from isthmus.service.lists.beside import Beside
from isthmus.service.lists.exposure import Exposure
from isthmus.service.lists.items import Account
from isthmus.service.lists.kept import Kept, Key, Older, Told
from isthmus.service.lists.live import Live, Top, clock
from isthmus.service.lists.pace import NO_LIMIT, PROMISE, Pace
from isthmus.service.lists.reasons import Reasons
from isthmus.service.lists.scoring import WIDE, Ask, one, room, unmet, wide, without_each
from isthmus.service.settings import ServiceSettings
from isthmus.service.watch.traces import step
from isthmus.types import Floats

Done = TypeVar("Done")
Layer = Literal["model", "cached", "popular"]
#: Persons whose lists are made ready together in idle time, at most.
IDLE: Final = 16
#: The same while others are waited for.
BESIDE: Final = 4
#: Accounts remembered that asked last.
LATELY: Final = 1000
#: Seconds of lists that are scored on the event loop itself: handing work of a few milliseconds to a thread costs more,
#: for the two take turns at every step of it, and a busy loop would let the thread hardly get on.
QUICK: Final = 0.004


@dataclass(frozen=True)
class Listed:
    """A list, and the layer it comes from."""

    top: Top
    layer: Layer


@dataclass
class _Job:
    ask: Ask
    done: asyncio.Future[Top]

    def answer(self, top: Top) -> None:
        """Give the list to whoever still waits for it."""
        if not self.done.done():
            self.done.set_result(top)


class Lister:
    """Answers :class:`Ask`; belongs to one event loop.

    Parameters
    ----------
    live : callable
        Returns the model that answers now.
    settings : ServiceSettings
        Deadline and sizes.
    """

    def __init__(self, live: Callable[[], Live], settings: ServiceSettings) -> None:
        self._live, self._settings = live, settings
        self.exposure = Exposure()
        self.told = Told()
        self.reasons = Reasons()
        #: Whether the lists of a person are worth being made ready.
        self.wants: Callable[[int], bool] = lambda _: True
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._older = Older()
        self._jobs: deque[_Job] = deque()
        self._cold: OrderedDict[int, None] = OrderedDict()
        self._rest: deque[int] = deque()
        self._lately: OrderedDict[Account, None] = OrderedDict()
        self._pace = Pace()
        self._aside = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        #: Other work that requests wait for.
        self.beside = Beside(settings, self._work.set)

    @property
    def waiting(self) -> int:
        """Lists that wait to be scored."""
        return len(self._jobs)

    @property
    def kept(self) -> int:
        """Lists kept ready."""
        return len(self._kept)

    @property
    def cold(self) -> int:
        """Persons whose lists will be made ready."""
        return len(self._cold) + len(self._rest)

    @property
    def started(self) -> bool:
        """Whether it has begun to score."""
        return self._task is not None

    @property
    def alive(self) -> bool:
        """Whether it will score what is asked of it."""
        return self._task is None or not self._task.done()

    def start(self) -> None:
        """Begin to score; lists of all persons known are made ready in idle time."""
        self._warm_all()
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def stop(self, *, wait: bool = True) -> None:
        """End scoring; ``wait``: for what is being scored, too."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def replaced(self, ready: Lister | None = None, *, grown: bool = False) -> None:
        """Begin anew after another model came, with its lists ``ready``, or more items: it has ``grown``."""
        self._older.follow(self._kept, grown=grown)
        self._work.set()
        self._kept = OrderedDict()
        if ready is not None:
            self._kept, ready._kept = ready._kept, self._kept
        self._cold.clear()
        self.reasons.anew(self._live())
        self.warm(reversed(self.lately(self._live())))
        self._warm_all()

    def lately(self, live: Live) -> list[int]:
        """Return the persons who asked last, newest first, as ``live`` counts them."""
        found = (live.state.person(*account) for account in reversed(self._lately))
        return list(dict.fromkeys(person for person in found if person is not None))

    async def prepare(self, persons: Sequence[int], seconds: float) -> None:
        """Make the lists of ``persons`` ready, in half of the time at most, for about ``seconds``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        for start in range(0, len(persons), BESIDE):
            began = loop.time()
            if began > until:
                return
            for domain in self._live().domains:
                await self._wide(domain, persons[start : start + BESIDE])
            await asyncio.sleep(loop.time() - began)

    def warm(self, persons: Iterable[int]) -> None:
        """Make the lists of ``persons`` ready in idle time, before those of others."""
        if self._settings.warm:
            for person in persons:
                self._cold[person] = None
                self._cold.move_to_end(person, last=False)
            self._work.set()

    def _warm_all(self) -> None:
        """Make the lists of as many people as there is room for ready in idle time."""
        if self._settings.warm:
            live = self._live()
            self._rest = deque(islice(live.state.linked, self._settings.cache // max(len(live.domains), 1)))
            self._work.set()

    def ready(self, ask: Ask) -> Top | None:
        """Return the list if it is kept ready and nothing happened since."""
        self._lately[ask.account] = None
        self._lately.move_to_end(ask.account)
        if len(self._lately) > LATELY:
            self._lately.popitem(last=False)
        if not ask.plain:
            return None
        live = self._live()
        kept = self._holding(live, ask.person(live), ask.domain)
        return None if kept is None else kept.cut(ask)

    def _holding(self, live: Live, person: int | None, domain: str) -> Kept | None:
        """Return a list that is kept if it is what scoring would give now."""
        kept = self._kept.get((person, domain))
        if kept is None or kept.live is not live or kept.edition != live.edition:
            return None
        return kept if kept.stamp == live.state.stamp(person) and kept.until > clock() else None

    def at_once(self, ask: Ask) -> Listed | None:
        """Return the list that is ready, or a cheaper one where the model's would be late; None: it has to be made."""
        top = self.ready(ask)
        if top is not None:
            return Listed(top, "model")
        return self._cheaper(ask) if self._too_much() else None

    async def answer(self, ask: Ask) -> Listed:
        """Return the list: from the model if it is there within the deadline, else from a cheaper layer."""
        found = self.at_once(ask)
        if found is not None:
            return found
        done: asyncio.Future[Top] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(ask, done))
        self._work.set()
        try:
            with step("score", {"isthmus.k": ask.k}):
                async with asyncio.timeout(self._settings.deadline):
                    return Listed(await done, "model")
        except TimeoutError:
            return self._cheaper(ask)

    def _too_much(self) -> bool:
        """Return whether a list would come too late, judging by how long the newest ones took."""
        waiting = len(self._jobs)
        expected = (waiting + 1 + self._pace.inside) * self._pace.seconds
        return waiting >= self._settings.waiting or (waiting > 0 and expected > PROMISE * self._settings.deadline)

    async def contributions(
        self, ask: Ask, rows: Sequence[int], tell: Callable[[Histories, Floats], Done], until: float
    ) -> Done:
        """Return what ``tell`` makes of a history, and of what each event of it gives to the scores of ``rows``.

        Parameters
        ----------
        ask : Ask
            Whose history, and for lists of what.
        rows : sequence of int
            Items.
        tell : callable
            Takes the history of one person, and scores with the whole of it, then without each of its events, float32
            array (H + 1, R).
        until : float
            Time of the event loop.

        Raises
        ------
        BusyError
            It is not there in time, see :meth:`~isthmus.service.lists.beside.Beside.result`.
        """
        live = self._live()
        history = live.heard(ask.domain, ask.asked(live)).last(WIDE)
        if self._settings.warm:
            self.reasons.want(self._kept, live)
        with step("score without each", {"isthmus.events": int(history.items.size)}):
            work = lambda: tell(history, without_each(live, ask.domain, history, rows))  # noqa: E731
            return await self.beside.result(work, until)

    async def aside(self, work: Callable[[], Done]) -> Done:
        """Return what ``work`` returns, done in the scorer's thread: what it uses is used by nobody meanwhile.

        There is no bound: a request waits in :attr:`beside`.
        """
        self._aside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._aside -= 1

    def _cheaper(self, ask: Ask) -> Listed:
        """Return an older list of the person, else the popular items; what is seen by now is left out."""
        live = self._live()
        person = ask.person(live)
        live.scorer(ask.domain)
        old = None if ask.shown else self._old((person, ask.domain), live)
        top = unmet(live, ask, live.popular(ask.domain) if old is None else old)
        return Listed(ask.cut(top), "popular" if old is None else "cached")

    def _old(self, key: Key, live: Live) -> Top | None:
        """Return a list that was kept ready, as it was then."""
        kept = self._kept.get(key)
        return kept.top if kept is not None and kept.live.shown is live.shown else self._older.find(key, live)

    async def _serve(self) -> None:
        """Score what waits, a block at a time; in idle time make lists ready."""
        while True:
            await asyncio.sleep(0)  # others have their turn, also where scoring waits for nothing
            self._older.step()
            if not (self._jobs or self.beside.waiting or self.cold or self.reasons.waiting or self._older.waiting):
                self._work.clear()
                await self._work.wait()
            try:
                if self._jobs:
                    await self._score()
                    self._pace.goes_on = bool(self._jobs)
                elif not self.beside.waiting:
                    await (self._warm_some() if self.cold else self._explain_some())
                if self.beside.waiting:
                    await self.beside.next(self.aside)
            except asyncio.CancelledError:
                raise
            except Exception:
                logger.exception("scoring")

    async def _score(self) -> None:
        jobs = self._take()
        if not jobs:
            return
        plain = [job for job in jobs if job.ask.plain]
        live = self._live()
        persons = [job.ask.person(live) for job in plain]
        try:
            with self._pace.of(len(jobs)):
                if plain:
                    tops = await self._wide(jobs[0].ask.domain, persons)
                    for job, person, top in zip(plain, persons, tops, strict=True):
                        kept = self._kept.get((person, job.ask.domain))
                        job.answer(kept.cut(job.ask) if kept is not None and kept.top is top else job.ask.cut(top))
                for job in jobs:
                    if not job.ask.plain and not job.done.done():
                        live = self._live()
                        job.answer(await self._scored(1, partial(one, live, job.ask, job.ask.asked(live))))
        except Exception as error:
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)

    def _take(self) -> Sequence[_Job]:
        """Return the next jobs of one domain, as many as fit into a block; forget those nobody waits for."""
        self._jobs = deque(job for job in self._jobs if not job.done.done())
        if not self._jobs:
            return []
        domain = self._jobs[0].ask.domain
        try:
            size = min(room(self._live(), domain), self._pace.fit(QUICK))
        except NotFoundError as error:  # the model that came in between does not know it
            for job in self._jobs:
                if job.ask.domain == domain:
                    job.done.set_exception(error)
            return []
        mine = [job for job in self._jobs if job.ask.domain == domain][:size]
        taken = set(map(id, mine))
        self._jobs = deque(job for job in self._jobs if id(job) not in taken)
        return mine

    async def _warm_some(self) -> None:
        live = self._live()
        size = min(IDLE, self.cold, *(room(live, domain) for domain in live.domains))
        some = [self._cold.popitem(last=False)[0] if self._cold else self._rest.popleft() for _ in range(size)]
        some = [person for person in some if person in live.state.linked and self.wants(person)]
        for domain in live.domains:
            lacking = [person for person in some if self._holding(live, person, domain) is None]
            if lacking and self._live() is live:
                await self._wide(domain, lacking)

    async def _explain_some(self) -> None:
        turn = self.reasons.turn(self._live(), self._kept)
        self.reasons.keep(turn, await self.aside(partial(self.reasons.make, self._live(), turn)), self._kept)

    async def _wide(self, domain: str, persons: Sequence[int | None]) -> Sequence[Top]:
        """Return the lists of some persons, and keep them."""
        live = self._live()
        stamps = [live.state.stamp(person) for person in persons]
        edition, until = live.edition, live.shelf.changes(clock())
        consents = [live.state.consents.of(person) for person in persons]
        rules = self._settings
        how = Ask(("", ""), domain, explore=rules.explore, bonus=rules.explore_bonus).exploration(WIDE)
        tops = await self._scored(len(persons), partial(wide, live, domain, live.ask(persons), how))
        for person, stamp, said, top in zip(persons, stamps, consents, tops, strict=True):
            if said is not live.state.consents.of(person) or (person is not None and person not in live.state.linked):
                continue  # not even as an older list: it may hold what was forbidden since, or of somebody erased since
            self._kept[person, domain] = Kept(live, edition, stamp, until, top)
            self._kept.move_to_end((person, domain))
            self._older.drop([(person, domain)])
            self.reasons.came((person, domain))
        while len(self._kept) > self._settings.cache:
            self.reasons.drop([self._kept.popitem(last=False)[0]])
        return tops

    async def _scored(self, lists: int, work: Callable[[], Done]) -> Done:
        """Return what ``work`` returns: at once if it is quick, else done in the thread."""
        if lists <= self._pace.fit(QUICK) < NO_LIMIT and not self._aside:
            return self._pace.timed(lists, work)
        return await self.aside(partial(self._pace.timed, lists, work, beside=True))

    def forget(self, persons: Iterable[int]) -> None:
        """Drop what is kept of some persons."""
        persons = set(persons)
        self.told.forget(persons)
        for person in persons:
            self._cold.pop(person, None)
            for domain in self._live().domains:
                self._kept.pop((person, domain), None)
                self._older.drop([(person, domain)])
                self.reasons.drop([(person, domain)])


async def rehearse(lister: Lister) -> None:
    """Make the lists of somebody unknown, twice: a process's first ones take long and say nothing of the pace."""
    for _ in range(2):
        lister._pace = Pace()
        for domain in lister._live().domains:
            with lister._pace.of(1):
                await lister._wide(domain, [None])
