"""One list at a time and many together: what is asked for, and the work of a scorer's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.model.fresh import Exploration
from isthmus.recommender.facade import NOT_ABOUT_ITEMS
from isthmus.recommender.shortlist import Sieve, Wanted
from isthmus.service.lists.items import Account, Filters
from isthmus.service.lists.live import Asked, Live, Top, clock, ranked, scores_of
from isthmus.types import EVENT_WEIGHTS, EVENTS, Bools, EventName, Floats, Indices

#: Length of the lists that are kept ready.
WIDE: Final = 100
#: Scores of one block, at most: persons times items.
BLOCK: Final = 4_000_000
#: Persons scored together, at most.
TOGETHER: Final = 64


@dataclass(frozen=True)
class Ask:
    """One list.

    Parameters
    ----------
    account : (str, str)
        Whose: platform and user.
    domain : str
        What of.
    k : int
        Length.
    exclude_seen : bool
        Whether items of the history are left out.
    left_out : frozenset of (str, str)
        Other items left out: platform and item.
    filters : Filters
        Which items may be listed.
    explore : float, optional
        Share of the places that new items get at most.
    bonus : float
        That they get besides.
    context : tuple of (str, str, str)
        What the person met besides the history, the newest last: platform, item, event word.
    shown : tuple of str
        Platforms it is shown on, where it has items of others; see :meth:`~isthmus.service.lists.live.bound`.
    """

    account: Account
    domain: str
    k: int = 10
    exclude_seen: bool = True
    left_out: frozenset[Account] = frozenset()
    filters: Filters = field(default_factory=Filters)
    explore: float | None = None
    bonus: float = 0.0
    context: tuple[tuple[str, str, EventName], ...] = ()
    shown: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether a list that is kept ready can answer."""
        usual = self.exclude_seen and not (self.filters or self.context or self.shown)
        return usual and self.k + len(self.left_out) <= WIDE

    def cut(self, top: Top) -> Top:
        """Return the part of ``top`` that is asked for."""
        if self.left_out:
            top = top.keep(~np.isin(top.rows, self.rows(top.live)))
        if self.explore is not None:
            cap = Exploration.of_share(self.explore, self.k).cap or 0
            top = top.keep(top.live.tries(self.domain).under(top.rows, cap))
        return top.keep(slice(self.k))

    def exploration(self, k: int) -> Exploration | None:
        """Return how a list of ``k`` items tries out new ones."""
        return None if self.explore is None else Exploration.of_share(self.explore, k, bonus=self.bonus)

    def person(self, live: Live) -> int | None:
        """Return the person; None for somebody never seen."""
        return live.state.person(*self.account)

    def asked(self, live: Live) -> Asked:
        """Return the person, and what that person did with the context at its end."""
        asked = live.ask([self.person(live)])
        history = longer(asked.histories, self.met(live)) if self.context else asked.histories
        return Asked(asked.persons, history, self.shown)

    def met(self, live: Live) -> list[tuple[int, EventName]]:
        """Return the rows of the context's items with their event words, those that are known and count."""
        names = live.shelf.names
        found = ((names.get((platform, item)), event) for platform, item, event in self.context)
        return [(row, event) for row, event in found if row is not None and EVENT_WEIGHTS[event]]

    def seen(self, live: Live) -> set[int]:
        """Return the rows of the items that are left out because the person met them."""
        if not self.exclude_seen:
            return set()
        met, platforms = live.state.met(self.person(live)), live.shelf.platforms
        told = {row for row in met if platforms[row] in self.shown} if self.shown else met
        return told | {row for row, _ in self.met(live)}

    def rows(self, live: Live) -> list[int]:
        """Return the rows of the items left out."""
        names = live.shelf.names
        return [names[name] for name in self.left_out if name in names]


def longer(history: Histories, met: Sequence[tuple[int, EventName]]) -> Histories:
    """Return the history of one person with items met just now at its end."""
    more = len(met)
    return Histories(
        np.array([0, history.items.size + more], np.int64),
        np.concatenate([history.items, np.array([row for row, _ in met], np.int32)]),
        np.concatenate([history.weights, np.array([EVENT_WEIGHTS[event] for _, event in met], np.float32)]),
        np.concatenate([history.ts, clock() + np.arange(more, dtype=np.int64)]),
        np.concatenate([history.events, np.array([EVENTS.index(event) for _, event in met], np.int8)]),
    )


def room(live: Live, domain: str) -> int:
    """Return how many persons make a block."""
    return int(np.clip(BLOCK // max(live.scorer(domain).items.size, 1), 1, TOGETHER))


def wide(live: Live, domain: str, asked: Asked, explore: Exploration | None = None) -> list[Top]:
    """Return the lists that are kept ready, of several persons."""
    return live.rank(domain, asked, WIDE, sieve=listable(live), explore=explore)


def one(live: Live, ask: Ask, asked: Asked) -> Top:
    """Return a list that is filtered or long."""
    here = listable(live)

    def sieve(rows: Indices) -> Bools | None:
        mask = here(rows)
        if not (ask.filters or ask.left_out):
            return mask
        allowed = np.ones(rows.size, dtype=bool) if mask is None else mask.copy()
        if ask.filters:
            allowed &= live.shelf.filtered(ask.filters)[rows]
        if ask.left_out:
            allowed &= ~np.isin(rows, ask.rows(live))
        return allowed

    how = ask.exploration(ask.k)
    return live.rank(ask.domain, asked, ask.k, sieve=sieve, exclude_seen=ask.exclude_seen, explore=how)[0]


def unmet(live: Live, ask: Ask, top: Top) -> Top:
    """Return as much as is asked for of a list made before, less what may not be listed; its beginning comes first."""
    seen, enough, now = ask.seen(live), ask.k + len(ask.left_out), clock()
    beginning = [] if ask.filters or ask.explore is not None else [enough + len(seen)]
    kept = top
    for length in (*beginning, top.rows.size):
        rows = top.rows[:length]
        keep = np.fromiter((row not in seen for row in rows.tolist()), bool, rows.size)
        allowed = live.shelf.listable(rows, now)
        if allowed is not None:
            keep &= allowed
        if ask.filters:
            keep &= live.shelf.filtered(ask.filters)[rows]
        kept = Top(rows[keep], top.scores[:length][keep], top.live)
        if kept.rows.size >= enough:
            break
    return kept


def alike(live: Live, domain: str, row: int, k: int) -> Top:
    """Return what goes best with an item: the list of somebody who met it alone, popularity aside."""
    history = Histories.of([[row]])
    blend = live.scorer(domain).target.blend.without(NOT_ABOUT_ITEMS)
    return ranked(live, domain, history, Wanted(k, history, listable(live)), blend)[0]


def listable(live: Live) -> Sieve:
    """Return what says which items may be listed now."""
    now = clock()
    return lambda rows: live.shelf.listable(rows, now)


def without_each(live: Live, domain: str, history: Histories, rows: Sequence[int]) -> Floats:
    """Return the scores of ``rows`` with the whole history, and without each of its items, (H + 1, R)."""
    size = history.items.size
    versions = history.take(np.zeros(size + 1, np.int64))
    items = np.broadcast_to(history.items, (size + 1, size))
    kept = np.ones(items.shape, dtype=bool)
    kept[1:] = items[1:] != history.items[:, None]
    return scores_of_versions(live, domain, versions.keep(kept.ravel()), rows)


def scores_of_versions(live: Live, domain: str, versions: Histories, rows: Sequence[int]) -> Floats:
    """Return the scores of ``rows`` for versions (P) of the history of one person, (P, R)."""
    items, places = np.asarray(rows, np.int32), np.arange(len(versions))
    step = room(live, domain)
    blocks = [places[start : start + step] for start in range(0, places.size, step)]
    return np.concatenate([scores_of(live, domain, versions.take(block), items) for block in blocks])
