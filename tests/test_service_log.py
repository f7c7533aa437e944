"""The event log on every store: what was answered is on disk, once; what is erased is gone from every byte."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import apsw
import pytest
from tests.small_postgres import Postgres, postgres
from tests.tiers import count

from isthmus.errors import ArtefactError, InputError, IsthmusError, StorageError
from isthmus.service.log.base import EventLog, Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import Entry, Receipt
from isthmus.service.log.sqlite import SqliteLog
from isthmus.service.problems import BusyError

WRITER = """
import sys, time
from pathlib import Path
from isthmus.service.log.base import Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import Entry
log = open_log(Place(Path(sys.argv[1]), sys.argv[2]), sys.argv[3])
print("ready", flush=True)
for line in sys.stdin:
    first, n = map(int, line.split())
    while log.waiting > 10_000:
        time.sleep(0.001)
    log.append([Entry(f"e{k}", "event", "shop", "u", f"i{k}", "view", None, k) for k in range(first, first + n)],
               lambda got, first=first, n=n: print(first, n, flush=True))
"""


@dataclass
class Store:
    """A kind of store to keep logs in, empty at first."""

    folder: Path
    server: Postgres | None
    name: str = field(default_factory=lambda: f"t{uuid4().hex[:12]}")

    @property
    def place(self) -> Place:
        return Place(self.folder, "" if self.server is None else self.server.url)

    def open(self, pending: int = 50_000) -> EventLog:
        return open_log(self.place, self.name, pending=pending)

    def files(self) -> Iterator[Path]:
        """Files in which erased bytes must not be found; the server's own write-ahead log is not ours to clean."""
        if self.server is None:
            yield from self.folder.iterdir()
            return
        import psycopg

        with psycopg.connect(self.server.url, autocommit=True) as db:
            db.execute("CHECKPOINT")
        yield from (path for path in (self.server.home / "data" / "base").rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as one:
        yield one


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path, request.getfixturevalue("server") if request.param == "postgresql" else None)


def entry(number: int, user: str = "u", **more: object) -> Entry:
    return Entry(f"e{number}", "event", "shop", user, f"i{number}", "view", ts=number, **more)  # type: ignore[arg-type]


def erasure(*users: str) -> Entry:
    return Entry(f"erase-{len(users)}", "erase", body=json.dumps({"accounts": [["shop", user] for user in users]}))


def ids(log: EventLog) -> list[str]:
    return [record.entry.id for some in log.read(size=7) for record in some]


def test_what_was_written_is_read_in_order_also_after_reopening(store: Store) -> None:
    log = store.open()
    receipt = log.put([entry(1, value=4.5), entry(2)])
    assert [record.seq for record in receipt.records] == [1, 2]
    assert log.put([entry(k) for k in range(3, 40)]).seq == 39
    log.close()
    again = store.open()
    assert again.seq == 39
    assert ids(again) == [f"e{k}" for k in range(1, 40)]
    assert ids(again) == [f"e{k}" for k in range(1, 40)]
    (first, *_), *_ = again.read(after=0)
    assert first.entry == entry(1, value=4.5)
    assert [record.seq for some in again.read(after=37, until=38) for record in some] == [38]
    again.close()


def test_an_id_counts_once_and_the_first_one_stays(store: Store) -> None:
    log = store.open()
    log.put([entry(1), entry(2)])
    again = log.put([entry(2), entry(3), entry(3), Entry("e1", "event", "shop", "somebody", "else", "view", ts=1)])
    assert [record.entry.id for record in again.records] == ["e3"]
    assert again.duplicates == ("e2", "e3", "e1")
    assert again.conflicts == ("e1",)
    assert ids(log) == ["e1", "e2", "e3"]
    log.close()


def test_many_askers_share_a_commit_and_all_get_their_own_answer(store: Store) -> None:
    log = store.open()
    answers: list[Receipt | IsthmusError] = []
    for k in range(300):
        log.append([entry(k), entry(k + 1)], answers.append)
    log.close()
    receipts = [answer for answer in answers if isinstance(answer, Receipt)]
    assert len(receipts) == 300
    assert sum(len(receipt.records) for receipt in receipts) == 301
    assert [len(receipt.duplicates) for receipt in receipts] == [0, *[1] * 299]


def test_erased_bytes_are_gone_from_every_file(store: Store) -> None:
    """The shape of the log matters: pages that were split keep copies which ``secure_delete`` does not reach."""
    rng = random.Random(0)
    log = store.open()
    users = [f"person-{k:04d}-{'x' * rng.randint(0, 60)}" for k in range(300)]
    rows = [Entry(f"{rng.random()}", "event", "shop", rng.choice(users), "i", "view", ts=k) for k in range(8000)]
    some = 37 if store.server is None else 400
    for start in range(0, len(rows), some):
        log.put(rows[start : start + some])
    gone = users[::3]

    def found() -> int:
        held = b"".join(path.read_bytes() for path in store.files())
        return sum(user[:11].encode() in held for user in gone)

    assert found() == 100, "the search finds them"
    expected = sum(row.user in gone for row in rows)
    assert log.put([erasure(*gone)]).erased == expected
    assert found() == 0
    assert len(ids(log)) == 8000 - expected + 1
    log.close()
    assert found() == 0


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.db")
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


def test_too_much_waiting_is_refused_not_kept(store: Store) -> None:
    log = store.open(pending=10)
    with pytest.raises(BusyError):
        log.append([entry(k) for k in range(11)], lambda _: None)
    log.put([entry(k) for k in range(10)])
    log.close()


def test_one_process_at_a_time_and_only_our_files(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "a.db")
    with pytest.raises(InputError, match="another service"):
        SqliteLog(tmp_path / "a.db")
    log.close()
    (tmp_path / "b.db").write_bytes(b"not a database, but long enough to be looked at " * 100)
    with pytest.raises(ArtefactError, match="no event log"):
        SqliteLog(tmp_path / "b.db")
    other = apsw.Connection(str(tmp_path / "a.db"))
    other.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    other.close()
    with pytest.raises(ArtefactError, match="format 99"):
        SqliteLog(tmp_path / "a.db")


def test_kill_9_loses_no_answered_event_and_doubles_none(store: Store) -> None:
    rng = random.Random(5)
    acked: set[str] = set()
    sent: set[str] = set()
    place = 0
    for _ in range(count(4, 20)):
        command = [sys.executable, "-c", WRITER, str(store.folder), store.place.database, store.name]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        lines: list[str] = []
        reader = threading.Thread(target=lines.extend, args=(process.stdout,))
        reader.start()
        end = time.monotonic() + rng.uniform(0.05, 0.3)
        while time.monotonic() < end or not lines:
            n = rng.randint(1, 20)
            process.stdin.write(f"{place} {n}\n")
            sent |= {f"e{k}" for k in range(place, place + n)}
            place += n - rng.randint(0, 1) * (n // 2)  # some are sent again
        process.kill()
        reader.join()
        for line in lines:
            if line.endswith("\n"):
                first, n = map(int, line.split())
                acked |= {f"e{k}" for k in range(first, first + n)}
        process.wait()
        process.stdin.close()
        process.stdout.close()
    log = store.open()
    found = ids(log)
    assert len(acked) > 20
    assert acked <= set(found) <= sent, "none lost, none from nowhere"
    assert len(found) == len(set(found)), "none twice"
    if isinstance(log, SqliteLog):
        assert log._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert log._db.execute("PRAGMA synchronous").fetchall() == [(2,)]
        assert log._db.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    log.close()


def test_terms_end_kinds_are_told_apart_and_numbers_are_never_given_twice(store: Store) -> None:
    log = store.open()
    log.put([*(entry(k) for k in range(10)), Entry("new", "item", "shop", item="i", ts=3, body="{}")])
    ended = log.put([Entry("x1", "expire", ts=4)])
    assert (ended.erased, [record.seq for record in ended.records]) == (4, [12])
    assert ids(log) == [*(f"e{k}" for k in range(4, 10)), "new", "x1"], "items stay"
    assert log.put([Entry("x2", "expire", ts=4)]) == Receipt((), (), (), 12), "nothing to end: nothing is written"
    assert log.put([entry(20), erasure("u"), entry(20), entry(21, user="v")]).erased == 7
    kinds = [[record.entry.kind for record in some] for some in log.read(kinds=("erase", "expire"))]
    assert kinds == [["expire", "erase"]]
    (stones,) = [r.entry.body for some in log.read(kinds=("erase",)) for r in some]
    assert "shop" not in stones
    assert [record.seq for record in log.of([("shop", "v"), ("shop", "u")])] == [15, 16]
    assert log.put([erasure("u", "v")]).erased == 2
    log.close()
    again = store.open()
    assert again.seq == 17, "also of records that are gone"
    assert again.put([entry(1)]).seq == 18
    again.close()


def test_any_text_comes_back_as_it_was(store: Store) -> None:
    odd = ["日本", "a'b\"; DROP TABLE records; --", "%s %(x)s", "\n\t", "𝔘‮ß", "\x7f\x01", "x" * 5000]
    given = [Entry(f"e{k}{text}", "event", text, text, text, "view", 1e-300, 2**53, text) for k, text in enumerate(odd)]
    with closing(store.open()) as log:
        log.put(given)
        assert [record.entry for some in log.read() for record in some] == given


def test_one_writer_at_a_time(store: Store) -> None:
    log = store.open()
    with pytest.raises(InputError, match="another service"):
        store.open()
    secret = log.secret
    log.close()
    with closing(store.open()) as log:
        assert log.secret == secret


def test_a_database_that_is_killed_loses_nothing_and_is_used_again_at_once(tmp_path: Path) -> None:
    """R7: never a false answer while it is gone; ready again within 5 s of the server."""
    rng, acked, refused, sent = random.Random(7), set(), [], set()
    with postgres() as server, closing(Store(tmp_path, server, "shop").open()) as log:
        going = threading.Event()

        def send(sender: int) -> None:
            place = 0
            while not going.is_set():
                some = [entry(place + k, f"s{sender}") for k in range(rng.randint(1, 20))]
                some = [Entry(f"{sender}-{one.id}", "event", "shop", one.user, "i", "view", ts=one.ts) for one in some]
                sent.update(one.id for one in some)
                try:
                    receipt = log.put(some)
                    acked.update(one.id for one in some)
                    assert len(receipt.records) + len(receipt.duplicates) == len(some)
                    place += len(some)
                except BusyError:
                    refused.append(time.monotonic())
                    time.sleep(0.02)

        senders = [threading.Thread(target=send, args=(n,)) for n in range(4)]
        for sender in senders:
            sender.start()
        slowest = 0.0
        for _ in range(count(3, 20)):
            time.sleep(rng.uniform(0.2, 0.6))
            server.kill()
            time.sleep(rng.uniform(0.0, 0.3))
            before = len(acked)
            server.start()
            back = time.monotonic()
            while len(acked) == before:
                assert time.monotonic() < back + 5
                time.sleep(0.005)
            slowest = max(slowest, time.monotonic() - back)
        going.set()
        for sender in senders:
            sender.join()
        found = ids(log)
        print(f"acked {len(acked)}, refused {len(refused)}, slowest return {slowest:.2f} s")
    assert len(acked) > 100
    assert len(refused) > 0
    assert acked <= set(found) <= sent
    assert len(found) == len(set(found))


def test_a_database_that_falls_silent_is_given_up_and_used_again(tmp_path: Path) -> None:
    """Its machine still takes bytes, and nothing answers: the wait ends, and so does the doubt."""
    with postgres() as server, closing(Store(tmp_path, server, "shop").open()) as log:
        log.put([entry(1)])
        told: list[object] = []
        server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            log.append([entry(2)], told.append)
            while not told:
                assert time.monotonic() < began + 15
                time.sleep(0.02)
            assert isinstance(told[0], BusyError)
            assert log.away
        finally:
            server.signal(signal.SIGCONT)
        back = time.monotonic()
        while log.away:
            assert time.monotonic() < back + 5
            time.sleep(0.02)
        log.put([entry(2), entry(3)])
        assert ids(log) == ["e1", "e2", "e3"]


def test_a_commit_whose_fate_was_unknown_is_told_when_it_is_known(tmp_path: Path) -> None:
    """The server goes after it committed, before it said so: first a refusal, later the receipt."""
    with postgres() as server, closing(Store(tmp_path, server, "shop").open()) as log:
        log.put([entry(1)])
        real = log._db

        class Deaf:
            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

            def transaction(self) -> object:
                from contextlib import contextmanager

                import psycopg

                @contextmanager
                def deaf() -> Iterator[None]:
                    with real.transaction():
                        yield
                    raise psycopg.OperationalError("gone")

                return deaf()

        told: list[object] = []
        log._db = Deaf()
        log.append([entry(2)], told.append)
        end = time.monotonic() + 5
        while len(told) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert isinstance(told[0], BusyError)
        assert isinstance(told[1], Receipt)
        assert [record.seq for record in told[1].records] == [2]
        assert log.seq == 2
        assert log.put([entry(2)]).duplicates == ("e2",)
        assert log.put([entry(3)]).seq == 3


def test_what_is_no_database_is_said(tmp_path: Path, server: Postgres) -> None:
    for url, said in (
        ("postgresql://isthmus:s3cret@127.0.0.1:9/x", "cannot be reached"),
        ("postgresql://isthmus@127.0.0.1:1:2/x", "cannot be reached|no database URL"),
        (server.url.replace("/postgres", "/nothing"), 'database "nothing" does not exist'),
    ):
        with pytest.raises(InputError, match=said) as caught:
            open_log(Place(tmp_path, url), "default")
        assert "s3cret" not in str(caught.value)
    with closing(open_log(Place(tmp_path, server.url), "nul")) as log, pytest.raises(InputError, match="NUL"):
        log.append([entry(1, user="a\0b")], print)
