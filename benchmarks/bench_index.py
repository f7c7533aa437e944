"""Approximate search on real item vectors: three libraries against the exact scan, before and after churn.

    ISTHMUS_DATA=... python benchmarks/bench_index.py --out benchmarks/reports/NAME

Vectors: titles of beauty_sports_toys read by the bundled language model and whitened, and iALS factors of Toys.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import hnswlib
import numpy as np
from usearch.index import Index as Usearch

import isthmus as im
from bench_methods import corpus_of
from isthmus.encode.base import unit
from isthmus.encode.store import encode_items
from isthmus.encode.text import TextEncoder
from isthmus.encode.whiten import Whitening
from isthmus.evaluate.ranks import top_k
from isthmus.model.base import Features
from isthmus.model.factors import Als
from isthmus.split.temporal import TEST
from isthmus.train.fit import training_data

M, BUILD, SEARCH, K, QUERIES = 16, 128, 192, 10, 200
Search = Callable[[np.ndarray], np.ndarray]


def with_hnswlib(rows: np.ndarray) -> tuple[Search, Callable[[np.ndarray], None]]:
    index = hnswlib.Index("ip", rows.shape[1])
    index.init_index(len(rows), M=M, ef_construction=BUILD)
    index.set_num_threads(1)
    index.add_items(rows, np.arange(len(rows)))
    index.set_ef(SEARCH)
    return (lambda q: index.knn_query(q, K)[0].astype(np.int64)), lambda gone: [index.mark_deleted(n) for n in gone]


def with_usearch(rows: np.ndarray) -> tuple[Search, Callable[[np.ndarray], None]]:
    index = Usearch(
        ndim=rows.shape[1], metric="ip", dtype="f32", connectivity=M, expansion_add=BUILD, expansion_search=SEARCH
    )
    index.add(np.arange(len(rows)), rows, threads=1)
    return (lambda q: np.asarray(index.search(q, K, threads=1).keys).astype(np.int64)), lambda gone: index.remove(gone)


def with_faiss(rows: np.ndarray) -> tuple[Search, None]:
    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(rows.shape[1], M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, SEARCH
    index.add(rows)
    return (lambda q: index.search(q, K)[1]), None


LIBRARIES = {"hnswlib": with_hnswlib, "usearch": with_usearch, "faiss": with_faiss}


def recall(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(right, found, strict=True)]))


def measure(label: str, rows: np.ndarray, queries: np.ndarray) -> list[dict[str, object]]:
    start = time.process_time()
    exact = top_k(queries @ rows.T, K)
    scan = 1000 * (time.process_time() - start) / len(queries)
    found = [{"vectors": label, "items": len(rows), "dim": rows.shape[1], "library": "exact", "ms": scan, "recall": 1}]
    gone = np.sort(np.random.default_rng(0).choice(len(rows), len(rows) // 5, replace=False))
    left = queries @ rows.T
    left[:, gone] = -np.inf
    after = top_k(left, K)
    for name, build in LIBRARIES.items():
        start = time.process_time()
        search, remove = build(rows)
        built = time.process_time() - start
        start = time.process_time()
        keys = search(queries)
        ms = 1000 * (time.process_time() - start) / len(queries)
        row: dict[str, object] = {"vectors": label, "items": len(rows), "dim": rows.shape[1], "library": name}
        row |= {"build_s": round(built, 2), "ms": ms, "recall": recall(keys, exact)}
        if remove is not None:
            remove(gone)
            row["recall_churned"] = recall(search(queries), after)
        found.append(row)
    return found


def vectors(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray]]:
    corpus = corpus_of("beauty_sports_toys", folder)
    read = encode_items(corpus.items, TextEncoder(None)).matrix
    white = unit(Whitening.fit(read).transform(read))
    split = im.Split.make(corpus, protocol="leave-last")
    data = training_data(split, TEST, "Toys", Features())
    als = Als({"sources": False, "iterations": 8}).fit(data)
    factors, rng = als.factors[data.target], np.random.default_rng(1)
    histories = data.learn_from(False)
    people = als.profile(histories.take(rng.choice(len(histories), QUERIES, replace=False)))
    toys, asked = white[data.target], np.asarray(people @ white)
    return [("text, Toys", toys, asked), ("iALS, Toys", factors, np.asarray(people @ als.factors))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("out/index"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        rows = [row for case in vectors(Path(folder)) for row in measure(*case)]
    data = {
        "created": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, one core; seconds of processor time",
        "settings": {"M": M, "ef_construction": BUILD, "ef": SEARCH, "k": K, "queries": QUERIES},
        "rows": rows,
    }
    print(json.dumps(data))
    (options.out / "index.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
