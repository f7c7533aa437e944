"""A trial of transfer: all arms on the same persons, a verdict, the curve, and the controls."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tests.carried import pretrained, scene

from isthmus.evaluate.verdict import Verdict
from isthmus.pipeline.runs import Run
from isthmus.pipeline.trials import Trial, TrialSettings, _Steps, curve, trial
from isthmus.split.temporal import TEST

CHOSEN = TrialSettings(
    starts={"sequence": {"start": str(pretrained()), "epochs": 2, "batch": 512}},
    seeds=2,
    budget=4.0,
    persons=200,
    methods=("popularity", "knn", "tfidf"),
    shuffled=True,
)
ARMS = {"no source": 1, "sources": 1, "transfer": 2, "scratch": 2, "sequence": 2, "sequence scratch": 2, "shuffled": 2}


@cache
def tried() -> Trial:
    return trial(scene().split, "target", scene().features, CHOSEN)


def test_every_arm_has_its_runs_on_the_same_persons() -> None:
    found = tried()
    assert {name: len(runs) for name, runs in found.arms.items()} == ARMS
    events = scene().split.events.filter(part=TEST)
    assert set(found.task.persons.tolist()) <= set(events["person"].to_list())
    for runs in found.arms.values():
        for run in runs:
            assert np.array_equal(run.task.persons, found.task.persons)
            assert np.array_equal(run.task.targets, found.task.targets)


def test_seeds_change_the_carriers_and_nothing_else() -> None:
    arms = tried().arms
    for name in ("sequence", "sequence scratch"):
        first, second = (run.metrics["ndcg@10"] for run in arms[name])
        assert not np.array_equal(first, second), name
    fewer = replace(CHOSEN, seeds=1, shuffled=False, scratch=False)
    again = trial(scene().split, "target", scene().features, fewer)
    assert set(again.arms) == {"no source", "sources", "transfer", "sequence"}
    assert [finding.rival for finding in again.verdict().findings] == ["no source"]
    for name in ("no source", "sources"):
        assert np.allclose(again.arms[name][0].metrics["ndcg@10"], arms[name][0].metrics["ndcg@10"]), name


def test_no_source_means_that_other_domains_are_not_even_looked_at() -> None:
    target = tried().runs["no source"].target
    assert target is not None
    for method in target.methods:
        learned = getattr(method, "weights", None)
        if method.name == "knn" and learned is not None:
            sources = np.setdiff1d(np.arange(learned.shape[0]), target.items)
            assert learned[sources].nnz == 0


def test_the_verdict_asks_both_rivals_and_tells_the_controls() -> None:
    verdict = tried().verdict()
    assert isinstance(verdict, Verdict)
    assert {finding.rival for finding in verdict.findings} == {"scratch", "no source"}
    assert verdict.outcome in ("helped", "no detectable difference", "hurt")
    roles = dict(verdict.arms.select("arm", "role").iter_rows())
    assert roles == {"transfer": "main", "scratch": "rival", "no source": "rival", "shuffled": "control"}


def test_a_carrier_of_no_worth_does_not_hurt() -> None:
    found = scene("unrelated")
    starts = {"sequence": {"start": str(pretrained("unrelated")), "epochs": 2, "batch": 512}}
    chosen = replace(CHOSEN, starts=starts, shuffled=False)
    verdict = trial(found.split, "target", found.features, chosen).verdict()
    assert verdict.outcome != "hurt", verdict.sentence


def test_a_share_of_nobody_is_zero_shot_and_the_curve_joins_the_shares() -> None:
    chosen = replace(CHOSEN, shuffled=False, seeds=1)
    found = curve(scene().split, "target", scene().features, chosen, shares=(0.0, 0.3))
    rows = {(row["arm"], row["share"]): row for row in found.table.to_dicts()}
    assert {("transfer", 0.0), ("no source", 0.0), ("transfer", 0.3), ("scratch", 0.3), ("sequence", 0.0)} <= set(rows)
    assert ("scratch", 0.0) not in rows, "there is nothing to learn from"
    assert {row["n"] for row in rows.values()} == {len(tried().task)}
    assert all(0 < row["mean"] < 1 for row in rows.values())


def test_zero_shot_has_a_verdict_against_the_content_methods() -> None:
    found = trial(scene().unseen, "target", scene().features, CHOSEN)
    assert set(found.arms) == {"transfer", "no source", "tfidf", "terms", "topics", "sequence"}
    assert [finding.rival for finding in found.verdict().findings] == ["no source"]
    assert found.runs["no source"].blend.methods == ("tfidf",)


def test_a_trial_goes_on_where_it_was_and_with_more_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[str] = []
    done = _Steps.carried
    monkeypatch.setattr(_Steps, "carried", lambda self, name, seed: (fitted.append(name), done(self, name, seed))[1])

    def stopped(self: _Steps, name: str, seed: int) -> Run:
        if name == "scratch":
            raise KeyboardInterrupt
        return done(self, name, seed)

    chosen = replace(CHOSEN, shuffled=False, seeds=1, methods=("popularity", "tfidf"))
    words = (scene().split, "target", scene().features)
    with monkeypatch.context() as once:
        once.setattr(_Steps, "carried", stopped)
        with pytest.raises(KeyboardInterrupt):
            trial(*words, chosen, work=tmp_path)
    first = trial(*words, chosen, work=tmp_path)
    assert fitted == ["scratch"], "what was done before the end was kept"
    again = trial(*words, replace(chosen, seeds=2), work=tmp_path)
    assert fitted == ["scratch", "transfer", "scratch"], "a further seed learns once more, the first does not"
    for name, (run, *_) in first.arms.items():
        other = again.arms[name][0]
        assert other.system == run.system
        assert np.array_equal(other.top, run.top)
        for metric, values in run.metrics.items():
            np.testing.assert_array_equal(other.metrics[metric], values)
    assert again.runs["transfer"].blend == first.runs["transfer"].blend
    assert again.runs["transfer"].settings == first.runs["transfer"].settings
    assert again.runs["sources"].target is None
    assert len(again.arms["scratch"]) == 2

    trial(*words, replace(chosen, persons=100), work=tmp_path)
    assert fitted[3:] == ["transfer", "scratch"], "other settings are another trial"
    for file in tmp_path.glob("scratch-0-*/arrays.safetensors"):
        file.write_bytes(b"not this")
    trial(*words, chosen, work=tmp_path)
    assert fitted[5:] == ["scratch"], "what was damaged is done again"
