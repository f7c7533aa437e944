"""One run of the sequence model of Isthmus, in a process of its own: ``PYTHON sequence_isthmus.py JOB.json``.

Called by bench_sequence.py. Also judges the factors that sasrec_rectools.py wrote, on the same task.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

import isthmus as im
from isthmus.data.sequences import Histories
from isthmus.encode.store import encode_items
from isthmus.encode.text import TextEncoder
from isthmus.evaluate.protocol import RankingSystem, judge
from isthmus.model.base import Features, Hooks, Places, TrainingData
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, VALID
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.fit import training_data
from isthmus.train.tune import validate
from isthmus.types import Floats

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
#: Validation persons that choose the epoch, at most; for both sides.
PERSONS = 4000


def memory(name: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    return int(found[1]) * 1024 if found else 0


def own(task: Task) -> Task:
    """Return the task with only the persons who have a known event in the domain: the others are outside SASRec."""
    columns = np.isin(task.histories.items, task.items)
    keep = np.flatnonzero(task.histories.keep(columns).lengths > 0)
    return replace(task.take(keep), cohorts={}, item_groups={})


def asked(split: im.Split, part: int, domain: str) -> Task:
    """Return the question of validation (at most :data:`PERSONS`) or test."""
    return own(build_task(split, part, domain, most=PERSONS if part == VALID else None))


def features_of(split: im.Split, *, text: bool) -> Features:
    items = split.corpus.items
    return Features(None, encode_items(items, TextEncoder()).matrix if text else None, Places.of(items))


@dataclass
class Carrier:
    """A fitted sequence model as a system to judge."""

    method: SequenceCarrier
    length: int
    name: str = "sequence"

    def score(self, histories: Histories) -> Floats:
        """Return the scores of the method."""
        if not self.method.settings["sources"]:
            histories = histories.keep(np.isin(histories.items, self.method.target))
        return self.method.score(histories.last(self.length))


@dataclass
class Factors:
    """Factors of another system; the persons have to be asked in the order of the task."""

    persons: Floats
    items: Floats
    known: np.ndarray
    name: str = "sasrec"
    at: int = field(default=0)

    def score(self, histories: Histories) -> Floats:
        """Return the products; items never met come last."""
        rows = self.persons[self.at : self.at + len(histories)]
        self.at += len(histories)
        return np.where(self.known, rows @ self.items.T, np.float32(-1e30)).astype(np.float32)


def measured(system: RankingSystem, task: Task, file: Path) -> dict[str, float]:
    """Write the metrics of each person, and return their means."""
    outcome = judge(system, task, threads=1)
    kept = {name: outcome.metrics[name] for name in ("ndcg@10", "recall@10")}
    np.savez(file, persons=task.persons, **kept)
    return {name: outcome.mean(name) for name in kept}


def learned(job: dict, split: im.Split, part: int, features: Features) -> TrainingData:
    """Return what may be learned from: the last events; of the first persons only, if the job says so."""
    data = training_data(split, part, job["domain"], features)
    sources = job["settings"]["sources"] and not job["persons"]
    histories = data.learn_from(sources)
    if job["persons"]:
        histories = histories.take(np.arange(job["persons"]))
    return replace(data, histories=histories.last(job["length"] + 1))


def speed(job: dict, data: TrainingData) -> dict[str, object]:
    """Return the seconds of each epoch; the first, which includes the start, is None."""
    method = SequenceCarrier({**job["settings"], "epochs": job["epochs"]})
    marks: list[tuple[float, float]] = []

    def watch(_: object) -> float:
        marks.append((time.perf_counter(), time.process_time()))
        return float(len(marks))

    method.hooks = Hooks(watch)
    method.fit(data, seed=job["seed"])
    spans = [[after[place] - before[place] for before, after in pairwise(marks)] for place in (0, 1)]
    return {
        "epochs": [None, *spans[0]],
        "cpu": [None, *spans[1]],
        "parameters": sum(p.numel() for p in method.models[0].parameters()),
    }


def quality(job: dict, split: im.Split, features: Features) -> dict[str, object]:
    """Choose the epochs on validation, learn again with the validation part, and measure on test."""
    method = SequenceCarrier({**job["settings"], "epochs": job["epochs"]})
    valid, curve, clock = asked(split, VALID, job["domain"]), [], [time.perf_counter()]

    def watch(fitted: SequenceCarrier) -> float:
        curve.append(validate(fitted, valid))
        clock.append(time.perf_counter())
        return curve[-1]

    method.hooks = Hooks(watch)
    method.fit(learned(job, split, VALID, features), seed=job["seed"])
    chosen = int(np.argmax(curve)) + 1
    start = time.perf_counter()
    final = SequenceCarrier(method.settings)  # as `fit` learns again
    final.fit(learned(job, split, TEST, features), seed=job["seed"])
    spent = time.perf_counter() - start
    test = measured(Carrier(final, job["length"]), asked(split, TEST, job["domain"]), Path(job["metrics"]))
    return {"valid": curve, "best_epoch": chosen, "epochs": np.diff(clock).tolist(), "again": spent, "test": test}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(job["threads"])
    split = im.Split.open(job["split"])
    start = time.perf_counter()
    result: dict[str, object] = {"torch": torch.__version__, "load": os.getloadavg()[0]}
    if job["kind"] == "judge":
        found = np.load(job["factors"], allow_pickle=False)
        system = Factors(found["persons"], found["items"], found["known"])
        result["test"] = measured(system, asked(split, TEST, job["domain"]), Path(job["metrics"]))
    else:
        import transformers  # noqa: F401  loaded before the memory is looked at, as the other side does

        features = features_of(split, text=job["text"])
        data = learned(job, split, VALID, features)
        CLEAR.write_text("5")
        result["resident_before"] = memory("VmRSS")
        result |= speed(job, data) if job["kind"] == "speed" else quality(job, split, features)
    result |= {"seconds": time.perf_counter() - start, "peak": memory("VmHWM")}
    Path(job["result"]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
