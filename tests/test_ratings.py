"""Predicted ratings: known answers of every model, the blend, errors with intervals, and the whole way on a world."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.small import START

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.errors import DataError, InputError
from isthmus.evaluate.errors_of_ratings import Rated, chance_metrics, rating_errors, rating_tests
from isthmus.model.bias import Bias, Constant
from isthmus.model.rating_base import RatingModel, Ratings, ridge_rows
from isthmus.model.rating_blend import Stack, as_chances, learn_blend, rating_cohorts
from isthmus.model.rating_content import ContentRatings, FactorRatings
from isthmus.model.rating_knn import ResidualKnn
from isthmus.pipeline.rate import FittedRatings, RateSettings, pairs_of_test, rate
from isthmus.pipeline.rate_data import RatingTask
from isthmus.pipeline.rater import Rater, find_pairs
from isthmus.pipeline.task_reports import rating_report
from isthmus.split.temporal import TEST, VALID, Split

P, N = 60, 40


def planted(seed: int = 0, *, noise: float = 0.2, share: float = 0.4) -> tuple[Ratings, Ratings, np.ndarray]:
    """Ratings of known biases and tastes over two contents: those that teach, those that ask, and the contents."""
    rng = np.random.default_rng(seed)
    contents = np.eye(2)[np.arange(N) % 2] - 0.5
    taste = rng.choice([-1.0, 1.0], P)
    whole = 3 + rng.normal(0, 0.5, P)[:, None] + rng.normal(0, 0.5, N) + taste[:, None] * contents[:, 0]
    rows, columns = np.nonzero(rng.random((P, N)) < share)
    values = whole[rows, columns] + rng.normal(0, noise, rows.size)
    taught = rng.random(rows.size) < 0.7
    first, second = (Ratings.of(rows[m], columns[m], values[m], (P, N)) for m in (taught, ~taught))
    return first, second, contents


def rmse(model: RatingModel, known: Ratings, asked: Ratings) -> float:
    return float(np.sqrt(np.mean((model.predict(known, asked.persons, asked.items) - asked.values) ** 2)))


def test_the_last_rating_of_a_pair_counts_and_order_in_time_is_kept() -> None:
    rows = [(1, 0, 2.0), (0, 3, 1.0), (1, 2, 5.0), (1, 0, 4.0)]
    found = Ratings.of(*(np.array(column) for column in zip(*rows, strict=True)), (3, 4))
    assert list(zip(found.persons.tolist(), found.items.tolist(), found.values.tolist(), strict=True)) == [
        (0, 3, 1.0), (1, 2, 5.0), (1, 0, 4.0),
    ]  # fmt: skip
    assert found.newest(1).items.tolist() == [3, 0]
    assert found.matrix(found.values).toarray()[1].tolist() == [4.0, 0.0, 5.0, 0.0]


def test_ratings_that_are_none_are_refused() -> None:
    one = np.array([0])
    with pytest.raises(DataError, match="finite"):
        Ratings.of(one, one, np.array([np.nan]), (1, 1))
    with pytest.raises(DataError, match="there is not"):
        Ratings.of(one, np.array([1]), np.array([1.0]), (1, 1))
    with pytest.raises(InputError, match="no ratings"):
        Bias().fit(Ratings.of(one[:0], one[:0], np.zeros(0), (1, 1)))
    with pytest.raises(InputError, match="no setting"):
        Bias({"item": 1.0})
    with pytest.raises(InputError, match="above 0"):
        Bias({"items": 0.0})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_ridge_of_all_rows_is_that_of_each(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table, factors = rng.normal(size=(6, 9)) * (rng.random((6, 9)) < 0.5), rng.normal(size=(9, 3))
    found = ridge_rows(sparse.csr_array(table), factors, 2.0)
    for row, said in zip(table, found, strict=True):
        seen = factors[row != 0]
        np.testing.assert_allclose(
            said, np.linalg.solve(seen.T @ seen + 2 * np.eye(3), seen.T @ row[row != 0]), atol=1e-6
        )


def test_biases_are_the_damped_least_squares() -> None:
    taught, _, _ = planted()
    model = Bias({"items": 4.0, "persons": 7.0}).fit(taught)
    design = np.zeros((len(taught), P + N))
    design[np.arange(len(taught)), taught.persons] = 1
    design[np.arange(len(taught)), P + taught.items] = 1
    penalty = np.diag([7.0] * P + [4.0] * N)
    exact = np.linalg.solve(design.T @ design + penalty, design.T @ (taught.values - taught.values.mean()))
    np.testing.assert_allclose(model.items, exact[P:], atol=2e-3)
    np.testing.assert_allclose(model.persons(taught), exact[:P], atol=2e-3)


def test_new_people_and_new_items_get_what_can_be_known() -> None:
    taught, _, contents = planted()
    old = Ratings(taught.persons, taught.items, taught.values, (P + 1, N + 1))
    more = np.vstack([contents, contents[:1]])
    model = Bias().fit(old)
    new = model.predict(old, np.array([P, P, 0]), np.array([N, 3, N]))
    assert new[0] == pytest.approx(model.mean)
    assert new[1] == pytest.approx(model.mean + model.items[3])
    assert new[2] == pytest.approx(model.mean + model.persons(old)[0])
    for kind in (ContentRatings(more), FactorRatings(more), ResidualKnn()):
        assert np.isfinite(kind.fit(old).predict(old, np.array([P, P, 0]), np.array([N, 3, N]))).all()


def test_each_model_finds_what_is_planted_and_no_more() -> None:
    taught, asked, contents = planted()
    low = {"items": 1.0, "persons": 1.0}
    errors = {
        "mean": rmse(Constant().fit(taught), taught, asked),
        "bias": rmse(Bias(low).fit(taught), taught, asked),
        "knn": rmse(ResidualKnn({"shrink": 1.0, "damping": 0.5}).fit(taught), taught, asked),
        "content": rmse(ContentRatings(contents, {"taste": 1.0}, bias=low).fit(taught), taught, asked),
        "fm": rmse(FactorRatings(np.zeros((N, 1)), {"l2": 1.0, "dim": 2.0}).fit(taught), taught, asked),
    }
    assert 0.75 < errors["mean"] < 1.0
    assert 0.5 < errors["bias"] < 0.65  # tastes move ratings by a half
    assert errors["knn"] < 0.85 * errors["bias"]
    assert errors["fm"] < 0.85 * errors["bias"]
    assert 0.18 < errors["content"] < 0.4  # the noise is 0.2
    assert errors["content"] < errors["knn"]


@pytest.mark.parametrize("kind", ["bias", "knn", "content", "fm"])
def test_the_unit_of_the_scale_changes_nothing(kind: str) -> None:
    taught, asked, contents = planted()
    make = {"bias": Bias, "knn": ResidualKnn, "content": lambda: ContentRatings(contents)}
    make["fm"] = lambda: FactorRatings(contents, {"l2": 3.0, "dim": 2.0})
    said = []
    for factor in (1.0, 0.1):
        scaled = replace(taught, values=factor * taught.values)
        said.append(make[kind]().fit(scaled).predict(scaled, asked.persons, asked.items) / factor)
    np.testing.assert_allclose(said[0], said[1], atol=1e-4)


def test_contents_tell_the_mean_of_a_new_item() -> None:
    taught, _, _ = planted()
    good = np.arange(N) % 4 == 0
    raised = Ratings(taught.persons, taught.items, taught.values + 2.0 * good[taught.items], (P, N))
    without = raised.keep(raised.items > 3)
    contents = np.where(good, 1.0, -1.0)[:, None]
    model = ContentRatings(contents, {"prior": 5.0}).fit(without)
    new = model.bias.items
    assert 1.0 < new[0] - new[1] < 2.1
    assert Bias().fit(without).items[0] == 0


def test_neighbours_are_those_of_the_slow_way() -> None:
    taught, asked, _ = planted()
    model = ResidualKnn({"shrink": 3.0, "damping": 0.7}).fit(taught)
    above = taught.matrix(model.bias.residuals(taught)).toarray()
    unit = np.mean(model.bias.residuals(taught) ** 2)
    length = np.sqrt((above**2).sum(0) + 3.0 * unit)
    alike = (above.T @ above) / np.outer(length, length)
    np.fill_diagonal(alike, 0)
    given_ = taught.matrix(np.ones(len(taught))).toarray()
    for person, item in list(zip(asked.persons, asked.items, strict=True))[:40]:
        slow = alike[item] @ above[person] / (np.abs(alike[item]) @ given_[person] + 0.7)
        slow += model.bias.predict(taught, np.array([person]), np.array([item]))[0]
        assert model.predict(taught, np.array([person]), np.array([item]))[0] == pytest.approx(slow, abs=1e-4)


def stack(seed: int = 0) -> tuple[Stack, Ratings]:
    """Two halves of the truth, each told by one model, and a third that knows nothing; 30 persons of 10 ratings."""
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, 300))
    truth = 3 + one + two
    told = np.column_stack([3 + one, 3 + two, 3 + rng.normal(size=300)])
    taught = Ratings.of(np.arange(300), np.arange(300), truth, (300, 300))
    return Stack(np.repeat(np.arange(30), 10), truth, told, {}), taught


def test_the_blend_adds_what_models_know_and_takes_no_weight_below_0() -> None:
    made, taught = stack()
    blend = learn_blend(("one", "two", "noise"), made, taught)
    weights = blend.weights["all"]
    assert np.all(np.abs(weights[:2] - 1) < 0.15)
    assert 0 <= weights[2] < 0.1
    assert made.error(blend) < 0.2 * ((made.predictions - made.truth[:, None]) ** 2).sum(0).min()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_the_blend_is_never_worse_on_valid_than_the_best_model(seed: int, models: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 6, 40).astype(float)
    told = truth[:, None] + rng.normal(0, rng.uniform(0.1, 3, models), (40, models))
    taught = Ratings.of(np.arange(40), np.arange(40), truth, (40, 40))
    made = Stack(np.arange(40) // 4, truth, told, {})
    alone = ((np.clip(told, truth.min(), truth.max()) - truth[:, None]) ** 2).sum(0).min()
    assert made.error(learn_blend([str(k) for k in range(models)], made, taught)) <= alone + 1e-9


def test_a_cohort_gets_weights_of_its_own() -> None:
    rng = np.random.default_rng(1)
    n, people = 1200, np.arange(1200) // 10
    new = people % 2 == 0
    truth = 3 + rng.normal(size=n)
    told = np.column_stack([np.where(new, truth, 3 + rng.normal(size=n)), np.where(new, 3 + rng.normal(size=n), truth)])
    flags = np.zeros(n, bool)
    cohorts = {"new person": new, "known person": ~new, "1-3 ratings": flags, "new item": flags, "known item": ~flags}
    taught = Ratings.of(np.arange(n), np.arange(n), truth, (n, n))
    blend = learn_blend(("a", "b"), Stack(people, truth, told, cohorts), taught)
    assert blend.weights["new person, known item"].argmax() == 0
    assert blend.weights["known person, known item"].argmax() == 1


def test_cohorts_are_told_by_counts() -> None:
    known = Ratings.of(np.array([0, 1, 1, 1, 1]), np.array([0, 0, 1, 2, 3]), np.ones(5), (3, 6))
    found = rating_cohorts(known, known, np.array([2, 0, 1, 1]), np.array([0, 5, 5, 1]))
    assert {name: flags.tolist() for name, flags in found.items() if name in ("new person", "new item")} == {
        "new person": [True, False, False, False], "new item": [False, True, True, False],
    }  # fmt: skip
    assert found["both known"].tolist() == [False, False, False, True]


def test_errors_are_the_formulas_and_intervals_hold_them() -> None:
    rng = np.random.default_rng(0)
    people, truth = np.repeat(np.arange(50), 8), rng.normal(3, 1, 400)
    said = truth + rng.normal(0, 0.5, 400)
    rated = Rated(people, truth, {"a": said, "b": np.full(400, truth.mean())}, {"none": truth > 99, "some": truth > 3})
    table = rating_errors(rated)
    found = {
        row["metric"]: row for row in table.filter((pl.col("slice") == "all") & (pl.col("system") == "a")).to_dicts()
    }
    assert found["mae"]["value"] == pytest.approx(np.abs(said - truth).mean())
    assert found["rmse"]["value"] == pytest.approx(np.sqrt(np.mean((said - truth) ** 2)))
    assert found["r2"]["value"] == pytest.approx(1 - np.mean((said - truth) ** 2) / truth.var())
    assert found["rmse"]["low"] < 0.5 < found["rmse"]["high"]
    assert 0.02 < found["rmse"]["high"] - found["rmse"]["low"] < 0.12
    constant = table.filter((pl.col("system") == "b") & (pl.col("metric") == "r2") & (pl.col("slice") == "all"))
    assert constant["value"][0] == pytest.approx(0, abs=1e-9)
    assert set(table["slice"]) == {"all", "some"}
    tests = {row["slice"]: row for row in rating_tests(rated, "a").to_dicts()}
    assert tests["all"]["difference"] < 0
    assert tests["all"]["p_holm"] < 0.01
    with pytest.raises(DataError, match="fit"):
        Rated(people, truth, {"a": said[:3]}, {})


def test_persons_are_the_sample_of_a_test() -> None:
    """One person with 1,000 ratings is one observation: nothing can be said."""
    truth = np.ones(1000)
    rated = Rated(np.zeros(1000, np.int64), truth, {"a": truth, "b": truth + 1}, {})
    assert rating_tests(rated, "a")["p"][0] > 0.4


def test_chances_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    chance = rng.random(4000)
    truth = (rng.random(4000) < chance).astype(float)
    squeezed = 0.4 + 0.1 * chance
    found = chance_metrics(truth, as_chances(squeezed, truth, squeezed))
    raw = chance_metrics(truth, squeezed)
    assert found["auc"] == pytest.approx(raw["auc"])
    assert 0.8 < raw["auc"] < 0.87
    assert found["log_loss"] < 0.52 < raw["log_loss"]
    assert found["calibration"] == pytest.approx(1, abs=0.01)
    with pytest.raises(DataError, match="both"):
        chance_metrics(np.ones(3), np.ones(3))


@cache
def world_split(steps: int = 5) -> Split:
    """A world where half of the meetings are rated in both domains."""
    places = tuple(replace(p, habits=(("view", 1.0), ("rate", 0.7)), steps=steps) for p in WORLD.places)
    world = twin_world(0, replace(WORLD, places=places, persons=120, items=40, themes=4))
    return Split.make(Corpus.from_tables(world.tables, name="twin"), test_share=0.2)


@cache
def planted_split() -> Split:
    """The planted ratings as a log: what an item is about stands in its title; the last ten items are new in test."""
    taught, asked, _ = planted()
    rng = np.random.default_rng(3)
    both = [np.concatenate([getattr(r, n) for r in (taught, asked)]) for n in ("persons", "items", "values")]
    late = both[1] >= N - 5
    day = np.where(late, 90, rng.integers(0, 100, late.size))
    log = pl.DataFrame(
        {
            "platform": ["shop"] * late.size,
            "user": [f"u{k:03}" for k in both[0]],
            "item": [f"i{k:03}" for k in both[1]],
            "event": ["rate"] * late.size,
            "value": both[2],
            "ts": [START + timedelta(days=int(d)) for d in day],
        }
    )
    words = ("green tea 绿茶", "steel hammer 铁锤")
    items = pl.DataFrame(
        {
            "platform": ["shop"] * N,
            "item": [f"i{k:03}" for k in range(N)],
            "domain": ["things"] * N,
            "title": [f"{words[k % 2]} {k}" for k in range(N)],
        }
    )
    corpus = Corpus.from_tables({"events": log, "items": items}, name="planted")
    cuts = (START + timedelta(days=75), START + timedelta(days=88))
    return Split.make(corpus, cuts=cuts)


@cache
def fitted() -> FittedRatings:
    return rate(planted_split(), RateSettings("things", read=False))


def test_the_blend_finds_what_texts_say_of_people_and_new_items() -> None:
    found = fitted()
    table = rating_errors(found.judged(found.task.asked(TEST))).filter(pl.col("metric") == "rmse")
    by = {(row["slice"], row["system"]): row["value"] for row in table.to_dicts()}
    names = {"blend", "mean", "bias", "knn", "content (tfidf)", "fm"}
    assert {system for where, system in by if where == "all"} == names
    assert by["all", "blend"] < 0.9 * by["all", "bias"]
    assert by["all", "blend"] < 1.03 * min(by["all", name] for name in names)
    assert by["new item", "blend"] < by["new item", "bias"]
    report = rating_report(found)
    assert report.data["kind"] == "ratings"
    assert "better than “" in str(report.notes[0]) or "No detectable" in str(report.notes[0])


def test_test_ratings_change_no_prediction() -> None:
    split = planted_split()
    events = split.events.with_columns(value=pl.when(pl.col("part") == TEST).then(1.0).otherwise("value"))
    other = rate(Split(split.corpus, events, split.card), RateSettings("things", read=False))
    question = fitted().task.asked(TEST)
    first, second = (model.rater.predict(question.persons, question.items) for model in (fitted(), other))
    np.testing.assert_array_equal(first, second)


def test_pairs_of_anybody_and_anything_get_a_rating() -> None:
    found = fitted()
    user = found.task.split.corpus.persons[0].removeprefix("shop:")
    pairs = {"platform": ["shop"] * 4, "user": [user, "nobody", "nobody", user], "item": ["i000", "i000", "新", "新"]}
    rated = find_pairs(found.rater, pl.DataFrame(pairs))
    assert rated["rating"].is_between(*found.blend.scale).all()
    assert rated["known"].to_list() == ["both", "item", "neither", "person"]
    assert rated["rating"].n_unique() == 4
    tested = pairs_of_test(found)
    assert tested.height == found.task.asked(TEST).items.size
    assert tested.null_count().sum_horizontal().item() == 0


def test_a_kept_rater_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    found = fitted()
    found.rater.save(tmp_path / "kept")
    opened = Rater.open(tmp_path / "kept")
    question = found.task.asked(TEST)
    first, second = (one.tell(one.known, question.persons, question.items) for one in (found.rater, opened))
    assert list(first) == list(second)
    for name, said in first.items():
        np.testing.assert_array_equal(said, second[name], err_msg=name)
    nobody = np.array([10_000, 10_000]), np.array([0, -1])
    np.testing.assert_array_equal(found.rater.predict(*nobody), opened.predict(*nobody))
    with pytest.raises(InputError, match="cannot be kept"):
        replace(opened, head=lambda persons, _: persons * 1.0).save(tmp_path / "x")


def test_pairs_of_another_domain_are_refused() -> None:
    task = RatingTask.of(world_split(), "target")
    found = replace(fitted(), task=task)
    away = world_split().corpus.items.filter(pl.col("domain") == "source").select("platform", "item")[:1]
    with pytest.raises(DataError, match="not of domain"):
        find_pairs(found.rater, away.with_columns(user=pl.lit("nobody")))


def test_ratings_elsewhere_are_put_on_the_scale_of_the_target() -> None:
    task = replace(RatingTask.of(world_split(), "target"), elsewhere=True)
    away = task.events.filter(~pl.col("home") & (pl.col("part") == 0))["value"]
    home = task.events.filter(pl.col("home") & (pl.col("part") == 0))["value"]
    assert away.mean() == pytest.approx(home.mean())
    assert away.std() == pytest.approx(home.std())
    assert len(task.taught(VALID)) > len(replace(task, elsewhere=False).taught(VALID))


def test_a_domain_without_ratings_is_refused() -> None:
    split = world_split()
    bare = Split(split.corpus, split.events.with_columns(value=pl.lit(None, pl.Float64)), split.card)
    with pytest.raises(InputError, match="no rating"):
        rate(bare, RateSettings("target", read=False))
    with pytest.raises(InputError, match="did you mean"):
        rate(split, RateSettings("targte", read=False))
