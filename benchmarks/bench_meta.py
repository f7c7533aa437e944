"""Adapting new people with 0 to 5 events: ways to find the start, and what they must beat, on the twin world.

    python benchmarks/bench_meta.py --out benchmarks/reports/NAME [--people 400]

The people of the simulated world that are measured have no target event in training; each is shown with the newest 0
to 5 of theirs. A sequence model is trained on the others; each way learns on it, with rate and steps chosen on
validation people with 3 events. Writes meta.json and meta.md, prints meta.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

import isthmus as im
from isthmus.data.simulate import WORLD, twin_world
from isthmus.evaluate.compare import compare, everybody
from isthmus.evaluate.protocol import RankingSystem, judge
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.fit import training_data
from isthmus.train.methods import make
from isthmus.transfer.meta import WAYS, MetaLearner, MetaSettings
from isthmus.transfer.meta_rivals import SimilarPeople

KEPT = range(6)


def cut(split: Split, keep: int, part: int) -> Task:
    """Return the question about the people who were cut off, with ``keep`` target events each."""
    task = build_task(split.few_shot("target", keep=keep, share=0.5, seed=0), part, "target")
    cold = build_task(split.few_shot("target", keep=0, share=0.5, seed=0), part, "target")
    chosen = np.flatnonzero(np.isin(task.persons, cold.persons[cold.cohorts["cold, overlap"]]))
    return replace(task.take(chosen), cohorts={})


def ndcg(system: RankingSystem, task: Task) -> float:
    return judge(system, task, ks=(10,), threads=1).mean("ndcg@10")


class Named:
    """A system under another name."""

    def __init__(self, name: str, system: RankingSystem) -> None:
        self.name, self.score = name, system.score


def milliseconds(system: RankingSystem, task: Task) -> float:
    """Return the median milliseconds for one person."""
    spent = []
    for row in range(20):
        one = task.histories.take(np.array([row % len(task)]))
        start = time.process_time()
        system.score(one)
        spent.append(1000 * (time.process_time() - start))
    return float(np.median(spent))


def systems_of(split: Split, people: int) -> list[RankingSystem]:
    """Return everything that is compared, learned from the training part."""
    features = Readers(vocabulary(split), None).read(split.corpus.items)
    data = training_data(split.few_shot("target", keep=0, share=0.5, seed=0), VALID, "target", features)
    carrier = SequenceCarrier({"dim": 32, "layers": 1, "epochs": 8}).fit(data)
    assert isinstance(carrier, SequenceCarrier)
    valid = cut(split, 3, VALID)
    found: list[RankingSystem] = [Named("popularity", make("popularity").fit(data)), Named("no adaptation", carrier)]
    for way in WAYS:
        learner = (
            MetaLearner(carrier, MetaSettings(way=way, epochs=4)).learn(data).chosen(valid, lambda s, t: ndcg(s, t))
        )
        if way == "plain":
            found.append(Named("plain training, no steps", learner.stepping(0.1, 0)))
        name = "plain training, fine-tuned" if way == "plain" else way
        found.append(Named(f"{name} (rate {learner.settings.rate:g}, {learner.settings.steps} steps)", learner))
    return [*found, SimilarPeople(carrier, data, neighbours=min(50, people // 10))]


def measure(people: int) -> dict[str, object]:
    split = Split.make(im.Corpus.from_tables(twin_world(0, replace(WORLD, persons=people)).tables, name="twin"))
    systems = systems_of(split, people)
    rows = []
    for keep in KEPT:
        task = cut(split, keep, TEST)
        outcomes = [judge(system, task, ks=(10,), threads=1) for system in systems]
        tests = compare(outcomes, [everybody(task)], "ndcg@10", main="no adaptation", draws=2000)
        against = {row["system"]: (-row["difference"], row["p_holm"]) for row in tests.to_dicts()}
        rows += [
            {
                "kept": keep, "system": out.system, "ndcg@10": out.mean("ndcg@10"), "people": len(task),
                "gain": against.get(out.system, (0.0, 1.0))[0], "p": against.get(out.system, (0.0, 1.0))[1],
            }
            for out in outcomes
        ]  # fmt: skip
    speed = {system.name: round(milliseconds(system, cut(split, 5, TEST)), 2) for system in systems}
    machine = {"system": platform.platform(), "python": platform.python_version(), "torch": version("torch")}
    return {"machine": machine, "fingerprint": split.corpus.fingerprint, "rows": rows, "milliseconds": speed}


def page(data: dict) -> str:
    names = list(data["milliseconds"])
    lines = ["| N@10 with … target events | " + " | ".join(map(str, KEPT)) + " | ms a person |", "|---" * 8 + "|"]
    for name in names:
        rows = [row for row in data["rows"] if row["system"] == name]
        marks = ["*" if row["p"] < 0.05 else "" for row in rows]
        cells = " | ".join(f"{row['ndcg@10']:.4f}{mark}" for row, mark in zip(rows, marks, strict=True))
        lines.append(f"| {name} | {cells} | {data['milliseconds'][name]:.1f} |")
    people = data["rows"][0]["people"]
    return "\n".join([*lines, "", f"{people} test people. \\*: differs from no adaptation, p < 0.05 (Holm)."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out/people"))
    parser.add_argument("--people", type=int, default=400)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    data = measure(options.people)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "meta.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (options.out / "meta.md").write_text(page(data), encoding="utf-8")
    print(json.dumps(data))


if __name__ == "__main__":
    main()
