"""People without events: what is popular among those alike, no more than the data can carry."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import corpus

from isthmus.errors import InputError
from isthmus.model.segments import LEAST, MOST, SHRINKS, SegmentPopularity, _common
from isthmus.split.temporal import Split

AGES = {f"u{n}": '{"age": "%s", "city": "北京"}' % ("20" if n % 2 else "60") for n in range(40)}


def town(loyal: bool = True) -> Split:
    """Return 40 people, one event a day: the young meet items 0-4, the old 5-9; or all meet anything."""
    rng = np.random.default_rng(0)
    log = []
    for day in range(400):
        person = int(rng.integers(40))
        item = int(rng.integers(5)) + (5 * (1 - person % 2)) if loyal else int(rng.integers(10))
        log.append(("shop", f"u{person}", f"i{item}", float(day)))
    return Split.make(corpus(log, users=AGES))


LOYAL = SegmentPopularity.of(town(), "books", ["age", "city"])


def columns(split: Split, names: list[str]) -> list[int]:
    return [split.corpus.items["item"].to_list().index(name) for name in names]


def test_the_young_get_what_the_young_meet() -> None:
    scores = LOYAL.score([{"age": "20"}, {"age": "60"}])
    young = columns(town(), [f"i{n}" for n in range(5)])
    assert set(np.argsort(-scores[0])[:5]) == set(young)
    assert not set(np.argsort(-scores[1])[:5]) & set(young)


def test_what_is_not_told_changes_nothing() -> None:
    scores = LOYAL.score([{}, {"age": "99"}, {"shoe": "20"}])
    np.testing.assert_array_equal(scores, np.repeat(LOYAL.everybody[None], 3, axis=0))
    np.testing.assert_allclose(LOYAL.score([{"city": "北京"}])[0], LOYAL.everybody, atol=0.1)


def test_segments_that_mean_nothing_are_shrunk_away() -> None:
    idle = SegmentPopularity.of(town(loyal=False), "books", ["age"])
    assert idle.shrink >= 1000
    assert LOYAL.shrink <= 100
    assert np.abs(idle.score([{"age": "20"}])[0] - idle.everybody).max() < 0.1


def test_the_formula_written_out() -> None:
    split = town()
    model = SegmentPopularity.of(split, "books", ["age"], half_life=0.0)
    events = split.events.filter(split.events["part"] < 2)
    young = np.array(["20" in AGES[split.corpus.persons[p]] for p in events["person"]])
    items = events["item"].to_numpy()
    weight = float(events["weight"][0])
    for item in range(10):
        share = (weight * (items == item).sum() + 0.5) / (weight * items.size + 5)
        own = (weight * ((items == item) & young).sum() + model.shrink * share) / (weight * young.sum() + model.shrink)
        assert model.everybody[item] == pytest.approx(np.log(share), abs=1e-5)
        assert model.score([{"age": "20"}])[0, item] == pytest.approx(np.log(own), abs=1e-4)


def test_lately_counts_more() -> None:
    log = [("shop", f"u{n}", "old" if n < 30 else "new", float(n)) for n in range(36)]
    split = Split.make(corpus(log), valid_share=0.05, test_share=0.05)
    old, new = columns(split, ["old", "new"])
    lately, always = (SegmentPopularity.of(split, "books", half_life=days).everybody for days in (1.0, 0.0))
    assert lately[new] > lately[old]
    assert always[new] < always[old]


def test_the_moment_is_a_segment_too() -> None:
    log = [("shop", f"u{n}", "weekend" if n % 7 >= 5 else "week", float(n)) for n in range(140)]  # day 0: Monday
    split = Split.make(corpus(log))
    model = SegmentPopularity.of(split, "books", ["weekday"])
    week, weekend = columns(split, ["week", "weekend"])
    scores = model.score([{"weekday": "6"}, {"weekday": "2"}])
    assert scores[0, weekend] > scores[0, week]
    assert scores[1, weekend] < scores[1, week]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["20", "60"]))
def test_a_segment_is_a_distribution(age: str) -> None:
    assert np.exp(LOYAL.score([{"age": age}])[0].astype(np.float64)).sum() == pytest.approx(1.0, abs=1e-4)


def test_few_people_are_no_segment_and_the_rarest_values_go() -> None:
    users = {f"u{n}": '{"city": "%s"}' % ("Ur" if n < 4 else "Uruk") for n in range(12)}
    log = [("shop", f"u{n}", f"i{n % 3}", float(n + 12 * again)) for n in range(12) for again in range(9)]
    model = SegmentPopularity.of(Split.make(corpus(log, users=users)), "books", ["city"])
    assert model.names == (("city", "Uruk"),)
    words = pl.Series([f"v{n:03}" for n in range(MOST + 3) for _ in range(LEAST + (n > 4))])
    kept = _common(words, pl.Series(range(len(words))))
    assert len(kept) == MOST
    assert kept[:3].to_list() == ["v000", "v001", "v005"]  # of the five rarest the first two find a place


def test_a_moment_needs_dates() -> None:
    log = [("shop", f"u{n}", f"i{n % 3}", float(d)) for n in range(9) for d in range(4)]
    ordered = Split.make(corpus(log, order=["shop"]), protocol="leave-last")
    with pytest.raises(InputError, match="no dates, so no hour"):
        SegmentPopularity.of(ordered, "books", ["hour"])


def test_what_was_counted_is_kept() -> None:
    again = SegmentPopularity.restored(*LOYAL.state())
    asked = [{"age": "20", "city": "北京"}, {"age": "60"}, {}]
    np.testing.assert_array_equal(again.score(asked), LOYAL.score(asked))
    told = pl.DataFrame({"age": ["20", "1", None]})
    assert LOYAL.knows(told).tolist() == [True, False, False]


def test_bad_input_is_said() -> None:
    with pytest.raises(InputError, match="nobody has the attribute 'shoe'"):
        SegmentPopularity.of(town(), "books", ["shoe"])
    empty = town()
    with pytest.raises(InputError, match="no training event"):
        SegmentPopularity.of(Split(empty.corpus, empty.events.clear(), empty.card), "books")
    assert LOYAL.shrink in SHRINKS
