"""Indexes: exact equals brute force, approximate keeps its recall, both on disk whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import ArtefactError, DataError, InputError
from isthmus.index import ann, exact
from isthmus.index.ann import ApproximateIndex, make_index
from isthmus.index.exact import ExactIndex, Index, allow, unseen
from isthmus.testing import check_index

pytest.importorskip("usearch")


@pytest.mark.parametrize("kind", [ExactIndex, ApproximateIndex])
def test_every_index_keeps_the_contract(kind: type[ExactIndex]) -> None:
    check_index(kind, recall=1.0 if kind is ExactIndex else 0.9)


class Forgets(ExactIndex):
    def delete(self, keys: np.ndarray) -> None:
        super().delete(keys[:-1])


def test_the_contract_finds_a_broken_promise() -> None:
    with pytest.raises(AssertionError, match="len counts"):
        check_index(Forgets)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(1, 12), st.integers(0, 99))
def test_exact_equals_brute_force_in_any_block_size(count: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (count, 3)).astype(np.float32)
    keys, queries = rng.permutation(50)[:count], rng.integers(-2, 3, (4, 3)).astype(np.float32)
    flags = rng.random(45) < 0.6
    index = ExactIndex(3)
    index.add(keys, vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_AT_ONCE", 7)
        found, scores = index.search(queries, k, flags)
    for row, query in enumerate(queries):
        here = sorted(
            (-float(v @ query), int(key)) for key, v in zip(keys, vectors, strict=True) if key < 45 and flags[key]
        )
        right = [key for _, key in here[:k]]
        assert found[row].tolist() == right + [-1] * (k - len(right))
        assert scores[row, : len(right)].tolist() == [-score for score, _ in here[:k]]


def big(count: int = 3000, dim: int = 16) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.random.default_rng(1).normal(size=(count, dim)).astype(np.float32)
    return np.arange(count), vectors


def test_recall_is_kept_after_churn_and_under_filters() -> None:
    keys, vectors = big()
    index = ApproximateIndex(16)
    index.add(keys, vectors)
    right = ExactIndex(16)
    right.add(keys, vectors)
    for one in (index, right):
        one.delete(keys[::3])
        one.add(keys[::6], -vectors[::6])
    queries = vectors[:50]
    for flags in (None, keys % 2 == 0, keys < 100):
        found, best = index.search(queries, 10, flags)[0], right.search(queries, 10, flags)[0]
        assert np.mean([np.isin(a, b).mean() for a, b in zip(best, found, strict=True)]) >= 0.97
    assert 0.97 <= index.recall() <= 1.0


def test_a_graph_that_lost_its_recall_is_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, vectors = big(600)
    index = ApproximateIndex(16)
    index.add(keys, vectors)
    broken = index._graph
    broken.remove(keys[:500])  # type: ignore[arg-type]
    assert index.recall() < 0.5
    index.add(keys[:1] + 600, vectors[:1])
    assert index._graph is broken, "too little came and went to look"
    index.add(keys[1:200] + 600, vectors[1:200])
    assert index._graph is not broken
    assert index.recall() >= 0.97


def test_a_graph_that_cannot_keep_its_recall_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, vectors = np.arange(20_000), np.random.default_rng(1).normal(size=(20_000, 96)).astype(np.float32)
    for name in ("EDGES", "BUILD", "SEARCH"):
        monkeypatch.setattr(ann, name, 2)
    right = ExactIndex(96)
    right.add(keys, vectors)
    best = right.search(vectors[:40], 10)[0]
    for floor, exactly in ((ann.FLOOR, True), (0.0, False)):
        index = ApproximateIndex(96, floor=floor)
        index.add(keys, vectors)
        assert index.recall() < 0.9
        assert np.array_equal(index.search(vectors[:40], 10)[0], best) == exactly


def test_items_that_are_alike_do_not_count_as_missed() -> None:
    index = ApproximateIndex(4)
    index.add(np.arange(500), np.repeat(np.eye(4, dtype=np.float32), 125, axis=0))
    assert index.recall() == 1.0


def test_the_size_of_the_catalogue_chooses() -> None:
    keys, vectors = big(50)
    assert isinstance(make_index(keys, vectors), ExactIndex)
    assert isinstance(make_index(keys, vectors, large=50), ApproximateIndex)
    with pytest.raises(DataError, match="one row an item"):
        make_index(keys, vectors[0])


@pytest.mark.parametrize("kind", [ExactIndex, ApproximateIndex])
def test_saved_and_opened_finds_the_same(kind: type[ExactIndex], tmp_path: Path) -> None:
    keys, vectors = big(200)
    index = kind(16)
    index.add(keys, vectors)
    index.save(tmp_path / "index")
    opened = kind.open(tmp_path / "index")
    np.testing.assert_array_equal(opened.search(vectors[:5], 7)[0], index.search(vectors[:5], 7)[0])
    file = tmp_path / "index" / exact.VECTORS
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match="was changed"):
        kind.open(tmp_path / "index")
    with pytest.raises(ArtefactError, match="is not a index"):
        kind.open(tmp_path / "nothing")


def test_filters() -> None:
    assert allow(4).all()
    assert allow(4, rows=np.array([3]), available=np.array([True, True, True, False])).sum() == 0
    keys, scores = np.array([[5, 2, 9], [1, 2, -1]]), np.array([[3, 2, 1], [3, 2, -np.inf]], np.float32)
    found, left = unseen(keys, scores, [np.array([2]), np.array([1, 2])], 2)
    assert found.tolist() == [[5, 9], [-1, -1]]
    assert left.tolist() == [[3, 1], [-np.inf, -np.inf]]


@pytest.mark.parametrize(
    ("keys", "vectors", "message"),
    [
        ([1], [[1.0, np.nan]], "not finite"),
        ([1, 1], [[1.0, 0.0], [0.0, 1.0]], "given twice"),
        ([-4], [[1.0, 0.0]], "negative"),
        ([1], [[1.0]], "do not fit"),
    ],
)
def test_wrong_items_are_refused(keys: list[int], vectors: list[list[float]], message: str) -> None:
    index: Index
    for index in (ExactIndex(2), ApproximateIndex(2)):
        with pytest.raises(DataError, match=message):
            index.add(np.array(keys), np.array(vectors, np.float32))
        with pytest.raises(DataError, match="k = 0"):
            index.search(np.zeros((1, 2), np.float32), 0)
    with pytest.raises(InputError, match="recall floor"):
        ApproximateIndex(2, floor=2.0)


def test_without_the_library_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(ann, "import_module", lost)
    with pytest.raises(InputError, match="usearch is not installed"):
        ApproximateIndex(2)
