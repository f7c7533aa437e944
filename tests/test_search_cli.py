"""The spaces are complete, and what was found reaches fit, by hand and by the command line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tests import tiny_search
from tests.pages import run_programs, text_of
from tests.test_cli import Done, good, isthmus
from tests.tiny_search import DOMAIN

from isthmus.cli.main import app
from isthmus.data.corpus import Corpus
from isthmus.data.simulate import town_tables
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Features, Method, Settings
from isthmus.split.temporal import VALID, Split
from isthmus.train import search as module
from isthmus.train import studies
from isthmus.train.fit import FitSettings, fit_target, training_data
from isthmus.train.found import read_best
from isthmus.train.methods import METHODS, make
from isthmus.train.spaces import EXCLUDED, SPACES, Choice, Range, knobs, words
from isthmus.train.tune import validate

HERE = Path(__file__).parents[1]
split, features, whole = tiny_search.split, tiny_search.features, tiny_search.whole


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


def test_fit_starts_from_what_was_found(split: Split, features: Features) -> None:
    starts: dict[str, Settings] = {"knn": {"window": 3, "fame": 0.9}, "ease": {"l2": 7.0}}
    found: Settings = {"window": 3, "fame": 0.9, "sources": True}
    for name, start in (("knn", starts["knn"]), ("knn", found), ("tfidf", {})):
        how = FitSettings(methods=(name,), budget=0.0, settings={**starts, name: start})
        fitted = fit_target(split, DOMAIN, features, how)
        begun = {**METHODS[name].defaults, "sources": False, **start}
        assert [row["settings"] for row in fitted.log] == [begun]
        assert fitted.methods[0].settings == begun


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
    run_programs("search.md", 1, {"split": split, "features": features})
    page = text_of("search.md")
    assert {f"`{flag}`" for flag in ("--minutes", "--trials", "--sampler", "--pruner", "--seed")} <= set(page.split())
    for number in (f"| {module.MOST} |", f"first {studies.RANDOM_FIRST} trials", f"after {studies.PRUNE_AFTER} trials"):
        assert number in page, number
