"""The search over settings: fair, repeatable, poor trials stopped, failures noted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from tests import tiny_search
from tests.tiny_search import DOMAIN, THREE, told

from isthmus.data.sequences import Histories
from isthmus.errors import InputError, StorageError, TrainingError
from isthmus.model.base import Features, Method, Settings, TrainingData
from isthmus.model.popularity import Popularity
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.train import search as module
from isthmus.train import studies
from isthmus.train.fit import training_data
from isthmus.train.found import COLUMNS, Found
from isthmus.train.methods import METHODS, make
from isthmus.train.search import SearchSettings, search
from isthmus.train.spaces import SPACES, Choice, Range
from isthmus.train.tune import validate
from isthmus.types import Floats

HERE = Path(__file__).parents[1]
split, features, whole = tiny_search.split, tiny_search.features, tiny_search.whole


def test_the_best_is_the_highest_of_the_trials_and_can_be_learned_again(
    split: Split, features: Features, whole: Found
) -> None:
    assert list(whole.trials.columns) == list(COLUMNS)
    assert whole.trials.group_by("method").len().sort("method").rows() == [("ease", 12), ("knn", 12), ("tfidf", 12)]
    data, task = training_data(split, VALID, DOMAIN, features), build_task(split, VALID, DOMAIN, most=4000)
    for name, best in whole.best.items():
        mine = whole.trials.filter(pl.col("method") == name).sort("trial")
        assert best.ndcg == mine["ndcg@10"].max()
        assert json.loads(mine["settings"][0]) == METHODS[name].defaults
        assert best.usual == mine["ndcg@10"][0]
        assert mine["settings"].n_unique() == 12
        assert validate(make(name, best.settings).fit(data, seed=THREE.seed), task) == best.ndcg
    assert any(best.ndcg > (best.usual or 0) for best in whole.best.values())


def test_it_is_repeatable_and_the_seed_counts(split: Split, features: Features, whole: Found) -> None:
    assert told(search(split, DOMAIN, features, THREE)).equals(told(whole))
    assert not told(search(split, DOMAIN, features, replace(THREE, seed=8))).equals(told(whole))
    drawn = replace(THREE, methods=("knn",), sampler="random")
    one, other = (search(split, DOMAIN, features, drawn) for _ in range(2))
    assert told(one).equals(told(other))
    assert one.trials["settings"].n_unique() == 12
    same_start = told(whole).filter(pl.col("method") == "knn")
    later = pl.col("trial") >= studies.RANDOM_FIRST
    assert not told(one).filter(later).equals(same_start.filter(later))


def test_what_is_in_test_changes_nothing(split: Split, features: Features, whole: Found) -> None:
    item = pl.when(pl.col("part") == TEST).then(pl.col("item").max() - pl.col("item")).otherwise("item")
    other = Split(split.corpus, split.events.with_columns(item=item.cast(pl.UInt32)), split.card)
    assert not other.events.equals(split.events)
    assert told(search(other, DOMAIN, features, THREE)).equals(told(whole))


class Slow(Popularity):
    """Popularity that takes its time."""

    name = "slow"
    defaults: ClassVar[Settings] = {"half_life": 0.0, "pause": 0.02, "noise": 0.0}
    grid: ClassVar = {}

    def _fit(self, data: TrainingData, seed: int) -> None:
        time.sleep(self.number("pause"))
        super()._fit(data, seed)
        noise = np.random.default_rng(0).random(self.scores.size).astype(np.float32)
        self.scores += np.float32(self.number("noise")) * noise


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Method], dict[str, Range | Choice]], None]:
    def add(kind: type[Method], space: dict[str, Range | Choice]) -> None:
        monkeypatch.setitem(METHODS, kind.name, kind)
        monkeypatch.setitem(SPACES, kind.name, space)

    return add


Add = Callable[[type[Method], dict[str, Range | Choice]], None]


def test_each_method_gets_the_same_time(split: Split, features: Features, own: Add) -> None:
    own(Slow, {"pause": Range(0.02, 0.021), "noise": Range(0.0, 1.0)})
    own(type("Slower", (Slow,), {"name": "slower"}), {"pause": Range(0.08, 0.081), "noise": Range(0.0, 1.0)})
    begun = time.monotonic()
    found = search(split, DOMAIN, features, SearchSettings(("slow", "slower"), budget_minutes=1.2 / 60))
    took = time.monotonic() - begun
    seconds = {name: best.seconds for name, best in found.best.items()}
    assert all(0.6 <= spent < 0.6 + 0.3 for spent in seconds.values()), seconds
    assert took < 1.2 + 1.5
    assert found.best["slow"].trials > 1.5 * found.best["slower"].trials


def test_without_any_time_the_defaults_are_tried_and_nothing_else(split: Split, features: Features) -> None:
    found = search(split, DOMAIN, features, replace(THREE, budget_minutes=0.0))
    assert [json.loads(row) for row in found.trials["settings"]] == list(found.settings.values())
    assert found.settings == {name: METHODS[name].defaults for name in ("knn", "tfidf", "ease")}


class Fails(Slow):
    name = "fails"
    error: ClassVar[Exception] = TrainingError("the loss is nan")
    always: ClassVar[bool] = False

    def _fit(self, data: TrainingData, seed: int) -> None:
        if self.always or self.number("noise") > 0.5:
            raise self.error
        super()._fit(data, seed)


@pytest.mark.parametrize("error", [TrainingError("the loss is nan"), np.linalg.LinAlgError("singular"), MemoryError()])
def test_a_trial_that_fails_is_noted_and_the_rest_goes_on(
    split: Split, features: Features, own: Add, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    own(Fails, {"noise": Range(0.0, 1.0)})
    monkeypatch.setattr(Fails, "error", error)
    monkeypatch.setitem(Fails.defaults, "pause", 0.0)
    found = search(split, DOMAIN, features, SearchSettings(("fails",), trials=15))
    failed = found.trials.filter(pl.col("state") == "failed")
    assert 0 < failed.height < 15
    assert found.best["fails"].failed == failed.height
    assert failed["ndcg@10"].null_count() == failed.height
    assert set(failed["error"]) == {str(error) or "MemoryError"}
    assert all(json.loads(row)["noise"] > 0.5 for row in failed["settings"])
    assert float(found.settings["fails"]["noise"]) <= 0.5


def test_a_method_that_never_works_is_given_up(split: Split, features: Features, own: Add) -> None:
    own(type("Never", (Fails,), {"always": True}), {"noise": Range(0.0, 1.0)})
    found = search(split, DOMAIN, features, SearchSettings(("fails", "popularity"), trials=20))
    assert set(found.best) == {"popularity"}
    assert found.trials.filter(pl.col("method") == "fails").height == module.HOPELESS
    with pytest.raises(InputError, match="no trial worked: the loss is nan"):
        search(split, DOMAIN, features, SearchSettings(("fails",), trials=20))


def test_a_full_disk_is_no_failed_trial(split: Split, features: Features, own: Add) -> None:
    own(type("Full", (Fails,), {"always": True, "error": StorageError("the disk is full")}), {"noise": Range(0.0, 1.0)})
    with pytest.raises(StorageError, match="the disk is full"):
        search(split, DOMAIN, features, SearchSettings(("fails",), trials=20))


def test_scores_that_are_no_numbers_are_a_failure(
    split: Split, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "validate", lambda *_: float("nan"))
    with pytest.raises(InputError, match=r"no trial worked: NDCG@10 is nan"):
        search(split, DOMAIN, features, SearchSettings(("popularity",)))


def test_whenever_it_stops_all_had_the_same_time(split: Split, features: Features, own: Add, tmp_path: Path) -> None:
    own(Slow, {"pause": Range(0.01, 0.011), "noise": Range(0.0, 1.0)})
    own(type("Slower", (Slow,), {"name": "slower"}), {"pause": Range(0.1, 0.101), "noise": Range(0.0, 1.0)})
    found = search(split, DOMAIN, features, SearchSettings(("slow", "slower"), trials=3), folder=tmp_path)
    journal = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    order = [line["study_id"] for line in journal if "datetime_start" in line and "study_id" in line]
    assert order == [0, 1, 0, 0, 1, 1], "after its slow first trial the slower one waits"
    assert found.trials.height == 6


# --- methods with epochs


class Epochs(Method):
    """Stands in for the sequence model: its epochs are made of the settings."""

    name = "epochs"
    defaults: ClassVar[Settings] = {"rate": 0.9}
    grid: ClassVar = {}
    pause: ClassVar[float] = 0.0
    ran: ClassVar[list[int]] = []

    def _fit(self, data: TrainingData, seed: int) -> None:
        self.ran.append(0)
        for epoch in range(6):
            time.sleep(self.pause)
            self.reached = self.number("rate") * (epoch + 1) / 6
            self.ran[-1] += 1
            assert self.hooks.watch is not None
            self.hooks.watch(self)

    def score(self, histories: Histories) -> Floats:
        raise NotImplementedError

    state = restore = extend = score  # type: ignore[assignment]


@pytest.fixture
def epochs(own: Add, monkeypatch: pytest.MonkeyPatch) -> type[Epochs]:
    kind = type("Now", (Epochs,), {"ran": []})
    own(kind, {"rate": Range(0.0, 1.0)})
    monkeypatch.setattr(module, "CARRIERS", ("epochs",))
    monkeypatch.setattr(module, "validate", lambda method, _: method.reached)
    return kind


def test_poor_trials_are_stopped_early_and_never_the_best(
    split: Split, features: Features, epochs: type[Epochs]
) -> None:
    found = search(split, DOMAIN, features, SearchSettings(("epochs",), trials=20, seed=1))
    pruned = found.trials.filter(pl.col("state") == "pruned")
    assert 3 < pruned.height == found.best["epochs"].pruned
    assert pruned["trial"].min() >= studies.PRUNE_AFTER  # type: ignore[operator]
    assert pruned["epochs"].min() > studies.PATIENT  # type: ignore[operator]
    assert pruned["epochs"].max() < 6  # type: ignore[operator]
    assert found.trials["epochs"].to_list() == epochs.ran
    rate = pl.Series([json.loads(row)["rate"] for row in found.trials["settings"]])
    done = found.trials["state"] == "done"
    assert rate.filter(~done).max() < rate.filter(done).median()  # type: ignore[operator]
    assert found.best["epochs"].ndcg == rate.max()
    usual = search(split, DOMAIN, features, SearchSettings(("epochs",), trials=20, seed=1, pruner="none"))
    assert set(usual.trials["state"]) == {"done"}
    assert sum(epochs.ran[20:]) == 6 * 20 > sum(epochs.ran[:20])


def test_a_trial_is_cut_at_its_next_epoch_when_the_time_is_spent(
    split: Split, features: Features, epochs: type[Epochs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "pause", 0.1)
    found = search(split, DOMAIN, features, SearchSettings(("epochs",), budget_minutes=0.25 / 60))
    assert found.trials["state"].to_list() == ["cut"]
    assert 1 < epochs.ran[0] < 6
    assert found.best["epochs"].ndcg == pytest.approx(0.9 * epochs.ran[0] / 6)


@pytest.mark.slow
def test_the_sequence_model_reports_its_epochs(
    split: Split, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**SPACES["sequence"], "epochs": Range(2, 4), "dim": Choice((8, 16)), "layers": Range(1, 2)}
    monkeypatch.setitem(SPACES, "sequence", small)
    usual = {**METHODS["sequence"].defaults, "epochs": 3, "dim": 8, "layers": 1}
    monkeypatch.setattr(METHODS["sequence"], "defaults", usual)
    found = search(split, DOMAIN, features, SearchSettings(("sequence",), trials=6))
    assert found.best["sequence"].failed == 0
    assert found.trials["epochs"].min() >= 2  # type: ignore[operator]
    assert set(found.settings["sequence"]) == set(usual)
    assert found.best["sequence"].ndcg > 0
