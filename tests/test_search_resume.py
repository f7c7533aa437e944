"""A search that was stopped or killed goes on and ends as if nothing had been; another is refused."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
import pytest
from tests import tiny_search
from tests.tiny_search import DOMAIN, THREE, told

from isthmus.errors import ArtefactError, InputError, IsthmusError
from isthmus.model.base import Features, Method
from isthmus.split.temporal import VALID, Split
from isthmus.train import search as module
from isthmus.train import studies
from isthmus.train.found import Found, read_best
from isthmus.train.search import Race, SearchSettings, search
from isthmus.train.spaces import SPACES, Range
from isthmus.train.tune import validate

HERE = Path(__file__).parents[1]
split, features, whole = tiny_search.split, tiny_search.features, tiny_search.whole


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
