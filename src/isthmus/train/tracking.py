"""Trackers of a run: TensorBoard, Weights & Biases and MLflow, writing to local files unless told otherwise."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol

from isthmus.errors import InputError
from isthmus.files import storage_errors
from isthmus.train.settings import LoopSettings

#: Module of each tracker, in the extra ``isthmus[tracking]``.
MODULES: Final = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


class Tracker(Protocol):
    """Takes down numbers of a run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take down metrics at a step."""
        ...

    def close(self, ended: bool) -> None:
        """Write what is left; ``ended`` is False if the run broke off."""
        ...


@contextmanager
def trackers(settings: LoopSettings, folder: Path, *, first: int = 0) -> Iterator[list[Tracker]]:
    """Yield the trackers of a run, which write under ``folder/logs``; close them in the end.

    A run that goes on from step ``first`` goes on in the trackers too.

    Raises
    ------
    InputError
        A tracker's package is not installed.
    """
    modules = {name: _module(name) for name in dict.fromkeys(settings.track)}
    logs = Path(folder) / "logs"
    opened: list[Tracker] = []
    ended = False
    try:
        for name, module in modules.items():
            with storage_errors(logs):
                (logs / name).mkdir(parents=True, exist_ok=True)
                opened.append(_OPEN[name](module, settings, logs / name, first))
        yield opened
        ended = True
    finally:
        for tracker in opened:
            tracker.close(ended)


def _module(name: str) -> ModuleType:
    try:
        return import_module(MODULES[name])
    except ImportError as error:
        raise InputError(
            f"the tracker {name} is not installed", where="train.track", fix="pip install 'isthmus[tracking]'"
        ) from error


def _shown(settings: LoopSettings) -> dict[str, float | int | str | bool | None]:
    return {key: ", ".join(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def _run_id(settings: LoopSettings, logs: Path) -> str:
    """Return a name for the run that is the same each time it goes on."""
    return hashlib.sha256(f"{logs.resolve()}\n{settings.digest()}".encode()).hexdigest()[:12]


class _TensorBoard:
    def __init__(self, module: ModuleType, settings: LoopSettings, logs: Path, first: int) -> None:
        self.writer = module.SummaryWriter(str(logs), purge_step=first + 1 if first else None)
        if not first:
            rows = "\n".join(f"| {key} | {value} |" for key, value in _shown(settings).items())
            self.writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", 0)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self, ended: bool) -> None:  # noqa: ARG002
        self.writer.close()


class _Wandb:
    def __init__(self, module: ModuleType, settings: LoopSettings, logs: Path, first: int) -> None:
        self.run = module.init(
            project=os.environ.get("WANDB_PROJECT", "isthmus"),
            name=settings.name,
            id=_run_id(settings, logs),
            resume="allow" if first else None,
            dir=str(logs),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=_shown(settings),
            settings=module.Settings(silent=True, console="off"),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self, ended: bool) -> None:
        self.run.finish(exit_code=0 if ended else 1)


class _Mlflow:
    def __init__(self, module: ModuleType, settings: LoopSettings, logs: Path, first: int) -> None:  # noqa: ARG002
        where = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{logs.resolve()}/mlflow.db")
        self.client = module.MlflowClient(tracking_uri=where)
        experiment = self.client.get_experiment_by_name("isthmus")
        at = experiment.experiment_id if experiment else self.client.create_experiment("isthmus", str(logs.resolve()))
        run_id = _run_id(settings, logs)
        known = self.client.search_runs([at], f"tags.isthmus = '{run_id}'", max_results=1)
        if known:
            self.run = known[0].info.run_id
            self.client.update_run(self.run, status="RUNNING")
            return
        self.run = self.client.create_run(at, run_name=settings.name, tags={"isthmus": run_id}).info.run_id
        for key, value in _shown(settings).items():
            self.client.log_param(self.run, key, value)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=step)

    def close(self, ended: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if ended else "FAILED")


_OPEN: Final[dict[str, Callable[[ModuleType, LoopSettings, Path, int], Tracker]]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}
