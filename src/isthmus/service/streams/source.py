"""What the sources of events have in common: how messages are taken, given back, and let go."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from faststream.exceptions import NackMessage

from isthmus.service.streams.intake import Delivery, Take, UnsettledError
from isthmus.service.streams.place import Place

if TYPE_CHECKING:
    from faststream.confluent import KafkaBroker
    from faststream.nats import NatsBroker
    from faststream.rabbit import RabbitBroker
    from faststream.redis import RedisBroker

    Broker: TypeAlias = RedisBroker | NatsBroker | RabbitBroker | KafkaBroker

#: Messages taken at a time.
TOGETHER: Final = 200
#: Seconds that messages under way get when the consumer ends.
DRAIN: Final = 10.0
#: The header that says to which trace a message belongs.
TRACE: Final = "traceparent"
#: FastStream's own log.
LOG: Final = logging.getLogger("isthmus.broker")
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Source(ABC):
    """A stream of one kind of broker.

    Parameters
    ----------
    place : Place
        Where it is.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._broker: Broker | None = None

    @abstractmethod
    async def start(self, take: Take) -> None:
        """Begin to give messages."""

    async def alive(self) -> bool:
        """Return whether messages will come."""
        return self._broker is not None

    async def stop(self) -> None:
        """Give no more messages and close the connection."""
        broker, self._broker = self._broker, None
        LOG.disabled = True  # what is read when a connection closes fails, as it should
        if broker is not None:
            await broker.stop()

    async def begin(self, broker: Broker) -> None:
        """Start, or leave nothing open."""
        LOG.disabled = False
        try:
            await broker.start()
        except BaseException:
            with suppress(Exception):
                await broker.stop()
            raise
        self._broker = broker

    def named(self, name: object) -> str:
        """Return what a message is called, the same when it comes again."""
        return f"{self.place.scheme}:{self.place.name}:{name}"


def handler(take: Take) -> Callable[[Sequence[Delivery]], Awaitable[None]]:
    """Return ``take`` for FastStream: what is not settled goes back to the broker."""

    async def handle(deliveries: Sequence[Delivery]) -> None:
        try:
            await take(deliveries)
        except UnsettledError:
            raise NackMessage from None

    return handle


def since(millis: int) -> datetime | None:
    """Return a broker's time, None where it is not the time."""
    try:
        return sensible(datetime.fromtimestamp(millis / 1000, UTC))
    except (OverflowError, ValueError, OSError):
        return None


def sensible(when: datetime) -> datetime | None:
    """Return a time that may be right, else None."""
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return aware if _EARLIEST <= aware <= datetime.now(UTC) + timedelta(days=1) else None


def trace_of(headers: Mapping[str, object] | None) -> str:
    """Return the trace that a message says it belongs to, in the form of W3C; empty if it says none.

    Examples
    --------
    >>> trace_of({"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})[:10]
    '00-0af7651'
    """
    said = (headers or {}).get(TRACE)
    if isinstance(said, bytes):
        said = said.decode("latin-1")
    return said if isinstance(said, str) else ""
