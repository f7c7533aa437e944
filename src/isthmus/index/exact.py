"""The items nearest to a query by inner product, exactly: the protocol of an index, and the one that scans all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from isthmus.errors import ArtefactError, DataError
from isthmus.evaluate.ranks import top_k
from isthmus.files import Json, new_folder, read_json, sha256, write_json
from isthmus.types import Bools, Floats, Indices, Ints

FORMAT: Final = 1
CARD: Final = "vectors.json"
VECTORS: Final = "vectors.safetensors"
#: Scores held at a time, queries times items.
_AT_ONCE: Final = 4_000_000


class Index(Protocol):
    """What every index does; :func:`isthmus.testing.check_index` checks it. Keys are whole numbers of the caller."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def add(self, keys: Ints, vectors: Floats) -> None:
        """Take items in; a known key is a :class:`DataError`."""
        ...

    def delete(self, keys: Ints) -> None:
        """Drop items; an unknown key is a :class:`DataError`."""
        ...

    def search(self, queries: Floats, k: int, allowed: Bools | None = None) -> tuple[Ints, Floats]:
        """Return the keys (B, k) of the best items, best first, and their scores; -1 and -inf for an empty place.

        ``allowed`` (K,) is a flag for each key ``0..K-1``; a key beyond it is not allowed.
        """
        ...


@dataclass(frozen=True)
class Found:
    """Keys and vectors in one order."""

    keys: Ints
    vectors: Floats


class ExactIndex:
    """All vectors in one matrix, scanned in blocks.

    Parameters
    ----------
    dim : int
        Width of a vector.

    Examples
    --------
    >>> index = ExactIndex(2)
    >>> index.add(np.array([7, 9]), np.array([[1, 0], [0, 1]], np.float32))
    >>> index.search(np.array([[0.2, 0.9]], np.float32), 3)[0].tolist()
    [[9, 7, -1]]
    """

    kind = "exact"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._keys: Ints = np.zeros(0, np.int64)
        self._vectors: Floats = np.zeros((0, dim), np.float32)

    def __len__(self) -> int:
        """Return the number of items."""
        return self._keys.size

    @property
    def content(self) -> Found:
        """Keys, rising, and vectors."""
        return Found(self._keys, self._vectors)

    def add(self, keys: Ints, vectors: Floats) -> None:
        """Take items in.

        Raises
        ------
        DataError
            A key is known or given twice, or the vectors do not fit or are not finite.
        """
        keys = check_new(keys, vectors, self.dim, self._keys)
        joined = np.concatenate([self._keys, keys])
        order = np.argsort(joined, kind="stable")
        self._keys = joined[order]
        self._vectors = np.concatenate([self._vectors, vectors.astype(np.float32)])[order]

    def delete(self, keys: Ints) -> None:
        """Drop items.

        Raises
        ------
        DataError
            A key is not known.
        """
        check_known(keys, self._keys)
        kept = ~np.isin(self._keys, keys)
        self._keys, self._vectors = self._keys[kept], self._vectors[kept]

    def search(self, queries: Floats, k: int, allowed: Bools | None = None) -> tuple[Ints, Floats]:
        """Return the best ``k`` keys (B, k) of each query and their inner products; ties go to the lower key."""
        check_queries(queries, self.dim, k)
        here = np.arange(len(self)) if allowed is None else np.flatnonzero(permitted(self._keys, allowed))
        keys, vectors = self._keys[here], self._vectors if allowed is None else self._vectors[here]
        best = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        if not keys.size:
            return best, scores
        step = max(1, _AT_ONCE // keys.size)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            every = np.asarray(queries[part], np.float32) @ vectors.T
            places: Indices = top_k(every, k)
            real = places >= 0
            best[part] = np.where(real, keys[places], -1)
            scores[part] = np.where(real, np.take_along_axis(every, np.maximum(places, 0).astype(np.int64), 1), -np.inf)
        return best, scores

    def save(self, path: str | Path) -> None:
        """Write the index to a folder, whole or not at all."""
        write_index(Path(path), self.kind, self.content)

    @classmethod
    def open(cls, path: str | Path) -> ExactIndex:
        """Return the index in a folder, written as an exact or an approximate one.

        Raises
        ------
        ArtefactError
            No index there, or it is damaged.
        """
        _, content = read_index(Path(path))
        index = cls(content.vectors.shape[1])
        index.add(content.keys, content.vectors)
        return index


def permitted(keys: Ints, allowed: Bools) -> Bools:
    """Return whether each key is allowed, (n,); a key beyond the flags is not."""
    inside = (keys >= 0) & (keys < allowed.size)
    return np.asarray(inside & allowed[np.where(inside, keys, 0)] if allowed.size else inside)


def allow(n_items: int, *, rows: Ints | None = None, available: Bools | None = None) -> Bools:
    """Return which of ``n_items`` keys may be found: those in ``rows`` (such as a domain) that are ``available``.

    Examples
    --------
    >>> allow(4, rows=np.array([1, 2]), available=np.array([True, False, True, True])).tolist()
    [False, False, True, False]
    """
    flags = np.ones(n_items, dtype=bool) if available is None else available.copy()
    if rows is not None:
        inside = np.zeros(n_items, dtype=bool)
        inside[rows] = True
        flags &= inside
    return flags


def unseen(keys: Ints, scores: Floats, seen: list[Ints], k: int) -> tuple[Ints, Floats]:
    """Return the first ``k`` of each row of a search, without what each person has seen; ask it for as many more."""
    left = keys.copy()
    for row, known in enumerate(seen):
        left[row, np.isin(left[row], known)] = -1
    order = np.argsort(left < 0, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(left, order, axis=1)
    return found, np.where(found >= 0, np.take_along_axis(scores, order, axis=1), -np.inf).astype(np.float32)


def check_new(keys: Ints, vectors: Floats, dim: int, known: Ints) -> Ints:
    """Return the keys as int64, checked against the vectors and against what is known already."""
    keys = np.asarray(keys, dtype=np.int64)
    if vectors.shape != (keys.size, dim):
        raise DataError(f"{keys.size} keys and vectors {vectors.shape} do not fit dim {dim}", where="index")
    if not np.isfinite(vectors).all():
        raise DataError("a vector is not finite", where="index")
    if keys.size and keys.min() < 0:
        raise DataError("a key is negative", where="index")
    if np.unique(keys).size < keys.size or np.isin(keys, known).any():
        raise DataError("a key is known already or given twice", where="index", fix="delete it first")
    return keys


def check_known(keys: Ints, known: Ints) -> None:
    """Require that every key is known."""
    lost = np.setdiff1d(keys, known)
    if lost.size:
        raise DataError(f"{lost.size} key(s) are not in the index, first {lost[0]}", where="index")


def check_queries(queries: Floats, dim: int, k: int) -> None:
    """Require queries of the right width that are numbers, and a list length of at least 1."""
    if queries.ndim != 2 or queries.shape[1] != dim or not np.isfinite(queries).all() or k < 1:
        raise DataError(f"queries {queries.shape} with k = {k} do not fit dim {dim}, or are not finite", where="index")


def write_index(path: Path, kind: str, content: Found, settings: Mapping[str, object] | None = None) -> None:
    """Write keys and vectors: safetensors and a card with the checksum."""
    with new_folder(path) as folder:
        save_file({"keys": content.keys, "vectors": np.ascontiguousarray(content.vectors)}, folder / VECTORS)
        card: Json = {
            "format": FORMAT,
            "kind": kind,
            "settings": dict(settings or {}),
            "sha256": sha256(folder / VECTORS),
        }
        write_json(folder / CARD, card)


def read_index(path: Path) -> tuple[Json, Found]:
    """Return the card and the content of an index folder, verified.

    Raises
    ------
    ArtefactError
        No index there, another format, or a file is missing or was changed.
    """
    card = read_json(path / CARD, what="index")
    if card.get("format") != FORMAT:
        raise ArtefactError(f"index format {card.get('format')}, this version reads {FORMAT}", where=path)
    file = path / VECTORS
    if not file.is_file() or sha256(file) != card.get("sha256"):
        raise ArtefactError(f"{VECTORS} is missing or was changed", where=path, fix="build the index again")
    try:
        arrays = load_file(file)
        return card, Found(cast("Ints", arrays["keys"]), cast("Floats", arrays["vectors"]))
    except (KeyError, SafetensorError) as error:
        raise ArtefactError(f"the index is damaged: {error}", where=path, fix="build it again") from error
