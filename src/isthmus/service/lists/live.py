"""One version of a model at work: its scorers, its items, and the state of the people; replaced as a whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.data.tables import conform
from isthmus.errors import ArtefactError, NotFoundError, nearest
from isthmus.evaluate.ranks import top_k
from isthmus.model.base import Places
from isthmus.model.blend import Blend
from isthmus.model.fresh import Exploration
from isthmus.recommender import Recommender
from isthmus.recommender.items import lengthened
from isthmus.recommender.serving import Scorer
from isthmus.recommender.shortlist import Shortlist, Sieve, Wanted
from isthmus.service.lists.items import Account, Shelf, domain_of, items_frame, note
from isthmus.service.lists.state import State
from isthmus.service.lists.tries import Tries
from isthmus.service.lock.consents import Consents, Uses
from isthmus.service.log.records import Record
from isthmus.types import Bools, Floats, Indices, Ints

#: Items of the list of somebody unknown that are kept at hand.
POPULAR = 1000


@dataclass(frozen=True)
class Top:
    """The best items of a domain for one person.

    Parameters
    ----------
    rows : int32 array (L,)
        Items, best first.
    scores : float32 array (L,)
        What the blend says.
    live : Live
        The model, whose items the rows count.
    """

    rows: Indices
    scores: Floats
    live: Live

    @cached_property
    def json(self) -> bytes:
        """The items as JSON, commas between them."""
        return b",".join(self.live.shelf.jsons(self.rows))

    def keep(self, places: Bools | slice) -> Top:
        """Return the list with some places only."""
        return Top(self.rows[places], self.scores[places], self.live)


@dataclass(frozen=True)
class Asked:
    """Persons for whom lists are made.

    Parameters
    ----------
    persons : int64 array (B,)
        Their numbers; -1 for somebody never seen.
    histories : Histories
        What they did.
    shown : sequence of str
        Platforms the lists are shown on, see :func:`bound`; none in particular by default.
    """

    persons: Ints
    histories: Histories
    shown: Sequence[str] = ()


@dataclass(frozen=True)
class Version:
    """Which model answers.

    Parameters
    ----------
    name : str
        Folder of the model.
    digest : str
        Beginning of the SHA-256 of its manifest, which names the checksum of every file.
    """

    name: str
    digest: str


@dataclass(frozen=True)
class LiveRules:
    """What a model at work keeps to.

    Parameters
    ----------
    consent_required : bool
        The rule of :class:`~isthmus.service.lock.consents.Consents`.
    large : int, optional
        Items from which on lists of a domain are made from a shortlist; None for never.
    """

    consent_required: bool = False
    large: int | None = None


class Live:
    """A model, with what the log says about items and people.

    Parameters
    ----------
    base : Recommender
        The model as it was opened.
    version : Version
        Its name.
    shown : Recommender
        The model with the items that came since.
    shelf : Shelf
        The items.
    state : State
        The people.
    added : dict of (str, str) to str
        Items that came since, as JSON.
    """

    def __init__(
        self,
        base: Recommender,
        version: Version,
        shown: Recommender,
        shelf: Shelf,
        state: State,
        added: dict[Account, str],
    ) -> None:
        self.base, self.version, self.shown = base, version, shown
        self.shelf, self.state, self.added = shelf, state, added
        self.scorers = {domain: Scorer(target) for domain, target in shown.targets.items()}
        self.seq, self.edition = 0, 0
        self.large: int | None = None
        self.shortlists: dict[str, Shortlist] = {}
        self._popular: dict[str, tuple[Indices, Floats]] = {}
        self._tries: dict[str, Tries] = {}
        self._came: dict[Account, str] = {}
        self._sides: dict[str, Ints] = {}

    @cached_property
    def _places(self) -> Places:
        return self.shown.features.places or Places.of(self.shown.items)

    @cached_property
    def uses(self) -> Uses:
        """Which events may be used for which lists."""
        return Uses(self.base.content.people, self._places.platforms, self.state.consents)

    @classmethod
    def build(
        cls,
        base: Recommender,
        version: Version,
        records: Iterable[Sequence[Record]],
        secret: bytes,
        rules: LiveRules,
    ) -> Live:
        """Return the model at the end of ``records``: the log replayed from its beginning.

        Raises
        ------
        ArtefactError
            The model gives no finite scores.
        """
        added: dict[Account, str] = {}
        removed: set[Account] = set()
        known = Shelf(base.items, removed)
        state = State(base.content.people, known.names, known.platforms, secret)
        state.consents = Consents(required=rules.consent_required)
        seq = 0
        for some in records:
            for record in some:
                note(record.entry, added, removed)
                state.apply(record.entry)
                seq = record.seq
        made = cls._with(base, version, state, {k: v for k, v in added.items() if k not in known.names}, known)
        made.seq = seq
        made.check()
        made.large, made.shortlists = rules.large, _shortlists(made, rules.large, {})
        return made

    @classmethod
    def _with(cls, base: Recommender, version: Version, state: State, added: dict[Account, str], known: Shelf) -> Live:
        fitting = [(name, body) for name, body in added.items() if domain_of(body) in known.domains]
        shown = base.add_items(items_frame(fitting)) if fitting else base
        shelf = Shelf(shown.items, known.removed, before=known)
        for name in known.removed:
            shelf.show(name, shown=False)
        state.names, state.platforms = shelf.names, shelf.platforms
        state.came([name for name, _ in fitting])
        return cls(base, version, shown, shelf, state, added)

    def extended(self, items: dict[Account, str]) -> Live:
        """Return the model with more items, none of them known; how long that takes depends on them, not on the others.

        What is known of the others is shared; the state counts the new ones in after :meth:`adopt`.
        """
        new = conform("items", items_frame(list(items.items())), where="new items")
        shown = Recommender(lengthened(self.shown.content, new))
        shelf = Shelf(shown.items, self.shelf.removed, before=self.shelf)
        longer = Live(self.base, self.version, shown, shelf, self.state, self.added)
        longer._came = items
        if longer._places.platforms == self._places.platforms:
            longer.uses = self.uses
        longer.large, longer.shortlists = self.large, _shortlists(longer, self.large, self.shortlists)
        for domain in self.scorers:
            longer.scorers[domain].follow(self.scorers[domain])
        for domain in self._popular:
            longer.popular(domain)
        return longer

    def adopt(self, before: Live) -> list[int]:
        """Make the shared state count in the items of this one; return the persons whose history grew."""
        self.added.update(self._came)
        self.state.names, self.state.platforms = self.shelf.names, self.shelf.platforms
        self.seq = before.seq
        for domain, tries in before._tries.items():
            self.tries(domain).carry(tries)
        return self.state.came(self._came)

    def show(self, name: Account, *, shown: bool) -> None:
        """Put an item on the lists, or take it off."""
        self.shelf.show(name, shown=shown)
        for shortlist in self.shortlists.values() if name in self.shelf.names else ():
            shortlist.show(self.shelf.names[name], shown=shown)
        self.edition += 1

    @property
    def domains(self) -> list[str]:
        """Domains lists can be asked for."""
        return sorted(self.scorers)

    def scorer(self, domain: str) -> Scorer:
        """Return the scorer of a domain."""
        found = self.scorers.get(domain)
        if found is None:
            known = self.domains
            fix = f"domains: {', '.join(known)}"
            raise NotFoundError(f"the model has no target domain '{domain}'{nearest(domain, known)}", fix=fix)
        return found

    def row(self, platform: str, item: str) -> int:
        """Return the row of an item."""
        found = self.shelf.names.get((platform, item))
        if found is None:
            raise NotFoundError(f"no item '{platform}:{item}'", where="items", fix="GET /v1/items?q=WORDS finds items")
        return found

    def ask(self, persons: Sequence[int | None]) -> Asked:
        """Return persons and what they did; None is somebody never seen."""
        numbers = np.array([-1 if person is None else person for person in persons], np.int64)
        return Asked(numbers, self.state.batch(persons))

    def _sides_of(self, domain: str) -> Ints:
        """Return the platforms of the items of a domain, as numbers."""
        if domain not in self._sides:
            self._sides[domain] = np.unique(self._platform[self.scorer(domain).items])
        return self._sides[domain]

    def heard(self, domain: str, asked: Asked) -> Histories:
        """Return the events that may be used for lists of ``domain``, as :class:`Uses` says.

        A list that spans platforms uses only what is allowed for all of them, and one of other platforms than those it
        is ``shown`` on only what is allowed there too.
        """
        return self.uses.used(asked.persons, asked.histories, self._platform, self._sides_of(domain), asked.shown)

    @cached_property
    def _platform(self) -> Ints:
        return self._places.platform.astype(np.int64)

    def tries(self, domain: str) -> Tries:
        """Return the new items of a domain."""
        if domain not in self._tries:
            self._tries[domain] = Tries(self.scorer(domain).target)
        return self._tries[domain]

    def rank(
        self,
        domain: str,
        asked: Asked,
        k: int,
        *,
        sieve: Sieve | None,
        exclude_seen: bool = True,
        explore: Exploration | None = None,
    ) -> list[Top]:
        """Return the best ``k`` items of ``domain`` for each person; ``sieve`` says which items may be listed.

        Whoever gets a list that is shown on some platforms is not told what was seen on others: it is not left out.
        """
        lift = None if explore is None else partial(self.tries(domain).lifted, explore)
        seen = visible(self, asked.histories, asked.shown) if asked.shown else asked.histories
        wanted = Wanted(k, seen if exclude_seen else None, sieve, lift)
        return ranked(self, domain, self.heard(domain, asked), wanted)

    def popular(self, domain: str) -> Top:
        """Return the list of somebody unknown, whether its items may be listed now or not; made once.

        Only arrays are kept: a list knows its model, and a circle would keep an old model in memory.
        """
        if domain not in self._popular:
            top = self.rank(domain, self.ask([None]), POPULAR, sieve=None)[0]
            self._popular[domain] = top.rows, top.scores
        return Top(*self._popular[domain], self)

    def check(self) -> None:
        """Refuse a model that cannot rank."""
        for domain in self.domains:
            top = self.popular(domain)
            some = Histories.of([top.rows[:3].tolist()])
            finite = np.isfinite(top.scores).all() and not np.isnan(self.scorers[domain].score(some)).any()
            if not finite or not top.rows.size:
                raise ArtefactError(f"ranks nothing in '{domain}'", where=self.version.name, fix="fit it again")


def bound(live: Live, domain: str, platforms: Sequence[str]) -> tuple[str, ...]:
    """Return where a list is shown: on the ``platforms`` its asker has, if it has items of others; else ``()``."""
    names = live._places.platforms
    return tuple(platforms) if any(names[side] not in platforms for side in live._sides_of(domain)) else ()


def visible(live: Live, histories: Histories, platforms: Sequence[str]) -> Histories:
    """Return what happened on some platforms."""
    codes = [code for code, name in enumerate(live._places.platforms) if name in platforms]
    return histories.keep(np.isin(live._platform[histories.items], codes))


def ranked(live: Live, domain: str, heard: Histories, wanted: Wanted, blend: Blend | None = None) -> list[Top]:
    """Return the best items of ``domain`` for the histories ``heard``: from a shortlist where there is one.

    ``blend`` weighs the methods, that of the model by default.
    """
    shortlist = live.shortlists.get(domain)
    if shortlist is None:
        return scored(live, domain, heard, wanted, blend)
    items, tops = shortlist.columns.items, []
    for place, picked in enumerate(shortlist.pick(heard, wanted, blend)):
        if picked is None:
            one = np.array([place])
            met = None if wanted.met is None else wanted.met.take(one)
            tops += scored(live, domain, heard.take(one), replace(wanted, met=met), blend)
        else:
            tops.append(Top(items[picked.columns], picked.scores, live))
    return tops


def scored(live: Live, domain: str, heard: Histories, wanted: Wanted, blend: Blend | None = None) -> list[Top]:
    """Return the same from the scores of all items."""
    scorer = live.scorer(domain)
    scores, items = scorer.score(heard, blend), scorer.items
    if wanted.met is not None:
        scorer.seen(wanted.met, scores)
    mask = None if wanted.sieve is None else wanted.sieve(items)
    if mask is not None:
        scores[:, ~mask] = -np.inf
    if wanted.lift is not None:
        scores = wanted.lift(scores, np.arange(items.size))
    kept = [row[row >= 0] for row in top_k(scores, min(wanted.k, items.size))]
    return [Top(items[columns], scores[n, columns], live) for n, columns in enumerate(kept)]


def scores_of(live: Live, domain: str, histories: Histories, rows: Indices) -> Floats:
    """Return the scores of some items, (B, R), for the histories as they are."""
    columns = np.searchsorted(live.scorer(domain).items, rows)
    shortlist = live.shortlists.get(domain)
    if shortlist is not None:
        return shortlist.at(histories, columns)
    return live.scorer(domain).at(histories, columns)


def _shortlists(live: Live, large: int | None, before: Mapping[str, Shortlist]) -> dict[str, Shortlist]:
    """Return the shortlists of domains with ``large`` items or more; what was made ``before`` is used again.

    Scorers of the others are made ready: their first list does not wait for that.
    """
    made = {}
    for domain, scorer in live.scorers.items():
        if large is not None and scorer.items.size >= large:
            made[domain] = Shortlist(scorer.target, before.get(domain), live.shelf.off(scorer.items))
        else:
            scorer.make_ready()
    return made


def clock() -> int:
    """Return the time in microseconds since 1970."""
    return time.time_ns() // 1000
