"""I4: accents written as one character or as two are the same text, and ids come back as they were given."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest
from tests.small_models import fitted
from tests.small_service import event, item, recommender, served

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.encode.template import Template
from isthmus.recommender import Recommender
from isthmus.service.core import Service
from isthmus.split.temporal import Split

#: One character in NFC and several in NFD: Latin, Greek, Cyrillic, Vietnamese, Hangul, kana, Devanagari.
ODD = "éÅñüçőΐйёệổ서울가がプऩ"
FORMS = ("NFC", "NFD")


def in_form(form: str) -> Callable[[str], str]:
    """Return what puts odd letters into a text, in one of both forms."""

    def change(text: str) -> str:
        odd = [f"{word}{ODD[sum(map(ord, word)) % len(ODD)]}" for word in text.split(" ")]
        return unicodedata.normalize(form, " ".join(odd))

    return change


@lru_cache(maxsize=2)
def model(form: str) -> Recommender:
    """Return a model of one world whose texts and ids of items and people are written in a form."""
    world, change = twin_world(1, replace(WORLD, persons=60, items=40)), in_form(form)
    tables = {}
    for name, table in world.tables.items():
        odd = [one for one in ("item", "user", "person", "title", "text") if one in table.columns]
        tables[name] = table.with_columns(pl.col(odd).map_elements(change, return_dtype=pl.String))
    return Recommender(fitted(Split.make(Corpus.from_tables(tables, name="world"), valid_share=0.2, test_share=0.2)))


def plain(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col(pl.String).str.normalize("NFC"))


def test_a_catalogue_written_either_way_gives_the_same_answers() -> None:
    one, other = (model(form).recommend(k=10) for form in FORMS)
    assert set(one["item"]) & set(other["item"]) == set(), "not one id is the same, byte for byte"
    assert plain(other).drop("score").equals(plain(one).drop("score"))
    np.testing.assert_allclose(one["score"].to_numpy(), other["score"].to_numpy(), atol=1e-5)
    for row in (0, 7):
        near = []
        for form in FORMS:
            said = model(form).items.row(row, named=True)
            near.append(plain(model(form).similar(said["platform"], said["item"])))
        assert near[0].drop("score").equals(near[1].drop("score"))
    for form in FORMS:
        assert set(model(form).recommend(k=10)["item"]) <= set(model(form).items["item"])
        assert all(unicodedata.is_normalized(form, name) for name in model(form).items["item"])


@pytest.mark.parametrize("length", [3, 900, 3000])
def test_what_readers_see_of_a_text_does_not_depend_on_its_form(length: int) -> None:
    said = [in_form(form)(" ".join(["서울", "café"] * length)) for form in FORMS]
    seen = [Template().render(pl.DataFrame({"title": [text]})).item() for text in said]
    assert said[0] != said[1]
    assert seen[0] == seen[1], "also where it is cut"


def test_the_service_reads_and_finds_both_forms_and_keeps_ids_apart(tmp_path: Path) -> None:
    like = recommender().items.filter(platform="north", item=item(3)["item"]).row(0, named=True)
    names = {form: unicodedata.normalize(form, "Crème brûlée 서울") for form in FORMS}
    text = {form: unicodedata.normalize(form, f"{like['text']} café") for form in FORMS}

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        for form, name in names.items():
            new = {"platform": "north", "item": name, "domain": "source", "title": name, "text": text[form]}
            put = await client.put("/v1/items", json={"items": [{**new, "categories": like["categories"]}]})
            assert put.status_code == 200, put.text
            assert put.json()["written"] == 1, "two ids, two items"
        lists = {}
        for form, name in names.items():
            answer = await client.post("/v1/similar", json={"platform": "north", "item": name, "k": 30})
            assert answer.status_code == 200, answer.text
            listed = [
                one for part in answer.json()["lists"] for one in part["items"] if one["item"] not in names.values()
            ]
            lists[form] = [one["item"] for one in listed]
            found = await client.get("/v1/items", params={"q": unicodedata.normalize(form, "BRÛLÉE")})
            assert [one["item"] for one in found.json()["items"]] == list(names.values()), "each id as it was given"
            who = {"platform": "north", "user": name}
            sent = await client.post("/v1/events", json={"events": [{**event(0, who), "item": name, "id": form}]})
            assert sent.status_code == 202
            told = (await client.get(f"/v1/persons/north:{name}")).json()
            assert [one["item"] for one in told["events"]] == [name], "and nobody else's events"
        assert lists["NFC"] == lists["NFD"]
        assert len(lists["NFC"]) > 10

    served(tmp_path, test)
