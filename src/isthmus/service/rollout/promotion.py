"""The promotion gate: what a model must show before it answers everybody, each point with its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np

from isthmus.service.lists.items import Account
from isthmus.service.lists.lister import Lister
from isthmus.service.lists.live import Asked, Live, Top, clock
from isthmus.service.lists.scoring import listable
from isthmus.types import Indices

#: Persons whose lists are looked at.
SAMPLE: Final = 500
#: Newest events of as many persons that lists are held against, of each domain.
HELD_OUT: Final = 2000
#: Events without which nothing is said about the quality of lists.
ENOUGH: Final = 30
#: Length of the lists.
K: Final = 10
#: Share of the items listed now that the model must know.
KNOWN: Final = 0.9
#: Share of the different items listed now that its lists must hold.
DIFFERENT: Final = 0.5
#: Standard errors, and share of NDCG, that the model may be worse by.
NOISE: Final = 2.0
LOSS: Final = 0.02
_TOGETHER: Final = 8
T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """One point that was looked at.

    Parameters
    ----------
    name : str
        ``finite``, ``domains``, ``catalogue``, ``variety`` or ``ndcg``.
    domain : str
        Of which domain; empty for the whole model.
    passed : bool
        Whether it is as it must be; also where too little is known to say.
    said : str
        What was found.
    figures : dict of str to float
        What it rests on.
    """

    name: str
    domain: str
    passed: bool
    said: str
    figures: dict[str, float] = field(default_factory=dict)


class Held(NamedTuple):
    """An event that lists are held against."""

    account: Account
    ts: int
    item: Account


@dataclass(frozen=True)
class Side:
    """A model, and whose turn its scores wait for."""

    live: Live
    lister: Lister

    async def tops(self, domain: str, asked: Asked) -> list[Top]:
        """Return lists, scored between those of others."""
        live = self.live
        return await self.lister.aside(partial(live.rank, domain, asked, K, sieve=listable(live)))


async def judge(active: Side, candidate: Side) -> list[Check]:
    """Return what a candidate shows beside the model that answers."""
    lacking = [domain for domain in active.live.domains if domain not in candidate.live.scorers]
    said = f"lacks {', '.join(lacking)}" if lacking else "knows all"
    checks = [Check("domains", "", not lacking, said)]
    for domain in active.live.domains:
        if domain not in lacking:
            checks.append(await asyncio.to_thread(_catalogue, active.live, candidate.live, domain))
            checks += await _lists(active, candidate, domain)
            checks.append(await _quality(active, candidate, domain))
    return checks


def _catalogue(active: Live, candidate: Live, domain: str) -> Check:
    """Look for items that could be listed no more."""
    shelf, rows = active.shelf, active.scorer(domain).items
    allowed = shelf.listable(rows, clock())
    now = rows if allowed is None else rows[allowed]
    names = {(candidate.shelf.platforms[row], candidate.shelf.ids[row]) for row in candidate.scorer(domain).items}
    known = sum((shelf.platforms[row], shelf.ids[row]) in names for row in now.tolist())
    share = known / max(now.size, 1)
    return Check("catalogue", domain, share >= KNOWN, f"knows {share:.1%} of the items", {"share": share})


async def _lists(active: Side, candidate: Side, domain: str) -> list[Check]:
    """Look for lists that are not finite, or the same for everybody."""
    linked = active.live.state.linked
    persons = list(linked)[:: max(len(linked) // SAMPLE, 1)][:SAMPLE]
    accounts = [min(linked[person]) for person in persons]
    found: list[set[Account]] = []
    finite = True
    for side in (active, candidate):
        listed: set[Account] = set()
        for some in _blocks(accounts):
            asked = side.live.ask([side.live.state.person(*account) for account in some])
            for top in await side.tops(domain, asked):
                listed |= set(_names(top))
                finite &= bool(np.isfinite(top.scores).all()) and bool(top.rows.size)
        found.append(listed)
    most, own = len(found[0]), len(found[1])
    variety = Check(
        "variety",
        domain,
        own >= DIFFERENT * most,
        f"lists {own} different items where {most} are listed now",
        {"own": own, "now": most, "persons": len(accounts)},
    )
    return [Check("finite", domain, finite, "lists are whole" if finite else "some lists are not finite"), variety]


async def _quality(active: Side, candidate: Side, domain: str) -> Check:
    """Hold the lists of both models against the newest events."""
    held = await asyncio.to_thread(newest, active.live, candidate.live, domain)
    if len(held) < ENOUGH:
        said = f"{len(held)} events newer than the model that answers: {ENOUGH} are needed to say anything"
        return Check("ndcg", domain, True, said, {"events": len(held)})
    gains = np.array([await _gains(side, domain, held) for side in (active, candidate)])
    now, own = gains.mean(axis=1).tolist()
    apart = gains[1] - gains[0]
    error = float(apart.std(ddof=1) / np.sqrt(apart.size))
    worse = own - now < -NOISE * error and own < (1 - LOSS) * now
    since = _learned_until(candidate.live)
    figures = {
        "own": own,
        "now": now,
        "standard_error": error,
        "events": len(held),
        "known_to_it": sum(one.ts <= since for one in held),
    }
    return Check("ndcg", domain, not worse, f"NDCG@{K} {own:.4f}, now {now:.4f} (± {NOISE * error:.4f})", figures)


def newest(active: Live, candidate: Live, domain: str) -> list[Held]:
    """Return the newest event of each of some persons on an item that both models can list.

    Events that the active model learned from are left out: it would have an advantage. One that only the candidate
    learned from stays, for the advantage is the candidate's, who is to show that it is no worse.
    """
    rows, named = set(active.scorer(domain).items.tolist()), candidate.shelf.names
    listed = set(candidate.scorer(domain).items.tolist())
    held: list[Held] = []
    for account, deed in active.state.newest(rows, _learned_until(active)):
        name = (active.shelf.platforms[deed.item], active.shelf.ids[deed.item])
        if named.get(name) in listed and name not in active.shelf.removed:
            held.append(Held(account, deed.ts, name))
    return sorted(held, key=lambda one: -one.ts)[:HELD_OUT]


async def _gains(side: Side, domain: str, held: Sequence[Held]) -> list[float]:
    """Return the NDCG of each event's list, made of what its person did before it."""
    gains: list[float] = []
    for some in _blocks(held):
        live = side.live
        asked = live.ask([live.state.person(*one.account) for one in some])
        rows = np.array([live.shelf.names[one.item] for one in some], np.int32)
        histories = asked.histories
        before = histories.ts < np.array([one.ts for one in some])[histories.rows]
        before &= histories.items != rows[histories.rows]
        tops = await side.tops(domain, Asked(asked.persons, histories.keep(before)))
        gains += [_gain(top.rows, row) for top, row in zip(tops, rows.tolist(), strict=True)]
    return gains


def _gain(listed: Indices, row: int) -> float:
    places = np.flatnonzero(listed == row)
    return 1.0 / float(np.log2(2 + places[0])) if places.size else 0.0


def _learned_until(live: Live) -> int:
    ts = live.base.content.people.events["ts"].to_physical()
    return int(str(ts.max())) if ts.len() else 0


def _names(top: Top) -> Iterable[Account]:
    shelf = top.live.shelf
    return ((shelf.platforms[row], shelf.ids[row]) for row in top.rows.tolist())


def _blocks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), _TOGETHER):
        yield rows[start : start + _TOGETHER]


def reasons(checks: Sequence[Check]) -> list[str]:
    """Return what speaks against a model.

    Examples
    --------
    >>> reasons([Check("domains", "", False, "lacks books"), Check("ndcg", "films", True, "NDCG@10 0.2")])
    ['domains: lacks books']
    """
    return [f"{one.name}{one.domain and f' of {one.domain}'}: {one.said}" for one in checks if not one.passed]
