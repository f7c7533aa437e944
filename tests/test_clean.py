"""Cleaning: each rule takes what it should, nothing else, and agrees with a slow and plain version of itself."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.clean import Clocks, bursts, clean_events, gap_entropy, in_order
from isthmus.data.clean_texts import PLACEHOLDERS, clean_text, clean_title
from isthmus.data.spec import Clean

SECOND = 1_000_000
FINE = Clocks(fine=np.array([True]), order=np.array([False]))
COARSE = Clocks(fine=np.array([False]), order=np.array([False]))
ORDER = Clocks(fine=np.array([False]), order=np.array([True]))


def events(*rows: tuple[int, int, float | None, float], event: int = 0) -> pl.DataFrame:
    """Rows of (account, item, value, seconds)."""
    return pl.DataFrame(
        {
            "account": [row[0] for row in rows],
            "platform": [0 for _ in rows],
            "item": [row[1] for row in rows],
            "event": [event for _ in rows],
            "value": [row[2] for row in rows],
            "ts": [round(row[3] * SECOND) for row in rows],
            "line": list(range(len(rows))),
        },
        schema={
            "account": pl.UInt32,
            "platform": pl.UInt32,
            "item": pl.UInt32,
            "event": pl.UInt8,
            "value": pl.Float64,
            "ts": pl.Int64,
            "line": pl.Int64,
        },
    )


def taken(rows: pl.DataFrame, clocks: Clocks = FINE, **rules: object) -> list[tuple[int, str]]:
    kept, gone = clean_events(rows, Clean(**rules), clocks)  # type: ignore[arg-type]
    assert sorted([*kept["line"], *gone["line"]]) == sorted(rows["line"])
    assert kept["ts"].to_list() == kept.sort("account", "ts", maintain_order=True)["ts"].to_list()
    return sorted(gone.select("line", "rule").rows())


def test_exact_duplicates_go_and_the_first_stays() -> None:
    rows = events((1, 5, 3.0, 10), (1, 5, 3.0, 10), (1, 5, None, 99), (1, 5, None, 99), (2, 5, 3.0, 10))
    assert taken(rows) == [(1, "duplicates"), (3, "duplicates")]
    assert taken(rows, COARSE) == [(1, "duplicates"), (3, "duplicates")]
    assert taken(rows, duplicates=False, near_seconds=0) == []


def test_near_duplicates_need_fine_times() -> None:
    rows = events((1, 5, 3.0, 10), (1, 5, 4.0, 11.5), (1, 5, 3.0, 20), (1, 6, 3.0, 10.5))
    assert taken(rows) == [(1, "near_duplicates")]
    assert taken(rows, near_seconds=10) == [(1, "near_duplicates"), (2, "near_duplicates")]
    assert taken(rows, COARSE) == []


def test_where_there_is_an_order_only_direct_repeats_go() -> None:
    rows = events((1, 5, None, 0), (1, 5, None, 1), (1, 6, None, 2), (1, 5, None, 3))
    assert taken(rows, ORDER) == [(1, "duplicates")]


def test_bursts_go_and_the_rest_of_the_account_stays() -> None:
    slow = [(1, n, None, 1000.0 + 997 * n * n) for n in range(40)]
    fast = [(1, 100 + n, None, 100.0 + n * n / 40) for n in range(20)]
    rows = events(*slow, *fast)
    gone = taken(rows, burst_per_minute=10)
    assert gone == [(line, "bursts") for line in range(40, 60)]
    assert taken(rows, burst_per_minute=0) == []
    assert taken(rows, COARSE, burst_per_minute=10) == []


def test_accounts_mostly_in_bursts_are_bots() -> None:
    rows = events(*((1, n, None, n * n / 40) for n in range(40)), (1, 99, None, 99_999), (2, 1, None, 5))
    assert taken(rows, burst_per_minute=10) == [(line, "bots") for line in range(41)]


def test_even_gaps_are_a_bots() -> None:
    clock = [(1, n, None, 60.0 * n) for n in range(80)]
    person = [(2, n, None, 60.0 * n + 17 * (n * n % 23)) for n in range(80)]
    rows = events(*clock, *person)
    assert taken(rows) == [(line, "bots") for line in range(80)]
    assert taken(rows, bot_gap_bits=0) == []
    assert taken(rows, bot_min_events=100) == []
    assert taken(rows, COARSE) == []


def test_no_events() -> None:
    assert taken(events()) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 200)), max_size=40), st.integers(1, 5))
def test_bursts_agree_with_a_plain_version(rows: list[tuple[int, int]], limit: int) -> None:
    rows.sort()
    account = np.array([row[0] for row in rows], dtype=np.int64)
    ts = np.array([row[1] for row in rows], dtype=np.int64) * SECOND
    plain = set()
    for last in range(len(rows)):
        stretch = [n for n in range(last + 1) if account[n] == account[last] and ts[last] - ts[n] < 60 * SECOND]
        if len(stretch) > limit:
            plain |= set(stretch[-limit - 1 :])
    assert set(np.flatnonzero(bursts(account, ts, limit))) == plain


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), max_size=40))
def test_gap_entropy_agrees_with_a_plain_version(rows: list[tuple[int, int]]) -> None:
    rows.sort()
    account = np.array([row[0] for row in rows], dtype=np.int64)
    ts = np.array([row[1] for row in rows], dtype=np.int64) * SECOND
    bits, count = gap_entropy(account, ts)
    for number in range(bits.size):
        times = [row[1] for row in rows if row[0] == number]
        gaps = Counter(b - a for a, b in pairwise(times) if b > a)
        total = sum(gaps.values())
        assert count[number] == total
        assert bits[number] == pytest.approx(-sum(c / total * math.log2(c / total) for c in gaps.values()), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=80, max_size=160), st.floats(0.05, 0.95))
def test_the_cheap_condition_loses_no_bot(rows: list[tuple[int, int]], limit: float) -> None:
    """Gaps mostly equal: whoever is below the entropy limit is found, in spite of the shortcut."""
    gaps = np.where(np.array([row[0] for row in rows]) > 0, 60, 61 + np.array([row[1] for row in rows]))
    seconds = np.cumsum(gaps)
    frame = events(*((0, n, None, float(second)) for n, second in enumerate(seconds)))
    bits, _ = gap_entropy(np.zeros(seconds.size, dtype=np.int64), seconds * SECOND)
    gone = taken(frame, bot_gap_bits=limit)
    assert bool(gone) == bool(bits[0] < limit)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-(2**50), 2**50)), max_size=30))
def test_in_order_is_the_stable_order(rows: list[tuple[int, int]]) -> None:
    account, ts = np.array([r[0] for r in rows], dtype=np.int64), np.array([r[1] for r in rows], dtype=np.int64)
    assert in_order(account, ts).tolist() == sorted(range(len(rows)), key=lambda n: rows[n])


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("caf&eacute; &#x4E66;", "café 书"),
        ("<p>Rich<br/>tea</p>", "Rich tea"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("a<script>x = 1 < 2</script>b <!-- no -->c", "a b c"),
        ("I <3 tea, 1 < 2 > 0", "I <3 tea, 1 < 2 > 0"),
        ("ＡＢＣ　书：１２３", "ABC 书:123"),
        ("  two \t\n spaces ", "two spaces"),
        ("zero\u200bwidth\x00", "zerowidth"),
        ("e\u0301", "é"),
        ("   ", None),
        ("&nbsp;", None),
        (None, None),
    ],
)
def test_texts(raw: str | None, clean: str | None) -> None:
    assert clean_text(pl.Series([raw], dtype=pl.String), Clean()).to_list() == [clean]


def test_text_rules_have_switches() -> None:
    rules = Clean(markup=False, unicode=False, placeholders=False)
    texts = pl.Series(["<b>ＡＢＣ</b> &amp;", "n/a"])
    assert clean_title(texts, rules).to_list() == ["<b>ＡＢＣ</b> &amp;", "n/a"]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40).filter(lambda text: not any(0xD800 <= ord(c) < 0xE000 for c in text)))
def test_clean_text_is_trimmed_and_stays_clean_without_markup(text: str) -> None:
    rules = Clean(markup=False)
    once = clean_text(pl.Series([text], dtype=pl.String), rules)
    assert clean_text(once, rules).to_list() == once.to_list()
    if once[0] is not None:
        assert once[0] == once[0].strip()
        assert "  " not in once[0]


def test_placeholder_titles() -> None:
    words = [*PLACEHOLDERS, *(word.upper() for word in PLACEHOLDERS), " N/A ", "<i>null</i>", "Ｎ／Ａ"]
    assert clean_title(pl.Series(words), Clean()).null_count() == len(words)
    assert clean_title(
        pl.Series(["Nullarbor", "无标题音乐", "soon"]), Clean(placeholder_titles=("Soon",))
    ).to_list() == [
        "Nullarbor",
        "无标题音乐",
        None,
    ]
