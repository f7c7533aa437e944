"""From requests about lists to JSON: recommend, similar, explain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, cast

import numpy as np
import orjson

from isthmus.data.sequences import Histories
from isthmus.encode.phrases import shared_phrases
from isthmus.encode.template import Template
from isthmus.errors import NotFoundError
from isthmus.service.lists.faithful import faithfulness
from isthmus.service.lists.items import Filters
from isthmus.service.lists.lister import Listed, Lister
from isthmus.service.lists.live import Live, Top, bound, scores_of
from isthmus.service.lists.reasons import Why, named, strongest
from isthmus.service.lists.scoring import Ask, alike
from isthmus.service.lock.gate import Caller
from isthmus.service.monitor import Monitor
from isthmus.service.problems import BusyError, RequestError
from isthmus.service.rollout.arms import made_by
from isthmus.service.schemas import ExplainIn, RecommendIn, SimilarIn
from isthmus.service.settings import ServiceSettings
from isthmus.service.tenant import Tenant
from isthmus.service.watch.health import log_troubles
from isthmus.types import Floats

#: Digits of a score that are shown.
DIGITS: Final = 4
#: What can make an answer less than it could be.
CHEAPER: Final = "lists of a cheaper layer"
UNEXPLAINED: Final = "no time for reasons"


def require_platforms(caller: Caller, platforms: Sequence[str]) -> None:
    """Refuse people of platforms that the key may not ask for."""
    if caller.platforms:
        for platform in platforms:
            if platform not in caller.platforms:
                raise RequestError(403, f"the key may not ask for people of '{platform}'")


def whence(live: Live) -> dict[str, object]:
    """Return what every answer says about where it comes from."""
    return {"model": live.version.name, "model_version": live.version.digest, "data_version": live.seq}


def as_known(tenant: Tenant, live: Live | None = None, simpler: Sequence[str] = ()) -> dict[str, object]:
    """Return what every answer says that only reads: where it comes from, and what makes it less than it could be.

    While the log is away the newest events may lack.
    """
    why = [*simpler, *log_troubles(tenant)]
    return {**whence(live or tenant.live), "degraded": bool(why), "degraded_by": why}


def _asks(live: Live, caller: Caller, asked: RecommendIn, settings: ServiceSettings) -> list[Ask]:
    """Return every list that is asked for."""
    if asked.target is not None:
        live.scorer(asked.target)
    domains = live.domains if asked.target is None else [asked.target]
    filters = Filters()
    if asked.filters is not None:
        filters = Filters(*(tuple(getattr(asked.filters, name)) for name in ("platforms", "categories", "langs")))
    met = tuple((one.platform, one.item, one.event) for one in asked.context)
    left_out = frozenset((one.platform, one.item) for one in asked.exclude)
    shown = {domain: bound(live, domain, caller.platforms) if caller.platforms else () for domain in domains}
    return [
        Ask(
            (account.platform, account.user),
            domain,
            asked.k,
            asked.exclude_seen,
            left_out,
            filters,
            settings.explore,
            settings.explore_bonus,
            met,
            shown[domain],
        )
        for account in asked.persons
        for domain in domains
    ]


async def _answered(tenant: Tenant, caller: Caller, asked: RecommendIn) -> tuple[list[Ask], list[Listed]]:
    """Return the lists; once more, if another model came in between and they are not all from one."""
    while True:
        live = tenant.live
        asks = _asks(live, caller, asked, tenant.settings)
        try:
            answered = await tenant.rollout.answered(asks, live, tenant.lister)
        except NotFoundError:
            if live is tenant.live:
                raise
            continue
        if live is tenant.live or len({listed.top.live.version for listed in answered}) == 1:
            return asks, answered


async def recommend(tenant: Tenant, caller: Caller, asked: RecommendIn, monitor: Monitor) -> bytes:
    """Return the lists of ``asked`` as JSON, those that have to be scored side by side."""
    if caller.platforms:
        platforms = {account.platform for account in asked.persons} | {one.platform for one in asked.context}
        require_platforms(caller, sorted(platforms))
    asks, answered = await _answered(tenant, caller, asked)
    head = _head(tenant.live, answered)
    parts: list[bytes] = []
    simpler: dict[str, None] = {}
    until = tenant.lister.beside.until(simpler=True)
    for ask, listed in zip(asks, answered, strict=True):
        monitor.lists(tenant.name, listed.layer)
        if ask.explore:
            listed.top.live.tries(ask.domain).count(listed.top.rows)
        if listed.top.live.version == tenant.live.version:
            tenant.lister.exposure.note(listed.top, tenant.live)
            tenant.observer.listed(ask.account, listed.layer, listed.top)
        if listed.layer != "model":
            simpler[CHEAPER] = None
        reasons = await _reasons(tenant, caller, ask, listed.top, asked.reasons, until) if asked.reasons else None
        if asked.reasons and reasons is None:
            simpler[UNEXPLAINED] = None
        parts.append(_list(ask, listed, asked.scores, reasons, other=listed.top.live.version != head.version))
    tenant.rollout.offer(asks, answered)
    said = orjson.dumps(as_known(tenant, head, list(simpler)))
    return b'%s,"lists":[%s]}' % (said[:-1], b",".join(parts))


def _head(live: Live, answered: Sequence[Listed]) -> Live:
    """Return the model an answer is from: the one that answers, unless another made all of its lists."""
    first = answered[0].top.live if answered else live
    return first if all(listed.top.live is first for listed in answered) else live


def _list(ask: Ask, listed: Listed, scores: bool, reasons: Sequence[bytes] | None, *, other: bool) -> bytes:
    top = listed.top
    who = {"platform": ask.account[0], "user": ask.account[1], "domain": ask.domain, "layer": listed.layer}
    if other:
        who |= {"model": top.live.version.name, "model_version": top.live.version.digest}
    head = orjson.dumps(who)[:-1]
    if not scores and reasons is None:
        return b'%s,"items":[%s]}' % (head, top.json)
    items = top.live.shelf.jsons(top.rows)
    if scores:
        items = [b'%s,"score":%s}' % (said[:-1], _number(one)) for said, one in zip(items, top.scores, strict=True)]
    if reasons is not None:
        items = [b'%s,"reasons":%s}' % (said[:-1], why) for said, why in zip(items, reasons, strict=True)]
    return b'%s,"items":[%s]}' % (head, b",".join(items))


def _number(score: float) -> bytes:
    return orjson.dumps(round(float(score), DIGITS))


async def _reasons(
    tenant: Tenant, caller: Caller, ask: Ask, top: Top, most: int, until: float
) -> Sequence[bytes] | None:
    """Return what speaks for each item of a list, as JSON; None where that cannot be said in time."""
    if not top.rows.size:
        return []
    live, lister = made_by(tenant.rollout, top.live, (tenant.live, tenant.lister))
    if live.version != top.live.version:
        return None
    asked = ask.person(live), ask.domain, most, ask.k, caller.platforms
    found = lister.told.find(asked, top)
    if found is None and not caller.platforms:
        ready = lister.reasons.find(asked[:2], top, most)
        found = None if ready is None else [orjson.dumps(why) for why in named(live, ready)]
    if found is not None:
        return found

    def tell(history: Histories, scores: Floats) -> list[bytes]:
        gains, items = scores[0] - scores[1:], history.items.tolist()
        return [orjson.dumps(why) for why in named(live, evidence(live, caller, items, gains, most))]

    try:
        made = await lister.contributions(ask, top.rows.tolist(), tell, until)
    except BusyError:
        return None
    except Exception:
        if live is tenant.live:
            raise
        tenant.rollout.failed()
        return None
    lister.told.keep(asked, top, made)
    return made


def evidence(live: Live, caller: Caller, items: Sequence[int], gains: Floats, most: int) -> list[Why]:
    """Return for each of ``R`` items those of a history that give it most, (H, R), on platforms the key may ask for."""
    return strongest(
        items, gains, most, lambda row: not caller.platforms or live.shelf.platforms[row] in caller.platforms
    )


async def similar(tenant: Tenant, asked: SimilarIn) -> bytes:
    """Return what goes with an item, as JSON."""
    live = tenant.live
    row = live.row(asked.platform, asked.item)
    if asked.target is not None:
        live.scorer(asked.target)
    lists, until = [], tenant.lister.beside.until()
    for domain in live.domains if asked.target is None else [asked.target]:
        top = await tenant.lister.beside.result(partial(alike, live, domain, row, asked.k), until)
        lists.append(b'%s,"items":[%s]}' % (orjson.dumps({"domain": domain})[:-1], top.json))
    return b'%s,"lists":[%s]}' % (orjson.dumps(as_known(tenant, live))[:-1], b",".join(lists))


async def explain(tenant: Tenant, caller: Caller, asked: ExplainIn) -> bytes:
    """Return why an item is, or would be, listed, as JSON."""
    require_platforms(caller, [asked.platform])
    account, item = (asked.platform, asked.user), (asked.item.platform, asked.item.item)
    live, lister = tenant.rollout.of(account, item, tenant.live, tenant.lister)
    until = lister.beside.until()
    try:
        said = await _explained(live, lister, caller, asked, until)
    except BusyError:
        raise
    except Exception:
        if live is tenant.live:
            raise
        tenant.rollout.failed()
        live = tenant.live
        said = await _explained(live, tenant.lister, caller, asked, until)
    return orjson.dumps({**as_known(tenant, live), **said})


async def _explained(live: Live, lister: Lister, caller: Caller, asked: ExplainIn, until: float) -> dict[str, object]:
    row = live.row(asked.item.platform, asked.item.item)
    domain = live.shelf.table["domain"][row]
    if domain not in live.scorers:
        raise NotFoundError(f"the model lists nothing of domain '{domain}'", fix=f"domains: {', '.join(live.domains)}")
    shown = bound(live, domain, caller.platforms) if caller.platforms else ()
    ask = Ask((asked.platform, asked.user), domain, shown=shown)
    nobody = live.state.batch([None])

    def tell(history: Histories, scores: Floats) -> dict[str, object]:
        told = named(live, evidence(live, caller, history.items.tolist(), scores[0] - scores[1:], asked.most))[0]
        rows = [live.row(str(one["platform"]), str(one["item"])) for one in told]
        gave = dict(zip(rows, (cast("float", one["contribution"]) for one in told), strict=True))
        _say_phrases(live, [row, *rows], told)
        score = float(scores[0, 0])
        without = float(scores_of(live, domain, nobody, np.array([row], np.int32))[0, 0])
        return {
            "item": orjson.Fragment(live.shelf.json(row)),
            "domain": domain,
            "score": round(score, DIGITS),
            "score_without_history": round(without, DIGITS),
            "evidence": told,
            "faithfulness": faithfulness(live, domain, history, row, gave, (score, without)),
        }

    return await lister.contributions(ask, [row], tell, until)


def _say_phrases(live: Live, rows: Sequence[int], told: Sequence[dict[str, object]]) -> None:
    """Add to each piece of evidence what its text and that of the item, the first of ``rows``, both say."""
    text, *others = Template().render(live.shelf.table[rows]).to_list()
    for one, other in zip(told, others, strict=True):
        one["phrases"] = shared_phrases(live.base.content.readers.tfidf, text, other)
