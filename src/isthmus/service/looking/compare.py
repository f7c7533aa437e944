"""Lists of several models side by side, all from one history; models that do not answer are loaded for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import orjson

from isthmus.data.sequences import Histories
from isthmus.errors import IsthmusError
from isthmus.recommender.shortlist import Wanted
from isthmus.service.changes import when
from isthmus.service.lists.answers import DIGITS, as_known, require_platforms
from isthmus.service.lists.live import Live, LiveRules, Top, Version, bound, ranked, visible
from isthmus.service.lists.scoring import listable, longer
from isthmus.service.lock.gate import Caller
from isthmus.service.log.records import EVENT, Record
from isthmus.service.looking.forms import SHOWN, CompareIn
from isthmus.service.problems import BusyError, RequestError
from isthmus.service.tenant import Tenant
from isthmus.types import EVENTS, EventName, Indices, Ints

#: Models kept in memory besides the one that answers.
KEPT: Final = 3
#: Comparisons at a time: one may wait for models to be loaded.
MOST: Final = 4


class Candidates:
    """Models that are looked at, not served: loaded when asked for, the one used longest ago goes first."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[str, Version, int], Live] = OrderedDict()
        self._loading = asyncio.Lock()
        self._asked = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Compare, unless :data:`MOST` do so already.

        Raises
        ------
        BusyError
            They do.
        """
        if self._asked >= MOST:
            raise BusyError("too many comparisons at a time")
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    async def get(self, tenant: Tenant, name: str) -> Live:
        """Return a model with the items that came since, and nobody's events.

        Raises
        ------
        NotFoundError
            No such model.
        ArtefactError
            The model is damaged, or ranks nothing.
        """
        async with self._loading:
            version = await asyncio.to_thread(tenant.models.version, name)
            key = (tenant.name, version, hash(frozenset(tenant.live.added.items())))
            for old in [old for old in self._loaded if old[:2] == key[:2] and old != key]:
                del self._loaded[old]
            if key not in self._loaded:
                while len(self._loaded) >= KEPT:
                    self._loaded.popitem(last=False)
                self._loaded[key] = await asyncio.to_thread(_load, tenant, name)
            self._loaded.move_to_end(key)
            found, removed = self._loaded[key], tenant.live.shelf.removed
            for item in removed ^ found.shelf.removed:
                found.show(item, shown=item not in removed)
            return found


def _load(tenant: Tenant, name: str) -> Live:
    opened, version = tenant.models.open(name)
    # histories come from the model that answers, which leaves out what may not be used
    rules = LiveRules(large=tenant.settings.large)
    return Live.build(opened, version, _items(tenant.log.read()), tenant.log.secret, rules=rules)


def _items(records: Iterable[Sequence[Record]]) -> Iterator[list[Record]]:
    """Yield what the log says about items."""
    for some in records:
        yield [record for record in some if record.entry.kind != EVENT]


@dataclass(frozen=True)
class _Case:
    """What is asked of every model: what was met, and what of it may be used for each domain."""

    live: Live
    caller: Caller
    asked: CompareIn
    met: Histories
    heard: dict[str, Histories]

    def visible(self, platform: str) -> bool:
        """Return whether the key may know what was met on a platform."""
        return not self.caller.platforms or platform in self.caller.platforms


@dataclass(frozen=True)
class _Ranked:
    live: Live
    seconds: float
    tops: dict[str, Top]


async def compare(tenant: Tenant, candidates: Candidates, caller: Caller, asked: CompareIn) -> bytes:
    """Return the lists of every model asked for, as JSON.

    Events are used as the model that answers may use them; all models get the same ones.
    """
    if asked.account is not None:
        require_platforms(caller, [asked.account.platform])
    with candidates.turn():
        return await _compared(tenant, candidates, caller, asked)


async def _compared(tenant: Tenant, candidates: Candidates, caller: Caller, asked: CompareIn) -> bytes:
    live = tenant.live
    person = None if asked.account is None else live.state.person(asked.account.platform, asked.account.user)
    case = _case(live, caller, asked, person)
    names = list(dict.fromkeys(asked.models)) or [live.version.name]
    sides: list[dict[str, object]] = []
    first: _Ranked | None = None
    for name in names:
        try:
            one = live if name == live.version.name else await candidates.get(tenant, name)
            found = await _rank(tenant, one, case)
        except BusyError:
            raise
        except IsthmusError as error:
            if error.http_status == 404:
                raise
            sides.append(_broken(name, error))
            continue
        first = first or found
        sides.append(_side(found, first, case))
    history = _told(case, live.state.batch([person]))
    said = {
        **as_known(tenant, live),
        "known": person is not None,
        "history": history[:SHOWN],
        "events": len(history),
        "sides": sides,
    }
    return orjson.dumps(said)


def _case(live: Live, caller: Caller, asked: CompareIn, person: int | None) -> _Case:
    mine = caller.platforms
    for one in asked.without:
        if mine and one.platform not in mine:  # what changes without it would tell whether it was met there
            raise RequestError(403, f"the key may not ask what a list owes to '{one.platform}'")
    who = live.ask([person])
    left_out = np.array([live.row(one.platform, one.item) for one in asked.without], np.int32)
    more: list[tuple[int, EventName]] = [(live.row(one.platform, one.item), "purchase") for one in asked.history]
    domains = live.domains if asked.target is None else [asked.target]
    for domain in domains:
        live.scorer(domain)
    shown = {domain: bound(live, domain, mine) if mine else () for domain in domains}
    heard = {
        domain: _changed(live.heard(domain, replace(who, shown=shown[domain])), left_out, more) for domain in domains
    }
    met = visible(live, who.histories, mine) if mine else who.histories
    return _Case(live, caller, asked, _changed(met, left_out, more), heard)


def _changed(history: Histories, left_out: Indices, more: Sequence[tuple[int, EventName]]) -> Histories:
    """Return a history without some items, and with others at its end."""
    return longer(history.keep(~np.isin(history.items, left_out)), more)


async def _rank(tenant: Tenant, one: Live, case: _Case) -> _Ranked:
    """Return the lists of one model, made between those of others."""
    live, asked = case.live, case.asked
    parts = {domain: _counted(heard, live, one) for domain, heard in case.heard.items() if domain in one.scorers}
    met = _counted(case.met, live, one) if asked.exclude_seen else None

    def work() -> _Ranked:
        began = time.perf_counter()
        tops = {}
        for domain, heard in parts.items():
            tops[domain] = ranked(one, domain, heard, Wanted(asked.k, met, listable(one)))[0]
        return _Ranked(one, time.perf_counter() - began, tops)

    return await tenant.lister.beside.result(work, tenant.lister.beside.until())


def _counted(history: Histories, live: Live, one: Live) -> Histories:
    """Return a history with the items counted as another model does; those it does not know are left out."""
    if one is live:
        return history
    names = [one.shelf.names.get((live.shelf.platforms[row], live.shelf.ids[row]), -1) for row in history.items]
    rows: Ints = np.array(names, np.int64)
    kept = history.keep(rows >= 0)
    items = rows[rows >= 0].astype(np.int32)
    return Histories(kept.indptr, items, kept.weights, kept.ts, kept.events)


def _side(found: _Ranked, first: _Ranked, case: _Case) -> dict[str, object]:
    lists = [_list(top, first.tops.get(domain), case, domain) for domain, top in found.tops.items()]
    version = found.live.version
    head = {"model": version.name, "model_version": version.digest, "active": found.live is case.live}
    return {**head, "seconds": found.seconds, "problem": None, "lists": lists}


def _list(top: Top, first: Top | None, case: _Case, domain: str) -> dict[str, object]:
    before = {} if first is None else {name: rank for rank, name in enumerate(_names(first))}
    shelf = case.live.shelf
    met = {(shelf.platforms[row], shelf.ids[row]) for row in case.met.items}
    places = []
    for rank, (name, row, score) in enumerate(zip(_names(top), top.rows.tolist(), top.scores, strict=True)):
        place: dict[str, object] = {
            "platform": name[0],
            "item": name[1],
            "title": top.live.shelf.title(row),
            "seen": name in met and case.visible(name[0]),
            "moved": before[name] - rank if name in before else None,
        }
        places.append({**place, "score": round(float(score), DIGITS)} if case.asked.scores else place)
    shared = sum(place["moved"] is not None for place in places) / len(places) if places else None
    return {"domain": domain, "shared": shared, "items": places}


def _names(top: Top) -> list[tuple[str, str]]:
    shelf = top.live.shelf
    return [(shelf.platforms[row], shelf.ids[row]) for row in top.rows.tolist()]


def _broken(name: str, error: IsthmusError) -> dict[str, object]:
    problem = error.what if error.http_status < 500 else type(error).__name__
    return {
        "model": name,
        "model_version": "",
        "active": False,
        "seconds": 0.0,
        "problem": problem,
        "lists": [],
    }


def _told(case: _Case, whole: Histories) -> list[dict[str, object]]:
    """Return the items of a history, the newest first, as far as the key may ask for them."""
    told: list[dict[str, object]] = []
    shelf = case.live.shelf
    domains = shelf.table["domain"]
    for place in range(whole.items.size - 1, -1, -1):
        row = int(whole.items[place])
        if case.visible(shelf.platforms[row]):
            said = {"platform": shelf.platforms[row], "item": shelf.ids[row], "title": shelf.title(row)}
            event = EVENTS[int(whole.events[place])]
            told.append({**said, "domain": domains[row], "event": event, "ts": when(int(whole.ts[place]))})
    return told
