"""The blend: weights that help on validation, none for noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isthmus.data.sequences import Histories
from isthmus.model.base import Features, Method, State, TrainingData
from isthmus.model.blend import COHORTS, Blend, standardise
from isthmus.model.stacking import ENOUGH, PENALTY, Candidates, gather, learn, likeliest, merits
from isthmus.split.cohorts import person_cohorts
from isthmus.split.task import Task
from isthmus.types import Bools, Floats, Indices

#: Items 0-4 are the source, 5-44 the target.
TARGET = np.arange(5, 45, dtype=np.int32)
T = TARGET.size


class Table(Method):
    """Scores written in a table: the time of a history's first event is its row."""

    defaults: ClassVar = {}
    grid: ClassVar = {}

    def __init__(self, name: str, table: Floats) -> None:
        super().__init__()
        self.name = name  # type: ignore[misc]
        self.table = table.astype(np.float32)
        self.target = TARGET

    def score(self, histories: Histories) -> Floats:
        return self.table[histories.ts[histories.indptr[:-1]]]

    def _fit(self, data: TrainingData, seed: int) -> None: ...

    def state(self) -> State:
        return {}

    def restore(self, state: State, features: Features) -> None: ...

    def extend(self, features: Features, target: Indices) -> None: ...


def world(persons: int, *, cold: int = 0, new: int = 0, seed: int = 0) -> tuple[Task, np.ndarray]:
    """Return a task in which each person wants one item; the first ``cold`` know the source only. Row b's ts is b."""
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, T, persons)
    rows = [[int(rng.integers(5))] if b < cold else [int(t) for t in rng.choice(TARGET, 5)] for b in range(persons)]
    histories = Histories.of(rows)
    histories.ts[:] = histories.rows
    cohorts = person_cohorts(histories, TARGET)
    popularity = np.where(np.arange(T) < new, 0, 7)
    task = Task(
        domain="books", part="valid", items=TARGET, persons=np.arange(persons), histories=histories,
        target_indptr=np.arange(persons + 1), targets=wanted.astype(np.int32), popularity=popularity,
        train_persons=persons, exclude_seen=False, cohorts=cohorts, item_groups={"new item": popularity == 0},
    )  # fmt: skip
    return task, wanted


def informed(wanted: np.ndarray, strength: float, seed: int, who: Bools | None = None) -> Floats:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(wanted.size, T))
    rows = np.arange(wanted.size) if who is None else np.flatnonzero(who)
    table[rows, wanted[rows]] += strength
    return table.astype(np.float32)


def rows_of(blend: Blend) -> np.ndarray:
    return np.array([blend.weights[name] for name in COHORTS])


def check_weights(blend: Blend) -> None:
    assert set(blend.weights) == set(COHORTS)
    assert (rows_of(blend) >= 0).all()
    np.testing.assert_allclose(rows_of(blend).sum(axis=1), 1, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (3, 6), elements=st.floats(-100, 100, width=32)), st.floats(0.5, 50), st.floats(-9, 9))
def test_standardised_rows_do_not_depend_on_scale_and_origin(scores: Floats, factor: float, shift: float) -> None:
    scaled = standardise(scores)
    spread = scores.std(axis=1) > 1e-2 * np.abs(scores).max(axis=1, initial=1.0)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[spread].mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(scaled[spread].std(axis=1), 1, atol=1e-3)
    moved = standardise((scores * np.float32(factor) + np.float32(shift)).astype(np.float32))
    np.testing.assert_allclose(moved[spread], scaled[spread], atol=0.02)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.6931472, 1e-20, -3e7])
@pytest.mark.parametrize("width", [1, 7, 1001])
def test_a_constant_row_says_nothing(value: float, width: int) -> None:
    assert not standardise(np.full((2, width), value, np.float32)).any()


def test_learning_finds_the_informative_method_and_drops_noise() -> None:
    task, wanted = world(800)
    methods = [
        Table("noise", informed(wanted, 0.0, 1)), Table("good", informed(wanted, 3.0, 2)),
        Table("wrong", -informed(wanted, 3.0, 3)),
    ]  # fmt: skip
    blend = learn(methods, task)
    check_weights(blend)
    assert blend.methods == ("noise", "good", "wrong")
    assert (rows_of(blend)[:, 1] > 0.9).all()
    assert (rows_of(blend)[:, [0, 2]] < 0.06).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_ways_of_weighing_count_as_far_as_nobody_knows_which_is_better(seed: int) -> None:
    task, wanted = world(200, seed=seed)
    methods = [Table(str(n), informed(wanted, 0.5 + n, seed + n)) for n in range(3)]
    rows = [way(gather(methods, task)) for way in (merits, likeliest)]
    low, high = np.sort([row / row.sum() for row in rows], axis=0)
    weights = rows_of(learn(methods, task))[0]
    assert (weights >= low - 1e-9).all()
    assert (weights <= high + 1e-9).all()
    apart = high - low > 0.02
    assert apart.any()
    assert (np.minimum(weights - low, high - weights)[apart] > 0.02 * (high - low)[apart]).all(), "neither alone"


def test_two_halves_of_the_truth_share_the_weight_and_beat_each_part() -> None:
    task, wanted = world(800)
    methods = [Table("a", informed(wanted, 1.5, 1)), Table("b", informed(wanted, 1.5, 2))]
    weights = rows_of(learn(methods, task))[2]
    assert 0.3 < weights[0] < 0.7
    candidates = gather(methods, task)
    single = [candidates.ndcg(candidates.scores[:, :, place]) for place in (0, 1)]
    assert candidates.ndcg(candidates.scores @ weights.astype(np.float32)) > max(single) + 0.05


def test_each_kind_of_person_has_its_own_weights_if_frequent_enough() -> None:
    task, wanted = world(700, cold=300)
    cold = task.cohorts["cold person"]
    methods = [Table("for cold", informed(wanted, 4.0, 1, cold)), Table("for warm", informed(wanted, 4.0, 2, ~cold))]
    blend = learn(methods, task)
    check_weights(blend)
    assert blend.weights["cold person"][0] > 0.8
    assert blend.weights["warm person"][1] > 0.8


def test_a_rare_kind_of_person_uses_the_weights_of_all() -> None:
    task, wanted = world(300, cold=ENOUGH - 1)
    cold = task.cohorts["cold person"]
    methods = [Table("for cold", informed(wanted, 4.0, 1, cold)), Table("for warm", informed(wanted, 4.0, 2, ~cold))]
    blend = learn(methods, task)
    assert blend.weights["cold person"] == blend.weights["1-3 events"]
    assert blend.weights["cold person"] != blend.weights["warm person"]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 99))
def test_weights_are_never_negative_and_sum_to_one(count: int, persons: int, seed: int) -> None:
    task, wanted = world(persons, cold=persons // 2, new=3, seed=seed)
    methods = [Table(str(n), informed(wanted, float(n - 2), seed + n)) for n in range(count)]
    check_weights(learn(methods, task, seed=seed))


def test_a_single_method_keeps_its_weight_however_bad() -> None:
    task, _ = world(60)
    first = Task(**{**vars(task), "targets": np.zeros(60, np.int32)})
    worst = np.tile(np.arange(T, dtype=np.float32), (60, 1))
    blend = learn([Table("worst", worst)], first)
    assert set(blend.weights.values()) == {(1.0,)}


def test_learning_is_repeatable() -> None:
    task, wanted = world(400, cold=150)
    methods = [Table(str(n), informed(wanted, n / 2, n)) for n in range(4)]
    assert learn(methods, task, seed=3) == learn(methods, task, seed=3)


def naive_score(blend: Blend, methods: Sequence[Method], histories: Histories, new: Bools) -> np.ndarray:
    rows = []
    for row in range(len(histories)):
        one = histories.take(np.array([row]))
        own = int(np.isin(one.items, TARGET).sum())
        cohort = COHORTS[0] if own == 0 else COHORTS[1] if own <= 3 else COHORTS[2]
        total = blend.level * new.astype(np.float64)
        for place, method in enumerate(methods):
            scores = method.score(one)[0].astype(np.float64)
            weight = blend.weights[cohort][place]
            each = np.where(new, weight if blend.voice is None else blend.voice[place], weight)
            total += each * (scores - scores.mean()) / scores.std()
        rows.append(total)
    return np.array(rows)


def test_the_score_is_the_weighted_sum_of_standardised_scores() -> None:
    task, wanted = world(12, cold=4, new=6)
    few = task.histories.keep((task.histories.age < 3) | (task.histories.rows > 7))
    methods = [Table(str(n), informed(wanted, 1.0, n)) for n in range(3)]
    weights = dict(zip(COHORTS, [(0.2, 0.8, 0.0), (1.0, 0.0, 0.0), (0.1, 0.2, 0.7)], strict=True))
    blend = Blend(("0", "1", "2"), weights, level=0.5)
    new = task.item_groups["new item"]
    found = blend.score(methods, few, new)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_score(blend, methods, few, new), atol=1e-4)


def test_leaving_methods_out_keeps_the_proportions_of_the_rest() -> None:
    weights = dict(zip(COHORTS, [(0.2, 0.3, 0.5), (1.0, 0.0, 0.0), (0.1, 0.2, 0.7)], strict=True))
    left = Blend(("a", "b", "c"), weights, (0.0, 2.0, 0.0), 1.0).without(["a"])
    assert left.weights["cold person"] == pytest.approx((0, 0.375, 0.625))
    assert left.weights["1-3 events"] == (0, 0, 0)
    assert (left.voice, left.level) == (None, 0.0)


def test_candidates_hold_the_best_of_every_method_without_what_was_seen() -> None:
    task, wanted = world(9)
    asked = Task(**{**vars(task), "exclude_seen": True})
    methods = [Table("a", informed(wanted, 9.0, 1)), Table("b", informed(wanted, 0.0, 2))]
    found = gather(methods, asked, block=4)
    seen_targets = asked.unreachable
    assert found.right.sum() == 9 - seen_targets
    assert found.real.sum(axis=1).tolist() == [T - len({*asked.histories.take(np.array([b])).items}) for b in range(9)]
    np.testing.assert_array_equal(gather(methods, asked).scores, found.scores)
    assert found.ideal == pytest.approx(np.ones(9))


def drawn(weights: Sequence[float], persons: int, seed: int) -> Candidates:
    """Return candidates of persons who choose by a conditional logit with ``weights``."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(persons, 12, len(weights))).astype(np.float32)
    real = rng.random((persons, 12)) < 0.8
    real[:, 0] = True
    totals = np.where(real, scores @ np.array(weights), -np.inf)
    chances = np.exp(totals) / np.exp(totals).sum(axis=1, keepdims=True)
    right = np.zeros((persons, 12), dtype=bool)
    right[np.arange(persons), [rng.choice(12, p=row) for row in chances]] = True
    scores[~real] = 0
    return Candidates(scores, real, right, np.zeros_like(real), np.ones(persons, np.float32))


def test_the_most_likely_weights_find_those_that_persons_chose_by() -> None:
    assert likeliest(drawn((1.5, 0.5, 0.0), 4000, 1)) == pytest.approx([1.5, 0.5, 0.0], abs=0.12)


def naive_loss(found: Candidates, weights: np.ndarray, near: np.ndarray) -> float:
    losses = []
    for row in np.flatnonzero((found.right & found.real).any(axis=1)):
        real = found.real[row]
        totals = found.scores[row, real].astype(np.float64) @ weights
        losses.append(np.log(np.exp(totals).sum()) - totals[found.right[row, real]].mean())
    return float(np.mean(losses) + PENALTY * ((weights - near) ** 2).sum())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.booleans())
def test_no_weights_nearby_are_more_likely(seed: int, near_some: bool) -> None:
    found = drawn((1.0, 0.0, 0.3), 40, seed)
    start = np.array([0.2, 0.9, 0.4]) if near_some else None
    near, best = np.zeros(3) if start is None else start, likeliest(found, start)
    reached = naive_loss(found, best, near)
    for step in np.random.default_rng(seed).normal(scale=0.05, size=(20, 3)):
        assert naive_loss(found, np.maximum(best + step, 0), near) > reached - 1e-6


def test_where_no_wish_is_among_the_candidates_the_start_stays() -> None:
    found = drawn((1.0, 0.0), 5, 0)
    nothing = Candidates(found.scores, found.real, np.zeros_like(found.right), found.new, found.ideal)
    assert likeliest(nothing, np.array([0.7, 0.1])).tolist() == [0.7, 0.1]
    assert likeliest(nothing) == pytest.approx([0.15, 0.15])


def test_merit_is_taken_where_one_method_makes_the_lists() -> None:
    """A method whose few hits are all at the top, beside one that places everything a little better than chance."""
    task, wanted = world(900)
    hits = np.random.default_rng(0).random(900) < 0.4
    sharp = informed(wanted, 0.0, 1) * 0.2
    sharp[hits, wanted[hits]] += 2
    sharp[~hits, wanted[~hits]] -= 2
    methods = [Table("sharp", sharp), Table("dull", informed(wanted, 0.5, 2))]
    found = gather(methods, task)
    weights = rows_of(learn(methods, task))[2]
    alone = merits(found)
    assert (
        found.ndcg(found.scores @ weights.astype(np.float32))
        >= found.ndcg(found.scores @ alone.astype(np.float32)) - 0.01
    )
