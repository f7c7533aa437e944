"""Encode: items/s of the text encoder beside sentence-transformers' default float32, in one run. Prints JSON.

    python benchmarks/bench_encode.py --texts 3000 --pairs 5

The two are run alternately on the same real texts (``ISTHMUS_DATA``); rates are medians over the pairs, the ratio is
the median of the ratios of the pairs, and cosines compare the vectors text by text.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

DATA = Path(os.environ.get("ISTHMUS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def titles() -> Iterator[str]:
    with (DATA / "amazon2014_food_kitchen/llmcdsr/text_A.derived.tsv").open(encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")[1]


def films() -> Iterator[str]:
    with (DATA / "movielens_latest_small/movies.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            yield f"{row['title']}. {row['genres'].replace('|', ', ')}"


def games() -> Iterator[str]:
    with gzip.open(DATA / "steam_australian/steam_games.json.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = {name: value for name, value in json.loads(line).items() if value and value == value}
            lists = (", ".join(row.get(name, [])) for name in ("genres", "tags", "specs"))
            yield ". ".join(part for part in (row.get("app_name"), *lists) if part)


def timed(encode: Callable[[list[str]], np.ndarray], texts: list[str]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    rows = encode(texts)
    return time.perf_counter() - start, rows


def compare(texts: list[str], ours: Callable, theirs: Callable, pairs: int) -> dict[str, object]:
    seconds = []
    for _ in range(pairs):
        a, rows = timed(ours, texts)
        b, reference = timed(theirs, texts)
        seconds.append((a, b))
    cosine = (rows * reference).sum(axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(reference, axis=1)
    return {
        "texts": len(texts),
        "distinct": len(set(texts)),
        "mean_characters": round(statistics.mean(map(len, texts)), 1),
        "ours_per_second": round(len(texts) / statistics.median(a for a, _ in seconds), 1),
        "sentence_transformers_per_second": round(len(texts) / statistics.median(b for _, b in seconds), 1),
        "ratio_median": round(statistics.median(b / a for a, b in seconds), 2),
        "ratio_each": [round(b / a, 2) for a, b in seconds],
        "cosine_mean": round(float(cosine.mean()), 6),
        "cosine_min": round(float(cosine.min()), 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch-tokens", type=int, default=None)
    options = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer

    from isthmus.encode.text import TextEncoder, TextSettings, has_bf16

    chosen = {} if options.batch_tokens is None else {"batch_tokens": options.batch_tokens}
    encoder = TextEncoder(settings=TextSettings(device="cpu", **chosen))
    baseline = SentenceTransformer(str(encoder.folder), device="cpu", local_files_only=True)
    report: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "bf16": has_bf16("cpu"),
        "batch_tokens": encoder.settings.batch_tokens,
    }
    for name, source in (("titles", titles), ("films", films), ("games", games)):
        every = [text for text in source() if text]
        chosen_rows = np.random.default_rng(0).permutation(len(every))[: options.texts]
        texts = [every[place] for place in chosen_rows.tolist()]
        encoder.encode_texts(texts[:64])
        baseline.encode(texts[:64])
        report[name] = compare(
            texts, encoder.encode_texts, lambda some: baseline.encode(some, show_progress_bar=False), options.pairs
        )
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
