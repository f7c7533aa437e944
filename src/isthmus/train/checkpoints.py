"""Checkpoints without pickle: a killed run goes on from the last one and ends as if it had never been killed.

A folder holds ``weights-STEP.safetensors`` (weights of an evaluation or checkpoint) and ``checkpoint-STEP/`` with the
optimiser's state, the course of the run so far, and the names of the weights that it needs. Both appear whole or not
at all.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from isthmus.errors import ArtefactError, InputError
from isthmus.files import Json, new_file, new_folder, read_json, storage_errors, write_json
from isthmus.log import logger
from isthmus.train.weights import Weights, fingerprint

#: Checkpoints kept.
KEEP: Final = 2
#: Keys of a model's configuration that do not change what it learns.
_FREE_KEYS: Final = ("_name_or_path", "transformers_version", "use_cache")
#: Half written: by us, or by safetensors, which writes to ``.tmp`` and six random characters before it renames.
_PART: Final = re.compile(r"\.(checkpoint|weights)-\d+.*\.part-\d+|\.tmp[A-Za-z0-9]{6}")


@dataclass
class Course:
    """What happened so far in a run.

    Attributes
    ----------
    at, losses, watched : lists
        Step, mean loss and metric of each evaluation.
    best, best_step : float or None, int
        Highest metric so far and its step.
    recent : list of int
        Steps of the last evaluations, whose weights are averaged in the end.
    stale : int
        Evaluations since the best.
    stopped : bool
        Whether patience ran out.
    seconds : float
        Time spent in earlier sittings.
    loss_sum, loss_count : float, int
        Of the batches since the last evaluation.
    """

    at: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    watched: list[float] = field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    recent: list[int] = field(default_factory=list)
    stale: int = 0
    stopped: bool = False
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0


def run_identity(model: nn.Module, first_batch: Mapping[str, object], settings: str) -> Json:
    """Return what must be the same for a run to go on: settings, configuration, first weights, first batch."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in _FREE_KEYS}
    text = json.dumps(config, sort_keys=True, default=str)
    return {
        "settings": settings,
        "model": hashlib.sha256(text.encode()).hexdigest()[:16],
        "first weights": fingerprint(model.state_dict()),
        "data": fingerprint(dict(_tensors(first_batch))),
    }


def _tensors(part: object, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor of a batch with its path; batches of several objectives hold lists of batches."""
    if isinstance(part, torch.Tensor):
        yield name, part
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _tensors(value, f"{name}/{key}")
    elif isinstance(part, (list, tuple)):
        for place, value in enumerate(part):
            yield from _tensors(value, f"{name}/{place}")


class Checkpoints:
    """The checkpoints of one run in one folder.

    Parameters
    ----------
    folder : Path
        Where they are; made if absent.
    run : dict
        What :func:`run_identity` returned.
    """

    def __init__(self, folder: Path, run: Json) -> None:
        self.folder, self.run = Path(folder), run
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.iterdir():
            if _PART.fullmatch(left.name):
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, rising."""
        found = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def path(self, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.folder / f"checkpoint-{step:08d}"

    def newest(self) -> int | None:
        """Return the step of the newest whole checkpoint, None if there is none; damaged ones are removed.

        Raises
        ------
        InputError
            The checkpoint is of another run.
        """
        for step in reversed(self.steps()):
            try:
                content = self._state(step)
                for needed in cast("list[int]", content["weights"]):
                    self.weights(needed)
                self.optimiser(step)
            except ArtefactError as error:
                logger.warning("checkpoint %d is left out: %s", step, error)
                shutil.rmtree(self.path(step), ignore_errors=True)
                continue
            self._require_same(content)
            return step
        return None

    def _require_same(self, content: Json) -> None:
        run = cast("Mapping[str, object]", content["run"])
        other = [key for key, value in self.run.items() if run.get(key) != value]
        if other:
            raise InputError(
                f"holds checkpoints of a run with other {', '.join(other)}",
                where=self.folder,
                fix="give the same settings, model and data as then, or name another folder",
            )

    def _state(self, step: int) -> Json:
        return read_json(self.path(step) / "state.json", what="checkpoint")

    def course(self, step: int) -> Course:
        """Return the course of the run up to a checkpoint."""
        return Course(**cast("dict[str, object]", self._state(step)["course"]))  # type: ignore[arg-type]

    def weights(self, step: int) -> Weights:
        """Return the weights kept of a step."""
        return _load(self.folder / f"weights-{step:08d}.safetensors")

    def optimiser(self, step: int) -> Weights:
        """Return the optimiser's state at a checkpoint."""
        return _load(self.path(step) / "optimiser.safetensors")

    def save(self, step: int, weights: Mapping[int, Weights], optimiser: Weights, course: Course) -> Path:
        """Write a checkpoint; then let go of all but the last :data:`KEEP`.

        Parameters
        ----------
        step : int
            Of the checkpoint.
        weights : dict
            Weights by step: those at ``step`` and all that ``course`` needs.
        optimiser : dict
            Its state.
        course : Course
            What happened so far.

        Raises
        ------
        StorageError
            The disk is full; what was there before stays.
        """
        for at, tensors in weights.items():
            path = self.folder / f"weights-{at:08d}.safetensors"
            if at == step or not path.exists():
                with new_file(path) as part:
                    save_file(tensors, part)
        if self.path(step).exists():
            shutil.rmtree(self.path(step))
        with new_folder(self.path(step)) as folder:
            save_file(optimiser, folder / "optimiser.safetensors")
            state: Json = {"run": self.run, "step": step, "course": asdict(course), "weights": sorted(weights)}
            write_json(folder / "state.json", state)
            write_json(folder / "trainer_state.json", {"global_step": step, "train_batch_size": 1})
        self._rotate()
        return self.path(step)

    def _rotate(self) -> None:
        kept = self.steps()[-KEEP:]
        for step in self.steps()[:-KEEP]:
            shutil.rmtree(self.path(step), ignore_errors=True)
        needed = {at for step in kept for at in cast("list[int]", self._state(step)["weights"])}
        for path in self.folder.glob("weights-*.safetensors"):
            if int(path.stem.removeprefix("weights-")) not in needed:
                path.unlink()

    def clear(self) -> None:
        """Remove all checkpoints, for the run is over."""
        for step in self.steps():
            shutil.rmtree(self.path(step), ignore_errors=True)
        for path in self.folder.glob("weights-*.safetensors"):
            path.unlink()


def _load(path: Path) -> Weights:
    try:
        weights: Weights = load_file(path)
        return weights
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"the checkpoint is damaged: {error}", where=path, fix="remove it") from error


def optimiser_state(model: nn.Module, optimiser: torch.optim.Optimizer) -> Weights:
    """Return the state of AdamW as tensors ``KIND:PARAMETER``."""
    names = {tensor: name for name, tensor in model.named_parameters()}
    return {
        f"{kind}:{names[tensor]}": value.detach().cpu().contiguous()
        for tensor, state in optimiser.state.items()
        for kind, value in state.items()
    }


def restore_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer, state: Weights) -> None:
    """Put back what :func:`optimiser_state` gave; the learning rate is the schedule's matter."""
    parameters = dict(model.named_parameters())
    for key, value in state.items():
        kind, _, name = key.partition(":")
        tensor = parameters[name]
        optimiser.state[tensor][kind] = value.to(tensor.device, copy=True)
