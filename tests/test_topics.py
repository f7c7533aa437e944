"""Topics: items that share no word are alike if the same people meet their words; the rest is as stored."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.content import TfidfContent
from isthmus.model.topics import TopicContent, directions

GROUPS, EACH, TONGUES = 6, 4, 2
N = 240


@cache
def world() -> tuple[TrainingData, np.ndarray, np.ndarray]:
    """Return two domains of 120 items in two languages that share no word, their groups and languages.

    Persons keep to a group, in both languages; nobody has an event in the second domain.
    """
    rng = np.random.default_rng(5)
    group, tongue = rng.integers(GROUPS, size=N), rng.integers(TONGUES, size=N)
    words = np.zeros((N, TONGUES, GROUPS, EACH), np.float32)
    for item in range(N):
        words[item, tongue[item], group[item], rng.permutation(EACH)[:2]] = 1.0
    text = sparse.csr_array(words.reshape(N, -1) / np.sqrt(2.0))
    home = np.arange(N) < N // 2
    lists = []
    for _ in range(500):
        own = np.flatnonzero(home & (group == rng.integers(GROUPS)))
        lists.append(rng.permutation(own)[:6].tolist())
    places = Places(np.repeat([0, 1], N // 2).astype(np.int32), np.zeros(N, np.int32), ("a", "b"), ("p",))
    target = np.arange(N // 2, N, dtype=np.int32)
    data = TrainingData(Histories.of(lists), target, N, 0, Features(text=text, places=places))
    return data, group, tongue


def hits(method: object, tongue_of_history: int) -> float:
    """Return how many of the best items in the other language are of the history's group."""
    _, group, tongue = world()
    share = []
    for wanted in range(GROUPS):
        own = np.flatnonzero((group == wanted) & (tongue == tongue_of_history))[:3]
        scores = method.score(Histories.of([own[own < N // 2].tolist()]))[0].copy()  # type: ignore[attr-defined]
        scores[tongue[N // 2 :] == tongue_of_history] = -np.inf
        best = np.argsort(-scores, kind="stable")[:5]
        share.append((group[N // 2 :][best] == wanted).mean())
    return float(np.mean(share))


def test_a_history_in_one_language_finds_its_like_in_the_other() -> None:
    data, _, _ = world()
    for tongue in range(TONGUES):
        assert hits(TopicContent({"decay": 1.0}).fit(data), tongue) > 0.95
        assert hits(TfidfContent({"decay": 1.0}).fit(data), tongue) < 0.4, "no word is shared"


@pytest.mark.parametrize("dim", [2, 5])
def test_directions_are_those_of_the_centred_table(dim: int) -> None:
    """With 12 words, 5 directions are found from the dense table, 2 without making it."""
    rng = np.random.default_rng(0)
    table = rng.random((30, 12)) * (rng.random((30, 12)) < 0.5)
    centred = table - table.sum(axis=1, keepdims=True) * (table.sum(axis=0) / table.sum())
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    _, strength, axes = np.linalg.svd(centred)
    found = np.abs(directions(sparse.csr_array(table), dim))
    np.testing.assert_allclose(found, np.abs(axes[:dim].T * np.sqrt(strength[:dim])), atol=1e-6)


def test_directions_that_a_table_is_too_small_for_are_nought() -> None:
    wide = directions(sparse.csr_array(np.random.default_rng(0).random((4, 12))), 8)
    assert wide.shape == (12, 8)
    assert (wide[:, :3] != 0).any(axis=0).all()
    assert not wide[:, 3:].any()
    assert not directions(sparse.csr_array((3, 4), dtype=np.float64), 2).any()


def test_a_person_who_is_like_everybody_says_nothing() -> None:
    table = np.array([[2.0, 2, 2, 2], [1, 1, 1, 1], [4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 2, 2]])
    found = directions(sparse.csr_array(table), 2)
    assert np.isfinite(found).all()
    assert found[2] == pytest.approx(found[3])


def test_without_events_nothing_is_said() -> None:
    data, _, _ = world()
    empty = replace(data, histories=Histories.of([]))
    assert not TopicContent().fit(empty).score(Histories.of([[0, 5], []])).any()


def test_an_item_does_not_speak_for_itself() -> None:
    data, _, _ = world()
    method = TopicContent({"decay": 1.0}).fit(replace(data, target=np.arange(N // 2, dtype=np.int32)))
    scores = method.score(Histories.of([[3]]))[0]
    assert scores[3] == pytest.approx(0.0, abs=1e-6)
    assert scores.max() > 0.9


def test_a_restored_model_says_the_same_and_reads_new_items() -> None:
    data, _, _ = world()
    method = TopicContent().fit(data)
    again = TopicContent(method.settings)
    again.target, again.n_items = method.target, method.n_items
    again.restore(method.state(), data.features)
    people = Histories.of([[0, 5], [7]])
    np.testing.assert_array_equal(method.score(people), again.score(people))
    np.testing.assert_array_equal(TopicContent().fit(data).score(people), method.score(people))
    text = sparse.csr_array(sparse.vstack([data.features.text, data.features.text[:1]]))  # type: ignore[index]
    longer = method.extended(Features(text=text), np.append(data.target, N).astype(np.int32), N + 1)
    found = longer.score(Histories.of([[0]]))
    assert found.shape == (1, N // 2 + 1)
    assert found[0, -1] == pytest.approx(found.max(), abs=1e-5), "it has the text of the first item"


def test_without_texts_it_says_so() -> None:
    data, _, _ = world()
    with pytest.raises(InputError, match="texts"):
        TopicContent().fit(replace(data, features=Features()))
