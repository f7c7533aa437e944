"""How good an adapted model is on validation, by the metric of its head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.evaluate.metrics import class_metrics, scale_metrics
from isthmus.evaluate.protocol import judge
from isthmus.rng import generator
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import VALID, Split
from isthmus.transfer.classes import Classes
from isthmus.transfer.scene import Scene, rated

if TYPE_CHECKING:
    from isthmus.transfer.adapted import Adapted


class Exam(ABC):
    """Measures an adapted model."""

    #: Name of the metric.
    metric: ClassVar[str]

    @abstractmethod
    def measure(self, adapted: Adapted) -> float:
        """Return the metric, turned so that higher is better."""

    def said(self, measured: float) -> float:
        """Return the metric as it is told."""
        return measured


class RankingExam(Exam):
    """NDCG@10 over the whole catalogue of the target.

    Parameters
    ----------
    split : Split
        Whose validation part asks.
    domain : str
        The target.
    persons : int
        Persons that are asked, at most.
    """

    metric = "ndcg@10"

    def __init__(self, split: Split, domain: str, persons: int) -> None:
        self.task = build_task(split, VALID, domain, most=persons)

    def measure(self, adapted: Adapted) -> float:
        """Return the mean NDCG@10."""
        return judge(adapted, self.task, ks=(10,), threads=1).mean("ndcg@10")


class RatingExam(Exam):
    """Root mean squared error of the ratings of the validation part.

    Parameters
    ----------
    split : Split
        Whose validation part asks.
    scene : Scene
        The target.
    persons : int
        Persons that are asked, at most.

    Raises
    ------
    InputError
        The validation part has no rating in the target.
    """

    metric = "rmse"

    def __init__(self, split: Split, scene: Scene, persons: int) -> None:
        asked = rated(split, scene.domain).filter((pl.col("part") == VALID) & pl.col("value").is_not_null())
        if asked.is_empty():
            raise InputError(
                f"no validation event in domain '{scene.domain}' has a value",
                where=split.corpus.name,
                fix="import ratings as the column value, cut earlier, or take another head",
            )
        known = asked["person"].unique().sort().to_numpy().astype(np.int64)
        chosen = np.sort(generator(0, "exam").permutation(known)[:persons])
        asked = asked.filter(pl.col("person").is_in(chosen))
        self.histories = Histories.from_frame(split.known(VALID), chosen)
        self.rows = np.searchsorted(chosen, asked["person"].to_numpy())
        self.columns = np.searchsorted(scene.target, asked["item"].to_numpy())
        self.values = asked["value"].to_numpy().astype(np.float64)

    def measure(self, adapted: Adapted) -> float:
        """Return the error, below 0."""
        predicted = adapted.predict(self.histories)[self.rows, self.columns]
        return -scale_metrics(self.values, predicted.astype(np.float64))["rmse"]

    def said(self, measured: float) -> float:
        """Return the error."""
        return -measured


class ClassExam(Exam):
    """Accuracy on items that did not teach.

    Parameters
    ----------
    classes : Classes
        Some of whose items examine.
    """

    metric = "accuracy"

    def __init__(self, classes: Classes) -> None:
        self.classes = classes

    def measure(self, adapted: Adapted) -> float:
        """Return the share of items whose likeliest class is theirs."""
        rows, codes = self.classes.examined
        return class_metrics(codes, adapted.classes(rows.astype(np.int32)).argmax(axis=1))["accuracy"]


def exam_of(split: Split, scene: Scene, head: str, persons: int, classes: Classes | None) -> Exam:
    """Return the exam of a head."""
    if classes is not None:
        return ClassExam(classes)
    return RatingExam(split, scene, persons) if head == "rating" else RankingExam(split, scene.domain, persons)
