"""The guard against negative transfer: noise gets no weight and is dropped, what helps stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.carried import pretrained, scene
from tests.test_blend import T, Table, informed, world

from isthmus.evaluate.protocol import judge
from isthmus.model.blend import COHORTS
from isthmus.model.stacking import learn
from isthmus.recommender.facade import System
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST
from isthmus.train.fit import GUARDED, FitSettings, Fitting, fit_target
from isthmus.train.methods import CARRIERS, make


def noise(persons: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(persons, T))


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_a_carrier_that_is_noise_gets_no_weight(seed: int) -> None:
    task, wanted = world(300, seed=seed)
    methods = [Table("ease", informed(wanted, 2.0, seed)), Table("sequence", noise(300, 50 + seed))]
    assert max(row[1] for row in learn(methods, task).weights.values()) < 0.15
    assert not learn(methods, task, guarded=CARRIERS).weighs("sequence")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_carrier_that_knows_more_keeps_its_weight(seed: int) -> None:
    task, wanted = world(300, seed=seed)
    methods = [Table("ease", informed(wanted, 1.0, seed)), Table("sequence", informed(wanted, 2.0, 50 + seed))]
    blend = learn(methods, task, guarded=CARRIERS)
    assert all(blend.weights[cohort][1] > 0.4 for cohort in COHORTS)


def test_noise_goes_and_what_helps_stays_where_they_come_together() -> None:
    """One guard stands for all carriers: learning itself drops the noisy one."""
    task, wanted = world(400, seed=3)
    tables = {"ease": informed(wanted, 1.0, 3), "sequence": informed(wanted, 2.0, 4), "language": noise(400, 5)}
    blend = learn([Table(name, table) for name, table in tables.items()], task, guarded=CARRIERS)
    row = blend.weights[COHORTS[2]]
    assert row[1] > 0.3
    assert row[2] < 0.1


@pytest.mark.parametrize("lucky", [1, 2])
def test_one_or_two_lucky_persons_are_no_reason(lucky: int) -> None:
    task, wanted = world(300, seed=6)
    table = np.zeros((300, T), np.float32)
    table[np.arange(lucky), wanted[:lucky]] = 1.0
    methods = [Table("ease", informed(wanted, 2.0, 6)), Table("sequence", table)]
    assert learn(methods, task).weighs("sequence"), "nobody guards it here"
    assert not learn(methods, task, guarded=CARRIERS).weighs("sequence")


def test_the_methods_not_guarded_are_blended_as_if_alone() -> None:
    task, wanted = world(300, seed=4)
    ground = [Table("ease", informed(wanted, 2.0, 1)), Table("knn", informed(wanted, 2.0, 2))]
    alone = learn(ground, task, seed=7)
    beside = learn([*ground, Table("sequence", noise(300, 3))], task, seed=7, guarded=CARRIERS)
    for cohort in COHORTS:
        assert beside.weights[cohort] == (*alone.weights[cohort], 0.0)


def test_carriers_alone_are_not_guarded_against_nothing() -> None:
    task, _ = world(100, seed=5)
    assert learn([Table("sequence", noise(100, 1))], task, guarded=CARRIERS).weighs("sequence")


GROUND = ("popularity", "knn", "tfidf")


@pytest.mark.parametrize("name", GUARDED)
def test_a_method_that_brings_nothing_over_is_not_delivered(name: str) -> None:
    found = scene("twin")
    steps = Fitting(found.split, "target", found.features, FitSettings(methods=GROUND))
    methods = [make(each).fit(steps.data) for each in GROUND]
    bad = make("popularity").fit(steps.data)
    bad.name = name  # type: ignore[misc]
    bad.scores = np.zeros_like(bad.scores)  # type: ignore[attr-defined]
    kept, blend = steps.blend([*methods, bad])
    assert [method.name for method in kept] == list(GROUND)
    assert blend.methods == GROUND


def test_a_bridge_between_platforms_that_share_nothing_is_left_out() -> None:
    found = scene("unrelated")
    cut = found.split.few_shot("target", keep=0, share=0.4, seed=0)
    fitted = fit_target(cut, "target", found.features, FitSettings(methods=("popularity", "bridge"), budget=2.0))
    assert fitted.blend.methods == ("popularity",)
    assert "bridge" in {row["method"] for row in fitted.log}


def test_where_nothing_can_be_carried_over_the_list_is_no_worse() -> None:
    found = scene("unrelated")
    task = build_task(found.split, TEST, "target")
    plain = FitSettings(methods=GROUND, budget=4.0)
    starts = {"sequence": {"start": str(pretrained("unrelated")), "epochs": 3}}
    with_it = replace(plain, methods=(*GROUND, "sequence"), settings=starts)
    values = [
        judge(System(fit_target(found.split, "target", found.features, how), name="blend"), task).metrics["ndcg@10"]
        for how in (plain, with_it)
    ]
    difference = values[1] - values[0]
    error = difference.std() / np.sqrt(difference.size)
    assert difference.mean() > -2.5 * error - 1e-9
