"""What somebody likes, as a person can read it: interests with evidence, languages and prices, now and long-term."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import time
from functools import cached_property
from typing import Final, cast

import numpy as np
import polars as pl

from isthmus.model.base import Doubles
from isthmus.recommender.facade import Recommender
from isthmus.recommender.prices import prices
from isthmus.recommender.profile_parts import (
    Evidence,
    Interest,
    Period,
    PlatformProfile,
    PriceRange,
    Profile,
    ProfileSettings,
    Trend,
)
from isthmus.recommender.profile_person import Met, Who, find_person, periods
from isthmus.recommender.profile_terms import Terms, shrunk, terms_of
from isthmus.recommender.protected import names_protected
from isthmus.types import EVENTS, Ints

__all__ = ["Profile", "ProfileSettings", "Profiler", "Who", "profile"]

#: Parts of the day, six hours each from midnight UTC.
DAYTIMES: Final = ("night", "morning", "afternoon", "evening")


@dataclass(frozen=True)
class _Found:
    """Terms that stand out: columns, and their observed weight, lift and its lower bound, (n,) each."""

    columns: Ints
    observed: Doubles
    lift: Doubles
    low: Doubles


class Profiler:
    """Draws up profiles of the people a model knows; what everybody does is counted once.

    Only events and the items' categories, texts, languages and prices are read. Attributes of users are not part of a
    model, and whatever names a protected attribute (:data:`isthmus.recommender.protected.PROTECTED`) is left out.

    Parameters
    ----------
    model : Recommender
        Whose people and items.
    settings : ProfileSettings, optional
        How.

    Notes
    -----
    An interest's lift is the shrunk observed-to-expected ratio of Norén, Hopstadius & Bate, "Shrinkage
    observed-to-expected ratios for robust and transparent large-scale pattern discovery", Statistical Methods in
    Medical Research 22(1), 2013, with its Gamma interval. Observed is the person's items of it, each counted once with
    the weight of its strongest event relative to the mean of that platform; expected what as many items would give,
    platform by platform, if the person met what everybody meets there.
    """

    def __init__(self, model: Recommender, settings: ProfileSettings | None = None) -> None:
        self.model = model
        self.settings = settings or ProfileSettings()
        self.terms: Terms = terms_of(model, least=self.settings.persons)

    def profile(self, who: Who) -> Profile:
        """Return the profile of one person.

        Raises
        ------
        NotFoundError
            No such person or platform. An unknown user of a known platform gets an empty profile.
        """
        name, number, accounts = find_person(self.model, who)
        met = Met.of(self.model, number, self.terms.usual, self.settings)
        if met.items.size == 0:
            return Profile(name, accounts)
        return Profile(
            person=name,
            accounts=accounts,
            events=met.frame.height,
            items=met.items.size,
            first=met.first(),
            last=met.last(),
            interests=self._interests(met, None),
            platforms=self._platforms(met),
            languages=self._languages(met),
            hours=self._hours(met),
            periods=self._periods(met),
            lately=self._evidence(met, met.newest()),
        )

    @cached_property
    def _prices(self) -> pl.DataFrame:
        return prices(self.model.items)

    def _interests(self, met: Met, platform: int | None) -> tuple[Interest, ...]:
        """Return the surest interests of each kind, on one platform or all."""
        some = np.ones(met.items.size, bool) if platform is None else met.platform == platform
        part = met.take(some)
        found = self._standing_out(part)
        short, long = (self._share(part, found.columns, weights) for weights in (part.short, part.long))
        recent = part.short.sum()
        _, above, below = shrunk(recent * short, recent * long, 0.1)
        made = []
        for place, column in enumerate(found.columns.tolist()):
            trend: Trend = "rising" if above[place] > 1 else "falling" if below[place] < 1 else "steady"
            has = np.flatnonzero(self.terms.has[part.items][:, [column]].toarray().ravel())
            order = has[np.lexsort((-part.newest_ts[has], -part.long[has]))]
            made.append(
                Interest(
                    name=self.terms.names[column],
                    kind=self.terms.kinds[column],
                    items=has.size,
                    share=_round(found.observed[place] / part.weight.sum()),
                    lift=_round(found.lift[place]),
                    low=_round(found.low[place]),
                    short=_round(short[place]),
                    long=_round(long[place]),
                    trend=trend,
                    evidence=self._evidence(part, order),
                )
            )
        return tuple(made)

    def _standing_out(self, met: Met) -> _Found:
        """Return what was met more than by others: of each kind the surest first, of terms on the same items one."""
        rows = self.terms.has[met.items]
        every = np.unique(rows.indices)
        totals = np.bincount(met.platform, met.weight, minlength=len(self.terms.platforms))
        observed, expected = np.asarray(rows.T @ met.weight)[every], totals @ self.terms.base[:, every]
        more = observed > expected
        columns, observed, expected = every[more], observed[more], expected[more]
        lift, low, _ = shrunk(observed, expected, 0.025)
        marks = np.asarray(rows.T @ np.sqrt(np.arange(2, met.items.size + 2)))[columns]
        chosen: list[int] = []
        said: set[float | str] = set()
        for kind in ("category", "word"):
            bar = low if kind == "word" else lift  # of so many words some are met more by chance
            able = np.flatnonzero((bar > 1) & (self.terms.kinds_array[columns] == kind))
            wanted = len(chosen) + self.settings.interests
            for place in able[np.lexsort((able, -lift[able], -low[able]))].tolist():
                names = {round(float(marks[place]), 6), self.terms.names[columns[place]].casefold()}
                if len(chosen) < wanted and not said & names:
                    chosen.append(place)
                    said |= names
        some = np.array(chosen, dtype=np.int64)
        return _Found(columns[some], observed[some], lift[some], low[some])

    def _share(self, met: Met, columns: Ints, weights: Doubles) -> Doubles:
        """Return the share of ``weights`` (m,) that falls on items with each term, (len(columns),)."""
        share: Doubles = np.asarray(self.terms.has[met.items].T @ weights)[columns] / max(weights.sum(), 1e-12)
        return share

    def _evidence(self, met: Met, places: Ints) -> tuple[Evidence, ...]:
        """Return the strongest event on each of some items of the person, those that name nothing protected."""
        rows = self.model.items[met.items[places]]
        titles = rows.select(pl.coalesce("title", "item"))["title"]
        made: list[Evidence] = []
        hidden = names_protected(titles)
        for place, row, title, protected in zip(places, rows.iter_rows(named=True), titles, hidden, strict=True):
            if len(made) == self.settings.evidence:
                break
            if not protected:
                event = EVENTS[int(met.event[place])]
                made.append(Evidence(row["platform"], row["item"], title, event, met.date(int(place))))
        return tuple(made)

    def _platforms(self, met: Met) -> tuple[PlatformProfile, ...]:
        found = []
        for platform in np.unique(met.platform).tolist():
            some = met.platform == platform
            rows, weight = self.model.items[met.items[some]], met.weight[some]
            events = int(met.events_on(platform))
            found.append(
                PlatformProfile(
                    platform=self.terms.platforms[platform],
                    events=events,
                    items=int(some.sum()),
                    first=met.first(platform),
                    last=met.last(platform),
                    share=_round(events / met.frame.height),
                    domains=_shares(rows["domain"], weight),
                    languages=_shares(rows["lang"], weight),
                    price=self._price(met, platform),
                    interests=self._interests(met, platform),
                )
            )
        return tuple(sorted(found, key=lambda one: -one.events))

    def _languages(self, met: Met) -> dict[str, float]:
        return _shares(self.model.items["lang"].gather(met.items), met.weight)

    def _price(self, met: Met, platform: int) -> PriceRange | None:
        """Return the range of prices on a platform, and where its middle lies among what everybody meets there."""
        inside = self.terms.platform == platform
        table = self._prices.with_columns(weight=pl.Series(self.terms.weight), row=pl.int_range(pl.len()))
        table = table.filter(pl.Series(inside) & pl.col("price").is_not_null() & (pl.col("weight") > 0))
        mine = table.filter(pl.col("row").is_in(met.items.tolist()))
        named = mine["currency"].drop_nulls().mode().sort()
        currency = str(named[0]) if named.len() else None
        alike = pl.col("currency").is_null() | (pl.col("currency") == (currency or ""))
        mine, table = mine.filter(alike), table.filter(alike)
        if mine.is_empty():
            return None
        low, middle, high = (float(cast("float", mine["price"].quantile(q, "linear"))) for q in (0.1, 0.5, 0.9))
        weights = table["weight"].to_numpy()
        cheaper = float(weights[(table["price"] < middle).to_numpy()].sum() / weights.sum())
        return PriceRange(mine.height, round(low, 2), round(middle, 2), round(high, 2), currency, _round(cheaper))

    def _hours(self, met: Met) -> dict[str, float]:
        times = met.dated_times()
        if times.is_empty() or (times.dt.time() == time(0)).all():
            return {}
        counts = np.bincount(times.dt.hour().to_numpy() // 6, minlength=4) / times.len()
        return {name: _round(share) for name, share in zip(DAYTIMES, counts.tolist(), strict=True)}

    def _periods(self, met: Met) -> tuple[Period, ...]:
        found = []
        for name, items, weight, events in periods(met):
            best = self._standing_out(Met.plain(items, weight, self.terms.platform[items].astype(np.int64))).columns
            kind = self.terms.kinds[best[0]] if best.size else ""
            names = [self.terms.names[column] for column in best.tolist() if self.terms.kinds[column] == kind]
            found.append(Period(name, events, tuple(names[:3])))
        return tuple(found)


def profile(model: Recommender, who: Who, settings: ProfileSettings | None = None) -> Profile:
    """Return what ``model`` knows of one person's tastes; for many people make one :class:`Profiler`.

    Examples
    --------
    >>> from isthmus.data.corpus import Corpus
    >>> from isthmus.data.simulate import town_tables
    >>> from isthmus.split.temporal import Split
    >>> from isthmus.train.fit import FitSettings
    >>> split = Split.make(Corpus.from_tables(town_tables(seed=1, persons=60), name="town"))
    >>> model = Recommender.fit(split, targets=["films"], settings=FitSettings(methods=("popularity",)))
    >>> platform, user = model.content.people.accounts.row(0)[:2]
    >>> found = profile(model, Who(account=(platform, user)))
    >>> found.events > 0, [one.kind for one in found.interests[:1]]
    (True, ['category'])
    """
    return Profiler(model, settings).profile(who)


def _shares(values: pl.Series, weight: Doubles) -> dict[str, float]:
    """Return the share of each value that is not null, the largest first."""
    frame = (
        pl.DataFrame({"value": values, "weight": weight})
        .drop_nulls("value")
        .group_by("value")
        .agg(pl.col("weight").sum())
    )
    frame = frame.sort(["weight", "value"], descending=[True, False])
    total = float(frame["weight"].sum())
    return {str(value): _round(share / total) for value, share in frame.iter_rows()}


def _round(value: float) -> float:
    return round(float(value), 4)
