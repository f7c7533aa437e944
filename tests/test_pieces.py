"""Scores of few items for versions of one history: those of all items, without making them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.small_service import recommender

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world
from isthmus.model.base import Features, Method, TrainingData
from isthmus.model.blend import COHORTS, Blend, standardise
from isthmus.recommender import pieces
from isthmus.recommender.pieces import Linear, OfNeighbours
from isthmus.recommender.serving import Scorer
from isthmus.split.temporal import VALID, Split
from isthmus.train.fit import Target, training_data
from isthmus.train.methods import make

LINEAR = ("popularity", "recent", "knn", "ease", "tfidf", "text", "terms", "topics")


@cache
def data() -> TrainingData:
    """Two domains whose items have texts and vectors."""
    world = twin_world(2, replace(WORLD, persons=80, items=50))
    split = Split.make(Corpus.from_tables(world.tables, name="w"), valid_share=0.2, test_share=0.1)
    features = recommender().content.readers.read(split.corpus.items)
    vectors = np.random.default_rng(0).standard_normal((split.corpus.items.height, 8)).astype(np.float32)
    return training_data(split, VALID, "target", Features(features.text, vectors, features.places))


@cache
def method(name: str) -> Method:
    return make(name, {}).fit(data())


def target(*names: str, **more: object) -> Target:
    """Return a blend of some methods, five items of which are new."""
    rng = np.random.default_rng(1)
    weights = {cohort: tuple((0.1 + rng.random(len(names))).tolist()) for cohort in COHORTS}
    fresh = np.zeros(data().target.size, dtype=bool)
    fresh[:5] = True
    blend = Blend(names, weights, **more)  # type: ignore[arg-type]
    return Target("target", data().target, fresh, [method(name) for name in names], blend)


def versions(seed: int, size: int = 12) -> Histories:
    """Return a history of items of both domains, some of them twice, then less of it each time, down to nothing."""
    rng = np.random.default_rng(seed)
    items = rng.integers(data().n_items, size=size).tolist()
    items += items[:2]
    return Histories.of([items[place:] for place in range(len(items) + 1)])


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("seed", range(3))
def test_each_method_says_what_it_says_of_all_items(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, histories = Scorer(target(name, "popularity")), versions(seed)
    columns = np.random.default_rng(seed).permutation(data().target.size)[:7]
    scorer.prepare()
    wanted = scorer.score(histories)[:, columns]
    assert np.abs(wanted).max() > 0.5
    quick = scorer._quick[0]
    assert quick.at is not None
    monkeypatch.setattr(type(scorer), "score", None)
    np.testing.assert_allclose(scorer.at(histories, columns), wanted, atol=3e-4)
    shown = quick.at(histories, columns)
    assert shown is not None, "not all items were scored"


def test_a_whole_blend_with_a_voice_for_new_items_and_methods_that_are_not_linear() -> None:
    names = (*LINEAR, "aligned")
    for more in ({}, {"voice": (0.0, 0.3, 0.5, 0.0, 1.0, 0.2, 0.1, 0.4, 0.6), "level": -0.7}):
        scorer = Scorer(target(*names, **more))
        scorer.prepare()
        columns = np.array([0, 3, 4, 9, 20, 31])
        for seed in range(3):
            histories = versions(seed)
            np.testing.assert_allclose(scorer.at(histories, columns), scorer.score(histories)[:, columns], atol=2e-3)


def test_items_of_a_history_that_are_asked_for_do_not_speak_for_themselves() -> None:
    scorer = Scorer(target("tfidf", "text", "knn"))
    scorer.prepare()
    items = data().target[[2, 8, 11]].tolist()
    histories = Histories.of([items, items[:1], items[1:]])
    columns = np.array([2, 8, 30])
    np.testing.assert_allclose(scorer.at(histories, columns), scorer.score(histories)[:, columns], atol=3e-4)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 6))
def test_a_linear_method_is_standardised_as_over_all_items(seed: int, items: int, persons: int) -> None:
    rng = np.random.default_rng(seed)
    table = (rng.random((items, items)) * (rng.random((items, items)) < 0.6)).astype(np.float32)
    profile = (rng.random((persons, items)) * (rng.random((persons, items)) < 0.5)).astype(np.float32)
    kept = method("knn").__class__()
    kept.weights = sparse.csr_array(table)
    every = np.arange(items)
    found = Linear(OfNeighbours(kept), every.astype(np.int32), items).at(sparse.csr_array(profile), every)
    scores = (profile @ table).astype(np.float64)
    if found is not None:
        np.testing.assert_allclose(found, standardise(profile @ table), atol=5e-3)
    else:
        said = scores.any(axis=1)
        spread = scores[said].std(axis=1) / np.sqrt((scores[said] ** 2).mean(axis=1))
        assert spread.min() < 1.1 * np.sqrt(pieces.LOST), "next to constant"


def test_what_rounding_would_hide_is_left_to_the_scores_of_all_items() -> None:
    kept = method("knn").__class__()
    kept.weights = sparse.csr_array(np.ones((3, 3), np.float32))
    linear = Linear(OfNeighbours(kept), np.arange(3, dtype=np.int32), 3)
    profile = sparse.csr_array(np.array([[1.0, 0.0, 2.0]], np.float32))
    assert linear.at(profile, np.array([0, 1])) is None
    nothing = linear.at(sparse.csr_array((2, 3), dtype=np.float32), np.array([0, 1]))
    np.testing.assert_array_equal(nothing, np.zeros((2, 2)))


def test_texts_with_too_many_words_together_are_left_to_the_scores_of_all_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "WORDS", 10)
    scorer = Scorer(target("tfidf", "popularity"))
    assert scorer._quick[0].at is None
    histories, columns = versions(0), np.array([1, 5])
    np.testing.assert_allclose(scorer.at(histories, columns), scorer.score(histories)[:, columns], atol=1e-5)


def longer(found: Target, more: int) -> Target:
    """Return a target with items at the end that read as the first ones do."""
    features, new = data().features, data().n_items + np.arange(more)
    assert features.text is not None
    assert features.vectors is not None
    text = sparse.csr_array(sparse.vstack([features.text, features.text[:more]]))
    told = Features(text, np.concatenate([features.vectors, features.vectors[:more]]), None)
    items = np.append(data().target, new).astype(np.int32)
    methods = [one.extended(told, items, data().n_items + more) for one in found.methods]
    return replace(found, items=items, new=np.append(found.new, np.ones(more, dtype=bool)), methods=methods)


@pytest.mark.parametrize("many", [100, 3], ids=["counted in one by one", "summed anew"])
def test_new_items_are_counted_in(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MANY", many)
    before = Scorer(target("tfidf", "text", "terms", "knn", "popularity"))
    before.prepare()
    scorer = Scorer(longer(before.target, 7))
    scorer.follow(before)
    counts = [one.summed._made.count for one in scorer._quick if one.summed is not None and one.summed._made]
    assert counts == [data().target.size + (7 if many == 3 else 0)] * 3
    columns = np.array([0, 9, data().target.size + 2])
    for seed in range(3):
        histories = versions(seed)
        wanted = scorer.score(histories)[:, columns]
        np.testing.assert_allclose(scorer.at(histories, columns), wanted, atol=1e-3)
        assert all(one.at is not None and one.at(histories, columns) is not None for one in scorer._quick)


def test_before_it_is_prepared_all_items_are_scored() -> None:
    scorer, histories, columns = Scorer(target("tfidf", "text", "popularity")), versions(1), np.array([4, 8])
    np.testing.assert_array_equal(scorer.at(histories, columns), scorer.score(histories)[:, columns])
    after = Scorer(longer(scorer.target, 2))
    after.follow(scorer)
    np.testing.assert_array_equal(after.at(histories, columns), after.score(histories)[:, columns])
