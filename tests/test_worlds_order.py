"""A world in which only order tells what comes next, and one in which order is noise: who can know what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.augment import shuffle_histories
from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import ORDER, order_world, shuffled_world, twin_world
from isthmus.data.simulate.walks import successors, walk
from isthmus.data.simulate.wording import lexicon
from isthmus.data.simulate.worlds import World
from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.ranks import Ranks
from isthmus.model.base import Features, TrainingData
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import training_data
from isthmus.train.methods import make
from isthmus.train.tune import validate

#: Co-occurrence in the whole history, whatever the order.
SETS = {"knn": {"window": 80, "near": 1.0, "decay": 1.0}, "ease": {"decay": 1.0}, "popularity": {}}


@dataclass
class Judged:
    """The target domain of a world, each person's last event asked for."""

    world: World
    task: Task
    data: TrainingData
    themes: np.ndarray

    @classmethod
    def of(cls, world: World) -> Judged:
        corpus = Corpus.from_tables(world.tables, name="order")
        split = Split.make(corpus, protocol="leave-last")
        known = corpus.items.join(world.themes, on=["platform", "item"], how="left", maintain_order="left")
        names = {name: place for place, name in enumerate(lexicon().names)}
        themes = known["theme"].replace_strict(names).to_numpy()
        return cls(world, build_task(split, TEST, "target"), training_data(split, TEST, "target", Features()), themes)

    def sets(self) -> dict[str, float]:
        """NDCG@10 of methods that look at sets."""
        return {name: validate(make(name, chosen).fit(self.data), self.task) for name, chosen in SETS.items()}

    def markov(self, histories: Histories | None = None) -> float:
        """NDCG@10 of the theme most often met after that of the last item, counted in training."""
        learned = self.data.histories
        pair = learned.rows[1:] == learned.rows[:-1]
        counts = np.zeros((self.world.plan.themes,) * 2)
        np.add.at(counts, (self.themes[learned.items[:-1][pair]], self.themes[learned.items[1:][pair]]), 1)
        return self.ndcg((counts / counts.sum(axis=1, keepdims=True))[self.last(histories)])

    def oracle(self, histories: Histories | None = None) -> float:
        """NDCG@10 of who knows what follows on what."""
        names = lexicon().names
        rule = self.world.next_themes.filter(pl.col("domain") == "target")
        after = np.zeros((self.world.plan.themes,) * 2)
        after[[names.index(name) for name in rule["theme"]], [names.index(name) for name in rule["next"]]] = 1
        return self.ndcg(after[self.last(histories)])

    def last(self, histories: Histories | None) -> np.ndarray:
        histories = histories or self.task.histories
        return self.themes[histories.items[histories.indptr[1:] - 1]]

    def ndcg(self, by_theme: np.ndarray) -> float:
        scores = by_theme[:, self.themes[self.task.items]].astype(np.float32)
        scores[self.task.seen(0, len(self.task))] = -np.inf
        return float(ndcg(Ranks.of(scores, self.task.target_indptr, self.task.targets), 10).mean())

    def chance(self) -> float:
        return self.ndcg(np.zeros((len(self.task), self.world.plan.themes)))


@pytest.mark.parametrize("seed", [0, 1])
def test_in_the_order_world_only_the_last_item_tells_the_next(seed: int) -> None:
    judged = Judged.of(order_world(seed))
    chance, oracle = judged.chance(), judged.oracle()
    assert 0.30 < oracle < 0.40
    assert oracle > 3.5 * chance
    assert oracle > 3 * max(judged.sets().values())
    assert max(judged.sets().values()) < 1.5 * chance
    assert abs(judged.markov() - oracle) < 0.01


@pytest.mark.parametrize("seed", [0, 1])
def test_in_the_shuffled_world_the_set_tells_more_than_the_last_item(seed: int) -> None:
    judged = Judged.of(shuffled_world(seed))
    sets = judged.sets()
    assert judged.world.next_themes.is_empty()
    assert 0.25 < sets["ease"] < 0.40
    assert min(sets["ease"], sets["knn"]) > 1.1 * judged.markov()


def test_shuffled_histories_of_the_order_world_tell_nothing() -> None:
    judged = Judged.of(order_world(2))
    shuffled = shuffle_histories(judged.task.histories, np.random.default_rng(0))
    assert judged.oracle(shuffled) < 1.6 * judged.chance()
    judged.data = replace(judged.data, histories=shuffle_histories(judged.data.histories, np.random.default_rng(0)))
    assert judged.markov(shuffled) < 1.6 * judged.chance()


def test_shuffling_changes_nothing_in_the_shuffled_world() -> None:
    judged = Judged.of(shuffled_world(3))
    before = judged.markov()
    judged.data = replace(judged.data, histories=shuffle_histories(judged.data.histories, np.random.default_rng(0)))
    shuffled = judged.markov(shuffle_histories(judged.task.histories, np.random.default_rng(0)))
    assert abs(shuffled - before) < 0.03


def steps(world: World, platform: str) -> Counter[bool]:
    """Count how often a theme follows on the theme met before as the world says."""
    met = world.tables["events"].join(world.themes, on=["platform", "item"]).filter(pl.col("platform") == platform)
    domain = next(place.domain for place in world.plan.places if place.platform == platform)
    rule = dict(world.next_themes.filter(pl.col("domain") == domain).select("theme", "next").iter_rows())
    lists = met.sort("user", "ts").group_by("user", maintain_order=True).agg("theme")["theme"].to_list()
    return Counter(rule[a] == b for row in lists for a, b in pairwise(row))


def test_themes_follow_as_often_as_planned_and_alike_in_both_domains() -> None:
    world = order_world(4, plan=replace(ORDER, follows=0.7, persons=500))
    for platform in ("north", "south"):
        count = steps(world, platform)
        assert abs(count[True] / count.total() - (0.7 + 0.3 / 6)) < 0.02
    rules = world.next_themes.partition_by("domain", include_key=False)
    assert rules[0].equals(rules[1])
    other = order_world(4, plan=replace(ORDER, persons=20, carries_over=False)).next_themes
    assert not other.partition_by("domain", include_key=False)[0].equals(
        other.partition_by("domain", include_key=False)[1]
    )


def test_nobody_meets_an_item_twice_and_all_themes_are_met_alike() -> None:
    world = order_world(5)
    events = world.tables["events"]
    assert not events.select("platform", "user", "item").is_duplicated().any()
    shares = events.join(world.themes, on=["platform", "item"])["theme"].value_counts(normalize=True)["proportion"]
    assert shares.max() < 1.1 / 6
    popularity = events["item"].value_counts()["count"]
    assert popularity.max() < 1.6 * popularity.median()


def test_order_can_be_added_to_a_world_with_late_items() -> None:
    world = order_world(1, plan=replace(ORDER, late=0.5, persons=200))
    met = world.tables["events"].join(
        world.tables["items"].select("platform", "item", "available_from"), on=["platform", "item"]
    )
    assert (met["ts"] >= met["available_from"]).all()
    assert 0.5 < steps(world, "north")[True] / steps(world, "north").total() < 0.9


def test_a_seed_gives_the_same_worlds() -> None:
    plan = replace(ORDER, persons=30)
    for make_world in (order_world, shuffled_world):
        first, again, other = (make_world(seed, plan).tables["events"] for seed in (1, 1, 2))
        assert first.equals(again)
        assert not first.equals(other)
    assert order_world(1, plan).tables["items"].equals(shuffled_world(1, plan).tables["items"])
    assert twin_world(1).next_themes.is_empty()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12), max_size=6), st.integers(1, 4), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0])
)
def test_a_walk_keeps_the_rule_and_repeats_nothing(counts: list[int], n: int, seed: int, follows: float) -> None:
    rng = np.random.default_rng(seed)
    themes = rng.permutation(np.arange(12) % n)
    after = successors(n, rng)
    assert sorted(after.tolist()) == list(range(n))
    assert n == 1 or (after != np.arange(n)).all()
    items = walk(np.array(counts, dtype=np.int64), themes, after, follows, rng).tolist()
    assert len(items) == sum(counts)
    for count in counts:
        mine, items = items[:count], items[count:]
        met = [item for item in mine if item >= 0]
        assert len(set(met)) == len(met)
        if follows == 1.0:
            pairs = [(a, b) for a, b in pairwise(mine) if a >= 0 and b >= 0]
            assert all(after[themes[a]] == themes[b] for a, b in pairs)
            assert -1 not in mine
