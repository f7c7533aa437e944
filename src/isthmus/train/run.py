"""The course of one training: what is measured, kept, saved and put back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, cast

import torch
from transformers import PreTrainedModel

from isthmus.errors import TrainingError
from isthmus.files import write_json
from isthmus.log import logger
from isthmus.train.callbacks import Plan
from isthmus.train.checkpoints import Checkpoints, Course, run_identity
from isthmus.train.settings import LoopLog, LoopSettings
from isthmus.train.tracking import Tracker
from isthmus.train.weights import Weights, average_weights, learned, put

#: Gives the metric of a model, higher is better.
Watch = Callable[[PreTrainedModel], float]


class Batches(Protocol):
    """A source of batches that gives the same batch for the same step, always."""

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        ...

    def batch(self, step: int) -> Mapping[str, object]:
        """Return the inputs of the model for a step, which counts from 0 over all epochs."""
        ...


class Run:
    """One training: its plan, its course, and what has to be kept of the weights on the way."""

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Batches,
        settings: LoopSettings,
        folder: Path | None,
        watch: Watch | None,
    ) -> None:
        self.model, self.batches, self.settings, self.watch, self.folder = model, batches, settings, watch, folder
        self.plan = Plan.of(len(batches), settings)
        self.course = Course()
        self.track: list[Tracker] = []
        self.checkpoints: Checkpoints | None = None
        self.last: int | None = None
        self.on_gpu = torch.cuda.is_available()
        if folder is not None:
            self.checkpoints = Checkpoints(folder, run_identity(model, batches.batch(0), settings.digest()))
            self.last = self.checkpoints.newest()
        #: Weights by step: the best, the last evaluated, those to be averaged, and at first the start.
        self.kept: dict[int, Weights] = {0: learned(model)}
        self.begun = time.monotonic()

    def resume(self) -> str | None:
        """Take up the newest checkpoint; return its folder."""
        if self.checkpoints is None or self.last is None:
            return None
        self.course = self.checkpoints.course(self.last)
        for step in self.needed():
            self.kept[step] = self.checkpoints.weights(step)
        put(self.model, self.checkpoints.weights(self.last))
        logger.info("%s: going on from step %d of %d", self.settings.name, self.last, self.plan.steps)
        return str(self.checkpoints.path(self.last))

    def needed(self) -> set[int]:
        """Return the steps whose weights the end of the run needs."""
        return {*self.course.recent, *([self.course.best_step] if self.course.watched else [])}

    def evaluated(self, step: int, loss: float) -> bool:
        """Take down an evaluation after ``step``; return whether patience ran out."""
        course = self.course
        course.at.append(step)
        course.losses.append(loss)
        if self.settings.average:
            course.recent = [*course.recent, step][-self.settings.average :]
        self.kept[step] = learned(self.model)
        if self.watch is not None:
            metric = self.measure()
            course.watched.append(metric)
            course.stale += 1
            if course.best is None or metric > course.best:
                course.best, course.best_step, course.stale = metric, step, 0
            course.stopped = 0 < self.settings.patience <= course.stale
        self.kept = {at: weights for at, weights in self.kept.items() if at in self.needed() | {step}}
        self._tell(step)
        return course.stopped

    def _tell(self, step: int) -> None:
        metrics = {"loss": self.course.losses[-1]}
        if self.course.watched:
            metrics["metric"] = self.course.watched[-1]
        said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        logger.info("%s: step %d of %d, %s", self.settings.name, step, self.plan.steps, said)
        for tracker in self.track:
            tracker.log(step, metrics)

    def measure(self) -> float:
        """Return the metric of the model as it is."""
        if self.watch is None:
            return math.nan
        self.model.eval()
        with torch.no_grad():
            metric = float(self.watch(self.model))
        if not math.isfinite(metric):
            raise TrainingError(f"the watched metric is {metric}", where=self.settings.name, fix="look at the metric")
        return metric

    def save(self, step: int, optimiser: Weights) -> None:
        """Write a checkpoint."""
        if self.checkpoints is not None:
            needed = {at: self.kept[at] for at in self.needed()}
            self.course.seconds += time.monotonic() - self.begun
            self.begun = time.monotonic()
            self.checkpoints.save(step, {**needed, step: learned(self.model)}, optimiser, self.course)
            self.last = step

    def fail(self, step: int, what: str, rate: float) -> TrainingError:
        """Put the last good weights back and return the error to raise."""
        good = self.course.best_step if self.course.watched else max(self.kept)
        put(self.model, self.kept[good])
        where = f"{self.settings.name}, step {step} of {self.plan.steps}"
        left = f"; the last checkpoint is {self.checkpoints.path(self.last)}" if self.checkpoints and self.last else ""
        fix = f"lower the learning rate or clip; the model has its weights of step {good} again{left}"
        return TrainingError(f"{what} at learning rate {rate:.3g}", where=where, fix=fix)

    def say_how_to_go_on(self) -> None:
        """Tell the user, who stopped the run, where it goes on from."""
        if self.checkpoints is not None and self.last is not None:
            path = self.checkpoints.path(self.last)
            logger.warning("stopped; the same call goes on from %s (step %d)", path, self.last)

    def finish(self) -> bool:
        """Leave the best weights in the model; return whether they are a mean."""
        best = self.kept.get(self.course.best_step) if self.course.watched else None
        averaged = False
        if len(self.course.recent) > 1:
            put(self.model, average_weights([self.kept[step] for step in self.course.recent]))
            metric = self.measure()
            averaged = best is None or metric > cast("float", self.course.best)
            if averaged and best is not None:
                self.course.best, self.course.best_step = metric, self.course.recent[-1]
        if best is not None and not averaged:
            put(self.model, best)
        return averaged

    def log(self, peak: int, averaged: bool) -> LoopLog:
        """Return the log; with a folder, write it there in place of the checkpoints."""
        course = self.course
        log = LoopLog(
            steps=course.at[-1],
            seconds=course.seconds + time.monotonic() - self.begun,
            at=tuple(course.at),
            losses=tuple(course.losses),
            watched=tuple(course.watched),
            best=math.nan if course.best is None else course.best,
            best_step=course.best_step if course.watched else course.at[-1],
            trainable=sum(tensor.numel() for tensor in self.model.parameters() if tensor.requires_grad),
            peak_memory=peak,
            averaged=averaged,
        )
        if self.checkpoints is not None:
            write_json(self.checkpoints.folder / "log.json", log.to_json())
            self.checkpoints.clear()
        return log
