"""How a model is trained, and what came of it. Loads neither torch nor transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from isthmus.errors import InputError, nearest
from isthmus.files import Json

SCHEDULES: Final = ("linear", "cosine", "constant")
PRECISIONS: Final = ("float32", "bf16")
TRACKERS: Final = ("tensorboard", "wandb", "mlflow")

#: Settings of the loop that are settings of the carriers too, so that they can be searched.
AIDS: Final = ("weight_decay", "warmup", "schedule", "adversarial", "layer_decay", "average")


@dataclass(frozen=True)
class LoopSettings:
    """How a model is trained.

    Parameters
    ----------
    epochs : float
        Times that the batches are gone through.
    steps : int, optional
        Updates of the weights; overrides ``epochs``.
    learning_rate : float
        The highest, after warm-up.
    warmup : float
        Share of the steps in which the learning rate rises from 0.
    schedule : str
        How it falls from there to 0: "linear", "cosine", or "constant" (not at all).
    weight_decay : float
        Of AdamW (Loshchilov and Hutter, ICLR 2019); not on biases, norms and other vectors.
    clip : float
        Largest norm of the gradient; 0 leaves it.
    accumulation : int
        Batches an update.
    precision : str
        "float32" or "bf16": the weights stay float32, products run in bfloat16.
    gradient_checkpointing : bool
        Keep fewer activations and compute them again: less memory, about a third slower.
    adversarial : float
        Size of the push on the embeddings in a second pass; 0 for none (:class:`isthmus.train.aids.Adversary`).
    layer_decay : float
        Factor of the learning rate from each layer to the one below (Howard and Ruder, ACL 2018, section 3.2).
    average : int
        Try the mean of the weights of the last ``average`` evaluations in the end (Izmailov et al., UAI 2018); 0 not.
    patience : int
        Evaluations without a better metric after which training stops; 0 never.
    save_every : float
        Seconds between two checkpoints within an epoch; there is one after each epoch anyway.
    seed : int
        For dropout and everything else that draws.
    track : tuple of str
        "tensorboard", "wandb", "mlflow".
    name : str
        Of the run, in logs and trackers.

    Raises
    ------
    InputError
        A value that makes no sense.
    """

    epochs: float = 10.0
    steps: int | None = None
    learning_rate: float = 1e-3
    warmup: float = 0.05
    schedule: str = "linear"
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulation: int = 1
    precision: str = "float32"
    gradient_checkpointing: bool = False
    adversarial: float = 0.0
    layer_decay: float = 1.0
    average: int = 0
    patience: int = 0
    save_every: float = 600.0
    seed: int = 0
    track: tuple[str, ...] = ()
    name: str = "train"

    def __post_init__(self) -> None:
        for key, words in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            _known(key, str(getattr(self, key)), words)
        for tracker in self.track:
            _known("track", tracker, TRACKERS)
        for key in ("epochs", "learning_rate", "accumulation", "layer_decay"):
            _require(key, getattr(self, key) > 0, "take more than 0")
        for key in ("weight_decay", "clip", "adversarial", "average", "patience", "save_every", "seed"):
            _require(key, getattr(self, key) >= 0, "take 0 or more")
        _require("steps", self.steps is None or self.steps > 0, "take more than 0")
        _require("warmup", 0 <= self.warmup <= 1, "take a share from 0 to 1")

    def changed(self, given: Mapping[str, object]) -> LoopSettings:
        """Return the settings with others ``given``.

        Raises
        ------
        InputError
            An unknown key, or a value that makes no sense.

        Examples
        --------
        >>> LoopSettings().changed({"adversarial": 0.5}).adversarial
        0.5
        """
        for key in given:
            _known("setting", key, tuple(asdict(self)))
        return replace(self, **given)  # type: ignore[arg-type]

    @classmethod
    def aids(cls, warmup: float = 0.05) -> dict[str, float | str]:
        """Return the defaults of :data:`AIDS`.

        Examples
        --------
        >>> LoopSettings.aids(warmup=0.1)["warmup"], LoopSettings.aids()["adversarial"]
        (0.1, 0.0)
        """
        usual = asdict(cls(warmup=warmup))
        return {name: usual[name] for name in AIDS}

    def digest(self) -> str:
        """Return a hash of what a run's outcome depends on: everything but trackers, checkpoints and name.

        Examples
        --------
        >>> LoopSettings(name="a").digest() == LoopSettings(name="b").digest() != LoopSettings(seed=1).digest()
        True
        """
        free = ("track", "name", "save_every")
        kept = {key: value for key, value in asdict(self).items() if key not in free}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _known(key: str, word: str, words: tuple[str, ...]) -> None:
    if word not in words:
        what = f"unknown {key} '{word}'{nearest(word, list(words))}"
        raise InputError(what, where=f"train.{key}", fix=f"take one of {', '.join(words)}")


def _require(key: str, holds: bool, fix: str) -> None:
    if not holds:
        raise InputError(f"{key} makes no sense", where=f"train.{key}", fix=fix)


@dataclass(frozen=True)
class LoopLog:
    """What came of a training.

    Parameters
    ----------
    steps : int
        Updates made.
    seconds : float
        All sittings of a resumed run together.
    at : tuple of int
        Step of each evaluation.
    losses, watched : tuple of float
        Mean training loss up to each evaluation since the one before, and its metric; ``watched`` is empty if
        nothing was watched.
    best, best_step : float, int
        The highest metric and the step that had it; without a metric, NaN and the last step.
    trainable : int
        Parameters that were trained.
    peak_memory : int
        Bytes of the processor's memory (the whole process) or of the GPU's, at most, while training.
    averaged : bool
        Whether the weights left in the model are a mean over evaluations.
    """

    steps: int
    seconds: float
    at: tuple[int, ...]
    losses: tuple[float, ...]
    watched: tuple[float, ...]
    best: float
    best_step: int
    trainable: int
    peak_memory: int
    averaged: bool = False

    def to_json(self) -> Json:
        """Return the log for a JSON file; NaN becomes null."""
        content: Json = dict(asdict(self))
        content["best"] = self.best if self.watched else None
        return content
