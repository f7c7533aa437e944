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
class Wishes:
    """What lists are asked for besides their length.

    Parameters
    ----------
    platforms, categories, langs : tuple of str
        Items of these only; all where empty.
    exclude : tuple of (str, str)
        Items left out: platform and item.
    context : tuple of (str, str, str)
        What the one person met just now, the newest last: platform, item, event word. It is not kept.
    reasons : int
        Items of the one person's history named for each place, at most.
    """

    platforms: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    langs: tuple[str, ...] = ()
    exclude: tuple[tuple[str, str], ...] = ()
    context: tuple[tuple[str, str, EventName], ...] = ()
    reasons: int = 0


@dataclass(frozen=True)
class Reason:
    """An item of the history, and what the score would lack without it."""

    platform: str
    item: str
    title: str | None
    domain: str
    contribution: float


@dataclass(frozen=True)
class Receipt:
    """Events on disk: how many were new, the ids of all, of those known already, of those that differ.

    ``unknown`` are events on items that are not known: they count once the item is put. ``model`` and its version are
    of the model that answers.
    """

    accepted: int
    ids: tuple[str, ...]
    duplicates: tuple[str, ...]
    conflicts: tuple[str, ...]
    data_version: int
    unknown: tuple[str, ...] = ()
    model: str = ""
    model_version: str = ""


@dataclass(frozen=True)
class Place:
    """One item of a list; score and reasons where they were asked for."""

    platform: str
    item: str
    title: str | None
    score: float | None = None
    reasons: tuple[Reason, ...] = ()


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
    """An answer: lists in the order of the accounts, domain by domain, what they were made with, and what they lack."""

    lists: tuple[Listed, ...]
    model: str
    model_version: str
    data_version: int
    degraded: bool
    degraded_by: tuple[str, ...] = ()


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
    model: str = ""
    model_version: str = ""


@dataclass(frozen=True)
class Judged:
    """What the promotion gate found: whether a model passed, and what speaks against it."""

    model: str
    passed: bool
    reasons: tuple[str, ...]
