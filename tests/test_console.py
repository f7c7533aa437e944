"""The console in a real browser: every page loaded, empty and failing; keys, keyboard, two languages; hostile data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tests.small_console import PAGES, RULES, Watched, console
from tests.small_service import account, event, item, models

from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.vault import Vault
from isthmus.service.routes.console import assets

pytestmark = pytest.mark.browser
WHO = account()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A service with some traffic, and a report of its model."""
    report = models() / "first.report"
    report.mkdir()
    estimates = {"blend": _estimate(0.2), "knn": _estimate(0.1)}
    section = {
        "domain": "source",
        "metric": "ndcg@10",
        "main": "blend",
        "persons": 50,
        "items": 40,
        "systems": [{"name": name, "metrics": figures} for name, figures in estimates.items()],
        "slices": [{"name": "cold person", "of": "persons", "n": 5, "systems": estimates}],
        "verdict": {"sentence": "Transfer helped."},
    }
    said = {"format": 1, "title": "world", "created": "today", "sections": [section]}
    (report / "report.json").write_text(json.dumps({**said, "data": {"fingerprint": "world"}}))
    with console(tmp_path_factory.mktemp("console")) as (address, service):
        with httpx.Client(base_url=address) as client:
            client.post("/v1/events", json={"events": [event(n, ts=f"2026-01-0{n + 1}T00:00:00Z") for n in range(3)]})
            for _ in range(3):
                client.post("/v1/recommend", json={"persons": [WHO]})
            client.delete(f"/v1/items/north:{item(9)['item']}")
        yield address, service
    shutil.rmtree(report)


def _estimate(mean: float) -> dict[str, dict[str, float]]:
    return {"ndcg@10": {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}}


def fill(watched: Watched, name: str) -> None:
    """Ask what a page with a form can be asked."""
    page = watched.page
    if name in ("try", "why", "privacy"):
        page.locator("form select").first.select_option(WHO["platform"])
        page.locator("form input[type=text]").first.fill(WHO["user"])
        if name == "why":
            page.locator("form input[type=text]").nth(1).fill(f"{item(4)['platform']}:{item(4)['item']}")
        page.locator("form button[type=submit]").click()
    elif name == "item":
        page.locator("form input[type=search]").fill(item(4)["item"])
        page.locator("form button[type=submit]").click()
    watched.settle()


#: What shows that a page is drawn from the answers.
DRAWN = {
    "overview": ".figures .figure:nth-child(6)",
    "try": ".list li",
    "why": ".answer",
    "item": ".answer",
    "cohorts": ".interval",
    "health": ".tag.good",
    "models": "tr.main",
    "privacy": "table",
}
LOOKS = [(1280, "light", "en-GB"), (360, "dark", "zh-CN")]


@pytest.mark.parametrize(("width", "light", "language"), LOOKS)
def test_every_page_shows_what_it_was_told(browser, site, width: int, light: str, language: str) -> None:
    watched = Watched(browser, site[0], width=width, light=light, language=language)
    for name in PAGES:
        watched.go(name, f"?platform=north&item={quote(item(4)['item'])}" if name == "item" else "")
        fill(watched, name)
        watched.page.wait_for_selector(DRAWN[name])
        assert watched.page.evaluate(RULES) == [], name
        assert watched.page.locator(".state.bad").count() == 0, name
        assert watched.page.locator("#nav a[aria-current=page]").count() == 1
    chinese = watched.page.locator("h1").inner_text() == "隐私与审计"
    assert chinese == (language == "zh-CN")
    assert watched.problems() == []
    watched.close()


EMPTY = {
    "/v1/models": {"active": "", "previous": [], "models": []},
    "/v1/compare": {"data_version": 0, "known": False, "history": [], "events": 0, "sides": []},
    "/v1/audit": {"intact": True, "problem": None, "entries": 0, "newest": []},
    "/v1/similar": {"lists": []},
    "/v1/drift": {},
    "/readyz": {"status": "unready", "reasons": []},
}


def test_the_overview_says_what_needs_attention_and_leads_there(browser, site) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    alerts = [{"of": "drift", "said": "event_domains"}, {"of": "models", "said": f"canary {hostile}: late"}]

    def told(route) -> None:
        route.fulfill(json={**route.fetch().json(), "alerts": alerts})

    for width, light, language in LOOKS:
        watched = Watched(browser, site[0], width=width, light=light, language=language)
        watched.page.route("**/v1/overview", told)
        watched.go("overview")
        watched.page.wait_for_selector(".card.alarm li")
        said = watched.page.locator(".card.alarm li").all_inner_texts()
        assert hostile in said[1]
        assert "event_domains" not in said[0], "in words"
        assert watched.page.evaluate(RULES) == []
        watched.page.locator(".card.alarm a").nth(1).click()
        watched.page.wait_for_selector(DRAWN["models"])
        assert watched.problems() == []
        watched.close()


def _empty(route) -> None:
    path = route.request.url.partition("//")[2].partition("/")[2].partition("?")[0]
    said = EMPTY.get("/" + path)
    if path == "v1/access":
        route.continue_()
    elif path == "v1/overview":
        answer = route.fetch().json()
        for minute in answer["minutes"]:
            minute.update(dict.fromkeys(("requests", "refused", "failed", "lists", "degraded", "events"), 0))
            minute.update(dict.fromkeys(("p50", "p95", "p99")))
        route.fulfill(json={**answer, "operations": [], "lists": {}, "events": {}, "model_written": None})
    elif path == "v1/items":
        route.fulfill(json={"items": []})
    elif path.startswith("v1/persons"):
        route.fulfill(json={"accounts": [WHO], "events": [], "model_history": []})
    elif path == "v1/explain":
        route.fulfill(json={**route.fetch().json(), "evidence": [], "faithfulness": None})
    elif said is None:
        route.continue_()
    else:
        route.fulfill(json=said)


def broken(watched: Watched) -> list[str]:
    """Return the rules a page breaks, wide and light, narrow and dark."""
    found = list(watched.page.evaluate(RULES))
    watched.page.set_viewport_size({"width": 360, "height": 800})
    watched.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    found += watched.page.evaluate(RULES)
    watched.page.set_viewport_size({"width": 1280, "height": 900})
    watched.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    return found


def test_every_page_has_something_to_say_where_there_is_nothing(browser, site) -> None:
    watched = Watched(browser, site[0])
    watched.page.route(re.compile(r"/(v1|readyz)"), _empty)
    for name in PAGES:
        watched.go(name)
        if name != "health":
            assert watched.page.locator(".state:not(.bad)").count() >= 1, name
        fill(watched, name)
        assert broken(watched) == [], name
        assert watched.page.locator(".state.bad").count() == 0, name
    assert watched.problems() == []
    watched.close()


PROBLEM = {
    "status": 507,
    "detail": "too much to do",
    "where": "here",
    "fix": "come back later",
    "request_id": "r-12345678",
}


def test_every_page_says_what_went_wrong_and_tries_again(browser, site) -> None:
    watched = Watched(browser, site[0], language="zh-CN")
    page, failing = watched.page, [True]

    def answer(route) -> None:
        if failing[0] and "/v1/access" not in route.request.url and not route.request.url.endswith("/v1/models"):
            route.fulfill(status=507, json=PROBLEM, headers={"content-type": "application/problem+json"})
        else:
            route.continue_()

    page.route(re.compile(r"/(v1|readyz)"), answer)
    for name in PAGES:
        failing[0] = name != "models"
        watched.go(name, f"?platform=north&item={quote(item(4)['item'])}" if name == "item" else "")
        if name == "models":
            failing[0] = True
            page.locator("td button").last.click()
            page.locator("dialog button[type=submit]").click()
            watched.settle()
        elif name in ("try", "why", "privacy"):
            fill(watched, name)
        alert = page.locator(".state.bad[role=alert]").first
        alert.wait_for()
        for word in ("too much to do", "come back later", "r-12345678"):
            assert word in alert.inner_text(), name
        assert broken(watched) == [], name
        failing[0] = False
        if name != "models":
            for _ in range(3):
                page.evaluate("document.querySelector('.state.bad button')?.click()")
                watched.settle()
            assert page.locator(".state.bad").count() == 0, name
    assert watched.problems() == []
    watched.close()


def test_the_service_gone_is_said(browser, site) -> None:
    watched = Watched(browser, site[0])
    watched.go("models")
    watched.page.route("**/v1/**", lambda route: route.abort())
    watched.go("cohorts")
    assert "cannot be reached" in watched.page.locator(".state.bad").inner_text()
    watched.close()


def test_everything_can_be_done_with_the_keyboard(browser, site) -> None:
    watched = Watched(browser, site[0])
    page = watched.page
    watched.go("overview")
    focus = "() => document.activeElement.textContent.trim() || document.activeElement.tagName"
    ring = "() => getComputedStyle(document.activeElement).outlineStyle"
    order = []
    for _ in range(12):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focus))
        assert page.evaluate(ring) != "none", order
    assert order[:3] == ["Skip to the page", "Overview", "Try"]
    assert order[9].startswith("English")
    page.evaluate("document.querySelector('#nav a[data-page=try]').focus()")
    page.keyboard.press("Enter")
    page.wait_for_selector(".page-try form")
    watched.settle()
    assert page.evaluate(focus) == "Try", "a new page is announced by its heading"
    page.locator("form input[type=text]").first.focus()
    page.keyboard.type(WHO["user"])
    page.keyboard.press("Enter")
    page.wait_for_selector(".list li")
    watched.go("models")
    page.locator("td button").last.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 1
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    assert page.locator("dialog").count() == 0
    page.set_viewport_size({"width": 360, "height": 800})
    menu = page.locator("button.menu")
    menu.focus()
    page.keyboard.press("Enter")
    assert menu.get_attribute("aria-expanded") == "true"
    page.keyboard.press("Tab")
    assert page.evaluate(focus) == "Overview"
    page.keyboard.press("Escape")
    assert menu.get_attribute("aria-expanded") == "false"
    assert page.evaluate(focus) == "Menu"
    assert watched.problems() == []
    watched.close()


def test_language_and_light_are_remembered(browser, site) -> None:
    watched = Watched(browser, site[0])
    page = watched.page
    watched.go("models")
    bright = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Light", exact=True).select_option("dark")
    page.get_by_label("Language").select_option("zh")
    page.locator("h1", has_text="模型").wait_for()
    page.reload()
    page.locator("h1", has_text="模型").wait_for()
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != bright
    watched.close()


def test_models_are_changed_and_a_person_is_erased_only_when_confirmed(browser, tmp_path: Path) -> None:
    who = account(1)
    with console(tmp_path) as (address, service):
        httpx.post(f"{address}/v1/events", json={"events": [event(5, who)]}).raise_for_status()
        watched = Watched(browser, address)
        page = watched.page
        watched.go("models")
        page.get_by_role("button", name="Activate: second").click()
        page.locator("dialog").get_by_role("button", name="Cancel").click()
        assert service.tenant().live.version.name == "first"
        page.get_by_role("button", name="Activate: second").click()
        page.locator("dialog button[type=submit]").click()
        page.locator("tr.main", has_text="second").wait_for()
        assert service.tenant().live.version.name == "second"
        page.get_by_role("button", name="Roll back").click()
        page.locator("dialog button[type=submit]").click()
        page.locator("tr.main", has_text="first").wait_for()
        watched.go("privacy")
        page.locator("form select").first.select_option(who["platform"])
        page.locator("form input").first.fill(who["user"])
        page.locator("form button[type=submit]").click()
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save as JSON").click()
        assert json.loads(Path(saved.value.path()).read_text())["events"][0]["item"] == item(5)["item"]
        page.get_by_role("button", name="Erase").click()
        dialog = page.locator("dialog")
        assert dialog.locator("button[type=submit]").is_disabled()
        dialog.locator("input").fill(who["user"])
        assert dialog.locator("button[type=submit]").is_disabled()
        dialog.locator("input").fill(f"{who['platform']}:{who['user']}")
        dialog.locator("button[type=submit]").click()
        page.locator(".finding code.long").wait_for()
        assert re.fullmatch("[0-9a-f]{64}", page.locator(".finding code.long").inner_text())
        assert httpx.get(f"{address}/v1/persons/{who['platform']}:{who['user']}").status_code == 404
        watched.settle()
        log = page.locator("table", has_text="person erased").inner_text()
        assert "model rolled back" in log
        assert "model activated" in log
        assert who["user"] not in log
        assert who["user"] not in page.url
        assert watched.problems() == []
        watched.close()


def test_a_key_decides_what_is_shown_and_is_forgotten_with_the_tab(browser, tmp_path: Path) -> None:
    with console(tmp_path) as (address, service):
        some = service.vault.create(tenant="default", scopes=["metrics", "console"], platforms=["north"])[1]
        service.vault.create(tenant="default", scopes=SCOPES)
        watched = Watched(browser, address)
        page = watched.page
        page.goto(f"{address}/console#/privacy")
        page.locator("input[type=password]").fill("isk_nothing_x")
        page.keyboard.press("Enter")
        page.locator("[role=alert] p").wait_for()
        assert page.evaluate(RULES) == []
        page.locator("input[type=password]").fill(some)
        page.keyboard.press("Enter")
        page.wait_for_selector("#nav a")
        shown = page.locator("#nav a").all_inner_texts()
        assert shown == ["Overview", "Try", "Drift and health"]
        watched.settle()
        assert page.evaluate("sessionStorage.getItem('isthmus-key')") == some
        assert page.evaluate("JSON.stringify(localStorage)").count(some) == 0
        assert watched.context.cookies() == []
        watched.go("try")
        assert page.locator("form select").first.locator("option").all_inner_texts() == ["north"]
        other = Vault(tmp_path)
        other.revoke(some.split("_")[1])
        other.close()
        service.vault._looked = -1.0
        page.evaluate("location.hash = '#/overview'")  # the page may not even begin to be drawn
        page.wait_for_selector("input[type=password]")
        assert page.evaluate("sessionStorage.length") == 0
        said = [one for one in watched.problems() if "401" not in one]
        assert said == []
        watched.close()


def test_both_languages_say_the_same_things() -> None:
    files = {name: content.decode() for name, content in assets().items()}
    english, chinese = json.loads(files["en.json"]), json.loads(files["zh.json"])
    assert english.keys() == chinese.keys()
    for name, words in english.items():
        assert words.strip()
        assert chinese[name].strip()
        assert sorted(re.findall(r"\{\w+\}", words)) == sorted(re.findall(r"\{\w+\}", chinese[name])), name
    code = "\n".join(text for name, text in files.items() if name.endswith(".js"))
    used = set(re.findall(r"""\bt\((?:[^()"`]*\? )?"([\w.]+)\"""", code))
    assert len(used) > 100
    assert used <= english.keys(), used - english.keys()
    starts = tuple(set(re.findall(r"t\(`([\w.]+\.)\$\{", code)))
    literals = set(re.findall(r'"([^"\n]*)"', code))
    lone = [name for name in english if name not in literals and not name.startswith(starts)]
    assert lone == [], "words nobody says"
