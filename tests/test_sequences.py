"""Histories as flat arrays: every operation against lists."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.sequences import Histories, ranges

ROWS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.3, 0.5, 1.0])), max_size=6), max_size=6)
quick = settings(max_examples=80, deadline=None)


def of(rows: list[list[tuple[int, float]]]) -> Histories:
    plain = Histories.of([[item for item, _ in row] for row in rows])
    weights = np.array([weight for row in rows for _, weight in row], np.float32)
    return Histories(plain.indptr, plain.items, weights, plain.ts)


def lists(histories: Histories) -> list[list[tuple[int, float]]]:
    pairs = list(zip(histories.items.tolist(), histories.weights.round(4).tolist(), strict=True))
    return [
        [(i, round(w, 2)) for i, w in pairs[a:b]] for a, b in zip(histories.indptr, histories.indptr[1:], strict=False)
    ]


@quick
@given(ROWS)
def test_shapes_rows_and_ages(rows: list[list[tuple[int, float]]]) -> None:
    histories = of(rows)
    assert len(histories) == len(rows)
    assert lists(histories) == rows
    assert histories.lengths.tolist() == [len(row) for row in rows]
    assert histories.rows.tolist() == [place for place, row in enumerate(rows) for _ in row]
    assert histories.age.tolist() == [len(row) - 1 - n for row in rows for n in range(len(row))]
    assert (histories.indptr.dtype, histories.items.dtype) == (np.int64, np.int32)
    assert (histories.weights.dtype, histories.ts.dtype) == (np.float32, np.int64)


@quick
@given(ROWS, st.data())
def test_take_and_last(rows: list[list[tuple[int, float]]], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8) if rows else st.just([]))
    taken = of(rows).take(np.array(places, dtype=np.int64))
    assert lists(taken) == [rows[place] for place in places]
    n = data.draw(st.integers(0, 7))
    assert lists(of(rows).last(n)) == [row[max(0, len(row) - n) :] for row in rows]


@quick
@given(ROWS, st.integers(0, 5))
def test_keep(rows: list[list[tuple[int, float]]], item: int) -> None:
    histories = of(rows)
    kept = histories.keep(histories.items != item)
    assert lists(kept) == [[pair for pair in row if pair[0] != item] for row in rows]


@quick
@given(ROWS, st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_matrix_holds_the_largest_decayed_weight(rows: list[list[tuple[int, float]]], decay: float) -> None:
    expected = np.zeros((len(rows), 7))
    for place, row in enumerate(rows):
        for n, (item, weight) in enumerate(row):
            expected[place, item] = max(expected[place, item], weight * decay ** (len(row) - 1 - n))
    matrix = of(rows).matrix(7, decay=decay)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-6)


@quick
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=20), st.sets(st.integers(0, 6)))
def test_from_frame_follows_the_persons_asked_for(pairs: list[tuple[int, int]], persons: set[int]) -> None:
    pairs = sorted(pairs, key=lambda pair: pair[0])
    schema = {"person": pl.UInt32, "item": pl.UInt32}
    frame = pl.DataFrame(pairs, schema=schema, orient="row").with_columns(
        weight=pl.lit(0.5, pl.Float32), ts=pl.int_range(pl.len()).cast(pl.Datetime("us", "UTC"))
    )
    asked = np.array(sorted(persons), dtype=np.int64)
    histories = Histories.from_frame(frame, asked)
    expected = [[item for person, item in pairs if person == who] for who in asked]
    assert [[item for item, _ in row] for row in lists(histories)] == expected
    times = [[n for n, pair in enumerate(pairs) if pair[0] == who] for who in asked]
    assert histories.ts.tolist() == [when for row in times for when in row]


@quick
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=10))
def test_ranges_join_arange(pairs: list[tuple[int, int]]) -> None:
    start = np.array([a for a, _ in pairs], dtype=np.int64)
    stop = np.array([a + n for a, n in pairs], dtype=np.int64)
    expected = [value for a, b in zip(start, stop, strict=True) for value in range(a, b)]
    assert ranges(start, stop).tolist() == expected
