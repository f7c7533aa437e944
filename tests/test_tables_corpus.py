"""Canonical tables and the corpus that holds them: checked on the way in, equal on the way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import Event, corpus, events, items

from isthmus.data.corpus import Corpus, complete_identities, seal
from isthmus.data.tables import KEYS, OPTIONAL, REQUIRED, SCHEMAS, conform, empty
from isthmus.errors import ArtefactError, DataError, NotFoundError
from isthmus.types import EVENT_WEIGHTS, EVENTS

LOG: list[Event] = [
    ("shop", "007", "0012", 3), ("shop", "7", "12", 1), ("cinema", "张三", "电影", 2), ("cinema", "007", "电影", 4),
]  # fmt: skip


@pytest.mark.parametrize("table", SCHEMAS)
def test_an_empty_table_conforms(table: str) -> None:
    assert conform(table, empty(table)).schema == pl.Schema(SCHEMAS[table])
    assert set(REQUIRED[table]) <= set(SCHEMAS[table])
    assert set(KEYS[table]) <= set(SCHEMAS[table])


def test_columns_are_completed_ordered_cast_and_sorted() -> None:
    raw = pl.DataFrame({"domain": ["d", "d"], "more": [1, 2], "item": ["b", "a"], "platform": ["p", "p"]})
    shaped = conform("items", raw)
    assert shaped.columns == list(SCHEMAS["items"])
    assert shaped["item"].to_list() == ["a", "b"]
    assert shaped["title"].null_count() == 2


def test_events_at_one_time_keep_the_order_of_the_log() -> None:
    names = [str(n * 7919 % 5000) for n in range(5000)]
    log = [("shop", "ab"[n % 2], name, 1.0) for n, name in enumerate(names)]
    assert conform("events", events(log))["item"].to_list() == names[::2] + names[1::2]


@pytest.mark.parametrize(
    ("table", "frame", "message"),
    [
        ("items", pl.DataFrame({"platform": ["p"]}), r"lacks column\(s\) item, domain"),
        ("items", pl.DataFrame({"platform": ["p"], "item": ["1"], "domain": [None]}), "'domain' of items has 1 empty"),
        ("items", pl.DataFrame({"platform": ["p"] * 2, "item": ["1"] * 2, "domain": ["d"] * 2}), "repeats a key"),
        ("users", pl.DataFrame({"platform": ["p"] * 2, "user": ["1"] * 2}), "repeats a key"),
        ("events", events(LOG).with_columns(ts=pl.lit("soon")), "wrong type"),
        ("events", events(LOG).with_columns(value=pl.lit("much")), "wrong type"),
    ],
)
def test_tables_that_do_not_conform_are_refused(table: str, frame: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        conform(table, frame, where="file.csv")
    assert caught.value.where == "file.csv"


def test_ids_stay_words_and_numbers_follow_their_order() -> None:
    found = corpus(LOG)
    assert found.items.select("platform", "item").rows() == [("cinema", "电影"), ("shop", "0012"), ("shop", "12")]
    assert found.persons.to_list() == ["007", "7", "张三"]
    assert (found.platforms, found.domains, found.order_only) == (["cinema", "shop"], ["books", "films"], [])
    assert found.name == "small"
    assert found.manifest["counts"]["events"] == 4  # type: ignore[index]


def test_one_person_over_platforms_is_one_history_in_time() -> None:
    rows = corpus(LOG).interactions().select("person", "item", "weight").rows()
    assert [row[:2] for row in rows] == [(0, 1), (0, 0), (1, 2), (2, 0)]
    assert corpus(LOG, order=("shop",)).order_only == ["shop"]


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_counts_as_its_kind(event: str) -> None:
    tables = {"events": events(LOG[:1], event), "items": items([("shop", "0012")], {}, {})}
    found = Corpus.from_tables(tables, name="one").interactions()
    assert found["weight"].to_list() == pytest.approx([EVENT_WEIGHTS[event]] if EVENT_WEIGHTS[event] else [])


def test_accounts_without_a_declared_person_are_persons_of_their_own() -> None:
    log = events([("shop", "a", "x", 1), ("cinema", "a", "f", 2), ("shop", "b", "x", 3)])
    given = pl.DataFrame({"platform": ["shop"], "user": ["a"], "person": ["ann"]})
    found = complete_identities(log, given)
    assert found.rows() == [("cinema", "a", "cinema:a"), ("shop", "a", "ann"), ("shop", "b", "shop:b")]


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(DataError, match="no such table: evnts"):
        Corpus.from_tables({"evnts": events(LOG)}, name="x")
    with pytest.raises(DataError, match=r"4 event\(s\) on items that the items table lacks"):
        Corpus.from_tables({"events": events(LOG)}, name="x")


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 3))
def test_the_fingerprint_is_of_the_content(order: list[int], changed: int) -> None:
    base = corpus(LOG)
    assert corpus([LOG[place] for place in order]).fingerprint == base.fingerprint
    other = list(LOG)
    other[changed] = (*LOG[changed][:3], LOG[changed][3] + 0.25)
    assert corpus(other).fingerprint != base.fingerprint
    assert corpus(LOG, titles={"12": "other"}).fingerprint != base.fingerprint


def test_domains_are_suggested() -> None:
    assert corpus(LOG).require_domain("films") == "films"
    with pytest.raises(NotFoundError, match=r"did you mean 'films'.*domains: books, films") as caught:
        corpus(LOG).require_domain("film")
    assert (caught.value.exit_code, caught.value.http_status) == (2, 404)


def test_a_corpus_survives_the_disk(tmp_path: Path) -> None:
    stored = corpus(LOG, titles={"12": "茶 & tea"}, users={"007": '{"city": "南京"}'}).save(tmp_path / "语料")
    again = Corpus.open(tmp_path / "语料")
    base = corpus(LOG, titles={"12": "茶 & tea"}, users={"007": '{"city": "南京"}'})
    for table in SCHEMAS:
        assert getattr(again, table).equals(getattr(base, table)), table
    assert again.fingerprint == stored.fingerprint == base.fingerprint
    assert sorted(path.name for path in (tmp_path / "语料").iterdir()) == sorted(
        [*(f"{table}.parquet" for table in SCHEMAS if table not in OPTIONAL), "corpus.json"]
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "corpus.json").unlink(), "is not a corpus"),
        (lambda path: (path / "corpus.json").write_text("{"), "damaged"),
        (lambda path: (path / "corpus.json").write_text("[]"), "not a JSON object"),
        (lambda path: (path / "corpus.json").write_text('{"format": 1}'), "damaged"),
        (lambda path: (path / "corpus.json").write_text('{"format": 7}'), "corpus format 7, this version reads 1"),
        (lambda path: (path / "users.parquet").unlink(), "users.parquet is missing"),
        (lambda path: shutil.rmtree(path), "is not a corpus"),
    ],
)
def test_a_damaged_corpus_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    corpus(LOG).save(tmp_path / "c")
    damage(tmp_path / "c")  # type: ignore[operator]
    with pytest.raises(ArtefactError, match=message):
        Corpus.open(tmp_path / "c")


def test_a_damaged_table_is_named_when_it_is_read(tmp_path: Path) -> None:
    opened = corpus(LOG).save(tmp_path / "c")
    path = tmp_path / "c" / "events.parquet"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtefactError, match=r"events\.parquet is damaged"):
        _ = opened.events


def test_tables_that_are_already_in_a_folder_can_be_sealed(tmp_path: Path) -> None:
    corpus(LOG).save(tmp_path / "c")
    first = seal(tmp_path / "c", name="sealed", notes={"time": {"shop": "order"}})
    opened = Corpus.open(tmp_path / "c")
    assert (opened.name, opened.order_only) == ("sealed", ["shop"])
    assert opened.manifest == json.loads(json.dumps(first))
    corpus([*LOG, ("shop", "7", "12", 9)]).events.write_parquet(tmp_path / "c" / "events.parquet")
    assert seal(tmp_path / "c", name="sealed", notes={})["fingerprint"] != first["fingerprint"]


def test_notes_cannot_overwrite_what_the_corpus_says_of_itself() -> None:
    found = Corpus.from_tables({}, name="real", notes={"name": "false", "fingerprint": "0", "rules": {"bots": 3}})
    assert found.name == "real"
    assert found.fingerprint != "0"
    assert found.manifest["rules"] == {"bots": 3}
    assert found.interactions().is_empty()
