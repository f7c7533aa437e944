"""Texts as tokens and batches: told as narrate tells, cut to the newest, the same for each step, masked by the book."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="the extra 'text' is not installed")

from isthmus.data.narrate import Style, narrate
from isthmus.data.sequences import Histories
from isthmus.encode.weights import locate
from isthmus.errors import InputError
from isthmus.model.language_files import load_tokenizer
from isthmus.model.reading import Reader, ReadingSettings, Tokens, tokenise
from isthmus.train.schedule import Schedule, TextSettings, temperature_shares
from isthmus.train.texts import CausalTexts, LabelledTexts, MaskedTexts, Masking, Mixed, class_numbers
from isthmus.types import EVENTS

TITLES = ["Green tea", "Reef: a diver's year", "Steel hammer, 500 g", "绿茶", None, "Wreck"]
ITEMS = pl.DataFrame(
    {
        "platform": ["shop", "books", "shop", "shop", "radio one", "books"],
        "item": [f"i{n}" for n in range(6)],
        "domain": ["food", "books", "tools", "food", "music", "books"],
        "title": TITLES,
    },
    schema_overrides={"title": pl.String},
)
ROWS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, len(EVENTS) - 1)), max_size=9), max_size=5)


@cache
def tokenizer():
    return load_tokenizer(locate(None))


def told(rows: list[list[tuple[int, int]]]) -> Histories:
    histories = Histories.of([[item for item, _ in row] for row in rows])
    histories.events[:] = [event for row in rows for _, event in row]
    return histories


def lists(tokens: Tokens) -> list[list[int]]:
    return [tokens.ids[a:b].tolist() for a, b in zip(tokens.indptr, tokens.indptr[1:], strict=False)]


def by_narrate(rows: list[list[tuple[int, int]]], language: str) -> list[list[int]]:
    flat = [(person, item, event) for person, row in enumerate(rows) for item, event in row]
    frame = pl.DataFrame(
        {
            "person": [person for person, *_ in flat],
            "platform": [ITEMS["platform"][item] for _, item, _ in flat],
            "event": [EVENTS[event] for *_, event in flat],
            "title": [TITLES[item] or f"i{item}" for _, item, _ in flat],
            "value": [None] * len(flat),
            "ts": [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(len(flat))],
        },
        schema_overrides={"person": pl.UInt32, "value": pl.Float64, "platform": pl.String, "event": pl.String},
    )
    texts = narrate(
        frame,
        np.arange(len(rows)),
        language=language,
        max_tokens=100_000,
        style=Style(weights=dict.fromkeys(EVENTS, 1.0)),
    )["text"].to_list()
    return [tokenizer()(text)["input_ids"] if text else [] for text in texts]


@pytest.mark.parametrize("language", ["en", "zh"])
@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_behaviour_is_told_in_the_words_of_narrate(language: str, rows: list[list[tuple[int, int]]]) -> None:
    reader = Reader(tokenizer(), ITEMS, ReadingSettings(language=language, max_tokens_person=10_000))
    assert lists(reader.behaviour(told(rows))) == by_narrate(rows, language)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(36, 90))
def test_where_room_is_short_the_newest_events_are_told(rows: list[list[tuple[int, int]]], room: int) -> None:
    reader = Reader(tokenizer(), ITEMS, ReadingSettings(max_tokens_person=room, max_tokens_title=8))
    whole = Reader(tokenizer(), ITEMS, ReadingSettings(max_tokens_person=10_000, max_tokens_title=8))
    short = lists(reader.behaviour(told(rows)))
    for row, tokens in zip(rows, short, strict=True):
        ends = [lists(whole.behaviour(told([row[n:]])))[0] for n in range(len(row))]
        assert len(tokens) <= room
        assert tokens in (ends or [[]])
        skipped = ends.index(tokens) if ends else 0
        if skipped:
            assert len(ends[skipped - 1]) > room - 12 * (len(row) - skipped + 1)


def test_one_event_must_fit() -> None:
    reader = Reader(tokenizer(), ITEMS, ReadingSettings(max_tokens_person=12))
    with pytest.raises(InputError, match="no room for one event within 12 tokens"):
        reader.behaviour(told([[(0, 0)]]))


def test_items_are_read_whole_or_by_title() -> None:
    items = ITEMS.with_columns(text=pl.lit("a long description"))
    by_title = lists(Reader(tokenizer(), items).behaviour(told([[(0, 0)]])))[0]
    whole = lists(Reader(tokenizer(), items, ReadingSettings(whole=True)).behaviour(told([[(0, 0)]])))[0]
    assert tokenizer().decode(whole) == tokenizer().decode(by_title).replace("tea", "tea. a long description")
    bare = Reader(tokenizer(), ITEMS).items
    assert bare.lengths[4] == 0
    assert lists(bare)[0] == tokenizer()("Green tea")["input_ids"]


def test_telling_many_events_takes_no_loop() -> None:
    rng = np.random.default_rng(0)
    n = 300_000
    indptr = np.arange(0, n + 1, 10)
    many = Histories(indptr, rng.integers(0, 6, n).astype(np.int32), np.ones(n, np.float32), np.arange(n))
    reader = Reader(tokenizer(), ITEMS)
    reader.behaviour(told([[(0, 0)]]))
    start = time.perf_counter()
    assert len(reader.behaviour(many)) == n // 10
    assert time.perf_counter() - start < 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 99), max_size=6), max_size=6), st.data())
def test_tokens_pad_and_take_as_lists_do(rows: list[list[int]], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6) if rows else st.just([]))
    taken = Tokens.of(rows).take(np.array(places, np.int64))
    assert lists(taken) == [rows[place] for place in places]
    ids, mask = taken.padded()
    assert ids.shape == mask.shape == (len(places), max([1, *(len(rows[place]) for place in places)]))
    for place, row, real in zip(places, ids.tolist(), mask.tolist(), strict=True):
        n = len(rows[place])
        assert row == rows[place] + [0] * (len(row) - n)
        assert real == [1] * n + [0] * (len(row) - n)


def test_long_texts_are_cut_and_empty_ones_have_no_tokens() -> None:
    found = lists(tokenise(tokenizer(), ["one two three four", "", "one"], 4))
    assert found == [tokenizer()("one two")["input_ids"], [], tokenizer()("one")["input_ids"]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=80), st.integers(1, 7), st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 50),
)  # fmt: skip
def test_batches_are_of_one_group_and_do_not_depend_on_the_order_of_asking(
    groups: list[int], size: int, alpha: float, seed: int
) -> None:
    made = [
        Schedule(np.ones(len(groups), np.int64), TextSettings(size, alpha, seed), np.array(groups)) for _ in range(2)
    ]
    steps = list(range(2 * len(made[0])))
    forwards = [made[0].rows(step).tolist() for step in steps]
    backwards = [made[1].rows(step).tolist() for step in reversed(steps)]
    assert forwards == backwards[::-1]
    for rows in forwards:
        assert 1 <= len(rows) <= size
        assert len(set(rows)) == len(rows)
        assert len({groups[row] for row in rows}) == 1


def test_one_group_is_seen_once_an_epoch_and_like_lengths_meet() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    schedule = Schedule(lengths, TextSettings(batch_size=10))
    batches = [schedule.rows(step) for step in range(100)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    assert np.mean([np.ptp(lengths[rows]) for rows in batches]) < 15
    assert schedule.rows(0).tolist() != schedule.rows(100).tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_groups_come_as_often_as_temperature_sampling_says(alpha: float) -> None:
    sizes = np.array([6400, 1600, 100])
    groups = np.repeat([0, 1, 2], sizes)
    schedule = Schedule(np.ones(groups.size, np.int64), TextSettings(10, alpha), groups)
    met = np.bincount([groups[schedule.rows(step)[0]] for step in range(len(schedule))], minlength=3)
    expected = sizes**alpha / (sizes**alpha).sum()
    np.testing.assert_allclose(met / met.sum(), expected, atol=2 / len(schedule))
    np.testing.assert_allclose(temperature_shares(sizes, alpha), expected)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        Schedule(np.zeros(0, np.int64), TextSettings())
    with pytest.raises(InputError, match="batch_size is 0"):
        Schedule(np.ones(3, np.int64), TextSettings(batch_size=0))


def test_masking_asks_for_15_per_cent_80_10_10() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(10, 1000, (400, 64))
    ids[:, 0], ids[:, -1] = 1, 2
    real = np.arange(64) < rng.integers(10, 64, 400)[:, None]
    masking = Masking(mask=3, words=1000, special=np.array([0, 1, 2, 3]))
    hidden, labels = masking.hide(ids, real, rng)
    asked = labels != -100
    n = asked.sum()
    assert not (asked & (~real | (ids < 4))).any()
    np.testing.assert_array_equal(labels[asked], ids[asked])
    np.testing.assert_array_equal(hidden[~asked], ids[~asked])
    assert n / (real & (ids >= 4)).sum() == pytest.approx(0.15, abs=0.01)
    assert (hidden[asked] == 3).sum() / n == pytest.approx(0.8, abs=0.03)
    assert (hidden[asked] == ids[asked]).sum() / n == pytest.approx(0.1, abs=0.02)
    assert asked.any(axis=1).all()


def test_masked_texts_take_items_without_events_and_repeat_themselves() -> None:
    tokens = Reader(tokenizer(), ITEMS).items
    made = MaskedTexts(tokens, Masking.of(tokenizer()), TextSettings(batch_size=2, seed=3))
    assert len(made) == 3
    seen = []
    for step in (5, 2, 0, 1, 2):
        (part,) = made.batch(step)["parts"]
        back = part["labels"].where(part["labels"] >= 0, part["input_ids"])
        seen += [(step, row[mask > 0].tolist()) for row, mask in zip(back, part["attention_mask"], strict=True)]
    first_epoch = {tuple(row) for step, row in seen if step < 3}
    assert first_epoch == {tuple(row) for row in lists(tokens) if row}
    assert [row for step, row in seen if step == 2][:2] == [row for step, row in seen if step == 2][-2:]


def test_a_tokeniser_without_mask_cannot_hide_words() -> None:
    class Bare:
        mask_token_id = None

    with pytest.raises(InputError, match="no mask token"):
        Masking.of(Bare())


def test_labels_follow_their_texts_and_unlabelled_ones_wait() -> None:
    tokens = Reader(tokenizer(), ITEMS).items
    numbers, classes = class_numbers([None, *ITEMS["domain"].to_list()[1:]])
    assert classes == ["books", "food", "music", "tools"]
    made = LabelledTexts(tokens, {"domain": numbers}, TextSettings(batch_size=2))
    seen = {}
    for step in range(len(made)):
        (part,) = made.batch(step)["parts"]
        for ids, label in zip(part["input_ids"], part["domain"], strict=True):
            seen[tuple(ids[ids > 0].tolist())] = int(label)
    assert seen == {tuple(lists(tokens)[n]): int(numbers[n]) for n in (1, 2, 3, 5)}
    with pytest.raises(InputError, match="nothing to classify by"):
        LabelledTexts(tokens, {}, TextSettings())


def test_mixed_batches_hold_a_part_of_each_with_its_weight() -> None:
    tokens = Reader(tokenizer(), ITEMS).items
    masked = MaskedTexts(tokens, Masking.of(tokenizer()), TextSettings(batch_size=1))
    causal = CausalTexts(tokens, TextSettings(batch_size=3))
    mixed = Mixed([(masked, 1.0), (Mixed([(causal, 0.5)]), 0.5)])
    assert len(mixed) == len(masked) == 5
    parts = mixed.batch(4)["parts"]
    assert [(part["objective"], part["weight"]) for part in parts] == [("mlm", 1.0), ("clm", 0.25)]
    with pytest.raises(InputError, match="weights above 0"):
        Mixed([(masked, 0.0)])
