"""Intervals and tests with known answers: how often they are right over many simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from isthmus.errors import DataError
from isthmus.evaluate import stats
from isthmus.rng import generator


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    rng = generator(1, "coverage")
    studies, persons = 1500, 200
    values = rng.exponential(1.0, (persons, studies))
    held = []
    for start in range(0, studies, 100):
        _, low, high = stats.mean_intervals(values[:, start : start + 100], rng=rng, draws=600)
        held.append((low <= 1.0) & (high >= 1.0))
    assert 0.92 <= np.concatenate(held).mean() <= 0.98


def test_the_interval_is_as_wide_as_theory_says():
    rng = generator(2, "width")
    values = rng.standard_normal((4000, 3)) * [1.0, 2.0, 5.0]
    mean, low, high = stats.mean_intervals(values, rng=rng, level=0.9, draws=4000)
    assert mean == pytest.approx(values.mean(axis=0))
    expected = 2 * 1.645 * values.std(axis=0) / np.sqrt(4000)
    assert high - low == pytest.approx(expected, rel=0.06)


def test_the_interval_leaves_unknown_values_out():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]] * 50)
    mean, low, high = stats.mean_intervals(values, rng=generator(1))
    assert mean[:2].tolist() == [2.0, 4.0]
    assert low[0] < 2.0 < high[0]
    assert low[1] == high[1] == 4.0
    assert np.isnan([mean[2], low[2], high[2]]).all()
    assert np.isnan(stats.mean_intervals(np.zeros((0, 2)), rng=generator(1))[0]).all()
    mean, low, high = stats.mean_intervals([[0.25]], rng=generator(1))
    assert mean[0] == low[0] == high[0] == 0.25


def test_intervals_repeat_with_the_seed():
    values = generator(1).random((50, 2))
    first, again = (stats.mean_intervals(values, rng=generator(4)) for _ in range(2))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]


def test_false_alarms_are_as_rare_as_they_should_be():
    rng = generator(5, "type one")
    differences = rng.standard_t(4, (150, 2000))
    rejected = (stats.sign_flip(differences, rng=rng, draws=999) < 0.05).mean()
    assert 0.035 <= rejected <= 0.065
    assert 0.035 <= (stats.wilcoxon(differences[:, :1000]) < 0.05).mean() <= 0.065


def test_sign_flip_equals_all_sign_patterns():
    differences = np.array([0.5, -0.1, 0.3, 0.4, 0.2, 0.35, 0.0, np.nan])
    some = differences[:6]
    signs = np.array([[1 if n >> i & 1 else -1 for i in range(6)] for n in range(64)])
    exact = (np.abs(signs @ some) >= some.sum() - 1e-9).mean()
    found = stats.sign_flip(differences[:, None], rng=generator(6), draws=40_000)
    assert found[0] == pytest.approx(exact, abs=0.006)


def test_tests_of_no_difference_and_of_a_large_one():
    table = np.stack([np.zeros(80), np.ones(80)], axis=1)
    assert stats.sign_flip(table, rng=generator(1), draws=500).tolist() == [1.0, 1 / 501]
    found = stats.wilcoxon(table)
    assert found[0] == 1.0
    assert found[1] < 1e-10


def test_wilcoxon_is_scipy_without_zeros():
    column = np.array([0.5, -0.1, 0.3, 0.4, 0.2, 0.0, 0.7, -0.2, 0.9, 0.0])
    expected = reference.wilcoxon(column, zero_method="wilcox", method="approx").pvalue
    assert stats.wilcoxon(column[:, None])[0] == pytest.approx(expected)


def test_holm_by_hand():
    # Sorted: .005*4=.02, .01*3=.03, .03*2=.06, .04*1=.04 -> not below .06.
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert stats.holm([]).tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_raw_and_bonferroni(p):
    adjusted = stats.holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_the_detectable_effect_is_detected_as_often_as_it_says():
    rng = generator(7, "power")
    noise = rng.standard_normal((200, 1500))
    effect = stats.detectable_effect(noise[:, :1])[0]
    assert effect == pytest.approx(2.8016 * noise[:, 0].std(ddof=1) / np.sqrt(200), rel=1e-3)
    true = 2.8016 / np.sqrt(200)
    found = (stats.sign_flip(noise + true, rng=rng, draws=499) < 0.05).mean()
    assert 0.76 <= found <= 0.84
    assert np.isnan(stats.detectable_effect([[1.0]])[0])


def test_a_flat_array_is_refused():
    with pytest.raises(DataError, match="1 dimension"):
        stats.sign_flip([1.0, 2.0], rng=generator(1))
