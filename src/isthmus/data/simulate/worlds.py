"""Simulated worlds with known answers: who likes what is planted, so a test can say what a method must find."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.simulate.walks import successors, walk
from isthmus.data.simulate.wording import compose, lexicon
from isthmus.data.tables import TS, conform
from isthmus.rng import generator
from isthmus.types import Bools, Ints

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
YEAR: Final = 365 * 86_400
_MIX: Final = np.array([[1.0, 0.0, 0.0], [0.65, 0.35, 0.0], [0.5, 0.3, 0.2]])


@dataclass(frozen=True)
class Place:
    """One platform of a world and what people do there.

    Parameters
    ----------
    platform, domain : str
        Names in the tables.
    style : str
        Whose templates the titles use: ``books``, ``films`` or ``music``.
    user, item : str
        Patterns of ids, with a number in braces.
    habits : tuple of (event, share)
        Each event that follows from meeting an item, and the share of meetings it follows from, falling.
    steps : int
        Number of steps of the rating scale.
    """

    platform: str
    domain: str
    style: str
    user: str
    item: str
    habits: tuple[tuple[str, float], ...]
    steps: int = 5


@dataclass(frozen=True)
class Plan:
    """How a world is drawn; the defaults are those of the town.

    Parameters
    ----------
    places : tuple of Place
        The platforms.
    persons, items : int
        Number of persons in all, and of items in each domain.
    themes, strands : int
        How many themes there are (at most 12), and strands inside each.
    meetings : float
        Mean number of items a person meets on one platform.
    shared : float
        Share of persons who are on two or more platforms.
    loyalty : float
        Share of meetings that follow the person's tastes; the rest are chance.
    carries_over : bool
        Whether a person has the same tastes in every domain; else they are drawn anew in each.
    chinese : float
        Share of the items whose words are Chinese.
    late : float
        Share of the items that appear, and of the persons who join, in the course of the year.
    fame : float
        How much more some items are met than others: the pull of the r-th is ``r ** -fame``.
    telling : bool
        Whether the texts of the last place tell what its items are about; else they tell of other themes, drawn anew.
    follows : float
        Share of the meetings whose theme is decided by the theme met just before; the rest are of any theme. Above 0,
        tastes play no part and nobody meets an item twice.
    """

    places: tuple[Place, ...]
    persons: int = 1500
    items: int = 300
    themes: int = 12
    strands: int = 3
    meetings: float = 14.0
    shared: float = 0.4
    loyalty: float = 0.85
    carries_over: bool = True
    chinese: float = 0.25
    late: float = 0.25
    fame: float = 0.7
    telling: bool = True
    follows: float = 0.0


@dataclass(frozen=True)
class World:
    """A drawn world: the canonical tables, and the truth behind them.

    Parameters
    ----------
    plan : Plan
        What was asked for.
    tables : dict of str to polars.DataFrame
        Canonical tables events, items, users, identities.
    tastes : polars.DataFrame
        person, domain, theme, strand, share: what each person likes, and how much of it.
    themes : polars.DataFrame
        platform, item, theme, strand: what each item is about.
    next_themes : polars.DataFrame
        domain, theme, next: which theme follows on which; no rows where order plays no part.
    """

    plan: Plan
    tables: dict[str, pl.DataFrame] = field(repr=False)
    tastes: pl.DataFrame = field(repr=False)
    themes: pl.DataFrame = field(repr=False)
    next_themes: pl.DataFrame = field(repr=False)


@dataclass(frozen=True)
class _People:
    """Persons' tastes: ``count`` (P,), ``themes`` (P, places, 3), ``strands`` (P, places, themes), ``joined`` (P,)."""

    count: Ints
    themes: Ints
    strands: Ints
    joined: Ints
    member: Bools


def draw(plan: Plan, seed: int) -> World:
    """Return the world of ``plan`` and ``seed``; the same on any machine."""
    people = _people(plan, generator(seed, "people"))
    catalogues = [_catalogue(plan, place, generator(seed, "items", place.platform)) for place in plan.places]
    after = _successors(plan, seed)
    logs = [
        _log(plan, number, catalogues[number], people, after[number], generator(seed, "events", place.platform))
        for number, place in enumerate(plan.places)
    ]
    items = pl.concat(catalogues)
    tables = {
        "events": conform("events", pl.concat(logs)),
        "items": conform("items", items),
        "users": conform("users", _accounts(plan, people).with_columns(attributes=pl.lit(None, pl.String))),
        "identities": conform("identities", _accounts(plan, people)),
    }
    themes = items.select("platform", "item", "theme", "strand")
    return World(plan, tables, _tastes(plan, people), themes, _next_themes(plan, seed))


def _successors(plan: Plan, seed: int) -> list[Ints]:
    """Return for each place which theme follows on each, (themes,); the same everywhere if tastes carry over too."""
    places = [plan.places[0] if plan.carries_over else place for place in plan.places]
    return [successors(plan.themes, generator(seed, "order", place.platform)) for place in places]


def _next_themes(plan: Plan, seed: int) -> pl.DataFrame:
    names = np.array(lexicon().names)[: plan.themes]
    frames = [
        pl.DataFrame({"domain": [place.domain] * plan.themes, "theme": names, "next": names[after]})
        for place, after in zip(plan.places, _successors(plan, seed), strict=True)
    ]
    return pl.concat(frames) if plan.follows else pl.concat(frames).clear()


def _people(plan: Plan, rng: np.random.Generator) -> _People:
    n, places = plan.persons, len(plan.places)
    worlds = 1 if plan.carries_over else places
    themes = rng.random((n, worlds, plan.themes)).argsort(axis=2)[:, :, :3]
    strands = rng.integers(plan.strands, size=(n, worlds, plan.themes))
    member = np.zeros((n, places), dtype=bool)
    order = rng.random((n, places)).argsort(axis=1)
    wanted = np.where(rng.random(n) < plan.shared, rng.integers(2, places + 1, size=n), 1)
    np.put_along_axis(member, order, np.arange(places) < wanted[:, None], axis=1)
    share = rng.random(n)
    joined = np.where(rng.random(n) < plan.late, 0.1 + 0.85 * share, 0.1 * share) * YEAR
    return _People(
        count=rng.integers(1, min(3, plan.themes) + 1, size=n),
        themes=np.broadcast_to(themes, (n, places, themes.shape[2])),
        strands=np.broadcast_to(strands, (n, places, plan.themes)),
        joined=joined.astype(np.int64),
        member=member,
    )


def _names(persons: Ints) -> pl.Series:
    return _ids("person-{}", persons, width=5)


def _ids(pattern: str, numbers: Ints, *, width: int = 7) -> pl.Series:
    digits = pl.Series("n", numbers).cast(pl.String).str.zfill(width)
    return digits.to_frame().select(pl.format(pattern, "n").alias("id"))["id"]


def _users(place: Place, persons: Ints) -> pl.Series:
    """Return the account ids of ``persons`` on a place; they say nothing about the ids on other places."""
    return _ids(place.user, (persons * 7919 + 104_729 * len(place.user)) % 1_000_003)


def _accounts(plan: Plan, people: _People) -> pl.DataFrame:
    frames = []
    for number, place in enumerate(plan.places):
        persons = np.flatnonzero(people.member[:, number])
        frame = pl.DataFrame({"user": _users(place, persons), "person": _names(persons)})
        frames.append(frame.select(pl.lit(place.platform).alias("platform"), "user", "person"))
    return pl.concat(frames)


def _tastes(plan: Plan, people: _People) -> pl.DataFrame:
    person, place, rank = (axis.ravel() for axis in np.indices(people.themes.shape))
    theme = people.themes.ravel()
    frame = pl.DataFrame(
        {
            "person": _names(person),
            "domain": np.array([p.domain for p in plan.places])[place],
            "theme": np.array(lexicon().names)[theme],
            "strand": people.strands[person, place, theme],
            "share": _MIX[people.count[person] - 1, rank],
        }
    )
    order = ["person", "domain", "share"]
    return frame.filter(pl.col("share") > 0).sort(order, descending=[False, False, True])


def _catalogue(plan: Plan, place: Place, rng: np.random.Generator) -> pl.DataFrame:
    """Return the items of one place: the canonical columns, theme, strand, their ``group`` and popularity ``pull``."""
    n = plan.items
    themes, strands = rng.permutation(n) % plan.themes, rng.integers(plan.strands, size=n)
    released = np.where(rng.random(n) < plan.late, (0.1 + 0.85 * rng.random(n)) * YEAR, 0).astype(np.int64)
    told = (themes, strands) if plan.telling or place != plan.places[-1] else _astray(plan, place, n)
    words = compose(rng, place.style, *told, rng.random(n) < plan.chinese)
    truth = pl.DataFrame(
        {
            "item": _ids(place.item, rng.permutation(n) * 37 + 1001),
            "available_from": moments(released),
            "theme": np.array(lexicon().names)[themes],
            "strand": strands,
            "group": themes * plan.strands + strands,
            "released": released,
            "pull": 1.0 / (1.0 + rng.permutation(n)) ** plan.fame,
        }
    )
    return pl.concat([words, truth], how="horizontal").with_columns(
        platform=pl.lit(place.platform), domain=pl.lit(place.domain)
    )


def _astray(plan: Plan, place: Place, n: int) -> tuple[Ints, Ints]:
    """Return themes and strands (n,) that have nothing to do with what the items are about."""
    rng = generator(plan.items, "astray", place.platform)
    return rng.integers(plan.themes, size=n), rng.integers(plan.strands, size=n)


def moments(seconds: Ints) -> pl.Series:
    """Return seconds since the start of the simulated year as times."""
    return pl.Series((np.asarray(seconds) + int(START.timestamp())) * 1_000_000).cast(TS)


def _log(
    plan: Plan, number: int, items: pl.DataFrame, people: _People, after: Ints, rng: np.random.Generator
) -> pl.DataFrame:
    """Return the canonical events of place ``number``: each event once for an account and item."""
    place = plan.places[number]
    persons = np.flatnonzero(people.member[:, number])
    counts = 1 + rng.poisson(rng.gamma(1.2, (plan.meetings - 1) / 1.2, size=persons.size))
    who = np.repeat(persons, counts)
    if plan.follows:
        seconds = _moments_of(who, people, rng)
        seconds = seconds[np.lexsort((seconds, who))]
        own, theme = np.ones(who.size, dtype=bool), items["group"].to_numpy() // plan.strands
        chosen = walk(counts, theme, after, plan.follows, rng)
        chosen = np.where(items["released"].to_numpy()[chosen] <= seconds, chosen, -1)
    else:
        own, group = _wishes(plan, number, who, people, rng)
        seconds = _moments_of(who, people, rng)
        chosen = _choose(items, group, seconds, rng)
    found = chosen >= 0
    met = pl.DataFrame(
        {
            "user": _users(place, who[found]),
            "item": items["item"].gather(chosen[found]),
            "own": own[found],
            "seconds": seconds[found],
        }
    )
    return _follow(place, met, rng)


def _moments_of(who: Ints, people: _People, rng: np.random.Generator) -> Ints:
    """Return the second of the year of each meeting: any, from the day the person joined."""
    joined = people.joined[who]
    seconds: Ints = joined + (rng.random(who.size) * (YEAR - joined)).astype(np.int64)
    return seconds


def _wishes(plan: Plan, number: int, who: Ints, people: _People, rng: np.random.Generator) -> tuple[Bools, Ints]:
    """Return for each meeting whether it follows a taste, and the group of items (theme and strand) looked for."""
    mix = _MIX[people.count[who] - 1].cumsum(axis=1)
    rank = (rng.random(who.size)[:, None] > mix).sum(axis=1).clip(max=people.themes.shape[2] - 1)
    own = rng.random(who.size) < plan.loyalty
    theme = np.where(own, people.themes[who, number, rank], rng.integers(plan.themes, size=who.size))
    loyal = own & (rng.random(who.size) < 0.6)
    strand = np.where(loyal, people.strands[who, number, theme], rng.integers(plan.strands, size=who.size))
    return own, theme * plan.strands + strand


def _choose(items: pl.DataFrame, group: Ints, seconds: Ints, rng: np.random.Generator) -> Ints:
    """Return the row of an item of each ``group`` that is out at that time, drawn by its pull; -1 if there is none."""
    groups, released = items["group"].to_numpy(), items["released"].to_numpy()
    order = np.lexsort((released, groups))
    total = np.concatenate([[0.0], np.cumsum(items["pull"].to_numpy()[order])])
    moment = groups[order] * (YEAR + 1) + released[order]
    first = np.searchsorted(groups[order], group, "left")
    last = np.searchsorted(moment, group * (YEAR + 1) + seconds, "right")
    point = total[first] + rng.random(group.size) * (total[last] - total[first])
    place = np.clip(np.searchsorted(total, point, "right") - 1, first, np.maximum(last - 1, first))
    return np.where(last > first, order[np.minimum(place, order.size - 1)], -1)


def _follow(place: Place, met: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Return the events that follow from each meeting; liking something makes more of them."""
    own = met["own"].to_numpy()
    luck = rng.random(met.height) ** np.where(own, 1.3, 0.7)
    top = place.steps - 1
    stars = np.clip(np.rint(rng.normal(np.where(own, 0.8, 0.45), 0.18) * top), 0, top) / top
    watched = np.rint(rng.gamma(4.0, np.where(own, 60.0, 25.0)) + 5)
    frames = []
    for step, (event, share) in enumerate(place.habits):
        delay = step * 300 + rng.integers(0, 240, size=met.height)
        value = {"rate": stars, "play": watched}.get(event, np.full(met.height, np.nan))
        ts = moments(np.minimum(met["seconds"].to_numpy() + delay, YEAR - 1))
        frame = met.select("user", "item").with_columns(
            event=pl.lit(event), value=pl.Series(value).fill_nan(None), ts=ts
        )
        frames.append(frame.filter(pl.Series(luck < share)))
    events = pl.concat(frames).with_columns(platform=pl.lit(place.platform))
    return events.sort("ts", maintain_order=True).unique(["user", "item", "event"], keep="first", maintain_order=True)
