"""From requests about lists to JSON: recommend, similar, explain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np
import orjson

from isthmus.errors import NotFoundError
from isthmus.service.gate import Caller
from isthmus.service.items import Filters
from isthmus.service.lists import Listed
from isthmus.service.live import Live, Top, clock
from isthmus.service.monitor import Monitor
from isthmus.service.problems import RequestError
from isthmus.service.schemas import ExplainIn, RecommendIn, SimilarIn
from isthmus.service.scoring import Ask
from isthmus.service.tenant import Tenant

#: Digits of a score that are shown.
DIGITS: Final = 4


def require_platforms(caller: Caller, platforms: Sequence[str]) -> None:
    """Refuse people of platforms that the key may not ask for."""
    if caller.platforms:
        for platform in platforms:
            if platform not in caller.platforms:
                raise RequestError(403, f"the key may not ask for people of '{platform}'")


def whence(live: Live) -> dict[str, object]:
    """Return what every answer says about where it comes from."""
    return {"model": live.version.name, "model_version": live.version.digest, "data_version": live.seq}


async def recommend(tenant: Tenant, caller: Caller, asked: RecommendIn, monitor: Monitor) -> bytes:
    """Return the lists of ``asked`` as JSON, those that have to be scored side by side."""
    require_platforms(caller, [account.platform for account in asked.persons])
    live = tenant.live
    if asked.target is not None:
        live.scorer(asked.target)
    domains = live.domains if asked.target is None else [asked.target]
    filters = Filters()
    if asked.filters is not None:
        filters = Filters(*(tuple(getattr(asked.filters, name)) for name in ("platforms", "categories", "langs")))
    left_out = frozenset((one.platform, one.item) for one in asked.exclude)
    asks = [
        Ask((account.platform, account.user), domain, asked.k, asked.exclude_seen, left_out, filters)
        for account in asked.persons
        for domain in domains
    ]
    answered = await _answered(tenant, asks)
    if any(listed.top.live.version != answered[0].top.live.version for listed in answered):
        answered = await _answered(tenant, asks)  # another model came in between
    parts, degraded = [], False
    for ask, listed in zip(asks, answered, strict=True):
        monitor.lists(listed.layer)
        tenant.exposure.note(listed.top)
        tenant.observer.listed(ask.account, listed.layer, listed.top)
        degraded |= listed.layer != "model"
        reasons = await _reasons(tenant, caller, ask, listed.top, asked.reasons) if asked.reasons else None
        parts.append(_list(ask, listed, asked.scores, reasons))
    head = orjson.dumps({**whence(answered[0].top.live), "degraded": degraded})
    return b'%s,"lists":[%s]}' % (head[:-1], b",".join(parts))


async def _answered(tenant: Tenant, asks: Sequence[Ask]) -> list[Listed]:
    """Return the answers; lists that are ready cost no task."""
    ready = [tenant.lister.ready(ask) for ask in asks]
    lacking = [ask for ask, top in zip(asks, ready, strict=True) if top is None]
    if not lacking:
        return [Listed(top, "model") for top in ready if top is not None]
    found = iter(await asyncio.gather(*(tenant.lister.answer(ask) for ask in lacking)))
    return [next(found) if top is None else Listed(top, "model") for top in ready]


def _list(ask: Ask, listed: Listed, scores: bool, reasons: list[list[dict[str, object]]] | None) -> bytes:
    top = listed.top
    who = {"platform": ask.account[0], "user": ask.account[1], "domain": ask.domain, "layer": listed.layer}
    head = orjson.dumps(who)[:-1]
    if not scores and reasons is None:
        return b'%s,"items":[%s]}' % (head, top.json)
    items = [top.live.shelf.json(row) for row in top.rows.tolist()]
    if scores:
        items = [b'%s,"score":%s}' % (said[:-1], _number(one)) for said, one in zip(items, top.scores, strict=True)]
    if reasons is not None:
        items = [b'%s,"reasons":%s}' % (said[:-1], orjson.dumps(why)) for said, why in zip(items, reasons, strict=True)]
    return b'%s,"items":[%s]}' % (head, b",".join(items))


def _number(score: float) -> bytes:
    return orjson.dumps(round(float(score), DIGITS))


async def _reasons(tenant: Tenant, caller: Caller, ask: Ask, top: Top, most: int) -> list[list[dict[str, object]]]:
    """Return what speaks for each item of a list."""
    live = tenant.live
    if not top.rows.size or live.version != top.live.version:
        return [[] for _ in range(top.rows.size)]
    history, scores = await tenant.lister.contributions(ask, top.rows.tolist())
    gains = scores[0] - scores[1:]
    return [evidence(live, caller, history.items.tolist(), gains[:, place], most) for place in range(top.rows.size)]


def evidence(live: Live, caller: Caller, items: Sequence[int], gains: np.ndarray, most: int) -> list[dict[str, object]]:
    """Return the items of a history that speak most for something; only of platforms the key may ask for."""
    domains = live.shelf.table["domain"]
    told: list[dict[str, object]] = []
    for place in np.argsort(-np.abs(gains), kind="stable").tolist():
        row = items[place]
        name = {"platform": live.shelf.platforms[row], "item": live.shelf.ids[row]}
        allowed = not caller.platforms or name["platform"] in caller.platforms
        if len(told) == most:
            break
        if not allowed or any(one["item"] == name["item"] and one["platform"] == name["platform"] for one in told):
            continue
        gain = round(float(gains[place]), DIGITS)
        told.append({**name, "title": live.shelf.title(row), "domain": domains[row], "contribution": gain})
    return told


async def similar(tenant: Tenant, asked: SimilarIn) -> bytes:
    """Return what goes with an item, as JSON."""
    live = tenant.live
    live.row(asked.platform, asked.item)
    if asked.target is not None:
        live.scorer(asked.target)
    wide = asked.k + len(live.shelf.removed)
    found = await asyncio.to_thread(live.shown.similar, asked.platform, asked.item, k=wide)
    lists = []
    for domain in live.domains if asked.target is None else [asked.target]:
        rows = [live.shelf.names[name] for name in found.filter(domain=domain).select("platform", "item").rows()]
        allowed = live.shelf.listable(np.array(rows, np.int32), clock())
        kept = [row for place, row in enumerate(rows) if allowed is None or allowed[place]][: asked.k]
        head = orjson.dumps({"domain": domain})
        lists.append(b'%s,"items":[%s]}' % (head[:-1], b",".join(live.shelf.json(row) for row in kept)))
    return b'%s,"lists":[%s]}' % (orjson.dumps(whence(live))[:-1], b",".join(lists))


async def explain(tenant: Tenant, caller: Caller, asked: ExplainIn) -> bytes:
    """Return why an item is, or would be, listed, as JSON."""
    require_platforms(caller, [asked.platform])
    live = tenant.live
    row = live.row(asked.item.platform, asked.item.item)
    domain = live.shelf.table["domain"][row]
    if domain not in live.scorers:
        raise NotFoundError(f"the model lists nothing of domain '{domain}'", fix=f"domains: {', '.join(live.domains)}")
    ask = Ask((asked.platform, asked.user), domain)
    history, scores = await tenant.lister.contributions(ask, [row])
    nobody = float(
        live.scorer(domain).score(live.state.batch([None]))[0, np.searchsorted(live.scorer(domain).items, row)]
    )
    told = evidence(live, caller, history.items.tolist(), scores[0, 0] - scores[1:, 0], asked.most)
    said = {
        **whence(live),
        "item": orjson.Fragment(live.shelf.json(row)),
        "domain": domain,
        "score": round(float(scores[0, 0]), DIGITS),
        "score_without_history": round(nobody, DIGITS),
        "evidence": told,
    }
    return orjson.dumps(said)
