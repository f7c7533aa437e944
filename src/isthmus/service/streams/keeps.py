"""What a stream keeps of the events that wait in it, as far as its broker says; Redis is looked at with the stores."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Final
from urllib.parse import unquote, urlsplit

from isthmus.errors import InputError
from isthmus.service.log.durability import Finding
from isthmus.service.streams.place import Place, place_of

SCHEMES: Final = ("nats://", "tls://", "amqp://", "amqps://", "kafka://", "kafkas://")
#: Seconds until a broker is given up.
SECONDS: Final = 5.0
#: What a queue is that is no quorum queue, and that is one.
_KINDS: Final = ("classic or stream: one disk may have it all", "quorum: on most of its nodes")
#: A kind of queue that no RabbitMQ knows: asked for it, it says what the queue is, and never makes one.
_NO_KIND: Final = "isthmus-asks"
_ANSWER: Final = re.compile(r"inequivalent arg '([^']+)'.* current is (.*)$", re.DOTALL)


def look_at_stream(url: str) -> list[Finding]:
    """Return what a stream keeps: ``nats://...?stream=``, ``amqp://...?queue=`` or ``kafka://...?topic=``.

    Raises
    ------
    InputError
        It is none of these, or its client is not installed.
    """
    place = place_of(url)
    looks: Callable[[Place], AsyncIterator[Finding]] = {"nats": _nats, "tls": _nats}.get(place.scheme, _rabbit)
    if place.scheme.startswith("kafka"):
        looks = _kafka

    async def look() -> list[Finding]:
        return [finding async for finding in looks(place)]

    try:
        return asyncio.run(asyncio.wait_for(look(), 3 * SECONDS))
    except ImportError as error:
        raise InputError(f"{error.name} is not installed", fix="pip install 'isthmus[stream]'") from None
    except (OSError, TimeoutError) as error:
        return [Finding(place.label, "fail", f"cannot be reached ({type(error).__name__})")]


async def _nats(place: Place) -> AsyncIterator[Finding]:
    import nats
    from nats.errors import Error
    from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType
    from nats.js.errors import NotFoundError

    async def silent(_: Exception) -> None: ...

    try:
        connection = await nats.connect(
            place.address, connect_timeout=int(SECONDS), allow_reconnect=False, error_cb=silent
        )
    except Error as error:
        yield Finding(place.label, "fail", f"cannot be reached, or does not let us in ({type(error).__name__})")
        return
    try:
        said = (await connection.jetstream().stream_info(place.name)).config
    except NotFoundError:
        yield Finding(place.label, "fail", "there is no such stream")
        return
    except Error as error:
        yield Finding(place.label, "fail", f"does not say its settings ({type(error).__name__})")
        return
    finally:
        await connection.close()
    kept = said.storage == StorageType.FILE
    yield Finding("storage", "ok" if kept else "weak", "file" if kept else "memory: gone when the server ends")
    copies = said.num_replicas or 1
    yield Finding("replicas", "ok" if copies > 2 else "note", f"{copies}" + (": one disk has it all" * (copies == 1)))
    yield Finding(
        "sync_interval",
        "note",
        "NATS does not tell: unless its configuration says sync_interval: always, what came in the last two minutes"
        " may be lost in a power cut, though it was accepted",
    )
    if said.retention == RetentionPolicy.INTEREST:
        yield Finding("retention", "weak", "interest: what comes while no consumer is known is thrown away")
    bounds = {"max_age": said.max_age, "max_msgs": said.max_msgs, "max_bytes": said.max_bytes}
    bound = [name for name, value in bounds.items() if value and value > 0]
    if bound and (said.discard != DiscardPolicy.NEW or "max_age" in bound):
        yield Finding("limits", "weak", f"{', '.join(bound)}: the oldest are thrown away, read or not")


async def _rabbit(place: Place) -> AsyncIterator[Finding]:
    import aio_pika
    from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed

    try:
        connection = await aio_pika.connect(place.address, timeout=SECONDS)
    except AMQPError as error:
        yield Finding(place.label, "fail", f"does not let us in ({type(error).__name__})")
        return
    try:
        channel = await connection.channel()
        await channel.declare_queue(place.name, durable=True, arguments={"x-queue-type": _NO_KIND}, timeout=SECONDS)
        said = ""
    except ChannelPreconditionFailed as error:
        said = str(error)
    except AMQPError as error:
        said = type(error).__name__
    finally:
        await connection.close()
    yield _queue(place, said)
    yield Finding(
        "publishers",
        "note",
        "the queue does not tell: of a classic queue only what is sent as persistent (delivery_mode 2) outlives a"
        " restart, and only what the broker confirmed was accepted",
    )


def _queue(place: Place, said: str) -> Finding:
    """Return what a queue is by the first difference to what was asked for."""
    if _NO_KIND in said and "unsupported" in said:
        return Finding(place.label, "fail", "there is no such queue")
    found = _ANSWER.search(said)
    if found is None:
        return Finding("queue", "note", f"RabbitMQ does not say what it is ({said or 'no answer'})")
    name, current = found.groups()
    if name == "durable":
        return Finding("queue", "weak", "not durable: gone with all messages when the broker ends")
    if name in ("auto_delete", "exclusive"):
        return Finding("queue", "weak", f"durable, but {name}: gone with all messages when its last consumer is")
    if name == "x-queue-type":
        many = "quorum" in current
        return Finding("queue", "ok" if many else "note", f"durable, {_KINDS[many]}")
    return Finding("queue", "weak", f"durable, with {name}: messages may be thrown away unread")


async def _kafka(place: Place) -> AsyncIterator[Finding]:
    for finding in await asyncio.to_thread(_topic, place):
        yield finding


def _topic(place: Place) -> list[Finding]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

    parts = urlsplit(place.address)
    secret, _, hosts = parts.netloc.rpartition("@")
    user, _, password = secret.partition(":")
    tls = place.scheme == "kafkas"
    settings: dict[str, str | int | float | bool] = {"bootstrap.servers": hosts, "log_level": 0}
    settings["security.protocol"] = ("SASL_" if user else "") + ("SSL" if tls else "PLAINTEXT")
    if user:
        settings |= {"sasl.mechanisms": "PLAIN", "sasl.username": unquote(user), "sasl.password": unquote(password)}
    admin = AdminClient(settings)
    try:
        topic = admin.list_topics(place.name, timeout=SECONDS).topics[place.name]
    except KafkaException:
        return [Finding(place.label, "fail", "cannot be reached, or does not let us in")]
    if topic.error is not None or not topic.partitions:
        return [Finding(place.label, "fail", "there is no such topic")]
    copies = min(len(part.replicas) for part in topic.partitions.values())
    acks = "Kafka does not tell: only what is sent with acks=all is on min.insync.replicas disks when it is accepted"
    lost = "" if copies > 1 else ": a broker writes to disk late, so a power cut or a lost disk loses what was accepted"
    found = [Finding("replicas", "weak" if lost else "ok", f"{copies}{lost}"), Finding("acks", "note", acks)]
    try:
        resource = ConfigResource(ConfigResource.Type.TOPIC, place.name)
        answer = admin.describe_configs([resource], request_timeout=SECONDS)[resource].result(SECONDS)
        said = {name: str(entry.value) for name, entry in answer.items()}
    except (KafkaException, TimeoutError):
        return [
            *found,
            Finding("settings", "note", "the broker does not tell min.insync.replicas, nor how long it keeps"),
        ]
    return [*found, *_settings(said, copies)]


def _settings(said: dict[str, str], copies: int) -> list[Finding]:
    """Return what the settings of a topic mean."""
    found = []
    least = said.get("min.insync.replicas", "1")
    few = copies > 1 and least == "1"
    found.append(Finding("min.insync.replicas", "weak" if few else "ok", least + ": accepted by one broker only" * few))
    if said.get("unclean.leader.election.enable") == "true":
        found.append(Finding("unclean.leader.election", "weak", "on: a broker that lags may drop what was accepted"))
    if "compact" in said.get("cleanup.policy", ""):
        found.append(Finding("cleanup.policy", "weak", "compact: of events with the same key only the last stays"))
    bounds = [name for name in ("retention.ms", "retention.bytes") if said.get(name, "-1") != "-1"]
    lost = "what is older or beyond is thrown away, read or not"
    return [*found, *(Finding(name, "note", f"{said[name]}: {lost}") for name in bounds)]
