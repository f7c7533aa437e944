"""Events from a stream into the service: what a source is, and what becomes of each of its messages.

A message is settled when its events are on the service's disk, or when it lies among the dead letters; a source
acknowledges it only then. What was settled and comes again does no harm: the ids of its events are the same.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import orjson
from pydantic import ValidationError

from isthmus.client import Event, Receipt, ServiceError
from isthmus.errors import DataError, IsthmusError, StorageError
from isthmus.log import logger
from isthmus.service.log.records import content_id
from isthmus.service.schemas import BATCH, EventIn, EventsIn
from isthmus.service.streams.letters import Letter, Letters
from isthmus.service.watch.traces import is_followed

if TYPE_CHECKING:
    from isthmus.service.watch.traces import Attributes, Tracing

#: How often a message is tried that cannot be read or is refused.
TRIES: Final = 5
#: Statuses by which the service refuses the events themselves; others pass, so the message waits.
_REFUSED: Final = (400, 413, 422)
_LONGEST: Final = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as it came.

    Parameters
    ----------
    name : str
        The broker's name of the message, the same when it comes again; empty if it has none.
    body : bytes
        What was sent.
    ts : datetime, optional
        When it was sent, if the broker says so: the time of events that name none.
    trace : str
        The ``traceparent`` it came with; empty if it had none.
    """

    name: str
    body: bytes
    ts: datetime | None = None
    trace: str = ""


#: Returns when every message is settled; a source acknowledges them then, and not if it raises.
Take: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[None]]
#: Sends events to the service; may be called from another thread.
Send: TypeAlias = Callable[[Sequence[Event]], Receipt]


class EventSource(Protocol):
    """A stream that gives its messages to one group of consumers, and again where nobody acknowledged them."""

    async def start(self, take: Take) -> None:
        """Begin to give messages.

        Raises
        ------
        InputError
            There is no such stream.
        Exception
            The broker does not answer: try again later.
        """

    async def alive(self) -> bool:
        """Return whether messages will come; if not, stop it and start it again."""

    async def stop(self) -> None:
        """Give no more messages, wait until those given are settled, and close the connection."""


class UnsettledError(IsthmusError):
    """The consumer ends: the message stays with the broker."""


class RefusedError(IsthmusError):
    """The service will not take these events."""


@dataclass
class Counts:
    """What became of messages and events.

    Parameters
    ----------
    messages : int
        Messages settled.
    stored, known, conflicts : int
        Events that were new; that had come before; those of them that said something else then, which stays.
    dead : int
        Messages that lie among the dead letters now.
    """

    messages: int = 0
    stored: int = 0
    known: int = 0
    conflicts: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class _Job:
    events: Sequence[Event]
    stored: asyncio.Future[None]
    trace: str = ""


def read_events(delivery: Delivery) -> list[Event]:
    """Return the events of a message: one event, a list of them, or a body of ``POST /v1/events``.

    Events without an id get one that depends on the message, so that they count once however often it comes.

    Raises
    ------
    DataError
        The message holds something else.

    Examples
    --------
    >>> body = b'{"platform": "shop", "user": "u17", "item": "b3", "event": "like"}'
    >>> one, again = (read_events(Delivery("redis:events:5-0", body))[0] for _ in range(2))
    >>> one.item, one.id == again.id
    ('b3', True)
    """
    try:
        said = orjson.loads(delivery.body)
        if isinstance(said, dict) and "events" not in said:
            found = [EventIn.model_validate(said)]
        else:
            found = EventsIn.model_validate({"events": said} if isinstance(said, list) else said).events
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(str(first["msg"]).removeprefix("Value error, "), where=where) from None
    except ValueError:
        raise DataError("the message is no JSON") from None
    return [_named(event, delivery, number) for number, event in enumerate(found)]


def _named(event: EventIn, delivery: Delivery, number: int) -> Event:
    said = event.model_dump()
    said["ts"] = event.ts or delivery.ts
    said["id"] = event.id or content_id(delivery.name, number, delivery.body.hex())
    return Event(**said)


def replay(letters: Letters, send: Send) -> tuple[int, int]:
    """Send dead letters again and return how many the service took, which leave the file, and how many stay.

    Raises
    ------
    ServiceError
        The service takes nothing now.
    """
    taken = []
    found = letters.read()
    try:
        for letter in found:
            sent = datetime.fromisoformat(letter.sent) if letter.sent else None
            try:
                send(read_events(Delivery(letter.message, letter.content, sent)))
            except DataError:
                continue
            except ServiceError as error:
                if error.status not in (*_REFUSED, 403):
                    raise
            else:
                taken.append(letter.id)
    finally:
        if taken:
            letters.remove(taken)
    return len(taken), len(found) - len(taken)


class Intake:
    """Takes messages from a source, gives their events to the service, many messages at a time.

    Parameters
    ----------
    send : callable
        Sends events and returns the receipt; raises :class:`~isthmus.client.ServiceError`.
    letters : Letters
        Where messages go that cannot be read or are refused.
    source : str
        Where messages come from, without passwords.
    pause : float
        Seconds before the second try of a message; each further pause is twice as long.
    tracing : Tracing, optional
        Where spans go. Messages that somebody traces are sent alone then, so that each is in its own trace.
    """

    def __init__(
        self, send: Send, letters: Letters, source: str, *, pause: float = 0.02, tracing: Tracing | None = None
    ) -> None:
        self.counts = Counts()
        self.inside = 0
        self._send, self._letters, self._source, self._pause = send, letters, source, pause
        self._tracing = tracing
        self._waiting: deque[_Job] = deque()
        self._work = asyncio.Event()
        self._ending = asyncio.Event()

    async def take(self, deliveries: Sequence[Delivery]) -> None:
        """Return when every message is settled.

        Raises
        ------
        UnsettledError
            Some are not, because the consumer ends.
        """
        self.inside += len(deliveries)
        try:
            done = await asyncio.gather(*(self._settle(one) for one in deliveries), return_exceptions=True)
        finally:
            self.inside -= len(deliveries)
        for outcome in done:
            if outcome is not None:
                raise outcome

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        while True:
            while not self._waiting:
                self._work.clear()
                await self._work.wait()
            jobs: list[_Job] = []
            events = 0
            while self._waiting and (not jobs or events + len(self._waiting[0].events) <= BATCH):
                jobs.append(self._waiting.popleft())
                events += len(jobs[-1].events)
            await asyncio.gather(*(self._traced(trace, some) for trace, some in self._by_trace(jobs).items()))

    def _by_trace(self, jobs: Sequence[_Job]) -> dict[str, list[_Job]]:
        """Return jobs by the trace they belong to, under an empty name those that nobody traces."""
        found: dict[str, list[_Job]] = {}
        for job in jobs:
            followed = self._tracing is not None and is_followed(job.trace)
            found.setdefault(job.trace if followed else "", []).append(job)
        return found

    async def _traced(self, trace: str, jobs: Sequence[_Job]) -> None:
        """Send some jobs, as a span of their trace or of a new one."""
        if self._tracing is None:
            await self._deliver(jobs)
            return
        said: Attributes = {
            "messaging.system": self._source.partition("://")[0],
            "messaging.batch.message_count": len(jobs),
            "isthmus.records": sum(len(job.events) for job in jobs),
        }
        with self._tracing.joined("process messages", trace, said, kind="CONSUMER"):
            await self._deliver(jobs)

    def end(self) -> None:
        """Wait for the service no more: what it does not take at once stays with the broker."""
        self._ending.set()

    async def _settle(self, delivery: Delivery) -> None:
        wait, failed = self._pause, IsthmusError("")
        for left in reversed(range(TRIES)):
            try:
                await self._store(read_events(delivery), delivery.trace)
            except (DataError, RefusedError) as error:
                failed = error
                if left:
                    await asyncio.sleep(wait)
                    wait *= 2
            else:
                self.counts.messages += 1
                return
        await self._bury(delivery, failed)
        self.counts.messages += 1

    async def _bury(self, delivery: Delivery, failed: IsthmusError) -> None:
        """Put a message among the dead letters: only then may the broker forget it."""
        letter = Letter.of(self._source, delivery.name, delivery.body, str(failed), TRIES, delivery.ts)
        wait = 0.1
        while True:
            try:
                new = await asyncio.to_thread(self._letters.put, letter)
            except StorageError as error:
                logger.error("dead letters: %s", error)
                wait = await self._later(wait)
            else:
                self.counts.dead += new
                logger.warning("message %s is a dead letter after %d tries: %s", letter.id, TRIES, failed.what)
                return

    async def _store(self, events: Sequence[Event], trace: str) -> None:
        if self._ending.is_set():
            raise UnsettledError("the consumer ends")
        job = _Job(events, asyncio.get_running_loop().create_future(), trace)
        self._waiting.append(job)
        self._work.set()
        await job.stored

    async def _deliver(self, jobs: Sequence[_Job]) -> None:
        """Send until the service has the events; those it refuses together it gets message by message."""
        wait = 0.1
        while True:
            try:
                receipt = await asyncio.to_thread(self._send, [event for job in jobs for event in job.events])
            except ServiceError as error:
                if await self._is_refusal(error):
                    await self._refused(jobs, error)
                    return
                logger.warning("the service takes no events, which wait: %s", error)
                try:
                    wait = await self._later(wait)
                except UnsettledError as ending:
                    _fail(jobs, ending)
                    return
            else:
                self._count(receipt)
                for job in jobs:
                    if not job.stored.done():
                        job.stored.set_result(None)
                return

    async def _refused(self, jobs: Sequence[_Job], error: ServiceError) -> None:
        if len(jobs) == 1:
            _fail(jobs, RefusedError(error.what, where=error.where))
            return
        for job in jobs:
            await self._deliver([job])

    async def _is_refusal(self, error: ServiceError) -> bool:
        """Return whether it is about the events; 403 may be about the key, which a request without events tells."""
        if error.status != 403:
            return error.status in _REFUSED
        try:
            await asyncio.to_thread(self._send, [])
        except ServiceError as empty:
            return empty.status in _REFUSED
        return False

    def _count(self, receipt: Receipt) -> None:
        self.counts.stored += receipt.accepted
        self.counts.known += len(receipt.duplicates)
        self.counts.conflicts += len(receipt.conflicts)
        if receipt.conflicts:
            logger.warning("%d events say something else than under their ids before", len(receipt.conflicts))

    async def _later(self, seconds: float) -> float:
        """Wait, and return how long to wait the next time; raise if the consumer ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return min(2 * seconds, _LONGEST)
        raise UnsettledError("the consumer ends")


def _fail(jobs: Sequence[_Job], error: IsthmusError) -> None:
    for job in jobs:
        if not job.stored.done():
            job.stored.set_exception(error)
