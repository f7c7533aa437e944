"""Lists: from scores to what is shown, under the rules for consents, editions of one work, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.evaluate.ranks import top_k
from isthmus.log import progress
from isthmus.model.base import Doubles, Places
from isthmus.model.fresh import Exploration, expected
from isthmus.recommender.calibration import calibrated
from isthmus.recommender.consents import Bans, Cube, allowed_for, conform_consents, with_consents
from isthmus.recommender.items import exposures
from isthmus.recommender.newcomers import Told
from isthmus.recommender.people import People
from isthmus.recommender.store import Content
from isthmus.recommender.themes import Themes, shares
from isthmus.recommender.works import work_codes
from isthmus.train.fit import Target
from isthmus.types import Bools, Floats, Indices, Ints

#: Persons scored at a time.
BLOCK: Final = 512
#: Candidates of a list where a rule may take some away: so many times its length, at least so many.
DEEPER: Final = 5
DEEP: Final = 50
#: So many events of a person on a platform count as much as those on all platforms, in calibration.
LEAN: Final = 5.0


@dataclass(frozen=True)
class Rules:
    """What lists have to keep to, besides showing the best first.

    Parameters
    ----------
    by_platform : bool
        One list for each platform that carries a domain; else one for each domain.
    works : polars.DataFrame, optional
        Pairs of items that are one work (:func:`isthmus.recommender.works.find_works`): a person's lists hold one
        edition of a work.
    met_elsewhere : bool
        Whether an edition of a work that the person met already may be listed.
    consents : polars.DataFrame, optional
        What people say now, on top of what the model keeps (:mod:`isthmus.recommender.consents`).
    calibrate : float
        Weight of the person's shares of themes, 0 to 1 (:mod:`isthmus.recommender.calibration`).
    explore : Exploration, optional
        Bonus and cap of new items.
    shown : polars.DataFrame, optional
        platform, item, shown: how often new items were shown so far, for the bonus to fade.
    """

    by_platform: bool = False
    works: pl.DataFrame | None = None
    met_elsewhere: bool = False
    consents: pl.DataFrame | None = None
    calibrate: float = 0.0
    explore: Exploration | None = None
    shown: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        """Refuse a weight outside 0..1."""
        if not 0 <= self.calibrate <= 1:
            raise InputError(f"weight {self.calibrate} of calibration", fix="give a number from 0 to 1")


@dataclass(frozen=True)
class Shelf:
    """What one list is made from.

    Parameters
    ----------
    domain : str
        Target domain.
    columns : int64 array
        Columns of the target's scores.
    platforms : int64 array
        Codes of the platforms the columns are on.
    """

    domain: str
    columns: Ints
    platforms: Ints


@dataclass
class Candidates:
    """The best of one shelf for ``B`` persons: item numbers (B, C), best first, -1 for none; and their scores."""

    shelf: Shelf
    items: Indices
    scores: Floats


class Lister:
    """Makes lists for persons of ``people`` with what ``content`` learned."""

    def __init__(
        self, content: Content, people: People, rules: Rules, *, k: int, exclude_seen: bool, domains: Sequence[str]
    ) -> None:
        self.content, self.people, self.rules, self.k, self.exclude_seen = content, people, rules, k, exclude_seen
        self.domains = list(domains)
        self.told: Told | None = None
        places = content.features.places or Places.of(content.items)
        self.platform: Ints = places.platform.astype(np.int64)
        said = people.consents
        if rules.consents is not None:
            said = with_consents(said, people.hidden(conform_consents(rules.consents, places.platforms)))
        self.bans = Bans.of(said, people.accounts, places.platforms)
        self.works: Ints | None = None if rules.works is None else work_codes(rules.works, content.items)

    @cached_property
    def themes(self) -> Themes:
        """What items are about."""
        return Themes.of(self.content.items, self.content.features)

    @cached_property
    def exposures(self) -> Ints:
        """How often each item was shown, (N,)."""
        return exposures(self.rules.shown, self.content.items)

    @cached_property
    def shelves(self) -> list[Shelf]:
        """What lists are made from, one a list."""
        found = []
        for domain in self.domains:
            platform = self.platform[self.content.targets[domain].items]
            codes = np.unique(platform)
            groups = [np.array([code]) for code in codes] if self.rules.by_platform else [codes]
            found += [Shelf(domain, np.flatnonzero(np.isin(platform, group)), group) for group in groups]
        return found

    def lists(self, persons: Ints) -> pl.DataFrame:
        """Return person, domain, item (number), rank, score of all lists of ``persons`` (sorted, unique)."""
        histories = Histories.from_frame(self.people.events, persons)
        tables = [self._frame(persons[:0], [])]
        with progress("recommend", persons.size) as advance:
            for start in range(0, persons.size, BLOCK):
                some = np.arange(start, min(start + BLOCK, persons.size))
                tables.append(self._block(persons[some], histories.take(some)))
                advance(some.size)
        return pl.concat(tables)

    def _block(self, persons: Ints, histories: Histories) -> pl.DataFrame:
        denied = self.bans.of_persons(persons)
        told = None if self.told is None else self.told.rows(persons, silent=np.asarray(denied.any(axis=(1, 2))))
        ready = []
        for domain in self.domains:
            scores = self._scores(self.content.targets[domain], histories, denied, told)
            ready += self._candidates(domain, scores, histories, denied)
        if self.works is not None:
            self._one_edition(ready, denied)
        return self._frame(persons, [self._cut(found, histories, denied) for found in ready])

    def _candidates(self, domain: str, scores: Floats, histories: Histories, denied: Cube) -> list[Candidates]:
        target = self.content.targets[domain]
        if self.exclude_seen:
            self._exclude(target, scores, histories, denied)
        plain = self.works is None and not self.rules.calibrate
        wanted = self.k if plain else max(DEEPER * self.k, DEEP)
        found = []
        hopes = None if self.rules.explore is None else expected(target.methods, target.new)
        for shelf in (shelf for shelf in self.shelves if shelf.domain == domain):
            own = scores if shelf.columns.size == scores.shape[1] else scores[:, shelf.columns]
            if self.rules.explore is not None and hopes is not None:
                new, times = target.new[shelf.columns], self.exposures[target.items[shelf.columns]]
                own = self.rules.explore.apply(np.ascontiguousarray(own), new, times, hopes[shelf.columns])
            top = top_k(own, min(wanted, shelf.columns.size))
            best = np.where(top >= 0, np.take_along_axis(own, np.maximum(top, 0), axis=1), -np.inf).astype(np.float32)
            items = np.where(top >= 0, target.items[shelf.columns[np.maximum(top, 0)]], -1).astype(np.int32)
            found.append(Candidates(shelf, items, best))
        return found

    def _scores(self, target: Target, histories: Histories, denied: Cube, told: pl.DataFrame | None) -> Floats:
        """Return the scores (B, T): those of items on a platform come from the events allowed for it, and no others."""
        place = self.platform[target.items]
        codes = np.unique(place)
        free = ~denied[:, :, codes].any(axis=(1, 2))
        if free.all():
            return self._said(target, histories, told)
        scores = np.empty((len(histories), target.items.size), np.float32)
        if free.any():
            own = np.flatnonzero(free)
            scores[free] = self._said(target, histories.take(own), None if told is None else told[own])
        bound = np.flatnonzero(~free)
        some = histories.take(bound)
        for code in codes:
            kept = some.keep(allowed_for(some, denied[bound], self.platform, np.array([code])))
            columns = np.flatnonzero(place == code)
            said = self._said(target, kept, None if told is None else told[bound])
            scores[np.ix_(bound, columns)] = said[:, columns]
        return scores

    def _said(self, target: Target, histories: Histories, told: pl.DataFrame | None) -> Floats:
        """Return what the blend says, and to those without any event what people alike meet, (B, T)."""
        scores = target.blend.score(target.methods, histories, target.new)
        newcomers = self.content.newcomers
        return scores if newcomers is None or told is None else newcomers.lift(target, scores, histories, told)

    def _exclude(self, target: Target, scores: Floats, histories: Histories, denied: Cube) -> None:
        """Take out what a person met: the item itself, and editions of its work."""
        column = np.searchsorted(target.items, histories.items)
        column[column == target.items.size] = 0
        code = self.platform[histories.items]
        seen = (target.items[column] == histories.items) & ~denied[histories.rows, code, code]
        scores[histories.rows[seen], column[seen]] = -np.inf
        if self.works is None or self.rules.met_elsewhere:
            return
        met = pl.DataFrame({"row": histories.rows, "work": self.works[histories.items], "start": code}).unique()
        work, place = self.works[target.items], self.platform[target.items]
        offered = pl.DataFrame({"work": work, "column": np.arange(work.size), "stop": place})
        both = met.join(offered, on="work")
        row, column = both["row"].to_numpy(), both["column"].to_numpy()
        allowed = ~denied[row, both["start"].to_numpy(), both["stop"].to_numpy()]
        scores[row[allowed], column[allowed]] = -np.inf

    def _one_edition(self, ready: list[Candidates], denied: Cube) -> None:
        """Keep the best placed edition of each work of each person, over all lists.

        A list must not tell what another one is made from: it yields to another list only if all events that the
        other may use are allowed to it too.
        """
        assert self.works is not None
        frames = []
        for number, found in enumerate(ready):
            rows, places = np.nonzero(found.items >= 0)
            item = found.items[rows, places]
            columns = {"row": rows, "work": self.works[item], "rank": places, "code": self.platform[item]}
            frames.append(pl.DataFrame(columns).with_columns(list=pl.lit(number)))
        entries = pl.concat(frames)
        entries = entries.filter(pl.len().over("row", "work") > 1)
        pairs = entries.join(entries, on=["row", "work"], suffix="_other")
        same = (pl.col("list") == pl.col("list_other")) & (pl.col("rank") == pl.col("rank_other"))
        pairs = pairs.filter(~same)
        row, code, other = (pairs[name].to_numpy() for name in ("row", "code", "code_other"))
        hidden, hidden_other = denied[row, :, code], denied[row, :, other]
        sees, seen = (hidden_other >= hidden).all(axis=1), (hidden >= hidden_other).all(axis=1)
        better = pairs.select(
            (pl.col("rank_other") < pl.col("rank"))
            | ((pl.col("rank_other") == pl.col("rank")) & (pl.col("list_other") < pl.col("list")))
        ).to_series()
        gone = pairs.filter(pl.Series(sees & (better.to_numpy() | ~seen)))
        for number, found in enumerate(ready):
            some = gone.filter(list=number)
            found.items[some["row"].to_numpy(), some["rank"].to_numpy()] = -1
            found.scores[some["row"].to_numpy(), some["rank"].to_numpy()] = -np.inf

    def _cut(self, found: Candidates, histories: Histories, denied: Cube) -> Candidates:
        """Return the ``k`` of the candidates that are shown."""
        there = found.items >= 0
        if self.rules.calibrate and self.themes.names:
            carried = self.themes.carried(self.content.targets[found.shelf.domain].items[found.shelf.columns])
            kept = histories.keep(allowed_for(histories, denied, self.platform, found.shelf.platforms))
            taste = shares(self.taste(kept, found.shelf) * carried)
            flat = self.themes.rows[np.maximum(found.items, 0).ravel()].toarray()
            shape = (*found.items.shape, len(self.themes.names))
            order = calibrated(found.scores, flat.reshape(shape), taste, self.k, self.rules.calibrate)
        else:
            order = np.argsort(~there, axis=1, kind="stable")[:, : self.k].astype(np.int32)
        valid: Bools = order >= 0
        place = np.maximum(order, 0)
        items = np.where(valid, np.take_along_axis(found.items, place, axis=1), -1).astype(np.int32)
        scores = np.take_along_axis(found.scores, place, axis=1)
        return Candidates(found.shelf, items, scores)

    def taste(self, kept: Histories, shelf: Shelf) -> Doubles:
        """Return the shares of themes for a shelf, (B, G): of what was met there, and else in all.

        The mean of both, weighed by the events met there against :data:`LEAN`: what a person likes on another platform
        says little where the person's own events tell.
        """
        there = np.isin(self.platform[kept.items], shelf.platforms)
        own = kept.keep(there)
        weight = (own.lengths / (own.lengths + LEAN))[:, None]
        mixed: Doubles = weight * self.themes.tastes(own) + (1 - weight) * self.themes.tastes(kept)
        return mixed

    def _frame(self, persons: Ints, ready: list[Candidates]) -> pl.DataFrame:
        tables = [pl.DataFrame(schema=_FRAME)]
        for found in ready:
            rows, places = np.nonzero(found.items >= 0)
            columns = {
                "person": persons[rows],
                "domain": np.full(rows.size, found.shelf.domain, dtype=object),
                "index": found.items[rows, places],
                "rank": places + 1,
                "score": found.scores[rows, places],
            }
            tables.append(pl.DataFrame(columns, schema=_FRAME))
        return pl.concat(tables)


_FRAME: Final = {
    "person": pl.UInt32(),
    "domain": pl.String(),
    "index": pl.Int32(),
    "rank": pl.Int32(),
    "score": pl.Float32(),
}
