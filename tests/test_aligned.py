"""Alignment and launches: closed forms equal naive ones, and both say what is planted of items nobody has met."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.aligned import Aligned, align, behaviour, wishes
from isthmus.model.base import DAY, Features, TrainingData
from isthmus.model.content import TfidfContent
from isthmus.model.fresh import Exploration, Launch, expected, launches
from isthmus.model.space import ContentSpace

#: Items of four kinds of ten; kinds 0 and 1 are met together, kinds 2 and 3 too. The last of each kind is new.
KINDS = np.repeat(np.arange(4), 10)
NEW = np.arange(9, 40, 10)


def planted(persons: int = 200) -> TrainingData:
    rng = np.random.default_rng(0)
    rows = []
    for person in range(persons):
        both = (0, 1) if person % 2 else (2, 3)
        rows.append(rng.choice(np.flatnonzero(np.isin(KINDS, both) & ~np.isin(np.arange(40), NEW)), 6).tolist())
    words = np.eye(4, dtype=np.float32)[KINDS] + 0.05 * rng.random((40, 4)).astype(np.float32)
    text = sparse.csr_array(words / np.linalg.norm(words, axis=1, keepdims=True))
    histories = Histories.of(rows)
    return TrainingData(histories, np.arange(40, dtype=np.int32), 40, int(histories.ts.max()), Features(text))


def test_a_new_item_is_found_through_the_company_its_kind_keeps() -> None:
    data = planted()
    asked = Histories.of([[0, 1, 2], [20, 21]])
    plain = TfidfContent().fit(data).score(asked)[:, NEW]
    told = Aligned({"share": 0.0}).fit(data).score(asked)[:, NEW]
    assert abs(plain[0, 1] - plain[0, 2]) < 0.1, "likeness cannot tell kind 1 from kind 2"
    assert told[0, 1] > told[0, [2, 3]].max() + 0.5
    assert told[1, 3] > told[1, [0, 1]].max() + 0.5


def test_a_new_item_in_the_history_has_the_wishes_its_content_predicts() -> None:
    data = planted()
    fitted = Aligned({"share": 0.0}).fit(data)
    new, old = (fitted.score(Histories.of([[item]]))[0] for item in (9, 0))
    assert np.corrcoef(new, old)[0, 1] > 0.9


def test_with_a_full_share_it_is_plain_likeness() -> None:
    data = planted()
    asked = Histories.of([[0, 11], [30]])
    plain = TfidfContent().fit(data).score(asked)
    order = np.argsort(-Aligned({"share": 1.0}).fit(data).score(asked), axis=1, kind="stable")
    np.testing.assert_array_equal(order, np.argsort(-plain, axis=1, kind="stable"))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(1, 4), st.floats(0.1, 10), st.integers(0, 99))
def test_the_map_is_the_ridge_solution(count: int, dim: int, l2: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    met = rng.random((count, count)).astype(np.float32)
    met = (met + met.T) * (1 - np.eye(count, dtype=np.float32))
    inverse = np.linalg.inv(rows.T @ rows + l2 * np.eye(dim))
    np.testing.assert_allclose(wishes(rows, sparse.csr_array(met), l2=l2), met @ rows @ inverse, atol=2e-3)
    found = align(rows, sparse.csr_array(met), l2=l2)
    np.testing.assert_allclose(found, inverse @ rows.T @ met @ rows @ inverse, atol=2e-3)
    np.testing.assert_allclose(found, found.T, atol=2e-3)


def test_behaviour_equals_a_double_loop() -> None:
    rows = [[0, 1, 1, 2], [2, 0], [3], [1, 2]]
    sets = [set(row) for row in rows]
    counts = [sum(i in s for s in sets) for i in range(4)]
    expected = [
        [sum(i in s and j in s for s in sets) / np.sqrt((counts[i] + 1) * (counts[j] + 1)) * (i != j) for j in range(4)]
        for i in range(4)
    ]
    np.testing.assert_allclose(behaviour(Histories.of(rows), 4).toarray(), expected, rtol=1e-5)


def test_vectors_alone_serve_and_nothing_at_all_is_refused() -> None:
    data = planted()
    assert data.features.text is not None
    vectors = np.asarray(data.features.text.toarray(), np.float32)
    told = Aligned().fit(replace(data, features=Features(vectors=vectors))).score(Histories.of([[0, 1]]))[0, NEW]
    assert told[[0, 1]].min() > told[[2, 3]].max()
    for kind in (Aligned, Launch):
        with pytest.raises(InputError, match="item texts"):
            kind().fit(replace(data, features=Features()))


def test_the_space_leaves_items_without_words_at_zero_and_serves_later_ones() -> None:
    data = planted()
    space = ContentSpace.fit(data.features, dim=4)
    bare = Features(sparse.csr_array((2, 4), dtype=np.float32))
    assert not space.rows(bare).any()
    again = ContentSpace.of(space.state())
    np.testing.assert_array_equal(again.rows(data.features), space.rows(data.features))


def launched() -> TrainingData:
    """Return items of which those of kind 0 begin with ten events each, the others with one."""
    items, ts = [], []
    for item in range(120):
        start = 100 + item
        for event in range(10 if item % 4 == 0 else 1):
            items.append(item)
            ts.append((start + event) * DAY)
    items += [120] * 50
    ts += [day * DAY for day in range(50)]
    order = np.argsort(ts, kind="stable")
    flat, when = np.array(items, np.int32)[order], np.array(ts)[order]
    histories = Histories(np.arange(flat.size + 1), flat, np.ones(flat.size, np.float32), when)
    kinds = np.append(np.arange(120) % 4, 1)
    text = sparse.csr_array(np.eye(4, dtype=np.float32)[np.append(kinds, [0, 1])])
    return TrainingData(histories, np.arange(123, dtype=np.int32), 123, int(when.max()) + 30 * DAY, Features(text))


def test_a_new_item_is_expected_to_be_received_as_its_kind_was() -> None:
    data = launched()
    taught, reached = launches(data, 20.0)
    assert 120 not in taught, "what was there when the log began has no launch"
    assert taught.size == 120
    assert np.expm1(reached[:2]).tolist() == pytest.approx([10, 1])
    scores = Launch({"days": 20.0, "l2": 0.1}).fit(data).score(Histories.of([[], [3]]))
    assert scores[0, 121] > scores[0, 122] + 1.0
    np.testing.assert_array_equal(scores[0], scores[1])
    ordered = Launch({"l2": 0.1}).fit(replace(data, dated=False)).score(Histories.of([[]]))[0]
    assert ordered[121] > ordered[122]


def test_lists_hold_no_more_new_items_than_the_cap() -> None:
    scores = np.array([[5, 4, 3, 2, 1], [1, -np.inf, 2, 9, 8]], np.float32)
    new = np.array([True, True, True, False, False])
    capped = Exploration(cap=1).apply(scores, new)
    assert (capped > -np.inf).tolist() == [[True, False, False, True, True], [False, False, True, True, True]]
    assert np.isinf(Exploration(cap=0).apply(scores, new)[:, :3]).all()
    np.testing.assert_array_equal(Exploration().apply(scores, new), scores)


def test_the_bonus_fades_with_every_time_shown() -> None:
    lifted = Exploration(bonus=2.0, half=10).apply(
        np.zeros((1, 3), np.float32), np.array([True, True, False]), np.array([0, 10, 99])
    )
    assert lifted.tolist() == [[2.0, 1.0, 0.0]]
    for wrong in ({"cap": -1}, {"bonus": -0.1}, {"half": 0.0}, {"prior": -1.0}):
        with pytest.raises(InputError, match="exploration"):
            Exploration(**wrong)  # type: ignore[arg-type]


def test_new_items_that_may_become_popular_are_tried_first() -> None:
    launch = Launch({"days": 20.0, "l2": 0.1}).fit(launched())
    new = np.zeros(123, dtype=bool)
    new[121:] = True
    hopes = expected([launch], new)
    assert hopes[121] == pytest.approx(1)
    assert hopes[122] == pytest.approx(-1)
    assert not hopes[:121].any()
    assert not expected([], new).any()
    lifted = Exploration(cap=1, prior=0.5).apply(np.zeros((1, 123), np.float32), new, expected=hopes)
    assert lifted[0, 121] == pytest.approx(0.5)
    assert lifted[0, 122] == -np.inf, "the cap keeps the one of which more is expected"
