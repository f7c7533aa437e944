"""A run that was killed, stopped or out of disk goes on from its last checkpoint and ends as if nothing had been."""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.test_loop import same
from tests.tiny_training import SETTINGS, TinyBatches, TinyConfig, TinyModel, goodness, tiny
from torch import Tensor

from isthmus.errors import InputError, StorageError, TrainingError
from isthmus.train import checkpoints
from isthmus.train.checkpoints import Checkpoints, run_identity
from isthmus.train.loop import LoopLog, LoopSettings, train
from isthmus.train.weights import fingerprint, learned

FULL = LoopSettings(**SETTINGS)  # type: ignore[arg-type]
SCRIPT = Path(__file__).parent / "tiny_training.py"


class StopError(Exception):
    """What breaks a run off in these tests."""


class Stops(TinyBatches):
    """Batches that break off at a step, once."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def batch(self, step: int) -> dict[str, Tensor]:
        if step == self.at:
            self.at = -1
            raise StopError
        return super().batch(step)


def whole(settings: LoopSettings = FULL) -> tuple[LoopLog, dict[str, Tensor]]:
    model = tiny()
    log = train(model, TinyBatches(), settings, watch=goodness)
    return log, learned(model)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def running(folder: Path, pause: float) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.tiny_training", str(folder), str(pause)]
    with subprocess.Popen(
        command, cwd=SCRIPT.parents[1], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_batches(process: subprocess.Popen[str], n: int) -> None:
    """Wait until ``n`` batches of training were asked for (the first line is of the data's fingerprint)."""
    assert process.stdout is not None
    for _ in range(n + 1):
        assert process.stdout.readline().startswith("batch ")


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_metric_and_weights(tmp_path: Path) -> None:
    log, weights = whole()
    seed = random.SystemRandom().randrange(1 << 30)
    rng = random.Random(seed)
    for _ in range(2):
        with running(tmp_path / "run", 0.01) as process:
            read_batches(process, rng.randint(3, 14))
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert list((tmp_path / "run").glob("checkpoint-*")), f"nothing to go on from, seed {seed}"
    with running(tmp_path / "run", 0.0) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) < 40, "it began anew"
    ended = json.loads(lines[-1])
    assert ended["watched"] == list(log.watched), f"seed {seed}"
    assert ended["losses"] == list(log.losses), f"seed {seed}"
    assert ended["weights"] == fingerprint(weights), f"seed {seed}"
    assert names(tmp_path / "run") == ["log.json"]


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_saves_it_and_says_how_to_go_on(tmp_path: Path) -> None:
    with running(tmp_path / "run", 0.02) as process:
        read_batches(process, 12)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 130, -signal.SIGINT), err
    assert "KeyboardInterrupt" in err
    steps = Checkpoints(tmp_path / "run", {}).steps()
    assert steps
    assert steps[-1] >= 6
    model = tiny()
    log = train(model, TinyBatches(), FULL, folder=tmp_path / "run", watch=goodness)
    expected, weights = whole()
    assert log.watched == expected.watched
    assert same(learned(model), weights)


@pytest.mark.parametrize("every", [0.0, 600.0], ids=["each step", "each epoch"])
@pytest.mark.parametrize("at", [1, 11, 20, 39])
def test_wherever_it_breaks_off_it_ends_the_same(tmp_path: Path, at: int, every: float) -> None:
    settings, model = replace(FULL, save_every=every), tiny()
    expected, weights = whole(settings)
    with pytest.raises(StopError):
        train(tiny(), Stops(at), settings, folder=tmp_path, watch=goodness)
    batches = TinyBatches()
    log = train(model, batches, settings, folder=tmp_path, watch=goodness)
    assert (log.losses, log.watched, log.at) == (expected.losses, expected.watched, expected.at)
    assert (log.best, log.best_step, log.averaged) == (expected.best, expected.best_step, expected.averaged)
    assert same(learned(model), weights)
    done = at // 2 * 2 if every == 0 else at // 10 * 10
    assert len(batches.asked) == 1 + 40 - done
    assert names(tmp_path) == ["log.json"]
    assert json.loads((tmp_path / "log.json").read_text())["watched"] == list(expected.watched)


def test_only_plain_files_are_written_and_the_last_two_checkpoints_kept(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(tiny(), Stops(35), FULL, folder=tmp_path, watch=goodness)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    steps = Checkpoints(tmp_path, {}).steps()
    assert steps == [16, 17]
    kept = {int(path.stem.split("-")[1]) for path in tmp_path.glob("weights-*")}
    assert {16, 17} <= kept <= {5, 10, 15, 16, 17}
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_checkpoint_is_left_out_for_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected, weights = whole()
    with pytest.raises(StopError):
        train(tiny(), Stops(25), FULL, folder=tmp_path, watch=goodness)
    newest = tmp_path / "checkpoint-00000012" / "optimiser.safetensors"
    newest.write_bytes(newest.read_bytes()[:50])
    model = tiny()
    with caplog.at_level(logging.INFO, "isthmus"):
        log = train(model, TinyBatches(), FULL, folder=tmp_path, watch=goodness)
    assert "checkpoint 12 is left out" in caplog.text
    assert "going on from step 11" in caplog.text
    assert log.watched == expected.watched
    assert same(learned(model), weights)


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00000012.part-99").mkdir()
    (tmp_path / ".weights-00000012.safetensors.part-99").write_text("x")
    (tmp_path / ".tmppwmjBU").write_text("x")
    (tmp_path / ".mine").write_text("x")
    train(tiny(), TinyBatches(), replace(FULL, steps=2), folder=tmp_path)
    assert names(tmp_path) == [".mine", "log.json"]


def larger() -> TinyModel:
    return TinyModel(TinyConfig(dim=4))


def test_other_data_is_noticed_inside_nested_batches_too() -> None:
    def identity(value: float) -> object:
        batch = {"parts": [{"objective": "mlm", "weight": 1.0, "input_ids": torch.full((2, 3), value)}]}
        return run_identity(tiny(), batch, "settings")["data"]

    assert identity(1.0) == identity(1.0)
    assert identity(1.0) != identity(2.0)


@pytest.mark.parametrize(
    ("model", "batches", "settings", "message"),
    [
        (tiny, TinyBatches, replace(FULL, learning_rate=0.5), "other settings"),
        (lambda: tiny(1), TinyBatches, FULL, "other first weights"),
        (larger, TinyBatches, FULL, "other model, first weights"),
        (tiny, lambda: TinyBatches(seed=1), FULL, "other data"),
    ],
    ids=["settings", "weights", "model", "data"],
)
def test_checkpoints_of_another_run_are_not_taken_up(
    tmp_path: Path,
    model: Callable[[], TinyModel],
    batches: Callable[[], TinyBatches],
    settings: LoopSettings,
    message: str,
) -> None:
    with pytest.raises(StopError):
        train(tiny(), Stops(15), FULL, folder=tmp_path)
    before = names(tmp_path)
    with pytest.raises(InputError, match=message):
        train(model(), batches(), settings, folder=tmp_path)
    assert names(tmp_path) == before


def test_other_trackers_names_and_pauses_are_no_other_run(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(tiny(), Stops(15), FULL, folder=tmp_path)
    batches = TinyBatches()
    train(tiny(), batches, replace(FULL, name="again", save_every=9.0), folder=tmp_path)
    assert 14 in batches.asked
    assert 13 not in batches.asked


def test_patience_that_ran_out_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(FULL, patience=1, average=0)
    monkeypatch.setattr(Checkpoints, "clear", lambda self: (_ for _ in ()).throw(StopError))
    with pytest.raises(StopError):
        train(tiny(), TinyBatches(), settings, folder=tmp_path, watch=lambda _: 1.0)
    monkeypatch.undo()
    batches = TinyBatches()
    log = train(tiny(), batches, settings, folder=tmp_path, watch=lambda _: 1.0)
    assert batches.asked == [0]
    assert (log.watched, log.best_step, log.steps) == ((1.0, 1.0), 5, 10)


class WithState(TinyModel):
    """A model with a state of its own that steers its loss."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        self.updates = 0

    def forward(self, x: Tensor, y: Tensor) -> object:
        out = super().forward(x, y)
        out["loss"] = out["loss"] * (1 + 0.1 * self.updates)
        return out

    def after_update(self, step: int, steps: int) -> None:
        self.updates = step

    def training_state(self) -> dict[str, Tensor]:
        return {"updates": torch.tensor(self.updates)}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.updates = int(state["updates"])


def with_state() -> WithState:
    model = WithState(TinyConfig())
    model.load_state_dict(tiny().state_dict())
    return model


def test_a_models_own_training_state_goes_on_too(tmp_path: Path) -> None:
    first, second = with_state(), with_state()
    expected = train(first, TinyBatches(), FULL)
    with pytest.raises(StopError):
        train(with_state(), Stops(23), FULL, folder=tmp_path)
    log = train(second, TinyBatches(), FULL, folder=tmp_path)
    assert log.losses == expected.losses
    assert same(learned(first), learned(second))


def test_a_full_disk_stops_the_run_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    expected, weights = whole()
    calls: list[float] = []

    def watch(model: object) -> float:
        calls.append(goodness(model))  # type: ignore[arg-type]
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (900, hard))
        return calls[-1]

    try:
        with pytest.raises(StorageError, match="the disk is full"):
            train(tiny(), TinyBatches(), FULL, folder=tmp_path, watch=watch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert Checkpoints(tmp_path, {}).steps() == [8, 9]
    assert not list(tmp_path.glob(".*"))
    model = tiny()
    log = train(model, TinyBatches(), FULL, folder=tmp_path, watch=goodness)
    assert log.watched == expected.watched
    assert same(learned(model), weights)


def test_the_disk_may_fill_up_between_weights_and_optimiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = checkpoints.save_file, []

    def fails(tensors: dict[str, Tensor], path: Path) -> None:
        calls.append(path)
        if path.name == "optimiser.safetensors" and len(calls) > 4:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", fails)
    with pytest.raises(StorageError, match="disk is full"):
        train(tiny(), TinyBatches(), FULL, folder=tmp_path)
    assert Checkpoints(tmp_path, {}).steps() == [1, 2]
    assert not list(tmp_path.glob(".*"))


def test_a_loss_that_is_no_number_names_the_checkpoint_that_stays(tmp_path: Path) -> None:
    class Poison(TinyModel):
        def forward(self, x: Tensor, y: Tensor) -> object:
            out = super().forward(x, y)
            seen.append(0)
            out["loss"] = out["loss"] * (float("inf") if len(seen) > 13 else 1.0)
            return out

    seen: list[int] = []
    with pytest.raises(TrainingError, match=r"loss is inf .*checkpoint-00000006") as caught:
        train(Poison(TinyConfig()), TinyBatches(), FULL, folder=tmp_path)
    assert "step 6 of 20" in str(caught.value)
    assert (tmp_path / "checkpoint-00000006").is_dir()
