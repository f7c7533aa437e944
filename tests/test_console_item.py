"""What the console says of one item and one explanation: who sees it, how often it was listed, how far it goes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import polars as pl
import pytest
from tests.small_console import RULES, Watched, console
from tests.small_service import event, item, recommender, served
from tests.test_console import LOOKS, WHO, fill

from isthmus.service.core import Service

Client = httpx.AsyncClient


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A service with some lists given, and an item taken off."""
    with console(tmp_path_factory.mktemp("console")) as (address, service):
        with httpx.Client(base_url=address) as client:
            client.post("/v1/events", json={"events": [event(n, ts=f"2026-01-0{n + 1}T00:00:00Z") for n in range(3)]})
            for _ in range(3):
                client.post("/v1/recommend", json={"persons": [WHO]})
            client.delete(f"/v1/items/north:{item(9)['item']}")
        yield address, service


def test_an_item_says_who_is_not_shown_it(tmp_path: Path) -> None:
    day = timedelta(days=1)
    times = {"early": {"available_from": stamp(day)}, "late": {"available_until": stamp(-day)}, "now": {}}

    async def test(client: Client, service: Service) -> None:
        for name, when in times.items():
            new = {"platform": "north", "item": name, "domain": "source", "title": name, **when}
            (await client.put("/v1/items", json={"items": [new]})).raise_for_status()
            said = (await client.get(f"/v1/items/north:{name}")).json()
            assert said["hidden"] == ([] if name == "now" else [name])
            assert said["listable"] == (name == "now")
            assert said["met"] is None
        await client.delete("/v1/items/north:late")
        assert (await client.get("/v1/items/north:late")).json()["hidden"] == ["removed", "late"]
        events = recommender().content.people.events
        counts = events.unique(["person", "item"]).group_by("item").len().sort("len")
        for row, met in (counts.row(0), counts.row(-1)):
            one = recommender().items.row(row, named=True)
            said = (await client.get(f"/v1/items/{one['platform']}:{one['item']}")).json()
            assert said["met"] == (met if met >= 10 else None)
        some = events.filter(item=row).select(pl.col("person").unique()).head(3)
        accounts = recommender().content.people.accounts.join(some, on="person", how="semi").unique("person")
        for who in accounts.to_dicts():
            (await client.delete(f"/v1/persons/{who['platform']}:{who['user']}")).raise_for_status()
        after = (await client.get(f"/v1/items/{one['platform']}:{one['item']}")).json()
        assert after["met"] == (met - 3 if met - 3 >= 10 else None), "of those erased nothing is counted"

    served(tmp_path, test)


def stamp(later: timedelta) -> str:
    return (datetime.now(UTC) + later).isoformat()


@pytest.mark.browser
def test_an_item_is_shown_with_its_exposure_and_who_does_not_see_it(browser, site) -> None:
    for width, light, language in LOOKS:
        watched = Watched(browser, site[0], width=width, light=light, language=language)
        page = watched.page
        watched.go("item", f"?platform=north&item={quote(item(4)['item'])}")
        page.wait_for_selector(".result figure svg circle")
        said = page.locator(".result figure svg").get_attribute("aria-label")
        assert said == page.locator(".result figcaption").inner_text(), "the same for those who do not see the line"
        assert len(re.findall(r"\d+(?:\.\d+)?%", said.replace("\u00a0", ""))) == 3
        assert page.locator(".result .plainlist li").count() == 1, "it can be listed: only those who met it"
        watched.go("item", f"?platform=north&item={quote(item(9)['item'])}")
        page.wait_for_selector(".tag.bad")
        gone = page.locator(".result .plainlist li").first.inner_text()
        assert gone == {"en-GB": "Nobody is: it was taken off the lists.", "zh-CN": "所有人：它已被移除。"}[language]
        assert page.evaluate(RULES) == []
        assert watched.problems() == []
        watched.close()


@pytest.mark.browser
def test_an_explanation_says_how_far_it_goes(browser, site) -> None:
    watched = Watched(browser, site[0])
    watched.go("why")
    fill(watched, "why")
    facts = watched.page.locator("section.card:not(.answer) .facts dd")
    facts.first.wait_for()
    shown = [one.replace("\u00a0", "") for one in facts.all_inner_texts()]
    asked = {**WHO, "item": {name: item(4)[name] for name in ("platform", "item")}, "most": 20}
    said = httpx.post(f"{site[0]}/v1/explain", json=asked).json()["faithfulness"]
    wanted = [100 * said[name] for name in ("comprehensiveness", "sufficiency")]
    assert [float(one.rstrip("%")) for one in shown] == pytest.approx(wanted, abs=0.51)
    assert all(one > 0 for one in wanted), "pieces that move the score as all do"
    watched.close()
