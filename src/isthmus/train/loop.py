"""The training loop: ``transformers.Trainer`` with our own batches, checkpoints without pickle, and best weights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from isthmus.errors import InputError
from isthmus.log import progress
from isthmus.train.run import Batches, Run, Watch
from isthmus.train.settings import LoopLog, LoopSettings
from isthmus.train.tracking import trackers
from isthmus.train.trainer import go

__all__ = ["Batches", "LoopLog", "LoopSettings", "Watch", "train"]


def train(
    model: PreTrainedModel,
    batches: Batches,
    settings: LoopSettings,
    *,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> LoopLog:
    """Train a model in place; it is left in evaluation mode, with its best weights, on the GPU if there is one.

    After each epoch ``watch`` gives a metric, and the weights with the highest one are put back in the end. The
    same seed, model and batches give the same weights on the same machine, also if the run is killed in between:
    with ``folder`` it goes on from its last checkpoint there. After the end the folder holds ``log.json`` only
    (and what trackers wrote).

    Parameters
    ----------
    model : PreTrainedModel
        ``model(**batch).loss`` is what gets smaller. May have ``layer_of(name)``, ``adversarial_parameters()``,
        ``after_update(step, steps)`` (called after each update, before gradients go), ``training_state()`` and
        ``load_training_state(tensors)``.
    batches : Batches
        What it learns from.
    settings : LoopSettings
        How.
    folder : Path, optional
        For checkpoints, the log and trackers; without it there are none.
    watch : callable, optional
        Gives the metric of the model, higher is better; called without gradients and in evaluation mode.

    Returns
    -------
    LoopLog
        What came of it.

    Raises
    ------
    InputError
        No batches, nothing to train, or the folder holds checkpoints of another run.
    TrainingError
        Loss, gradient or metric is no finite number; the model has its last good weights.
    StorageError
        A checkpoint cannot be written; the one before stays.
    """
    if find_spec("accelerate") is None:
        raise InputError("training needs the package accelerate", fix="pip install 'isthmus[transfer]'")
    if len(batches) == 0:
        raise InputError("there is nothing to train on: no batch", where=settings.name, fix="give more events or texts")
    if settings.track and folder is None:
        raise InputError("trackers need a folder to write to", where="train.track", fix="give a folder")
    with ExitStack() as stack:
        stack.enter_context(_own_randomness())
        stack.enter_context(_prepared(model, settings))
        run = Run(model, batches, settings, folder, watch)
        if folder is not None and settings.track:
            run.track = stack.enter_context(trackers(settings, folder, first=run.last or 0))
        return go(run, stack.enter_context(progress(settings.name, run.plan.steps)))


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the global generators as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy)


@contextmanager
def _prepared(model: PreTrainedModel, settings: LoopSettings) -> Iterator[None]:
    """Turn gradient checkpointing on for the block; leave the configuration alone and evaluation mode behind."""
    had, cache = hasattr(model.config, "use_cache"), getattr(model.config, "use_cache", None)
    if settings.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise InputError("the model has no gradient checkpointing", where=type(model).__name__, fix="turn it off")
        model.activation_checkpointing_enable()
    try:
        yield
    finally:
        if settings.gradient_checkpointing:
            model.activation_checkpointing_disable()
        if had:
            model.config.use_cache = cache
        elif hasattr(model.config, "use_cache"):
            del model.config.use_cache
        model.eval()
