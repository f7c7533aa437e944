"""Learned weights of words: what is found, when nothing is learned, and that a stored model says the same."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model import terms
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.content import TfidfContent
from isthmus.model.terms import TermContent

GROUPS, NOISE = 10, 30


def texts(rng: np.random.Generator, n: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Return items with one telling word each (the first columns) and five idle ones, and their groups."""
    group = rng.integers(GROUPS, size=n)
    rows = np.zeros((n, GROUPS + NOISE), np.float32)
    rows[np.arange(n), group] = 1.0
    rows[np.arange(n)[:, None], GROUPS + rng.permuted(np.tile(np.arange(NOISE), (n, 1)), axis=1)[:, :5]] = 1.0
    return sparse.csr_array(rows / np.sqrt(6.0)), group


@cache
def world(persons: int = 400) -> tuple[TrainingData, np.ndarray]:
    """Return two domains of 100 items; nobody has an event in the second; persons keep to a group."""
    rng = np.random.default_rng(3)
    text, group = texts(rng, 200)
    lists = []
    for _ in range(persons):
        own = np.flatnonzero(group[:100] == rng.integers(GROUPS))
        lists.append(rng.permutation(own)[:6].tolist())
    places = Places(np.repeat([0, 1], 100).astype(np.int32), np.zeros(200, np.int32), ("a", "b"), ("p",))
    features = Features(text=text, places=places)
    return TrainingData(Histories.of(lists), np.arange(100, 200, dtype=np.int32), 200, 0, features), group


def test_words_that_tell_count_and_idle_ones_do_not() -> None:
    data, _ = world()
    weights = terms.learn(data, seed=0)
    assert weights.dtype == np.float32
    assert weights[:GROUPS].min() > 2 * weights[GROUPS:].max()
    assert weights.min() >= 0


def test_what_was_learned_holds_in_a_domain_without_events() -> None:
    data, group = world()
    learned, plain = TermContent({"decay": 1.0}).fit(data), TfidfContent({"decay": 1.0}).fit(data)
    people = Histories.of([[int(np.flatnonzero(group[:100] == g)[0])] for g in range(GROUPS)])
    right = group[100:][None, :] == np.arange(GROUPS)[:, None]
    hits = []
    for method in (plain, learned):
        best = np.argsort(-method.score(people), axis=1, kind="stable")[:, :5]
        hits.append(np.take_along_axis(right, best, axis=1).mean())
    assert hits[1] > 0.95
    assert hits[0] < 0.8


def test_where_every_word_tells_alike_none_is_preferred() -> None:
    data, group = world()
    rows = np.zeros((200, GROUPS + NOISE), np.float32)
    rows[np.arange(200), group] = 1.0
    weights = terms.learn(replace(data, features=replace(data.features, text=sparse.csr_array(rows))), seed=0)
    assert weights[:GROUPS].min() > 0.7 * weights[:GROUPS].max()
    np.testing.assert_allclose(weights[GROUPS:], 1.0, atol=1e-6, err_msg="words that nobody met")


def test_without_events_it_is_plain_tfidf() -> None:
    data, _ = world()
    empty = replace(data, histories=Histories.of([]))
    assert (terms.learn(empty, seed=0) == 1).all()
    people = Histories.of([[0, 5], [7]])
    np.testing.assert_allclose(
        TermContent().fit(empty).score(people), TfidfContent().fit(empty).score(people), atol=1e-6
    )


def test_an_item_does_not_speak_for_itself() -> None:
    data, _ = world()
    method = TermContent({"decay": 1.0}).fit(replace(data, target=np.arange(100, dtype=np.int32)))
    weighted = (data.features.text.toarray() * np.sqrt(method.weights)).astype(np.float32)  # type: ignore[union-attr]
    other = weighted[3] @ weighted[:100].T
    other[3] = 0.0
    np.testing.assert_allclose(method.score(Histories.of([[3]]))[0], other, atol=1e-5)


def test_a_restored_model_says_the_same_and_reads_new_items() -> None:
    data, _ = world()
    method = TermContent().fit(data)
    again = TermContent(method.settings)
    again.target, again.n_items = method.target, method.n_items
    again.restore(method.state(), data.features)
    people = Histories.of([[0, 5], [7]])
    np.testing.assert_array_equal(method.score(people), again.score(people))
    text = sparse.csr_array(sparse.vstack([data.features.text, data.features.text[:1]]))  # type: ignore[index]
    longer = method.extended(Features(text=text), np.append(data.target, 200).astype(np.int32), 201)
    found = longer.score(people)
    assert found.shape == (2, 101)
    assert found[0, 100] > np.median(found[0]), "it has the text of the first item"


def test_the_gradient_is_that_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    shared = sparse.csr_array(rng.random((20 * 4, 7)).astype(np.float32))
    choices = terms.Choices(shared, rng.random((20, 4)), np.zeros(20, np.int64))
    found, centre = terms._solve(choices, 0.5), terms._scale(choices)

    def loss(weights: np.ndarray) -> float:
        scores = (shared @ weights).reshape(20, 4) + choices.rare
        said = scores[:, 0] - np.log(np.exp(scores).sum(axis=1))
        return float(-said.sum() + 0.25 * ((weights - centre) ** 2).sum())

    best = loss(found)
    for place in range(7):
        for step in (-0.05, 0.05):
            moved = found.copy()
            moved[place] = max(moved[place] + step, 0.0)
            assert loss(moved) >= best - 1e-6


def test_without_texts_it_says_so() -> None:
    data, _ = world()
    with pytest.raises(InputError, match="texts"):
        TermContent().fit(replace(data, features=Features()))
