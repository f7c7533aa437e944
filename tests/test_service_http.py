"""The service over HTTP, in this process: lists, events, items, persons, models; limits, keys, errors."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.small_service import account, event, item, models, recommender, served

from isthmus.encode.template import Template
from isthmus.service.core import Service
from isthmus.service.direct import BUSY
from isthmus.service.lists.scoring import Ask

Client = httpx.AsyncClient


async def listed(client: Client, who: dict[str, str], domain: str = "source", **more: object) -> list[str]:
    answer = await client.post("/v1/recommend", json={"persons": [who], "target": domain, **more})
    assert answer.status_code == 200, answer.text
    return [place["item"] for place in answer.json()["lists"][0]["items"]]


def test_an_accepted_event_changes_the_next_list(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        first = await listed(client, account())
        assert await listed(client, account()) == first, "from the list kept ready"
        number = recommender().items.filter(domain="source")["item"].to_list().index(first[0])
        done = await client.post("/v1/events", json={"events": [event(number)]})
        assert done.status_code == 202
        assert done.json()["accepted"] == done.json()["data_version"] == 1
        second = await listed(client, account())
        assert first[0] not in second
        assert second[:5] != first[1:6]
        again = await client.post("/v1/recommend", json={"persons": [account()], "k": 2, "scores": True})
        said = again.json()
        assert (said["model"], said["data_version"], said["degraded"]) == ("first", 1, False)
        assert [one["domain"] for one in said["lists"]] == ["source", "target"]
        scores = [place["score"] for place in said["lists"][0]["items"]]
        assert scores == sorted(scores, reverse=True)

    served(tmp_path, test)


def test_sending_again_changes_nothing_and_a_restart_knows_all(tmp_path: Path) -> None:
    new = {"platform": "north", "user": "新用户 / 1"}
    sent = [event(3, new, id="a"), event(4, new, ts="2026-01-01T00:00:00Z"), event(5, new)]

    async def test(client: Client, service: Service) -> None:
        first = (await client.post("/v1/events", json={"events": sent})).json()
        assert (first["accepted"], first["duplicates"]) == (3, [])
        second = (await client.post("/v1/events", json={"events": sent[:2]})).json()
        assert (second["accepted"], second["duplicates"]) == (0, first["ids"][:2])
        other = (await client.post("/v1/events", json={"events": [event(9, new, id="a")]})).json()
        assert other["conflicts"] == ["a"]
        before.append(await listed(client, new))

    before: list[list[str]] = []
    served(tmp_path, test)

    async def later(client: Client, service: Service) -> None:
        assert service.tenant().live.seq >= 3
        assert await listed(client, new) == before[0]
        assert await listed(client, {"platform": "north", "user": "nobody"}) != before[0]

    served(tmp_path, later)


def test_what_is_asked_for_is_kept_to(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        every = await listed(client, account(), k=1000)
        assert await listed(client, account(), k=5) == every[:5]
        out = [{"platform": "north", "item": every[0]}, {"platform": "north", "item": every[2]}]
        assert await listed(client, account(), k=3, exclude=out) == [every[1], *every[3:5]]
        assert await listed(client, account(), filters={"platforms": ["south"]}) == []
        assert await listed(client, account(), k=5, filters={"platforms": ["north"]}) == every[:5]
        with_seen = await listed(client, account(), k=1000, exclude_seen=False)
        assert set(with_seen) > set(every)
        many = [account(n) for n in range(20)]
        said = (await client.post("/v1/recommend", json={"persons": many, "k": 3})).json()["lists"]
        assert [(one["user"], one["domain"]) for one in said] == [
            (who["user"], domain) for who in many for domain in ("source", "target")
        ]
        for one in said[::2]:
            alone = await listed(client, {"platform": "north", "user": one["user"]}, k=3)
            assert [place["item"] for place in one["items"]] == alone

    served(tmp_path, test)


def test_what_was_met_just_now_counts_as_events_do_and_is_not_kept(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        sent, told = ({"platform": "north", "user": name} for name in ("sent", "told"))
        nobody = await listed(client, told, k=30)
        met = [{**item(n), "event": word} for n, word in ((3, "like"), (8, "click"), (5, "impression"))]
        unknown = {"platform": "north", "item": "no such item"}
        for one in met[:2]:
            await client.post("/v1/events", json={"events": [{**sent, **one}]})
        for domain in ("source", "target"):
            wanted = await listed(client, sent, domain, k=30)
            assert await listed(client, told, domain, k=30, context=[*met, unknown]) == wanted != nobody
        assert await listed(client, told, k=30) == nobody
        assert (await client.get("/v1/persons/north:told")).status_code == 404
        assert service.tenant().log.seq == 2, "it is in no log"
        both = {"persons": [told], "target": "source", "k": 3, "reasons": 2, "context": met}
        said = (await client.post("/v1/recommend", json=both)).json()["lists"][0]["items"]
        assert {why["item"] for place in said for why in place["reasons"]} == {met[0]["item"], met[1]["item"]}
        late = service.tenant().lister._cheaper(
            Ask(("north", "told"), "source", 30, context=(("north", nobody[0], "like"),))
        )
        assert nobody[0] not in [late.top.live.shelf.ids[row] for row in late.top.rows], "nor is it in a cheaper list"
        two = await client.post("/v1/recommend", json={"persons": [told, sent], "context": met})
        assert two.status_code == 422
        ban = {"consents": [{"from_platform": "north", "to_platform": "*", "allowed": False}]}
        await client.put("/v1/consents/north:sent", json=ban)
        before = await listed(client, sent, "target", k=30)
        assert await listed(client, sent, "target", k=30, context=[item(11), item(12)]) == before, "it was forbidden"

    served(tmp_path, test, consent="assumed")


def test_reasons_name_the_history_and_what_it_gives(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        new = {"platform": "north", "user": "new"}
        await client.post("/v1/events", json={"events": [event(3, new), event(8, new)]})
        body = {"persons": [new], "k": 3, "reasons": 2, "scores": True}
        said = (await client.post("/v1/recommend", json=body)).json()["lists"]
        history = {item(3)["item"], item(8)["item"]}
        reasons = [why for one in said for place in one["items"] for why in place["reasons"]]
        assert {why["item"] for why in reasons} == history
        assert any(abs(why["contribution"]) > 0.05 for why in reasons)
        best = said[0]["items"][0]
        wanted = {"platform": best["platform"], "item": best["item"]}
        told = (await client.post("/v1/explain", json={**new, "item": wanted})).json()
        assert told["score"] == best["score"]
        phrases = [one.pop("phrases") for one in told["evidence"]]
        assert told["evidence"] == best["reasons"]
        assert any(phrases), "the world's texts share words"
        live = service.tenant().live
        text = Template().render(live.shelf.table[[live.row(**wanted)]])[0]
        assert all(phrase in text for some in phrases for phrase in some), (phrases, text)
        row, person = live.row(**wanted), live.state.person(**new)
        whole = live.state.batch([person])
        without = live.scorer("source").score(whole.keep(whole.items != live.row("north", told["evidence"][0]["item"])))
        place = np.searchsorted(live.scorer("source").items, row)
        assert told["evidence"][0]["contribution"] == pytest.approx(told["score"] - float(without[0, place]), abs=2e-4)
        nobody = (await client.post("/v1/explain", json={**new, "user": "none", "item": wanted})).json()
        assert nobody["evidence"] == []
        assert nobody["faithfulness"] is None
        assert nobody["score"] == nobody["score_without_history"] == told["score_without_history"]

    served(tmp_path, test)


def test_an_explanation_says_how_far_its_evidence_is_the_whole_story(tmp_path: Path) -> None:
    single, many = ({"platform": "north", "user": name} for name in ("single", "many"))

    async def told(client: Client, who: dict[str, str], wanted: str, most: int = 10) -> dict:
        asked = {**who, "item": {"platform": "north", "item": wanted}, "most": most}
        return (await client.post("/v1/explain", json=asked)).json()

    async def test(client: Client, service: Service) -> None:
        met = [event(3, single), *(event(number, many, id=f"many-{number}") for number in (3, 8, 11, 17, 25))]
        await client.post("/v1/events", json={"events": met})
        best = (await listed(client, single))[0]
        only = (await told(client, single, best))["faithfulness"]
        assert only == {"of": 1, "comprehensiveness": 1.0, "sufficiency": 1.0}, "there is nothing else"
        live = service.tenant().live
        whole = live.state.batch([live.state.person(**many)])
        judged = 0
        for wanted in (await listed(client, many))[:5]:
            said = await told(client, many, wanted)
            found, place = said["faithfulness"], live.scorer("source").items == live.row("north", wanted)
            alike = [why for why in said["evidence"] if why["contribution"] > 0][:3]
            mine = np.isin(whole.items, [live.row(why["platform"], why["item"]) for why in alike])
            parts = [whole, whole.keep(whole.items < 0), whole.keep(~mine), whole.keep(mine)]
            s, s0, without, alone = (float(live.scorer("source").score(part)[0, place][0]) for part in parts)
            assert s > s0, "the history speaks for what is listed first"
            if not alike:  # nothing alone speaks for it: without an event the others count for more
                assert found is None
                continue
            judged += 1
            assert found["of"] == len(alike)
            assert found["comprehensiveness"] == pytest.approx((s - without) / (s - s0), abs=2e-3)
            assert found["sufficiency"] == pytest.approx((alone - s0) / (s - s0), abs=2e-3)
        assert judged >= 3
        wanted = (await listed(client, many))[0]
        assert (await told(client, many, wanted, most=1))["faithfulness"]["of"] == 1

    served(tmp_path, test)


def test_a_new_item_can_be_listed_at_once_and_taken_off_again(tmp_path: Path) -> None:
    model = recommender().items.filter(domain="source").row(6, named=True)
    new = {"platform": "north", "item": "新书/1", "domain": "source", "title": model["title"], "text": model["text"]}
    alike = {"platform": "north", "item": model["item"]}

    async def test(client: Client, service: Service) -> None:
        who = {"platform": "north", "user": "waits"}
        early = {"events": [{**who, "platform": "north", "item": new["item"], "event": "like"}]}
        receipt = await client.post("/v1/events", json=early)
        assert receipt.status_code == 202
        assert receipt.json()["unknown"] == receipt.json()["ids"]
        assert service.tenant().live.state.waiting == 1
        before = await listed(client, who, k=5)
        done = await client.put("/v1/items", json={"items": [new]})
        assert (done.json()["written"], done.json()["unchanged"]) == (1, 0), done.text
        assert service.tenant().live.state.waiting == 0
        assert await listed(client, who, k=5) != before, "the event that waited counts now"
        assert (await client.post("/v1/events", json=early)).json()["unknown"] == []
        assert new["item"] in await listed(client, account(), k=1000)
        similar = (await client.post("/v1/similar", json={**alike, "target": "source", "k": 15})).json()
        assert new["item"] in [place["item"] for place in similar["lists"][0]["items"]]
        same = await client.put("/v1/items", json={"items": [new]})
        assert (same.json()["written"], same.json()["unchanged"]) == (0, 1)
        changed = await client.put("/v1/items", json={"items": [{**new, "title": "Other"}]})
        assert changed.json()["written"] == 1
        live = service.tenant().live
        assert live.shelf.title(live.row("north", "新书/1")) == "Other"
        conflict = await client.put("/v1/items", json={"items": [{**new, **alike, "title": "Other"}]})
        assert conflict.status_code == 409
        assert (await client.put("/v1/items", json={"items": [{**new, "domain": "sorce"}]})).status_code == 404
        for expected in (True, False):
            gone = await client.delete("/v1/items/north:%E6%96%B0%E4%B9%A6%2F1")
            assert gone.json()["removed"] is expected
        assert new["item"] not in await listed(client, account(), k=1000)
        assert (await client.delete("/v1/items/north:none")).status_code == 404
        digest.append(live.state.digest())

    digest: list[str] = []
    served(tmp_path, test)

    async def later(client: Client, service: Service) -> None:
        assert service.tenant().live.state.digest() == digest[0], "a restart replays the log"
        assert new["item"] not in await listed(client, account(), k=1000)
        await client.put("/v1/items", json={"items": [{**new, "title": "Other"}]})
        assert new["item"] in await listed(client, account(), k=1000)

    served(tmp_path, later)


def test_a_person_can_be_exported_sent_again_and_erased(tmp_path: Path) -> None:
    who = account(1)
    path = f"/v1/persons/north:{who['user']}"

    async def test(client: Client, service: Service) -> None:
        await client.post("/v1/events", json={"events": [event(3, who), event(4, who, value=4.5)]})
        told = (await client.get(path)).json()
        assert len(told["accounts"]) >= 1
        assert [deed["item"] for deed in told["events"]] == [item(3)["item"], item(4)["item"]]
        assert told["model_history"]
        again = await client.post("/v1/events", json={"events": told["events"]})
        assert (again.json()["accepted"], again.json()["conflicts"]) == (0, []), "it is the same"
        nobody = await listed(client, {"platform": "north", "user": "never seen"})
        assert await listed(client, who) != nobody
        gone = (await client.delete(path)).json()
        assert (gone["events"], gone["model_holds_history"], len(gone["receipt"])) == (2, True, 64)
        assert await listed(client, who) == nobody
        assert (await client.get(path)).status_code == (await client.delete(path)).status_code == 404
        for other in told["accounts"]:
            assert await listed(client, other) == nobody

    served(tmp_path, test)
    held = [file.name for file in tmp_path.iterdir() if who["user"].encode() in file.read_bytes()]
    assert held == []

    async def later(client: Client, service: Service) -> None:
        assert (await client.get(path)).status_code == 404

    served(tmp_path, later)


def test_models_change_under_load_without_a_failed_request(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        persons = [account(n) for n in range(8)]
        seen: list[tuple[str, int, int]] = []
        going = True

        async def ask() -> None:
            while going:
                answer = await client.post("/v1/recommend", json={"persons": persons, "k": 3})
                said = answer.json()
                seen.append((said.get("model"), answer.status_code, len(said.get("lists", []))))
                await asyncio.sleep(0.01)

        askers = [asyncio.create_task(ask()) for _ in range(3)]
        done = await client.post("/v1/models/second/activate")
        assert done.json()["model"] == "second"
        back = await client.post("/v1/models/rollback")
        assert back.json()["model"] == "first"
        event_after = await client.post("/v1/events", json={"events": [event(2)]})
        assert event_after.status_code == 202
        going = False
        await asyncio.gather(*askers)
        assert {(name, status, lists) for name, status, lists in seen} == {("first", 200, 16), ("second", 200, 8)}
        assert (await client.post("/v1/models/rollback")).status_code == 409, "nothing left to go back to"
        await client.post("/v1/models/second/activate")
        told = (await client.get("/v1/models")).json()
        assert (told["active"], told["previous"][-1]) == ("second", "first")
        assert [one["name"] for one in told["models"] if one["active"]] == ["second"]
        for wrong in ("third", "..", "%2e%2e%2fetc"):
            assert (await client.post(f"/v1/models/{wrong}/activate")).status_code == 404, wrong
        damaged = models() / "damaged"
        damaged.mkdir()
        for file in (models() / "first").iterdir():
            content = bytearray(file.read_bytes())
            content[-1] ^= file.name == "items.parquet"
            (damaged / file.name).write_bytes(content)
        refused = await client.post("/v1/models/damaged/activate")
        assert refused.status_code == 422
        assert "was changed" in refused.json()["detail"]
        assert (await client.get("/v1/models")).json()["active"] == "second"

    served(tmp_path, test)

    async def later(client: Client, service: Service) -> None:
        assert service.tenant().live.version.name == "second", "remembered over a restart"

    served(tmp_path, later)
    (tmp_path / "default.model.json").write_text('{"given": "x", "act')

    async def again(client: Client, service: Service) -> None:
        assert service.tenant().live.version.name == "first", "a damaged pointer: the model given"

    served(tmp_path, again)


def test_busy_operations_are_answered_before_routing_and_described_all_the_same(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        described = (await client.get("/openapi.json")).json()["paths"]
        for method, path in BUSY:
            assert method.lower() in described[path]
            wrong = await client.request(method, path, content=b"{", headers={"content-type": "application/json"})
            assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")
            assert wrong.json()["request_id"] == wrong.headers["x-request-id"]
            assert (await client.get(path)).status_code == 405

    served(tmp_path, test)
