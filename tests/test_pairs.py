"""Pairs for the contrastive objective: who belongs together, what is no negative, and hard negatives by the book."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="the extra 'text' is not installed")

from tests.test_texts import lists, tokenizer

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.reading import Reader, Tokens
from isthmus.train.pairs import ContrastivePairs, PairSettings, hard_negatives


def world(seed: int, persons: int = 30, items: int = 24) -> tuple[Reader, Histories]:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "platform": ["shop" if n % 3 else "books" for n in range(items)],
            "item": [str(n) for n in range(items)],
            "domain": ["food" if n % 3 else "novels" for n in range(items)],
            "title": [f"thing {n}" for n in range(items)],
        }
    )
    rows = [rng.integers(0, items, rng.integers(0, 9)).tolist() for _ in range(persons)]
    return Reader(tokenizer(), frame), Histories.of(rows)


def of_token_rows(tokens: Tokens) -> dict[tuple[int, ...], int]:
    return {tuple(row): place for place, row in enumerate(lists(tokens))}


def rows_of(part: dict, side: str) -> list[tuple[int, ...]]:
    return [tuple(ids[mask > 0].tolist()) for ids, mask in zip(part[f"{side}_ids"], part[f"{side}_mask"], strict=True)]


def naive_next(histories: Histories, repeats: bool, events: int) -> list[tuple[list[int], int, int]]:
    found = []
    for person in range(len(histories)):
        row = histories.take(np.array([person])).items.tolist()
        found += [
            (row[max(0, n - events) : n], row[n], person)
            for n in range(1, len(row))
            if repeats or row[n] not in row[:n]
        ]
    return found


@pytest.mark.parametrize("repeats", [False, True])
def test_next_items_come_with_what_was_before_and_never_deny_what_was_had(repeats: bool) -> None:
    reader, histories = world(1)
    made = ContrastivePairs("next", reader, histories, PairSettings(batch_size=8, alpha=1.0, events=4, repeats=repeats))
    examples = naive_next(histories, repeats, 4)
    tokens = lists(reader.behaviour(Histories.of([before for before, *_ in examples])))
    possible = {(tuple(row), item): person for row, (_, item, person) in zip(tokens, examples, strict=True)}
    item_of = of_token_rows(reader.items)
    met = 0
    for step in range(len(made)):
        (part,) = made.batch(step)["parts"]
        right = [item_of[row] for row in rows_of(part, "right")]
        pairs = list(zip(rows_of(part, "left"), right, strict=True))
        assert set(pairs) <= set(possible)
        assert len({reader.places.domain[item] for item in right}) == 1
        for b, pair in enumerate(pairs):
            owners = [person for (row, item), person in possible.items() if (row, item) == pair]
            had = {item for owner in owners for item in histories.take(np.array([owner])).items.tolist()}
            assert {right[c] for c in np.flatnonzero(part["ignored"][b].numpy())} <= had
            if len({tuple(r) for r in tokens if tuple(r) == pair[0]}) == sum(tuple(r) == pair[0] for r in tokens):
                assert part["ignored"][b].tolist() == [item in had for item in right]
        met += len(pairs)
    assert met >= 0.7 * len(examples)


def test_only_asked_items_stand_on_the_right() -> None:
    reader, histories = world(2)
    predict = reader.places.domain == 0
    made = ContrastivePairs("next", reader, histories, PairSettings(batch_size=8), predict=predict)
    item_of = of_token_rows(reader.items)
    for step in range(len(made)):
        assert all(predict[item_of[row]] for row in rows_of(made.batch(step)["parts"][0], "right"))


def test_items_together_are_near_in_time_and_of_one_person() -> None:
    reader, histories = world(3)
    made = ContrastivePairs("together", reader, histories, PairSettings(batch_size=8, window=2))
    item_of = of_token_rows(reader.items)
    near = set()
    for person in range(len(histories)):
        row = histories.take(np.array([person])).items.tolist()
        near |= {(row[a], row[b]) for a in range(len(row)) for b in range(len(row)) if 0 < abs(a - b) <= 2}
    seen = set()
    for step in range(5 * len(made)):
        (part,) = made.batch(step)["parts"]
        pairs = zip(rows_of(part, "left"), rows_of(part, "right"), strict=True)
        seen |= {(item_of[left], item_of[right]) for left, right in pairs}
    assert seen <= {(left, right) for left, right in near if left != right}
    assert len(seen) > 0.5 * len(near)


def test_views_are_parts_of_one_persons_history() -> None:
    reader, _ = world(4)
    histories = Histories.of([[n, n + 1, n + 2, n + 3] for n in range(0, 20, 4)])
    made = ContrastivePairs("views", reader, histories, PairSettings(batch_size=5, alpha=1.0))
    parts = {}
    for person, start in enumerate(range(0, 20, 4)):
        for kept in range(1, 16):
            row = [start + n for n in range(4) if kept >> n & 1]
            parts[tuple(lists(reader.behaviour(Histories.of([row])))[0])] = person
    different = 0
    for step in range(10):
        (part,) = made.batch(step)["parts"]
        left, right = rows_of(part, "left"), rows_of(part, "right")
        assert [parts[row] for row in left] == [parts[row] for row in right]
        assert len({parts[row] for row in left}) == len(left)
        different += sum(a != b for a, b in zip(left, right, strict=True))
    assert different > 20


def test_hard_negatives_follow_the_right_items_and_the_same_step_gives_the_same_batch() -> None:
    reader, histories = world(5)
    hard = np.full((24, 2), -1, np.int32)
    hard[:, 0] = (np.arange(24) + 3) % 24
    hard[:, 1] = hard[:, 0]
    hard[5] = -1
    made = [ContrastivePairs("next", reader, histories, PairSettings(batch_size=8), hard=hard) for _ in range(2)]
    item_of = of_token_rows(reader.items)
    for step in (3, 0, 1, len(made[0]) + 1):
        (part,) = made[0].batch(step)["parts"]
        right = [item_of[row] for row in rows_of(part, "right")]
        n = len(part["left_ids"])
        assert right[n:] == [(item + 3) % 24 for item in right[:n] if item != 5]
        assert tuple(part["ignored"].shape) == (n, len(right))
    again = made[1].batch(1)["parts"][0]
    assert all(value.equal(again[name]) for name, value in made[0].batch(1)["parts"][0].items() if name != "objective")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_hard_negatives_are_the_nearest_that_nobody_had_together(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(12, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[4], vectors[7] = 0, vectors[6]
    domain = rng.integers(0, 2, 12).astype(np.int32)
    rows = [rng.integers(0, 12, 3).tolist() for _ in range(4)]
    found = hard_negatives(vectors, domain, Histories.of(rows), k=k)
    for item in range(12):
        met = {other for row in rows if item in row for other in row} | {item, 4}
        cosines = vectors @ vectors[item]
        fit = [n for n in range(12) if n not in met and domain[n] == domain[item] and cosines[n] < 0.95]
        best = [] if item == 4 else sorted(fit, key=lambda n: -cosines[n])[:k]
        kept = found[item][found[item] >= 0]
        np.testing.assert_allclose(cosines[kept], cosines[best], atol=1e-6)
        assert set(kept.tolist()) <= set(fit)


def test_unknown_pairs_and_no_pairs_are_errors() -> None:
    reader, histories = world(6)
    with pytest.raises(InputError, match=r"no pairs 'nxt' \(did you mean 'next'\?\)"):
        ContrastivePairs("nxt", reader, histories, PairSettings())
    for kind in ("next", "views", "together"):
        with pytest.raises(InputError, match="nothing to train on"):
            ContrastivePairs(kind, reader, Histories.of([[3], []]), PairSettings())
