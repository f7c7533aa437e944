"""The rating head of a model that was carried over: it stands on the biases."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from tests.test_ratings import fitted

from isthmus.data.sequences import Histories
from isthmus.model.bias import Bias
from isthmus.pipeline.rate_data import RatingTask
from isthmus.pipeline.rate_head import CarriedHead, left_over
from isthmus.split.cohorts import target_items
from isthmus.split.temporal import TEST, VALID


class Zero:
    """An adapted model whose head adds nothing."""

    def __init__(self, target: np.ndarray) -> None:
        self.scene = SimpleNamespace(target=target)

    def predict(self, histories: Histories) -> np.ndarray:
        return np.zeros((len(histories), self.scene.target.size), np.float32)


def test_a_carried_head_learns_what_the_biases_leave_over_and_adds_to_them() -> None:
    task = fitted().task
    bias = Bias().fit(task.taught(VALID))
    left = RatingTask.of(left_over(task, bias), "things").taught(VALID)
    taught = task.taught(VALID)
    np.testing.assert_allclose(left.values, bias.residuals(taught), atol=1e-9)
    assert left.values.std() < 0.9 * taught.values.std(), "what is left over is less"
    question = task.asked(TEST)
    pairs = question.persons, question.items
    added = CarriedHead(Zero(target_items(task.split, "things")), task, above=True)  # type: ignore[arg-type]
    later = Bias().fit(task.taught(TEST))
    np.testing.assert_allclose(added.ratings(TEST, later, *pairs), later.predict(task.known(TEST), *pairs))
    assert not replace(added, above=False).ratings(TEST, later, *pairs).any()
