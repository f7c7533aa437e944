"""Every method keeps the contract, and the closed forms equal what textbooks and naive loops say."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.pages import run_programs, text_of
from tests.tiny_language import folder as language_folder

from isthmus.data.sequences import Histories
from isthmus.encode.graph import Neighbours
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Features, Method, Settings, State, TrainingData, strongest
from isthmus.model.collaborative import OWN_FIRST, CoOccurrence, Ease
from isthmus.model.content import TextContent, TfidfContent
from isthmus.model.factors import Als, Bpr, HybridFm, fold_in
from isthmus.model.popularity import DAY, Popularity, RecentPopularity
from isthmus.testing import check_method
from isthmus.train.methods import METHODS, make
from isthmus.types import Floats, Indices

#: Items 0-5 are the source, 6-14 the target; 14 has neither a text nor events.
N, TARGET = 15, np.arange(6, 15, dtype=np.int32)


def small_features(seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    words = (rng.random((N, 12)) < 0.4) * rng.random((N, 12)) + np.eye(N, 12)
    words[14] = 0
    vectors = rng.normal(size=(N, 4)).astype(np.float32)
    vectors[14] = 0
    text = words / np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-9)
    texts = tuple(f"number {item} of {item * item}" if item != 14 else "" for item in range(N))
    pictures = {"image": vectors[:, :3] + 1, "told": vectors[:, :3] + 1}
    for rows in pictures.values():
        rows[14] = 0
    ties = rng.random((N, 6)) < 0.4
    ties[14] = False
    rows, entities = np.nonzero(ties)
    kinds, worth = rng.integers(0, 3, rows.size).astype(np.int32), np.ones(rows.size, np.float32)
    graph = Neighbours(rows.astype(np.int32), kinds, entities.astype(np.int32), worth, N, 6, ("a", "b", "c"))
    return Features(sparse.csr_array(text.astype(np.float32)), vectors, texts=texts, graph=graph, more=pictures)


def small_data(seed: int = 0, persons: int = 30) -> TrainingData:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 13, rng.integers(1, 9)).tolist() for _ in range(persons)]
    histories = Histories.of([[2, 7, 8], [7, 7, 9, 1], *rows])
    ts, weights = histories.ts * DAY, rng.choice([0.3, 1.0], histories.ts.size).astype(np.float32)
    return TrainingData(replace(histories, ts=ts, weights=weights), TARGET, N, int(ts.max()), small_features(seed))


DATA = small_data()
QUICK: dict[str, Settings] = {
    "language": {"start": language_folder(), "precision": "float32"},
    "ials": {"dim": 4, "iterations": 3},
    "bpr": {"dim": 4, "iterations": 5},
    "fm": {"dim": 4, "epochs": 2},
}


def quick(name: str) -> Method:
    return make(name, QUICK.get(name))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name: str) -> None:
    check_method(lambda chosen: make(name, {**QUICK.get(name, {}), **chosen}), DATA)


class Breaks(Popularity):
    """A method that breaks one promise at a time."""

    fault = ""

    def score(self, histories: Histories) -> Floats:
        scores = super().score(histories)
        if self.fault == "dtype":
            return scores.astype(np.float64)  # type: ignore[return-value]
        if self.fault == "shape":
            return scores[:, :-1]
        if self.fault == "nan":
            return scores * np.nan
        if self.fault == "neighbours":
            return scores + len(histories)
        if self.fault == "touches":
            histories.items[:] = 0
        return scores

    def state(self) -> State:
        return {"scores": self.scores * 2} if self.fault == "state" else super().state()

    def extend(self, features: Features, target: Indices) -> None:
        super().extend(features, target)
        if self.fault == "extend":
            self.scores = self.scores[::-1].copy()

    def _fit(self, data: TrainingData, seed: int) -> None:
        super()._fit(data, seed)
        if self.fault == "seed":
            self.scores = np.random.default_rng().random(self.scores.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dtype", "float32"),
        ("shape", "shape"),
        ("nan", "finite"),
        ("neighbours", "depend on nothing else"),
        ("touches", "leaves the histories alone"),
        ("state", "state and restore"),
        ("extend", "leaves old scores alone"),
        ("seed", "same seed"),
    ],
)
def test_the_contract_finds_a_broken_promise(fault: str, message: str) -> None:
    kind = type("Faulty", (Breaks,), {"fault": fault})
    with pytest.raises(AssertionError, match=message):
        check_method(kind, DATA)


def test_events_of_other_domains_count_as_away_says_and_fade_by_themselves() -> None:
    histories = Histories.of([[0, 7, 1, 8], [0, 1], [7, 8]])

    def counted(**settings: float | bool) -> list[dict[int, float]]:
        profile = make("tfidf", {"decay": 0.5, **settings}).fit(DATA).profile(histories).toarray()
        return [{int(item): round(float(row[item]), 4) for item in np.flatnonzero(row)} for row in profile]

    assert counted(away=0.1) == [{8: 1, 7: 0.5, 1: 0.1, 0: 0.05}, {1: 0.1, 0: 0.05}, {8: 1, 7: 0.5}]
    assert counted(away=1.0)[0] == {8: 1, 1: 0.5, 7: 0.25, 0: 0.125}
    assert counted(away=0.1, sources=False) == [{8: 1, 7: 0.5}, {}, {8: 1, 7: 0.5}]


def test_examples_of_the_pages_run() -> None:
    known = {"MyMethod": Popularity, "data": DATA}
    for name, count in (("split.md", 1), ("methods.md", 2)):
        run_programs(name, count, known)


def test_the_table_of_methods_is_complete() -> None:
    page = text_of("methods.md")
    rows = {row[0]: row for row in re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", page, re.MULTILINE)}
    assert set(rows) == set(METHODS)
    for name, kind in METHODS.items():
        tuned = [setting for setting, values in kind.grid.items() if len(values) > 1]
        assert rows[name][1] == (", ".join(tuned) or "–"), name


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'ease'"):
        make("eese")
    with pytest.raises(InputError, match="no setting depth"):
        make("ease", {"depth": 3})


def test_popularity_counts_and_forgets() -> None:
    histories = Histories(
        np.array([0, 2, 3]), np.array([0, 1, 1], np.int32), np.ones(3, np.float32), np.array([0, 0, 30 * DAY])
    )
    data = TrainingData(histories, np.arange(3, dtype=np.int32), 3, 30 * DAY)
    assert Popularity().fit(data).score(Histories.of([[]]))[0] == pytest.approx(np.log1p([1, 2, 0]))
    recent = RecentPopularity({"half_life": 30.0}).fit(data).score(Histories.of([[], [2]]))
    mean = (0.5 + 1.5) / 3
    assert recent[1] == pytest.approx(np.log1p(np.array([0.5, 1.5, 0]) / mean), rel=1e-5)


def naive_pairs(rows: list[list[tuple[int, float]]], window: int, near: float) -> dict[tuple[int, int], float]:
    """Return the weight of each pair of items; a row holds items and what their events are worth."""
    total: dict[tuple[int, int], float] = defaultdict(float)
    for row in rows:
        for i, (first, _) in enumerate(row):
            for j in range(i + 1, min(i + window, len(row) - 1) + 1):
                second, worth = row[j]
                if first != second:
                    total[first, second] += worth * near ** (j - i - 1)
                    total[second, first] += worth * near ** (j - i - 1)
    return total


ROWS = st.lists(st.lists(st.integers(0, 6), max_size=7), min_size=1, max_size=6).filter(any)


@settings(max_examples=80, deadline=None)
@given(
    ROWS, st.integers(1, 4), st.sampled_from([0.5, 0.8, 1.0]), st.sampled_from([(0.3, 0.5), (0.5, 0.1)]),
    st.sampled_from([0.0, 5.0]),
)  # fmt: skip
def test_co_occurrence_equals_a_double_loop(
    rows: list[list[int]], window: int, near: float, powers: tuple[float, float], half_life: float
) -> None:
    histories = Histories.of(rows)
    now = int(histories.ts.max()) * DAY
    data = TrainingData(replace(histories, ts=histories.ts * DAY), np.arange(2, 7, dtype=np.int32), 7, now)
    chosen: Settings = {"window": window, "near": near, "norm": powers[0], "fame": powers[1], "half_life": half_life}
    fitted = CoOccurrence(chosen).fit(data)
    ages = iter((histories.ts.max() - histories.ts).tolist())
    worth = [[(item, 0.5 ** (next(ages) / half_life) if half_life else 1.0) for item in row] for row in rows]
    pairs = naive_pairs(worth, window, near)
    counts = [1.0 + sum(value for row in worth for other, value in row if other == item) for item in range(7)]
    expected = [
        [pairs[i, j] / (counts[i] ** powers[0] * counts[j] ** powers[1]) for j in range(2, 7)] for i in range(7)
    ]
    assert isinstance(fitted, CoOccurrence)
    np.testing.assert_allclose(fitted.weights.toarray(), expected, rtol=1e-5)


def textbook_ease(gram: np.ndarray, l2: float) -> np.ndarray:
    precision = np.linalg.inv(gram + l2 * np.eye(len(gram)))
    weights = np.eye(len(gram)) - precision / np.diag(precision)
    np.fill_diagonal(weights, 0)
    return weights


def binary(data: TrainingData) -> np.ndarray:
    return (data.histories.matrix(N).toarray() > 0).astype(np.float64)


@pytest.mark.parametrize(("source_weight", "text"), [(1.0, 0.0), (0.5, 0.0), (1.0, 30.0)])
def test_ease_equals_the_textbook(source_weight: float, text: float) -> None:
    fitted = Ease({"l2": 3.0, "source_weight": source_weight, "text": text}).fit(DATA)
    x = binary(DATA) * np.where(DATA.in_target, 1.0, source_weight)
    said = DATA.features.text.toarray().astype(np.float64)  # type: ignore[union-attr]
    expected = textbook_ease(x.T @ x + text * said @ said.T, 3.0)[:, TARGET]
    assert isinstance(fitted, Ease)
    np.testing.assert_allclose(fitted.weights.toarray(), expected, atol=2e-5)


def test_collective_ease_gives_items_without_events_weights() -> None:
    met = DATA.popularity > 0
    assert not met[13]
    plain, collective = Ease().fit(DATA), Ease({"text": 30.0}).fit(DATA)
    asked = Histories.of([[item] for item in range(13)])
    column = int(np.searchsorted(TARGET, 13))
    assert not plain.score(asked)[:, column].any()
    assert np.abs(collective.score(asked)[:, column]).max() > 0.01
    assert not collective.score(asked)[:, -1].any(), "neither text nor events: nothing to say"


def test_ease_keeps_the_most_popular_items_and_its_own_first_where_there_are_too_many() -> None:
    fitted = Ease({"max_items": 5}).fit(DATA)
    assert isinstance(fitted, Ease)
    used = np.flatnonzero(np.diff(fitted.weights.indptr))
    popularity = np.bincount(DATA.histories.items, minlength=N)
    assert used.size <= 5
    worth = popularity * np.where(DATA.in_target, OWN_FIRST, 1.0)
    assert sorted(used) == sorted(np.argsort(-worth, kind="stable")[:5])


def test_ease_that_cannot_be_solved_says_so() -> None:
    with pytest.raises(InputError, match="larger l2"):
        Ease({"l2": -1000.0}).fit(DATA)


@pytest.mark.parametrize("name", ["knn", "ease", "ials", "tfidf", "text", "bpr"])
def test_without_sources_the_other_domains_count_for_nothing(name: str) -> None:
    chosen = {**QUICK.get(name, {}), "sources": False}
    fitted = make(name, chosen).fit(DATA)
    both = fitted.score(Histories.of([[7, 0, 9, 1], [0, 1, 2], []]))
    alone = fitted.score(Histories.of([[7, 9], []]))
    np.testing.assert_allclose(both[0], alone[0], atol=1e-5)
    np.testing.assert_allclose(both[1], both[2], atol=1e-6)
    kept = DATA.histories.keep(DATA.in_target[DATA.histories.items])
    again = make(name, chosen).fit(replace(DATA, histories=kept))
    if name != "bpr":  # implicit draws from the rows it gets
        np.testing.assert_allclose(again.score(Histories.of([[7, 9], []])), alone, atol=1e-5)


def test_sources_help_where_they_are_allowed() -> None:
    asked = Histories.of([[0, 1, 2]])
    for name in ("knn", "ease", "tfidf", "text"):
        assert np.ptp(make(name).fit(DATA).score(asked)) > 0, name


def direct(profile: np.ndarray, factors: np.ndarray, alpha: float, l2: float) -> np.ndarray:
    rows = []
    for row in profile:
        matrix = factors.T @ factors + l2 * np.eye(factors.shape[1])
        right = np.zeros(factors.shape[1])
        for item in np.flatnonzero(row):
            matrix += alpha * row[item] * np.outer(factors[item], factors[item])
            right += (1 + alpha * row[item]) * factors[item]
        rows.append(np.linalg.solve(matrix, right))
    return np.array(rows)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1.0, 10.0, 40.0]))
def test_fold_in_equals_the_direct_solution(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(20, 5))
    profile = np.where(rng.random((4, 20)) < 0.2, rng.random((4, 20)), 0)
    profile[0] = 0
    found = fold_in(sparse.csr_array(profile.astype(np.float32)), factors.astype(np.float32), alpha=alpha, l2=0.1)
    expected = direct(profile.astype(np.float32), factors, alpha, 0.1)
    np.testing.assert_allclose(found, expected, atol=2e-3 * max(1.0, np.abs(expected).max()))
    assert not found[0].any()


def test_als_finds_planted_groups() -> None:
    rng = np.random.default_rng(3)
    rows = [(rng.permutation(7)[:5] + 7 * (person % 2)).tolist() for person in range(80)]
    data = TrainingData(Histories.of(rows), np.arange(14, dtype=np.int32), 15, 0)
    scores = Als({"dim": 2}).fit(data, seed=1).score(Histories.of([[0, 1], [8, 9], []]))
    assert scores[0, 2:7].min() > scores[0, 7:].max()
    assert scores[1, 10:].min() > scores[1, :7].max()
    assert not scores[2].any()


@pytest.mark.parametrize("kind", [Bpr, HybridFm])
def test_factor_methods_find_planted_groups(kind: type[Method]) -> None:
    rng = np.random.default_rng(3)
    rows = [(rng.permutation(7)[:6] + 7 * (person % 2)).tolist() for person in range(120)]
    words = np.kron(np.eye(2), np.ones((7, 1))).astype(np.float32)
    features = Features(sparse.csr_array(words))
    data = TrainingData(Histories.of(rows), np.arange(14, dtype=np.int32), 14, 0, features)
    scores = kind().fit(data, seed=1).score(Histories.of([[0, 1, 2], [8, 9, 10]]))
    assert scores[0, 3:7].mean() > scores[0, 7:].mean()
    assert scores[1, 11:].mean() > scores[1, :7].mean()


@pytest.mark.parametrize("name", ["tfidf", "text"])
def test_content_is_a_decayed_cosine_without_the_item_itself(name: str) -> None:
    fitted = make(name, {"decay": 0.5}).fit(DATA)
    if isinstance(fitted, TextContent):
        rows = fitted.vectors.astype(np.float64)
    else:
        rows = DATA.features.text.toarray().astype(np.float64)  # type: ignore[union-attr]
    expected = 0.5 * rows[7] @ rows[TARGET].T + rows[2] @ rows[TARGET].T
    expected[1] -= 0.5 * rows[7] @ rows[7]
    np.testing.assert_allclose(fitted.score(Histories.of([[7, 2]]))[0], expected, atol=1e-5)
    assert fitted.score(Histories.of([[7]]))[0, 1] == pytest.approx(0, abs=1e-6)
    assert not fitted.score(Histories.of([[14]])).any()


def test_reading_methods_need_something_to_read() -> None:
    bare = replace(DATA, features=Features())
    for name in ("tfidf", "text", "fm"):
        with pytest.raises(InputError, match="needs item"):
            quick(name).fit(bare)
    for kind in (TfidfContent, TextContent):
        with pytest.raises(ArtefactError, match="lacks its item"):
            kind().restore({}, Features())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9))
def test_strongest_keeps_the_largest_sizes(seed: int, k: int) -> None:
    block = np.random.default_rng(seed).normal(size=(3, 7)).astype(np.float32)
    kept = strongest(block, k).toarray()
    for row, small in zip(block, kept, strict=True):
        cut = np.sort(np.abs(row))[-min(k, 7)]
        np.testing.assert_array_equal(small, np.where(np.abs(row) >= cut, row, 0))
