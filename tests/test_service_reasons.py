"""Reasons made ready: the same as those worked out when asked, for every list kept, and never of an older one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.small_service import account, event, item, recommender, served
from tests.test_service_privacy import path

from isthmus.service.core import Service
from isthmus.service.lists.lister import Lister
from isthmus.service.lists.live import Live, LiveRules, Version
from isthmus.service.lists.reasons import LONGEST, Reasons

ASKED = ({"k": 20, "reasons": 3}, {"k": 5, "reasons": 3}, {"k": 5, "reasons": 1})


def everybody() -> list[dict[str, str]]:
    accounts = recommender().content.people.accounts.unique("person", keep="first", maintain_order=True)
    return accounts.select("platform", "user").to_dicts()


async def told(client: httpx.AsyncClient, who: dict[str, str], **asked: object) -> object:
    answer = await client.post("/v1/recommend", json={"persons": [who], **asked})
    assert answer.status_code == 200, answer.text
    assert not answer.json()["degraded"], answer.text
    return answer.json()["lists"]


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.01)


def all_ready(lister: Lister) -> Callable[[], bool]:
    return lambda: not lister.cold and not lister.reasons.waiting and lister.reasons.ready == lister.kept > 0


def numbers(said: object) -> list[float]:
    """Return what items give, in order."""
    if isinstance(said, dict):
        mine = [said["contribution"]] if "contribution" in said else []
        return mine + [one for part in said.values() for one in numbers(part)]
    return [one for part in said for one in numbers(part)] if isinstance(said, list) else []


def numberless(said: object) -> object:
    """Return an answer without what items give."""
    if isinstance(said, dict):
        return {name: numberless(one) for name, one in said.items() if name != "contribution"}
    return [numberless(one) for one in said] if isinstance(said, list) else said


def worked_out(*_: object) -> None:
    raise AssertionError("it was not ready")


def test_they_are_those_worked_out_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(who, more) for who in everybody()[:25] for more in ASKED]
    first: list[object] = []

    async def cold(client: httpx.AsyncClient, service: Service) -> None:
        first.extend([await told(client, who, **more) for who, more in asked])
        assert service.tenant().lister.reasons.ready == 0

    async def warm(client: httpx.AsyncClient, service: Service) -> None:
        lister = service.tenant().lister
        await until(lambda: not lister.cold)
        await asyncio.sleep(0.1)
        assert (lister.reasons.ready, lister.reasons.waiting) == (0, 0), "nobody asked for reasons yet"
        await told(client, *[account(30)], k=1, reasons=1)
        await until(all_ready(lister))
        figures = (await client.get("/metrics")).text
        assert f'isthmus_reasons_ready{{tenant="default"}} {lister.kept}' in figures
        assert 'isthmus_reasons_cold{tenant="default"} 0' in figures
        monkeypatch.setattr(Lister, "contributions", worked_out)
        ready = [await told(client, who, **more) for who, more in asked]
        assert numberless(ready) == numberless(first)
        assert numbers(ready) == pytest.approx(numbers(first), abs=2e-3)

    served(tmp_path / "cold", cold, warm=False)
    served(tmp_path / "warm", warm, warm=True)
    assert max(numbers(first)) > 0.5


def test_they_are_made_anew_after_an_event_and_gone_after_an_erasure(tmp_path: Path) -> None:
    who = account(3)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        lister = service.tenant().lister
        before = await told(client, who, k=20, reasons=3)
        await until(all_ready(lister))
        sent = [event(number, who) for number in (7, 8)]
        assert (await client.post("/v1/events", json={"events": sent})).status_code == 202
        after = await told(client, who, k=20, reasons=3)
        assert after != before
        new = {(one["platform"], one["item"]) for one in (item(7), item(8))}
        assert new & {(r["platform"], r["item"]) for one in after for place in one["items"] for r in place["reasons"]}  # type: ignore[attr-defined]
        await until(all_ready(lister))
        lister.told.forget([service.tenant().live.state.person(*who.values())])
        assert await told(client, who, k=20, reasons=3) == after, "what is ready is of the new list"
        assert (await client.delete(path("persons", who))).status_code == 200
        assert all(not place["reasons"] for one in await told(client, who, k=20, reasons=3) for place in one["items"])  # type: ignore[attr-defined]
        await until(all_ready(lister))

    served(tmp_path, test, warm=True)


def test_longer_lists_more_reasons_and_keys_of_a_platform_are_worked_out(tmp_path: Path) -> None:
    who = account(5)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        lister = service.tenant().lister
        await told(client, who, k=5, reasons=1)
        await until(all_ready(lister))
        counts = []
        for more in ({"k": 25, "reasons": 1}, {"k": 5, "reasons": 5}):
            lists = await told(client, who, **more)
            counts.append(max(len(place["reasons"]) for one in lists for place in one["items"]))  # type: ignore[attr-defined]
        assert counts[0] == 1
        assert counts[1] > 3
        _, key = service.vault.create(tenant="default", scopes=["recommend"], platforms=["north"])
        client.headers["authorization"] = f"Bearer {key}"
        lists = await told(client, who, k=5, reasons=3)
        platforms = {r["platform"] for one in lists for place in one["items"] for r in place["reasons"]}  # type: ignore[attr-defined]
        assert platforms == {"north"}

    served(tmp_path, test, warm=True, consent="assumed")


def test_a_list_that_was_replaced_meanwhile_gets_no_older_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event comes while reasons are being made: those are not kept."""
    who = account(4)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        lister = service.tenant().lister
        await told(client, who, k=20, reasons=1)
        await until(all_ready(lister))
        key = (service.tenant().live.state.person(*who.values()), "source")
        top = lister._kept[key].top
        lister.reasons._waiting[key] = None
        (turn_of_key,) = lister.reasons.turn(service.tenant().live, lister._kept)
        assert turn_of_key.top is top
        assert (await client.post("/v1/events", json={"events": [event(9, who)]})).status_code == 202
        await told(client, who, k=20)
        older = [[(1, 1.0)]] * 20
        lister.reasons.keep([turn_of_key], [older], lister._kept)
        assert lister.reasons.find(key, lister._kept[key].top.keep(slice(20)), 1) != older

    served(tmp_path, test, warm=True)


def test_of_a_model_that_explains_slowly_only_the_newest_lists_wait() -> None:
    reasons, live = Reasons(), Live.build(recommender(), Version("m", "v"), [], b"", rules=LiveRules())
    reasons.want([(person, "source") for person in range(50)], live)
    assert reasons.waiting == 50
    reasons._seconds = LONGEST / 10
    assert reasons.turn(live, {}) == []
    assert list(reasons._waiting) == [(person, "source") for person in range(40, 49)], "one had its turn"


def test_once_reasons_are_wanted_quick_ones_are_made_ready_for_each_model(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        def prepared() -> bool:
            scorers = service.tenant().live.scorers.values()
            return all(one.summed._made for scorer in scorers for one in scorer._quick if one.summed is not None)

        assert not prepared()
        await told(client, account(1), k=3, reasons=1)
        await until(prepared)
        put = {**item(0), "item": "quite-new", "domain": "source", "title": "Quite new"}
        assert (await client.put("/v1/items", json={"items": [put]})).status_code == 200
        await until(prepared)
        await told(client, account(1), k=3, reasons=1)

    served(tmp_path, test, warm=True)
