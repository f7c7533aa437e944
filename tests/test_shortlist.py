"""Lists of a large catalogue: what a shortlist finds is what scoring every item finds."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import lru_cache
from threading import Event

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.evaluate.ranks import top_k
from isthmus.index.ann import make_index
from isthmus.index.exact import Index
from isthmus.model.base import Features, TrainingData
from isthmus.model.blend import COHORTS, Blend
from isthmus.model.constraints import Constraints
from isthmus.recommender import nearest, parts, shortlist, sketches
from isthmus.recommender.serving import Scorer
from isthmus.recommender.shortlist import Shortlist, Wanted
from isthmus.recommender.vectors import VectorSketch
from isthmus.train.fit import Target
from isthmus.train.methods import make
from isthmus.types import Bools, Floats, Indices, Ints

N, ELSEWHERE = 1200, 100
VOICE = {"popularity": 0.0, "launch": 0.2, "knn": 0.0, "tfidf": 1.0, "text": 1.0, "ials": 0.0, "aligned": 0.5}
METHODS = ("popularity", "launch", "knn", "tfidf", "text", "ials", "aligned")


@lru_cache(maxsize=1)
def data() -> TrainingData:
    """Items of 20 themes; the first ones are of another domain, the last 60 nobody met."""
    rng = np.random.default_rng(5)
    theme = rng.integers(0, 20, N)
    texts = [" ".join(f"t{theme[n]}w{word}" for word in rng.integers(0, 12, 5)) for n in range(N)]
    encoder = TfidfEncoder.fit(texts)
    dense = np.eye(20, dtype=np.float32)[theme] + 0.3 * rng.standard_normal((N, 20)).astype(np.float32)
    near = [np.flatnonzero((theme == one) & (np.arange(N) < N - 60)) for one in range(20)]
    taken = [rng.choice(near[one], 9, replace=False).tolist() for one in rng.integers(0, 20, 400)]
    features = Features(encoder.transform(texts), dense)
    target = np.arange(ELSEWHERE, N, dtype=np.int32)
    return TrainingData(Histories.of(taken), target, N, 4000, features, dated=False)


@lru_cache(maxsize=8)
def fitted(names: tuple[str, ...] = METHODS) -> Target:
    known = data()
    methods = [make(name, {}).fit(known) for name in names]
    weights = dict(zip(COHORTS, np.random.default_rng(1).dirichlet(np.ones(len(names)), 3).tolist(), strict=True))
    table = {name: tuple(row) for name, row in weights.items()}
    return Target("books", known.target, known.popularity[known.target] == 0, methods, Blend(names, table))


def exact(target: Target, histories: Histories, wanted: Wanted) -> np.ndarray:
    scorer = Scorer(target)
    scores = scorer.score(histories)
    if wanted.met is not None:
        scorer.seen(wanted.met, scores)
    mask = None if wanted.sieve is None else wanted.sieve(scorer.items)
    if mask is not None:
        scores[:, ~mask] = -np.inf
    return scores


def recall(target: Target, short: Shortlist, histories: Histories, wanted: Wanted) -> float:
    """Return the share of the exact lists that the shortlist lists."""
    right = top_k(exact(target, histories, wanted), wanted.k)
    found = short.pick(histories, wanted)
    assert all(one is not None for one in found)
    hits = [np.isin(row[row >= 0], one.columns).mean() for row, one in zip(right, found, strict=True)]  # type: ignore[union-attr]
    return float(np.mean(hits))


def some(count: int = 40, seed: int = 0) -> Histories:
    return data().histories.take(np.random.default_rng(seed).choice(400, count, replace=False))


ITEMS = st.integers(0, N - 1)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(ITEMS, max_size=8), min_size=1, max_size=3),
    st.sets(ITEMS, max_size=N // 2),
    st.booleans(),
    st.sampled_from([METHODS, METHODS[:4], ("knn",), ("popularity",), ("text", "knn")]),
)
def test_all_candidates_are_the_exact_list(
    rows: list[list[int]], off: set[int], voice: bool, names: tuple[str, ...]
) -> None:
    target = fitted(names)
    if voice:
        spoken = tuple(np.linspace(0, 2, len(names)).tolist())
        target = replace(target, blend=replace(target.blend, voice=spoken, level=-0.7))

    def sieve(items: Indices) -> Bools:
        return ~np.isin(items, list(off))

    histories = Histories.of(rows)
    wanted = Wanted(12, histories, sieve)
    scores = exact(target, histories, wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortlist, "PROPOSED", N)
        patch.setattr(shortlist, "WHOLE", 2.0)
        found = Shortlist(target).pick(histories, wanted)
    for row, one in zip(scores, found, strict=True):
        assert one is not None
        right = row[top_k(row[None], 12)[0]]
        assert np.allclose(row[one.columns], right, atol=2e-4), "the same items, up to ties"
        assert np.allclose(one.scores, right, atol=2e-4)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Propose a tenth of the items, and look at few words: what a large catalogue has to live with."""
    monkeypatch.setattr(shortlist, "PROPOSED", 120)
    monkeypatch.setattr(sketches, "ENTRIES", 600)
    monkeypatch.setattr(parts, "FEW_NEW", 20)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("names", [METHODS, ("popularity", "knn", "tfidf"), ("popularity", "aligned", "text")])
def test_lists_hold_what_the_exact_ones_hold(names: tuple[str, ...]) -> None:
    target, histories = fitted(names), some()
    assert recall(target, Shortlist(target), histories, Wanted(10, histories)) >= 0.97


@pytest.mark.usefixtures("few")
def test_filters_and_a_tight_one_that_gives_up() -> None:
    target, histories = fitted(), some()
    short = Shortlist(target)
    for share in (2, 5):
        wanted = Wanted(10, histories, lambda items, share=share: items % share == 0)
        found = short.pick(histories, wanted)
        assert all(one is None or (target.items[one.columns] % share == 0).all() for one in found)
        assert share > 2 or recall(target, short, histories, wanted) >= 0.97
    assert short.pick(histories, Wanted(10, histories, lambda items: items == 500)) == [None] * 40


@pytest.mark.usefixtures("few")
def test_what_was_met_is_left_out_and_its_scores_are_those_of_the_blend() -> None:
    target, histories = fitted(), some()
    short = Shortlist(target)
    scores = exact(target, histories, Wanted(10))
    apart = []
    for place, one in enumerate(short.pick(histories, Wanted(10, histories))):
        assert one is not None
        mine = histories.items[histories.indptr[place] : histories.indptr[place + 1]]
        assert not np.isin(target.items[one.columns], mine).any()
        apart.append(np.abs(scores[place, one.columns] - one.scores).max())
    assert max(apart) < 0.2, "standard deviations; means and deviations are estimates"
    every = short.at(histories, np.arange(target.items.size))
    assert np.abs(every - scores).mean() < 0.02


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("names", [METHODS, ("text",)])
def test_new_items_join_and_are_found_by_their_text(names: tuple[str, ...]) -> None:
    known = data()
    whole = fitted(names)
    short = Shortlist(whole)
    assert known.features.text is not None
    assert known.features.vectors is not None
    like = np.array([300, 301, 302])
    features = Features(
        _stacked(known.features.text, like),
        np.concatenate([known.features.vectors, known.features.vectors[like]]),
    )
    items = np.concatenate([known.target, N + np.arange(3)]).astype(np.int32)
    methods = [method.extended(features, items, N + 3) for method in whole.methods]
    longer = replace(
        whole,
        items=items,
        new=np.concatenate([whole.new, np.ones(3, bool)]),
        methods=methods,
        blend=replace(whole.blend, voice=tuple(VOICE[name] for name in names), level=1.0),
    )
    fresh = Shortlist(longer, short)
    assert recall(longer, fresh, some(), Wanted(10, some())) >= 0.97
    reader = Histories.of([[300, 301]])
    found = fresh.pick(reader, Wanted(10, reader))[0]
    assert found is not None
    assert set(found.columns[:3].tolist()) & {items.size - 3, items.size - 2}, "a copy of what was read"
    again = short.pick(reader, Wanted(10, reader))[0]
    assert again is not None
    assert again.columns.max() < known.target.size, "the list of the model before knows nothing of them"


def test_vectors_are_scanned_until_the_graph_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Event()

    def later(keys: Ints, found: Floats, floor: float) -> Index:
        begin.wait(20)
        return make_index(keys, found, large=0, floor=floor)

    monkeypatch.setattr(nearest, "make_index", later)
    monkeypatch.setattr(nearest, "LARGE", 1000)
    monkeypatch.setattr(shortlist, "PROPOSED", 120)
    target, histories = fitted(("text", "ials", "popularity")), some()
    short = Shortlist(target)
    for step in range(2):
        assert recall(target, short, histories, Wanted(10, histories)) >= 0.97, step
        begin.set()
        waited = [sketch.near for sketch in short._sketches if isinstance(sketch, VectorSketch)]
        assert len(waited) == 2
        until = time.monotonic() + 20
        while not all(one.ready for one in waited) and time.monotonic() < until:
            time.sleep(0.01)
        assert all(one.ready for one in waited)


def test_declared_rules_hold() -> None:
    target = fitted()
    names = pl.DataFrame({"platform": "shop", "item": [str(n) for n in range(N)]})
    reader = data().histories.take(np.array([3]))
    best = Shortlist(target).pick(reader, Wanted(5, reader))[0]
    assert best is not None
    listed, head = target.items[best.columns], int(reader.items[0])
    rows = [("excludes", f"shop:{head}", f"shop:{listed[0]}"), ("not before", f"shop:{listed[1]}", "shop:7")]
    rows += [("after", f"shop:{head}", "shop:1100")]
    table = pl.DataFrame(rows, schema=["rule", "head", "tail"], orient="row").with_columns(weight=pl.lit(50.0))
    rules = Constraints.of(table, names)
    ruled = replace(target, blend=replace(target.blend, constraints=rules))
    found = Shortlist(ruled).pick(reader, Wanted(5, reader))[0]
    assert found is not None
    right = top_k(exact(ruled, reader, Wanted(5, reader)), 5)[0]
    assert found.columns.tolist() == right.tolist()
    assert target.items[found.columns].tolist()[0] == 1100
    assert not set(target.items[found.columns]) & set(listed[:2])


def _stacked(text: sparse.csr_array, rows: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(sparse.vstack([text, text[rows]]))


def test_with_nothing_to_go_by_the_list_is_still_whole() -> None:
    target = fitted(("knn",))
    nobody = Histories.of([[]])
    found = Shortlist(target).pick(nobody, Wanted(10))[0]
    assert found is not None
    assert found.columns.tolist() == top_k(exact(target, nobody, Wanted(10)), 10)[0].tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(0, 20))
def test_a_part_that_is_the_same_for_everybody_grows_to_what_it_is_made_anew(seed: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=30 + more).astype(np.float32)
    new = np.arange(values.size) >= 25
    items = np.arange(values.size, dtype=np.int32)
    first = parts.Columns.of(items[:30], new[:30])
    whole = parts.Columns.of(items, new, first.sample)
    anew = parts.Fixed(values, whole)
    longer = parts.Fixed(values, whole, parts.Fixed(values[:30], first))
    assert (longer.spread.mean, longer.spread.deviation) == pytest.approx((anew.spread.mean, anew.spread.deviation))
    assert longer.propose(5).tolist() == anew.propose(5).tolist()
