"""Contracts as checks: a method, an encoder or a system of your own passes, or is told which promise it breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.encode.base import Encoder
from isthmus.errors import DataError, InputError
from isthmus.evaluate.protocol import RankingSystem
from isthmus.index.exact import Index
from isthmus.model.base import Features, Method, Settings, TrainingData
from isthmus.split.task import Task
from isthmus.types import Floats

#: What makes a method from its settings: usually the class itself.
MethodMaker: TypeAlias = Callable[[Settings], Method]

_CLOSE = 1e-4


def check_method(make: MethodMaker, data: TrainingData, *, seed: int = 0) -> None:
    """Check that a method keeps every promise of :class:`isthmus.model.base.Method`.

    Scores are float32 (B, T) and finite, also for an empty history; they depend on the history alone; the same seed
    gives the same method; state and restore give the same scores; a longer corpus leaves old scores alone, and an
    inductive method scores a new item by its text; settings in ``reading`` need no fit; an unknown setting is refused.

    Parameters
    ----------
    make : callable
        Called with settings, returns a method that is not fitted.
    data : TrainingData
        What it is fitted on: at least two persons with training events.
    seed : int
        Seed of the fits.

    Raises
    ------
    AssertionError
        Says which promise is broken.

    Examples
    --------
    >>> from isthmus.model.popularity import Popularity
    >>> data = TrainingData(Histories.of([[0, 1], [1, 2]]), np.arange(3, dtype=np.int32), n_items=3, now=3)
    >>> check_method(Popularity, data)
    """
    method = make({})
    _require(method.fit(data, seed=seed) is method, "fit returns the method")
    asked = _asked(data)
    scores = method.score(asked)
    _check_scores(scores, (len(asked), data.target.size))
    _require(np.isfinite(scores).all(), "scores are finite")
    _check_one_by_one(method.score, _asked(data))
    _require(_same(make({}).fit(data, seed=seed).score(asked), scores), "the same seed gives the same scores")
    _check_state(make, method, data, asked)
    _check_extended(method, data, asked)
    _check_reading(make, data, seed, asked)
    try:
        make({"no such setting": 1})
    except InputError as error:
        _require("no such setting" in str(error), "the error names the unknown setting")
    else:
        raise AssertionError("an unknown setting is an InputError")


def check_encoder(encoder: Encoder, items: pl.DataFrame) -> None:
    """Check that an encoder keeps every promise of :class:`isthmus.encode.base.Encoder`.

    Parameters
    ----------
    encoder : Encoder
        What is checked.
    items : polars.DataFrame
        An items table of at least two rows, all with something to encode.

    Raises
    ------
    AssertionError
        Says which promise is broken.

    Examples
    --------
    >>> class Length:
    ...     fingerprint, dim = "length-1", 1
    ...     def encode(self, items):
    ...         return items.select(pl.col("title").fill_null("").str.len_chars()).to_numpy().astype("float32")
    >>> check_encoder(Length(), pl.DataFrame({"platform": ["a", "a"], "item": ["1", "2"], "title": ["tea", "绿茶"]}))
    """
    vectors = encoder.encode(items)
    _require(vectors.shape == (items.height, encoder.dim), f"vectors have the shape (N, {encoder.dim})")
    _require(vectors.dtype == np.float32, "vectors are float32")
    _require(np.isfinite(vectors).all(), "vectors are finite")
    _require(bool(np.abs(vectors).sum(axis=1).all()), "an item with a text has a vector")
    _require(bool(encoder.fingerprint), "the fingerprint is not empty")
    backwards = encoder.encode(items.reverse())[::-1]
    _require(_near(backwards, vectors, 0.02), "a vector depends on its own item only")
    keys = ("platform", "item", "domain")
    bare = items.select(
        column if column in keys else pl.lit(None, kind).alias(column) for column, kind in items.schema.items()
    )
    _require(not encoder.encode(bare).any(), "an item with nothing to encode has a vector of zeros")
    _require(encoder.encode(items.clear()).shape == (0, encoder.dim), "no items give no vectors")


def check_system(system: RankingSystem, task: Task) -> None:
    """Check that a system can be judged: a name, scores (B, T) that are numbers, each row of its own history.

    Raises
    ------
    AssertionError
        Says which promise is broken.

    Examples
    --------
    >>> class Popular:
    ...     name = "popular"
    ...     def score(self, histories):
    ...         return np.tile(np.float32([3, 1, 0]), (len(histories), 1))
    >>> task = Task(
    ...     domain="books", part="test", items=np.array([4, 7, 9], np.int32), persons=np.array([0, 5]),
    ...     histories=Histories.of([[4, 1], [2]]), target_indptr=np.array([0, 1, 2]),
    ...     targets=np.array([1, 1], np.int32), popularity=np.array([3, 1, 0]), train_persons=4, exclude_seen=True,
    ... )
    >>> check_system(Popular(), task)
    """
    _require(bool(system.name), "the system has a name")
    asked = task.histories.take(np.arange(min(len(task), 8)))
    scores = system.score(asked)
    _check_scores(scores, (len(asked), task.items.size))
    _require(not np.isnan(scores).any() and not np.isposinf(scores).any(), "scores are numbers, or -inf")
    _check_one_by_one(system.score, asked)


def check_index(make: Callable[[int], Index], *, recall: float = 0.9, seed: int = 0) -> None:
    """Check that an index keeps every promise of :class:`isthmus.index.exact.Index`, also after items came and went.

    Parameters
    ----------
    make : callable
        Called with a dimension, returns an empty index.
    recall : float
        Share of the exact best ten that has to be found.
    seed : int
        Seed of the vectors.

    Raises
    ------
    AssertionError
        Says which promise is broken.

    Examples
    --------
    >>> from isthmus.index.exact import ExactIndex
    >>> check_index(ExactIndex, recall=1.0)
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(400, 8)).astype(np.float32)
    keys, queries = np.arange(400) * 3, rng.normal(size=(5, 8)).astype(np.float32)
    index = make(8)
    found, scores = index.search(queries, 2)
    _require((found == -1).all() and np.isneginf(scores).all(), "an empty index finds nothing")
    index.add(keys[:300], vectors[:300])
    index.delete(keys[:100])
    index.add(keys[300:], vectors[300:])
    left = np.arange(100, 400)
    _require(len(index) == left.size, "len counts what is there")
    _check_found(index, queries, (keys[left], vectors[left]), recall)
    allowed = np.zeros(1200, dtype=bool)
    allowed[keys[left[::2]]] = True
    _check_found(index, queries, (keys[left[::2]], vectors[left[::2]]), recall, allowed)
    index.delete(keys[[150]])
    index.add(keys[[150]], 100 * queries[:1])
    _require(index.search(queries[:1], 1)[0][0, 0] == keys[150], "a key that comes back has its new vector")
    known, unknown = keys[[200]], np.array([1], dtype=keys.dtype)
    wrong: list[Callable[[], object]] = [
        lambda: index.add(known, vectors[[200]]),
        lambda: index.delete(unknown),
    ]
    for attempt in wrong:
        try:
            attempt()
        except DataError:
            continue
        raise AssertionError("broken promise: a known key to add, an unknown one to delete is a DataError")


def _check_found(
    index: Index, queries: Floats, there: tuple[np.ndarray, Floats], recall: float, allowed: np.ndarray | None = None
) -> None:
    keys, vectors = there
    found, scores = index.search(queries, 10, allowed)
    exact = queries @ vectors.T
    best = keys[np.argsort(-exact, axis=1)[:, :10]]
    _require(found.shape == scores.shape == (len(queries), 10), "a search gives (B, k)")
    _require(np.isin(found, keys).all(), "only items that are there and allowed are found")
    _require((np.diff(scores, axis=1) <= 0).all(), "the best come first")
    own = np.take_along_axis(exact, np.searchsorted(keys, found), axis=1)
    _require(_near(scores, own, 1e-3), "scores are inner products")
    hits = np.mean([np.isin(right, mine).mean() for right, mine in zip(best, found, strict=True)])
    _require(hits >= recall, f"recall {hits:.2f} reaches {recall:.2f}")


def _require(holds: object, rule: str) -> None:
    if not holds:
        raise AssertionError(f"broken promise: {rule}")


def _near(some: Floats, other: Floats, share: float = _CLOSE) -> bool:
    """Return whether two arrays are equal up to ``share`` of their size; minus infinity equals itself."""
    if some.shape != other.shape:
        return False
    finite = np.isfinite(other)
    size = float(np.abs(other[finite]).max(initial=1.0))
    return bool((np.isfinite(some) == finite).all() and np.allclose(some[finite], other[finite], atol=share * size))


def _same(some: Floats, other: Floats) -> bool:
    return bool(np.array_equal(some, other))


def _asked(data: TrainingData) -> Histories:
    """Return histories to ask about: an empty one, each single item of the first ones, and some of training."""
    known = data.histories.take(np.arange(min(len(data.histories), 6)))
    rows = [known.items[known.indptr[row] : known.indptr[row + 1]].tolist() for row in range(len(known))]
    alone = [[item] for item in dict.fromkeys(known.items.tolist()[:4])]
    twice = [row + row[:1] for row in rows[:1]]
    return Histories.of([[], *alone, *twice, *rows])


def _check_scores(scores: Floats, shape: tuple[int, int]) -> None:
    _require(isinstance(scores, np.ndarray) and scores.shape == shape, f"scores have the shape (B, T) = {shape}")
    _require(scores.dtype == np.float32, "scores are float32")


def _check_one_by_one(score: Callable[[Histories], Floats], asked: Histories) -> None:
    """Check that histories do not influence each other and are not changed."""
    before = np.stack([asked.items, asked.weights, asked.ts])
    scores = score(asked)
    after = np.stack([asked.items, asked.weights, asked.ts])
    _require(np.array_equal(before, after), "score leaves the histories alone")
    alone = np.concatenate([score(asked.take(np.array([row]))) for row in range(len(asked))])
    _require(_near(alone, scores), "the scores of a history depend on nothing else")
    _require(score(asked.take(np.zeros(0, np.int64))).shape == (0, scores.shape[1]), "no histories give no scores")


def _check_state(make: MethodMaker, method: Method, data: TrainingData, asked: Histories) -> None:
    state = method.state()
    arrays = all(isinstance(array, np.ndarray) and array.dtype.kind in "fiub" for array in state.values())
    _require(arrays, "the state is made of plain arrays")
    copy = make(method.settings)
    copy.target, copy.n_items = data.target, data.n_items
    copy.restore(state, data.features)
    _require(_near(copy.score(asked), method.score(asked), 1e-6), "state and restore give the same scores")


def _check_extended(method: Method, data: TrainingData, asked: Histories) -> None:
    """Add an item with the text of the first target that has one, and an item without text."""
    before = method.score(asked)
    original = _readable(data)
    longer = method.extended(_longer(data, original), *_grown(data))
    after = longer.score(asked)
    _check_scores(after, (len(asked), data.target.size + 2))
    _require(_near(after[:, :-2], before), "a longer corpus leaves old scores alone")
    _require(_near(method.score(asked), before, 0.0), "the shorter method stays as it was")
    _require(np.isfinite(after).all(), "scores of new items are finite")
    with_new = Histories.of([[data.n_items], [data.n_items, int(data.target[0])]])
    _require(np.isfinite(longer.score(with_new)).all(), "a new item may be in a history")
    if method.inductive:
        unread = ~np.isin(asked.items, original)
        others = np.bincount(asked.rows[~unread], minlength=len(asked)) == 0
        place = int(np.searchsorted(data.target, original))
        _require(_near(after[others, -2], after[others, place]), "a new item is scored as an old one of the same text")
    else:
        _require(np.ptp(after[:, -2:], axis=0).max() <= _CLOSE, "an unread new item is the same for everybody")


def _readable(data: TrainingData) -> int:
    """Return a target item with a text and a vector and without events, as far as there is one."""
    says = 1.0 + (data.popularity[data.target] == 0)
    if data.features.text is not None:
        says *= np.diff(data.features.text.indptr)[data.target] > 0
    if data.features.vectors is not None:
        says *= np.any(data.features.vectors[data.target] != 0, axis=1)
    return int(data.target[np.argmax(says)])


def _longer(data: TrainingData, original: int) -> Features:
    text, vectors, texts = data.features.text, data.features.vectors, data.features.texts
    if text is not None:
        text = sparse.csr_array(
            sparse.vstack([text, text[[original]], sparse.csr_array((1, text.shape[1]))], format="csr")
        )
        text = text.astype(np.float32)
    if vectors is not None:
        vectors = np.concatenate([vectors, vectors[[original]], np.zeros_like(vectors[:1])])
    if texts is not None:
        texts = (*texts, texts[original], "")
    places = data.features.places
    if places is not None:
        rows = np.append(np.arange(data.n_items), [original, original])
        places = replace(places, domain=places.domain[rows], platform=places.platform[rows])
    graph, more = data.features.graph, data.features.more
    if graph is not None:
        again = graph.take(np.array([original], np.int32))
        graph = graph + again + replace(again.take(np.zeros(0, np.int32)), n_items=1)
    more = {name: np.concatenate([rows, rows[[original]], np.zeros_like(rows[:1])]) for name, rows in more.items()}
    return replace(data.features, text=text, vectors=vectors, texts=texts, places=places, graph=graph, more=more)


def _grown(data: TrainingData) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], int]:
    new = np.array([data.n_items, data.n_items + 1], np.int32)
    return np.concatenate([data.target, new]), data.n_items + 2


def _check_reading(make: MethodMaker, data: TrainingData, seed: int, asked: Histories) -> None:
    """Check that taking over what was learned equals learning again, for each setting said to allow it."""
    fitted = make({}).fit(data, seed=seed)
    for setting in fitted.reading:
        for value in fitted.grid.get(setting, ()):
            rival = make({setting: value})
            rival.take_over(fitted)
            again = make({setting: value}).fit(data, seed=seed)
            _require(
                _near(rival.score(asked), again.score(asked)), f"setting {setting} only changes how a history is read"
            )
