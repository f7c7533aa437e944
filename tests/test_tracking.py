"""Trackers take down what the log says, in local files, and go on where a resumed run goes on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from tests.test_resume import StopError, Stops
from tests.tiny_training import TinyBatches, goodness, tiny

from isthmus.errors import InputError
from isthmus.train import tracking
from isthmus.train.loop import LoopLog, LoopSettings, train

SETTINGS = LoopSettings(epochs=3, learning_rate=0.02, name="first try")
#: Writes as a user's process would: MLflow and W&B start threads and processes of their own.
TRACKED = """
import json, sys
from pathlib import Path
from isthmus.train.loop import LoopSettings, train
from tests.tiny_training import TinyBatches, goodness, tiny
from tests.test_resume import StopError, Stops
settings = LoopSettings(epochs=3, learning_rate=0.02, name="first try", track=(sys.argv[2],))
folder = Path(sys.argv[1])
try:
    train(tiny(), Stops(15), settings, folder=folder, watch=goodness)
except StopError:
    pass
print(json.dumps(train(tiny(), TinyBatches(), settings, folder=folder, watch=goodness).to_json()))
"""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves the machine."""
    real = socket.socket.connect

    def local(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        assert host in ("localhost", "127.0.0.1", "::1", "local"), f"reached for {host}"
        real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local)


def tracked(folder: Path, tracker: str) -> dict[str, list[float]]:
    root = Path(__file__).parents[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "MLFLOW"))}
    environment |= {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", TRACKED, str(folder), tracker]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    log: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    assert log["watched"] == list(train(tiny(), TinyBatches(), SETTINGS, watch=goodness).watched)
    return log


def read_tensorboard(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[str]]:
    accumulator = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars, events.Tags()["tensors"]


def approximately(log: LoopLog, what: str) -> list[tuple[int, float]]:
    values = log.losses if what == "loss" else log.watched
    return [(step, pytest.approx(value, abs=1e-6)) for step, value in zip(log.at, values, strict=True)]


@pytest.mark.usefixtures("offline")
def test_tensorboard_holds_what_the_log_says_once_also_after_a_resume(tmp_path: Path) -> None:
    settings = replace(SETTINGS, track=("tensorboard",))
    with pytest.raises(StopError):
        train(tiny(), Stops(25), settings, folder=tmp_path, watch=goodness)
    log = train(tiny(), TinyBatches(), settings, folder=tmp_path, watch=goodness)
    scalars, texts = read_tensorboard(tmp_path / "logs" / "tensorboard")
    assert scalars == {"loss": approximately(log, "loss"), "metric": approximately(log, "metric")}
    assert texts == ["settings/text_summary"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.json", "logs"]


@pytest.mark.slow
def test_mlflow_reads_the_run_back(tmp_path: Path) -> None:
    log = tracked(tmp_path, "mlflow")
    read = """
import json, mlflow, sys
client = mlflow.MlflowClient(tracking_uri="sqlite:///" + sys.argv[1])
experiment = client.get_experiment_by_name("isthmus")
runs = client.search_runs([experiment.experiment_id])
said = [{"name": run.info.run_name, "status": run.info.status, "parameters": run.data.params,
         "metric": [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "metric")],
         "loss": [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")]} for run in runs]
print(json.dumps(said))
"""
    database = str(tmp_path / "logs" / "mlflow" / "mlflow.db")
    done = subprocess.run([sys.executable, "-c", read, database], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout.splitlines()[-1])
    assert (run["name"], run["status"]) == ("first try", "FINISHED")
    assert run["parameters"]["learning_rate"] == "0.02"
    assert run["loss"] == [list(pair) for pair in zip(log["at"], log["losses"], strict=True)]
    assert run["metric"] == [list(pair) for pair in zip(log["at"], log["watched"], strict=True)]


@pytest.mark.slow
def test_wandb_writes_its_files_without_a_network_or_an_account(tmp_path: Path) -> None:
    tracked(tmp_path, "wandb")
    runs = sorted((tmp_path / "logs" / "wandb" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({run.name for run in runs}) == 1
    content = b"".join(run.read_bytes() for run in runs)
    for word in (b"first try", b"learning_rate", b"metric", b"loss"):
        assert word in content


class Notes:
    """A tracker that remembers what it was told."""

    def __init__(self, *_: object) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []
        self.ended: bool | None = None
        Notes.last = self

    last: Notes

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.told.append((step, dict(metrics)))

    def close(self, ended: bool) -> None:
        self.ended = ended


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> type[Notes]:
    monkeypatch.setitem(tracking._OPEN, "mlflow", Notes)
    monkeypatch.setitem(tracking.MODULES, "mlflow", "json")
    return Notes


def test_trackers_are_closed_whether_the_run_ends_or_breaks_off(tmp_path: Path, notes: type[Notes]) -> None:
    settings = replace(SETTINGS, track=("mlflow",))
    with pytest.raises(StopError):
        train(tiny(), Stops(25), settings, folder=tmp_path / "a")
    assert notes.last.ended is False
    assert [step for step, _ in notes.last.told] == [10, 20]
    train(tiny(), TinyBatches(), settings, folder=tmp_path / "b")
    assert notes.last.ended is True
    assert [list(metrics) for _, metrics in notes.last.told] == [["loss"]] * 3


def test_a_missing_package_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.MODULES, "wandb", "isthmus_no_such_package")
    with pytest.raises(InputError, match=r"wandb is not installed.*isthmus\[tracking\]"):
        train(tiny(), TinyBatches(), replace(SETTINGS, track=("wandb",)), folder=tmp_path)
    assert not (tmp_path / "logs").exists()


def test_trackers_need_a_folder() -> None:
    with pytest.raises(InputError, match="need a folder"):
        train(tiny(), TinyBatches(), replace(SETTINGS, track=("tensorboard",)))


def test_without_trackers_there_is_no_log_folder(tmp_path: Path) -> None:
    train(tiny(), TinyBatches(), SETTINGS, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log.json"]
