"""Reasons, explanations, likeness and comparisons where scoring is slow: bounded in time and number, and said."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.small_service import account, event, item, served

from isthmus.service.core import Service
from isthmus.service.lists import answers
from isthmus.service.lists import lister as lists
from isthmus.service.lists.beside import PATIENCE
from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.vault import Vault
from isthmus.service.looking import compare

Client = httpx.AsyncClient
SLOW = 0.1
BOUND: dict[str, list[str]] = {"every": [], "north": ["north"]}
#: Seconds that a busy machine may take besides.
SLACK = 1.0


def slowed(work: Callable[..., object], seconds: list[float]) -> Callable[..., object]:
    """Return what does the same, later."""

    def slow(*some: object) -> object:
        time.sleep(seconds[0])
        return work(*some)

    return slow


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that each piece of scoring besides lists takes; a test changes them."""
    said = [SLOW]
    monkeypatch.setattr(lists, "without_each", slowed(lists.without_each, said))
    monkeypatch.setattr(answers, "alike", slowed(answers.alike, said))
    monkeypatch.setattr(compare, "ranked", slowed(compare.ranked, said))
    return said


async def timed(client: Client, path: str, body: dict[str, object]) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    return await client.post(path, json=body), time.monotonic() - began


async def most_waiting(service: Service, asked: asyncio.Future[object]) -> int:
    """Return how many pieces waited at most until it was answered."""
    most = 0
    while not asked.done():
        text = service.monitor.text().decode()
        found = re.findall(r'isthmus_explanations_waiting{tenant="default"} ([0-9.]+)', text)
        most = max(most, int(float(found[0])))
        await asyncio.sleep(0.005)
    return most


def test_without_time_for_reasons_lists_come_without_and_say_so(tmp_path: Path, seconds: list[float]) -> None:
    deadline = 0.3
    # reasons of a list that leaves out something else are kept for nobody
    ask = {"persons": [account()], "target": "source", "k": 3, "exclude": [{"platform": "north", "item": "none"}]}

    async def test(client: Client, service: Service) -> None:
        first = (await client.post("/v1/recommend", json={**ask, "reasons": 1})).json()
        assert (first["degraded"], first["degraded_by"]) == (False, [])
        assert all(one["reasons"] for one in first["lists"][0]["items"])
        crowd = asyncio.gather(*(timed(client, "/v1/recommend", {**ask, "reasons": 1}) for _ in range(60)))
        waited = asyncio.create_task(most_waiting(service, crowd))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        plain, took = await timed(client, "/v1/recommend", ask)
        assert (plain.status_code, plain.json()["degraded"], took < deadline + SLACK) == (200, False, True)
        found = await crowd
        assert 0 < await waited <= 5
        assert {said.status_code for said, _ in found} == {200}
        assert max(took for _, took in found) < 2 * deadline + SLACK
        bare = [said.json() for said, _ in found if said.json()["degraded"]]
        assert 50 < len(bare) < 60, "some had time"
        for said in bare:
            assert said["degraded_by"] == ["no time for reasons"]
            assert [one["item"] for one in said["lists"][0]["items"]] == [
                one["item"] for one in first["lists"][0]["items"]
            ]
            assert not any("reasons" in one for one in said["lists"][0]["items"])
        seconds[0] = 2 * deadline
        late = (await client.post("/v1/recommend", json={**ask, "reasons": 1})).json()
        assert late["degraded_by"] == ["no time for reasons"], "nobody else is there, and still it is too slow"
        seconds[0] = 0.0
        await asyncio.sleep(2 * deadline)
        assert not (await client.post("/v1/recommend", json={**ask, "reasons": 1})).json()["degraded"]

    served(tmp_path, test, deadline=deadline, waiting=5)


PATHS: dict[str, dict[str, object]] = {
    "/v1/explain": {**account(), "item": item(3)},
    "/v1/similar": {**item(3), "target": "source", "k": 3},
    "/v1/compare": {"account": account(), "target": "source", "k": 3},
}


@pytest.mark.parametrize("path", PATHS)
def test_what_has_no_simpler_form_is_refused_in_time(tmp_path: Path, seconds: list[float], path: str) -> None:
    deadline = 0.1

    async def test(client: Client, service: Service) -> None:
        crowd = asyncio.gather(*(timed(client, path, PATHS[path]) for _ in range(60)))
        waited = asyncio.create_task(most_waiting(service, crowd))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        listed = (await client.post("/v1/recommend", json={"persons": [account()], "k": 3})).json()
        assert [len(one["items"]) for one in listed["lists"]] == [3, 3]
        found = await crowd
        assert 0 < await waited <= 5
        statuses = [said.status_code for said, _ in found]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 2
        assert all("retry-after" in said.headers for said, _ in found if said.status_code == 503)
        assert max(took for _, took in found) < PATIENCE * deadline + SLACK
        seconds[0] = PATIENCE * deadline + 0.5
        refused, took = await timed(client, path, PATHS[path])
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert took < PATIENCE * deadline + 0.4
        seconds[0] = 0.0
        await asyncio.sleep(0.6)
        assert (await client.post(path, json=PATHS[path])).status_code == 200

    served(tmp_path, test, deadline=deadline, waiting=5)


def test_reasons_are_made_once_for_a_list_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    scored = lists.without_each

    def counted(*some: object) -> object:
        made.append(1)
        return scored(*some)  # type: ignore[arg-type]

    monkeypatch.setattr(lists, "without_each", counted)
    who, vault = account(), Vault(tmp_path)
    keys = {name: vault.create(tenant="default", scopes=SCOPES, platforms=some)[1] for name, some in BOUND.items()}
    vault.close()

    async def test(client: Client, service: Service) -> None:
        async def told(key: str = "every", **more: object) -> dict[str, object]:
            body = {"persons": [who], "target": "source", "k": 5, "reasons": 2, **more}
            headers = {"authorization": f"Bearer {keys[key]}"}
            answer = await client.post("/v1/recommend", json=body, headers=headers)
            found: dict[str, object] = answer.json()["lists"][0]
            return found

        first = await told()
        assert (await told(), len(made)) == (first, 1)
        for more in ({"reasons": 1}, {"k": 4}, {"key": "north"}):
            before = len(made)
            assert await told(**more) == await told(**more)  # type: ignore[arg-type]
            assert len(made) == before + 1, more
        before = len(made)
        headers = {"authorization": f"Bearer {keys['every']}"}
        await client.post("/v1/events", json={"events": [event(9, who)]}, headers=headers)
        named = {why["item"] for one in (await told())["items"] for why in one["reasons"]}  # type: ignore[attr-defined]
        assert item(9)["item"] in named
        assert len(made) == before + 1, "another history gives other reasons"
        lister = service.tenant().lister
        assert len(lister.told) == 4
        await client.delete(f"/v1/persons/{who['platform']}:{who['user']}", headers=headers)
        assert not len(lister.told), "nothing is kept of the erased"

    served(tmp_path, test)
