"""What to label next: against a loop, and worth more than chance on a world with rare themes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression

from isthmus.data.labelling import choose_to_label, doubts
from isthmus.data.simulate import WORLD, twin_world
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.errors import InputError
from isthmus.types import Floats

PLACES = np.eye(4, dtype=np.float32)


def naive(vectors: Floats, worth: list[float], known: list[int], n: int) -> list[int]:
    taken, chosen = list(known), []
    for _ in range(n):
        best, top = -1, -1.0
        for item in range(len(vectors)):
            near = min((float(np.linalg.norm(vectors[item] - vectors[other])) for other in taken), default=1.0)
            if item not in taken and worth[item] * near > top:
                best, top = item, worth[item] * near
        taken.append(best)
        chosen.append(best)
    return chosen


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 12), st.integers(0, 99), st.sampled_from(["none", "margin", "entropy"]), st.data())
def test_the_choice_equals_a_loop(size: int, seed: int, kind: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(size, 3)).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(4), size=size).astype(np.float32)
    least = 1 if kind == "none" else 0  # with nothing known chance takes the first
    known = data.draw(st.lists(st.integers(0, size - 1), min_size=min(least, size), max_size=size, unique=True))
    n = data.draw(st.integers(0, size - len(known)))
    doubt = "entropy" if kind == "entropy" else "margin"
    worth = [1.0] * size if kind == "none" else doubts(probabilities, doubt).tolist()
    given_ = None if kind == "none" else probabilities
    chosen = choose_to_label(vectors, given_, np.array(known, dtype=np.int64), n, rng, doubt=doubt)
    assert chosen.tolist() == naive(vectors, worth, known, n)
    assert chosen.dtype == np.int64


def test_doubts_equal_their_formulas() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(5), size=20).astype(np.float32)
    for row, margin, entropy in zip(rows, doubts(rows), doubts(rows, "entropy"), strict=True):
        best = sorted(row.tolist())
        assert margin == pytest.approx(1 - best[-1] + best[-2], abs=1e-6)
        assert entropy == pytest.approx(-sum(p * np.log(p) for p in row) / np.log(5), abs=1e-5)
    assert doubts(np.ones((3, 1), np.float32)).tolist() == [0, 0, 0]


def test_copies_are_taken_last_and_equals_by_chance() -> None:
    vectors = np.array([[0.0]] * 5 + [[1.0], [2.0]], np.float32)
    for seed in range(5):
        chosen = choose_to_label(vectors, None, np.array([0]), 3, np.random.default_rng(seed)).tolist()
        assert chosen[:2] == [6, 5]
    first = {int(choose_to_label(vectors, None, np.array([], int), 1, np.random.default_rng(s))[0]) for s in range(40)}
    assert len(first) > 4


@pytest.mark.parametrize(
    ("n", "rows", "doubt"),
    [(4, 4, "margin"), (-1, 4, "margin"), (1, 3, "margin"), (1, 4, "mood")],
    ids=["too many", "negative", "rows", "unknown"],
)
def test_what_makes_no_sense_is_said(n: int, rows: int, doubt: str) -> None:
    probabilities = np.full((rows, 2), 0.5, np.float32)
    with pytest.raises(InputError):
        choose_to_label(PLACES, probabilities, np.array([1]), n, np.random.default_rng(0), doubt=doubt)  # type: ignore[arg-type]


def catalogue(seed: int) -> tuple[Floats, np.ndarray]:
    """Return text vectors and themes of items of a world in which some themes are rare."""
    world = twin_world(seed, replace(WORLD, persons=10, items=600, themes=12))
    items = world.tables["items"].join(world.themes, on=["platform", "item"]).filter(pl.col("platform") == "north")
    themes, texts = items["theme"].to_numpy(), (items["title"] + " " + items["text"]).to_list()
    vectors = TruncatedSVD(32, random_state=0).fit_transform(TfidfEncoder.fit(texts).transform(texts))
    rng = np.random.default_rng(seed)
    share = {theme: 1 / (1 + rank) for rank, theme in enumerate(rng.permutation(np.unique(themes)))}
    kept = rng.random(themes.size) < np.array([share[theme] for theme in themes])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)[kept], themes[kept]


def gain(seed: int) -> float:
    """Return how much more of the test is classified right with 20 chosen items than with 20 random ones."""
    vectors, themes = catalogue(seed)
    rng = np.random.default_rng(seed)
    test = np.arange(themes.size) % 3 == 0
    known = rng.choice(np.flatnonzero(~test), 20, replace=False)
    free = np.setdiff1d(np.flatnonzero(~test), known)

    def learned(labelled: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=10, max_iter=500).fit(vectors[labelled], themes[labelled])

    def accuracy(more: np.ndarray) -> float:
        return float(learned(np.append(known, more)).score(vectors[test], themes[test]))

    both = np.append(free, known)
    probabilities = learned(known).predict_proba(vectors[both]).astype(np.float32)
    chosen = choose_to_label(vectors[both], probabilities, np.arange(free.size, both.size), 20, rng)
    chance = [accuracy(rng.choice(free, 20, replace=False)) for _ in range(10)]
    return accuracy(both[chosen]) - float(np.mean(chance))


def test_items_chosen_teach_more_than_random_ones() -> None:
    gains = [gain(seed) for seed in range(5)]
    assert min(gains) > 0
    assert 0.05 < np.mean(gains) < 0.25
