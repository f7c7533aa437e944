"""Redis Streams as a source of events: what is new through FastStream, what others left by a claim of our own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from socket import gethostname
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict

from faststream import AckPolicy
from faststream.message import StreamMessage

from isthmus.errors import InputError
from isthmus.log import logger
from isthmus.service.streams.intake import Delivery, Take, UnsettledError
from isthmus.service.streams.place import Place
from isthmus.service.streams.source import DRAIN, LOG, TOGETHER, TRACE, Source, handler, since, trace_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: Seconds between looks at what others left, where there was nothing, and seconds such a look may take.
LOOK: Final = 0.5
PATIENCE: Final = 3.0
_Fields: TypeAlias = Mapping[bytes, bytes]


class RedisSource(Source):
    """A Redis stream, read by a group of consumers.

    FastStream claims what others left one message at a time, each settled before the next: after twenty kills that
    takes minutes. So they are claimed here, many at a time, with the same rule: acknowledged when settled.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._held: set[str] = set()
        self._claiming: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    async def start(self, take: Take) -> None:
        """Begin to give messages; stream and group are made if they are not there."""
        from faststream.redis import RedisBroker, StreamSub
        from redis.asyncio import Redis
        from redis.exceptions import ResponseError

        place = self.place
        self._client = Redis.from_url(place.address, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
        try:
            await self._client.xgroup_create(place.name, place.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise InputError(str(error), where=place.label) from None
        broker = RedisBroker(
            place.address,
            socket_timeout=5.0,
            socket_connect_timeout=3.0,
            graceful_timeout=DRAIN,
            apply_types=False,
            logger=LOG,
            log_level=logging.DEBUG,
        )
        sub = StreamSub(
            place.name,
            group=place.group,
            consumer=gethostname(),
            batch=True,
            max_records=TOGETHER,
            polling_interval=100,
        )
        self._subscriber = broker.subscriber(
            stream=sub, ack_policy=AckPolicy.NACK_ON_ERROR, parser=_as_sent, decoder=self._read
        )
        self._subscriber(handler(self._holding(take)))
        await self.begin(broker)
        self._ending.clear()
        self._claiming = asyncio.create_task(self._claim(self._client, self._holding(take)))

    async def alive(self) -> bool:
        """Return whether messages will come."""
        claiming = self._claiming is not None and not self._claiming.done()
        return claiming and await super().alive() and self._subscriber.running

    async def stop(self) -> None:
        """Give no more messages, wait for those given, and close the connections."""
        claiming, self._claiming = self._claiming, None
        self._ending.set()
        try:
            await super().stop()
        finally:
            if claiming is not None:
                await asyncio.wait([claiming], timeout=DRAIN / 2)
                claiming.cancel()
            if hasattr(self, "_client"):
                await self._client.aclose()

    def _holding(self, take: Take) -> Take:
        """Return ``take``, while which its messages are known to be under way."""

        async def hold(deliveries: Sequence[Delivery]) -> None:
            names = {delivery.name for delivery in deliveries}
            self._held |= names
            try:
                await take(deliveries)
            finally:
                self._held -= names

        return hold

    async def _claim(self, client: Redis, take: Take) -> None:
        """Take over what others left, until told to end; ours that are under way are kept from others by it.

        Once Redis answers after it did not, reading goes on at once: FastStream would wait for some seconds.
        """
        from redis.exceptions import RedisError

        place, start = self.place, b"0-0"
        idle, away = max(int(1000 * place.claim), 1), False
        while not self._ending.is_set():
            try:
                start, entries, *_ = await client.xautoclaim(
                    place.name, place.group, gethostname(), min_idle_time=idle, start_id=start, count=TOGETHER
                )
                if away:
                    await self._subscriber.stop()
                    await self._subscriber.start()
                    away = False
                found = {name: self._delivery(name, fields or {}) for name, fields in entries if name}
                fresh = {name: one for name, one in found.items() if one.name not in self._held}
                if fresh:
                    await take(list(fresh.values()))
                    await client.xack(place.name, place.group, *fresh)
            except UnsettledError:
                return
            except (RedisError, OSError) as error:  # TimeoutError, which FastStream's start raises, is an OSError
                logger.warning("%s: cannot claim messages: %s", place.label, type(error).__name__)
                fresh, start, away = {}, b"0-0", True
            if not fresh and start == b"0-0":
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), LOOK)

    async def _read(self, message: StreamMessage[_Entries]) -> list[Delivery]:
        raw = message.raw_message
        return [self._delivery(name, fields) for name, fields in zip(raw["message_ids"], raw["sent"], strict=True)]

    def _delivery(self, entry: bytes, fields: _Fields) -> Delivery:
        name = entry.decode()
        body, trace = content_of(fields)
        return Delivery(self.named(name), body, since(int(name.partition("-")[0])), trace)


class _Entries(TypedDict):
    """Entries of a Redis stream."""

    message_ids: list[bytes]
    data: list[_Fields]
    sent: list[_Fields]


async def _as_sent(
    entries: _Entries, original: Callable[[_Entries], Awaitable[StreamMessage[_Entries]]]
) -> StreamMessage[_Entries]:
    """Hide the fields from FastStream's own reading, which fails where they are no text, and then they come forever."""
    nothing: list[_Fields] = [{b"__data__": b"0"}] * len(entries["data"])
    return await original({**entries, "data": nothing, "sent": entries["data"]})


def content_of(fields: _Fields) -> tuple[bytes, str]:
    """Return what was sent and its trace: the field ``data``, else all fields as one JSON object.

    Examples
    --------
    >>> content_of({b"platform": b"shop", b"traceparent": b"00-1"})
    (b'{"platform": "shop"}', '00-1')
    """
    trace = trace_of({TRACE: fields.get(TRACE.encode())})
    body = fields.get(b"data")
    if body is None and b"__data__" in fields:
        from faststream.redis.parser import BinaryMessageFormatV1

        body, headers = BinaryMessageFormatV1.parse(fields[b"__data__"])
        return body, trace or trace_of(headers)
    if body is None:
        texts = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in fields.items()}
        texts.pop(TRACE, None)
        body = json.dumps(texts).encode()
    return body, trace
