"""Behaviour as language: what is told can be read back, and the budget keeps what matters most."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.corpus import Corpus
from isthmus.data.narrate import Style, estimate, narrate, parse, story
from isthmus.data.simulate import town_tables
from isthmus.errors import DataError, InputError
from isthmus.types import EVENTS

EVERYTHING = dict.fromkeys(EVENTS, 1.0)
START = datetime(2024, 1, 1, tzinfo=UTC)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
nasty = st.sampled_from(
    ['"', '\\"', "]", "》", "》，然后浏览了《", '", then viewed "', "\\n", "\n\r\t\x00\u2028", "{t}", "{v}", "书"]
)
titles = st.one_of(words, nasty, st.lists(nasty, max_size=3).map("".join))
values = st.one_of(st.none(), st.integers(0, 100).map(lambda n: n / 100))
events = st.lists(st.tuples(titles, titles, st.sampled_from(EVENTS), values), max_size=8)


def frame(rows: list[tuple[str, str, str, float | None]], person: int = 0) -> pl.DataFrame:
    schema = {"platform": pl.String, "title": pl.String, "event": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        person=pl.lit(person, pl.UInt32), ts=pl.lit(START) + pl.duration(days=pl.int_range(pl.len()))
    )


def texts(rows: list[tuple[str, str, str, float | None]], **options: object) -> str:
    told = narrate(frame(rows), np.array([0]), **options)
    return told["text"][0]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_tables(town_tables(seed=2, persons=80), name="town")


@settings(max_examples=200, deadline=None)
@given(events, st.sampled_from(["en", "zh"]), st.sampled_from(["oldest", "newest"]))
def test_what_is_told_can_be_read_back(rows: list, language: str, order: str) -> None:
    text = texts(rows, language=language, max_tokens=10**6, style=Style(order=order, weights=EVERYTHING))
    told = parse(text, language)
    wanted = rows if order == "oldest" else rows[::-1]
    assert [(one.platform, one.title, one.event) for one in told] == [row[:3] for row in wanted]
    for one, row in zip(told, wanted, strict=True):
        if row[3] is None:
            assert one.value is None
        else:
            assert one.value == pytest.approx(row[3], abs=0.0051)


def test_sentences_read_as_a_person_would_write_them() -> None:
    rows = [
        ("books", "Reef", "view", None),
        ("books", "Reef", "purchase", None),
        ("films", "Wreck", "rate", 0.9),
        ("jukebox", "Tide", "play", 215.0),
    ]
    assert texts(rows) == (
        'viewed "Reef" on books, then bought "Reef", then rated 4.5 of 5 "Wreck" on films, '
        'then played "Tide" for 215 seconds on jukebox.'
    )
    assert texts(rows, language="zh") == (
        "在「books」浏览了《Reef》，然后购买了《Reef》，然后在「films」给《Wreck》打了4.5分（满分5分），"
        "然后在「jukebox」播放了《Tide》215秒。"
    )
    assert texts(rows[:2], style=Style(order="newest")) == 'bought "Reef" on books, before that viewed "Reef".'
    assert texts([rows[3]], style=Style(counted=["jukebox"])) == 'played "Tide" 215 times on jukebox.'


def test_events_without_taste_are_not_told() -> None:
    rows = [("shop", "A", "ad_click", None), ("shop", "B", "impression", None), ("shop", "C", "view", None)]
    assert [told.title for told in parse(texts(rows))] == ["C"]


def test_newest_events_are_kept_when_room_is_short() -> None:
    rows = [("shop", f"title {n:02}", "view", None) for n in range(30)]
    told = parse(texts(rows, max_tokens=40, count_tokens=lambda many: [10] * len(many)))
    assert [one.title for one in told] == ["title 26", "title 27", "title 28", "title 29"]


def test_a_purchase_is_kept_longer_than_a_view() -> None:
    rows = [("shop", "bought", "purchase", None), *[("shop", f"seen {n}", "view", None) for n in range(9)]]
    told = parse(texts(rows, max_tokens=3, count_tokens=lambda many: [1] * len(many)))
    assert [one.title for one in told] == ["bought", "seen 7", "seen 8"]
    hasty = parse(texts(rows, max_tokens=3, count_tokens=lambda many: [1] * len(many), style=Style(half_life=1.0)))
    assert [one.title for one in hasty] == ["seen 6", "seen 7", "seen 8"]


def test_one_endless_title_does_not_silence_the_rest() -> None:
    rows = [("shop", "short", "view", None), ("shop", "endless " * 500, "view", None)]
    assert [one.title for one in parse(texts(rows, max_tokens=50))] == ["short"]


@given(st.lists(st.tuples(words, st.sampled_from(EVENTS)), max_size=12), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_a_text_is_never_longer_than_its_budget(pairs: list, budget: int) -> None:
    rows = [("shop", title, event, None) for title, event in pairs]
    text = texts(
        rows, max_tokens=budget, style=Style(weights=EVERYTHING), count_tokens=lambda many: list(map(len, many))
    )
    assert len(text) <= budget


def test_estimate_counts_chinese_by_character() -> None:
    assert estimate(["深海潜水", "diver", ""]) == [4, 2, 0]


def test_corpus_is_told_for_the_persons_asked_for_in_their_order(corpus: Corpus) -> None:
    persons = np.array([7, 0, 3])
    told = narrate(corpus, persons, max_tokens=200)
    assert told["person"].to_list() == [7, 0, 3]
    everybody = narrate(corpus, max_tokens=200)
    assert everybody.height == corpus.persons.len()
    assert told["text"].to_list() == everybody["text"].gather([7, 0, 3]).to_list()


def test_a_persons_events_come_from_all_their_platforms_in_time_order(corpus: Corpus) -> None:
    whole = story(corpus)
    several = whole.group_by("person").agg(pl.col("platform").n_unique()).filter(pl.col("platform") > 1)["person"][0]
    mine = whole.filter(pl.col("person") == several)
    text = narrate(corpus, np.array([several]), max_tokens=10**6)["text"][0]
    assert [(told.platform, told.event, told.title) for told in parse(text)] == [
        tuple(row) for row in mine.select("platform", "event", "title").iter_rows()
    ]


def test_an_item_without_title_is_called_by_its_id() -> None:
    tables = {
        "events": pl.DataFrame({"platform": "s", "user": "u", "item": "B00X", "event": "view", "ts": [START]}),
        "items": pl.DataFrame({"platform": ["s"], "item": ["B00X"], "domain": ["d"]}),
    }
    assert narrate(Corpus.from_tables(tables, name="x"))["text"][0] == 'viewed "B00X" on s.'


def test_a_person_without_events_gets_an_empty_text() -> None:
    assert narrate(frame([]), np.array([4])).rows() == [(4, "")]
    assert parse("") == []


def test_a_part_of_the_story_can_be_told(corpus: Corpus) -> None:
    cut = START + timedelta(days=120)
    told = narrate(story(corpus).filter(pl.col("ts") < cut), max_tokens=10**6)
    n = sum(len(parse(text)) for text in told["text"])
    assert n == corpus.events.filter(pl.col("ts") < cut).height


@pytest.mark.parametrize("text", ["viewed", 'viewed "A', 'ate "A" on books.', 'viewed "A" on books. More'])
def test_foreign_text_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(DataError, match="no event at character"):
        parse(text)


def test_wrong_arguments_are_explained(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="no language 'cn'"):
        narrate(corpus, language="cn")
    with pytest.raises(InputError, match="max_tokens is 0"):
        narrate(corpus, max_tokens=0)
