"""Vectors kept on disk under the text they were made from: only what changed is encoded again."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeGuard

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isthmus.encode.base import Encoder, ItemVectors, TextModel
from isthmus.files import new_file
from isthmus.log import logger, progress
from isthmus.types import Bools, Floats, Ints

#: A shard is written after so many new vectors or seconds, whichever comes first: an interruption loses no more.
SHARD_ROWS: Final = 16_384
SHARD_SECONDS: Final = 20.0
#: So many small shards are merged into one when new vectors are written.
MANY_SHARDS: Final = 32

Keys = NDArray[np.void]
_KEY: Final = np.dtype("V16")


def cache_folder() -> Path:
    """Return the folder of the cache: ``ISTHMUS_CACHE``, else ``isthmus`` in the user's cache folder."""
    named = os.environ.get("ISTHMUS_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "isthmus"


class VectorCache:
    """Vectors of one model, addressed by the hash of their text.

    Shards (safetensors) are written whole or not at all and never changed, so any number of processes may read and
    write one folder; two that encode the same text at the same time both keep it, and either copy serves. A damaged
    shard counts as absent.

    Parameters
    ----------
    model_fingerprint : str
        Fingerprint of what turns a text into a vector.
    folder : Path, optional
        Default :func:`cache_folder`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = VectorCache("model", Path(folder))
    ...     cache.put(text_keys(["tea"]), np.ones((1, 2), dtype="float32"))
    ...     found, rows = cache.get(text_keys(["tea", "new"]))
    >>> found.tolist(), rows.tolist()
    ([True, False], [[1.0, 1.0], [0.0, 0.0]])
    """

    def __init__(self, model_fingerprint: str, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "vectors" / model_fingerprint

    def get(self, keys: Keys) -> tuple[Bools, Floats]:
        """Return which of the ``keys`` (N,) are kept, and their vectors (N, D) float32; zeros for the others.

        Where nothing at all is kept, ``D`` is 0.
        """
        found = np.zeros(keys.size, dtype=bool)
        rows = np.zeros((keys.size, 0), dtype=np.float32)
        order = np.argsort(keys)
        ordered = keys[order]
        for shard in self._shards():
            content = None if found.all() else _read(shard)
            if content is None:
                continue
            kept, vectors = content
            if rows.shape[1] == 0:
                rows = np.zeros((keys.size, vectors.shape[1]), dtype=np.float32)
            places = np.minimum(np.searchsorted(ordered, kept), keys.size - 1)
            match = ordered[places] == kept
            rows[order[places[match]]] = vectors[match]
            found[order[places[match]]] = True
        return found, rows

    def put(self, keys: Keys, rows: Floats) -> None:
        """Keep ``rows`` (N, D) under ``keys`` (N,)."""
        if keys.size == 0:
            return
        shards = self._shards()
        _write(self.folder, keys, rows)
        small = [shard for shard in shards if _size(shard) < SHARD_ROWS * rows.shape[1] * 2]
        if len(small) >= MANY_SHARDS:
            self._merge(small)

    def __len__(self) -> int:
        """Return the number of texts kept."""
        kept = [content[0] for shard in self._shards() if (content := _read(shard)) is not None]
        return int(np.unique(np.concatenate(kept)).size) if kept else 0

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _merge(self, shards: list[Path]) -> None:
        """Write ``shards`` as one, then remove them: a reader in between finds every vector at least once."""
        contents = [content for shard in shards if (content := _read(shard)) is not None]
        if contents:
            keys, first = np.unique(np.concatenate([kept for kept, _ in contents]), return_index=True)
            _write(self.folder, keys, np.concatenate([rows for _, rows in contents])[first])
        for shard in shards:
            shard.unlink(missing_ok=True)


def text_keys(texts: Sequence[str]) -> Keys:
    """Return the 128-bit BLAKE2 hash of each text, (N,)."""
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts
    )
    return np.frombuffer(digests, dtype=_KEY)


def encode_items(
    items: pl.DataFrame, encoder: Encoder, *, cache: Path | bool | None = True, corpus: str = ""
) -> ItemVectors:
    """Return the vectors of ``items``; a text that any earlier run has encoded is not encoded again.

    What is encoded is kept as it comes, so an interrupted run goes on where it stopped.

    Parameters
    ----------
    items : polars.DataFrame
        Items table (columns platform, item and what the encoder reads).
    encoder : Encoder
        Only encoders that read one text an item (:class:`~isthmus.encode.base.TextModel`) use the cache.
    cache : Path or bool
        Folder of the cache; True for :func:`cache_folder`, False or None for none.
    corpus : str
        Fingerprint of the corpus, noted in the vectors.

    Raises
    ------
    DataError
        An item comes twice, or the encoder gives values that are not finite.
    StorageError
        The cache cannot be written.
    """
    if cache and _reads_text(encoder):
        folder = cache if isinstance(cache, Path) else cache_folder()
        matrix = _through_cache(items, encoder, VectorCache(encoder.model_fingerprint, folder))
    else:
        matrix = encoder.encode(items)
    return ItemVectors.of(items, matrix, encoder=encoder.fingerprint, corpus=corpus)


def _reads_text(encoder: Encoder) -> TypeGuard[TextModel]:
    """Return whether ``encoder`` is a :class:`TextModel`, without asking for its properties: they load the model."""
    return all(callable(getattr(type(encoder), name, None)) for name in ("texts", "stream"))


def _through_cache(items: pl.DataFrame, encoder: TextModel, cache: VectorCache) -> Floats:
    texts = encoder.texts(items)
    distinct = texts.unique(maintain_order=True)
    places = pl.DataFrame({"text": texts}).join(
        pl.DataFrame({"text": distinct}).with_row_index("place"), on="text", how="left", maintain_order="left"
    )["place"]
    keys = text_keys(distinct.to_list())
    found, rows = cache.get(keys)
    missing = np.flatnonzero(~found)
    logger.info("encode: %d texts, %d of them kept from earlier runs", distinct.len(), distinct.len() - missing.size)
    if missing.size:
        rows = rows if found.any() else np.zeros((keys.size, encoder.dim), dtype=np.float32)
        for some, vectors in _encode_and_keep(encoder, distinct.gather(missing).to_list(), keys[missing], cache):
            rows[missing[some]] = vectors
    matrix: Floats = rows[places.to_numpy()]
    return matrix


def _encode_and_keep(
    encoder: TextModel, texts: list[str], keys: Keys, cache: VectorCache
) -> Iterator[tuple[Ints, Floats]]:
    """Yield what ``encoder.stream`` yields; write a shard now and then, and also when interrupted."""
    waiting: list[tuple[Ints, Floats]] = []
    since = time.monotonic()
    with progress("encode", len(texts)) as advance:
        try:
            for places, vectors in encoder.stream(texts):
                waiting.append((places, vectors))
                advance(places.size)
                yield places, vectors
                rows = sum(some.size for some, _ in waiting)
                if rows >= SHARD_ROWS or time.monotonic() - since > SHARD_SECONDS:
                    _flush(cache, keys, waiting)
                    since = time.monotonic()
        finally:
            _flush(cache, keys, waiting)


def _flush(cache: VectorCache, keys: Keys, waiting: list[tuple[Ints, Floats]]) -> None:
    if waiting:
        places = np.concatenate([some for some, _ in waiting])
        cache.put(keys[places], np.concatenate([vectors for _, vectors in waiting]))
        waiting.clear()


def _write(folder: Path, keys: Keys, rows: Floats) -> None:
    from safetensors.numpy import save_file

    content = {"keys": keys.view(np.uint8).reshape(-1, _KEY.itemsize), "vectors": np.ascontiguousarray(rows)}
    with new_file(folder / f"{uuid.uuid4().hex}.safetensors") as part:
        save_file({name: np.ascontiguousarray(array) for name, array in content.items()}, part)


def _read(shard: Path) -> tuple[Keys, Floats] | None:
    """Return keys and vectors of a shard; None if it is damaged or another process has just merged it away."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        content = load_file(shard)
        keys = np.ascontiguousarray(content["keys"]).view(_KEY).reshape(-1)
        vectors: Floats = content["vectors"]
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        logger.warning("cache: %s is damaged and passed over (%s)", shard, error)
        return None
    return (keys, vectors) if len(keys) == len(vectors) else None


def _size(shard: Path) -> int:
    try:
        return shard.stat().st_size
    except FileNotFoundError:
        return 0
