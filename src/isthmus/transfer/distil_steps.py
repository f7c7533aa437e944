"""A student while it learns: persons in batches, and steps of Adam on what a batch touched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

import numpy as np

from isthmus.model.student import Student
from isthmus.transfer.distil_lessons import Lessons, gradient
from isthmus.types import Floats, Ints

#: Persons of one step.
BATCH: Final = 128


class Adam:
    """Adam (Kingma and Ba, ICLR 2015) on an array, row by row: a row without a gradient stays where it is.

    Parameters
    ----------
    values : float32 array (R, …)
        Changed in place.
    learning_rate : float
        Length of a step.

    Examples
    --------
    >>> values = np.array([[1.0], [1.0]], np.float32)
    >>> Adam(values, 0.5).step(np.array([1]), np.array([[2.0]], np.float32))
    >>> values.round(3).tolist()
    [[1.0], [0.5]]
    """

    def __init__(self, values: Floats, learning_rate: float) -> None:
        self.values, self.learning_rate = values, learning_rate
        self.mean, self.square = np.zeros_like(values), np.zeros_like(values)
        self.times = np.zeros((len(values), *[1] * (values.ndim - 1)), np.float32)

    def step(self, rows: Ints, slope: Floats) -> None:
        """Go one step against ``slope`` (len(rows), …); no row may come twice."""
        self.times[rows] += 1
        times = self.times[rows]
        self.mean[rows] = 0.9 * self.mean[rows] + 0.1 * slope
        self.square[rows] = 0.999 * self.square[rows] + 0.001 * slope**2
        mean, square = self.mean[rows] / (1 - 0.9**times), self.square[rows] / (1 - 0.999**times)
        self.values[rows] -= np.float32(self.learning_rate) * mean / (np.sqrt(square) + np.float32(1e-8))


class Pupil(ABC):
    """A student and what it learns from.

    Parameters
    ----------
    lessons : Lessons
        What the teacher said.
    objectives : mapping of str to float
        Weights of ``score``, ``list`` and ``vector``.
    temperature, learning_rate : float
        See :class:`~isthmus.transfer.distil.DistilSettings`.
    """

    student: Student
    #: What is learned; the bias comes last.
    steps: tuple[Adam, ...]

    def __init__(
        self, lessons: Lessons, objectives: Mapping[str, float], temperature: float, learning_rate: float
    ) -> None:
        self.lessons, self.learning_rate, self.objectives = lessons, learning_rate, objectives
        self.heat = temperature

    def learn(self, rng: np.random.Generator) -> float:
        """Go through all persons once; return the mean loss."""
        order = rng.permutation(len(self.lessons.histories))
        losses = [self._batch(order[start : start + BATCH]) for start in range(0, order.size, BATCH)]
        return float(np.mean(losses)) if losses else 0.0

    @abstractmethod
    def _batch(self, some: Ints) -> float:
        """Go one step on some persons; return their loss."""

    def _slope(self, some: Ints, scores: Floats) -> tuple[float, Floats]:
        """Return the loss of the scores of some persons, and its gradient by them."""
        lessons = self.lessons
        said = (lessons.columns[some], lessons.scores[some], lessons.top)
        weights = (self.objectives.get("score", 0.0), self.objectives.get("list", 0.0), self.heat)
        return gradient(scores, said, lessons.seen(some), weights)

    def _step_bias(self, kinds: Ints, slope: Floats) -> None:
        present = np.unique(kinds)
        self.steps[-1].step(present, np.stack([slope[kinds == kind].sum(axis=0) for kind in present]))

    def snapshot(self) -> tuple[Floats, ...]:
        """Return a copy of what was learned so far."""
        return tuple(step.values.copy() for step in self.steps)

    def restore(self, kept: tuple[Floats, ...]) -> None:
        """Go back to a snapshot."""
        for step, values in zip(self.steps, kept, strict=True):
            step.values[:] = values

    def finished(self) -> Student:
        """Return the student as it is served."""
        return self.student
