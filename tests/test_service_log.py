"""The event log: what was answered is on disk, once; what is erased is gone from every byte."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from isthmus.errors import ArtefactError, InputError, IsthmusError, StorageError
from isthmus.service.events import EventLog
from isthmus.service.problems import BusyError
from isthmus.service.records import Entry, Receipt

WRITER = """
import sys, time
from isthmus.service.events import EventLog
from isthmus.service.records import Entry
log = EventLog(__import__("pathlib").Path(sys.argv[1]))
print("ready", flush=True)
for line in sys.stdin:
    first, n = map(int, line.split())
    while log.waiting > 10_000:
        time.sleep(0.001)
    log.append([Entry(f"e{k}", "event", "shop", "u", f"i{k}", "view", None, k) for k in range(first, first + n)],
               lambda got, first=first, n=n: print(first, n, flush=True))
"""


def entry(number: int, user: str = "u", **more: object) -> Entry:
    return Entry(f"e{number}", "event", "shop", user, f"i{number}", "view", ts=number, **more)  # type: ignore[arg-type]


def erasure(*users: str) -> Entry:
    return Entry(f"erase-{len(users)}", "erase", body=json.dumps({"accounts": [["shop", user] for user in users]}))


def ids(log: EventLog) -> list[str]:
    return [record.entry.id for some in log.read(size=7) for record in some]


def test_what_was_written_is_read_in_order_also_after_reopening(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.db")
    receipt = log.put([entry(1, value=4.5), entry(2)])
    assert [record.seq for record in receipt.records] == [1, 2]
    assert log.put([entry(k) for k in range(3, 40)]).seq == 39
    log.close()
    again = EventLog(tmp_path / "a.db")
    assert again.seq == 39
    assert ids(again) == [f"e{k}" for k in range(1, 40)]
    assert ids(again) == [f"e{k}" for k in range(1, 40)]
    (first, *_), *_ = again.read(after=0)
    assert first.entry == entry(1, value=4.5)
    assert [record.seq for some in again.read(after=37, until=38) for record in some] == [38]
    again.close()


def test_an_id_counts_once_and_the_first_one_stays(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.db")
    log.put([entry(1), entry(2)])
    again = log.put([entry(2), entry(3), entry(3), Entry("e1", "event", "shop", "somebody", "else", "view", ts=1)])
    assert [record.entry.id for record in again.records] == ["e3"]
    assert again.duplicates == ("e2", "e3", "e1")
    assert again.conflicts == ("e1",)
    assert ids(log) == ["e1", "e2", "e3"]
    log.close()


def test_many_askers_share_a_commit_and_all_get_their_own_answer(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.db")
    answers: list[Receipt | IsthmusError] = []
    for k in range(300):
        log.append([entry(k), entry(k + 1)], answers.append)
    log.close()
    receipts = [answer for answer in answers if isinstance(answer, Receipt)]
    assert len(receipts) == 300
    assert sum(len(receipt.records) for receipt in receipts) == 301
    assert [len(receipt.duplicates) for receipt in receipts] == [0, *[1] * 299]


def test_erased_bytes_are_gone_from_every_file(tmp_path: Path) -> None:
    """The shape of the log matters: pages that were split keep copies which ``secure_delete`` does not reach."""
    rng = random.Random(0)
    log = EventLog(tmp_path / "a.db")
    users = [f"person-{k:04d}-{'x' * rng.randint(0, 60)}" for k in range(300)]
    rows = [Entry(f"{rng.random()}", "event", "shop", rng.choice(users), "i", "view", ts=k) for k in range(8000)]
    for start in range(0, len(rows), 37):
        log.put(rows[start : start + 37])
    gone = users[::3]

    def found() -> int:
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        return sum(user[:11].encode() in held for user in gone)

    assert found() == 100, "the search finds them"
    expected = sum(row.user in gone for row in rows)
    assert log.put([erasure(*gone)]).erased == expected
    assert found() == 0
    assert len(ids(log)) == 8000 - expected + 1
    log.close()
    assert found() == 0


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.db")
    log.put([entry(0)])
    pages = log._db.execute("PRAGMA page_count").fetchall()[0][0]
    log._db.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StorageError, match="disk is full"):
        log.put([entry(k, body="x" * 500) for k in range(1, 100)])
    assert ids(log) == ["e0"]
    assert log.seq == 1
    log._db.execute("PRAGMA max_page_count = 1000000")
    log.put([entry(k) for k in range(1, 100)])
    assert len(ids(log)) == 100, "it recovers by itself"
    log.close()


def test_too_much_waiting_is_refused_not_kept(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.db", pending=10)
    with pytest.raises(BusyError):
        log.append([entry(k) for k in range(11)], lambda _: None)
    log.put([entry(k) for k in range(10)])
    log.close()


def test_one_process_at_a_time_and_only_our_files(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.db")
    with pytest.raises(InputError, match="another service"):
        EventLog(tmp_path / "a.db")
    log.close()
    (tmp_path / "b.db").write_bytes(b"not a database, but long enough to be looked at " * 100)
    with pytest.raises(ArtefactError, match="no event log"):
        EventLog(tmp_path / "b.db")
    other = apsw.Connection(str(tmp_path / "a.db"))
    other.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    other.close()
    with pytest.raises(ArtefactError, match="format 99"):
        EventLog(tmp_path / "a.db")


def test_kill_9_loses_no_answered_event_and_doubles_none(tmp_path: Path) -> None:
    rng = random.Random(5)
    path = tmp_path / "a.db"
    acked: set[str] = set()
    sent: set[str] = set()
    place = 0
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        end = time.monotonic() + rng.uniform(0.05, 0.3)
        while time.monotonic() < end:
            n = rng.randint(1, 20)
            process.stdin.write(f"{place} {n}\n")
            sent |= {f"e{k}" for k in range(place, place + n)}
            place += n - rng.randint(0, 1) * (n // 2)  # some are sent again
        process.kill()
        for line in process.stdout:
            if line.endswith("\n"):
                first, n = map(int, line.split())
                acked |= {f"e{k}" for k in range(first, first + n)}
        process.wait()
        process.stdin.close()
        process.stdout.close()
    log = EventLog(path)
    found = ids(log)
    assert len(acked) > 20
    assert acked <= set(found) <= sent, "none lost, none from nowhere"
    assert len(found) == len(set(found)), "none twice"
    assert log._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert log._db.execute("PRAGMA synchronous").fetchall() == [(2,)]
    assert log._db.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    log.close()
