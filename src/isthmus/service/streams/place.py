"""Where a stream is: one URL for every kind of broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlencode, urlsplit, urlunsplit

from isthmus.errors import InputError

#: What the name of a stream is called in the URL of each kind of broker.
_WORDS: Final = {
    "redis": "stream",
    "rediss": "stream",
    "nats": "stream",
    "tls": "stream",
    "amqp": "queue",
    "amqps": "queue",
    "kafka": "topic",
    "kafkas": "topic",
}
_OWN: Final = ("stream", "group", "subject", "queue", "topic", "claim")
_FORM: Final = (
    "write redis://HOST/0?stream=NAME, nats://HOST?stream=NAME, amqp://HOST/?queue=NAME or kafka://HOST?topic=NAME"
)


@dataclass(frozen=True)
class Place:
    """Where a stream is.

    Parameters
    ----------
    scheme : str
        What kind of broker.
    address : str
        The broker's own URL, with its password.
    name : str
        Stream, queue or topic.
    group : str
        The group of consumers that share the messages.
    subject : str
        Which of a NATS stream's subjects.
    claim : float
        Seconds after which a message that nobody acknowledged is given to another consumer.
    label : str
        How logs call it: without user and password.
    """

    scheme: str
    address: str
    name: str
    group: str
    subject: str
    claim: float
    label: str


def place_of(url: str) -> Place:
    """Return the place a URL names.

    Raises
    ------
    InputError
        No such kind of broker, or the URL lacks the stream.

    Examples
    --------
    >>> place = place_of("redis://user:secret@host:6379/0?stream=events&group=shop")
    >>> place.address, place.name, place.label
    ('redis://user:secret@host:6379/0', 'events', 'redis://host:6379/events')
    """
    parts = urlsplit(url)
    if parts.scheme not in _WORDS or not parts.netloc:
        raise InputError("the URL names no stream", where="STREAM", fix=_FORM)
    word = _WORDS[parts.scheme]
    said = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    name = said.get(word, "")
    if not name:
        raise InputError(f"the URL lacks {word}=NAME", where="STREAM", fix=_FORM)
    try:
        claim = float(said.get("claim", "30"))
    except ValueError:
        claim = 0.0
    if claim <= 0:
        raise InputError("claim is no number of seconds", where="STREAM", fix="claim=30")
    rest = urlencode({key: value for key, value in said.items() if key not in _OWN})
    address = urlunsplit(SplitResult(parts.scheme, parts.netloc, parts.path, rest, ""))
    label = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{name}"
    return Place(parts.scheme, address, name, said.get("group", "isthmus"), said.get("subject", ""), claim, label)
