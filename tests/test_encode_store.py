"""The vector cache: only changed texts are read again, whatever happens to the process or the files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from isthmus.encode import store
from isthmus.encode.store import VectorCache, cache_folder, encode_items, text_keys
from isthmus.errors import StorageError
from isthmus.types import Floats, Ints


class Counting:
    """A text model whose vector is a hash of the text; it counts what it reads and may be interrupted."""

    fingerprint = "counting-template"
    model_fingerprint = "counting"

    def __init__(self, stop_after: int | None = None) -> None:
        self.read: list[str] = []
        self.stop_after = stop_after

    @property
    def dim(self) -> int:
        return 4

    def texts(self, items: pl.DataFrame) -> pl.Series:
        return items["title"].fill_null("")

    def encode(self, items: pl.DataFrame) -> Floats:
        return vectors_of(self.texts(items).to_list())

    def stream(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Floats]]:
        for start in range(0, len(texts), 2):
            if self.stop_after is not None and len(self.read) >= self.stop_after:
                raise KeyboardInterrupt
            some = list(texts[start : start + 2])
            self.read += some
            yield np.arange(start, start + len(some)), vectors_of(some)


def vectors_of(texts: list[str]) -> Floats:
    digests = [hashlib.blake2b(text.encode(), digest_size=4).digest() for text in texts]
    return np.array([list(digest) for digest in digests], dtype=np.float32).reshape(len(texts), 4) + 1


def shop(*titles: str | None) -> pl.DataFrame:
    names = [f"i{k}" for k in range(len(titles))]
    return pl.DataFrame(
        {"platform": "shop", "item": names, "title": list(titles)}, schema_overrides={"title": pl.String}
    )


def test_only_changed_rows_are_encoded_again(tmp_path: Path) -> None:
    first = Counting()
    encode_items(shop("tea", "茶", "tea", "cup"), first, cache=tmp_path)
    assert sorted(first.read) == ["cup", "tea", "茶"]
    second = Counting()
    vectors = encode_items(shop("cup", "new", "茶", "tea"), second, cache=tmp_path, corpus="c")
    assert second.read == ["new"]
    np.testing.assert_array_equal(vectors.matrix, vectors_of(["cup", "new", "茶", "tea"]))
    assert (vectors.encoder, vectors.corpus) == ("counting-template", "c")


def test_a_fully_kept_run_never_asks_the_model_for_anything(tmp_path: Path) -> None:
    encode_items(shop("a", "b"), Counting(), cache=tmp_path)

    class Closed(Counting):
        @property
        def dim(self) -> int:
            raise AssertionError("the model was loaded")

    again = encode_items(shop("b", "a"), Closed(), cache=tmp_path)
    np.testing.assert_array_equal(again.matrix, vectors_of(["b", "a"]))


def test_models_do_not_share_vectors(tmp_path: Path) -> None:
    encode_items(shop("a"), Counting(), cache=tmp_path)
    other = Counting()
    other.model_fingerprint = "another"
    encode_items(shop("a"), other, cache=tmp_path)
    assert other.read == ["a"]


def test_without_a_cache_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "cache"))
    vectors = encode_items(shop("a", None), Counting(), cache=False)
    np.testing.assert_array_equal(vectors.matrix, vectors_of(["a", ""]))
    assert not (tmp_path / "cache").exists()


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "mine"))
    encode_items(shop("a"), Counting())
    assert list((tmp_path / "mine" / "vectors" / "counting").glob("*.safetensors"))
    monkeypatch.delenv("ISTHMUS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "isthmus"


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(store, "SHARD_SECONDS", seconds)
    titles = [f"title {k}" for k in range(11)]
    stopped = Counting(stop_after=6)
    with pytest.raises(KeyboardInterrupt):
        encode_items(shop(*titles), stopped, cache=tmp_path)
    resumed = Counting()
    vectors = encode_items(shop(*titles), resumed, cache=tmp_path)
    assert len(stopped.read) == 6
    assert sorted(stopped.read + resumed.read) == sorted(titles)
    np.testing.assert_array_equal(vectors.matrix, vectors_of(titles))


def test_a_damaged_shard_counts_as_absent(tmp_path: Path) -> None:
    encode_items(shop("a", "b"), Counting(), cache=tmp_path)
    shard = next(tmp_path.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-3])
    again = Counting()
    vectors = encode_items(shop("a", "b"), again, cache=tmp_path)
    assert again.read == ["a", "b"]
    np.testing.assert_array_equal(vectors.matrix, vectors_of(["a", "b"]))


def test_a_cache_is_right_for_many_keys_over_many_shards(tmp_path: Path) -> None:
    cache = VectorCache("m", tmp_path)
    texts = [f"text {k}" for k in range(3000)]
    keys, rows = text_keys(texts), vectors_of(texts)
    for start in range(0, 2000, 40):
        cache.put(keys[start : start + 40], rows[start : start + 40])
    assert len(list(tmp_path.rglob("*.safetensors"))) <= store.MANY_SHARDS
    assert len(cache) == 2000
    order = np.random.default_rng(0).permutation(3000)
    found, kept = cache.get(keys[order])
    np.testing.assert_array_equal(found, order < 2000)
    np.testing.assert_array_equal(kept[found], rows[order][found])
    assert not kept[~found].any()


def test_several_writers_and_mergers_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MANY_SHARDS", 3)
    texts = [f"text {k}" for k in range(400)]

    def work(part: int) -> None:
        cache = VectorCache("m", tmp_path)
        for start in range(part * 100, part * 100 + 100, 10):
            some = texts[start : start + 10]
            cache.put(text_keys(some), vectors_of(some))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found, kept = VectorCache("m", tmp_path).get(text_keys(texts))
    assert found.all()
    np.testing.assert_array_equal(kept, vectors_of(texts))
    assert not list(tmp_path.rglob("*.part-*"))


def test_nothing_to_encode_gives_no_vectors(tmp_path: Path) -> None:
    assert len(encode_items(shop(), Counting(), cache=tmp_path)) == 0
    cache = VectorCache("m", tmp_path)
    cache.put(text_keys([]), np.zeros((0, 4), np.float32))
    assert len(cache) == 0
    assert cache.get(text_keys(["a"]))[0].tolist() == [False]


def test_a_full_disk_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(StorageError, match="disk is full"):
        encode_items(shop("a"), Counting(), cache=tmp_path)
