"""Adapting as a method of a blend, in a fitted model, and by the command line."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.carried import PLAN, Scene
from tests.pages import text_of
from tests.test_cli import good, isthmus
from tests.test_meta import PLACES, TARGET, VECTORS, N, data, method, own_share, world

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import twin_world
from isthmus.errors import DataError, InputError
from isthmus.evaluate.protocol import judge
from isthmus.model.base import Features
from isthmus.model.blend import COHORTS
from isthmus.recommender import Recommender, adapting
from isthmus.recommender.adapting import Adapting, few_events, with_meta
from isthmus.recommender.lifting import Choice
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import VALID, Split
from isthmus.testing import check_method
from isthmus.train.fit import FitSettings
from isthmus.transfer.meta_method import MetaMethod, made
from isthmus.transfer.meta_tasks import newest

PAGE = text_of("new-people.md")
SMALL = {"epochs": 2, "rate": 0.3, "candidates": 15, "rank": 2}
HOW = FitSettings(
    methods=("popularity", "sequence"), budget=3.0, settings={"sequence": {"dim": 16, "layers": 1, "epochs": 4}}
)


@cache
def learned() -> MetaMethod:
    return MetaMethod(SMALL).on(method(), data())


def test_it_keeps_the_contract_of_methods() -> None:
    tiny = {"carrier.dim": 8, "carrier.layers": 1, "carrier.epochs": 1, "epochs": 1, "candidates": 5, "rank": 1}
    check_method(lambda settings: made("meta", {**tiny, **settings}), data())


def test_it_says_what_the_learner_says_and_adapts() -> None:
    assert own_share(learned(), 3) > own_share(learned().stepping(0.3, 0), 3) + 0.05  # type: ignore[arg-type]


def test_without_other_domains_it_does_not_look_there() -> None:
    alone = method()
    alone.settings["sources"] = False
    found = MetaMethod(SMALL).on(alone, data())
    both = found.score(Histories.of([[0, 1, 2, 3], [0, 2]]))
    np.testing.assert_allclose(both[0], found.score(Histories.of([[1, 3]]))[0], atol=1e-5)
    assert not both[1].any()


def test_state_and_new_items() -> None:
    found, asked = learned(), world(4)
    again = MetaMethod(found.settings)
    again.target, again.n_items = TARGET, N
    again.restore({name: np.array(array) for name, array in found.state().items()}, Features(None, VECTORS, PLACES))
    again.carrier.tables = found.carrier.tables  # those of this world are made by hand
    again._begin(found.learner.weights(), found.learner.pool.numpy())
    np.testing.assert_allclose(again.score(asked), found.score(asked), atol=1e-5)


@cache
def scene() -> Scene:
    world = twin_world(0, replace(PLAN, persons=300, items=40))
    return Scene(world, Split.make(Corpus.from_tables(world.tables, name="twin")), Features())


@cache
def fitted() -> Recommender:
    return Recommender.fit(scene().split, targets=["target"], settings=HOW)


def test_people_are_shown_with_their_newest_events() -> None:
    task = build_task(scene().split, VALID, "target")
    few = few_events(task, (1, 2, 3))
    own = np.bincount(few.histories.rows[np.isin(few.histories.items, few.items)], minlength=len(few))
    assert set(own) == {1, 2, 3}
    for row in range(0, len(few), 7):
        place = int(np.flatnonzero(task.persons == few.persons[row])[0])
        span = slice(task.histories.indptr[place], task.histories.indptr[place + 1])
        every = [item for item in task.histories.items[span] if item in few.items]
        mine = few.histories.items[few.histories.indptr[row] : few.histories.indptr[row + 1]]
        assert [item for item in mine if item in few.items] == every[-own[row] :]
        assert sum(item not in few.items for item in mine) == span.stop - span.start - len(every)
    nothing = newest(task.histories, task.items, np.zeros(len(task), np.int64))
    assert not np.isin(nothing.items, task.items).any()


def test_a_model_adapts_only_if_validation_says_so(tmp_path: Path) -> None:
    made = with_meta(fitted(), scene().split, "target", Adapting(epochs=1, people=40))
    said = made.card["meta"]["target"]  # type: ignore[index,call-overload]
    target = made.targets["target"]
    names = [each.name for each in target.methods]
    assert (names[-1] == "meta") == (said["share"] > 0)
    assert said["share"] == 0 or said["gain"] > said["error"]
    made.save(tmp_path / "model")
    again = Recommender.open(tmp_path / "model")
    few = build_task(scene().split, VALID, "target")
    values = [judge(each.system("target"), few, ks=(10,), threads=1).mean("ndcg@10") for each in (made, again)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert [row["system"] for row in said["table"]][:2] == ["no adaptation", "anil"]
    for row in said["table"]:
        assert row["ms"] < 200
        assert all(0 <= value <= 1 for value in row["ndcg@10"] if value is not None)


def test_what_is_kept_serves_people_with_few_events_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "chosen", lambda table, seed: Choice(0.5, table.shape[1], 0.1, 0.1, 0.01))
    made = with_meta(fitted(), scene().split, "target", Adapting(epochs=1, people=0))
    made.save(tmp_path / "model")
    again = Recommender.open(tmp_path / "model")
    target = again.targets["target"]
    assert target.methods[-1].name == "meta"
    assert target.blend.weights[COHORTS[1]][-1] == 0.5
    assert sum(target.blend.weights[COHORTS[1]]) == pytest.approx(1.0)
    task = build_task(scene().split, VALID, "target")
    for shown, changes in ((0, False), (2, True), (4, False)):
        asked = few_events(task, (shown,)).histories.take(np.arange(12))
        old, new, stored = (each.system("target").score(asked) for each in (fitted(), made, again))
        np.testing.assert_allclose(stored, new, atol=1e-4)
        own = np.bincount(asked.rows[np.isin(asked.items, task.items)], minlength=12)
        some = own == shown
        assert some.any()
        assert np.allclose(new[some], old[some], atol=1e-4) != changes
    with pytest.raises(InputError, match="adapts already"):
        with_meta(again, scene().split, "target")


def test_what_cannot_adapt_is_said() -> None:
    split = scene().split
    plain = Recommender.fit(split, targets=["target"], settings=FitSettings(methods=("popularity",), budget=1.0))
    with pytest.raises(InputError, match="no sequence carrier"):
        with_meta(plain, split, "target")
    other = Split.make(Corpus.from_tables(twin_world(1, replace(PLAN, persons=60, items=30)).tables, name="other"))
    with pytest.raises(DataError, match="other data"):
        with_meta(fitted(), other, "target")


def test_the_verb(tmp_path: Path) -> None:
    split = scene().split
    Split(split.corpus.save(tmp_path / "corpus"), split.events, split.card).save(tmp_path / "SPLIT")
    fitted().save(tmp_path / "MODEL")
    line = next(line for line in re.findall(r"^isthmus meta .*$", PAGE, re.M))
    words = [str(tmp_path / word) if word.isupper() else word for word in line.split()[1:]]
    words = [str(tmp_path / "MODEL2") if word == "MODEL2" else word for word in words]
    said = good(*words, "--epochs", "1", "--people", "20")
    assert said["way"] == "anil"  # type: ignore[index]
    rows = {row["system"]: row["ndcg@10"] for row in said["table"]}  # type: ignore[index]
    assert len(rows) == 6
    before, after = rows["blend before"], rows["blend after"]
    for shown in (0, 4, 5):  # these people keep the lists they had
        assert before[shown] == after[shown]
    if not said["share"]:  # type: ignore[index]
        assert before == after
    assert min(after[1:4]) > 0.5 * min(before[1:4])
    users = pl.DataFrame({"platform": ["south"], "user": ["nobody"]})
    assert Recommender.open(tmp_path / "MODEL2").recommend(users).height == 10
    wrong = isthmus(*words[:3], "trget", *words[4:-1], tmp_path / "x")
    assert wrong.code == 2
    assert "did you mean 'target'" in wrong.err
