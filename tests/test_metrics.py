"""Ranks, ranking metrics, list metrics and scale metrics against slow oracles."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import DataError
from isthmus.evaluate import lists, metrics
from isthmus.evaluate.ranks import Ranks, target_ranks, top_k
from isthmus.rng import generator

LEVELS = [-np.inf, 0.0, 0.5, 1.0]


@st.composite
def worlds(draw):
    """A few persons, at most six items, many ties, some exclusions, up to three targets each."""
    persons, items = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    row = st.lists(st.sampled_from(LEVELS), min_size=items, max_size=items)
    scores = np.array(draw(st.lists(row, min_size=persons, max_size=persons)), np.float32)
    targets = [draw(st.lists(st.integers(0, items - 1), max_size=3, unique=True)) for _ in range(persons)]
    return scores, targets


def csr(targets):
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in targets])]).astype(np.int64)
    return indptr, np.array([item for row in targets for item in row], np.int32)


def orders(scores):
    """Every order of the listed items that the scores allow, each as likely as the next."""
    listed = [item for item, score in enumerate(scores) if score > -np.inf]
    return [sorted(order, key=lambda item: -scores[item]) for order in permutations(listed)]


def plain(order, targets, k):
    """All metrics of one strict order, by their definitions."""
    top = order[:k]
    hits = [place for place, item in enumerate(top, 1) if item in targets]
    n, p, r = len(targets), len(hits) / k, len(hits) / len(targets)
    ideal = sum(1 / np.log2(place + 1) for place in range(1, min(n, k) + 1))
    ap = sum(sum(h <= place for h in hits) / place for place in hits) / min(n, k)
    negatives = [item for item in order if item not in targets]
    pairs = [item in order and order.index(item) < order.index(negative) for item in targets for negative in negatives]
    return {
        "recall": r,
        "precision": p,
        "f1": 2 * p * r / (p + r) if hits else 0.0,
        "hit_rate": float(bool(hits)),
        "ndcg": sum(1 / np.log2(place + 1) for place in hits) / ideal,
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": ap,
        "auc": np.mean(pairs) if pairs else np.nan,
    }


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(1, 7))
def test_metrics_are_the_mean_over_all_orders_of_ties(world, k):
    scores, targets = world
    found = metrics.per_person(Ranks.of(scores, *csr(targets)), [k])
    for person, wanted in enumerate(targets):
        if not wanted:
            assert all(np.isnan(values[person]) for values in found.values())
            continue
        runs = [plain(order, wanted, k) for order in orders(scores[person])]
        for name in runs[0]:
            values = found[name if name == "auc" else f"{name}@{k}"]
            assert values[person] == pytest.approx(np.mean([run[name] for run in runs]), nan_ok=True), name


@settings(max_examples=100, deadline=None)
@given(worlds())
def test_mid_ranks_and_keep(world):
    scores, targets = world
    indptr, items = csr(targets)
    expected = []
    for person, wanted in enumerate(targets):
        row = scores[person].tolist()
        for item in wanted:
            better, equal = sum(s > row[item] for s in row), sum(s == row[item] for s in row)
            expected.append(np.inf if row[item] == -np.inf else 1 + better + (equal - 1) / 2)
    assert target_ranks(scores, indptr, items).tolist() == expected
    ranks = Ranks.of(scores, indptr, items)
    flags = np.arange(items.size) % 2 == 0
    kept = ranks.keep(flags)
    assert kept.mid.tolist() == ranks.mid[flags].tolist()
    assert kept.counts.sum() == flags.sum()
    parts = [Ranks.of(scores[i : i + 1], *csr(targets[i : i + 1])) for i in range(len(targets))]
    joined = Ranks.join(parts)
    assert joined.indptr.tolist() == indptr.tolist()
    assert joined.mid.tolist() == ranks.mid.tolist()


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 90), st.integers(1, 12))
def test_top_k_equals_a_full_stable_sort(data, persons, items, k):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    levels = data.draw(st.sampled_from([1, 2, 5, 1000]))
    scores = rng.integers(0, levels, (persons, items)).astype(np.float32)
    scores[rng.random(scores.shape) < data.draw(st.sampled_from([0, 0.3, 0.95]))] = -np.inf
    expected = []
    for row in scores:
        order = [i for i in np.argsort(-row, kind="stable") if row[i] > -np.inf][:k]
        expected.append(order + [-1] * (k - len(order)))
    assert top_k(scores, k).tolist() == expected
    assert top_k(scores.T.copy().T, k).tolist() == expected


def test_top_k_of_nothing():
    assert top_k(np.zeros((0, 4), np.float32), 2).shape == (0, 2)
    assert top_k(np.zeros((2, 0), np.float32), 2).tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize("items", [200, 1000])
def test_a_constant_scorer_scores_as_chance(items):
    rng = generator(3, "chance")
    targets = [[int(t)] for t in rng.integers(0, items, 400)]
    scores = np.zeros((400, items), np.float32)
    constant = metrics.per_person(Ranks.of(scores, *csr(targets)), [10])
    noise = metrics.per_person(Ranks.of(rng.random(scores.shape, dtype=np.float32), *csr(targets)), [10])
    assert constant["recall@10"].mean() == pytest.approx(10 / items)
    assert constant["auc"].mean() == pytest.approx(0.5)
    for name, values in noise.items():
        error = max(values.std() / 20, 1e-3)
        assert abs(values.mean() - constant[name].mean()) < 4 * error, name


def test_ranks_refuse_what_they_cannot_rank():
    with pytest.raises(DataError, match="not a number"):
        Ranks.of(np.array([[0.0, np.nan]], np.float32), np.array([0, 1]), np.array([0], np.int32))
    with pytest.raises(DataError, match="do not fit"):
        Ranks.of(np.zeros((2, 2), np.float32), np.array([0, 1]), np.array([0], np.int32))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=30))
def test_class_metrics(pairs):
    truth, predicted = zip(*pairs, strict=True)
    found = metrics.class_metrics(truth, predicted)
    per_class = []
    for label in set(truth) | set(predicted):
        both = sum(t == p == label for t, p in pairs)
        p = both / predicted.count(label) if label in predicted else 0.0
        r = both / truth.count(label) if label in truth else 0.0
        per_class.append((p, r, 2 * p * r / (p + r) if both else 0.0))
    expected = np.mean(per_class, axis=0)
    assert [found["precision"], found["recall"], found["f1"]] == pytest.approx(expected.tolist())
    assert found["accuracy"] == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=30))
def test_scale_metrics(pairs):
    found = metrics.scale_metrics(*zip(*pairs, strict=True))
    squares = sum((t - p) ** 2 for t, p in pairs) / len(pairs)
    assert found["mae"] == pytest.approx(sum(abs(t - p) for t, p in pairs) / len(pairs))
    assert found["mse"] == pytest.approx(squares)
    assert found["rmse"] == pytest.approx(squares**0.5)


@pytest.mark.parametrize(("truth", "predicted"), [([1.0], [1.0, 2.0]), ([], []), ([np.nan], [1.0]), ([1.0], [np.inf])])
def test_scale_metrics_refuse(truth, predicted):
    with pytest.raises(DataError):
        metrics.scale_metrics(truth, predicted)


top_lists = st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3, unique=True), min_size=1, max_size=6)


@settings(max_examples=80, deadline=None)
@given(top_lists, st.lists(st.integers(0, 9), min_size=6, max_size=6), st.booleans())
def test_list_metrics(rows, popularity, short):
    top = np.array(rows, np.int32)
    if short:
        top[0, 1:] = -1
    shown = [[item for item in row if item >= 0] for row in top.tolist()]
    flat = [item for row in shown for item in row]
    assert lists.coverage(top, 6) == len(set(flat)) / 6
    counts = sorted(flat.count(item) for item in range(6))
    gaps = sum(abs(a - b) for a in counts for b in counts)
    assert lists.gini(top, 6) == pytest.approx(gaps / (2 * 6 * sum(counts)))
    info = [-np.log2((popularity[item] + 1) / 11) for item in flat]
    assert lists.novelty(top, np.array(popularity), 10) == pytest.approx(np.mean(info))
    mean = np.mean([popularity[item] for item in flat])
    assert lists.mean_popularity(top, np.array(popularity)) == pytest.approx(mean)


@settings(max_examples=60, deadline=None)
@given(top_lists, st.integers(0, 2**32 - 1))
def test_diversity_by_vectors(rows, seed):
    vectors = np.random.default_rng(seed).standard_normal((6, 4)).astype(np.float32)
    vectors[2] = 0
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    per_list = [np.mean([1 - unit[a] @ unit[b] for a in row for b in row if a != b]) for row in rows]
    assert lists.diversity(np.array(rows, np.int32), vectors) == pytest.approx(np.mean(per_list), abs=1e-5)


def test_diversity_of_short_lists_and_of_categories():
    vectors = np.eye(3, dtype=np.float32)
    assert lists.diversity(np.array([[0, 1, -1]], np.int32), vectors) == pytest.approx(1.0)
    assert np.isnan(lists.diversity(np.array([[0, -1, -1]], np.int32), vectors))
    one_hot = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert lists.diversity(np.array([[0, 1, 2]], np.int32), one_hot) == pytest.approx(2 / 3)


def test_gini_of_equal_and_of_single_exposure():
    assert lists.gini(np.array([[0, 1], [2, 3]], np.int32), 4) == pytest.approx(0.0)
    assert lists.gini(np.array([[0], [0], [0]], np.int32), 4) == pytest.approx(0.75)
