"""Sequence batches: each next item once an epoch, what may be seen of it, and candidates that are counted right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.data.sequences import Histories
from isthmus.model.base import DAY, Places
from isthmus.train.batches import BatchSettings, SequenceBatches
from isthmus.train.schedule import temperature_shares
from isthmus.train.sequences import Mixture
from isthmus.train.views import Views

N = 12
PLACES = Places((np.arange(N) % 3).astype(np.int32), np.zeros(N, np.int32), ("a", "b", "c"), ("p",))
ROWS = st.lists(st.lists(st.integers(0, N - 1), max_size=11), min_size=1, max_size=8).filter(
    lambda rows: any(len(set(row)) > 1 for row in rows)
)
EVERY = np.ones(N, bool)

#: Items seen, kinds of events, and the target with its weight.
Pair = tuple[tuple[int, ...], tuple[int, ...], int, float]


def made(rows: list[list[int]]) -> Histories:
    histories = Histories.of(rows)
    events = (histories.items % 5).astype(np.int8)
    return replace(histories, ts=histories.ts * DAY, events=events)


def source(histories: Histories, predict: np.ndarray = EVERY, **chosen: object) -> SequenceBatches:
    plan = replace(BatchSettings(events=14, length=4), **chosen)  # type: ignore[arg-type]
    return SequenceBatches(histories, PLACES, predict, plan, now=int(histories.ts.max(initial=0)))


def pairs(batch: dict[str, Tensor]) -> Counter[Pair]:
    """Read the pairs back from a batch."""
    width = batch["items"].shape[1]
    found: Counter[Pair] = Counter()
    rows = batch.get("rows", torch.arange(N))
    for place, target, weight in zip(batch["places"], batch["targets"], batch["weights"], strict=True):
        row, last = divmod(int(place), width)
        seen = rows[batch["items"][row, : last + 1]].tolist()
        events = batch["events"][row, : last + 1].tolist()
        found[tuple(seen), tuple(events), int(rows[target]), round(float(weight), 5)] += 1
    return found


def epoch(batches: SequenceBatches, number: int = 0) -> Counter[Pair]:
    n = len(batches)
    return sum((pairs(batches.fields(step)) for step in range(number * n, (number + 1) * n)), Counter())


def naive(rows: list[list[int]], predict: np.ndarray, length: int, half_life: float, *, repeats: bool) -> Counter[Pair]:
    """Go through each person from the end, a window at a time."""
    found: Counter[Pair] = Counter()
    day, newest = 0, sum(map(len, rows)) - 1
    for row in rows:
        stop = len(row)
        while stop > 1:
            start = max(stop - length - 1, 0)
            for place in range(start + 1, stop):
                item, seen = row[place], row[start:place]
                age = newest - (day + place)
                if predict[item] and (repeats or item not in row[:place]):
                    weight = 0.5 ** (age / half_life) if half_life else 1.0
                    found[tuple(seen), tuple(i % 5 for i in seen), item, round(float(np.float32(weight)), 5)] += 1
            stop -= length
        day += len(row)
    return found


@settings(max_examples=150, deadline=None)
@given(
    ROWS, st.sets(st.integers(0, N - 1), min_size=N // 2), st.integers(1, 5), st.sampled_from([0.0, 3.0]),
    st.booleans(), st.sampled_from([1, 3, 14, 1000]), st.integers(0, 2),
)  # fmt: skip
def test_each_next_item_comes_once_an_epoch_with_what_came_before(
    rows: list[list[int]], wanted: set[int], length: int, half_life: float, repeats: bool, events: int, number: int
) -> None:
    predict = np.isin(np.arange(N), list(wanted))
    expected = naive(rows, predict, length, half_life, repeats=repeats)
    batches = source(
        made(rows), predict, length=length, half_life=half_life, repeats=repeats, events=events, seed=number
    )
    assert bool(len(batches)) == bool(expected)
    if expected:
        assert epoch(batches, number) == expected


@pytest.mark.parametrize("events", [1, 3, 5, 9])
def test_later_epochs_of_many_small_batches_are_whole_too(events: int) -> None:
    rng = np.random.default_rng(events)
    rows = [rng.integers(0, N, 2 + rng.integers(12)).tolist() for _ in range(300)]
    batches, expected = source(made(rows), events=events), naive(rows, EVERY, 4, 0.0, repeats=False)
    for number in range(3):
        assert epoch(batches, number) == expected


LONG = [np.random.default_rng(row).integers(0, N, 3 + row % 9).tolist() for row in range(40)]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("chosen", [{}, {"sampled": 5}, {"views": Views()}, {"sampled": 5, "views": Views()}])
def test_a_step_is_the_same_whatever_was_asked_before(chosen: dict[str, object]) -> None:
    one, other = source(made(LONG), **chosen), source(made(LONG), **chosen)
    n = len(one)
    assert n > 3
    steps = [0, 1, n, 2 * n + 1, 3]
    forward = [one.fields(step) for step in steps]
    backward = [other.fields(step) for step in reversed(steps)][::-1]
    assert all(equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not equal(one.fields(0), one.fields(n)), "epochs differ in their order"
    assert not equal(one.fields(0), source(made(LONG), seed=1, **chosen).fields(0))


def test_a_batch_is_about_as_large_as_asked_and_of_like_lengths() -> None:
    rows = [[item % N for item in range(3 + row % 40)] for row in range(900)]
    batches = source(made(rows), length=50, events=120, repeats=True)
    sizes, filled = [], []
    for step in range(len(batches)):
        batch = batches.fields(step)
        sizes.append(batch["places"].numel())
        filled.append(batch["places"].numel() / batch["items"].numel())
    assert 0.8 * 120 < np.median(sizes) < 1.2 * 120
    assert max(sizes) < 120 + 50
    assert np.mean(filled) > 0.75


def test_spans_are_the_domains_of_the_next_items() -> None:
    for step in range(4):
        batch = source(made(LONG)).fields(step)
        domain = PLACES.domain[batch["targets"].numpy()]
        covered = []
        for start, stop, number, _, _ in batch["spans"].tolist():
            assert (domain[start:stop] == number).all()
            covered += list(range(start, stop))
        assert covered == list(range(domain.size))
        assert len(set(batch["spans"][:, 2].tolist())) == len(batch["spans"])


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 30), st.integers(0, 5))
def test_sampled_candidates_are_counted_in_the_rows_that_take_part(
    rows: list[list[int]], sampled: int, step: int
) -> None:
    full, some = source(made(rows)), source(made(rows), sampled=sampled)
    before, batch = full.fields(step), some.fields(step)
    taking = batch["rows"]
    assert taking.tolist() == sorted(set(taking.tolist()))
    assert pairs(before) == pairs(batch), "only the numbering changes"
    assert batch["drawn"].numel() == batch["log_q"].numel() == sampled * len(batch["spans"])
    counts = np.bincount(np.concatenate(rows).astype(int), minlength=N)
    for _, _, domain, first, last in batch["spans"].tolist():
        drawn = taking[batch["drawn"][first:last]].numpy()
        assert (PLACES.domain[drawn] == domain).all()
        inside = PLACES.domain == domain
        share = 0.5 * counts / max(counts[inside].sum(), 1) + 0.5 / inside.sum()
        share = share / share[inside].sum()
        np.testing.assert_allclose(batch["log_q"][first:last], np.log(sampled * share[drawn]), rtol=1e-4, atol=1e-5)


def test_items_are_drawn_as_often_as_log_q_says() -> None:
    batches = source(made(LONG), sampled=4000)
    batch = batches.fields(0)
    drawn, times = np.unique(batch["drawn"].numpy(), return_counts=True)
    expected = dict(zip(batch["drawn"].tolist(), batch["log_q"].exp().tolist(), strict=True))
    for item, count in zip(drawn.tolist(), times.tolist(), strict=True):
        assert count == pytest.approx(expected[item], rel=0.2)


def test_alpha_evens_out_domains_and_keeps_the_sum() -> None:
    histories = made([[0, 3, 6, 9, 0, 3], [9, 6, 3, 0], [1, 4], [7, 10, 1], [0, 6, 9, 2, 5]])
    plain, even = source(histories), source(histories, alpha=0.0)
    sums = [np.bincount(PLACES.domain[histories.items], weights=each.weights, minlength=3) for each in (plain, even)]
    assert sums[0].tolist() == [8.0, 3.0, 2.0]
    assert sums[1].sum() == pytest.approx(sums[0].sum())
    assert sums[1] == pytest.approx(np.full(3, sums[0].sum() / 3), rel=1e-5)


def test_views_are_of_the_same_persons() -> None:
    """Each person has items of her own, so that a view tells whose it is."""
    rows = [[start, start, start] for start in range(N)]
    batches = source(made(rows), repeats=True, views=Views(), events=1000)
    views, lasts = (batches.fields(0)[name] for name in ("views", "lasts"))
    ends = views[0][torch.arange(lasts.numel()), lasts]
    first, second = ends.chunk(2)
    assert torch.equal(first, second)
    assert sorted(first.tolist()) == list(range(N))


class Numbered:
    """Batches that say which they are."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def fields(self, step: int) -> dict[str, Tensor]:
        return {"step": torch.tensor(step)}


def test_a_mixture_draws_by_temperature_and_goes_through_each_part() -> None:
    mixture = Mixture([Numbered(400), Numbered(100)], 0.5, seed=1)  # type: ignore[list-item]
    assert len(mixture) == 500
    drawn = [mixture.batch(step)["batch"] for step in range(2000)]
    groups = np.array([int(batch["group"]) for batch in drawn])
    shares = temperature_shares(np.array([400, 100]), 0.5)
    assert shares == pytest.approx([2 / 3, 1 / 3])
    assert (groups == 1).mean() == pytest.approx(shares[1], abs=0.04)
    again = Mixture([Numbered(400), Numbered(100)], 0.5, seed=1)  # type: ignore[list-item]
    for step in (1999, 0, 501):
        assert equal(again.batch(step)["batch"], drawn[step])
    inside = [int(batch["step"]) for batch in drawn[:500] if batch["group"] == 1]
    assert inside == list(range(len(inside))), "a part is gone through in its own order"


def test_no_pair_means_no_batch() -> None:
    assert len(source(made([[1], [2], []]))) == 0
    assert len(source(made([[1, 2]]), np.zeros(N, bool))) == 0


def test_weights_fade_from_the_newest_event() -> None:
    histories = made([[0, 1, 2]])
    batches = source(histories, half_life=1.0)
    assert batches.fields(0)["weights"].tolist() == [0.5, 1.0]
    undated = SequenceBatches(histories, PLACES, EVERY, BatchSettings(half_life=1.0), dated=False)
    assert undated.fields(0)["weights"].tolist() == [1.0, 1.0]
