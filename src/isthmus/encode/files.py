"""What encoders of files share: which files there are, which cannot be read and why, and what was read before."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import numpy as np
import polars as pl

from isthmus.data.media import Folders, media_paths
from isthmus.encode.store import VectorCache
from isthmus.log import logger, progress
from isthmus.types import Floats

#: Why an item has no vector. The first two are normal.
UNNAMED: Final = "no file named"
MISSING: Final = "no such file"
EMPTY: Final = "0 bytes"
TOO_LARGE: Final = "too large"
BROKEN: Final = "cannot be read"
#: Files read together.
BATCH: Final = 32

T = TypeVar("T")


class FileEncoder(ABC):
    """An encoder of one kind of file an item; an item without one, or with one that cannot be read, gets zeros.

    What was read is kept in the cache under the hash of the file's bytes.

    Parameters
    ----------
    folders : mapping
        Platform -> kind -> folder (:func:`isthmus.data.media.media_paths`): files are read from inside them only.
    cache : Path or None, optional
        Folder of the cache; the user's by default.

    Attributes
    ----------
    counts : Counter
        How many items of the last :meth:`encode` have no vector, by reason; and ``read``.
    """

    kind: ClassVar[str]
    #: Largest file in bytes.
    most_bytes: ClassVar[int]

    def __init__(self, folders: Folders, *, cache: Path | None = None) -> None:
        self.folders = folders
        self.cache = cache
        self.counts: Counter[str] = Counter()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides the vectors."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length ``D`` of a vector."""

    @abstractmethod
    def read(self, files: Sequence[Path]) -> list[Floats | str]:
        """Return the vector (D,) of each file, or the reason why there is none."""

    def encode(self, items: pl.DataFrame) -> Floats:
        """Return (N, D) float32, one row a row of ``items``."""
        self.counts = Counter()
        files = self._files(media_paths(items, self.kind, self.folders))
        rows = np.zeros((items.height, self.dim), np.float32)
        cache = VectorCache(self.fingerprint, self.cache)
        with progress(f"read {self.kind} files", len(files)) as advance:
            for some in _runs(sorted(files.items()), BATCH * 16):
                for place, vector in self._vectors(dict(some), cache):
                    rows[place] = vector
                advance(len(some))
        self._tell(items.height)
        return rows

    def _files(self, paths: Sequence[Path | None]) -> dict[int, Path]:
        """Return the files worth opening by the row of their item; count the others."""
        found = {}
        for place, path in enumerate(paths):
            reason = UNNAMED if path is None else self._refused(path)
            if reason:
                self.counts[reason] += 1
            elif path is not None:
                found[place] = path
        return found

    def _refused(self, path: Path) -> str:
        if not path.is_file():
            return MISSING
        size = path.stat().st_size
        return EMPTY if size == 0 else TOO_LARGE if size > self.most_bytes else ""

    def _vectors(self, files: dict[int, Path], cache: VectorCache) -> Iterator[tuple[int, Floats]]:
        """Yield the vectors of some files, those kept from earlier runs first."""
        places = list(files)
        keys = np.frombuffer(b"".join(_digest(files[place]) for place in places), dtype="V16")
        found, kept = cache.get(keys)
        for at in np.flatnonzero(found).tolist():
            self.counts["read"] += 1
            yield places[at], kept[at]
        fresh: list[tuple[int, Floats]] = []
        lacking: list[int] = np.flatnonzero(~found).tolist()
        for some in _runs(lacking, BATCH):
            for at, vector in zip(some, self.read([files[places[at]] for at in some]), strict=True):
                if isinstance(vector, str):
                    self.counts[vector] += 1
                else:
                    fresh.append((at, vector))
        if fresh:
            cache.put(keys[[at for at, _ in fresh]], np.stack([vector for _, vector in fresh]))
        for at, vector in fresh:
            self.counts["read"] += 1
            yield places[at], vector

    def _tell(self, items: int) -> None:
        bad = {reason: self.counts[reason] for reason in (EMPTY, TOO_LARGE, BROKEN) if self.counts[reason]}
        logger.info("%s: %d of %d items have one", self.kind, self.counts["read"], items)
        if bad:
            told = ", ".join(f"{count} {reason}" for reason, count in bad.items())
            logger.warning("%s files passed over: %s", self.kind, told)


def _digest(path: Path) -> bytes:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).digest()


def _runs(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
