"""The verdict: known answers, its words, and how often it is right over many simulated comparisons."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from tests.arms import Draws, outcome, task, value

from isthmus.errors import DataError, InputError
from isthmus.evaluate.stats import Estimate, detectable_effect, holm, two_level
from isthmus.evaluate.verdict import Verdict, few_shot_curve
from isthmus.rng import generator

P = 120
COLD = np.arange(P) < 30
ASKED = task(P, **{"cold person": COLD, "warm person": ~COLD})
BASE = np.arange(P) % 7 + 3


def better(by, where=slice(None)):
    places = BASE.copy()
    places[where] -= by
    return [outcome(ASKED, places)]


# --- two samples at once: persons and runs ---


def naive(*tables):
    """The squared error of a difference of means by its definition, one number at a time."""
    persons = len(tables[0][0])
    mean = [[sum(run[p] for run in table) / len(table) for p in range(persons)] for table in tables]
    gaps = [mean[0][p] - (mean[1][p] if len(mean) > 1 else 0) for p in range(persons)]
    middle = sum(gaps) / persons
    square = sum((gap - middle) ** 2 for gap in gaps) / (persons - 1) / persons
    for table, of_person in zip(tables, mean, strict=True):
        runs = len(table)
        if runs > 1:
            of_run = [sum(run) / persons for run in table]
            whole = sum(of_run) / runs
            between = sum((m - whole) ** 2 for m in of_run) / (runs - 1)
            rest = sum(
                (table[s][p] - of_run[s] - of_person[p] + whole) ** 2 for s in range(runs) for p in range(persons)
            )
            square += max(0.0, between - rest / (runs - 1) / (persons - 1) / persons) / runs
    return middle, square**0.5


@pytest.mark.parametrize(("runs", "others"), [(5, 5), (3, 2), (4, 1), (1, 1), (3, None)])
def test_the_error_is_its_definition(runs, others):
    rng = generator(1, runs, others)
    tables = [rng.random((n, 9)) + 0.2 * rng.random((n, 1)) for n in (runs, others) if n]
    found = two_level(*tables)
    assert (found.mean, found.error) == pytest.approx(naive(*tables))


def test_one_run_each_is_the_paired_t_test():
    rng = generator(2)
    a, b = rng.random((2, 40))
    expected = reference.ttest_rel(a, b)
    found = two_level([a], [b])
    assert found.p() == pytest.approx(expected.pvalue)
    ends = expected.confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((ends.low, ends.high))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 4), st.integers(2, 12))
def test_swapping_and_copying_change_nothing_but_the_sign(seed, runs, others, persons):
    rng = generator(seed)
    a, b = rng.random((runs, persons)), rng.random((others, persons))
    found, back = two_level(a, b), two_level(b, a)
    assert (back.mean, back.error, back.freedom) == pytest.approx((-found.mean, found.error, found.freedom))
    assert found.error >= float(np.std(a.mean(0) - b.mean(0), ddof=1)) / persons**0.5 - 1e-12
    once, thrice = two_level(a[:1], b[:1]), two_level(a[[0, 0, 0]], b[:1])
    assert (thrice.mean, thrice.error, thrice.freedom) == pytest.approx((once.mean, once.error, once.freedom))


def test_what_an_estimate_tells():
    known = Estimate(0.3, 0.1, float("inf"))
    assert known.p() == pytest.approx(2 * reference.norm.sf(3))
    assert known.p(0.1) == pytest.approx(2 * reference.norm.sf(2))
    assert known.p(0.3) == 1.0
    assert known.detectable() == pytest.approx(0.28016, rel=1e-4)
    assert two_level([[0.5]]).p() == 1.0
    assert np.isnan(two_level([[0.5]]).error)
    assert two_level([[0.5, 0.5]], [[0.5, 0.5]]).p() == 1.0
    differences = generator(3).standard_normal(5000)
    assert two_level([differences]).detectable() == pytest.approx(detectable_effect(differences[:, None])[0], rel=1e-3)


# --- what it says ---


def test_better_than_every_rival_is_helped():
    arms = {"transfer": better(2), "scratch": better(0), "no source": better(1)}
    verdict = Verdict.of(arms)
    assert verdict.outcome == "helped"
    assert [(f.rival, f.outcome) for f in verdict.findings] == [("scratch", "helped"), ("no source", "helped")]
    gain = (value(BASE - 2) - value(BASE - 1)).mean()
    row = verdict.table.row(1, named=True)
    assert (row["rival"], row["slice"], row["n"]) == ("no source", "all", P)
    assert row["difference"] == pytest.approx(gain)
    assert row["low"] < row["difference"] < row["high"]
    assert (row["low_persons"], row["high_persons"]) == pytest.approx((row["low"], row["high"]), rel=0.05)
    assert row["p"] == max(row["p_persons"], row["p_runs"])
    means = f"{value(BASE - 2).mean():.4f} against {value(BASE - 1).mean():.4f}"
    assert verdict.sentence.startswith(f"Transfer helped: NDCG@10 {means} without a source")
    assert f"(+{100 * gain / value(BASE - 1).mean():.0f} %, 95 % [+" in verdict.sentence
    assert "p < 0.001, 1 seed only)" in verdict.sentence
    assert f"better than “scratch” (+{(value(BASE - 2) - value(BASE)).mean():.4f})." in verdict.sentence


def test_better_than_one_rival_only_is_not_helped():
    verdict = Verdict.of({"transfer": better(2), "scratch": better(0), "no source": better(2)})
    assert verdict.outcome == "no detectable difference"
    assert [f.outcome for f in verdict.findings] == ["helped", "no detectable difference"]
    nothing = "0.0000 (95 % [0.0000, 0.0000], p = 1.000, 1 seed only); nobody's value differs"
    assert verdict.sentence.startswith(f"No detectable difference from “no source”: {nothing}; better than “scratch”")


def test_what_would_have_been_seen_is_told():
    places = np.where(np.arange(P) % 2, BASE + 1, BASE - 1)
    verdict = Verdict.of({"transfer": [outcome(ASKED, places)], "scratch": better(0)}, rivals=("scratch",))
    row = verdict.table.row(0, named=True)
    assert verdict.outcome == "no detectable difference"
    assert verdict.sentence.endswith(f"{row['detectable']:.4f} or more would have been seen 8 times in 10.")
    assert row["detectable"] == pytest.approx(detectable_effect((value(places) - value(BASE))[:, None])[0], rel=0.02)


def test_worse_than_a_rival_without_a_source_is_hurt():
    arms = {"transfer": better(1), "scratch": better(0), "no source": better(2)}
    verdict = Verdict.of(arms)
    assert verdict.outcome == "hurt"
    assert verdict.sentence.startswith("Transfer hurt: NDCG@10")
    assert "without a source (−" in verdict.sentence
    assert "better than “scratch”" in verdict.sentence


def test_worse_than_another_transfer_is_no_harm():
    arms = {"transfer": better(1), "scratch": better(0), "LoRA 迁移": better(2)}
    verdict = Verdict.of(arms, rivals=("scratch", "LoRA 迁移"))
    assert verdict.outcome == "no detectable difference"
    assert verdict.findings[1].outcome == "hurt"
    assert verdict.sentence.startswith("No clear answer: worse than “LoRA 迁移” (−")


def test_whom_it_helped_most_is_told():
    arms = {"transfer": better(2, COLD), "scratch": better(0)}
    found = Verdict.of(arms, rivals=("scratch",))
    gain = (value(BASE - 2) - value(BASE))[COLD].mean()
    assert f"; most for “cold person” (+{gain:.4f})." in found.sentence
    harm = Verdict.of({"transfer": better(0), "scratch": better(2, COLD)}, rivals=("scratch",))
    assert f"; most for “cold person” (−{gain:.4f})." in harm.sentence
    even = Verdict.of({"transfer": [outcome(ASKED, BASE * 0)], "scratch": [outcome(ASKED, BASE * 0 + 3)]},
                      rivals=("scratch",))  # fmt: skip
    assert "most for" not in even.sentence


def test_slices_are_tested_with_their_own_targets_and_correction():
    verdict = Verdict.of({"transfer": better(1), "scratch": better(0), "no source": better(0)})
    parts = verdict.table.filter(pl.col("of") != "all")
    assert parts["slice"].unique(maintain_order=True).to_list() == ["cold person", "warm person", "platform 书店"]
    assert parts["of"].to_list() == ["persons"] * 4 + ["items"] * 2
    assert parts["p_holm"].to_list() == holm(parts["p"].to_numpy()).tolist()
    whole = verdict.table.filter(pl.col("of") == "all")
    assert whole["p_holm"].to_list() == holm(whole["p"].to_numpy()).tolist()
    cold = parts.row(0, named=True)
    assert (cold["n"], cold["difference"]) == (30, pytest.approx((value(BASE - 1) - value(BASE))[COLD].mean()))
    found = Estimate(cold["difference"], cold["error"], cold["freedom"])
    assert cold["detectable"] == pytest.approx(found.detectable(alpha=0.05 / 6))
    even = np.arange(P) % 2 == 0
    assert parts["n"].to_list()[-1] == even.sum()


def test_seeds_are_counted_where_there_is_chance():
    def said(runs, rival_runs):
        draws = Draws(ASKED, "count")
        arms = {"transfer": draws.arm(runs), "scratch": draws.arm(rival_runs)}
        return Verdict.of(arms, rivals=("scratch",)).sentence

    assert "5 seeds)" in said(5, 1)
    assert "3 seeds only)" in said(5, 3)
    assert "1 seed only)" in said(1, 5)
    assert "6 seeds)" in said(6, 6)


def test_controls_are_compared_and_have_no_say():
    arms = {"transfer": better(2), "scratch": better(0), "shuffled": better(3)}
    verdict = Verdict.of(arms, rivals=("scratch",))
    assert verdict.outcome == "helped"
    assert "shuffled" not in verdict.sentence
    assert [finding.rival for finding in verdict.findings] == ["scratch"]
    control = verdict.table.filter(role="control").row(0, named=True)
    assert (control["rival"], control["slice"], control["outcome"]) == ("shuffled", "all", "hurt")
    assert verdict.arms.select("arm", "role").rows() == [
        ("transfer", "main"),
        ("scratch", "rival"),
        ("shuffled", "control"),
    ]
    without = Verdict.of({name: arms[name] for name in ("transfer", "scratch")}, rivals=("scratch",))
    assert without.sentence == verdict.sentence


def test_a_margin_asks_for_more():
    arms = {"transfer": better(1), "scratch": better(0)}
    gain = float((value(BASE - 1) - value(BASE)).mean())
    judged = [Verdict.of(arms, rivals=("scratch",), margin=m) for m in (None, 0.0, gain / 2, gain * 1.01)]
    assert [verdict.outcome for verdict in judged] == ["helped"] * 3 + ["no detectable difference"]
    assert judged[0].sentence == judged[1].sentence
    assert judged[2].table["p"][0] > judged[0].table["p_runs"][0]
    seen = [verdict.table["detectable"][0] for verdict in judged]
    assert seen[2] - seen[0] == pytest.approx(gain / 2)


def test_a_margin_moves_both_tests():
    places = np.where(np.arange(P) % 4 < 3, BASE - 1, BASE + 1)
    arms = {"transfer": [outcome(ASKED, places)], "scratch": better(0)}
    gain = Verdict.of(arms, rivals=("scratch",)).table["difference"][0]
    plain, half = (Verdict.of(arms, rivals=("scratch",), margin=m).table.row(0, named=True) for m in (None, gain / 2))
    assert plain["p_persons"] < half["p_persons"] / 2
    assert plain["p_runs"] < half["p_runs"] / 2


def test_the_outcome_is_that_after_correction():
    draws = Draws(ASKED, "holm")
    rivals = [f"rival {i}" for i in range(8)]
    arms = {"transfer": draws.arm(1, 0.6), **{name: draws.arm(1) for name in rivals}}
    whole = Verdict.of(arms, rivals=rivals).table.filter(pl.col("of") == "all")
    assert ((whole["p"] < 0.05) & (whole["p_holm"] >= 0.05)).any(), "correction changes an outcome here"
    assert ((whole["outcome"] == "no detectable difference") == (whole["p_holm"] >= 0.05)).all()


def test_the_arms_are_summed_up():
    draws = Draws(ASKED, "arms", spread=0.5)
    runs = draws.arm(4)
    verdict = Verdict.of({"transfer": runs, "scratch": better(0)}, rivals=("scratch",))
    main, rival = verdict.arms.rows(named=True)
    means = [run.mean("ndcg@10") for run in runs]
    assert main["runs"] == 4
    assert (main["mean"], main["sd"]) == pytest.approx((np.mean(means), np.std(means, ddof=1)))
    assert main["low"] < main["mean"] < main["high"]
    assert rival["sd"] is None


def test_the_data_is_json_and_repeats():
    arms = {"transfer": Draws(ASKED, 1).arm(2), "scratch": better(0)}
    first, again = (Verdict.of(arms, rivals=("scratch",), seed=3) for _ in range(2))
    assert first.data == again.data
    text = json.dumps(first.data, allow_nan=False)
    assert json.loads(text)["rows"][0]["rival"] == "scratch"
    assert Verdict.of(arms, rivals=("scratch",), seed=4).data["rows"] != first.data["rows"]
    lonely = task(1)
    one = Verdict.of({"transfer": [outcome(lonely, [0])], "scratch": [outcome(lonely, [5])]}, rivals=("scratch",))
    assert one.outcome == "no detectable difference"
    assert one.sentence.endswith("; one person tells nothing.")
    assert json.loads(json.dumps(one.data, allow_nan=False))["rows"][0]["low"] is None


def test_what_cannot_be_judged_is_refused():
    arms = {"transfer": better(1), "scratch": better(0)}
    with pytest.raises(DataError, match="no arm 'no source'"):
        Verdict.of(arms)
    with pytest.raises(DataError, match="different arms"):
        Verdict.of(arms, rivals=("transfer",))
    with pytest.raises(DataError, match="different arms"):
        Verdict.of(arms, rivals=())
    with pytest.raises(DataError, match="no metric 'ndcg@7'"):
        Verdict.of(arms, rivals=("scratch",), metric="ndcg@7")
    with pytest.raises(DataError, match="has no run"):
        Verdict.of({**arms, "shuffled": []}, rivals=("scratch",))
    with pytest.raises(InputError, match="margin"):
        Verdict.of(arms, rivals=("scratch",), margin=-0.1)
    with pytest.raises(InputError, match="margin"):
        Verdict.of(arms, rivals=("scratch",), margin=float("nan"))
    other = replace(ASKED, exclude_seen=True)
    with pytest.raises(DataError, match="another task"):
        Verdict.of({**arms, "scratch": [outcome(other, BASE)]}, rivals=("scratch",))


# --- how often it is right ---


def judged(times, purpose, *, spread=0.0, quality=0.0, runs=(5, 5)):
    asked = task(P, **{"cold person": COLD})
    found = []
    for i in range(times):
        draws = Draws(asked, purpose, i, spread=spread)
        arms = {"transfer": draws.arm(runs[0], quality), "scratch": draws.arm(runs[1])}
        found.append(Verdict.of(arms, rivals=("scratch",), seed=i))
    return found


def share(verdicts, *outcomes):
    return np.mean([verdict.outcome in outcomes for verdict in verdicts])


@pytest.mark.parametrize("runs", [(5, 5), (5, 1)])
def test_equal_systems_are_called_equal(runs):
    verdicts = judged(200, "A/A", runs=runs)
    assert share(verdicts, "helped", "hurt") <= 0.07
    parts = [verdict.table.filter(pl.col("of") != "all")["outcome"] for verdict in verdicts]
    assert np.mean([(found != "no detectable difference").any() for found in parts]) <= 0.07


@given(seed=st.integers(0, 10_000), runs=st.integers(2, 7), others=st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_the_rounding_of_a_mean_is_no_effect(seed, runs, others):
    """Runs that all say the same, however many, in whatever order: not even a p-value knows them apart."""
    places = generator(seed, "places").integers(0, 14, P)
    verdict = Verdict.of(
        {"transfer": [outcome(ASKED, places)] * runs, "no source": [outcome(ASKED, places)] * others},
        rivals=("no source",),
    )
    assert verdict.outcome == "no detectable difference"
    assert "nobody's value differs" in verdict.sentence
    assert (verdict.table["difference"] == 0).all()
    assert (verdict.table["p_persons"] == 1).all()
    assert (verdict.table["p_runs"] == 1).all()


def test_lucky_seeds_do_not_help():
    verdicts = judged(200, "spread", spread=0.5)
    persons_only = np.mean([verdict.table["p_persons"][0] < 0.05 for verdict in verdicts])
    assert persons_only > 0.25, "the spread is large enough to deceive a test over persons"
    assert share(verdicts, "helped", "hurt") <= 0.07


@pytest.mark.parametrize(("spread", "quality"), [(0.0, 0.28), (0.3, 0.85)])
def test_an_effect_above_the_detectable_one_is_found(spread, quality):
    verdicts = judged(100, "power", spread=spread, quality=quality)
    true = np.mean([verdict.table["difference"][0] for verdict in verdicts])
    detectable = np.mean([verdict.table["detectable"][0] for verdict in verdicts])
    assert detectable < true < 1.3 * detectable, "the simulation is of an effect just above the detectable one"
    assert share(verdicts, "helped") >= 0.8
    assert share(verdicts, "hurt") == 0


# --- the few-shot curve ---


def test_the_curve_holds_every_point():
    draws = Draws(ASKED, "curve")
    points = {"transfer": {1.0: draws.arm(3, 1), 0.0: draws.arm(3), 0.01: draws.arm(2)}, "scratch": {0.01: better(0)}}
    curve = few_shot_curve(points)
    assert curve.table.select("arm", "share", "runs").rows() == [
        ("transfer", 0.0, 3),
        ("transfer", 0.01, 2),
        ("transfer", 1.0, 3),
        ("scratch", 0.01, 1),
    ]
    means = [np.mean([run.mean("ndcg@10") for run in points[row["arm"]][row["share"]]]) for row in curve.data["rows"]]
    assert curve.table["mean"].to_list() == pytest.approx(means)
    assert (curve.table["low"] < curve.table["mean"]).all()
    json.dumps(curve.data, allow_nan=False)


def test_points_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="write 10 % as"):
        few_shot_curve({"transfer": {10: better(0)}})
    with pytest.raises(DataError, match="has no run"):
        few_shot_curve({"transfer": {0.1: []}})
    with pytest.raises(DataError, match="at least one"):
        few_shot_curve({})
    with pytest.raises(DataError, match="another task"):
        few_shot_curve({"transfer": {0.1: better(0), 1.0: [outcome(task(P - 1), BASE[1:])]}})
