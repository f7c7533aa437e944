"""What is popular, over all time or lately."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.model.base import DAY, Features, Method, Settings, State, TrainingData, grown
from isthmus.types import Floats, Indices


class Popularity(Method):
    """Logarithm of the summed weights of the events on an item, each halved every ``half_life`` days (0: never).

    The recent variant is the strong non-personal baseline of Ji et al., "A Re-visit of the Popularity Baseline in
    Recommender Systems", SIGIR 2020.
    """

    name = "popularity"
    defaults: ClassVar[Settings] = {"half_life": 0.0}
    grid: ClassVar = {"half_life": (0.0,)}

    def _fit(self, data: TrainingData, seed: int) -> None:  # noqa: ARG002
        histories = data.histories
        half_life = self.number("half_life")
        age = (data.now - histories.ts) / DAY
        worth = histories.weights * (0.5 ** (age / half_life) if half_life else 1.0)
        counts = np.bincount(histories.items, weights=worth, minlength=data.n_items)[data.target]
        scale = counts.mean() or 1.0
        self.scores = np.log1p(counts / scale).astype(np.float32)

    def score(self, histories: Histories) -> Floats:
        """Return the same row for everybody, (B, T)."""
        return np.repeat(self.scores[None, :], len(histories), axis=0)

    def state(self) -> State:
        """Return the scores."""
        return {"scores": self.scores}

    def restore(self, state: State, features: Features) -> None:  # noqa: ARG002
        """Take back the scores."""
        self.scores = state["scores"].astype(np.float32)

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Nobody met a new item yet."""
        self.scores = grown(self.scores, target.size)


class RecentPopularity(Popularity):
    """Popularity of the last days."""

    name = "recent"
    defaults: ClassVar[Settings] = {"half_life": 30.0}
    grid: ClassVar = {"half_life": (30.0, 7.0, 90.0, 365.0)}
