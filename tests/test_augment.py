"""Augmented histories: against loops over persons that use the same draws, and what each operation may not do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.augment import (
    OPERATIONS,
    Augment,
    crop,
    insert,
    mask,
    one_view,
    reorder,
    shuffle_histories,
    substitute,
    two_views,
)
from isthmus.data.sequences import Histories
from isthmus.data.similar import similar_by_company, similar_items
from isthmus.errors import InputError

#: Items 0-6; 0 has nothing similar, 1 has one item, the others two.
SIMILAR = np.array([[-1, -1], [6, -1], [3, 4], [2, 4], [2, 3], [1, 2], [5, 1]], np.int32)
MASKED = 7
ROWS = st.lists(st.lists(st.integers(0, 6), max_size=9), max_size=7)
SHARES = st.sampled_from([0.0, 0.2, 0.29, 0.5, 0.75, 1.0])
SEEDS = st.integers(0, 9)
quick = settings(max_examples=100, deadline=None)

#: item, weight, ts, event
Row = tuple[int, float, int, int]
Change = Callable[[Histories, float, np.random.Generator], Histories]
CHANGES: dict[str, Change] = {
    "crop": crop,
    "mask": mask,
    "hide": lambda h, share, rng: mask(h, share, rng, item=MASKED),
    "reorder": reorder,
    "substitute": lambda h, share, rng: substitute(h, share, SIMILAR, rng),
    "insert": lambda h, share, rng: insert(h, share, SIMILAR, rng),
}


def of(rows: list[list[int]]) -> Histories:
    """Return histories whose weights, times and events tell each event from all others."""
    plain = Histories.of(rows)
    count = np.arange(plain.items.size)
    return Histories(
        plain.indptr,
        plain.items,
        (0.01 * (1 + count)).astype(np.float32),
        1000 + count * 7,
        (count % 11).astype(np.int8),
    )


def rows_of(histories: Histories) -> list[list[Row]]:
    columns = (histories.items, histories.weights.round(2), histories.ts, histories.events)
    flat = list(zip(*(column.tolist() for column in columns), strict=True))
    return [flat[a:b] for a, b in zip(histories.indptr, histories.indptr[1:], strict=False)]


def portion(share: float, n: int) -> int:
    return math.floor(round(share * n, 6))


def in_order(subset: list[Row], whole: list[Row]) -> bool:
    left = iter(whole)
    return all(row in left for row in subset)


# --- loops over persons -----------------------------------------------------------------------------------------------


def naive_some(rows: list[list[Row]], share: float, rng: np.random.Generator) -> list[set[int]]:
    keys = iter(rng.integers(1 << 32, size=sum(map(len, rows))).tolist())
    chosen = []
    for row in rows:
        mine = [next(keys) for _ in row]
        chosen.append(set(sorted(range(len(row)), key=mine.__getitem__)[: portion(share, len(row))]))
    return chosen


def naive_similar(rows: list[list[Row]], rng: np.random.Generator) -> list[list[int]]:
    points = iter(rng.random(sum(map(len, rows))).tolist())
    drawn = []
    for row in rows:
        known = [[other for other in SIMILAR[item] if other >= 0] for item, *_ in row]
        pairs = [(some, next(points)) for some in known]
        drawn.append([int(some[int(point * len(some))]) if some else -1 for some, point in pairs])
    return drawn


def naive(name: str, rows: list[list[Row]], share: float, rng: np.random.Generator) -> list[list[Row]]:
    if name in ("crop", "reorder"):
        lengths = [portion(share, len(row)) for row in rows]
        if name == "crop":
            lengths = [max(length, min(len(row), 1)) for length, row in zip(lengths, rows, strict=True)]
        high = np.array([len(row) - length for row, length in zip(rows, lengths, strict=True)])
        starts = rng.integers(0, high, endpoint=True).tolist()
        inside = [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)]
        if name == "crop":
            return [[row[place] for place in places] for row, places in zip(rows, inside, strict=True)]
        keys = iter(rng.integers(1 << 32, size=sum(lengths)).tolist())
        result = []
        for row, places in zip(rows, inside, strict=True):
            drawn = {place: next(keys) for place in places}
            new = list(row)
            for place, source in zip(places, sorted(places, key=drawn.__getitem__), strict=True):
                new[place] = (row[source][0], row[source][1], row[place][2], row[source][3])
            result.append(new)
        return result
    if name in ("mask", "hide"):
        chosen = naive_some(rows, share, rng)
        if name == "mask":
            return [[e for n, e in enumerate(row) if n not in some] for row, some in zip(rows, chosen, strict=True)]
        return [
            [(MASKED if n in some else e[0], *e[1:]) for n, e in enumerate(row)]
            for row, some in zip(rows, chosen, strict=True)
        ]
    if name == "substitute":
        chosen, others = naive_some(rows, share, rng), naive_similar(rows, rng)
    else:
        others, chosen = naive_similar(rows, rng), naive_some(rows, share, rng)
    result = []
    for row, some, other in zip(rows, chosen, others, strict=True):
        new = []
        for n, (item, *rest) in enumerate(row):
            hit = n in some and other[n] >= 0
            if hit and name == "insert":
                new.append((other[n], *rest))
            new.append((other[n] if hit and name == "substitute" else item, *rest))
        result.append(new)
    return result


@pytest.mark.parametrize("name", CHANGES)
@quick
@given(rows=ROWS, share=SHARES, seed=SEEDS)
def test_each_operation_equals_a_loop_over_persons(name: str, rows: list[list[int]], share: float, seed: int) -> None:
    histories = of(rows)
    before = rows_of(histories)
    changed = CHANGES[name](histories, share, np.random.default_rng(seed))
    assert rows_of(changed) == naive(name, before, share, np.random.default_rng(seed))
    assert rows_of(histories) == before
    assert [changed.items.dtype, changed.weights.dtype, changed.events.dtype] == [np.int32, np.float32, np.int8]
    assert (changed.indptr.dtype, changed.ts.dtype) == (np.int64, np.int64)


# --- what each operation promises -------------------------------------------------------------------------------------


@quick
@given(ROWS, SHARES, SEEDS)
def test_a_crop_is_one_stretch_and_never_empty(rows: list[list[int]], share: float, seed: int) -> None:
    for row, kept in zip(rows_of(of(rows)), rows_of(crop(of(rows), share, np.random.default_rng(seed))), strict=True):
        assert len(kept) == (max(1, portion(share, len(row))) if row else 0)
        assert any(row[start : start + len(kept)] == kept for start in range(len(row) + 1))


@quick
@given(ROWS, SHARES, SEEDS)
def test_masking_drops_the_share_and_keeps_the_order(rows: list[list[int]], share: float, seed: int) -> None:
    for row, kept in zip(rows_of(of(rows)), rows_of(mask(of(rows), share, np.random.default_rng(seed))), strict=True):
        assert len(kept) == len(row) - portion(share, len(row))
        assert in_order(kept, row)


@quick
@given(ROWS, SHARES, SEEDS)
def test_shuffling_keeps_the_events_and_the_times(rows: list[list[int]], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for changed in (reorder(of(rows), share, rng), shuffle_histories(of(rows), rng)):
        assert changed.ts.tolist() == of(rows).ts.tolist()
        for row, new in zip(rows_of(of(rows)), rows_of(changed), strict=True):
            assert Counter((i, w, e) for i, w, _, e in row) == Counter((i, w, e) for i, w, _, e in new)


@quick
@given(ROWS, SHARES, SEEDS)
def test_inserting_only_adds_similar_items(rows: list[list[int]], share: float, seed: int) -> None:
    changed = insert(of(rows), share, SIMILAR, np.random.default_rng(seed))
    for row, new in zip(rows_of(of(rows)), rows_of(changed), strict=True):
        assert in_order(row, new)
        assert len(new) <= len(row) + portion(share, len(row))
        assert new[-1:] == row[-1:]
        times = [ts for _, _, ts, _ in new]
        assert times == sorted(times)
        added = [(a, b) for a, b in pairwise(new) if a[2] == b[2]]
        assert len(added) == len(new) - len(row)
        assert all(a[0] in SIMILAR[b[0]] and a[1:] == b[1:] for a, b in added)


@pytest.mark.parametrize("name", CHANGES)
@quick
@given(rows=ROWS, seed=SEEDS, data=st.data())
def test_other_persons_are_left_alone(name: str, rows: list[list[int]], seed: int, data: st.DataObject) -> None:
    histories = of(rows)
    who = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=bool)
    rng = np.random.default_rng(seed)
    function = {"crop": crop, "mask": mask, "hide": mask, "reorder": reorder}.get(name)
    if function is not None:
        changed = function(histories, 0.6, rng, who=who)
    else:
        changed = (substitute if name == "substitute" else insert)(histories, 0.6, SIMILAR, rng, who=who)
    pairs = list(zip(rows_of(histories), rows_of(changed), strict=True))
    assert all(a == b for (a, b), touched in zip(pairs, who, strict=True) if not touched)


def test_every_place_is_as_likely() -> None:
    histories = Histories.of([list(range(5))] * 20_000)
    rng = np.random.default_rng(1)
    kept = np.bincount(mask(histories, 0.4, rng).items, minlength=5) / 20_000
    starts = np.bincount(crop(histories, 0.6, rng).items.reshape(-1, 3)[:, 0], minlength=5)[:3] / 20_000
    first = np.bincount(shuffle_histories(histories, rng).items.reshape(-1, 5)[:, 0], minlength=5) / 20_000
    np.testing.assert_allclose(kept, 0.6, atol=0.02)
    np.testing.assert_allclose(starts, 1 / 3, atol=0.02)
    np.testing.assert_allclose(first, 0.2, atol=0.02)


# --- views ------------------------------------------------------------------------------------------------------------


def test_two_views_differ_and_come_again_with_the_seed() -> None:
    histories = of([list(range(7)) for _ in range(50)])
    augment = Augment(OPERATIONS, mask_item=MASKED)
    views = two_views(histories, augment, np.random.default_rng(3), similar=SIMILAR)
    again = two_views(histories, augment, np.random.default_rng(3), similar=SIMILAR)
    assert [rows_of(view) for view in views] == [rows_of(view) for view in again]
    assert rows_of(views[0]) != rows_of(views[1])
    assert all(len(view) == 50 for view in views)


def test_a_view_uses_one_operation_a_person_and_all_of_them() -> None:
    histories = of([list(range(1, 7)) for _ in range(400)])
    view = one_view(histories, Augment(OPERATIONS, mask_item=MASKED), np.random.default_rng(0), similar=SIMILAR)
    kinds: Counter[str] = Counter()
    for row, new in zip(rows_of(histories), rows_of(view), strict=True):
        items = [event[0] for event in new]
        if len(new) < len(row):
            kinds["crop"] += any(row[n : n + 3] == new for n in range(4))
        elif len(new) > len(row):
            kinds["insert"] += in_order(row, new)
        elif MASKED in items:
            kinds["mask"] += items.count(MASKED) == 1
        elif sorted(items) == list(range(1, 7)):
            kinds["reorder"] += 1
        else:
            kinds["substitute"] += sum(a != b for a, b in zip(row, new, strict=True)) == 1
    assert sum(kinds.values()) == 400
    assert min(kinds[name] for name in OPERATIONS) > 50


def test_short_histories_keep_their_items() -> None:
    histories = of([[1, 2, 3]] * 40 + [[1, 2, 3, 4, 5, 6]] * 40)
    view = one_view(histories, Augment(("crop", "mask", "insert"), short=4), np.random.default_rng(0), similar=SIMILAR)
    assert (view.lengths[:40] >= 3).all()
    assert (view.lengths[40:] < 6).any()
    alone = one_view(histories, Augment(("crop",), short=4), np.random.default_rng(0))
    assert rows_of(alone)[:40] == rows_of(histories)[:40]


@pytest.mark.parametrize("rows", [[], [[]], [[], [2], []]])
def test_nothing_and_one_event_survive(rows: list[list[int]]) -> None:
    for name in OPERATIONS:
        view = one_view(of(rows), Augment((name,)), np.random.default_rng(0), similar=SIMILAR)
        assert view.lengths.tolist() == [len(row) for row in rows]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Augment(crop=0),
        lambda: Augment(mask=1),
        lambda: Augment(insert=1.5),
        lambda: Augment(reorder=math.nan),
        lambda: Augment(()),
        lambda: Augment(("rotate",)),  # type: ignore[arg-type]
        lambda: one_view(of([[1]]), Augment(("insert",)), np.random.default_rng(0)),
        lambda: substitute(of([[1]]), 1.0, np.zeros((1, 2), np.int32), np.random.default_rng(0)),
        lambda: crop(of([[1]]), 2.0, np.random.default_rng(0)),
    ],
)
def test_what_makes_no_sense_is_said(make: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        make()


# --- similar items ----------------------------------------------------------------------------------------------------


@quick
@given(st.integers(0, 40), st.integers(0, 5), SEEDS, st.sampled_from([-0.9, 0.1, 0.6]))
def test_similar_items_equal_a_loop(n: int, k: int, seed: int, least: float) -> None:
    vectors = np.random.default_rng(seed).integers(-1, 2, size=(n, 3)).astype(np.float32)
    table = similar_items(vectors, k, least=least, most=0.99)
    assert (table.shape, table.dtype) == ((n, k), np.int32)
    for a in range(n):
        cosines = {}
        for b in range(n):
            size = np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])
            cosine = vectors[a] @ vectors[b] / size if size else math.nan
            if a != b and least + 1e-6 < cosine < 0.99:
                cosines[b] = round(float(cosine), 5)
        wanted = sorted(cosines, key=lambda b: (-cosines[b], b))[:k]
        found = [b for b in table[a].tolist() if b >= 0]
        assert [cosines[b] for b in found] == [cosines[b] for b in wanted]


def test_similar_items_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    whole = similar_items(vectors, 5)
    monkeypatch.setattr("isthmus.data.similar._CELLS", 300)
    assert np.array_equal(similar_items(vectors, 5), whole)


@quick
@given(ROWS, st.integers(0, 4))
def test_items_similar_by_company_equal_a_loop(rows: list[list[int]], k: int) -> None:
    sets = [set(row) for row in rows]
    table = similar_by_company(of(rows), 8, k)
    persons = [sum(item in some for some in sets) for item in range(8)]
    for a in range(8):
        weights = {}
        for b in range(8):
            shared = sum(1 / math.log2(1 + len(some)) for some in sets if a in some and b in some)
            if a != b and shared:
                weights[b] = round(shared / math.sqrt(persons[a] * persons[b]), 9)
        wanted = sorted(weights.values(), reverse=True)[:k]
        assert [weights[b] for b in table[a].tolist() if b >= 0] == wanted


def test_repeats_of_an_item_do_not_make_it_more_similar() -> None:
    once, often = of([[1, 2], [1, 3]]), of([[1, 2, 2, 2, 2], [1, 3]])
    assert np.array_equal(similar_by_company(once, 4, 3), similar_by_company(often, 4, 3))
    assert np.array_equal(similar_by_company(replace(once, weights=once.weights * 0.1), 4, 3)[1], [2, 3, -1])
