"""Consistency and calibration: naive oracles, known answers, and a list that is the same for all earns nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from tests.test_persons import APART, scene

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, InputError
from isthmus.evaluate.consistency import agreement, consistency, corrected
from isthmus.model.base import Features
from isthmus.recommender.calibration import SMOOTHING, calibrated, divergence
from isthmus.recommender.listing import Rules
from isthmus.recommender.persons import Question, model_consistency
from isthmus.recommender.themes import Themes, shares

G = 5
seeds = st.integers(0, 10_000)


def drawn(seed: int, persons: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return shares(rng.random((persons, G)) * (rng.random((persons, G)) < 0.7) + 1e-3)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_agreement_is_scipys_divergence_turned_round(seed: int) -> None:
    one, other = drawn(seed, 6), drawn(seed + 1, 6)
    oracle = [1 - jensenshannon(p, q, base=2) ** 2 for p, q in zip(one, other, strict=True)]
    np.testing.assert_allclose(agreement(one, other), oracle, atol=1e-9)
    np.testing.assert_allclose(agreement(one, other), agreement(other, one))
    np.testing.assert_allclose(agreement(one, one), 1)


def test_who_says_nothing_has_no_agreement() -> None:
    none = np.zeros((1, 3))
    assert np.isnan(agreement(none, np.array([[1.0, 0, 0]]))).all()
    assert np.isnan(corrected(np.array([np.nan]), np.array([0.5]))).all()


def test_a_constant_list_earns_nothing_and_a_personal_one_does() -> None:
    rng, every = np.random.default_rng(0), np.ones(G, bool)
    tastes = drawn(3, 60)
    constant = np.tile(drawn(4, 1), (60, 1))
    noisy = [shares(tastes + 0.1 * rng.random((60, G))) for _ in range(3)]
    strange = [drawn(seed, 60) for seed in (5, 6, 7)]
    found = {
        name: consistency(lists, [every] * 3, tastes, rng=np.random.default_rng(1)).mean()
        for name, lists in {"constant": [constant] * 3, "personal": noisy, "strange": strange}.items()
    }
    assert found["constant"]["own"] == 1
    assert found["constant"]["score"] == found["constant"]["taste_score"] == 0
    assert 0.7 < found["personal"]["score"] < 1
    assert abs(found["strange"]["score"]) < 0.1
    assert found["personal"]["persons"] == 60


def test_chance_is_the_agreement_with_all_other_persons() -> None:
    persons, every = 7, np.ones(G, bool)
    lists = [drawn(seed, persons) for seed in (1, 2, 3)]
    found = consistency(lists, [every] * 3, lists[0], rng=np.random.default_rng(0), others=persons)
    for person in range(persons):
        own, chance = [], []
        for a, b in combinations(range(3), 2):
            own.append(float(agreement(lists[a][[person]], lists[b][[person]])[0]))
            others = [other for other in range(persons) if other != person]
            chance.append(np.mean([agreement(lists[a][[person]], lists[b][[other]])[0] for other in others]))
        assert found.own[person] == pytest.approx(np.mean(own))
        assert found.chance[person] == pytest.approx(np.mean(chance))
        assert found.score[person] == pytest.approx((np.mean(own) - np.mean(chance)) / (1 - np.mean(chance)))


def test_platforms_are_compared_on_what_both_carry() -> None:
    one, other = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]), np.array([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    carried = [np.array([True, True, False]), np.array([True, False, True])]
    found = consistency([one, other], carried, one, rng=np.random.default_rng(0))
    assert found.own[0] == 1, "what one cannot carry is no contradiction"
    assert np.isnan(found.own[1]), "nothing in common to compare"


def test_one_person_alone_has_nobody_to_differ_from() -> None:
    with pytest.raises(DataError, match="two persons"):
        consistency([np.ones((1, 2))], [np.ones(2, bool)], np.ones((1, 2)), rng=np.random.default_rng(0))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_divergence_is_steck_s_formula(seed: int) -> None:
    taste, listed = drawn(seed, 4), drawn(seed + 1, 4)
    oracle = [entropy(p, (1 - SMOOTHING) * q + SMOOTHING * p) for p, q in zip(taste, listed, strict=True)]
    np.testing.assert_allclose(divergence(taste, listed), oracle, atol=1e-9)
    assert (divergence(taste, listed) >= -1e-12).all()


def naive(scores: np.ndarray, themes: np.ndarray, taste: np.ndarray, k: int, weight: float) -> list[int]:
    """Choose step by step for one person, with plain loops."""
    free = [place for place in range(len(scores)) if scores[place] > -np.inf]
    low, high = min(scores[free]), max(scores[free])
    worth = {place: (scores[place] - low) / (high - low) if high > low else 0.0 for place in free}
    chosen: list[int] = []
    while free and len(chosen) < k:

        def gain(place: int) -> float:
            some = [*chosen, place]
            listed = sum(themes[p] for p in some)
            listed = listed / listed.sum() if listed.sum() else listed
            smooth = (1 - SMOOTHING) * listed + SMOOTHING * taste
            lost = sum(p * np.log(p / q) for p, q in zip(taste, smooth, strict=True) if p > 0)
            return (1 - weight) * sum(worth[p] for p in some) / len(some) - weight * lost

        best = max(free, key=lambda place: (round(gain(place), 9), -place))
        chosen.append(best)
        free.remove(best)
    return chosen


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0, 1))
def test_the_greedy_choice_is_that_of_plain_loops(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    persons, width, k = 3, 8, 5
    scores = rng.normal(size=(persons, width)).astype(np.float32)
    scores[0, 4:] = -np.inf
    themes = shares((rng.random((persons * width, G)) < 0.4).astype(float)).reshape(persons, width, G)
    taste = drawn(seed, persons)
    found = calibrated(scores, themes, taste, k, weight)
    for person in range(persons):
        wanted = naive(scores[person].astype(float), themes[person], taste[person], k, weight)
        assert found[person][: len(wanted)].tolist() == wanted
        assert (found[person][len(wanted) :] == -1).all()


def test_weight_0_keeps_the_order_of_scores_and_1_that_of_themes() -> None:
    scores = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    themes = np.eye(2)[[[0, 0, 0, 0, 1, 1]]]
    taste = np.array([[0.5, 0.5]])
    assert calibrated(scores, themes, taste, 4, 0.0).tolist() == [[0, 1, 2, 3]]
    listed = calibrated(scores, themes, taste, 4, 1.0)[0]
    assert (listed >= 4).sum() == 2
    assert calibrated(scores, themes, np.zeros((1, 2)), 4, 0.5).tolist() == [[0, 1, 2, 3]], "no taste, no change"
    with pytest.raises(InputError, match="from 0 to 1"):
        Rules(calibrate=1.5)


def test_calibrated_lists_have_the_persons_shares_and_only_what_the_platform_carries() -> None:
    _, _, model = scene("twin")
    plain, even = (
        model_consistency(model, Question(k=10, rules=Rules(by_platform=True, calibrate=weight)), people=80)
        for weight in (0.0, 0.7)
    )
    assert even["taste"] > plain["taste"] + 0.02
    lists = model.recommend(k=10, rules=Rules(by_platform=True, calibrate=0.7))
    best = model.recommend(k=50, rules=APART)
    assert lists.join(best, on=["platform", "user", "item_platform", "item"], how="anti").is_empty()


def test_themes_are_categories_where_platforms_share_them_and_clusters_of_texts_where_not() -> None:
    items = pl.DataFrame(
        {"platform": ["a"] * 20 + ["b"] * 20, "item": [str(n) for n in range(40)], "domain": ["x"] * 20 + ["y"] * 20}
    )
    shared = items.with_columns(categories=pl.Series([["海"], ["山", "海"]] * 20))
    themes = Themes.of(shared, Features())
    assert (themes.kind, themes.names) == ("categories", ("海", "山"))
    rng = np.random.default_rng(0)
    topic = np.arange(40) % 2
    vectors = np.eye(6, dtype=np.float32)[topic] + 3 * np.eye(6, dtype=np.float32)[4 + np.arange(40) // 20]
    vectors += 0.01 * rng.normal(size=vectors.shape).astype(np.float32)
    own = items.with_columns(categories=pl.Series([["left"]] * 20 + [["right"]] * 20))
    found = Themes.of(own, Features(vectors=vectors))
    assert found.kind == "clusters"
    label = found.rows.toarray().argmax(axis=1)
    assert not set(label[topic == 0]) & set(label[topic == 1]), "two topics, over both platforms"
    assert set(label[:20]) & set(label[20:]), "not one cluster a platform"
    assert Themes.of(items, Features()).kind == "none"


def test_tastes_and_lists_are_shares_of_themes() -> None:
    items = pl.DataFrame(
        {"platform": ["a", "b", "b"], "domain": "x", "item": ["1", "2", "3"], "categories": [["s"], ["s", "t"], ["t"]]}
    )
    themes = Themes.of(items, Features())
    order = [themes.names.index(name) for name in ("s", "t")]
    assert themes.tastes(Histories.of([[0, 1], [], [2]]))[:, order].tolist() == [[0.75, 0.25], [0, 0], [0, 1]]
    assert themes.of_lists(np.array([[0, 2], [1, -1], [-1, -1]]))[:, order].tolist() == [[0.5, 0.5], [0.5, 0.5], [0, 0]]
    assert themes.carried(np.array([0]))[order].tolist() == [True, False]
