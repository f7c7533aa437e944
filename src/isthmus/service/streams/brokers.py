"""Redis Streams, NATS JetStream, RabbitMQ and Kafka as sources of events, through FastStream.

The policy is always ``NACK_ON_ERROR``: a message is acknowledged when it is settled, given back when it is not. What
a killed consumer held comes again: from RabbitMQ and Kafka at once, from Redis and NATS after ``claim`` seconds.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from socket import gethostname
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict
from urllib.parse import unquote, urlsplit

from faststream import AckPolicy
from faststream.exceptions import NackMessage
from faststream.message import StreamMessage

from isthmus.errors import InputError
from isthmus.log import logger
from isthmus.service.streams.intake import Delivery, EventSource, Take, UnsettledError
from isthmus.service.streams.place import Place

if TYPE_CHECKING:
    from aio_pika import IncomingMessage
    from confluent_kafka import Message
    from faststream.confluent import KafkaBroker
    from faststream.nats import NatsBroker
    from faststream.rabbit import RabbitBroker
    from faststream.redis import RedisBroker
    from nats.aio.msg import Msg

    _Broker: TypeAlias = RedisBroker | NatsBroker | RabbitBroker | KafkaBroker

#: Messages taken at a time.
TOGETHER: Final = 200
#: Subscribers to what others left in Redis: FastStream claims one message at a time.
CLAIMERS: Final = 8
#: Seconds that messages under way get when the consumer ends.
DRAIN: Final = 10.0
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LOG: Final = logging.getLogger("isthmus.broker")


def open_source(place: Place) -> EventSource:
    """Return the source of a place; nothing is connected yet."""
    kinds: dict[str, type[_Redis | _Nats | _Rabbit | _Kafka]]
    kinds = {"redis": _Redis, "rediss": _Redis, "nats": _Nats, "tls": _Nats, "amqp": _Rabbit, "amqps": _Rabbit}
    return kinds.get(place.scheme, _Kafka)(place)


class _Source(ABC):
    """What all have in common: how messages are taken, given back, and let go."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._broker: _Broker | None = None

    @abstractmethod
    async def start(self, take: Take) -> None: ...

    async def alive(self) -> bool:
        return self._broker is not None

    async def stop(self) -> None:
        broker, self._broker = self._broker, None
        _LOG.disabled = True  # what is read when a connection closes fails, as it should
        if broker is not None:
            await broker.stop()

    async def _begin(self, broker: _Broker) -> None:
        """Start, or leave nothing open."""
        _LOG.disabled = False
        try:
            await broker.start()
        except BaseException:
            with suppress(Exception):
                await broker.stop()
            raise
        self._broker = broker

    def _named(self, name: object) -> str:
        return f"{self._place.scheme}:{self._place.name}:{name}"


def _handler(take: Take) -> Callable[[Sequence[Delivery]], Awaitable[None]]:
    """Return ``take`` for FastStream: what is not settled goes back to the broker."""

    async def handle(deliveries: Sequence[Delivery]) -> None:
        try:
            await take(deliveries)
        except UnsettledError:
            raise NackMessage from None

    return handle


class _Redis(_Source):
    """A Redis stream: one subscriber for what is new, some for what others left."""

    async def start(self, take: Take) -> None:
        from faststream.redis import RedisBroker, StreamSub
        from redis.asyncio import Redis
        from redis.exceptions import ResponseError

        place = self._place
        async with Redis.from_url(place.address, socket_connect_timeout=3.0, socket_timeout=5.0) as client:
            try:
                await client.xgroup_create(place.name, place.group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise InputError(str(error), where=place.label) from None
        broker = RedisBroker(
            place.address,
            socket_timeout=5.0,
            socket_connect_timeout=3.0,
            graceful_timeout=DRAIN,
            apply_types=False,
            logger=_LOG,
            log_level=logging.DEBUG,
        )
        self._subscribers = []
        for claim in (None, *[max(int(1000 * place.claim), 1)] * CLAIMERS):
            sub = StreamSub(
                place.name,
                group=place.group,
                consumer=gethostname(),
                batch=True,
                max_records=TOGETHER,
                min_idle_time=claim,
                polling_interval=100 if claim is None else 500,
            )
            subscriber = broker.subscriber(
                stream=sub, ack_policy=AckPolicy.NACK_ON_ERROR, parser=_as_sent, decoder=self._read
            )
            subscriber(_handler(take))
            self._subscribers.append(subscriber)
        await self._begin(broker)

    async def alive(self) -> bool:
        return await super().alive() and all(subscriber.running for subscriber in self._subscribers)

    async def _read(self, message: StreamMessage[_Entries]) -> list[Delivery]:
        raw = message.raw_message
        names = [name.decode() for name in raw["message_ids"]]
        return [
            Delivery(self._named(name), _body(fields), _since(int(name.partition("-")[0])))
            for name, fields in zip(names, raw["sent"], strict=True)
        ]


class _Entries(TypedDict):
    """Entries of a Redis stream."""

    message_ids: list[bytes]
    data: list[dict[bytes, bytes]]
    sent: list[dict[bytes, bytes]]


async def _as_sent(
    entries: _Entries, original: Callable[[_Entries], Awaitable[StreamMessage[_Entries]]]
) -> StreamMessage[_Entries]:
    """Hide the fields from FastStream's own reading, which fails where they are no text, and then they come forever."""
    nothing = [{b"__data__": b"0"}] * len(entries["data"])
    return await original({**entries, "data": nothing, "sent": entries["data"]})


def _body(fields: dict[bytes, bytes]) -> bytes:
    """Return what was sent: the field ``data``, else all fields as one JSON object."""
    body = fields.get(b"data")
    if body is None and b"__data__" in fields:
        from faststream.redis.parser import BinaryMessageFormatV1

        return BinaryMessageFormatV1.parse(fields[b"__data__"])[0]
    if body is None:
        said = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in fields.items()}
        body = json.dumps(said).encode()
    return body


class _Nats(_Source):
    """A JetStream stream, through a durable consumer that is asked for messages."""

    async def start(self, take: Take) -> None:
        from faststream.nats import JStream, NatsBroker, PullSub
        from nats.js.api import ConsumerConfig
        from nats.js.errors import NotFoundError

        place = self._place
        broker = NatsBroker(
            place.address,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            graceful_timeout=DRAIN,
            apply_types=False,
            logger=_LOG,
            log_level=logging.DEBUG,
        )
        subscriber = broker.subscriber(
            place.subject or ">",
            stream=JStream(place.name, declare=False),
            durable=place.group,
            config=ConsumerConfig(ack_wait=place.claim, max_ack_pending=10 * TOGETHER),
            pull_sub=PullSub(batch_size=TOGETHER, timeout=1.0),
            ack_policy=AckPolicy.NACK_ON_ERROR,
            decoder=self._read,
        )
        subscriber(_handler(take))
        try:
            await self._begin(broker)
        except NotFoundError:
            raise InputError("there is no such stream", where=place.label, fix="create it first") from None
        self._stream = (await broker.connect()).jetstream()

    async def alive(self) -> bool:
        from nats.js.errors import NotFoundError

        if not await super().alive():
            return False
        try:
            await self._stream.consumer_info(self._place.name, self._place.group, timeout=2.0)
        except NotFoundError:
            return False
        except Exception as error:
            logger.warning("%s does not answer: %s", self._place.label, type(error).__name__)
        return True

    async def _read(self, message: StreamMessage[Msg]) -> list[Delivery]:
        said = message.raw_message.metadata
        return [Delivery(self._named(said.sequence.stream), message.body, _sensible(said.timestamp))]


class _Rabbit(_Source):
    """A queue of RabbitMQ, which gives back at once what a lost connection held."""

    async def start(self, take: Take) -> None:
        from aiormq.exceptions import ChannelNotFoundEntity
        from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

        place = self._place
        broker = RabbitBroker(
            place.address,
            default_channel=Channel(prefetch_count=TOGETHER),
            reconnect_interval=1.0,
            graceful_timeout=DRAIN,
            apply_types=False,
            logger=_LOG,
            log_level=logging.DEBUG,
        )
        subscriber = broker.subscriber(
            RabbitQueue(place.name, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR, decoder=self._read
        )
        subscriber(_handler(take))
        try:
            await self._begin(broker)
        except ChannelNotFoundEntity:
            raise InputError("there is no such queue", where=place.label, fix="create it first") from None

    async def _read(self, message: StreamMessage[IncomingMessage]) -> list[Delivery]:
        raw = message.raw_message
        sent = None if raw.timestamp is None else _sensible(raw.timestamp)
        return [Delivery(self._named(raw.message_id) if raw.message_id else "", message.body, sent)]


class _Kafka(_Source):
    """A topic of Kafka; the position of a partition moves on when all before it is settled."""

    async def start(self, take: Take) -> None:
        from faststream.confluent import KafkaBroker
        from faststream.security import BaseSecurity, SASLPlaintext

        place = self._place
        parts = urlsplit(place.address)
        secret, _, hosts = parts.netloc.rpartition("@")
        user, _, password = secret.partition(":")
        tls = place.scheme == "kafkas"
        security = SASLPlaintext(unquote(user), unquote(password), use_ssl=tls) if user else BaseSecurity(use_ssl=tls)
        broker = KafkaBroker(
            hosts,
            security=security,
            allow_auto_create_topics=False,
            graceful_timeout=DRAIN,
            apply_types=False,
            logger=_LOG,
            log_level=logging.DEBUG,
        )
        subscriber = broker.subscriber(
            place.name,
            group_id=place.group,
            auto_offset_reset="earliest",
            batch=True,
            max_records=TOGETHER,
            polling_interval=0.2,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            parser=_without_headers,
            decoder=self._read,
        )
        subscriber(_handler(take))
        await self._begin(broker)

    async def _read(self, message: StreamMessage[tuple[Message, ...]]) -> list[Delivery]:
        return [self._delivery(one) for one in message.raw_message]

    def _delivery(self, message: Message) -> Delivery:
        kind, millis = message.timestamp()
        name = self._named(f"{message.partition()}-{message.offset()}")
        return Delivery(name, message.value() or b"", _since(millis) if kind else None)


async def _without_headers(
    messages: tuple[Message, ...], original: Callable[[tuple[Message, ...]], Awaitable[StreamMessage[object]]]
) -> StreamMessage[object]:
    """Return the messages as FastStream has them; headers, which need not be text and would fail there, go."""
    for message in messages:
        message.set_headers([])
    return await original(messages)


def _since(millis: int) -> datetime | None:
    """Return a broker's time, None where it is not the time."""
    try:
        return _sensible(datetime.fromtimestamp(millis / 1000, UTC))
    except (OverflowError, ValueError, OSError):
        return None


def _sensible(when: datetime) -> datetime | None:
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return aware if _EARLIEST <= aware <= datetime.now(UTC) + timedelta(days=1) else None
