"""Worlds with known answers: what pre-training carries over, what the guard keeps out, and who finds an order.

    python benchmarks/bench_worlds.py --out benchmarks/reports/NAME [--seeds 5]

Twin world: each person has the same tastes in the source and the target. Unrelated world: other tastes. In both, a
model is pre-trained on the source alone; then it makes lists for the target without any event (zero-shot), and takes
part in a fit where a tenth of the people teach. Order world: only the order of events tells what comes next; shuffled
world: order is noise. Writes worlds.json and README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, order_world, shuffled_world, twin_world, unrelated_world
from isthmus.data.simulate.worlds import World
from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.evaluate.ranks import Ranks
from isthmus.evaluate.stats import sign_flip
from isthmus.model.base import Features
from isthmus.pipeline.trials import TrialSettings, trial
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import training_data
from isthmus.train.methods import make
from isthmus.transfer.pretrain import SequencePretraining, pretrain_sequence

WORLDS = {
    "twin": twin_world,
    "unrelated": lambda seed: unrelated_world(seed, replace(WORLD, telling=False)),
    "unrelated tastes": unrelated_world,
}
ORDERS = {"order": order_world, "shuffled": shuffled_world}
METHODS = ("popularity", "knn", "tfidf", "text", "ease")
#: Share of the target's people who teach in the few-shot trial, and carriers trained in each.
SHARE, CARRIERS = 0.1, 3
#: A loyal meeting keeps to the person's strand of the theme this often (isthmus.data.simulate.worlds).
LOYAL = 0.6
SEQUENCE = {"sources": False, "epochs": 15, "learning_rate": 4e-3}


def tastes_known(world: World, split: Split, task: Task) -> np.ndarray:
    """Return the chance of each item for each person, (P, T), as who knows all tastes and what items are about says it.

    How much each item is met is not known: before the first event nobody can know it.
    """
    plan = world.plan
    items = split.corpus.items.join(world.themes, on=["platform", "item"], how="left", maintain_order="left")
    items = items[task.items]
    themes, strands = items["theme"].to_numpy(), items["strand"].to_numpy()
    group = items.select(pl.len().over("theme", "strand"))["len"].to_numpy()
    liked: dict[str, list[tuple[str, int, float]]] = {}
    for person, domain, theme, strand, share in world.tastes.iter_rows():
        if domain == task.domain:
            liked.setdefault(person, []).append((theme, strand, share))
    chances = np.full((len(task), task.items.size), (1 - plan.loyalty) / plan.themes / plan.strands, np.float32)
    for row, person in enumerate(task.persons.tolist()):
        for theme, strand, share in liked.get(split.corpus.persons[person], []):
            mine = themes == theme
            chances[row, mine] += (
                plan.loyalty * share * (LOYAL * (strands[mine] == strand) + (1 - LOYAL) / plan.strands)
            )
    return chances / group


def histories_known(world: World, split: Split, task: Task) -> np.ndarray:
    """Return the chance of each item for each person, (P, T), as who knows what items are about sees it in histories.

    Themes are counted over the whole history, strands inside each theme too, shrunk to all alike; 2 % of the meetings
    are taken for chance.
    """
    plan = world.plan
    known = split.corpus.items.join(world.themes, on=["platform", "item"], how="left", maintain_order="left")
    names = known["theme"].unique().sort()
    themes = known["theme"].replace_strict(names, range(names.len()), return_dtype=pl.Int64).to_numpy()
    group = themes * plan.strands + known["strand"].to_numpy()
    about = np.zeros((known.height, names.len() * plan.strands), np.float32)
    about[np.arange(known.height), group] = 1.0
    met = np.asarray(task.histories.matrix(known.height) @ about).reshape(len(task), -1, plan.strands)
    theme = np.maximum(met.sum(axis=2) / np.maximum(met.sum(axis=(1, 2)), 1e-9)[:, None] - 0.02, 0)
    strand = (met + 0.3) / (met.sum(axis=2, keepdims=True) + 0.3 * plan.strands)
    size = np.maximum(about[task.items].sum(axis=0), 1)
    chance = (theme[:, :, None] * strand).reshape(len(task), -1) / size
    return np.asarray(chance @ about[task.items].T, np.float32)


def follows_known(world: World, split: Split, task: Task) -> np.ndarray:
    """Return 1 for items of the theme that follows on that of the last event, (P, T)."""
    known = split.corpus.items.join(world.themes, on=["platform", "item"], how="left", maintain_order="left")["theme"]
    rule = dict(world.next_themes.filter(pl.col("domain") == task.domain).select("theme", "next").iter_rows())
    last = known.gather(task.histories.items[task.histories.indptr[1:] - 1])
    after = last.replace_strict(rule).to_numpy()
    return (known.gather(task.items).to_numpy()[None, :] == after[:, None]).astype(np.float32)


def value(task: Task, scores: np.ndarray) -> float:
    """Return N@10 of ready scores."""
    scores = scores.copy()
    scores[task.seen(0, len(task))] = -np.inf
    return float(np.nanmean(ndcg(Ranks.of(scores, task.target_indptr, task.targets), 10)))


def chance(task: Task) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([value(task, rng.random((len(task), task.items.size)).astype(np.float32)) for _ in range(5)]))


def means(arms: dict[str, list[Outcome]]) -> dict[str, float]:
    return {name: float(np.mean([run.mean("ndcg@10") for run in runs])) for name, runs in arms.items()}


def carried(kind: str, seed: int, work: Path) -> dict[str, object]:
    """Return what transfer does in a world of tastes."""
    start = time.perf_counter()
    world = WORLDS[kind](seed)
    split = Split.make(Corpus.from_tables(world.tables, name=kind))
    unseen = split.thinned("target", share=0.0, seed=0)
    features = Readers(vocabulary(split), None).read(split.corpus.items)
    model = work / f"{kind}-{seed}"
    said = pretrain_sequence([unseen], model, SequencePretraining(domains=("source",), epochs=20, seed=seed))
    chosen = TrialSettings(
        {"sequence": {"start": str(model)}}, seeds=CARRIERS, budget=8.0, persons=1000, methods=METHODS
    )
    task = build_task(split, TEST, "target")
    zero = trial(unseen, "target", features, chosen)
    few = trial(split.thinned("target", share=SHARE, seed=0), "target", features, chosen)
    found = {
        "world": kind,
        "seed": seed,
        "persons": len(task),
        "oracle": value(task, tastes_known(world, split, task)),
        "items known": value(task, histories_known(world, split, task)),
        "chance": chance(task),
        "pretrained valid": said["log"]["best"],  # type: ignore[index, call-overload]
    }
    for name, made in (("zero", zero), ("few", few)):
        verdict = made.verdict()
        found[name] = {"arms": means(made.arms), "outcome": verdict.outcome, "sentence": verdict.sentence}
    return {**found, "seconds": round(time.perf_counter() - start, 1)}


def ordered(kind: str, seed: int) -> dict[str, object]:
    """Return how the sequence model does against methods that look at sets, where order tells all or nothing."""
    start = time.perf_counter()
    world = ORDERS[kind](seed)
    split = Split.make(Corpus.from_tables(world.tables, name=kind), protocol="leave-last")
    task, data = build_task(split, TEST, "target"), training_data(split, TEST, "target", Features())
    outcomes = {}
    for name, chosen in (("sequence", SEQUENCE), ("knn", {"decay": 1.0}), ("ease", {"decay": 1.0})):
        method = make(name, chosen).fit(data, seed=seed)
        outcomes[name] = judge(method, task)
    rival = max(("knn", "ease"), key=lambda name: outcomes[name].mean("ndcg@10"))
    gain = outcomes["sequence"].metrics["ndcg@10"] - outcomes[rival].metrics["ndcg@10"]
    found = {name: outcome.mean("ndcg@10") for name, outcome in outcomes.items()}
    if kind == "order":
        found["oracle"] = value(task, follows_known(world, split, task))
    p = float(np.asarray(sign_flip(gain[:, None], rng=np.random.default_rng(0))).ravel()[0])
    return {
        "world": kind, "seed": seed, "persons": len(task), **found, "rival": rival, "difference": float(gain.mean()),
        "p": p, "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def carried_tables(rows: list[dict]) -> list[str]:
    lines = []
    for kind in WORLDS:
        some = [row for row in rows if row["world"] == kind]
        if not some:
            continue
        for part, title in (("zero", "zero-shot"), ("few", f"{SHARE:.0%} of the people teach")):
            arms = list(some[0][part]["arms"])
            lines += ["", f"## {kind} world, {title}: N@10 on test", ""]
            lines += [line(["seed", "persons", "chance", "oracle", "items known", *arms, "best / oracle", "verdict"])]
            lines += [line(["---"] * (len(arms) + 7))]
            for row in some:
                mine = row[part]["arms"]
                share = max(mine["transfer"], mine["sequence"]) / row["oracle"]
                first = [row[name] for name in ("seed", "persons", "chance", "oracle", "items known")]
                cells = [*first, *mine.values(), f"{share:.0%}"]
                lines += [line([*cells, row[part]["outcome"]])]
            helped = sum(row[part]["outcome"] == "helped" for row in some)
            hurt = sum(row[part]["outcome"] == "hurt" for row in some)
            lines += ["", f"Helped in {helped} of {len(some)}, hurt in {hurt} of {len(some)}."]
    return lines


def ordered_tables(rows: list[dict]) -> list[str]:
    lines = []
    for kind in ORDERS:
        some = [row for row in rows if row["world"] == kind]
        if not some:
            continue
        names = ["sequence", "knn", "ease", *(["oracle"] if kind == "order" else []), "difference", "p"]
        lines += ["", f"## {kind} world: N@10 on test", "", line(["seed", "persons", *names])]
        lines += [line(["---"] * (len(names) + 2))]
        lines += [line([row["seed"], row["persons"], *(row[name] for name in names)]) for row in some]
        won = sum(row["difference"] > 0 and row["p"] < 0.05 for row in some)
        lines += [
            "",
            f"The sequence model is better than the better of `knn` and `ease` (p < 0.05) in {won} of {len(some)}.",
        ]
    return lines


def page(data: dict) -> str:
    machine = data["machine"]
    head = [
        "# Worlds with known answers",
        "",
        f"{data['created']}; {machine['system']}, Python {machine['python']}, torch {machine['torch']}, "
        f"{machine['threads']} thread; {data['seconds']:.0f} s in all. `python benchmarks/bench_worlds.py --out …`.",
        "",
        "Oracle: knows the tastes of each person and what each item is about, not how often items are met (twin and",
        "unrelated world); the theme that follows on the last one (order world). `items known`: knows what items are",
        "about and sees the same histories, but not the tastes. `sequence` is the carrier alone,",
        "as it was pre-trained (zero-shot) or trained on (few-shot). `transfer` is what `fit --from` delivers;",
        "`no source` is the best blend that sees the target only; zero-shot, the content methods. Verdict: transfer",
        "against `scratch` and `no source`, both must be beaten, over persons and runs, corrected. Unrelated world:",
        "neither tastes nor words carry over; unrelated tastes: words mean the same, so that reading carries over.",
    ]
    return "\n".join([*head, *carried_tables(data["rows"]), *ordered_tables(data["rows"])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", nargs="*", default=[*ORDERS, *WORLDS], choices=[*ORDERS, *WORLDS])
    chosen = parser.parse_args()
    import torch

    start = time.perf_counter()
    rows: list[dict[str, object]] = []
    with TemporaryDirectory() as work:
        for seed in range(chosen.seeds):
            found = [ordered(kind, seed) for kind in ORDERS if kind in chosen.worlds]
            found += [carried(kind, seed, Path(work)) for kind in WORLDS if kind in chosen.worlds]
            print(json.dumps(found), flush=True)
            rows += found
    machine = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "threads": torch.get_num_threads(),
    }
    created = time.strftime("%Y-%m-%d")
    data = {"created": created, "machine": machine, "seconds": time.perf_counter() - start, "rows": rows}
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "worlds.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (chosen.out / "README.md").write_text(page(data), encoding="utf-8")


if __name__ == "__main__":
    main()
