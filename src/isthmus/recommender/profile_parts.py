"""The parts of a profile: interests with their evidence, platforms, periods; and how one is drawn up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from isthmus.data.phrases import Language
from isthmus.errors import InputError
from isthmus.files import Json
from isthmus.recommender.profile_words import told

Trend = Literal["rising", "falling", "steady"]


@dataclass(frozen=True)
class ProfileSettings:
    """How a profile is drawn up.

    Parameters
    ----------
    interests : int
        Interests of each kind that are named at most, for all platforms together and for each one.
    evidence : int
        Events that are shown for each interest at most.
    days : tuple of float
        Half-lives of the short and of the long term, where events have dates.
    events : tuple of float
        The same in newer events on the platform, where they have only an order.
    persons : int
        Categories and words met by fewer persons than this are not used: they would name people, not tastes.
    """

    interests: int = 8
    evidence: int = 3
    days: tuple[float, float] = (14.0, 180.0)
    events: tuple[float, float] = (5.0, 50.0)
    persons: int = 5

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.interests, self.evidence, self.persons) < 0 or min(*self.days, *self.events) <= 0:
            raise InputError("a profile's numbers are impossible", fix="counts from 0, half-lives above 0")


@dataclass(frozen=True)
class Evidence:
    """One event that shows an interest; ``date`` is ISO (null where events have only an order)."""

    platform: str
    item: str
    title: str
    event: str
    date: str | None


@dataclass(frozen=True)
class Interest:
    """Something met more than by others on the same platforms.

    Parameters
    ----------
    name, kind : str
        What it is called; ``category`` or ``word``.
    items : int
        Items of it that the person met.
    share : float
        Share of what the person met, weighted by event.
    lift : float
        How many times as much as everybody: ``(observed + 1/2) / (expected + 1/2)``.
    low : float
        The lift is larger than this with 97.5 %; above 1 the interest is sure.
    short, long : float
        Share in the short and in the long term.
    trend : {"rising", "falling", "steady"}
        Short against long term; steady unless the difference is sure to 90 %.
    evidence : tuple of Evidence
        Events that show it, the strongest and newest first.
    """

    name: str
    kind: str
    items: int
    share: float
    lift: float
    low: float
    short: float
    long: float
    trend: Trend
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class PriceRange:
    """What things cost that the person met: tenth, middle and ninetieth percentile of ``n`` priced items.

    ``level`` is the share of what everybody meets there that costs less than the middle. ``currency`` is the one most
    items name, or null; items in another currency do not count.
    """

    n: int
    low: float
    median: float
    high: float
    currency: str | None
    level: float


@dataclass(frozen=True)
class PlatformProfile:
    """One platform: how much was done there and when, and what stands out there."""

    platform: str
    events: int
    items: int
    first: str | None
    last: str | None
    share: float
    domains: dict[str, float]
    languages: dict[str, float]
    price: PriceRange | None
    interests: tuple[Interest, ...]


@dataclass(frozen=True)
class Period:
    """What stood out from ``start`` to ``end``, as names of interests."""

    name: str
    events: int
    interests: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """What is known of one person's tastes.

    Parameters
    ----------
    person : str
        What the person was called by who asked.
    accounts : tuple of (platform, user)
        All accounts; empty for somebody never seen.
    events, items : int
        Events that say something about taste, and the different items among them.
    first, last : str or None
        Date of the oldest and newest event.
    interests : tuple of Interest
        Over all platforms; the surest first.
    platforms : tuple of PlatformProfile
        One by one, the busiest first.
    languages : dict of str to float
        Share of each language of the items.
    hours : dict of str to float
        Share of events in each quarter of the day (UTC); empty where events have no time of day.
    periods : tuple of Period
        What stood out when, oldest first; empty where events have no dates.
    lately : tuple of Evidence
        The newest events, newest first.
    """

    person: str
    accounts: tuple[tuple[str, str], ...]
    events: int = 0
    items: int = 0
    first: str | None = None
    last: str | None = None
    interests: tuple[Interest, ...] = ()
    platforms: tuple[PlatformProfile, ...] = ()
    languages: dict[str, float] = field(default_factory=dict)
    hours: dict[str, float] = field(default_factory=dict)
    periods: tuple[Period, ...] = ()
    lately: tuple[Evidence, ...] = ()

    @property
    def data(self) -> Json:
        """Everything in the profile, as JSON values."""
        return asdict(self)

    def tell(self, language: Language = "en") -> str:
        """Return the profile as text, in English or Chinese."""
        return told(self.data, language)
