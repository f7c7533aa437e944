"""Time whole-catalogue ranking with all metrics against the bare matrix product and top-k, in pairs in one run.

Prints one JSON object: ``ratio_numpy`` is against numpy.argpartition, ``ratio_torch`` (stricter) against torch.topk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.evaluate.compare import list_metrics
from isthmus.evaluate.protocol import judge
from isthmus.rng import generator
from isthmus.split.task import Task
from isthmus.types import Floats

KS = (10, 50)
BLOCK = 512


class Product:
    """A system whose scores are person vectors times item vectors; persons come in order."""

    name = "product"

    def __init__(self, persons: Floats, items: Floats) -> None:
        self.persons, self.items, self.at = persons, items, 0

    def score(self, histories: Histories) -> Floats:
        """Return the scores of the next ``len(histories)`` persons."""
        rows = self.persons[self.at : self.at + len(histories)]
        self.at = (self.at + len(histories)) % len(self.persons)
        return rows @ self.items


def world(persons: int, items: int, dim: int) -> tuple[Product, Task]:
    """Return a product of random vectors, and a task with 1–5 targets and 20 past events a person."""
    rng = generator(0, "bench ranking")
    counts = rng.integers(1, 6, persons)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    first = rng.integers(0, items - 200, persons)
    step = np.arange(indptr[-1]) - np.repeat(indptr[:-1], counts)
    targets = (np.repeat(first, counts) + 31 * step).astype(np.int32)
    events = 20 * persons
    histories = Histories(
        np.arange(0, events + 1, 20),
        rng.integers(0, items, events, dtype=np.int32),
        np.ones(events, np.float32),
        np.arange(events),
    )
    vectors = [rng.standard_normal((n, dim), dtype=np.float32) for n in (persons, items)]
    task = Task(
        domain="bench",
        part="test",
        items=np.arange(items, dtype=np.int32),
        persons=np.arange(persons),
        histories=histories,
        target_indptr=indptr,
        targets=targets,
        popularity=rng.integers(0, 100, items),
        train_persons=persons,
        exclude_seen=True,
    )
    return Product(vectors[0], np.ascontiguousarray(vectors[1].T)), task


def everything(system: Product, task: Task) -> None:
    """Rank, and compute every metric at both list lengths."""
    outcome = judge(system, task, ks=KS, block=BLOCK)
    assert len(outcome.metrics) == 15
    for k in KS:
        list_metrics(outcome, k)


def bare(system: Product, top: Callable[[Floats], object]) -> None:
    """Multiply and take the top, block by block."""
    for start in range(0, len(system.persons), BLOCK):
        top(system.persons[start : start + BLOCK] @ system.items)


def numpy_top(scores: Floats) -> object:
    """Return the sorted top by numpy."""
    k, width = max(KS), scores.shape[1]
    top = np.argpartition(scores, width - k, axis=1)[:, width - k :]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1), 1)


def torch_top(scores: Floats) -> object:
    """Return the sorted top by torch, on all cores."""
    import torch

    return torch.topk(torch.from_numpy(scores), max(KS), dim=1)


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds one call takes."""
    begin = perf_counter()
    call()
    return perf_counter() - begin


def main() -> None:
    """Run the pairs and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("persons", 10_000), ("items", 30_000), ("dim", 64), ("pairs", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    system, task = world(given.persons, given.items, given.dim)
    calls = {
        "all": lambda: everything(system, task),
        "bare_numpy": lambda: bare(system, numpy_top),
        "bare_torch": lambda: bare(system, torch_top),
        "product": lambda: bare(system, np.shape),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(given.pairs):
        for name, call in calls.items():
            times[name].append(seconds(call))
    ratios = {
        name: median(a / b for a, b in zip(times["all"], times[f"bare_{name}"], strict=True))
        for name in ("numpy", "torch")
    }
    result = {
        **vars(given),
        "targets": int(task.targets.size),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seconds": {name: round(median(values), 3) for name, values in times.items()},
        **{f"ratio_{name}": round(value, 3) for name, value in ratios.items()},
        "goal": 2.0,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
