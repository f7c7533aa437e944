"""Titles, labels and ids that try to run a script in the console: none does [S10]."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tests.small_console import RULES, Watched, console
from tests.small_service import models

pytestmark = pytest.mark.browser
PAYLOADS = Path(__file__).with_name("hostile.txt").read_text(encoding="utf-8").splitlines()
#: Names of folders hold no slash.
MODEL = "<img src=x onerror=window.__hit=1>"
WHO = {"platform": "north", "user": PAYLOADS[4]}


def feed(address: str, service) -> None:
    """Put every payload into titles, ids, texts, categories, attributes; users, models, reports, the audit log."""
    items = [
        {
            "platform": "north",
            "item": payload,
            "domain": "source",
            "title": payload,
            "text": payload,
            "categories": [payload],
            "attributes": json.dumps({payload: payload}),
            "lang": payload[:20],
        }
        for payload in PAYLOADS
    ]
    with httpx.Client(base_url=address, timeout=60) as client:
        client.put("/v1/items", json={"items": items}).raise_for_status()
        deeds = [{**WHO, "item": payload, "event": "purchase"} for payload in PAYLOADS]
        client.post("/v1/events", json={"events": deeds}).raise_for_status()
        users = [{"platform": "north", "user": payload, "item": PAYLOADS[0]} for payload in PAYLOADS]
        client.post("/v1/events", json={"events": users}).raise_for_status()
    for payload in PAYLOADS:
        service.vault.note("default", payload, payload, {payload: payload})


def report(folder: Path, model: str) -> Path:
    """Write a report whose every word is hostile."""
    names = PAYLOADS[:20]
    systems = {name: {"ndcg@10": {"mean": 0.2, "low": 0.1, "high": 0.3}} for name in names}
    section = {
        "domain": names[0],
        "metric": "ndcg@10",
        "main": names[1],
        "persons": 5,
        "items": 5,
        "systems": [{"name": name, "metrics": figures} for name, figures in systems.items()],
        "slices": [{"name": name, "of": "persons", "n": 3, "systems": systems} for name in PAYLOADS],
        "verdict": {"sentence": " ".join(PAYLOADS)},
    }
    said = {"format": 1, "title": names[2], "created": names[3], "sections": [section]}
    place = folder / f"{model}.report"
    place.mkdir()
    (place / "report.json").write_text(json.dumps({**said, "data": {"fingerprint": "world"}}))
    return place


def test_hostile_titles_labels_and_ids_run_nothing(browser, tmp_path: Path) -> None:
    assert len(set(PAYLOADS)) == 60
    folder = tmp_path / "models"
    for name in ("first", MODEL):
        shutil.copytree(models() / "first", folder / name)
    report(folder, "first")
    with console(tmp_path / "data", folder / "first") as (address, service):
        feed(address, service)
        watched = Watched(browser, address)
        page = watched.page
        plain = None

        def check(where: str, least: int) -> None:
            nonlocal plain
            text = page.locator("main").inner_text()
            shown = [payload for payload in PAYLOADS if payload in text]
            assert len(shown) >= least, (where, len(shown))
            assert page.evaluate("window.__hit === undefined"), where
            foreign = "main :is(script, iframe, object, embed, img, link, style, base, meta, video, audio, form form)"
            assert page.locator(foreign).count() == 0, where
            links = page.locator("main a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
            assert all(link.startswith("#/") for link in links), where
            assert watched.problems() == [], where
            if plain is None:
                plain = page.evaluate("Object.keys(Object.prototype).length")

        watched.go("overview")
        check("overview", 0)
        watched.go("try")
        page.locator("form select").first.select_option("north")
        page.locator("form input[type=text]").first.fill(WHO["user"])
        page.locator("summary").click()
        page.locator("form .tick input").nth(2).uncheck()
        page.locator("form select").nth(2).select_option("50")
        page.locator("form button[type=submit]").click()
        watched.settle()
        assert MODEL in page.locator("main").inner_text()
        check("try", 60)
        assert page.evaluate(RULES) == []
        for payload in (PAYLOADS[0], PAYLOADS[20], PAYLOADS[58]):
            query = f"?platform=north&item={quote(payload, safe='')}"
            watched.go("why", query)
            watched.settle()
            page.locator(".answer").wait_for()
            check("why", 10)
            watched.go("item", query)
            page.locator(".answer").wait_for()
            watched.settle()
            check("item", 1)
        page.locator("form input[type=search]").fill("script")
        page.locator("form button[type=submit]").click()
        watched.settle()
        check("search", 15)
        watched.go("cohorts")
        check("cohorts", 60)
        watched.go("health")
        check("health", 0)
        watched.go("models")
        assert MODEL in page.locator("main").inner_text()
        page.locator("td button").last.click()
        assert page.locator("dialog").inner_text().count("<img src=x") or page.locator("dialog h2").count()
        page.keyboard.press("Escape")
        check("models", 0)
        watched.go("privacy")
        page.locator("form button[type=submit]").click()
        watched.settle()
        check("privacy", 60)
        page.get_by_role("button", name="Erase").click()
        assert WHO["user"] in page.locator("dialog").inner_text()
        page.keyboard.press("Escape")
        watched.go("try", f"?{PAYLOADS[0]}")
        page.evaluate("where => { location.hash = where; }", f"#/{PAYLOADS[4]}")
        watched.page.wait_for_selector(".page-overview")
        check("address", 0)
        watched.close()


def test_the_watch_sees_a_script_where_one_would_run(browser, tmp_path: Path) -> None:
    """Without the policy and with markup made of text, the same payloads do run: the test above can fail."""
    page = browser.new_page()
    page.set_content("<main></main>")
    page.evaluate("html => { document.querySelector('main').innerHTML = html; }", "".join(PAYLOADS[4:8]))
    page.wait_for_function("window.__hit === 1")
    page.close()
    with console(tmp_path) as (address, _):
        watched = Watched(browser, address)
        watched.go("health")
        refused = watched.page.evaluate(
            """() => { try { document.body.innerHTML = '<b>x</b>'; return ''; } catch (e) { return e.name; } }"""
        )
        assert refused == "TypeError"
        assert watched.problems() != []
        watched.close()
