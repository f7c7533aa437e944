"""R2: the power is cut at any write of the log; whatever was answered is there when it comes back."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.power_cut import Disk
from tests.tiers import count

from isthmus.errors import IsthmusError
from isthmus.service.log.records import Entry
from isthmus.service.log.sqlite import SqliteLog


@dataclass
class Said:
    """What was answered so far: events that must be there, that may be, and that must not."""

    must: set[str] = field(default_factory=set)
    may: set[str] = field(default_factory=set)
    never: set[str] = field(default_factory=set)
    seq: int = 0

    def copy(self) -> Said:
        return Said(set(self.must), set(self.may), set(self.never), self.seq)


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of logs are opened."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="isthmus-power-", dir=base))
    yield folder
    shutil.rmtree(folder)


def cuts(room: Path, seed: int, synchronous: str) -> list[tuple[dict[str, bytes], Said]]:
    """Return disks as cuts at random moments leave them, with what had been answered by then."""
    rng, said, found = random.Random(seed), Said(), []

    def after() -> None:
        if rng.random() < 0.06:
            found.append((disk.image(rng, rng.choice((0.0, 0.2, 0.5, 0.8))), said.copy()))

    disk = Disk(after)
    try:
        with closing(SqliteLog(room / f"{seed}.db")) as log:
            log._db.execute(f"PRAGMA synchronous={synchronous}")
            log._db.execute("PRAGMA wal_autocheckpoint=40")
            users = {f"u{n}": set[str]() for n in range(6)}
            number = 0
            for _ in range(40):
                user = rng.choice(list(users))
                if rng.random() < 0.08:
                    gone = set(users[user])
                    said.must, said.may = said.must - gone, said.may | gone
                    body = json.dumps({"accounts": [["shop", user]]})
                    said.seq = log.put([Entry(f"x{number}-{user}", "erase", body=body)]).seq
                    said.never |= gone
                    users[user].clear()
                some = {f"e{n}" for n in range(number, number + rng.randint(1, 30))}
                number += len(some)
                said.may |= some
                entries = [
                    Entry(one, "event", "shop", user, "i", "view", body="x" * rng.randint(0, 300)) for one in some
                ]
                said.seq = log.put(entries).seq
                said.must |= some
                users[user] |= some
    finally:
        disk.unregister()
    return found


def wrong(room: Path, image: dict[str, bytes], said: Said, name: str) -> str:
    """Return what is wrong with a log after a cut, empty if nothing."""
    folder = room / "after"
    folder.mkdir()
    try:
        for file, data in image.items():
            (folder / file).write_bytes(data)
        with closing(SqliteLog(folder / name)) as log:
            if log._db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return "damaged"
            records = [record for some in log.read() for record in some]
            found = {record.entry.id for record in records if record.entry.kind == "event"}
            if not said.must <= found:
                return "lost"
            if found & said.never or not found <= said.may:
                return "back from nowhere"
            if log.seq < said.seq or len(records) != len({record.entry.id for record in records}):
                return "numbers"
            return "" if log.put([Entry("next", "event")]).seq > said.seq else "number given twice"
    except IsthmusError as error:
        return str(error)
    finally:
        shutil.rmtree(folder)


def judged(room: Path, synchronous: str, n: int) -> list[str]:
    found: list[str] = []
    seed = 0
    while len(found) < n:
        seed += 1
        some = cuts(room, seed, synchronous)
        found += [wrong(room, image, said, f"{seed}.db") for image, said in some]
    return found


def test_a_power_cut_loses_nothing_that_was_answered(room: Path) -> None:
    found = judged(room, "FULL", count(150, 2000))
    print(f"{len(found)} cuts, {sum(map(bool, found))} with something wrong")
    assert [one for one in found if one] == []


def test_the_cut_would_show_a_log_that_does_not_wait_for_the_disk(room: Path) -> None:
    """The harness itself: with synchronous=NORMAL most cuts lose something."""
    found = judged(room, "NORMAL", count(60, 400))
    print(f"{len(found)} cuts, {sum(map(bool, found))} with something wrong, {found.count('lost')} lost")
    assert sum(map(bool, found)) > len(found) / 2
    assert "damaged" not in found, "what NORMAL keeps is whole"
