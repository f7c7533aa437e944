"""Students against their teacher: size, time, memory, and how much of the teacher's N@10 is kept.

    ISTHMUS_DATA=... python benchmarks/bench_distil.py --out benchmarks/reports/NAME [SET ...]

A set is a data set and a target domain. With ``--models FOLDER`` the teacher of a set is opened in FOLDER/SET/model
and its split in FOLDER/SET/split if they are there, and written there if not. Half of the test persons take no part
in teaching. ``--text SET`` measures the text students on the texts of one set instead. Writes SET.json and README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import isthmus as im
from bench_methods import corpus_of
from isthmus.data.sequences import Histories
from isthmus.encode.static import open_encoder
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.model.base import Features
from isthmus.model.content import TextContent
from isthmus.recommender.distilled import distilled_content, known_texts, serving_cost
from isthmus.rng import generator
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import FitSettings, training_data
from isthmus.transfer.distil import DistilSettings, listen, teach
from isthmus.transfer.distil_layers import LayerSettings, distil_layers
from isthmus.transfer.distil_static import StaticSettings, distil_static

#: Set -> (spec, protocol, target domain, whether only events of the target are known).
SETS = {
    "toys": ("beauty_sports_toys", "leave-last", "Toys", True),
    "food": ("fedcsr", "time", "Food", False),
    "movielens": ("movielens_latest_small", "leave-last", "movies", False),
}
METHODS = ("popularity", "recent", "knn", "tfidf", "text", "ease", "ials")
BOTH = {"score": 1.0, "list": 1.0}
STUDENTS = {
    "lists, 200 weights, items only": DistilSettings(epochs=0, kept=200),
    "lists, 50 weights, items only": DistilSettings(epochs=0, kept=50),
    "lists, 200 weights": DistilSettings(objectives=BOTH, kept=200),
    "vectors, 64": DistilSettings(student="vectors", objectives={**BOTH, "vector": 1.0}),
}
#: Persons below which a slice says nothing.
FEWEST = 50
PREFACE = Path(__file__).parent / "distil_preface.md"


def teacher_of(name: str, folder: Path, budget: float) -> tuple[Split, im.Recommender]:
    spec, protocol, domain, alone = SETS[name]
    place = folder / name
    if not (place / "model").is_dir():
        corpus = corpus_of(spec, folder / "raw").save(place / "corpus")
        split = im.Split.make(corpus, protocol=protocol, valid_share=0.1, test_share=0.1)
        split = (split.only(domain) if alone else split).save(place / "split")
        how = FitSettings(methods=METHODS, budget=budget, settings={"ease": {"max_items": 6000}})
        im.Recommender.fit(split, targets=[domain], settings=how).save(place / "model")
    return Split.open(place / "split"), im.Recommender.open(place / "model")


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    domain = SETS[name][2]
    split, teacher = teacher_of(name, folder, options.budget)
    task = build_task(split, TEST, domain, most=options.persons)
    held = generator(0, "bench", "held").random(len(task)) < 0.5
    known = split.known(TEST)
    everybody = known["person"].unique().sort().to_numpy().astype(np.int64)
    people = Histories.from_frame(known, np.setdiff1d(everybody, task.persons[held]))
    start = time.process_time()
    how = DistilSettings(people=options.people, probes=options.probes)
    heard = listen([teacher.targets[domain]], people, teacher.items.height, how)
    asked = time.process_time() - start
    whole = judge(teacher.system(domain), task)
    rows = [row_of("teacher", teacher, task, whole, whole, held, folder)]
    blend = teacher.targets[domain].blend
    said = {
        **about(split), "set": name, "domain": domain, "test_persons": len(task), "held_out_persons": int(held.sum()),
        "items": int(task.items.size), "corpus_items": teacher.items.height, "people": len(heard.lessons.histories),
        "probes": int((np.diff(heard.lessons.added.indptr) > 0).sum()), "asked_s": round(asked, 1), "rows": rows,
        "teacher": {cohort: dict(zip(blend.methods, row, strict=True)) for cohort, row in blend.weights.items()},
    }  # fmt: skip
    for label, settings in STUDENTS.items():
        settings = DistilSettings(**{**vars(settings), "epochs": min(settings.epochs, options.epochs)})
        start = time.process_time()
        target = teach(heard, settings)
        taught = time.process_time() - start
        content = distilled_content(teacher, {domain: target}, {"student": settings.student})
        small = im.Recommender(content)
        row = row_of(label, small, task, judge(small.system(domain), task), whole, held, folder)
        rows.append({**row, "agreement": target.log[-1]["agreement@10"], "begins": target.log[0]["agreement@10"],
                     "decay": target.log[0]["decay"], "taught_s": round(taught, 1)})  # fmt: skip
        write(name, said, options.out)
    return said


def write(name: str, data: dict[str, object], out: Path) -> None:
    """Write the data of one set and the page of all; after every row, so that a run that is stopped leaves a report."""
    (out / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(markdown(out), encoding="utf-8")
    print(json.dumps({"set": name, "row": data["rows"][-1]}), file=sys.stderr, flush=True)


def row_of(
    label: str, model: im.Recommender, task: Task, mine: Outcome, whole: Outcome, held: np.ndarray, folder: Path
) -> dict[str, object]:
    domain = task.domain
    cost = serving_cost(model, domain, task.histories, times=3)
    model.save(folder / "measured")
    disk = sum(path.stat().st_size for path in (folder / "measured").iterdir()) / 1e6
    tracemalloc.start()
    model.system(domain).score(task.histories.take(np.arange(min(256, len(task)))))
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    new = task.item_groups["new item"][task.targets]
    wants_new = np.bincount(task.target_rows[new], minlength=len(task)) > 0
    parts = {"all": np.ones(len(task), bool), "unseen people": held, "new items": wants_new}
    found = {
        name: interval(mine.metrics["ndcg@10"][some], whole.metrics["ndcg@10"][some]) for name, some in parts.items()
    }
    recall = float(np.nanmean(mine.metrics["recall@10"]))
    return {"system": label, "ms_one": cost.one, "ms_batch": cost.batch, "weights_mb": cost.megabytes,
            "disk_mb": disk, "peak_mb": peak, "recall@10": recall, "ndcg@10": found}  # fmt: skip


def interval(mine: np.ndarray, whole: np.ndarray, times: int = 1000) -> dict[str, float]:
    """Return the mean, the share of the teacher's, and its 95 % interval over resampled persons."""
    if mine.size < FEWEST or np.nanmean(whole) == 0:
        return {"n": int(mine.size)}
    draws = generator(0, "bench", "bootstrap").integers(0, mine.size, (times, mine.size))
    ratios = mine[draws].mean(axis=1) / np.maximum(whole[draws].mean(axis=1), 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    means = np.quantile(mine[draws].mean(axis=1), [0.025, 0.975])
    return {"n": int(mine.size), "mean": float(mine.mean()), "low": float(means[0]), "high": float(means[1]),
            "kept": float(mine.mean() / whole.mean()), "kept_low": float(low), "kept_high": float(high)}  # fmt: skip


def text_students(name: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Return size, speed and N@10 of the method that reads, with the bundled model and with its students."""
    domain = SETS[name][2]
    split, teacher = teacher_of(name, folder, options.budget)
    task = build_task(split, TEST, domain, most=options.persons)
    texts = known_texts(split)
    made: dict[str, Callable[[Path], object]] = {
        "static": lambda out: distil_static(texts, out, settings=StaticSettings(texts=options.texts)),
        "3 layers": lambda out: distil_layers(texts, out, settings=LayerSettings(texts=options.texts)),
    }
    rows: list[dict[str, object]] = []
    said_of_all = {**about(split), "set": f"{name} texts", "domain": domain, "texts": len(texts), "rows": rows}
    whole = None
    for label in ("bundled", *made):
        start, out = time.process_time(), folder / "reader" / label.replace(" ", "-")
        said = {} if label == "bundled" else made[label](out)
        took = time.process_time() - start
        encoder = open_encoder(None if label == "bundled" else str(out))
        encoder.encode_texts(texts[:64])
        start = time.process_time()
        encoder.encode_texts(texts[: options.speed])
        rate = options.speed / (time.process_time() - start)
        read = encoder.encode(teacher.items) if label != "bundled" else teacher.features.vectors
        method = TextContent(teacher_settings(teacher, domain))
        method.fit(training_data(split, TEST, domain, Features(vectors=read)))
        outcome = judge(Reads(label, method), task)
        whole = whole or outcome
        size = sum(path.stat().st_size for path in weights_in(label, out)) / 1e6
        found = interval(outcome.metrics["ndcg@10"], whole.metrics["ndcg@10"])
        rows.append({"reader": label, "mb": size, "texts_a_second": rate, "made_s": round(took, 1),
                     "said": said, "ndcg@10": found})  # fmt: skip
        write(f"{name}-texts", said_of_all, options.out)
    return said_of_all


def teacher_settings(teacher: im.Recommender, domain: str) -> dict[str, object]:
    return next(dict(method.settings) for method in teacher.targets[domain].methods if method.name == "text")


def weights_in(label: str, out: Path) -> list[Path]:
    from isthmus.encode.weights import locate

    return list((locate(None) if label == "bundled" else out).rglob("*.safetensors"))


class Reads:
    """A method as something that can be judged."""

    def __init__(self, name: str, method: TextContent) -> None:
        self.name, self.score = name, method.score


def about(split: Split) -> dict[str, object]:
    packages = ("numpy", "scipy", "polars", "torch", "sentence-transformers")
    return {"fingerprint": split.corpus.fingerprint, "protocol": split.card.get("protocol"),
            "machine": f"{platform.machine()}, 1 thread", "python": platform.python_version(),
            "versions": {name: version(name) for name in packages}}  # fmt: skip


def markdown(folder: Path) -> str:
    lines = ["# Students and their teachers", "", PREFACE.read_text(encoding="utf-8").strip(), ""]
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        lines += text_table(data) if "texts" in data else table(data)
    return "\n".join(lines) + "\n"


def table(data: dict) -> list[str]:
    first = data["rows"][0]
    lines = [
        f"## {data['set']}: {data['domain']}",
        "",
        f"{data['test_persons']:,} test persons, {data['held_out_persons']:,} of whom took no part in teaching; "
        f"{data['items']:,} items ranked of {data['corpus_items']:,}; protocol {data['protocol']}; taught by "
        f"{data['people']:,} people and {data['probes']:,} items one by one ({data['asked_s']:.0f} s of processor time "
        f"to ask); {data['machine']}; data `{data['fingerprint'][:12]}`.",
        "",
        "| system | N@10 [95 %] | kept [95 %] | kept, not taught with | kept, new items | R@10 | agreement | ms, one "
        "| ms each of 256 | cost, one | cost of 256 | weights MB | disk MB | peak MB | s to teach |",
        "|" + "---|" * 15,
    ]
    return [*lines, *(row_in(row, first) for row in data["rows"]), ""]


def row_in(row: dict, first: dict) -> str:
    every, unseen, new = (row["ndcg@10"][name] for name in ("all", "unseen people", "new items"))
    one, many = first["ms_one"] / row["ms_one"], first["ms_batch"] / row["ms_batch"]
    cells = [
        row["system"],
        f"{every['mean']:.4f} [{every['low']:.4f}, {every['high']:.4f}]",
        kept(every),
        f"{unseen['kept']:.1%}",
        f"{new['kept']:.1%} (n {new['n']})" if "kept" in new else "–",
        f"{row['recall@10']:.4f}",
        f"{row['begins']:.3f} → {row['agreement']:.3f}" if "agreement" in row else "",
        f"{row['ms_one']:.2f}",
        f"{row['ms_batch']:.3f}",
        f"1/{one:.1f}",
        f"1/{many:.1f}",
        *(f"{row[name]:.1f}" for name in ("weights_mb", "disk_mb", "peak_mb")),
        str(row.get("taught_s", "")),
    ]
    return f"| {' | '.join(cells)} |"


def kept(found: dict) -> str:
    return f"{found['kept']:.1%} [{found['kept_low']:.1%}, {found['kept_high']:.1%}]"


def text_table(data: dict) -> list[str]:
    lines = [
        f"## {data['set']}",
        "",
        "The method `text` alone, with the same settings, over each reader's vectors.",
        "",
        "| reader | MB | texts a second | N@10 [95 %] | kept [95 %] | cosine to the teacher | s to make |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in data["rows"]:
        found, said = row["ndcg@10"], row["said"]
        cosine = f"{said['cosine_before']:.3f} → {said['cosine']:.3f}" if said else ""
        mean = f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
        speed = f"{row['texts_a_second']:,.0f}"
        cells = [row["reader"], f"{row['mb']:.1f}", speed, mean, kept(found), cosine, str(row["made_s"])]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("out/distil"))
    parser.add_argument("--models", type=Path)
    parser.add_argument("--text", action="store_true", help="the text students instead")
    parser.add_argument("--budget", type=float, default=15)
    for name, most in {"persons": 1500, "people": 1200, "probes": 20_000, "epochs": 3, "texts": 2000}.items():
        parser.add_argument(f"--{name}", type=int, default=most)
    parser.add_argument("--speed", type=int, default=400, help="texts read to measure the speed")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary)
        made = {}
        for name in options.sets:
            data = (text_students if options.text else measure)(name, folder, options)
            made[str(data["set"])] = len(data["rows"])
    print(json.dumps({"out": str(options.out), "rows": made}))


if __name__ == "__main__":
    main()
