"""What `data describe` says, against numbers counted by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.data.corpus import Corpus
from isthmus.data.describe import describe, detect, gini
from isthmus.data.simulate import town_tables


def moment(day: int) -> datetime:
    return datetime(2024, 1, day, tzinfo=UTC)


@pytest.fixture
def corpus() -> Corpus:
    events = [
        ("shop", "u1", "a", "view", 1),
        ("shop", "u1", "b", "view", 1),
        ("shop", "u2", "a", "purchase", 2),
        ("shop", "u2", "a", "ad_click", 3),
        ("shop", "u4", "a", "view", 9),
        ("cinema", "v1", "f", "play", 4),
        ("cinema", "v3", "f", "play", 5),
    ]
    items = [
        ("shop", "a", "Books", "深海的故事", None),
        ("shop", "b", "Books", "The Reef", "A book about reefs"),
        ("shop", "c", "Toys", None, None),
        ("cinema", "f", "Films", "すしの夜", ""),
    ]
    people = [
        ("shop", "u1", "P1"),
        ("shop", "u2", "P2"),
        ("shop", "u4", "P1"),
        ("cinema", "v1", "P1"),
        ("cinema", "v3", "P3"),
    ]
    tables = {
        "events": pl.DataFrame(events, orient="row", schema=["platform", "user", "item", "event", "ts"]).with_columns(
            pl.col("ts").map_elements(moment, pl.Datetime("us", "UTC"))
        ),
        "items": pl.DataFrame(items, orient="row", schema=["platform", "item", "domain", "title", "text"]),
        "identities": pl.DataFrame(people, orient="row", schema=["platform", "user", "person"]),
    }
    notes = {"cleaning": {"duplicates": 3}, "rejects": {"no item": 1}, "time": {"cinema": "order"}}
    return Corpus.from_tables(tables, name="hand", notes=notes)


def test_counts_density_and_span(corpus: Corpus) -> None:
    facts = describe(corpus)
    assert facts["counts"] | {"users": 0, "edges": 0, "links": 0} == facts["counts"]
    assert [facts["counts"][key] for key in ("persons", "accounts", "items", "events", "taste_events")] == [
        3,
        5,
        4,
        7,
        6,
    ]
    shop = facts["platforms"]["shop"]
    assert (shop["persons"], shop["items"], shop["items_met"], shop["events"]) == (2, 3, 2, 5)
    assert shop["density"] == pytest.approx(3 / 6)
    assert shop["time"] == {
        "first": "2024-01-01T00:00:00.000000+00:00",
        "last": "2024-01-09T00:00:00.000000+00:00",
        "tied": 2,
    }
    assert facts["platforms"]["cinema"]["time"] == "order only"
    assert facts["domains"]["Films"]["time"] == "order only"
    assert facts["domains"]["Toys"]["events"] == 0


def test_events_per_type_texts_and_languages(corpus: Corpus) -> None:
    facts = describe(corpus)
    assert facts["events"] == {"view": 3, "play": 2, "ad_click": 1, "purchase": 1}
    shop = facts["platforms"]["shop"]
    assert shop["titles"] == pytest.approx(2 / 3)
    assert shop["texts"] == pytest.approx(1 / 3)
    assert shop["languages"] == {"Chinese": 0.5, "Latin": 0.5}
    assert facts["domains"]["Films"]["languages"] == {"Japanese": 1.0}


def test_overlap_counts_people_not_accounts(corpus: Corpus) -> None:
    (pair,) = describe(corpus)["overlap"]["platforms"]
    assert pair == {"pair": ["cinema", "shop"], "persons": [2, 2], "both": 1, "share_of_smaller": 0.5, "jaccard": 1 / 3}
    domains = {tuple(pair["pair"]): pair["both"] for pair in describe(corpus)["overlap"]["domains"]}
    assert domains == {("Books", "Films"): 1}


def test_two_accounts_of_one_person_on_one_platform_are_a_conflict(corpus: Corpus) -> None:
    assert describe(corpus)["identity"] == {"on_several_platforms": 1, "conflicts": 1, "examples": ["P1"]}


def test_cleaning_and_rejects_come_from_the_manifest(corpus: Corpus) -> None:
    facts = describe(corpus)
    assert (facts["cleaning"], facts["rejects"]) == ({"duplicates": 3}, {"no item": 1})


def test_facts_can_be_written_as_json(corpus: Corpus) -> None:
    assert json.loads(json.dumps(describe(corpus))) == describe(corpus)


def test_head_and_histories_of_the_town() -> None:
    tables = town_tables(seed=4, persons=200)
    facts = describe(Corpus.from_tables(tables, name="town"))
    events = tables["events"].filter(pl.col("platform") == "jukebox")
    top = events.group_by("item").len()["len"].sort(descending=True).head(30).sum()
    jukebox = facts["platforms"]["jukebox"]
    assert jukebox["head_share"] == pytest.approx(top / events.height)
    assert jukebox["histories"]["p50"] == events.group_by("user").len()["len"].quantile(0.5, "nearest")
    assert jukebox["histories"]["mean"] == pytest.approx(events.height / events["user"].n_unique(), abs=0.01)


def test_a_corpus_without_events_is_described() -> None:
    items = pl.DataFrame({"platform": ["s"], "item": ["a"], "domain": ["d"]})
    facts = describe(Corpus.from_tables({"items": items}, name="empty"))
    assert (
        facts["platforms"]["s"] | {"events": 0, "density": 0.0, "gini": 0.0, "histories": {}} == facts["platforms"]["s"]
    )
    assert facts["overlap"] == {"platforms": [], "domains": []}
    assert json.dumps(facts)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("深海潜水员", "Chinese"),
        ("東京タワーの夜", "Japanese"),
        ("서울의 밤", "Korean"),
        ("Ночь в Москве", "Cyrillic"),
        ("ليلة", "Arabic"),
        ("Reef 珊瑚", "Latin"),
        ("珊瑚礁与海洋 DVD", "Chinese"),
        ("12 - 34", None),
        (None, None),
    ],
)
def test_scripts_are_told_apart(text: str | None, script: str | None) -> None:
    frame = pl.DataFrame({"text": [text]}, schema={"text": pl.String})
    assert frame.select(detect(pl.col("text")).alias("s"))["s"][0] == script


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_gini_is_half_the_relative_mean_difference(counts: list[int]) -> None:
    total = sum(counts)
    differences = sum(abs(a - b) for a in counts for b in counts)
    naive = differences / (2 * len(counts) * total) if total else 0.0
    assert gini(pl.Series(counts)) == pytest.approx(naive)
