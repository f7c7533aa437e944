"""Judging systems: exclusion, slices, comparisons, list metrics, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest

from isthmus.data.sequences import Histories
from isthmus.errors import DataError
from isthmus.evaluate.compare import compare, everybody, list_metrics, seed_spread, slices, summarise
from isthmus.evaluate.protocol import judge
from isthmus.evaluate.ranks import Ranks, top_k
from isthmus.rng import generator
from isthmus.split.task import Task

N, T, P = 60, 40, 90


@dataclass
class System:
    """Scores that depend on the whole history only, plus noise of a fixed size for each item."""

    name: str
    quality: float
    seed: int = 0

    def score(self, histories):
        rng = generator(self.seed, self.name)
        table = rng.random((N, T), dtype=np.float32)
        ideal = np.equal.outer((np.arange(N) * 7) % T, np.arange(T)).astype(np.float32)
        sums = histories.matrix(N) @ (table + self.quality * ideal)
        return np.asarray(sums, dtype=np.float32)


def world(*, exclude_seen=True):
    """Targets are column ``7 * item`` of one item of the history."""
    rng = generator(1, "protocol")
    rows = [rng.permutation(N)[: rng.integers(1, 6)].tolist() for _ in range(P)]
    wanted = [sorted({(row[-1] * 7) % T, (row[0] * 7) % T}) for row in rows]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in wanted])])
    return Task(
        domain="books",
        part="test",
        items=np.arange(10, 10 + T, dtype=np.int32),
        persons=np.arange(P),
        histories=Histories.of(rows),
        target_indptr=indptr,
        targets=np.array([c for row in wanted for c in row], np.int32),
        popularity=np.arange(T)[::-1].copy(),
        train_persons=T,
        exclude_seen=exclude_seen,
        cohorts={"odd": np.arange(P) % 2 == 1, "nobody": np.zeros(P, dtype=bool)},
        item_groups={
            "new item": np.arange(T) >= 30,
            "platform 书店": np.arange(T) < 20,
            "none": np.zeros(T, dtype=bool),
        },
    )


@pytest.fixture(scope="module")
def task():
    return world()


@pytest.fixture(scope="module")
def outcomes(task):
    return [judge(System(name, q), task, ks=(5, 10), both=True) for name, q in (("good", 3), ("fair", 1), ("bad", 0))]


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("block", [7, 64, 1000])
def test_blocks_and_rules_change_nothing_but_what_they_say(exclude_seen, block):
    task = world(exclude_seen=exclude_seen)
    outcome = judge(System("a", 1), task, ks=(5,), block=block, both=True)
    scores = System("a", 1).score(task.histories)
    masked = scores.copy()
    for person, row in enumerate(np.split(task.histories.items, task.histories.indptr[1:-1])):
        masked[person, [item - 10 for item in row if 10 <= item < 10 + T]] = -np.inf
    for rule, found in ((exclude_seen, outcome), (not exclude_seen, outcome.other)):
        expected = masked if rule else scores
        assert found.task.exclude_seen == rule
        assert found.ranks.mid.tolist() == Ranks.of(expected, task.target_indptr, task.targets).mid.tolist()
        assert found.top.tolist() == top_k(expected, 5).tolist()
    assert task.unreachable == np.isinf(Ranks.of(masked, task.target_indptr, task.targets).above).sum() > 0


def test_the_scores_of_the_system_are_left_alone(task):
    kept = np.ones((P, T), np.float32)

    class Cached:
        name = "cached"

        def score(self, histories):
            return kept[: len(histories)]

    judge(Cached(), task)
    assert (kept == 1).all()


def test_slices_count_their_persons_and_targets(task, outcomes):
    parts = {part.name: part for part in slices(task)}
    assert list(parts) == ["odd", "new item", "platform 书店"]
    rows = task.target_rows
    fresh = np.unique(rows[task.targets >= 30])
    assert np.flatnonzero(parts["new item"].persons).tolist() == fresh.tolist()
    values = parts["new item"].values(outcomes[0], ["recall@5"])[:, 0]
    ranks = outcomes[0].ranks
    for person, value in zip(fresh, values, strict=True):
        mine = (rows == person) & (task.targets >= 30)
        assert value == pytest.approx((ranks.mid[mine] <= 5).mean())
    assert not np.isnan(values).any()


def test_the_summary_is_the_mean_over_the_slice(task, outcomes):
    odd = slices(task)[0]
    table = summarise(outcomes, odd, ["ndcg@10", "auc"], seed=3)
    assert table["system"].to_list() == ["good", "good", "fair", "fair", "bad", "bad"]
    assert table["n"].unique().to_list() == [P // 2]
    for row in table.iter_rows(named=True):
        outcome = next(o for o in outcomes if o.system == row["system"])
        assert row["mean"] == pytest.approx(outcome.metrics[row["metric"]][1::2].mean())
        assert row["low"] <= row["mean"] <= row["high"]
    assert table.equals(summarise(outcomes, odd, ["ndcg@10", "auc"], seed=3))


def test_the_comparison_finds_the_better_system(task, outcomes):
    table = compare(outcomes, [everybody(task)], "ndcg@10", main="good", draws=2000)
    assert table["system"].to_list() == ["fair", "bad"]
    bad = table.row(1, named=True)
    assert bad["difference"] == pytest.approx(outcomes[0].mean("ndcg@10") - outcomes[2].mean("ndcg@10"))
    assert 0 < bad["low"] < bad["difference"] < bad["high"]
    assert bad["p"] <= bad["p_holm"] < 0.01
    assert bad["p_wilcoxon"] < 0.01
    assert 0 < bad["detectable"] < bad["difference"]
    twin = [outcomes[2], replace(outcomes[2], system="twin")]
    same = compare(twin, [everybody(task)], "ndcg@10", main="twin").row(0, named=True)
    assert (same["p"], same["p_wilcoxon"], same["difference"]) == (1.0, 1.0, 0.0)


def test_holm_counts_all_rows_of_a_comparison(task, outcomes):
    parts = [everybody(task), *slices(task)]
    table = compare(outcomes, parts, "ndcg@10", main="good", draws=500)
    assert table.height == 2 * len(parts)
    smallest = table["p"].min()
    assert table.filter(pl.col("p") == smallest)["p_holm"].min() == pytest.approx(smallest * table.height)
    alone = compare(outcomes[:1], parts, "ndcg@10", main="good")
    assert alone.height == 0
    assert alone.columns == table.columns


def test_what_cannot_be_compared_is_refused(task, outcomes):
    with pytest.raises(DataError, match="no system 'gut'"):
        compare(outcomes, [everybody(task)], "ndcg@10", main="gut")
    with pytest.raises(DataError, match="another task"):
        summarise([outcomes[0], replace(outcomes[1].other, system="x")], everybody(task), ["auc"])
    with pytest.raises(DataError, match="one name"):
        summarise([outcomes[0], outcomes[0]], everybody(task), ["auc"])
    with pytest.raises(DataError, match="at least one"):
        summarise([], everybody(task), ["auc"])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda b: np.zeros((b, T - 1), np.float32), "expected"),
        (lambda b: np.full((b, T), np.nan, np.float32), "not a number"),
    ],
)
def test_broken_systems_are_named(task, scores, message):
    class Broken:
        name = "broken"

        def score(self, histories):
            return scores(len(histories))

    with pytest.raises(DataError, match=message) as error:
        judge(Broken(), task)
    assert error.value.where == "system broken"


def test_list_metrics_of_popularity(task):
    class Popular:
        name = "popularity"

        def score(self, histories):
            return np.tile(task.popularity.astype(np.float32), (len(histories), 1))

    outcome = judge(Popular(), replace(task, exclude_seen=False), ks=(5,))
    found = list_metrics(outcome, 4, np.eye(T, dtype=np.float32))
    assert found["coverage"] == 4 / T
    assert found["gini"] == pytest.approx(1 - 4 / T)
    assert found["popularity"] == pytest.approx(np.mean([39, 38, 37, 36]))
    assert found["popularity_lift"] > 1.5
    assert found["diversity"] == pytest.approx(1)
    with pytest.raises(DataError, match="5 places"):
        list_metrics(outcome, 6)


def test_the_spread_over_seeds(task):
    runs = [judge(System("good", 2, seed), task, ks=(10,)) for seed in range(3)]
    table = seed_spread(runs, ["ndcg@10"])
    means = [run.mean("ndcg@10") for run in runs]
    assert table.row(0) == pytest.approx(("ndcg@10", 3, np.mean(means), np.std(means, ddof=1), min(means), max(means)))


def test_one_row_a_person(task, outcomes):
    frame = outcomes[0].frame
    assert frame["person"].to_list() == list(range(P))
    assert set(frame.columns) >= {"recall@5", "map@10", "auc"}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"persons": np.arange(3)}, "one history"),
        ({"target_indptr": np.arange(P)}, "one set of targets"),
        ({"targets": np.full(3, 1, np.int32)}, "last target"),
        ({"items": np.zeros(T, np.int32)}, "items rise"),
        ({"popularity": np.zeros(2, np.int64)}, "one popularity"),
        ({"cohorts": {"a": np.ones(2, dtype=bool)}}, "cohort flag"),
        ({"item_groups": {"a": np.ones(2, dtype=bool)}}, "group flag"),
    ],
)
def test_a_task_whose_parts_do_not_fit_is_refused(task, change, rule):
    with pytest.raises(DataError, match=rule):
        replace(task, **change)


def test_targets_must_be_columns_and_differ(task):
    outside, twice = task.targets.copy(), task.targets.copy()
    outside[0] = T
    twice[task.target_indptr[0] : task.target_indptr[1]] = 3
    with pytest.raises(DataError, match="columns"):
        replace(task, targets=outside)
    with pytest.raises(DataError, match="twice"):
        replace(task, targets=twice)
    none = replace(
        task,
        persons=np.arange(0),
        histories=Histories.of([]),
        target_indptr=np.zeros(1, np.int64),
        targets=np.zeros(0, np.int32),
        cohorts={},
    )
    with pytest.raises(DataError, match="no person"):
        judge(System("a", 1), none)
