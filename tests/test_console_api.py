"""What the console asks: models side by side, items, the last hour, the audit log, what a key opens."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import apsw
import httpx
import pytest
from tests.small_service import account, event, item, models, recommender, served
from tests.test_service_keys import bearer

from isthmus.service.core import Service
from isthmus.service.lists.live import clock
from isthmus.service.lock.vault import Vault
from isthmus.service.looking.pages import DAY
from isthmus.service.looking.trend import Trend
from isthmus.service.rollout.pointer import Trial
from isthmus.service.routes.console import assets

Client = httpx.AsyncClient


async def compared(client: Client, **body: object) -> dict:
    answer = await client.post("/v1/compare", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_side_of_the_model_that_answers_is_its_list(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        who = account()
        await client.post("/v1/events", json={"events": [event(3, who)]})
        said = await compared(client, account=who, models=["first", "second"], k=10, scores=True)
        lists = (await client.post("/v1/recommend", json={"persons": [who], "scores": True})).json()["lists"]
        first, second = said["sides"]
        assert (first["active"], second["active"], said["known"]) == (True, False, True)
        assert said["history"][0]["item"] == item(3)["item"], "the newest first"
        assert said["events"] == len(said["history"])
        for one, other in zip(first["lists"], lists, strict=True):
            keys = ("item", "score")
            assert [[place[key] for key in keys] for place in one["items"]] == [
                [place[key] for key in keys] for place in other["items"]
            ]
            assert one["shared"] == 1.0
            assert {place["moved"] for place in one["items"]} == {0}
        theirs = second["lists"][0]
        same = next(one for one in first["lists"] if one["domain"] == theirs["domain"])
        before = [place["item"] for place in same["items"]]
        assert [place["item"] for place in theirs["items"]] == before, "the same target under another name"
        with_seen = await compared(client, account=who, exclude_seen=False, k=100)
        seen = {place["item"] for one in with_seen["sides"][0]["lists"] for place in one["items"] if place["seen"]}
        assert item(3)["item"] in seen

    served(tmp_path, test)


def test_a_model_beside_knows_the_newest_events_and_items(tmp_path: Path) -> None:
    new = {**item(), "item": "new-1", "domain": "source", "title": recommender().items["title"][0]}

    async def test(client: Client, service: Service) -> None:
        who = {"platform": "north", "user": "fresh"}
        assert not (await compared(client, account=who))["known"]
        nobody = await compared(client, models=["second"])
        await client.post(
            "/v1/events", json={"events": [event(n, who, ts=f"2026-01-0{n + 1}T00:00:00Z") for n in range(4)]}
        )
        assert (await client.put("/v1/items", json={"items": [new]})).status_code == 200
        said = await compared(client, account=who, models=["second", "first"], k=100)
        assert said["sides"][0]["lists"][0]["items"] != nobody["sides"][0]["lists"][0]["items"]
        places = [place for one in said["sides"][0]["lists"] for place in one["items"]]
        assert "new-1" in {place["item"] for place in places}
        pasted = await compared(client, history=[item(n) for n in range(4)], models=["second"], k=5)
        assert [p["item"] for p in pasted["sides"][0]["lists"][0]["items"]] == [p["item"] for p in places[:5]]
        without = await compared(client, account=who, without=[item(0), item(1)], history=[item(0), item(1)], k=100)
        assert [len(one["items"]) for one in without["sides"][0]["lists"]]
        await client.delete("/v1/items/north:new-1")
        again = await compared(client, account=who, models=["second"], k=100)
        assert "new-1" not in {place["item"] for one in again["sides"][0]["lists"] for place in one["items"]}

    served(tmp_path, test)


def test_a_damaged_model_is_said_and_the_others_are_shown(tmp_path: Path) -> None:
    broken = models() / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "model.json").write_text('{"format": 99}')

    async def test(client: Client, service: Service) -> None:
        said = await compared(client, models=["broken", "first"])
        assert "format 99" in said["sides"][0]["problem"]
        assert said["sides"][1]["lists"]
        for body, status in (
            ({"models": ["nothing"]}, 404),
            ({"models": ["../first"]}, 404),
            ({"models": ["a"] * 5}, 422),
            ({"k": 101}, 422),
            ({"history": [{"platform": "north", "item": "nothing"}]}, 404),
            ({"target": "nothing"}, 404),
        ):
            answer = await client.post("/v1/compare", json=body)
            assert answer.status_code == status, answer.text

    try:
        served(tmp_path, test)
    finally:
        (broken / "model.json").unlink()
        broken.rmdir()


def test_a_key_for_a_platform_sees_no_history_of_another(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    key = vault.create(tenant="default", scopes=["console"], platforms=["north"])[1]
    vault.close()

    async def test(client: Client, service: Service) -> None:
        answer = await client.post("/v1/compare", json={"account": account()}, headers=bearer(key))
        said = answer.json()
        assert {one["platform"] for one in said["history"]} == {"north"}
        assert said["events"] == len(said["history"])
        body = {"account": account(), "k": 100, "exclude_seen": False}
        lists = (await client.post("/v1/compare", json=body, headers=bearer(key))).json()["sides"][0]["lists"]
        seen = {place["platform"] for one in lists for place in one["items"] if place["seen"]}
        assert seen == {"north"}, "that an item was met elsewhere is not said"
        south = {"platform": "south", "user": "x"}
        assert (await client.post("/v1/compare", json={"account": south}, headers=bearer(key))).status_code == 403

    served(tmp_path, test)


def test_items_are_found_and_described(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        await client.put(
            "/v1/items", json={"items": [{**item(), "item": "N 1/2", "domain": "source", "title": "Zyx Sea"}]}
        )
        found = (await client.get("/v1/items", params={"q": "zYX"})).json()["items"]
        assert [one["item"] for one in found] == ["N 1/2"]
        assert (await client.get("/v1/items", params={"q": "n 1/"})).json()["items"] == found
        assert len((await client.get("/v1/items", params={"q": "0"})).json()["items"]) <= 20
        await client.post("/v1/recommend", json={"persons": [account()], "k": 100, "target": "source"})
        await client.post("/v1/recommend", json={"persons": [account()], "k": 1, "target": "source"})
        said = (await client.get("/v1/items/north:N 1/2")).json()
        assert (said["title"], said["added"], said["listable"], said["removed"]) == ("Zyx Sea", True, True, False)
        assert said["exposure"]["lists"] == 2
        assert said["exposure"]["shown"] in (1, 2)
        assert said["exposure"]["mean_rank"] >= 1
        await client.post("/v1/models/second/canary", json={"share": 1.0})
        canary = await client.post("/v1/recommend", json={"persons": [account()], "target": "source"})
        assert canary.json()["model"] == "second"
        assert (await client.get("/v1/items/north:N 1/2")).json()["exposure"]["lists"] == 2, "of the model that answers"
        await client.delete("/v1/models/second/canary")
        await client.delete("/v1/items/north:N 1/2")
        said = (await client.get("/v1/items/north:N 1/2")).json()
        assert (said["removed"], said["listable"], said["hidden"]) == (True, False, ["removed"])
        assert (await client.get("/v1/items/north:nothing")).status_code == 404
        assert (await client.get("/v1/items")).status_code == 422

    served(tmp_path, test)


def test_the_overview_counts_the_last_hour(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        for _ in range(3):
            await client.post("/v1/recommend", json={"persons": [account()]})
        await client.post("/v1/recommend", json={})
        await client.post("/v1/events", json={"events": [event(3)]})
        await client.get("/v1/overview")
        said = (await client.get("/v1/overview")).json()
        assert len(said["minutes"]) == 60
        rows = {row["operation"]: row for row in said["operations"]}
        assert set(rows) == {"recommend", "events"}, "looking is no traffic"
        assert (rows["recommend"]["calls"], rows["recommend"]["refused"], rows["recommend"]["failed"]) == (4, 1, 0)
        assert 0 < rows["recommend"]["p50"] <= rows["recommend"]["p99"]
        assert sum(minute["requests"] for minute in said["minutes"]) == 5
        assert said["lists"] == {"model": 6}
        assert said["events"]["stored"] == 1
        assert said["commit"]["p99"] > 0
        assert (said["model"], said["sizes"]["data_version"]) == ("first", 1)
        assert said["model_written"] <= said["now"]
        assert said["alerts"] == []
        tenant, models = service.tenant(), service.tenant().models
        feature = next(iter(tenant.observer.features.values()))
        feature.finding = replace(feature.finding, alarm=True)
        trying = models.pointer.tried("canary", Trial("second", "v", 0.1))
        models.point(trying.over("canary", "too many failures", clock()))
        service.patrol.intact, tenant.writes.failed = False, time.monotonic()
        told = (await client.get("/v1/overview")).json()["alerts"]
        assert [one["of"] for one in told] == ["health", "drift", "models", "privacy"]
        assert told[0]["said"] == "events cannot be written"
        assert told[1]["said"] == next(iter(tenant.observer.features))
        assert told[2]["said"] == "canary second: too many failures"
        models.point(trying.over("canary", "long ago", clock() - 2 * DAY))
        assert "models" not in [one["of"] for one in (await client.get("/v1/overview")).json()["alerts"]]

    served(tmp_path, test)


def test_minutes_pass() -> None:
    now = [0.0]
    trend = Trend(lambda: now[0])
    for _ in range(3):
        trend.request("recommend", 200, 0.01)
    now[0] = 59 * 60
    trend.request("recommend", 503, 0.1)
    hour = trend.hour()
    requests = [minute["requests"] for minute in hour["minutes"]]
    assert (requests[0], requests[-1], sum(requests)) == (3, 1, 4)
    now[0] += 60
    assert sum(minute["requests"] for minute in trend.hour()["minutes"]) == 1
    now[0] += 7200
    assert trend.hour()["operations"] == []


def test_the_audit_log_is_shown_with_its_chain(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        service.vault.note("elsewhere", "x", "secret of another tenant", {})
        await client.delete(f"/v1/items/north:{item(1)['item']}")
        said = (await client.get("/v1/audit")).json()
        assert (said["intact"], said["entries"]) == (True, 1)
        assert said["newest"][0]["action"] == "item removed"
        db = apsw.Connection(str(tmp_path / "system.db"))
        db.execute("UPDATE audit SET actor = 'somebody' WHERE number = 2")
        db.close()
        assert not (await client.get("/v1/audit")).json()["intact"], "an entry that is shown is looked at"
        said = (await client.get("/v1/audit", params={"verify": True})).json()
        assert (said["intact"], said["newest"]) == (False, [])
        assert "entry 2" in said["problem"]

    served(tmp_path, test)


def test_a_report_is_found_by_its_corpus_and_shown_for_no_other_model(tmp_path: Path) -> None:
    folder = models()
    estimate = {"ndcg@10": {"mean": 0.2, "low": 0.1, "high": 0.3}}
    part = {"name": "cold person", "of": "persons", "n": 5, "systems": {"blend": estimate}}
    section = {
        "domain": "source",
        "metric": "ndcg@10",
        "main": "blend",
        "persons": 9,
        "items": 40,
        "systems": [{"name": "blend", "metrics": estimate}],
        "slices": [part],
    }
    said = {"format": 1, "title": "world", "created": "today", "sections": [section], "data": {"fingerprint": "f"}}
    place = folder / "first.report"

    async def test(client: Client, service: Service) -> None:
        empty = (await client.get("/v1/models/first/report")).json()
        assert (empty["report"], empty["domains"]) == (None, [])
        assert set(empty["weights"]) == {"source", "target"}
        place.mkdir()
        for content, found in ((said, False), ({**said, "data": {"fingerprint": "world"}}, True)):
            (place / "report.json").write_text(json.dumps(content))
            got = (await client.get("/v1/models/first/report")).json()
            assert bool(got["domains"]) == found, "a report of another corpus says nothing of this model"
        assert [cohort["name"] for cohort in got["domains"][0]["cohorts"]] == ["", "cold person"]
        await other_models(client, service, {**said, "data": {"fingerprint": "world"}})
        (place / "report.json").write_text("[")
        assert (await client.get("/v1/models/first/report")).json()["report"] is None
        assert (await client.get("/v1/models/nothing/report")).status_code == 404

    async def other_models(client: Client, service: Service, said: dict[str, object]) -> None:
        """Two models of one corpus lie beside each other."""
        found = {name: service.tenant().models.version(name).digest for name in ("first", "second")}

        async def shown(models: dict[str, str] | None) -> list[bool]:
            content = said if models is None else {**said, "models": models}
            (place / "report.json").write_text(json.dumps(content))
            got = [(await client.get(f"/v1/models/{name}/report")).json() for name in found]
            return [bool(one["domains"]) for one in got]

        assert await shown(found) == [True, True], "a report of both"
        assert await shown({"first": found["first"]}) == [True, False]
        assert await shown({"elsewhere": found["second"]}) == [False, True], "by its version, not by its name"
        assert await shown({"first": "000000000000"}) == [False, False], "a model that was fitted anew since"
        assert await shown(None) == [True, False], "by the name of its folder"
        place.rename(folder / "report")
        try:
            got = (await client.get("/v1/models/first/report")).json()
            assert got["report"] is None, "whose it is cannot be told"
        finally:
            (folder / "report").rename(place)

    try:
        served(tmp_path, test)
    finally:
        (place / "report.json").unlink(missing_ok=True)
        place.rmdir()


def test_access_says_what_a_key_opens_and_nothing_to_others(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    key = vault.create(tenant="default", scopes=["metrics"], platforms=["north"])[1]
    vault.close()

    async def test(client: Client, service: Service) -> None:
        said = (await client.get("/v1/access", headers=bearer(key))).json()
        paths = {one["path"] for one in said["operations"]}
        assert (said["scopes"], said["platforms"], said["tenant"]) == (["metrics"], ["north"], "default")
        assert "/v1/overview" in paths
        assert "/v1/audit" not in paths
        for headers in ({}, bearer(key[:-1] + "?")):
            said = (await client.get("/v1/access", headers=headers)).json()
            assert (said["locked"], said["key"], said["tenant"], said["platforms"]) == (True, None, None, [])
            assert {one["path"] for one in said["operations"]}.isdisjoint({"/v1/overview", "/v1/compare"})

    served(tmp_path, test)


def test_without_keys_everything_is_open_here(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        said = (await client.get("/v1/access")).json()
        assert said["locked"] is False
        assert {"/v1/compare", "/v1/items/{item}", "/v1/persons/{person}"} <= {
            one["path"] for one in said["operations"]
        }

    served(tmp_path, test)


@pytest.mark.parametrize("on", [True, False])
def test_the_console_can_be_left_out_and_is_strict_about_scripts(tmp_path: Path, on: bool) -> None:
    async def test(client: Client, service: Service) -> None:
        page = await client.get("/console")
        file = await client.get("/console/app.js")
        assert {page.status_code, file.status_code} == {200 if on else 404}
        policy = page.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert (await client.get("/console/..%2fgate.py")).status_code == 404
        assert (await client.get("/console/nothing.js")).status_code == 404
        assert (
            "default-src 'none'; frame-ancestors 'none'"
            in (await client.get("/livez")).headers["content-security-policy"]
        )

    served(tmp_path, test, console=on)


def test_the_files_hold_no_inline_script_style_or_foreign_address() -> None:
    for name, content in assets().items():
        text = content.decode()
        assert "http://www.w3.org" in text or "http" not in text.replace("https", "http").replace("http_status", ""), (
            name
        )
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert sink not in text, (name, sink)
        if name.endswith(".html"):
            assert "style=" not in text
            assert " on" not in text.split("<body", 1)[-1]
            assert text.count("<script") == text.count('<script type="module" src=')


def test_consents_hold_for_models_beside_too(tmp_path: Path) -> None:
    async def test(client: Client, service: Service) -> None:
        who = account()
        bodies = {"persons": [who], "target": "target", "k": 20}
        heard = (await client.post("/v1/recommend", json=bodies)).json()["lists"][0]["items"]
        one = await compared(client, account=who, target="target", k=20, models=["first"])
        assert [p["item"] for p in one["sides"][0]["lists"][0]["items"]] == [p["item"] for p in heard]
        fresh = {"platform": "north", "user": "fresh"}
        await client.post("/v1/events", json={"events": [event(n, fresh) for n in range(4)]})
        nobody = await compared(client, models=["first", "second"], k=20)
        said = await compared(client, account=fresh, models=["first", "second"], k=20)
        for side, before in zip(said["sides"], nobody["sides"], strict=True):
            for mine, theirs in zip(side["lists"], before["lists"], strict=True):
                same = [p["item"] for p in mine["items"]] == [p["item"] for p in theirs["items"]]
                assert same == (mine["domain"] == "target"), "no consent for another platform was given"

    served(tmp_path, test, consent="required")
