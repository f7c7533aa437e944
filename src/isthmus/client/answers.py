"""What the client sends and gets, as plain typed values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from isthmus.types import EventName

Account: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Parameters
    ----------
    platform, user, item : str
        Who and what.
    event : str
        Event word.
    value : float, optional
        Rating, seconds.
    ts : datetime, optional
        When, with a time zone; now if not given.
    id : str, optional
        Unique in a tenant. The client makes one where it is lacking, so that sending again is harmless.
    """

    platform: str
    user: str
    item: str
    event: EventName = "click"
    value: float | None = None
    ts: datetime | None = None
    id: str | None = None


@dataclass(frozen=True)
class Item:
    """An item to be known from now on; what is not said is empty."""

    platform: str
    item: str
    domain: str
    title: str | None = None
    text: str | None = None
    categories: tuple[str, ...] | None = None
    attributes: str | None = None
    lang: str | None = None
    available_from: datetime | None = None
    available_until: datetime | None = None


@dataclass(frozen=True)
class Receipt:
    """Events on disk: how many were new, the ids of all, of those known already, and of those that differ."""

    accepted: int
    ids: tuple[str, ...]
    duplicates: tuple[str, ...]
    conflicts: tuple[str, ...]
    data_version: int


@dataclass(frozen=True)
class Place:
    """One item of a list; the score where it was asked for."""

    platform: str
    item: str
    title: str | None
    score: float | None = None


@dataclass(frozen=True)
class Listed:
    """One list, best first, and the layer it came from; the model that made it, where it is not that of the answer."""

    platform: str
    user: str
    domain: str
    layer: Literal["model", "cached", "popular"]
    items: tuple[Place, ...]
    model: str | None = None


@dataclass(frozen=True)
class Lists:
    """An answer: lists in the order of the accounts, domain by domain, and what they were made with."""

    lists: tuple[Listed, ...]
    model: str
    model_version: str
    data_version: int
    degraded: bool


@dataclass(frozen=True)
class Consent:
    """Whether events of one platform may be used for lists on another; ``*`` is any other one."""

    from_platform: str
    to_platform: str
    allowed: bool


@dataclass(frozen=True)
class Consents:
    """What a person said, in the order in which it counts; what follows for every two platforms; the rule."""

    said: tuple[Consent, ...]
    uses: tuple[Consent, ...]
    required: bool
    data_version: int


@dataclass(frozen=True)
class Judged:
    """What the promotion gate found: whether a model passed, and what speaks against it."""

    model: str
    passed: bool
    reasons: tuple[str, ...]
