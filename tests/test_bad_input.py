"""Broken input: a clear message for each, no traceback, and nothing lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bad_cases import CASES, GOOD, Case, outcome, prepare, spec
from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus

LIMITED = """
import resource, signal, sys
from pathlib import Path
from isthmus.data.importer import import_corpus
from isthmus.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (800, 800))
try:
    import_corpus(Path(sys.argv[1]), Path(sys.argv[2]), rows_in_memory=int(sys.argv[3]))
except StorageError as error:
    print(error)
"""
SLOW = """
import sys, time
from pathlib import Path
import isthmus.data.importer as importer
def wait(*_, **__):
    print("half way", flush=True)
    time.sleep(60)
importer.seal = wait
importer.import_corpus(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_the_table_is_long_enough() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_broken_input_has_its_message(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_CASE", str(tmp_path))
    kind, text = outcome(case, tmp_path)
    assert kind == ("works" if case.works else "error"), text
    assert case.message in text
    assert "Traceback" not in text
    assert len(text) < 1_500
    assert not [left.name for left in tmp_path.glob(".*")]


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.works and case.make is None], ids=lambda case: case.name
)
def test_a_failed_import_leaves_the_old_corpus(case: Case, tmp_path: Path, old: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for file in old.iterdir():
        (tmp_path / "corpus" / file.name).write_bytes(file.read_bytes())
    before = content(tmp_path / "corpus")
    kind, _ = outcome(case, tmp_path)
    assert kind == "error"
    assert content(tmp_path / "corpus") == before


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    import_corpus(prepare(Case("good", ""), folder), folder / "corpus")
    return folder / "corpus"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    case = Case("x", "", spec(path=None, format='"sql"', url='"mysql+pymysql://u:secret@h/d"', query='"select 1"'))
    _, text = outcome(case, tmp_path)
    assert "secret" not in text


@pytest.mark.parametrize("rows_in_memory", [1_000_000, 20], ids=["in memory", "spilled"])
def test_a_full_disk_is_named_and_harms_nothing(tmp_path: Path, rows_in_memory: int) -> None:
    path = prepare(Case("good", ""), tmp_path)
    import_corpus(path, tmp_path / "corpus")
    before = content(tmp_path / "corpus")
    command = [sys.executable, "-c", LIMITED, str(path), str(tmp_path / "corpus"), str(rows_in_memory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "the disk is full. Fix: free some space; nothing was changed" in done.stdout, done.stderr
    assert content(tmp_path / "corpus") == before
    assert not list(tmp_path.glob(".*"))


def test_killed_half_way_leaves_the_old_corpus_and_is_swept(tmp_path: Path) -> None:
    path = prepare(Case("good", ""), tmp_path)
    out = tmp_path / "corpus"
    import_corpus(path, out)
    before = content(out)
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path), str(out)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "half way\n"
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert list(tmp_path.glob(".corpus.part-*"))
    assert content(out) == before
    time.sleep(0.1)
    import_corpus(path, out)
    assert not list(tmp_path.glob(".corpus.*"))
    assert Corpus.open(out).events.height == GOOD.count(b"\n") - 1
