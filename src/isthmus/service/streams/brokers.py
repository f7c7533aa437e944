"""Redis Streams, NATS JetStream, RabbitMQ and Kafka as sources of events, through FastStream.

The policy is always ``NACK_ON_ERROR``: a message is acknowledged when it is settled, given back when it is not. What
a killed consumer held comes again: from RabbitMQ and Kafka at once, from Redis and NATS after ``claim`` seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from faststream import AckPolicy
from faststream.message import StreamMessage

from isthmus.errors import InputError
from isthmus.log import logger
from isthmus.service.streams.intake import Delivery, EventSource, Take
from isthmus.service.streams.place import Place
from isthmus.service.streams.redis_source import RedisSource
from isthmus.service.streams.source import DRAIN, LOG, TOGETHER, TRACE, Source, handler, sensible, since, trace_of

if TYPE_CHECKING:
    from aio_pika import IncomingMessage
    from confluent_kafka import Message
    from nats.aio.msg import Msg

#: Times the position of a group is written, at most, and seconds before the second time; each further pause is twice as
#: long.
POSITIONS: Final = (8, 0.1)


def open_source(place: Place) -> EventSource:
    """Return the source of a place; nothing is connected yet."""
    kinds: dict[str, type[RedisSource | _Nats | _Rabbit | _Kafka]]
    kinds = {
        "redis": RedisSource,
        "rediss": RedisSource,
        "nats": _Nats,
        "tls": _Nats,
        "amqp": _Rabbit,
        "amqps": _Rabbit,
    }
    return kinds.get(place.scheme, _Kafka)(place)


class _Nats(Source):
    """A JetStream stream, through a durable consumer that is asked for messages."""

    async def start(self, take: Take) -> None:
        from faststream.nats import JStream, NatsBroker, PullSub
        from nats.js.api import ConsumerConfig
        from nats.js.errors import NotFoundError

        place = self.place
        broker = NatsBroker(
            place.address,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            graceful_timeout=DRAIN,
            apply_types=False,
            logger=LOG,
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
        subscriber(handler(take))
        try:
            await self.begin(broker)
        except NotFoundError:
            raise InputError("there is no such stream", where=place.label, fix="create it first") from None
        self._stream = (await broker.connect()).jetstream()

    async def alive(self) -> bool:
        from nats.js.errors import NotFoundError

        if not await super().alive():
            return False
        try:
            await self._stream.consumer_info(self.place.name, self.place.group, timeout=2.0)
        except NotFoundError:
            return False
        except Exception as error:
            logger.warning("%s does not answer: %s", self.place.label, type(error).__name__)
        return True

    async def _read(self, message: StreamMessage[Msg]) -> list[Delivery]:
        said = message.raw_message.metadata
        name, trace = self.named(said.sequence.stream), trace_of(message.raw_message.headers)
        return [Delivery(name, message.body, sensible(said.timestamp), trace)]


class _Rabbit(Source):
    """A queue of RabbitMQ, which gives back at once what a lost connection held."""

    async def start(self, take: Take) -> None:
        from aiormq.exceptions import ChannelNotFoundEntity
        from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

        place = self.place
        broker = RabbitBroker(
            place.address,
            default_channel=Channel(prefetch_count=TOGETHER),
            reconnect_interval=1.0,
            graceful_timeout=DRAIN,
            apply_types=False,
            logger=LOG,
            log_level=logging.DEBUG,
        )
        subscriber = broker.subscriber(
            RabbitQueue(place.name, declare=False), ack_policy=AckPolicy.NACK_ON_ERROR, decoder=self._read
        )
        subscriber(handler(take))
        try:
            await self.begin(broker)
        except ChannelNotFoundEntity:
            raise InputError("there is no such queue", where=place.label, fix="create it first") from None

    async def _read(self, message: StreamMessage[IncomingMessage]) -> list[Delivery]:
        raw = message.raw_message
        sent = None if raw.timestamp is None else sensible(raw.timestamp)
        name = self.named(raw.message_id) if raw.message_id else ""
        return [Delivery(name, message.body, sent, trace_of(raw.headers))]


class _Kafka(Source):
    """A topic of Kafka; the position of a partition moves on when all before it is settled."""

    async def start(self, take: Take) -> None:
        from faststream.confluent import KafkaBroker
        from faststream.security import BaseSecurity, SASLPlaintext

        place = self.place
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
            logger=LOG,
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
        subscriber(handler(take))
        await self.begin(broker)

    async def _read(self, message: StreamMessage[tuple[Message, ...]]) -> list[Delivery]:
        message.consumer = Position(message.consumer, self.place.label)  # type: ignore[attr-defined]
        return [self._delivery(one) for one in message.raw_message]

    def _delivery(self, message: Message) -> Delivery:
        kind, millis = message.timestamp()
        name = self.named(f"{message.partition()}-{message.offset()}")
        trace = trace_of(dict(message.headers() or ()))
        return Delivery(name, message.value() or b"", since(millis) if kind else None, trace)


class Committer(Protocol):
    """What FastStream's consumer of Kafka can do, as far as positions go."""

    async def commit(self, asynchronous: bool = True) -> None: ...  # noqa: D102
    async def seek(self, topic: str, partition: int, offset: int) -> None: ...  # noqa: D102


class Position:
    """The position of a group, written before the next messages are taken, and again where that fails.

    FastStream does not wait for it: where it fails, messages that are settled stay with the broker until others come.

    Parameters
    ----------
    consumer : Committer
        What writes it.
    label : str
        Name of the topic, for the log.
    """

    def __init__(self, consumer: Committer, label: str) -> None:
        self._consumer, self._label = consumer, label

    async def commit(self) -> None:
        """Write the position behind the messages that were given; nothing is lost where it cannot be."""
        from confluent_kafka import KafkaError, KafkaException

        tries, wait = POSITIONS
        for left in reversed(range(tries)):
            try:
                await self._consumer.commit(asynchronous=False)
            except KafkaException as error:
                if error.args[0].code() == KafkaError._NO_OFFSET:  # others have the partition, or it stands there
                    return
                if not left:
                    logger.warning("%s: the position is not written, messages will come again: %s", self._label, error)
                    return
            else:
                return
            await asyncio.sleep(wait)
            wait *= 2

    async def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go back to a message."""
        await self._consumer.seek(topic, partition, offset)


async def _without_headers(
    messages: tuple[Message, ...], original: Callable[[tuple[Message, ...]], Awaitable[StreamMessage[object]]]
) -> StreamMessage[object]:
    """Return the messages as FastStream has them, with one header: others need not be text and would fail there."""
    for message in messages:
        trace = trace_of(dict(message.headers() or ()))
        message.set_headers([(TRACE, trace.encode())] if trace.isascii() and trace else [])
    return await original(messages)
