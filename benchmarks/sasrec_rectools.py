"""One run of RecTools' SASRec, in an environment of its own: ``PYTHON sasrec_rectools.py JOB.json``.

Called by bench_sequence.py, which writes the job and the events and judges what comes out; needs nothing of Isthmus.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

#: Seconds of each epoch, and of the processor.
EPOCHS: list[tuple[float, float]] = []
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
JOB: dict = {}


def memory(field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    return int(found[1]) * 1024 if found else 0


class Clock(Callback):
    """Times the epochs of training alone."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: object) -> None:  # noqa: ARG002
        """Start the clock."""
        self.start = (time.perf_counter(), time.process_time())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: object) -> None:  # noqa: ARG002
        """Note the seconds."""
        EPOCHS.append((time.perf_counter() - self.start[0], time.process_time() - self.start[1]))


def trainer() -> Trainer:
    """Return what RecTools makes by default, quiet, on the CPU, with a clock."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(
        max_epochs=1,
        callbacks=[Clock()],
        enable_checkpointing=False,
        accelerator="cpu",
        devices=1,
        precision=JOB["precision"],
        **quiet,
    )


def dataset(events: dict[str, np.ndarray], part: str) -> Dataset:
    """Return the training events; the dates only give the order."""
    indptr, items = events[f"{part}.indptr"], events[f"{part}.items"]
    if JOB.get("persons"):
        indptr = indptr[: JOB["persons"] + 1]
        items = items[: indptr[-1]]
    users = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    days = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(items.size) - indptr[users], unit="D")
    frame = {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: days}
    return Dataset.construct(pd.DataFrame(frame))


def make() -> SASRecModel:
    return SASRecModel(
        n_blocks=JOB["layers"],
        n_heads=JOB["heads"],
        n_factors=JOB["dim"],
        dropout_rate=JOB["dropout"],
        session_max_len=JOB["length"],
        loss="softmax",
        lr=JOB["learning_rate"],
        batch_size=JOB["batch"],
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )


def item_factors(model: SASRecModel, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the item factors (T, d), zeros for an item never met, and which were met, (T,)."""
    with torch.no_grad():
        table = model.lightning_model.torch_model.item_model.get_all_embeddings().numpy()
    ids = model.data_preparator.item_id_map
    place = np.array(ids.convert_to_internal(model.data_preparator.get_known_item_ids()))
    column = np.array(model.data_preparator.get_known_item_ids(), dtype=np.int64)
    rows, known = np.zeros((n_items, table.shape[1]), np.float32), np.zeros(n_items, bool)
    rows[column], known[column] = table[place], True
    return rows, known


def person_factors(model: SASRecModel, indptr: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the state after the last event of each history, (P, d); zeros where no item is known."""
    ids = model.data_preparator.item_id_map
    net, length = model.lightning_model.torch_model.eval(), JOB["length"]
    place = np.zeros(int(items.max(initial=0)) + 1, np.int64)
    met = np.array(model.data_preparator.get_known_item_ids(), dtype=np.int64)
    inside = met < place.size
    place[met[inside]] = np.array(ids.convert_to_internal(met[inside]))
    found = np.zeros((indptr.size - 1, JOB["dim"]), np.float32)
    with torch.no_grad():
        table = net.item_model.get_all_embeddings()
        for start in range(0, len(found), 256):
            x = np.zeros((min(256, len(found) - start), length), np.int64)
            for row in range(len(x)):
                seen = place[items[indptr[start + row] : indptr[start + row + 1]]]
                seen = seen[seen > 0][-length:]
                x[row, length - seen.size :] = seen
            states = net.encode_sessions({"x": torch.from_numpy(x)}, table)[:, -1].numpy()
            states[x[:, -1] == 0] = 0.0
            found[start : start + len(x)] = states
    return found


def ndcg(model: SASRecModel, events: dict[str, np.ndarray], k: int = 10) -> float:
    """Return the mean NDCG@k of the validation part, whole catalogue, history masked."""
    table, known = item_factors(model, int(events["n_items"]))
    persons = person_factors(model, events["valid.indptr"], events["valid.items"])
    discount = 1 / np.log2(np.arange(k) + 2)
    total = 0.0
    for row, person in enumerate(persons):
        scores = np.where(known, table @ person, -np.inf)
        scores[events["valid.items"][events["valid.indptr"][row] : events["valid.indptr"][row + 1]]] = -np.inf
        wanted = events["valid.targets"][events["valid.target_indptr"][row] : events["valid.target_indptr"][row + 1]]
        best = np.argpartition(-scores, k)[:k]
        best = best[np.argsort(-scores[best], kind="stable")]
        total += (np.isin(best, wanted) * discount).sum() / discount[: wanted.size].sum()
    return float(total / len(persons))


def learn(events: dict[str, np.ndarray], part: str, epochs: int, *, watch: bool) -> tuple[SASRecModel, dict]:
    """Return a model after ``epochs``, or the best one by validation, and what came of it."""
    seed_everything(JOB["seed"], verbose=False)
    model, data, curve, best = make(), dataset(events, part), [], None
    EPOCHS.clear()
    for epoch in range(epochs):
        model.fit_partial(data, min_epochs=1, max_epochs=1)
        if watch:
            curve.append(ndcg(model, events))
            if curve[-1] == max(curve):
                best = deepcopy(model.lightning_model.torch_model.state_dict())
            elif epoch - int(np.argmax(curve)) >= JOB["patience"]:
                break
    if best is not None:
        model.lightning_model.torch_model.load_state_dict(best)
    said = {
        "epochs": [wall for wall, _ in EPOCHS],
        "cpu": [cpu for _, cpu in EPOCHS],
        "valid": curve,
        "best_epoch": int(np.argmax(curve)) + 1 if curve else epochs,
        "parameters": sum(p.numel() for p in model.lightning_model.torch_model.parameters()),
    }
    return model, said


def main() -> None:
    JOB.update(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    warnings.filterwarnings("ignore")
    torch.set_num_threads(JOB["threads"])
    events = dict(np.load(JOB["events"], allow_pickle=False))
    CLEAR.write_text("5")
    result: dict = {"resident_before": memory("VmRSS"), "torch": torch.__version__, "load": os.getloadavg()[0]}
    start = time.perf_counter()
    if JOB["kind"] == "speed":
        result |= learn(events, "train", JOB["epochs"], watch=False)[1]
    else:
        first = learn(events, "train", JOB["epochs"], watch=True)[1]
        model, again = learn(events, "again", first["best_epoch"], watch=False)
        table, known = item_factors(model, int(events["n_items"]))
        persons = person_factors(model, events["test.indptr"], events["test.items"])
        np.savez(JOB["factors"], persons=persons, items=table, known=known)
        result |= {**first, "again": again["epochs"]}
    result |= {"seconds": time.perf_counter() - start, "peak": memory("VmHWM")}
    Path(JOB["result"]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
