"""The search over settings: complete, fair, pruned, and a killed one ends as if nothing had been."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tests.test_cli import Done, good, isthmus
from tests.tiny_search import DOMAIN, THREE, tiny_features, tiny_split

from isthmus.cli.main import app
from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import town_tables
from isthmus.errors import ArtefactError, InputError, IsthmusError, StorageError, TrainingError
from isthmus.model.base import Features, Method, Settings, TrainingData
from isthmus.model.popularity import Popularity
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.train import search as module
from isthmus.train import studies
from isthmus.train.fit import FitSettings, fit_target, training_data
from isthmus.train.found import COLUMNS, Found, read_best
from isthmus.train.methods import METHODS, make
from isthmus.train.search import Race, SearchSettings, search
from isthmus.train.spaces import EXCLUDED, SPACES, Choice, Range, knobs, words
from isthmus.train.tune import validate
from isthmus.types import Floats

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def split() -> Split:
    return tiny_split()


@pytest.fixture(scope="module")
def features(split: Split) -> Features:
    return tiny_features(split)


@pytest.fixture(scope="module")
def whole(split: Split, features: Features) -> Found:
    return search(split, DOMAIN, features, THREE)


def told(found: Found) -> pl.DataFrame:
    """Return the trials without what the clock says."""
    return found.trials.drop("seconds")


# --- spaces


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_every_method_is_searched_or_left_out_for_a_reason(name: str) -> None:
    defaults = METHODS[name].defaults
    assert set(SPACES[name]) == set(defaults) - set(EXCLUDED)
    for setting, knob in SPACES[name].items():
        assert knob.holds(defaults[setting]), setting
        for value in METHODS[name].grid.get(setting, ()):
            assert knob.holds(value), f"{setting} = {value} is tried by fit"
        kind = type(defaults[setting])
        ends = knob.values if isinstance(knob, Choice) else (knob.low, knob.high)
        assert {type(end) for end in ends} == {kind}, setting


def test_no_space_or_exclusion_without_a_method() -> None:
    assert set(SPACES) == set(METHODS)
    assert set(EXCLUDED) <= {setting for kind in METHODS.values() for setting in kind.defaults}


@examples(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(METHODS)), st.integers(0, 1 << 30))
def test_what_is_drawn_lies_in_the_space_and_can_be_asked_for_again(name: str, seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    space = SPACES[name]
    drawn = {setting: knob.suggest(trial, setting) for trial in [study.ask()] for setting, knob in space.items()}
    assert all(space[setting].holds(value) for setting, value in drawn.items())
    assert make(name, drawn).settings == {**METHODS[name].defaults, **drawn}
    study.enqueue_trial(words(space, drawn))
    again = {setting: knob.suggest(trial, setting) for trial in [study.ask()] for setting, knob in space.items()}
    assert again == drawn


def test_a_value_outside_is_not_asked_for() -> None:
    space = {"window": Range(1, 50), "sources": Choice((True, False))}
    assert words(space, {"window": 99, "sources": False}) == {"sources": False}
    assert not Range(1.0, 9.0).holds(0.0)
    assert Range(1.0, 9.0, off=True).holds(0.0)


def test_knobs_that_change_nothing_are_not_searched(split: Split, features: Features) -> None:
    data = training_data(split, VALID, DOMAIN, features)
    assert set(knobs(make("knn"), data)) == set(SPACES["knn"])
    assert set(knobs(make("knn"), data)) - set(knobs(make("knn"), replace(data, dated=False))) == {"half_life"}
    alone = replace(data, target=np.arange(data.n_items, dtype=np.int32))
    assert set(knobs(make("ease"), data)) - set(knobs(make("ease"), alone)) == {"sources", "source_weight"}


# --- searching


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


# --- on disk


class StopError(BaseException):
    """What breaks a search off, like Ctrl-C, in these tests."""


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Break the search off in the n-th trial from now, once."""

    def at(trial: int) -> None:
        left = [trial]

        def counted(method: Method, task: Any) -> float:
            left[0] -= 1
            if left[0] == 0:
                raise StopError
            return validate(method, task)

        monkeypatch.setattr(module, "validate", counted)

    return at


@pytest.mark.parametrize("at", [1, 2, 5, 17, 36])
def test_wherever_it_breaks_off_it_ends_the_same(
    split: Split, features: Features, whole: Found, tmp_path: Path, stops: Callable[[int], None], at: int
) -> None:
    folder = tmp_path / "search"
    stops(at)
    with pytest.raises(StopError):
        search(split, DOMAIN, features, THREE, folder=folder)
    if at > 1:
        kept = pl.read_parquet(folder / "trials.parquet")
        assert kept.height == at - 1
        assert read_best(folder / "best.json")[0] == DOMAIN
    found = search(split, DOMAIN, features, THREE, folder=folder)
    assert told(found).equals(told(whole))
    assert found.settings == whole.settings == read_best(folder)[1]
    assert pl.read_parquet(folder / "trials.parquet").equals(found.trials)


def test_what_a_kill_spoils_is_mended(
    split: Split, features: Features, whole: Found, tmp_path: Path, stops: Callable[[int], None]
) -> None:
    stops(9)
    with pytest.raises(StopError):
        search(split, DOMAIN, features, THREE, folder=tmp_path)
    with (tmp_path / "journal.jsonl").open("a") as journal:
        journal.write('{"op_code":8,"worker_id":"x","tri')
    os.symlink(tmp_path / "journal.jsonl", tmp_path / "journal.jsonl.lock")
    (tmp_path / ".best.json.part-99").write_text("{")
    begun = time.monotonic()
    assert told(search(split, DOMAIN, features, THREE, folder=tmp_path)).equals(told(whole))
    assert time.monotonic() - begun < 20, "it waited for a lock that nobody holds"


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_trials(
    split: Split, features: Features, whole: Found, tmp_path: Path
) -> None:
    folder, seed = tmp_path / "search", random.SystemRandom().randrange(1 << 30)
    rng = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    for _ in range(2):
        command = [sys.executable, "-m", "tests.tiny_search", str(folder)]
        with subprocess.Popen(command, cwd=HERE, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            wanted = rng.randint(3, 12)
            while wanted:
                line = process.stderr.readline()
                assert line, "it ended too early"
                wanted -= ", trial " in line
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait()
    begun = (folder / "journal.jsonl").read_text().count("datetime_start")
    assert 6 <= begun < 36, f"seed {seed}"
    found = search(split, DOMAIN, features, THREE, folder=folder)
    assert told(found).equals(told(whole)), f"seed {seed}"
    assert found.settings == whole.settings
    again = (folder / "journal.jsonl").read_text().count("datetime_start")
    assert again - begun <= 36 - 6, "it began anew"


def test_an_ended_search_goes_on_with_more_trials_only(
    split: Split, features: Features, whole: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = search(split, DOMAIN, features, replace(THREE, trials=5), folder=tmp_path)
    assert few.trials.height == 15
    more = search(split, DOMAIN, features, THREE, folder=tmp_path)
    assert told(more).equals(told(whole))
    monkeypatch.setattr(Race, "step", None)
    assert search(split, DOMAIN, features, THREE, folder=tmp_path).trials.equals(more.trials)
    spent = sum(best.seconds for best in more.best.values())
    less = replace(THREE, trials=None, budget_minutes=spent / 60 / 10)
    assert search(split, DOMAIN, features, less, folder=tmp_path).trials.equals(more.trials), "time counts over runs"


def test_only_plain_files_are_written(split: Split, features: Features, tmp_path: Path) -> None:
    search(split, DOMAIN, features, replace(THREE, trials=2), folder=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"search.json", "journal.jsonl", "best.json", "trials.parquet", "lock"}
    for line in (tmp_path / "journal.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, f: (s.few_shot(DOMAIN, keep=1, share=0.5, seed=1), DOMAIN, f, THREE), "another split$"),
        (lambda s, f: (s, "source", f, THREE), "another domain$"),
        (lambda s, f: (s, DOMAIN, f, replace(THREE, seed=1)), "another seed$"),
        (lambda s, f: (s, DOMAIN, f, replace(THREE, sampler="random")), "another sampler$"),
        (lambda s, f: (s, DOMAIN, replace(f, vectors=np.ones((120, 3), np.float32)), THREE), "another vectors$"),
    ],
    ids=["split", "domain", "seed", "sampler", "vectors"],
)  # fmt: skip
def test_the_search_of_something_else_is_refused_and_left_alone(
    split: Split, features: Features, tmp_path: Path, change: Callable[[Split, Features], Any], message: str
) -> None:
    search(split, DOMAIN, features, replace(THREE, trials=1), folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError) as caught:
        search(*change(split, features), folder=tmp_path)
    assert caught.match(message.replace("$", r"\. Fix"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_search_of_other_spaces_is_refused(
    split: Split, features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(split, DOMAIN, features, replace(THREE, trials=1), folder=tmp_path)
    monkeypatch.setitem(SPACES, "tfidf", {"decay": Range(0.1, 1.0)})
    with pytest.raises(InputError, match="another spaces"):
        search(split, DOMAIN, features, THREE, folder=tmp_path)


def test_two_searches_do_not_share_a_folder(split: Split, features: Features, tmp_path: Path) -> None:
    with studies.opened(tmp_path, {"split": "x"}), pytest.raises(InputError, match="another search writes there"):
        search(split, DOMAIN, features, THREE, folder=tmp_path)


@pytest.mark.parametrize("spoil", ["file", "foreign", "card", "journal"])
def test_folders_that_are_no_search_are_said(split: Split, features: Features, tmp_path: Path, spoil: str) -> None:
    folder = tmp_path / "out"
    kind: type[IsthmusError] = InputError
    if spoil == "file":
        folder.write_text("mine")
    elif spoil == "foreign":
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    else:
        search(split, DOMAIN, features, replace(THREE, trials=1), folder=folder)
        name = {"card": "search.json", "journal": "journal.jsonl"}[spoil]
        (folder / name).write_text("[1\n{}\n[2\n")
        kind = ArtefactError
    with pytest.raises(kind, match=r"not written by a search|damaged"):
        search(split, DOMAIN, features, THREE, folder=folder)
    assert spoil != "file" or folder.read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("ees",)}, "did you mean 'ease'"),
        ({"methods": ("text",)}, "no method is left"),
        ({"budget_minutes": -1.0}, "budget_minutes"),
        ({"budget_minutes": float("nan")}, "budget_minutes"),
        ({"trials": 0}, "trials = 0"),
        ({"sampler": "cma"}, "one of tpe, random"),
        ({"pruner": "hyperband"}, "one of median, none"),
    ],
)
def test_wrong_settings_are_said(split: Split, features: Features, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        search(split, DOMAIN, features, SearchSettings(**{"methods": ("knn",), **change}))


def test_a_domain_without_training_or_validation_is_said(split: Split, features: Features) -> None:
    names = split.corpus.items["domain"].gather(split.events["item"])
    for part, message in ((0, "no training event"), (VALID, "no event in domain")):
        less = Split(split.corpus, split.events.filter((names != DOMAIN) | (split.events["part"] != part)), split.card)
        with pytest.raises(InputError, match=message):
            search(less, DOMAIN, features, THREE)


def test_methods_with_nothing_to_read_are_left_out_aloud(split: Split, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "isthmus"):
        found = search(split, DOMAIN, Features(), SearchSettings(("popularity", "tfidf"), trials=1))
    assert set(found.best) == {"popularity"}
    assert "tfidf, left out" in caplog.text


def test_optuna_says_nothing_and_its_own_level_is_put_back(
    split: Split, features: Features, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    search(split, DOMAIN, features, replace(THREE, trials=2), folder=tmp_path)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


def test_without_optuna_it_says_what_to_install(
    split: Split, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"optuna is not installed.*isthmus\[transfer\]"):
        search(split, DOMAIN, features, THREE)


# --- best.json and fit


def test_fit_starts_from_what_was_found(split: Split, features: Features) -> None:
    starts: dict[str, Settings] = {"knn": {"window": 3, "fame": 0.9}, "ease": {"l2": 7.0}}
    for name, start in (("knn", starts["knn"]), ("tfidf", {})):
        fitted = fit_target(split, DOMAIN, features, FitSettings(methods=(name,), budget=0.0, settings=starts))
        assert fitted.methods[0].settings == {**METHODS[name].defaults, **start}
        assert [row["settings"] for row in fitted.log] == [fitted.methods[0].settings]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ('{"format": 9}', "format 9"),
        ('{"format": 1, "methods": [1]}', "no methods"),
        ('{"format": 1, "methods": {"knn": {}}}', "no settings of knn"),
        ('{"format": 1, "methods": {"kn": {"settings": {}}}}', "no method 'kn'"),
        ('{"format": 1, "methods": {"knn": {"settings": {"depth": 1}}}}', "no setting depth"),
        ('{"format": 1, "methods": {"knn": {"settings": {"window": "3"}}}}', "window is '3'"),
        ('{"format": 1, "methods": {"knn": {"settings": {"window": true}}}}', "window is True"),
        ('{"format": 1, "methods": {"knn": {"settings": {"sources": 1}}}}', "sources is 1"),
    ],
)
def test_a_wrong_result_is_said(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "best.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_best(tmp_path / "best.json")
    with pytest.raises(ArtefactError, match="not a result"):
        read_best(tmp_path / "nothing")


# --- the command line


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("town")
    corpus = Corpus.from_tables(town_tables(seed=2, persons=100), name="town")
    corpus.save(folder / "corpus")
    Split.make(Corpus.open(folder / "corpus")).save(folder / "split")
    return folder


def test_search_and_fit_by_the_command_line(town: Path) -> None:
    words_ = ("search", town / "split", "--target", "films", "--methods", "knn,popularity", "--out", town / "found")
    found: Any = good(*words_, "--minutes", 1, "--trials", 3)
    assert found["trials"] == 6
    assert set(found["methods"]) == {"knn", "popularity"}
    more: Any = good(*words_, "--minutes", 1, "--trials", 4)
    assert more["trials"] == 8
    shown = isthmus(*words_, "--trials", 4)
    assert shown.code == 0, shown.err
    assert "best.json" in shown.out
    assert "with defaults" in shown.out
    out = ("--out", town / "model", "--budget", 0, "--methods", "knn")
    fitted: Any = good("fit", town / "split", *out, "--settings", town / "found" / "best.json")
    assert set(fitted["targets"]) == {"films"}, "the domain that was searched"
    assert fitted["targets"]["films"]["valid"]["knn"] == pytest.approx(more["methods"]["knn"]["ndcg@10"], abs=1e-6)


def test_wrong_input_ends_with_code_2(town: Path) -> None:
    def searched(*more: object) -> Done:
        return isthmus("search", town / "split", "--out", town / "wrong", *more)

    assert "no domain 'film'" in searched("--target", "film").err
    assert searched("--target", "films", "--methods", "kn").code == 2
    assert searched("--target", "films", "--sampler", "cma").code == 2
    assert not (town / "wrong").exists()
    assert isthmus("fit", town / "split", "--out", town / "m", "--settings", town / "nothing").code == 2


def test_ctrl_c_keeps_what_is_there_and_says_how_to_go_on(
    town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [4]

    def counted(method: Method, task: Any) -> float:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return validate(method, task)

    monkeypatch.setattr(module, "validate", counted)
    out = tmp_path / "found"
    done = isthmus("search", town / "split", "--target", "films", "--methods", "knn", "--trials", 9, "--out", out)
    assert done.code == 130
    assert "the same command goes on" in done.out
    assert pl.read_parquet(out / "trials.parquet").height == 3
    assert read_best(out)[1]["knn"]


def test_help_does_not_load_optuna() -> None:
    code = "import sys; from isthmus.cli.main import app; import isthmus; sys.exit('optuna' in sys.modules)"
    assert app is not None
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_runs_and_names_what_there_is(split: Split, features: Features) -> None:
    page = (HERE / "docs" / "search.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 1
    exec(blocks[0], {"split": split, "features": features})
    assert {f"`{flag}`" for flag in ("--minutes", "--trials", "--sampler", "--pruner", "--seed")} <= set(page.split())
    for number in (f"| {module.MOST} |", f"first {studies.RANDOM_FIRST} trials", f"after {studies.PRUNE_AFTER} trials"):
        assert number in page, number
