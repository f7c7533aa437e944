"""Fitting: settings and weights come from validation only, within the time given."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from scipy import sparse
from tests.small import Event, corpus

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world
from isthmus.encode.template import Template
from isthmus.errors import InputError
from isthmus.evaluate.protocol import judge
from isthmus.model import collaborative
from isthmus.model.base import Features, Setting, Settings, TrainingData
from isthmus.model.blend import COHORTS, Blend
from isthmus.model.collaborative import Ease
from isthmus.model.content import TfidfContent
from isthmus.model.popularity import Popularity
from isthmus.recommender.readers import vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, TRAIN, VALID, Split
from isthmus.train import tune
from isthmus.train.fit import FitSettings, Fitting, Target, fit_target, task_names, training_data
from isthmus.train.methods import GROUND, METHODS, make
from isthmus.train.tune import Search, validate

QUICK = FitSettings(methods=("popularity", "recent", "knn", "tfidf", "ease"), budget=30.0, seed=1)


@pytest.fixture(scope="module")
def split() -> Split:
    world = twin_world(2, replace(WORLD, persons=120, items=60))
    return Split.make(Corpus.from_tables(world.tables, name="twin"), valid_share=0.15, test_share=0.15)


@pytest.fixture(scope="module")
def features(split: Split) -> Features:
    return Features(vocabulary(split).transform(Template().render(split.corpus.items).to_list()))


@pytest.fixture(scope="module")
def target(split: Split, features: Features) -> Target:
    return fit_target(split, "target", features, QUICK)


def same(one: Target, other: Target) -> bool:
    histories = Histories.of([[], [0, 1, 70], [65]])
    scores = [t.blend.score(t.methods, histories, t.new) for t in (one, other)]
    return one.blend == other.blend and one.valid == other.valid and bool(np.array_equal(*scores))


def with_test(split: Split, change: pl.Expr) -> Split:
    """Return the split with the items of its test events changed."""
    item = pl.when(pl.col("part") == TEST).then(change).otherwise("item").cast(pl.UInt32)
    return Split(split.corpus, split.events.with_columns(item=item), split.card)


def test_what_is_in_test_changes_nothing(split: Split, features: Features, target: Target) -> None:
    shuffled = with_test(split, pl.col("item").max() - pl.col("item"))
    assert not shuffled.events.equals(split.events)
    assert same(fit_target(shuffled, "target", features, QUICK), target)
    without = Split(split.corpus, split.events.filter(pl.col("part") != TEST), split.card)
    assert same(fit_target(without, "target", features, QUICK), target)


def test_what_is_in_valid_and_train_does(split: Split, features: Features, target: Target) -> None:
    for part in (TRAIN, VALID):
        item = pl.when(pl.col("part") == part).then(pl.col("item").reverse()).otherwise("item")
        changed = Split(split.corpus, split.events.with_columns(item=item), split.card)
        assert not same(fit_target(changed, "target", features, QUICK), target)


def test_fitting_is_repeatable(split: Split, features: Features, target: Target) -> None:
    assert same(fit_target(split, "target", features, QUICK), target)


def test_refit_learns_from_valid_too(split: Split, features: Features, target: Target) -> None:
    before = fit_target(split, "target", features, replace(QUICK, refit=False))
    assert before.blend == target.blend
    assert before.new.sum() >= target.new.sum()
    assert not same(before, target)
    popularity = METHODS["popularity"]().fit(training_data(split, TEST, "target", features))
    np.testing.assert_array_equal(popularity.score(Histories.of([[]])), target.methods[0].score(Histories.of([[]])))


def test_training_data_is_what_came_before(split: Split, features: Features) -> None:
    learned = split.events.filter(part=TRAIN)
    data = training_data(split, VALID, "target", features)
    assert data.histories.items.size == learned.height
    assert len(data.histories) == learned["person"].n_unique()
    assert data.now == learned["ts"].to_physical().max()
    assert data.target.tolist() == np.flatnonzero((split.corpus.items["domain"] == "target").to_numpy()).tolist()
    assert training_data(split, TEST, "target", features).histories.items.size == split.known(TEST).height
    popularity = dict(learned.group_by("item").agg(pl.col("person").n_unique()).iter_rows())
    assert data.popularity.tolist() == [popularity.get(item, 0) for item in range(data.n_items)]


def test_without_sources_only_the_target_teaches(split: Split, features: Features) -> None:
    data = training_data(split, VALID, "target", features)
    kept = data.learn_from(False)
    assert data.in_target[kept.items].all()
    assert kept.items.size == data.in_target[data.histories.items].sum()
    assert (kept.lengths > 0).all()
    assert data.learn_from(True).items.size == data.histories.items.size


def test_the_log_holds_every_trial_and_the_best_was_taken(split: Split, target: Target) -> None:
    assert {trial["method"] for trial in target.log} == {method.name for method in target.methods}
    for method in target.methods:
        trials = [trial for trial in target.log if trial["method"] == method.name]
        alike = [trial for trial in trials if trial["settings"].get("sources") == method.settings.get("sources")]  # type: ignore[attr-defined]
        best = max(alike, key=lambda trial: trial["ndcg@10"])  # type: ignore[return-value,arg-type]
        assert best["ndcg@10"] == pytest.approx(target.valid[method.name], abs=1e-6)
        apart = {"sources": False} if "sources" in METHODS[method.name].grid else {}
        assert trials[0]["settings"] == {**METHODS[method.name].defaults, **apart}
        assert method.settings in [trial["settings"] for trial in trials]


def test_validate_equals_the_judge(split: Split, features: Features, target: Target) -> None:
    task = build_task(split, TEST, "target")
    for method in target.methods[:3]:
        assert validate(method, task) == pytest.approx(judge(method, task).mean("ndcg@10"), abs=1e-6)


class Slow(Popularity):
    """Popularity that takes its time and knows how often it was fitted."""

    name = "slow"
    defaults: ClassVar[Settings] = {"a": 0, "b": 0, "half_life": 0.0}
    grid: ClassVar[Mapping[str, tuple[Setting, ...]]] = {"a": (0, 1, 2), "b": (0, 1, 2)}
    reading = ("b",)
    fits = 0
    pause = 0.05

    def _fit(self, data: TrainingData, seed: int) -> None:
        Slow.fits += 1
        time.sleep(self.pause)
        super()._fit(data, seed)
        if self.settings["a"] == 2:
            self.scores = -self.scores


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    monkeypatch.setitem(METHODS, "slow", Slow)
    Slow.fits = 0
    return Slow


@pytest.fixture(scope="module")
def search(split: Split, features: Features) -> Search:
    task = build_task(split, VALID, "target")
    return Search(training_data(split, VALID, "target", features), task, seed=0, deadline=0.0)


def test_search_tries_one_setting_after_the_other(
    search: Search, slow: type[Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {0: 0.1, 1: 0.3, 2: 0.2}
    monkeypatch.setattr(
        tune,
        "validate_each",
        lambda method, task: np.full(9, value[method.settings["a"]] + value[method.settings["b"]] / 10),
    )
    run = replace(search, deadline=time.monotonic() + 60, log=[])
    best = run.finish(run.begin("slow"))
    assert best.settings == {"a": 1, "b": 1, "half_life": 0.0}
    assert [(trial.settings["a"], trial.settings["b"]) for trial in run.log] == [(0, 0), (1, 0), (2, 0), (1, 1), (1, 2)]
    assert slow.fits == 3, "a setting that only reads needs no fit"


@pytest.mark.parametrize(
    ("gain", "noise", "first", "kept"),
    [
        (0.001, 0.3, True, False),  # other domains seem better, by less than chance: the target teaches alone
        (0.001, 0.3, False, False),
        (0.05, 0.1, True, True),
        (0.05, 0.1, False, True),
        (-0.05, 0.1, True, False),
    ],
)
def test_other_domains_teach_only_if_that_is_more_than_chance(
    search: Search,
    slow: type[Slow],
    monkeypatch: pytest.MonkeyPatch,
    gain: float,
    noise: float,
    first: bool,
    kept: bool,
) -> None:
    differences = gain + noise * np.tile([1.0, -1.0], 50)
    values = (first, not first)
    monkeypatch.setattr(slow, "defaults", {"sources": first, "a": 0, "half_life": 0.0})
    monkeypatch.setattr(slow, "grid", {"sources": values})
    monkeypatch.setattr(tune, "validate_each", lambda method, task: 0.3 + differences * method.settings["sources"])
    run = replace(search, deadline=time.monotonic() + 60, log=[])
    assert run.finish(run.begin("slow")).settings["sources"] is kept


def test_no_trial_starts_after_the_deadline(search: Search, slow: type[Slow]) -> None:
    run = replace(search, deadline=time.monotonic() - 1, log=[])
    assert run.finish(run.begin("slow")).settings == dict(slow.defaults)
    assert len(run.log) == 1, "the defaults are always tried"


@pytest.mark.parametrize(
    ("name", "given", "late", "tried"),
    [
        ("slow", {}, False, [False, True]),
        ("slow", {}, True, [False]),
        ("slow", {"sources": True}, True, [True]),
        ("carrier", {}, True, [False]),
    ],
)
def test_the_target_alone_comes_first_unless_told_otherwise(
    search: Search, slow: type[Slow], monkeypatch: pytest.MonkeyPatch, name: str, given: Settings, late: bool,
    tried: list[bool],
) -> None:  # fmt: skip
    """What other domains teach takes time: it must cost no method its place, and a carrier not its time."""
    monkeypatch.setattr(slow, "name", name)
    monkeypatch.setattr(slow, "defaults", {"a": 0, "sources": True, "half_life": 0.0})
    monkeypatch.setattr(slow, "grid", {"sources": (True, False)})
    monkeypatch.setitem(METHODS, "carrier", slow)
    monkeypatch.setattr(tune, "CARRIERS", ("carrier",))
    run = replace(search, deadline=time.monotonic() + (-1 if late else 60), log=[], starts={name: given})
    run.finish(run.begin(name))
    assert [trial.settings["sources"] for trial in run.log] == tried


def test_slow_lessons_from_other_domains_leave_no_method_out(
    split: Split, features: Features, slow: type[Slow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a method that took long with all domains spent the time of the others, which were left out."""

    class Elsewhere(Slow):
        defaults: ClassVar[Settings] = {"sources": True, "a": 0, "half_life": 0.0}
        grid: ClassVar = {"sources": (True, False)}

        def _fit(self, data: TrainingData, seed: int) -> None:
            super()._fit(data, seed)
            time.sleep(1.2 if self.settings["sources"] else 0.0)

    monkeypatch.setitem(METHODS, "slow", Elsewhere)
    monkeypatch.setattr("isthmus.train.fit.METHODS", {"slow": Elsewhere, **METHODS})
    chosen = FitSettings(methods=("slow", "popularity", "tfidf"), budget=0.5, refit=False)
    fitted = fit_target(split, "target", features, chosen)
    assert {method.name for method in fitted.methods} == {"slow", "popularity", "tfidf"}


def test_sources_are_only_tried_where_there_are_any(search: Search) -> None:
    run = replace(search, deadline=time.monotonic() + 60, log=[])
    run.finish(run.begin("tfidf"))
    assert {trial.settings["sources"] for trial in run.log} == {True, False}
    data = replace(search.data, target=np.arange(search.data.n_items, dtype=np.int32))
    task = replace(
        search.task, items=data.target, popularity=np.zeros(data.n_items, np.int64),
        targets=search.task.items[search.task.targets], item_groups={},
    )  # fmt: skip
    mine = search.data.histories.keep(search.data.in_target[search.data.histories.items])
    for alone in (
        Search(data, task, seed=0, deadline=time.monotonic() + 60),
        Search(replace(search.data, histories=mine), search.task, seed=0, deadline=time.monotonic() + 60),
    ):
        alone.finish(alone.begin("tfidf"))
        assert {trial.settings["sources"] for trial in alone.log} == {True}


def test_a_spent_budget_leaves_methods_out_and_says_so(
    split: Split,
    features: Features,
    slow: type[Slow],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isthmus.train.fit.METHODS", {"slow": Slow, **METHODS})
    monkeypatch.setattr(Slow, "pause", 0.3)
    chosen = FitSettings(methods=("slow", "knn", "ease"), budget=0.1, refit=False)
    with caplog.at_level(logging.WARNING, logger="isthmus"):
        fitted = fit_target(split, "target", features, chosen)
    assert [method.name for method in fitted.methods] == ["slow"]
    assert fitted.blend.methods == ("slow",)
    assert "the budget is spent, knn, ease is left out" in caplog.text


class Carried(TfidfContent):
    """A carrier that is quick to learn."""

    name = "sequence"


def test_a_carrier_has_a_say_about_new_items_only_if_it_practises(
    split: Split, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    for weight in (0.5, 0.0):
        known = Blend(("knn", "sequence"), dict.fromkeys(COHORTS, (1 - weight, weight)))
        monkeypatch.setattr("isthmus.train.fit.learn", lambda *_, known=known, **__: known)
        found = {}
        for practise in (False, True):
            fitting = Fitting(split, "target", features, replace(QUICK, practise=practise))
            kept, blend = fitting.blend([method.fit(fitting.data) for method in (make("knn"), Carried())])
            assert tuple(method.name for method in kept) == blend.methods
            found[practise] = dict(zip(blend.methods, blend.voice or (), strict=True))
        assert found[False] == ({"knn": 0.0, "sequence": 0.0} if weight else {"knn": 0.0})
        assert found[True]["knn"] == 0 < found[True]["sequence"], "neighbours know nothing of new items"


def test_methods_that_make_no_sense_are_not_tried(split: Split, features: Features) -> None:
    assert task_names(split, FitSettings(), features) == [
        name for name in METHODS if name in GROUND and name not in ("text", "graph", "image")
    ]
    bare = Features(sparse.csr_array((split.corpus.items.height, 3), dtype=np.float32))
    assert not {"tfidf", "fm", "text"} & set(task_names(split, FitSettings(), bare))
    assert "text" in task_names(split, FitSettings(), Features(vectors=np.ones((3, 2), np.float32)))
    log: list[Event] = [("shop", "a", f"i{n}", n) for n in range(5)]
    ordered = Split.make(corpus(log, order=("shop",)), protocol="leave-last")
    assert "recent" not in task_names(ordered, FitSettings(), features)
    with pytest.raises(InputError, match="did you mean 'tfidf'"):
        task_names(split, FitSettings(methods=("tf-idf",)), features)


def test_nothing_to_fit_is_said(split: Split, features: Features) -> None:
    with pytest.raises(InputError, match="no method is left"):
        fit_target(split, "target", Features(), FitSettings(methods=("tfidf",)))
    names = split.corpus.items["domain"].gather(split.events["item"])
    untaught = Split(
        split.corpus, split.events.filter((names != "target") | (split.events["part"] != TRAIN)), split.card
    )
    with pytest.raises(InputError, match="no training event in domain 'target'"):
        fit_target(untaught, "target", features, QUICK)


def test_a_large_corpus_chooses_ease_on_fewer_items_and_learns_it_in_full() -> None:
    rng = np.random.default_rng(0)
    n_items = collaborative.QUICK + 50
    rows = [rng.choice(n_items, 4, replace=False).tolist() for _ in range(60)]
    target = np.arange(n_items, dtype=np.int32)
    data = TrainingData(Histories.of(rows), target, n_items, now=0)
    few = replace(data, n_items=collaborative.QUICK)
    assert Ease().quick(data) == {"max_items": collaborative.QUICK}
    assert Ease().quick(few) == {}
    task = Task(
        domain="all", part="valid", items=target, persons=np.arange(60), histories=Histories.of([r[:3] for r in rows]),
        target_indptr=np.arange(61), targets=np.array([row[3] for row in rows], np.int32),
        popularity=np.ones(n_items, np.int64), train_persons=60, exclude_seen=True,
    )  # fmt: skip
    search = Search(data, task, 0, deadline=0.0)
    found = search.finish(search.begin("ease"))
    assert [trial.settings["max_items"] for trial in search.log] == [collaborative.QUICK, 15000]
    assert found.settings["max_items"] == 15000
