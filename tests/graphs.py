"""A small shop of books with a graph: who wrote what, and which reader follows an author."""

from __future__ import annotations

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.encode.graph import Graph
from isthmus.model.base import Features, TrainingData

AUTHORS, BOOKS = 6, 5
N = AUTHORS * BOOKS


def items(n: int = N) -> pl.DataFrame:
    return pl.DataFrame({"platform": ["shop"] * n, "item": [f"{place:03d}" for place in range(n)]})


def graph() -> Graph:
    """Book b has the author b // BOOKS, and a publisher that says nothing: drawn at random."""
    rng = np.random.default_rng(0)
    books = np.arange(N)
    edges = pl.DataFrame(
        {
            "head": [f"book{b}" for b in books] * 2,
            "relation": ["author"] * N + ["publisher"] * N,
            "tail": [f"author{b // BOOKS}" for b in books] + [f"house{h}" for h in rng.integers(0, 6, N)],
        }
    )
    return Graph(edges, items().with_columns(entity=pl.Series([f"book{b}" for b in books])))


def readers(persons: int = 80, seed: int = 1) -> Histories:
    """Everybody reads one author's books, and now and then another book; the last book is the author's."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(persons):
        author = rng.integers(0, AUTHORS)
        own = (author * BOOKS + rng.permutation(BOOKS - 1)).tolist()  # the last book of each author is never met
        rows.append([int(rng.integers(0, N - 1)) // BOOKS * BOOKS, *own])
    return Histories.of(rows)


def data(more: dict[str, np.ndarray] | None = None, vectors: np.ndarray | None = None) -> TrainingData:
    features = Features(vectors=vectors, graph=graph().neighbours(items()), more=more or {})
    return TrainingData(readers(), np.arange(N, dtype=np.int32), N, now=0, features=features, dated=False)
