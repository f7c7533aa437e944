"""Adapting new people with 0 to 5 events: ways to find the start, and what they must beat.

    python benchmarks/bench_meta.py --out benchmarks/reports/NAME [--people 400] [--split FOLDER:DOMAIN]

On the twin world, or on a split of one's own. The people that are measured have no target event in training; each is
shown with the newest 0 to 5 of theirs (all have 5). A sequence model is trained on the others; each way learns on it,
with rate and steps chosen on validation people with 3 events. Writes meta.json and meta.md, of a split
meta-SET-DOMAIN.json and .md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Ground:
    """Where is measured: a split, its target, most people that are asked, choose and teach, epochs of the carrier."""

    split: Split
    domain: str
    most: int
    choose: int
    teach: int
    epochs: int

    def kept(self, keep: int) -> Split:
        """Return the split in which half of the people keep ``keep`` events of the target."""
        return self.split.few_shot(self.domain, keep=keep, share=0.5, seed=0)

    def cut(self, keep: int, part: int) -> Task:
        """Return the question about the people who were cut off, with ``keep`` target events each.

        Only people who have as many as the most that are shown take part: the same ones for every ``keep``.
        """
        most = self.choose if part == VALID else self.most
        task, cold, whole = (build_task(self.kept(n), part, self.domain) for n in (keep, 0, KEPT[-1]))
        inside = np.isin(whole.histories.items, whole.items)
        events = np.bincount(whole.histories.rows[inside], minlength=len(whole))
        able = np.intersect1d(cold.persons[cold.cohorts["cold, overlap"]], whole.persons[events == KEPT[-1]])
        chosen = np.flatnonzero(np.isin(task.persons, able))
        return replace(task.take(chosen[:: max(-(-chosen.size // most), 1)]), cohorts={})


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


def systems_of(ground: Ground, people: int) -> list[RankingSystem]:
    """Return everything that is compared, learned from the training part."""
    features = Readers(vocabulary(ground.split), None).read(ground.split.corpus.items)
    data = training_data(ground.kept(0), VALID, ground.domain, features)
    carrier = SequenceCarrier({"dim": 32, "layers": 1, "epochs": ground.epochs}).fit(data)
    assert isinstance(carrier, SequenceCarrier)
    valid = ground.cut(3, VALID)
    taught = np.bincount(data.histories.rows[data.in_target[data.histories.items]], minlength=len(data.histories))
    several = np.flatnonzero(taught > 1)
    teachers = several[:: max(-(-several.size // ground.teach), 1)]
    lesson = replace(data, histories=data.histories.take(teachers))
    found: list[RankingSystem] = [Named("popularity", make("popularity").fit(data)), Named("no adaptation", carrier)]
    for way in WAYS:
        learner = (
            MetaLearner(carrier, MetaSettings(way=way, epochs=4)).learn(lesson).chosen(valid, lambda s, t: ndcg(s, t))
        )
        if way == "plain":
            found.append(Named("plain training, no steps", learner.stepping(0.1, 0)))
        name = "plain training, fine-tuned" if way == "plain" else way
        found.append(Named(f"{name} (rate {learner.settings.rate:g}, {learner.settings.steps} steps)", learner))
    return [*found, SimilarPeople(carrier, data, neighbours=min(50, people // 10))]


def measure(name: str, ground: Ground, people: int) -> dict[str, object]:
    start = time.process_time()
    systems = systems_of(ground, people)
    rows = []
    for keep in KEPT:
        task = ground.cut(keep, TEST)
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
    speed = {system.name: round(milliseconds(system, ground.cut(5, TEST)), 2) for system in systems}
    machine = {"system": platform.platform(), "python": platform.python_version(), "torch": version("torch")}
    return {
        "choose": len(ground.cut(3, VALID)), "teach": ground.teach, "epochs": ground.epochs, "name": name,
        "machine": machine, "fingerprint": ground.split.corpus.fingerprint, "domain": ground.domain,
        "protocol": ground.split.card["protocol"], "items": int(ground.cut(0, TEST).items.size), "rows": rows,
        "milliseconds": speed, "cpu_seconds": round(time.process_time() - start, 1),
    }  # fmt: skip


def page(data: dict) -> str:
    names = list(data["milliseconds"])
    lines = [
        f"## Adapting new people: {data['name']}", "",
        f"Data `{data['fingerprint'][:12]}`, {data['protocol']}, {data['items']:,} items. Nobody measured has a",
        f"target event in training; rate and steps chosen on {data['choose']} validation people with 3 events; at most",
        f"{data['teach']:,} people taught to adapt; the carrier learned for {data['epochs']} epochs.", "",
    ]  # fmt: skip
    lines += ["| N@10 with … target events | " + " | ".join(map(str, KEPT)) + " | ms a person |", "|---" * 8 + "|"]
    for name in names:
        rows = [row for row in data["rows"] if row["system"] == name]
        marks = ["*" if row["p"] < 0.05 else "" for row in rows]
        cells = " | ".join(f"{row['ndcg@10']:.4f}{mark}" for row, mark in zip(rows, marks, strict=True))
        lines.append(f"| {name} | {cells} | {data['milliseconds'][name]:.1f} |")
    people = sorted({row["people"] for row in data["rows"]})
    said = f"{people[0]}" if len(people) == 1 else f"{people[0]} to {people[-1]}"
    lines += ["", f"{said} test people, {data['cpu_seconds']:.0f} s of one core."]
    lines += ["\\*: differs from no adaptation, p < 0.05 (Holm)."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out/people"))
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--split", metavar="FOLDER:DOMAIN")
    parser.add_argument("--most", type=int, default=400, help="people asked about, at most")
    parser.add_argument("--choose", type=int, default=400, help="validation people, at most")
    parser.add_argument("--teach", type=int, default=10_000, help="people who teach to adapt, at most")
    parser.add_argument("--epochs", type=int, default=8, help="of the carrier")
    options = parser.parse_args()
    sizes = options.most, options.choose, options.teach, options.epochs
    warnings.filterwarnings("ignore")
    if options.split:
        folder, _, domain = options.split.rpartition(":")
        split = Split.open(folder)
        ground, name = Ground(split, domain, *sizes), f"meta-{split.corpus.name}-{domain}".replace(" ", "-")
    else:
        world = twin_world(0, replace(WORLD, persons=options.people))
        made = Split.make(im.Corpus.from_tables(world.tables, name="twin"))
        ground, name = Ground(made, "target", *sizes), "meta"
    data = measure(name.removeprefix("meta-"), ground, options.people)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (options.out / f"{name}.md").write_text(page(data), encoding="utf-8")
    print(json.dumps(data))


if __name__ == "__main__":
    main()
