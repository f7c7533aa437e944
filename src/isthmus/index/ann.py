"""The items nearest to a query by inner product, approximately: a graph (HNSW) through ``usearch``.

Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable small world
graphs", TPAMI 2020.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np

from isthmus.errors import DataError, InputError
from isthmus.index.exact import (
    ExactIndex,
    Found,
    Index,
    check_queries,
    permitted,
    read_index,
    write_index,
)
from isthmus.log import logger
from isthmus.types import Bools, Floats, Ints

#: Catalogues below this size are scanned: a graph saves nothing there.
LARGE: Final = 50_000
#: Where fewer than this share of the items are allowed, they are scanned.
SCARCE: Final = 0.2
#: Edges of an item, and candidates while building and while searching.
EDGES: Final = 16
BUILD: Final = 128
SEARCH: Final = 192
#: Queries of the check after churn, and the share of adds and deletes after which it is due.
CHECKED: Final = 64
CHURN: Final = 0.05
#: Recall@10 to keep.
FLOOR: Final = 0.97
#: Scores that differ by no more than this share are alike.
CLOSE: Final = 1e-5


class _Matches(Protocol):
    keys: Ints


class _Graph(Protocol):
    """What we use of ``usearch``."""

    def add(self, keys: Ints, vectors: Floats, *, threads: int) -> object: ...

    def remove(self, keys: Ints) -> object: ...

    def search(self, vectors: Floats, count: int, *, threads: int) -> _Matches: ...


class ApproximateIndex:
    """A graph over the vectors, with the vectors beside it: what it finds is scored exactly.

    After a twentieth of the items came or went, the recall@10 of a sample is measured against the scan; below ``floor``
    the graph is built anew, and if that does not help everything is scanned until the next measurement.

    Parameters
    ----------
    dim : int
        Width of a vector.
    floor : float
        Recall@10 to keep.

    Raises
    ------
    InputError
        ``usearch`` is not installed, or ``floor`` is no share.
    """

    kind = "approximate"

    def __init__(self, dim: int, *, floor: float = FLOOR) -> None:
        if not 0 <= floor <= 1:
            raise InputError(f"recall floor {floor}", fix="take a share from 0 to 1")
        self.dim, self.floor = dim, floor
        self._all = ExactIndex(dim)
        self._churn = 0
        self._scans = False
        self._graph = self._new()

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._all)

    @property
    def content(self) -> Found:
        """Keys, rising, and vectors."""
        return self._all.content

    def add(self, keys: Ints, vectors: Floats) -> None:
        """Take items in; raises as :meth:`isthmus.index.exact.ExactIndex.add` does."""
        self._all.add(keys, vectors)
        if len(keys):
            self._graph.add(np.asarray(keys, np.int64), np.asarray(vectors, np.float32), threads=1)
        self._changed(len(keys))

    def delete(self, keys: Ints) -> None:
        """Drop items; raises as :meth:`isthmus.index.exact.ExactIndex.delete` does."""
        self._all.delete(keys)
        if len(keys):
            self._graph.remove(np.asarray(keys, np.int64))
        self._changed(len(keys))

    def search(self, queries: Floats, k: int, allowed: Bools | None = None) -> tuple[Ints, Floats]:
        """Return keys (B, k) and inner products as the exact index does; some of the best may be missing."""
        check_queries(queries, self.dim, k)
        keys = self.content.keys
        flags = np.ones(keys.size, dtype=bool) if allowed is None else permitted(keys, allowed)
        share = float(flags.mean()) if keys.size else 0.0
        wanted = int(np.ceil(k / max(share, 1e-9) * 1.5)) if allowed is not None else k
        if self._scans or share < SCARCE or wanted * 2 > keys.size:
            return self._all.search(queries, k, allowed)
        found, scores = self._ranked(queries, min(wanted, keys.size), flags, k)
        short = np.flatnonzero(found[:, min(k, int(flags.sum())) - 1] < 0)
        if short.size:
            found[short], scores[short] = self._all.search(queries[short], k, allowed)
        return found, scores

    def recall(self, k: int = 10) -> float:
        """Return the share of the best ``k`` that is found, over a sample of items that ask for their like.

        Of items that are equally near any will do.
        """
        keys, vectors = self.content.keys, self.content.vectors
        if not keys.size:
            return 1.0
        asked = vectors[np.linspace(0, keys.size - 1, min(CHECKED, keys.size)).astype(np.int64)]
        k = min(k, keys.size)
        least = self._all.search(asked, k)[1][:, -1:]
        scores = self._ranked(asked, k, np.ones(keys.size, dtype=bool), k)[1]
        return float((scores >= least - CLOSE * np.abs(least)).mean())

    def save(self, path: str | Path) -> None:
        """Write the vectors to a folder, whole or not at all; the graph is built again when it is opened."""
        write_index(Path(path), self.kind, self.content, {"floor": self.floor})

    @classmethod
    def open(cls, path: str | Path) -> ApproximateIndex:
        """Return the index in a folder; raises as :meth:`isthmus.index.exact.ExactIndex.open` does."""
        card, content = read_index(Path(path))
        settings = cast("dict[str, float]", card["settings"])
        index = cls(content.vectors.shape[1], floor=float(settings.get("floor", FLOOR)))
        index.add(content.keys, content.vectors)
        return index

    def _new(self) -> _Graph:
        try:
            library = import_module("usearch.index")
        except ImportError as error:
            raise InputError("usearch is not installed", fix="pip install usearch, or use ExactIndex") from error
        return cast("_Graph", library.Index(ndim=self.dim, metric="ip", dtype="f32", connectivity=EDGES,
                                            expansion_add=BUILD, expansion_search=SEARCH))  # fmt: skip

    def _changed(self, count: int) -> None:
        self._churn += count
        if self._churn < CHURN * max(len(self), 1):
            return
        self._churn = 0
        reached = self.recall() if self.floor > 0 else 1.0
        if reached < self.floor and len(self):
            logger.info("index: recall %.3f is below %.3f, building it anew", reached, self.floor)
            self._graph = self._new()
            self._graph.add(self.content.keys, self.content.vectors, threads=1)
            reached = self.recall()
        self._scans = reached < self.floor

    def _ranked(self, queries: Floats, wanted: int, flags: Bools, k: int) -> tuple[Ints, Floats]:
        """Return what the graph finds among the flagged items, scored exactly and in order, (B, k) each."""
        keys, vectors = self.content.keys, self.content.vectors
        matches = self._graph.search(np.asarray(queries, np.float32), wanted, threads=1)
        raw = np.asarray(matches.keys).reshape(len(queries), -1).astype(np.int64)
        places = np.minimum(np.searchsorted(keys, np.clip(raw, 0, None)), keys.size - 1)
        real = (keys[places] == raw) & flags[places]
        scores = np.einsum("bd,bwd->bw", np.asarray(queries, np.float32), vectors[places])
        scores = np.where(real, scores, -np.inf).astype(np.float32)
        order = np.lexsort((raw, -scores), axis=1)[:, :k]
        best, values = np.take_along_axis(raw, order, axis=1), np.take_along_axis(scores, order, axis=1)
        best = np.where(values > -np.inf, best, -1)
        lack = k - best.shape[1]
        return (
            np.pad(best, ((0, 0), (0, lack)), constant_values=-1),
            np.pad(values, ((0, 0), (0, lack)), constant_values=-np.inf),
        )


def make_index(keys: Ints, vectors: Floats, *, large: int = LARGE, floor: float = FLOOR) -> Index:
    """Return an index of the items: exact below ``large`` items, approximate with a recall ``floor`` from there on.

    Examples
    --------
    >>> len(make_index(np.arange(3), np.eye(3, dtype=np.float32)))
    3
    """
    if vectors.ndim != 2:
        raise DataError(f"vectors of shape {vectors.shape}", where="index", fix="give one row an item")
    dim = vectors.shape[1]
    index: Index = ExactIndex(dim) if len(keys) < large else ApproximateIndex(dim, floor=floor)
    index.add(keys, vectors)
    return index
