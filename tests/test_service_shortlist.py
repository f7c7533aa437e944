"""The service with a large catalogue: lists from a shortlist keep every promise that lists of a small one keep."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from tests.small_service import Test, account, event, item, models, recommender, served

from isthmus.recommender import shortlist, sketches
from isthmus.recommender.parts import Columns
from isthmus.service.core import Service

NEW = {"platform": "north", "item": "late 新", "domain": "source"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Propose less than there is, so that 40 items stand for many."""
    monkeypatch.setattr(shortlist, "PROPOSED", 12)
    monkeypatch.setattr(shortlist, "FOR_A_PLACE", 0)
    monkeypatch.setattr(shortlist, "LEFT", 0)
    monkeypatch.setattr(sketches, "ENTRIES", 60)


async def names(client: httpx.AsyncClient, path: str = "/v1/recommend", **more: object) -> list[str]:
    asked = {"persons": [account()], "target": "source", "k": 5} if path == "/v1/recommend" else {"target": "source"}
    answer = await client.post(path, json={**asked, **more})
    assert answer.status_code == 200, answer.text
    return [one["item"] for one in answer.json()["lists"][0]["items"]]


def test_whether_lists_are_from_a_shortlist_is_a_question_of_size(tmp_path: Path) -> None:
    found = {}
    for size in (0, 1, 40, 41):

        async def test(client: httpx.AsyncClient, service: Service, size: int = size) -> None:
            found[size] = sorted(service.tenant("default").live.shortlists), await names(client)

        served(tmp_path / str(size), test, approximate_from=size)
    assert recommender().targets["source"].items.size == 40
    assert [found[size][0] for size in (0, 1, 40, 41)] == [[], ["source", "target"], ["source", "target"], []]
    assert found[0][1] == found[41][1]
    assert len(set(found[1][1]) & set(found[0][1])) >= 4, "nearly the same lists"


def run(tmp_path: Path, test: Test, **more: object) -> None:
    served(tmp_path, test, approximate_from=1, **more)


def test_events_count_and_what_was_met_is_left_out(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        first = await names(client)
        met = {**event(who=account()), "item": first[0]}
        assert (await client.post("/v1/events", json={"events": [{**met, "id": "1"}]})).status_code == 202
        second = await names(client)
        assert first[0] not in await names(client, k=30)
        assert len(second) == 5
        assert first[1] not in await names(client, exclude=[{"platform": "north", "item": first[1]}])
        gone = await client.delete(f"/v1/persons/north:{account()['user']}")
        assert gone.status_code == 200
        assert await names(client) == await names(client, persons=[{"platform": "north", "user": "nobody"}])

    run(tmp_path, test)


def test_a_new_item_is_listed_at_once_and_a_withdrawn_one_no_more(tmp_path: Path) -> None:
    like = recommender().items.filter(platform="north", item=item(3)["item"]).row(0, named=True)
    words = {name: like[name] for name in ("title", "text", "categories")}

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        put = await client.put("/v1/items", json={"items": [{**NEW, **words}]})
        assert put.status_code == 200, put.text
        assert service.tenant("default").live.shortlists["source"].columns.size == 41
        near = await names(client, "/v1/similar", **item(3), k=8)
        assert NEW["item"] in near, "it has the text of that item"
        assert item(3)["item"] not in near
        reader = {"platform": "north", "user": "reader"}
        await client.post("/v1/events", json={"events": [{**event(3, reader), "id": "2"}]})
        assert NEW["item"] in await names(client, persons=[reader], k=15)
        assert (await client.delete(f"/v1/items/north:{NEW['item']}")).status_code == 200
        assert NEW["item"] not in await names(client, persons=[reader], k=15)
        assert NEW["item"] not in await names(client, "/v1/similar", **item(3), k=8)

    run(tmp_path, test)


def test_indices_learn_what_is_withdrawn_and_their_recall_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.small_service.WORDS", ("popularity", "ials", "tfidf"))
    monkeypatch.setattr("isthmus.recommender.nearest.LARGE", 8)
    for kept in (recommender, models):
        kept.cache_clear()

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        near = service.tenant("default").live.shortlists["source"]._dense[0].near
        for place in range(6):
            assert (await client.delete(f"/v1/items/north:{item(place)['item']}")).status_code == 200
        assert int(near._off.sum()) == 6
        said = (await client.get("/v1/overview")).json()["index_recall"]
        until = time.monotonic() + 20
        while said["source"] is None and time.monotonic() < until:
            await asyncio.sleep(0.02)
            said = (await client.get("/v1/overview")).json()["index_recall"]
        assert said["source"] == pytest.approx(1.0)
        assert 'isthmus_index_recall_ratio{domain="source",tenant="default"} 1.0' in (await client.get("/metrics")).text
        await client.put("/v1/items", json={"items": [{**item(0), "domain": "source"}]})
        assert int(near._off.sum()) == 5

    try:
        run(tmp_path, test)
    finally:
        for kept in (recommender, models):
            kept.cache_clear()


def test_exploring_gives_new_items_their_places(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        late = [{**NEW, "item": f"late-{place}", "title": "nothing like it"} for place in range(4)]
        await client.put("/v1/items", json={"items": late})
        listed = await names(client, k=10)
        assert len([name for name in listed if name.startswith("late-")]) == 2

    run(tmp_path, test, explore=0.2, explore_bonus=50.0)


def test_reasons_say_what_the_list_rests_on(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        asked = {"persons": [account()], "target": "source", "k": 3, "reasons": 2, "scores": True}
        one = (await client.post("/v1/recommend", json=asked)).json()["lists"][0]["items"][0]
        said = {**account(), "item": {"platform": one["platform"], "item": one["item"]}}
        told = (await client.post("/v1/explain", json=said)).json()
        assert told["score"] == pytest.approx(one["score"], abs=1e-3)
        assert [why["contribution"] for why in one["reasons"]] == pytest.approx(
            [why["contribution"] for why in told["evidence"][:2]], abs=1e-3
        )

    run(tmp_path, test)


def test_a_filter_that_leaves_little_is_answered_from_all_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlist, "LEFT", 5)
    asked: list[int] = []
    best = Columns.best

    def counted(columns: Columns, some: object, values: object, count: int) -> object:
        asked.append(count)
        return best(columns, some, values, count)  # type: ignore[arg-type]

    monkeypatch.setattr(Columns, "best", counted)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        assert await names(client, filters={"platforms": ["south"]}) == []
        assert len(await names(client, filters={"platforms": ["north"]}, k=4)) == 4

    run(tmp_path, test)
    assert asked, "something was proposed first"
