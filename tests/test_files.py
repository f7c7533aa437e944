"""Whole or not at all: nothing half written, nothing of others overwritten, nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import ArtefactError, InputError, StorageError
from isthmus.files import MANIFESTS, new_file, new_folder, read_json, sha256, sweep, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def store(path: Path, content: str, manifest: str = "corpus.json") -> None:
    with new_folder(path) as folder:
        (folder / manifest).write_text("{}")
        (folder / "data").write_text(content)


def dead_pid() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_a_new_folder_appears_with_all_its_content(tmp_path: Path) -> None:
    store(tmp_path / "deep" / "语料", "one")
    assert names(tmp_path / "deep") == ["语料"]
    assert (tmp_path / "deep" / "语料" / "data").read_text() == "one"


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    store(tmp_path / "c", "old")
    with pytest.raises(FileNotFoundError, match="nothing"), new_folder(tmp_path / "c") as folder:
        ((folder / "data").write_text("new"), (folder / "nothing").read_text())
    assert names(tmp_path) == ["c"]
    assert (tmp_path / "c" / "data").read_text() == "old"
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "d"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["c"]


def test_our_own_folder_is_replaced_after_the_new_one_is_complete(tmp_path: Path) -> None:
    store(tmp_path / "c", "old")
    with new_folder(tmp_path / "c") as folder:
        (folder / "corpus.json").write_text("{}")
        assert (tmp_path / "c" / "data").read_text() == "old"
    assert names(tmp_path / "c") == ["corpus.json"]
    assert names(tmp_path) == ["c"]
    with pytest.raises(InputError, match="exists already"), new_folder(tmp_path / "c", replace=False):
        pass


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    store(tmp_path / "c", "one")
    assert (tmp_path / "c" / "data").read_text() == "one"


@pytest.mark.parametrize("file", ["thesis.txt", "package.json", "sub/corpus.json"])
def test_folders_of_others_are_never_touched(tmp_path: Path, file: str) -> None:
    precious = tmp_path / "home" / file
    precious.parent.mkdir(parents=True)
    precious.write_text("{}")
    with pytest.raises(InputError, match="not written by isthmus"), new_folder(tmp_path / "home"):
        pytest.fail("the work must not begin")
    assert precious.exists()
    with pytest.raises(InputError, match="not written by isthmus"), new_folder(precious):
        pass


def test_one_kind_of_folder_never_takes_the_place_of_another(tmp_path: Path) -> None:
    store(tmp_path / "c", "precious")
    with pytest.raises(InputError, match="holds a corpus already"):
        store(tmp_path / "c", "split", "split.json")
    assert (tmp_path / "c" / "data").read_text() == "precious"
    assert names(tmp_path) == ["c"]
    assert len(set(MANIFESTS)) == 9


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    dead, alive = dead_pid(), os.getpid()
    stay = [f".c.part-{alive}", f".c.d.old-{dead}", ".c.part-x", ".cc.part-1"]
    for name in (f".c.part-{dead}", f".c.old-{dead}", *stay):
        (tmp_path / name).mkdir()
    (tmp_path / "c").mkdir()
    sweep(tmp_path / "c")
    assert names(tmp_path) == sorted(["c", *stay])


def test_a_kill_between_two_renames_is_undone(tmp_path: Path) -> None:
    store(tmp_path / "a[b]", "old")
    (tmp_path / "a[b]").rename(tmp_path / f".a[b].old-{dead_pid()}")
    sweep(tmp_path / "a[b]")
    assert names(tmp_path) == ["a[b]"]
    assert (tmp_path / "a[b]" / "data").read_text() == "old"
    sweep(tmp_path / "nowhere" / "x")


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EACCES, "cannot write")],
)
def test_the_disks_errors_are_named(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught, new_folder(tmp_path / "c"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 1
    assert str(tmp_path / "c") in str(caught.value)
    with pytest.raises(StorageError, match=message), new_file(tmp_path / "f"):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), new_folder(tmp_path / "c"):
        raise OSError(errno.EIO, "odd")
    with pytest.raises(StorageError, match="full"), new_folder(tmp_path / "c"):
        raise ValueError(f"No space left on device (os error {errno.ENOSPC})")


def test_a_new_file_is_whole_or_absent(tmp_path: Path) -> None:
    with new_file(tmp_path / "sub" / "f.txt") as part:
        part.write_text("one")
        assert not (tmp_path / "sub" / "f.txt").exists()
    with pytest.raises(UnicodeDecodeError), new_file(tmp_path / "sub" / "f.txt") as part:
        (part.write_bytes(b"two\xff"), part.read_text(encoding="utf-8"))
    assert names(tmp_path / "sub") == ["f.txt"]
    assert (tmp_path / "sub" / "f.txt").read_text() == "one"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, content)
    assert read_json(path, what="thing") == content


def test_json_keeps_scripts_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": "绿茶", "a": 1})
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n "a": 1,\n "b": "绿茶"\n}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a thing"), (b"{", "damaged"), (b"[1]", "not a JSON object"), (b'{"a": "\xff"}', "damaged")],
)
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=message):
        read_json(tmp_path / "x.json", what="thing")


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="is not a corpus"):
        read_json(tmp_path / "file" / "corpus.json", what="corpus")


def test_sha256_is_the_well_known_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
