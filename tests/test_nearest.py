"""The nearest items while the catalogue changes: what is off the lists takes no place, and a graph keeps its recall."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest

from isthmus.data.sequences import Histories
from isthmus.index.ann import ApproximateIndex, make_index
from isthmus.recommender import nearest
from isthmus.recommender.nearest import Indexed
from isthmus.recommender.parts import Columns
from isthmus.recommender.vectors import Vectors, VectorSketch
from isthmus.types import Floats, Ints

pytest.importorskip("usearch")

THEMES, EACH, DIM = 40, 150, 48
N = THEMES * EACH


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make graphs of thousands of items, and ask them for as small a share as of a million."""
    monkeypatch.setattr(nearest, "LARGE", 1000)
    monkeypatch.setattr(nearest, "make_index", partial(make_index, large=0))
    monkeypatch.setattr(nearest, "ASKED", 40)


def texts(count: int = N, seed: int = 0) -> Floats:
    """Return unit vectors in tight themes, one theme after the other, as encoders of short texts give them."""
    rng = np.random.default_rng(seed)
    themes = np.random.default_rng(9).normal(size=(THEMES, DIM))
    made = themes[np.arange(count) * THEMES // count] + 0.5 * rng.normal(size=(count, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def sketch(table: Floats, before: VectorSketch | None = None, off: Ints | None = None) -> VectorSketch:
    def asks(histories: Histories) -> Floats:
        return table[histories.items[histories.indptr[1:] - 1]]

    items = np.arange(len(table), dtype=np.int32)
    sample = None if before is None else before.columns.sample
    columns = Columns.of(items, np.zeros(len(table), dtype=bool), sample, off)
    return VectorSketch(Vectors(table, asks), columns, before)


def settled(near: Indexed) -> Indexed:
    """Wait until nothing is done beside."""
    until = time.monotonic() + 60
    while near._busy and time.monotonic() < until:
        time.sleep(0.01)
    assert not near._busy
    return near


def reached(made: VectorSketch, table: Floats, off: Ints, asked: Ints, count: int = 40) -> float:
    """Return the share of the ten nearest items on the lists that is proposed."""
    hits = []
    for one in asked.tolist():
        scores = table @ table[one]
        scores[off] = -np.inf
        proposed = made.parts(Histories.of([[one]]))[0].propose(count)
        assert not np.isin(proposed, off).any(), "nothing that is off the lists"
        hits.append(np.isin(np.argsort(-scores)[:10], proposed).mean())
    return float(np.mean(hits))


def test_a_fifth_goes_and_as_many_come_and_what_is_proposed_is_still_right() -> None:
    table = texts()
    made = sketch(table)
    gone = np.arange(N // 5)  # whole themes: all that is near to what their readers met
    asked = np.random.default_rng(1).choice(N, 60, replace=False)
    settled(made.near)
    graph = made.near._made
    assert graph is not None
    assert reached(made, table, np.zeros(0, np.int64), asked) >= 0.97
    plain = graph.indices[0].search(table[gone[::20]], 40)[0]
    assert np.isin(plain, gone).mean() > 0.9, "of what a graph finds for their readers hardly anything may be listed"
    for some in np.array_split(gone, 4):
        made.show(some, shown=False)
        now = np.arange(some[-1] + 1)
        assert reached(made, table, now, now[::20]) >= 0.97, "before anything is made anew"
        settled(made.near)
    assert made.near._made is not graph, "what went is in no graph any more"
    held = sum(len(index) for index in made.near._made.indices)  # type: ignore[union-attr]
    assert N - gone.size <= held <= N - gone.size + nearest.GROWN * N
    assert made.near.recall is not None
    assert 0.97 <= made.near.recall <= 1.0
    came = np.concatenate([table, texts(N // 5, seed=3)])
    for size in range(N + 300, len(came) + 1, 300):
        made = sketch(came[:size], made, gone)
        assert reached(made, came[:size], gone, asked) >= 0.97, "while the graph is made, too"
        settled(made.near)
    late = np.arange(N, len(came), 20)
    assert reached(made, came, gone, np.concatenate([asked, late, gone[::40]])) >= 0.97


def test_a_graph_below_the_floor_is_not_used_until_it_is_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    table, nothing = texts(), np.zeros(0, np.int64)
    made = sketch(table)
    graph = settled(made.near)._made
    assert graph is not None
    (index,) = graph.indices
    assert isinstance(index, ApproximateIndex)
    index._graph.remove(np.arange(0, N, 2))
    asked = np.arange(5, N, 100)
    assert reached(made, table, nothing, asked) < 0.7, "the graph is broken indeed"
    few = np.arange(N - 250, N)
    made.show(few, shown=False)
    assert made.near.recall is not None
    assert made.near.recall >= 0.97, "too little went to look"
    more = np.arange(N - 310, N - 250)
    with caplog.at_level("WARNING", logger="isthmus"):
        made.show(more, shown=False)
        settled(made.near)
    assert "vectors are scanned until it is made anew" in caplog.text
    assert made.near._made not in (graph, None)
    assert made.near.recall >= 0.97
    assert reached(made, table, np.arange(N - 310, N), asked) >= 0.97


def test_a_graph_that_cannot_reach_the_floor_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "FLOOR", 1.01)
    table = texts()
    made = sketch(table)
    assert not settled(made.near).ready
    assert reached(made, table, np.zeros(0, np.int64), np.arange(0, N, 100)) == 1.0, "all are scanned"


def test_what_comes_back_is_found_though_it_is_in_no_graph() -> None:
    table = texts()
    off = np.arange(EACH)
    made = sketch(table, off=off)
    assert sum(len(index) for index in settled(made.near)._made.indices) == N - EACH  # type: ignore[union-attr]
    back, still = off[:100], off[100:]
    for one in back.tolist():
        made.show(np.array([one]), shown=True)
    assert reached(made, table, still, back[::7]) >= 0.97
    made.show(back[:50], shown=False)
    assert reached(made, table, np.concatenate([back[:50], still]), back[::7]) >= 0.97
    made.show(np.arange(EACH), shown=True)
    made.show(np.arange(EACH, 8 * EACH), shown=False)
    assert sum(len(index) for index in settled(made.near)._made.indices) == N - 7 * EACH  # type: ignore[union-attr]
    assert not made.near._back
    assert reached(made, table, np.arange(EACH, 8 * EACH), off[::7]) >= 0.97
