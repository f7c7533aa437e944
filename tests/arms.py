"""Arms of a comparison drawn from known distributions: what a run does to each person is set, not learned."""

from __future__ import annotations

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.evaluate.protocol import Outcome
from isthmus.evaluate.ranks import Ranks
from isthmus.rng import generator
from isthmus.split.task import Task

T = 1000


def task(persons=120, **cohorts):
    """One target a person; half of the targets are of a new item."""
    return Task(
        domain="books",
        part="test",
        items=np.arange(T, dtype=np.int32),
        persons=np.arange(persons),
        histories=Histories.of([[0]] * persons),
        target_indptr=np.arange(persons + 1),
        targets=(np.arange(persons) % T).astype(np.int32),
        popularity=np.ones(T, np.int64),
        train_persons=persons,
        exclude_seen=False,
        cohorts=cohorts,
        item_groups={"platform 书店": np.arange(T) % 2 == 0} if cohorts else {},
    )


def outcome(asked, places, name="run"):
    """The outcome of a system that puts each person's target at a place counted from 0."""
    n = len(asked)
    ranks = Ranks(asked.target_indptr, np.asarray(places, float), np.ones(n), np.full(n, T))
    return Outcome(name, asked, (10,), ranks, np.zeros((n, 10), np.int32), 0.0, 0.0)


def value(places):
    """NDCG@10 by hand."""
    places = np.asarray(places)
    return np.where(places < 10, 1 / np.log2(places + 2), 0.0)


class Draws:
    """Runs of systems whose quality is known: places fall with quality, persons differ, chance does the rest."""

    def __init__(self, asked, *purpose, spread=0.0):
        self.asked, self.spread = asked, spread
        self.rng = generator(7, *purpose)
        self.person = self.rng.standard_normal(len(asked))

    def places(self, quality=0.0):
        luck = self.rng.standard_normal(len(self.asked)) + self.spread * self.rng.standard_normal()
        return np.floor(np.exp(2.0 + self.person + luck - quality))

    def arm(self, runs=5, quality=0.0, name="run"):
        return [outcome(self.asked, self.places(quality), name) for _ in range(runs)]
