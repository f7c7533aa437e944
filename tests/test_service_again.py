"""Who was erased does not come back: neither with an older backup nor with a dead letter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.small_postgres import Postgres, postgres
from tests.test_cli import isthmus
from tests.test_service_backup import place, records
from tests.test_service_segments import erasure

from isthmus.errors import InputError
from isthmus.service.log.backup import backup, restore
from isthmus.service.log.base import Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import Entry, tombstone
from isthmus.service.log.segments import Segments
from isthmus.service.log.upkeep import FOLDER
from isthmus.service.streams.letters import Letter, Letters

NAME = "who-was-erased-since"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as one:
        yield one


def holds(where: Place) -> bool:
    return any(NAME.encode() in one.read_bytes() for one in where.folder.rglob("*") if one.is_file())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_older_backup_brings_nobody_back(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    where = place(kind, tmp_path / "data", request)
    with closing(open_log(where, "default")) as log:
        log.put([Entry(f"e{k}", "event", "shop", NAME if k % 2 else "stays", "i", "view", ts=k) for k in range(50)])
        Segments(where.folder / FOLDER / "default").seal(log)
        backup(where, tmp_path / "old")
        log.put([erasure("gone", NAME), erasure("gone too", "only the model knows")])
        log.put([Entry("later", "event", "shop", "stays", "i", "view")])
        secret = log.secret
    backup(where, tmp_path / "new")
    plain = place(kind, tmp_path / "plain", request)
    restore(tmp_path / "old", plain)
    with closing(open_log(plain, "default")) as log:
        assert len(log.of([("shop", NAME)])) == 25, "without newer data nobody knows of the erasure"
    for newer, name in ((where, "again"), (Place(tmp_path / "new"), "from a backup")):
        target = place(kind, tmp_path / name, request)
        restore(tmp_path / "old", target, newer)
        assert not holds(target)
        with closing(open_log(target, "default")) as log:
            assert log.of([("shop", NAME)]) == []
            assert len(log.of([("shop", "stays")])) == 25
            stones = [json.loads(one.entry.body)["stones"] for one in records(log) if one.entry.kind == "erase"]
            assert stones == [[tombstone(secret, "shop", NAME)], [tombstone(secret, "shop", "only the model knows")]]
            assert Segments(target.folder / FOLDER / "default").manifest.rows == 25
    with closing(open_log(Place(tmp_path / "other"), "default")):
        pass
    with pytest.raises(InputError, match="another log"):
        restore(tmp_path / "old", Place(tmp_path / "never"), Place(tmp_path / "other"))
    assert not (tmp_path / "never").exists()


def test_restored_on_the_command_line(tmp_path: Path) -> None:
    with closing(open_log(Place(tmp_path / "data"), "default")) as log:
        log.put([Entry("e", "event", "shop", NAME, "i", "view", ts=1)])
        assert isthmus("backup", tmp_path / "data", tmp_path / "old").code == 0
        log.put([erasure("gone", NAME)])
        done = isthmus("restore", tmp_path / "old", tmp_path / "again", "--erased", tmp_path / "data")
        assert done.code == 0, done.err
    assert not holds(Place(tmp_path / "again"))


def test_dead_letters_of_who_was_erased_are_taken_out(tmp_path: Path) -> None:
    letters = Letters(tmp_path / "dead-letters.jsonl")
    bodies = [
        json.dumps({"platform": "shop", "user": NAME, "item": 1}),
        json.dumps({"events": [{"user": NAME, "platform": "shop", "event": "no such word"}]}),
        f'{{"platform": "shop", "user": "{NAME}", ',
        json.dumps({"platform": "video", "user": NAME}),
        json.dumps({"platform": "shop", "user": NAME + "x"}),
        f'{{"user": "{NAME}x", ',
    ]
    for number, body in enumerate(bodies):
        letters.put(Letter.of("s", f"m{number}", body.encode(), "wrong", 5))
    done = isthmus("letters", "forget", letters.path, "--person", f"shop:{NAME}", "--json")
    assert json.loads(done.out) == {"forgotten": 3}
    assert [letter.message for letter in letters.read()] == ["m3", "m4", "m5"]
