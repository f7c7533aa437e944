"""What new items may expect: how popular they will be, and how many places of a list they may try out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.evaluate.ranks import top_k
from isthmus.model.base import DAY, Doubles, Features, Method, Settings, State, TrainingData
from isthmus.model.blend import standardise
from isthmus.model.space import ContentSpace
from isthmus.room import appended
from isthmus.types import Bools, Floats, Indices, Ints

#: With fewer launches than this in the log, all events of an item say how popular it became.
ENOUGH_LAUNCHES = 50


class Launch(Method):
    """Popularity that an item can be expected to have when it is new, from how earlier items of its kind were received.

    The kind is the content, categories included (:class:`isthmus.model.space.ContentSpace`). What is predicted, by
    ridge regression, is the logarithm of the events in the first ``days`` after an item's first one: of items that
    began neither with the log nor too late to be seen that long. Without dates it is the logarithm of all events.
    """

    name = "launch"
    defaults: ClassVar[Settings] = {"days": 60.0, "l2": 30.0, "dim": 64}
    grid: ClassVar = {"days": (60.0,)}
    reading = ()
    inductive = True

    def _fit(self, data: TrainingData, seed: int) -> None:
        if data.features.text is None and data.features.vectors is None:
            raise InputError("the method launch needs item texts")
        self.space = ContentSpace.fit(data.features, dim=int(self.number("dim")), seed=seed)
        rows = self.space.rows(data.features)
        taught, reached = launches(data, self.number("days"))
        near, wanted = rows[taught], reached - (reached.mean() if taught.size else 0.0)
        ridge = near.T @ near + self.number("l2") * np.eye(near.shape[1])
        self.taste = np.linalg.solve(ridge, near.T @ wanted).astype(np.float32)
        self.expected = rows[data.target] @ self.taste

    def score(self, histories: Histories) -> Floats:
        """Return the same row for everybody, (B, T)."""
        return np.repeat(self.expected[None, :], len(histories), axis=0)

    def state(self) -> State:
        """Return the space and the coefficients."""
        return {**self.space.state(), "taste": self.taste}

    def restore(self, state: State, features: Features) -> None:
        """Take back what was learned."""
        self.space, self.taste = ContentSpace.of(state), state["taste"].astype(np.float32)
        self.expected = self.space.rows(features)[self.target] @ self.taste

    def extend(self, features: Features, target: Indices) -> None:
        """Expect of new items what their content says."""
        fresh = features.texts_of(target[self.expected.size :])
        self.expected = appended(self.expected, self.space.rows(fresh) @ self.taste)


def launches(data: TrainingData, days: float) -> tuple[Ints, Doubles]:
    """Return the target items whose launch was seen, (L,), and the logarithm of one plus the events after it, (L,)."""
    items, ts = data.histories.items, data.histories.ts
    every = np.bincount(items, minlength=data.n_items)
    if data.dated and items.size:
        first = np.full(data.n_items, np.iinfo(np.int64).max)
        np.minimum.at(first, items, ts)
        window = int(days * DAY)
        early = np.bincount(items[ts - first[items] <= window], minlength=data.n_items)
        seen = (every > 0) & (first > ts.min() + window) & (first <= data.now - window) & data.in_target
        if seen.sum() >= ENOUGH_LAUNCHES:
            return np.flatnonzero(seen), np.log1p(early[seen])
    met = np.flatnonzero((every > 0) & data.in_target)
    return met, np.log1p(every[met])


def expected(methods: Sequence[Method], new: Bools) -> Floats:
    """Return how popular each new item can be expected to become, (T,): mean 0 and deviation 1 over the new ones.

    What :class:`Launch` learned of the first days of earlier items of their kind; zeros where it takes no part, and for
    items that are not new.

    Parameters
    ----------
    methods : sequence of Method
        Those of a target.
    new : bool array (T,)
        Which items are new.
    """
    found = np.zeros(new.size, np.float32)
    launch = next((method for method in methods if isinstance(method, Launch)), None)
    if launch is not None and new.any():
        found[new] = standardise(launch.expected[None, new].astype(np.float32))[0]
    return found


@dataclass(frozen=True)
class Exploration:
    """How lists try out new items.

    Parameters
    ----------
    cap : int, optional
        New items that a list may hold at most; as many as deserve it by default.
    bonus : float
        Added to the score of a new item that nobody was shown yet, in standard deviations of a method's scores.
    half : float
        Times shown after which the bonus is half.
    prior : float
        Weight of how popular a new item can be expected to become (:func:`expected`), in the same unit.

    Examples
    --------
    >>> Exploration(bonus=1.0, half=10).bonuses(np.array([0, 10, 20])).tolist()
    [1.0, 0.5, 0.25]
    """

    cap: int | None = None
    bonus: float = 0.0
    half: float = 50.0
    prior: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if (self.cap is not None and self.cap < 0) or min(self.bonus, self.prior) < 0 or self.half <= 0:
            raise InputError(
                f"exploration with cap {self.cap}, bonus {self.bonus}, half {self.half}, prior {self.prior}",
                fix="take a cap, a bonus and a prior of at least 0, and half above 0",
            )

    @classmethod
    def of_share(cls, share: float, k: int, *, bonus: float = 0.5) -> Exploration:
        """Return the exploration that gives new items up to ``share`` of the ``k`` places of a list, at least one.

        Bonus and prior are alike: a new item expected to be as popular as new items are on average gets the bonus, one
        that stands a standard deviation above them twice that.

        Raises
        ------
        InputError
            A share outside 0 to 1.

        Examples
        --------
        >>> Exploration.of_share(0.25, 10).cap, Exploration.of_share(0.01, 10).cap, Exploration.of_share(0, 10).cap
        (2, 1, 0)
        """
        if not 0 <= share <= 1:
            raise InputError(f"share {share} of the places of a list", fix="give a number from 0 to 1")
        return cls(max(int(share * k + 1e-9), int(share > 0)), bonus, prior=bonus)

    def bonuses(self, exposures: Ints) -> Doubles:
        """Return what is added to the score of items shown so many times."""
        return np.asarray(self.bonus * 0.5 ** (exposures / self.half), dtype=np.float64)

    def apply(
        self, scores: Floats, new: Bools, exposures: Ints | None = None, expected: Floats | None = None
    ) -> Floats:
        """Return the scores (B, T) with the bonus on new items, all but the best ``cap`` new ones of each row excluded.

        Parameters
        ----------
        scores : float32 array (B, T)
            Minus infinity excludes an item.
        new : bool array (T,)
            Which items are new.
        exposures : int64 array (T,), optional
            How often each item was shown since it came; never by default.
        expected : float32 array (T,), optional
            How popular each new item can be expected to become (:func:`expected`); all alike by default.
        """
        columns = np.flatnonzero(new)
        shown = np.zeros(new.size, np.int64) if exposures is None else exposures
        lifted = scores.copy()
        lifted[:, columns] += self.bonuses(shown[columns]).astype(np.float32)
        if self.prior and expected is not None:
            lifted[:, columns] += np.float32(self.prior) * expected[columns]
        if self.cap is None or self.cap >= columns.size:
            return lifted
        part = lifted[:, columns]
        kept = np.full_like(part, -np.inf)
        if self.cap:
            best: Indices = top_k(part, self.cap)
            rows, places = np.nonzero(best >= 0)
            kept[rows, best[rows, places]] = part[rows, best[rows, places]]
        lifted[:, columns] = kept
        return lifted
