"""From requests that change something to the log: events, items, persons, models."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import orjson
import polars as pl

from isthmus.errors import InputError, NotFoundError
from isthmus.recommender.consents import ANY
from isthmus.service.lists.answers import as_known, require_platforms, whence
from isthmus.service.lists.items import Account
from isthmus.service.lists.live import clock
from isthmus.service.lock.gate import Caller
from isthmus.service.log.records import EVENT, Entry, content_id
from isthmus.service.monitor import Monitor
from isthmus.service.problems import BusyError
from isthmus.service.rollout.trials import tried
from isthmus.service.schemas import EventIn, EventsIn, ItemIn, ItemsIn
from isthmus.service.tenant import Tenant
from isthmus.types import EVENTS

#: Share of the events that may wait for the disk, and age in seconds of the oldest write, above which more is refused.
MUCH: Final = 0.1
LONG: Final = 1.0
#: Share above which more is refused however young the oldest is: it will be old before all of that is written.
MOST: Final = 0.4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def account_of(name: str, what: str = "person") -> Account:
    """Return platform and id of ``PLATFORM:ID``.

    Examples
    --------
    >>> account_of("shop:a:b")
    ('shop', 'a:b')
    """
    platform, colon, rest = name.partition(":")
    if not (platform and colon and rest):
        raise InputError(f"names no {what}", where="path", fix="write it as PLATFORM:ID, percent-encoded")
    return platform, rest


def refuse_late(tenant: Tenant) -> None:
    """Refuse events that would wait long for the disk: before they are read that costs little.

    Raises
    ------
    BusyError
        Much waits, and has for long; or very much does.
    """
    share = tenant.log.waiting / tenant.settings.pending
    if share > MOST or (share > MUCH and tenant.writes.lag > LONG):
        raise BusyError("too many events wait for the disk")


async def take_events(tenant: Tenant, caller: Caller, asked: EventsIn, monitor: Monitor) -> dict[str, object]:
    """Return the receipt of some events; they are on disk then."""
    require_platforms(caller, [event.platform for event in asked.events])
    now = clock()
    entries = [_entry(event, now + place) for place, event in enumerate(asked.events)]
    began = time.perf_counter()
    receipt = await tenant.write(entries)
    monitor.committed(tenant.name, time.perf_counter() - began)
    monitor.events(tenant.name, "stored", len(receipt.records))
    monitor.events(tenant.name, "duplicate", len(receipt.duplicates))
    return {
        **whence(tenant.live),
        "accepted": len(receipt.records),
        "ids": [entry.id for entry in entries],
        "duplicates": list(receipt.duplicates),
        "conflicts": list(receipt.conflicts),
        "unknown": [entry.id for entry in entries if (entry.platform, entry.item) not in tenant.live.shelf.names],
        "data_version": receipt.seq,
    }


def _entry(event: EventIn, now: int) -> Entry:
    """Return an event for the log; without a time it happened ``now``, a microsecond after the one sent before it."""
    ts = now if event.ts is None else _micros(event.ts)
    name = event.id
    if name is None and event.ts is None:
        name = uuid.uuid4().hex
    elif name is None:
        name = content_id(event.platform, event.user, event.item, event.event, event.value, ts)
    return Entry(name, EVENT, event.platform, event.user, event.item, event.event, event.value, ts)


def _micros(when: datetime) -> int:
    return (when - _EPOCH) // _MICROSECOND


async def put_items(tenant: Tenant, asked: ItemsIn) -> dict[str, object]:
    """Return how many items were written; they can be listed then."""
    written, unchanged = await tenant.put_items([_item(item) for item in asked.items])
    return {**whence(tenant.live), "written": written, "unchanged": unchanged}


def _item(item: ItemIn) -> tuple[Account, dict[str, object]]:
    said = item.model_dump(exclude={"platform", "item"}, exclude_none=True)
    times = {name: _micros(value) for name, value in said.items() if isinstance(value, datetime)}
    return (item.platform, item.item), {**said, **times}


async def remove_item(tenant: Tenant, name: str) -> dict[str, object]:
    """Take an item off the lists."""
    removed = await tenant.remove_item(account_of(name, "item"))
    return {**whence(tenant.live), "removed": removed}


def linked(tenant: Tenant, caller: Caller, name: str) -> list[Account]:
    """Return the accounts of a person, as far as the key may ask for them.

    Raises
    ------
    NotFoundError
        Nobody of that name is known.
    """
    account = account_of(name)
    require_platforms(caller, [account[0]])
    person = tenant.live.state.person(*account)
    if person is None:
        raise NotFoundError("nobody of that name is known", where="person")
    state = tenant.live.state
    asked = {state.hidden(account): account}
    every = [state.aliases.get(one) or asked.get(one, one) for one in state.linked[person]]
    return [one for one in every if not caller.platforms or one[0] in caller.platforms]


async def export(tenant: Tenant, caller: Caller, name: str) -> dict[str, object]:
    """Return all that is known of a person."""
    accounts = linked(tenant, caller, name)
    records = await asyncio.to_thread(tenant.log.of, accounts)
    live = tenant.live
    events = [_told(record.entry) for record in records]
    return {
        **as_known(tenant, live),
        "accounts": [{"platform": platform, "user": user} for platform, user in accounts],
        "events": events,
        "model_history": _besides(events, _learned(tenant, accounts)),
        "consents": consented(tenant, caller, accounts[0]),
    }


def as_lines(told: dict[str, object]) -> bytes:
    """Return the events of an export, one JSON object a line: those of the log, then those only the model knows."""
    events = [*cast("list[object]", told["events"]), *cast("list[object]", told["model_history"])]
    return b"".join(orjson.dumps(one) + b"\n" for one in events)


def _besides(events: Sequence[dict[str, object]], learned: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Return what only the model knows: what it was made from may be in the log still."""

    def said(one: dict[str, object]) -> tuple[object, ...]:
        return tuple(value for name, value in one.items() if name not in ("id", "value"))

    known = {said(one) for one in events}
    return [one for one in learned if said(one) not in known]


def _told(entry: Entry) -> dict[str, object]:
    names = {"id": entry.id, "platform": entry.platform, "user": entry.user, "item": entry.item, "event": entry.event}
    return {**names, "value": entry.value, "ts": when(entry.ts)}


def consented(tenant: Tenant, caller: Caller, account: Account) -> list[dict[str, object]]:
    """Return what the person of an account said, as far as it is about platforms the key may ask for."""
    live = tenant.live
    person = live.state.person(*account)
    told: list[dict[str, object]] = []
    if person is None:
        return told
    mine = {*caller.platforms, ANY}
    for start, end, allowed in live.uses.of_model(person):
        if not caller.platforms or {start, end} & mine:
            pair = {"from_platform": start, "to_platform": end}
            told.append({**pair, "allowed": allowed, "account": None, "ts": None})
    for one in live.state.consents.of(person):
        if not caller.platforms or set(one.pair) & mine:
            pair = {"from_platform": one.from_platform, "to_platform": one.to_platform}
            by = (
                {"platform": one.account[0], "user": one.account[1]}
                if not caller.platforms or one.account[0] in mine
                else None
            )
            told.append({**pair, "allowed": one.allowed, "account": by, "ts": when(one.ts)})
    return told


def when(ts: int) -> str:
    """Return a time in microseconds since 1970 as ISO 8601 text."""
    return (_EPOCH + timedelta(microseconds=ts)).isoformat()


def _learned(tenant: Tenant, accounts: Sequence[Account]) -> list[dict[str, object]]:
    """Return the events of a person that came with the model, on the platforms of ``accounts``.

    A model keeps no ids: an event gets the one it has when it is sent without. Models that were fit before they kept it
    do not know which of two accounts on a platform an event is of: the first one is named.
    """
    live = tenant.live
    first = dict(reversed(accounts))
    called = {live.state.hidden(one): one[1] for one in accounts}
    people = live.base.content.people
    rows = people.events[live.state.learned(live.state.person(*accounts[0]))]
    told: list[dict[str, object]] = []
    for row in rows.with_columns(pl.col("ts").to_physical()).iter_rows(named=True):
        platform, item, event = live.shelf.platforms[row["item"]], live.shelf.ids[row["item"]], EVENTS[row["event"]]
        if platform not in first:
            continue
        account, value, ts = row.get("account"), row.get("value"), int(row["ts"])
        user = first[platform] if account is None else str(people.accounts["user"][account])
        user = called.get((platform, user), user)
        name = content_id(platform, user, item, event, value, ts)
        told.append(_told(Entry(name, EVENT, platform, user, item, event, value, ts)))
    return told


async def erase(tenant: Tenant, caller: Caller, name: str) -> dict[str, object]:
    """Erase a person; return the receipt."""
    accounts = linked(tenant, caller, name)
    held = bool(_learned(tenant, accounts))
    receipt = await tenant.erase(accounts)
    sealed, clean = await tenant.upkeep.erase(accounts)
    said = [clock(), receipt.seq, receipt.erased, len(accounts), uuid.uuid4().hex]
    return {
        **whence(tenant.live),
        "receipt": hashlib.sha256(json.dumps(said).encode()).hexdigest(),
        "accounts": len(accounts),
        "events": receipt.erased,
        "sealed": sealed,
        "wiped": receipt.wiped and clean,
        "model_holds_history": held,
        "data_version": receipt.seq,
    }


def models(tenant: Tenant) -> dict[str, object]:
    """Return the models that can be activated."""
    active = tenant.live.version.name
    listed = [tenant.models.version(name) for name in tenant.models.names()]
    return {
        "active": active,
        "previous": list(tenant.models.pointer.previous),
        "models": [{"name": one.name, "version": one.digest, "active": one.name == active} for one in listed],
        **tried(tenant),
    }


async def activate(tenant: Tenant, name: str) -> dict[str, object]:
    """Let a model answer."""
    tenant.models.version(name)
    version = await tenant.activate(name)
    return {"model": version.name, "model_version": version.digest}


async def rollback(tenant: Tenant) -> dict[str, object]:
    """Let the model before answer again."""
    version = await tenant.activate(None)
    return {"model": version.name, "model_version": version.digest}
