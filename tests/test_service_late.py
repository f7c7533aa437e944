"""Lists that are late come from a cheaper layer; lists are made ready in idle time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.small_service import account, event, item, recommender, served

from isthmus.service.core import Service

Client = httpx.AsyncClient


async def listed(client: Client, who: dict[str, str], k: int) -> list[str]:
    answer = await client.post("/v1/recommend", json={"persons": [who], "target": "source", "k": k})
    assert answer.status_code == 200, answer.text
    return [place["item"] for place in answer.json()["lists"][0]["items"]]


def test_late_lists_come_from_a_cheaper_layer_and_say_so(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        who = account()
        first = await listed(client, who, k=5)
        lister = service.tenant().lister
        await lister.stop()  # nothing is scored any more
        object.__setattr__(lister._settings, "deadline", 0.02)
        seen = recommender().items.filter(domain="source")["item"].to_list().index(first[0])
        await client.post("/v1/events", json={"events": [event(seen)]})
        old = (await client.post("/v1/recommend", json={"persons": [who], "target": "source", "k": 4})).json()
        assert (old["degraded"], old["lists"][0]["layer"]) == (True, "cached")
        assert [place["item"] for place in old["lists"][0]["items"]] == first[1:5], "less what was met since"
        new = {"persons": [account(5)], "target": "source", "k": 4}
        popular = (await client.post("/v1/recommend", json=new)).json()
        assert (popular["degraded"], popular["lists"][0]["layer"]) == (True, "popular")
        assert len(popular["lists"][0]["items"]) == 4
        filtered = {**new, "filters": {"platforms": ["south"]}}
        assert (await client.post("/v1/recommend", json=filtered)).json()["lists"][0]["items"] == []
        text = (await client.get("/metrics")).text
        assert 'isthmus_lists_total{layer="cached"} 1.0' in text
        assert 'isthmus_lists_total{layer="popular"} 2.0' in text

    served(tmp_path, test)


@pytest.mark.parametrize("taken_in", [False, True])
def test_the_cheaper_list_is_that_of_before_an_item_came(tmp_path: Path, taken_in: bool) -> None:
    async def test(client: Client, service: Service) -> None:
        who, gone = account(), account(5)
        first = await listed(client, who, k=5)
        await listed(client, gone, k=5)
        lister = service.tenant().lister
        if not taken_in:
            await lister.stop()
        for name in ("new 1", "new 2"):
            new = {**item(), "item": name, "domain": "source", "title": name}
            assert (await client.put("/v1/items", json={"items": [new]})).status_code == 200
            while taken_in and lister._older.waiting:
                await asyncio.sleep(0.01)
        await lister.stop()  # nothing is scored any more
        object.__setattr__(lister._settings, "deadline", 0.02)
        nobody = {"platform": "north", "user": "nobody"}
        asked = {"persons": [who, gone, nobody], "target": "source", "k": 4}
        seen = recommender().items.filter(domain="source")["item"].to_list().index(first[0])
        await client.post("/v1/events", json={"events": [event(seen, who)]})
        lists = (await client.post("/v1/recommend", json=asked)).json()["lists"]
        assert {one["layer"] for one in lists} == {"cached"}
        assert [place["item"] for place in lists[0]["items"]] == first[1:5], "less what was met since"
        assert lists[1]["items"] != lists[2]["items"]
        assert (await client.delete(f"/v1/persons/{gone['platform']}:{gone['user']}")).status_code == 200
        after = (await client.post("/v1/recommend", json=asked)).json()["lists"]
        assert after[0]["items"] == lists[0]["items"]
        assert after[1]["items"] == after[2]["items"] == lists[2]["items"], "nothing is left of who was erased"
        ban = {"consents": [{"from_platform": "*", "to_platform": "*", "allowed": False}]}
        done = await client.put(f"/v1/consents/{who['platform']}:{who['user']}", json=ban)
        assert done.status_code == 200, done.text
        banned = (await client.post("/v1/recommend", json=asked)).json()["lists"][0]
        assert banned["layer"] == "popular", "nor a list that holds what was forbidden since"
        models_old = {id(kept.live) for kept in lister._older._coming.values()}
        assert taken_in is not bool(models_old), "once taken in, no older model is held"

    served(tmp_path, test)


def test_lists_are_made_ready_in_idle_time_and_again_after_events(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        lister, live = service.tenant().lister, service.tenant().live
        lists = 2 * (live.state.persons + 1)  # and those of somebody unknown
        for _ in range(500):
            if not lister.cold and lister.kept == lists:
                break
            await asyncio.sleep(0.02)
        assert lister.kept == lists
        person = live.state.person(**account())
        before = lister._kept[person, "source"]
        await client.post("/v1/events", json={"events": [event(2)]})
        for _ in range(500):
            if lister._kept[person, "source"] is not before:
                break
            await asyncio.sleep(0.02)
        assert lister._kept[person, "source"].stamp == live.state.stamp(person) == 1

    served(tmp_path, test, warm=True)
