"""Lists of several models side by side, all from one history; models that do not answer are loaded for it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from isthmus.data.sequences import Histories
from isthmus.errors import IsthmusError
from isthmus.service.answers import DIGITS, require_platforms
from isthmus.service.changes import when
from isthmus.service.gate import Caller
from isthmus.service.live import Asked, Live, Top, Version, clock
from isthmus.service.looks import SHOWN, CompareIn
from isthmus.service.records import EVENT, Record
from isthmus.service.tenant import Tenant
from isthmus.types import EVENTS, Ints

#: Models kept in memory besides the one that answers.
KEPT: Final = 3


class Candidates:
    """Models that are looked at, not served: loaded when asked for, the one used longest ago goes first."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[tuple[str, Version, int], Live] = OrderedDict()
        self._loading = asyncio.Lock()

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
    return Live.build(opened, version, _items(tenant.log.read()), tenant.log.secret, consent_required=False)


def _items(records: Iterable[Sequence[Record]]) -> Iterator[list[Record]]:
    """Yield what the log says about items."""
    for some in records:
        yield [record for record in some if record.entry.kind != EVENT]


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
    live = tenant.live
    account = None if asked.account is None else (asked.account.platform, asked.account.user)
    person = None if account is None else live.state.person(*account)
    domains = live.domains if asked.target is None else [asked.target]
    for domain in domains:
        live.scorer(domain)
    histories = {domain: _history(live, domain, person, asked) for domain in domains}
    names = list(dict.fromkeys(asked.models)) or [live.version.name]
    sides: list[dict[str, object]] = []
    first: _Ranked | None = None
    for name in names:
        try:
            one = live if name == live.version.name else await candidates.get(tenant, name)
            ranked = await _rank(tenant, one, live, histories, asked)
        except IsthmusError as error:
            if error.http_status == 404:
                raise
            sides.append(_broken(name, error))
            continue
        first = first or ranked
        sides.append(_side(ranked, first, live, histories, asked))
    whole = live.state.batch([person])
    said = {
        "data_version": live.seq,
        "known": person is not None,
        "history": _met(live, caller, whole),
        "events": int(whole.items.size),
        "sides": sides,
    }
    return orjson.dumps(said)


def _history(live: Live, domain: str, person: int | None, asked: CompareIn) -> Histories:
    """Return what may be used of one person for a domain, and the items given besides."""
    heard = live.heard(domain, live.ask([person]))
    left_out = [live.row(one.platform, one.item) for one in asked.without]
    heard = heard.keep(~np.isin(heard.items, left_out)) if left_out else heard
    more = np.array([live.row(one.platform, one.item) for one in asked.history], np.int32)
    if not more.size:
        return heard
    return Histories(
        np.array([0, heard.items.size + more.size], np.int64),
        np.concatenate([heard.items, more]),
        np.concatenate([heard.weights, np.ones(more.size, np.float32)]),
        np.concatenate([heard.ts, clock() + np.arange(more.size, dtype=np.int64)]),
        np.concatenate([heard.events, np.full(more.size, EVENTS.index("purchase"), np.int8)]),
    )


async def _rank(tenant: Tenant, one: Live, live: Live, histories: dict[str, Histories], asked: CompareIn) -> _Ranked:
    """Return the lists of one model; those of the model that answers are made where all its lists are made."""
    domains = [domain for domain in histories if domain in one.scorers]
    parts = {domain: histories[domain] if one is live else _counted(histories[domain], live, one) for domain in domains}

    def work() -> _Ranked:
        began = time.perf_counter()
        tops = {}
        for domain, history in parts.items():
            mask = one.shelf.listable(one.scorer(domain).items, clock())
            nobody = Asked(np.array([-1], np.int64), history)
            tops[domain] = one.rank(domain, nobody, asked.k, mask=mask, exclude_seen=asked.exclude_seen)[0]
        return _Ranked(one, time.perf_counter() - began, tops)

    return await tenant.lister.aside(work) if one is live else await asyncio.to_thread(work)


def _counted(history: Histories, live: Live, one: Live) -> Histories:
    """Return a history with the items counted as another model does; those it does not know are left out."""
    names = [one.shelf.names.get((live.shelf.platforms[row], live.shelf.ids[row]), -1) for row in history.items]
    rows: Ints = np.array(names, np.int64)
    kept = history.keep(rows >= 0)
    items = rows[rows >= 0].astype(np.int32)
    return Histories(kept.indptr, items, kept.weights, kept.ts, kept.events)


def _side(
    ranked: _Ranked, first: _Ranked, live: Live, histories: dict[str, Histories], asked: CompareIn
) -> dict[str, object]:
    lists = []
    for domain, top in ranked.tops.items():
        before = {name: rank for rank, name in enumerate(_names(first.tops[domain]))} if domain in first.tops else {}
        met = {(live.shelf.platforms[row], live.shelf.ids[row]) for row in histories[domain].items}
        places = []
        for rank, (name, row, score) in enumerate(zip(_names(top), top.rows.tolist(), top.scores, strict=True)):
            place: dict[str, object] = {
                "platform": name[0],
                "item": name[1],
                "title": top.live.shelf.title(row),
                "seen": name in met,
                "moved": before[name] - rank if name in before else None,
            }
            places.append({**place, "score": round(float(score), DIGITS)} if asked.scores else place)
        shared = sum(place["moved"] is not None for place in places) / len(places) if places else None
        lists.append({"domain": domain, "shared": shared, "items": places})
    version = ranked.live.version
    head = {"model": version.name, "model_version": version.digest, "active": ranked.live is live}
    return {**head, "seconds": ranked.seconds, "problem": None, "lists": lists}


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


def _met(live: Live, caller: Caller, whole: Histories) -> list[dict[str, object]]:
    """Return the newest items of a history, as far as the key may ask for them."""
    told: list[dict[str, object]] = []
    domains = live.shelf.table["domain"]
    for place in range(whole.items.size - 1, -1, -1):
        row = int(whole.items[place])
        platform = live.shelf.platforms[row]
        if len(told) == SHOWN:
            break
        if caller.platforms and platform not in caller.platforms:
            continue
        said = {"platform": platform, "item": live.shelf.ids[row], "title": live.shelf.title(row)}
        event = EVENTS[int(whole.events[place])]
        told.append({**said, "domain": domains[row], "event": event, "ts": when(int(whole.ts[place]))})
    return told
