"""One person of a model: who it is, what was met, how long ago."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

import numpy as np
import polars as pl

from isthmus.errors import InputError, NotFoundError, nearest
from isthmus.model.base import DAY, Doubles
from isthmus.recommender.facade import Recommender
from isthmus.recommender.profile_parts import ProfileSettings
from isthmus.types import Bools, Codes, Ints

#: Times before this are places in an order, not dates.
DATED: Final = datetime(1980, 1, 1, tzinfo=UTC)
#: Periods that are told at most: the newest.
PERIODS: Final = 8


@dataclass(frozen=True)
class Who:
    """Somebody: a person by name, or one of their accounts.

    Parameters
    ----------
    person : str, optional
        Name of the person in the identities table.
    account : tuple of str, optional
        Platform and user.
    """

    person: str | None = None
    account: tuple[str, str] | None = None

    @classmethod
    def parse(cls, person: str | None, account: str | None) -> Who:
        """Return who a command line means; an account is written PLATFORM:USER.

        Raises
        ------
        InputError
            Both or none are given, or the account has no platform or user.

        Examples
        --------
        >>> Who.parse(None, "shop:a:b").account
        ('shop', 'a:b')
        """
        if (person is None) == (account is None):
            raise InputError("one person is needed", fix="give --person P or --account PLATFORM:USER")
        if account is None:
            return cls(person=person)
        platform, colon, user = account.partition(":")
        if not (platform and colon and user):
            raise InputError(f"'{account}' names no account", where="--account", fix="write it as PLATFORM:USER")
        return cls(account=(platform, user))


def find_person(model: Recommender, who: Who) -> tuple[str, int, tuple[tuple[str, str], ...]]:
    """Return what a person is called, their number in the model (-1: never seen) and all their accounts.

    Raises
    ------
    NotFoundError
        No such person or platform.
    """
    people = model.content.people
    accounts = people.accounts
    if who.account is None:
        found = people.person(str(who.person))
        name = str(who.person)
    else:
        platform, user = who.account
        known = model.items["platform"].unique().sort().to_list()
        if platform not in {*known, *accounts["platform"].unique()}:
            raise NotFoundError(
                f"no platform '{platform}'{nearest(platform, known)}", fix=f"platforms: {', '.join(known)}"
            )
        known_as = people.hidden(pl.DataFrame({"platform": [platform], "user": [user]}))
        found = accounts.join(known_as, on=["platform", "user"], how="semi")
        name = f"{platform}:{user}"
    if found.is_empty():
        return name, -1, ()
    number = int(found["person"][0])
    mine = accounts.filter(pl.col("person") == number).select("platform", "user").sort("platform", "user")
    return name, number, tuple(cast("list[tuple[str, str]]", mine.rows()))


@dataclass(frozen=True)
class Met:
    """The different items somebody met, ``m`` of them, oldest meeting first.

    Parameters
    ----------
    items, platform : int64 arrays (m,)
        Item index, and place of its platform.
    weight, short, long : float64 arrays (m,)
        Weight of the strongest event relative to the usual one there, and the same with the short and long half-life.
    event : int8 array (m,)
        Which event that was, of equal ones the newest.
    newest_ts : int64 array (m,)
        Time of the newest event, microseconds.
    frame : polars.DataFrame
        The events: item, event, weight, ts, platform (place), dated; by time.
    """

    items: Ints
    platform: Ints
    weight: Doubles
    short: Doubles
    long: Doubles
    event: Codes
    newest_ts: Ints
    frame: pl.DataFrame

    @classmethod
    def of(cls, model: Recommender, number: int, usual: Doubles, settings: ProfileSettings) -> Met:
        """Return what person ``number`` met; weights are relative to the ``usual`` one of each platform."""
        names = model.items["platform"].unique().sort().to_list()
        place = model.items["platform"].replace_strict(names, range(len(names)), return_dtype=pl.Int64)
        mine = model.content.people.events.filter(pl.col("person") == number).select("item", "event", "weight", "ts")
        mine = mine.with_columns(pl.col("item").cast(pl.Int64), pl.col("weight").cast(pl.Float64))
        mine = mine.with_columns(platform=place.gather(mine["item"]), dated=pl.col("ts") >= DATED)
        relative = mine["weight"].to_numpy() / np.maximum(usual[mine["platform"].to_numpy()], 1e-12)
        mine = mine.with_columns(weight=pl.Series(relative, dtype=pl.Float64))
        newest = pl.col("ts").filter("dated").max()
        age = (newest - pl.col("ts")).dt.total_microseconds() / DAY
        later = pl.len().over("platform") - 1 - pl.int_range(pl.len()).over("platform")
        halved = [
            pl.col("weight") * 0.5 ** pl.when("dated").then(age / day).otherwise(later / event)
            for day, event in zip(settings.days, settings.events, strict=True)
        ]
        frame = mine.with_columns(short=halved[0], long=halved[1])
        strongest = pl.col("event").sort_by("weight", "ts").last()
        table = frame.group_by("item", maintain_order=True).agg(
            pl.col("platform").first(), pl.col("weight", "short", "long").max(), strongest, pl.col("ts").max()
        )
        return cls(
            items=table["item"].to_numpy(),
            platform=table["platform"].to_numpy(),
            weight=table["weight"].to_numpy(),
            short=table["short"].to_numpy(),
            long=table["long"].to_numpy(),
            event=table["event"].to_numpy().astype(np.int8),
            newest_ts=table["ts"].to_physical().to_numpy(),
            frame=frame,
        )

    @classmethod
    def plain(cls, items: Ints, weight: Doubles, platform: Ints) -> Met:
        """Return items with weights, without any events."""
        none = np.zeros(items.size, np.int64)
        return cls(items, platform, weight, weight, weight, none.astype(np.int8), none, pl.DataFrame())

    def take(self, some: Bools) -> Met:
        """Return the items where ``some`` (m,) is true; the events stay."""
        return Met(
            items=self.items[some],
            platform=self.platform[some],
            weight=self.weight[some],
            short=self.short[some],
            long=self.long[some],
            event=self.event[some],
            newest_ts=self.newest_ts[some],
            frame=self.frame,
        )

    def newest(self) -> Ints:
        """Return the places of the items from the newest to the oldest meeting, dated ones first."""
        return np.argsort(-self.newest_ts, kind="stable")

    def date(self, place: int) -> str | None:
        """Return the day of the newest event on an item, ISO; None where times only order."""
        when = datetime.fromtimestamp(self.newest_ts[place] / 1e6, tz=UTC)
        return when.date().isoformat() if when >= DATED else None

    def dated_times(self) -> pl.Series:
        """Return the times of the events that have dates."""
        return self.frame.filter("dated")["ts"]

    def events_on(self, platform: int) -> int:
        """Return the number of events on a platform."""
        return self.frame.filter(pl.col("platform") == platform).height

    def first(self, platform: int | None = None) -> str | None:
        """Return the day of the oldest dated event, on one platform or all."""
        return self._day(platform, 0)

    def last(self, platform: int | None = None) -> str | None:
        """Return the day of the newest dated event, on one platform or all."""
        return self._day(platform, -1)

    def _day(self, platform: int | None, place: int) -> str | None:
        some = self.frame.filter(pl.col("dated") & (pl.lit(platform is None) | (pl.col("platform") == (platform or 0))))
        return None if some.is_empty() else cast("datetime", some["ts"].sort()[place]).date().isoformat()


def periods(met: Met) -> Iterator[tuple[str, Ints, Doubles, int]]:
    """Yield the name, items (by place in the corpus), their weights and number of events, by month, quarter or year.

    The finest of the three that gives :data:`PERIODS` or fewer; years beyond that, the newest of them.
    """
    dated = met.frame.filter("dated")
    if dated.is_empty():
        return
    ts = pl.col("ts")
    month = ts.dt.strftime("%Y-%m")
    quarter = pl.format("{}-Q{}", ts.dt.year(), ts.dt.quarter())
    for name in (month, quarter, ts.dt.year().cast(pl.String)):
        named = dated.with_columns(period=name)
        if named["period"].n_unique() <= PERIODS:
            break
    for (period,), part in sorted(named.partition_by("period", as_dict=True).items())[-PERIODS:]:
        table = part.group_by("item", maintain_order=True).agg(pl.col("weight").max())
        yield str(period), table["item"].to_numpy(), table["weight"].to_numpy(), part.height
