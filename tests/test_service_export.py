"""What is known of a person as lines: every event, with its value and its account, and nothing lost on the way back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import httpx
import jsonschema
import polars as pl
import pytest
from tests.small_service import learned, served
from tests.test_service_privacy import path

from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.service.app import create_app
from isthmus.service.core import Places, Service
from isthmus.service.settings import ServiceSettings
from isthmus.split.temporal import TEST, Split

Event = dict[str, object]
FIELDS = ("platform", "user", "item", "event", "value", "ts")


@lru_cache(maxsize=1)
def split() -> Split:
    """A world where each two persons are one, with two accounts on a platform, and every third event has a value."""
    tables = twin_world(1, replace(WORLD, persons=60, items=40)).tables
    identities = tables["identities"]
    people = identities["person"].unique().sort().to_list()
    one = {name: people[place - place % 2] for place, name in enumerate(people)}
    events = tables["events"].with_row_index("n")
    rated = pl.when(pl.col("n") % 3 == 0).then(pl.lit("rate")).otherwise("event")
    value = pl.when(pl.col("n") % 3 == 0).then(1 + pl.col("n") % 7 / 7)
    tables = {
        **tables,
        "identities": identities.with_columns(pl.col("person").replace_strict(one)),
        "events": events.with_columns(event=rated, value=value).drop("n"),
    }
    return Split.make(Corpus.from_tables(tables, name="world"), valid_share=0.2, test_share=0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "doubled"
    learned(split()).save(folder)
    return folder


def known() -> list[Event]:
    """Return the events that the model was made from, as the corpus has them."""
    events = split().corpus.events.filter(pl.col("ts") <= split().known(TEST)["ts"].max())
    return [{**row, "ts": row["ts"].isoformat()} for row in events.select(FIELDS).iter_rows(named=True)]


def lines(text: str) -> list[Event]:
    return [json.loads(line) for line in text.splitlines()]


def plain(events: list[Event]) -> list[str]:
    return sorted(json.dumps([one[name] for name in FIELDS]) for one in events)


async def asked(client: httpx.AsyncClient, who: dict[str, str]) -> list[Event]:
    answer = await client.get(path("persons", who), params={"format": "jsonl"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return lines(answer.text)


def test_lines_hold_every_event_with_its_account_and_value(tmp_path: Path, model: Path) -> None:
    """P4: two accounts on one platform stay two; what the model was made from is not told twice; all can be sent."""
    here = split().corpus.identities
    doubled = here.filter(pl.len().over("person", "platform") > 1)
    accounts = [dict(row) for row in doubled.select("platform", "user").iter_rows(named=True)]
    whole: dict[str, list[Event]] = {}

    async def old() -> None:
        service = Service.open(Places(tmp_path / "old", {"default": model}), ServiceSettings(warm=False))
        app = create_app(service)
        async with app.router.lifespan_context(app):
            client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
            again = [one for one in known() if one["user"] == accounts[0]["user"]][:5]
            new = [{**accounts[1], "item": "late", "event": "rate", "value": 0.1 + 0.2, "id": "mine"}]
            sent = await client.post("/v1/events", json={"events": [*again, *new]})
            assert sent.json()["accepted"] == 6
            for who in accounts:
                found = await asked(client, who)
                assert len({one["id"] for one in found}) == len(found), "every event once"
                assert all(one["id"] for one in found)
                whole[who["platform"] + who["user"]] = found
            document = (await client.get("/openapi.json")).json()
            schema = document["components"]["schemas"]["Deed"]
            said = document["paths"]["/v1/persons/{person}"]["get"]["responses"]["200"]["content"]
            assert said["application/x-ndjson"]["schema"] == {"$ref": "#/components/schemas/Deed"}
            for found in whole.values():
                for one in found:
                    jsonschema.validate(one, schema)
            await client.aclose()

    async def new(client: httpx.AsyncClient, service: Service) -> None:
        for found in whole.values():
            for start in range(0, len(found), 500):
                answer = await client.post("/v1/events", json={"events": found[start : start + 500]})
                assert answer.status_code == 202, answer.text
                assert not answer.json()["conflicts"]
        for who in accounts:
            mine = [one for one in whole[who["platform"] + who["user"]] if one["user"] == who["user"]]
            again = [one for one in await asked(client, who) if one["user"] == who["user"]]
            by_id = {one["id"]: one for one in again}
            assert {one["id"]: by_id[one["id"]] for one in mine} == {one["id"]: one for one in mine}

    asyncio.run(old())
    told = {one["id"]: one for found in whole.values() for one in found}
    mine = {json.dumps([who["platform"], who["user"]]) for who in accounts}
    expected = [one for one in known() if json.dumps([one["platform"], one["user"]]) in mine]
    assert any(one["value"] not in (None, 1.0) for one in expected)
    assert [one["value"] for one in told.values() if one["id"] == "mine"] == [0.1 + 0.2]
    del told["mine"]
    assert plain([one for one in told.values() if one["user"] in {who["user"] for who in accounts}]) == plain(expected)
    served(tmp_path / "new", new)
    assert plain(imported(tmp_path, list(told.values()))) == plain(expected)


def imported(folder: Path, events: list[Event]) -> list[Event]:
    """Return the events of a corpus that ``isthmus import`` makes of lines."""
    names = ", ".join(f'{name} = "{name}"' for name in FIELDS)
    source = f'kind = "events"\npath = "events.jsonl"\ncolumns = {{ {names} }}\ntime = {{ format = "iso" }}\n'
    (folder / "SPEC.toml").write_text(f'name = "again"\n[[source]]\n{source}')
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    table = import_corpus(folder / "SPEC.toml", folder / "corpus").events
    return [{**row, "ts": row["ts"].isoformat()} for row in table.select(FIELDS).iter_rows(named=True)]
