"""The sequence model beside RecTools' SASRec: seconds and memory of an epoch, and quality on the same task.

    ISTHMUS_DATA=... python benchmarks/bench_sequence.py --speed --quality --sets Beauty Food \
        --rectools PATH/TO/python --out benchmarks/reports/NAME

``PATH/TO/python`` belongs to an environment with ``rectools[torch]==0.19.0 pandas<3 torch==2.13.0``; without it that
side is left out. Every run is a process of its own. Both learn from the same events in the same order, with the same
sizes and as many next items a batch on average, with cross-entropy over the whole catalogue. Speed: runs alternate,
the first epoch of each run is not counted, ratios are medians over pairs. Quality: each chooses its epoch by N@10 on
the same validation persons, learns again with the validation part, and is measured once on test by the same judge.
Writes one JSON a set and part, and README.md. Without --rectools and options: a short run on Beauty, speed only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np

import isthmus as im
from bench_methods import corpus_of
from isthmus.evaluate.stats import mean_intervals, sign_flip
from isthmus.model.base import Features, Places
from isthmus.split.cohorts import target_items
from isthmus.split.temporal import TEST, VALID
from isthmus.train.fit import training_data
from sequence_isthmus import asked

HERE = Path(__file__).parent
#: Set -> (spec, protocol, domain).
SETS = {
    "Beauty": ("beauty_sports_toys", "leave-last", "Beauty"),
    "Toys": ("beauty_sports_toys", "leave-last", "Toys"),
    "Sports": ("beauty_sports_toys", "leave-last", "Sports"),
    "Food": ("fedcsr", "time", "Food"),
    "Kitchen": ("fedcsr", "time", "Kitchen"),
    "games": ("steam_australian", "time", "games"),
}
SIZES = {"dim": 64, "layers": 2}
#: Our arms: settings, and whether item texts are read. The heads are 2 on both sides.
ARMS = {
    "ids": ({"sources": False}, False),
    "text + ids": ({"sources": False}, True),
    "text + ids, default batch": ({"sources": False}, True),
    "text + ids + other domains": ({"sources": True}, True),
}
RIVAL = "RecTools SASRec"
METRICS = ("ndcg@10", "recall@10")


def prepared(name: str, work: Path, length: int) -> dict[str, object]:
    """Return where split and events of a set are; what is there already is not made again."""
    spec, protocol, domain = SETS[name]
    folder, events = work / f"split-{spec}", work / f"{name}.npz"
    if not folder.exists():
        corpus = corpus_of(spec, work)
        if corpus.path is None:
            corpus.save(work / f"{spec}-titled")
            corpus = im.Corpus.open(work / f"{spec}-titled")
        im.Split.make(corpus, protocol=protocol, valid_share=0.1, test_share=0.1).save(folder)
    split = im.Split.open(folder)
    if not events.exists():
        export(split, domain, events)
    indptr = np.load(events)["train.indptr"]
    targets = np.minimum(np.diff(indptr), length + 1) - 1
    return {
        "split": str(folder),
        "events": str(events),
        "domain": domain,
        "next_items": float(targets[targets > 0].mean()),
        "windows": int((targets > 0).sum()),
        "items": int(target_items(split, domain).size),
        "fingerprint": split.card["fingerprint"][:12],
    }


def export(split: im.Split, domain: str, file: Path) -> None:
    """Write the domain's histories by column of the catalogue: what is learned from, and what is asked."""
    columns = target_items(split, domain)
    parts = {}
    for name, part in (("train", VALID), ("again", TEST)):
        histories = training_data(split, part, domain, Features(places=Places.of(split.corpus.items)))
        parts[name] = histories.learn_from(sources=False)
    for name, part in (("valid", VALID), ("test", TEST)):
        task = asked(split, part, domain)
        parts[name] = task.histories.keep(np.isin(task.histories.items, columns))
        if name == "valid":
            answers = {"valid.target_indptr": task.target_indptr, "valid.targets": task.targets}
    arrays = {f"{name}.indptr": histories.indptr for name, histories in parts.items()}
    arrays |= {f"{name}.items": np.searchsorted(columns, histories.items) for name, histories in parts.items()}
    np.savez(file, n_items=columns.size, **arrays, **answers)


class Runs:
    """Starts the processes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work

    def run(self, script: str, job: dict[str, object]) -> dict:
        """Return what a run wrote; one that an interrupted measurement has done is not done again."""
        python = self.options.rectools if script == "sasrec_rectools.py" else sys.executable
        job = {**job, "threads": self.options.threads}
        name = sha256(json.dumps([script, job], sort_keys=True).encode()).hexdigest()[:16]
        file, result = self.work / f"job-{name}.json", self.work / f"result-{name}.json"
        if result.exists():
            return dict(json.loads(result.read_text(encoding="utf-8")))
        file.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
        threads = {"OMP_NUM_THREADS": str(self.options.threads), "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [str(python), str(HERE / script), str(file)],
            env={**os.environ, **threads},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{script} failed:\n{done.stderr[-3000:]}")
        found: dict = json.loads(result.read_text(encoding="utf-8"))
        return found

    def ours(self, at: dict, arm: str, **job: object) -> dict:
        """Return what a run of one of our arms wrote."""
        settings, text = ARMS[arm]
        settings = {**settings, **SIZES}
        if "default batch" not in arm and job["kind"] == "speed":
            settings["batch"] = round(self.options.batch * at["next_items"])
        common = {"split": at["split"], "domain": at["domain"], "persons": self.options.persons}
        common["length"] = self.options.length
        return self.run("sequence_isthmus.py", {**common, "settings": settings, "text": text, **job})

    def theirs(self, at: dict, **job: object) -> dict:
        """Return what a run of the other side wrote."""
        common = {
            **SIZES,
            "heads": 2,
            "length": self.options.length,
            "dropout": 0.2,
            "learning_rate": 1e-3,
            "batch": self.options.batch,
            "precision": self.options.precision,
            "patience": 3,
            "events": at["events"],
            "persons": self.options.persons,
        }
        return self.run("sasrec_rectools.py", {**common, **job})


def speed(runs: Runs, at: dict) -> dict:
    """Return seconds and memory of all arms and their ratios to the rival, run by run."""
    options = runs.options
    arms = {arm: [] for arm in list(ARMS)[: options.arms]}
    arms |= {RIVAL: []} if options.rectools else {}
    for pair in range(options.pairs):
        for arm, rows in arms.items():
            job = {"kind": "speed", "epochs": options.epochs or 2, "seed": pair}
            found = runs.theirs(at, **job) if arm == RIVAL else runs.ours(at, arm, **job)
            seconds, cpu = (statistics.median(found[key][1:]) for key in ("epochs", "cpu"))
            rows.append(
                {"epoch": seconds, "cpu": cpu, **{key: found[key] for key in ("peak", "resident_before", "load")}}
            )
            print(
                f"  {arm}: {seconds:.1f} s ({cpu:.1f} s of processor), peak {found['peak'] / 2**20:.0f} MiB", flush=True
            )
    summary = {}
    for arm, rows in arms.items():
        summary[arm] = {
            "epoch": statistics.median(row["epoch"] for row in rows),
            "cpu": statistics.median(row["cpu"] for row in rows),
            "peak": max(row["peak"] for row in rows),
            "grown": max(row["peak"] - row["resident_before"] for row in rows),
            "runs": rows,
        }
        if options.rectools:
            summary[arm]["faster"] = statistics.median(
                rival["epoch"] / row["epoch"] for rival, row in zip(arms[RIVAL], rows, strict=True)
            )
    return {"batch": options.batch, "events_of_a_batch": round(options.batch * at["next_items"]), "arms": summary}


def quality(runs: Runs, name: str, at: dict) -> dict:
    """Return test figures of all arms, the mean over seeds of each person, against the rival."""
    options = runs.options
    arms = [arm for arm in ARMS if "default batch" not in arm][: options.arms]
    arms += [RIVAL] if options.rectools else []
    table, said = {}, {}
    for arm in arms:
        values, rows = [], []
        for seed in range(options.seeds):
            file = runs.work / f"{name}-{arm}-{seed}.npz".replace(" ", "")
            job = {"kind": "quality", "epochs": options.epochs or 20, "seed": seed}
            if arm == RIVAL:
                factors = str(runs.work / f"{name}-factors.npz")
                found = runs.theirs(at, **job, factors=factors)
                common = {"split": at["split"], "domain": at["domain"], "metrics": str(file), "factors": factors}
                found["test"] = runs.run("sequence_isthmus.py", {"kind": "judge", **common})["test"]
            else:
                found = runs.ours(at, arm, **job, metrics=str(file))
            stored = np.load(file)
            values.append(np.stack([stored[metric] for metric in METRICS], axis=1))
            rows.append({key: found[key] for key in ("test", "valid", "best_epoch", "seconds")})
            print(f"  {arm}, seed {seed}: {found['test']} at epoch {found['best_epoch']}", flush=True)
        table[arm], said[arm] = np.mean(values, axis=0), {"seeds": rows}
    for arm, values in table.items():
        rng = np.random.default_rng(0)
        mean, low, high = mean_intervals(values, rng=rng)
        said[arm] |= {
            metric: [float(part[place]) for part in (mean, low, high)] for place, metric in enumerate(METRICS)
        }
        if options.rectools and arm != RIVAL:
            gap = values[:, :1] - table[RIVAL][:, :1]
            mean, low, high = mean_intervals(gap, rng=rng)
            said[arm]["gap"] = [float(part[0]) for part in (mean, low, high)]
            said[arm]["p"] = float(sign_flip(gap, rng=rng)[0])
    return {"persons": len(next(iter(table.values()))), "arms": said}


def about(options: argparse.Namespace) -> dict[str, object]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "persons": options.persons,
        "load_before": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "rectools": {"version": "0.19.0", "precision": options.precision, "batch": options.batch}
        if options.rectools
        else None,
        "sizes": {**SIZES, "heads": 2, "length": options.length},
    }


def markdown(folder: Path) -> str:
    """Return the page of all JSON files of ``folder``."""
    lines = ["# The sequence model beside RecTools' SASRec", "", *PREFACE.strip().splitlines(), ""]
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        run, at = data["about"], data["data"]
        lines += [
            f"## {data['set']}: {data['part']}",
            "",
            f"{run['date']}, {run['threads']} threads of {run['cores']} cores ({run['machine']}), load at the start "
            f"{run['load_before']:.1f}, torch {run['versions']['torch']}; data `{at['fingerprint']}`, "
            f"{at['windows']:,} training histories, {at['items']:,} items, {at['next_items']:.1f} next items each"
            + (
                f"; RecTools {run['rectools']['version']} in {run['rectools']['precision']}, "
                f"{run['rectools'].get('batch', 128)} persons a batch."
                if run["rectools"]
                else "."
            )
            + (f" The last {run['sizes']['length']} events on both sides." if run["sizes"]["length"] != 50 else "")
            + (f" **A short run: learned from the first {run['persons']:,} persons only.**" if run["persons"] else ""),
            "",
        ]
        lines += speed_table(data["found"]) if data["part"] == "speed" else quality_table(data["found"])
    return "\n".join(lines) + "\n"


PREFACE = """
Made by `benchmarks/bench_sequence.py`. Both sides: the same events in the same order, dimension 64, 2 blocks, 2 heads,
the last 50 events (or as many as said below), cross-entropy over the whole catalogue of the domain, every run a process
of its own. RecTools: its `SASRecModel(loss="softmax")`, everything else at its defaults (dropout 0.2, learning rate
.001); ours: `SequenceCarrier` at its defaults (bf16 autocast) but for what the arm says. Only persons with a known
event in the domain are judged.
"""


def speed_table(found: dict) -> list[str]:
    lines = [
        f"RecTools: {found['batch']} persons a batch; ours: {found['events_of_a_batch']} next items a batch, as many "
        "on average, unless the arm says otherwise. Ours counts the item table made after each epoch. "
        "Runs alternate; faster = median over pairs; peak: highest resident "
        "memory while training, and how much of it training added to what was resident before.",
        "",
        "| | epoch, s | each run | processor, s | faster | peak, MiB | added, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, row in found["arms"].items():
        each = " ".join(f"{one['epoch']:.1f}" for one in row["runs"])
        faster = f"**{row['faster']:.2f}×**" if "faster" in row else ""
        peak, grown = row["peak"] / 2**20, row["grown"] / 2**20
        lines.append(
            f"| {arm} | {row['epoch']:.1f} | {each} | {row['cpu']:.1f} | {faster} | {peak:,.0f} | {grown:,.0f} |"
        )
    return [*lines, ""]


def quality_table(found: dict) -> list[str]:
    lines = [
        f"{found['persons']:,} test persons, history masked, mean over seeds.",
        "",
        "| | N@10 [95 %] | R@10 [95 %] | N@10 against SASRec [95 %], p | epochs | s a seed |",
        "|---|---|---|---|---|---|",
    ]
    for arm, row in found["arms"].items():
        cells = [f"{row[m][0]:.4f} [{row[m][1]:.4f}, {row[m][2]:.4f}]" for m in METRICS]
        gap = (
            f"{row['gap'][0]:+.4f} [{row['gap'][1]:+.4f}, {row['gap'][2]:+.4f}], {row['p']:.4f}" if "gap" in row else ""
        )
        epochs = ", ".join(str(one["best_epoch"]) for one in row["seeds"])
        seconds = statistics.mean(one["seconds"] for one in row["seeds"])
        lines.append(f"| {arm} | {cells[0]} | {cells[1]} | {gap} | {epochs} | {seconds:.0f} |")
    return [*lines, ""]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--sets", nargs="*", default=["Beauty"], choices=list(SETS))
    parser.add_argument("--rectools", type=Path, help="python of an environment with RecTools")
    parser.add_argument("--out", type=Path, default=Path("out/sequence"))
    parser.add_argument("--work", type=Path, help="corpora, events and runs; default out/sequence-work")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--arms", type=int, default=3, help="how many of our arms take part, the first ones")
    parser.add_argument("--epochs", type=int, help="default: 2 for speed, at most 20 for quality")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128, help="persons of a batch of the other side")
    parser.add_argument("--length", type=int, default=50, help="last events that are read, on both sides")
    parser.add_argument("--persons", type=int, default=0, help="learn from the first persons only; 0 for all")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--precision", default="32-true", help="of the other side: 32-true or bf16-mixed")
    options = parser.parse_args()
    options.out, options.work = options.out.resolve(), (options.work or Path("out/sequence-work")).resolve()
    if not options.speed and not options.quality:
        options.speed = True
        options.persons, options.pairs = options.persons or 3000, 1
    return options


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore")
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    if options.rectools is None:
        print("RecTools is left out: --rectools names no python of an environment that has it")
    runs = Runs(options)
    for name in options.sets:
        at = prepared(name, options.work, options.length)
        kept = {key: at[key] for key in ("domain", "fingerprint", "windows", "items", "next_items")}
        for part in [part for part in ("speed", "quality") if getattr(options, part)]:
            print(f"{name}: {part}", flush=True)
            before = about(options)
            found = speed(runs, at) if part == "speed" else quality(runs, name, at)
            data = {"set": name, "part": part, "about": before, "data": kept, "found": found}
            file = options.out / f"{name}-{part}.json"
            file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")


if __name__ == "__main__":
    main()
