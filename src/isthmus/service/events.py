"""The event log: an SQLite file a tenant, one writer, many entries a commit; an answer means it is on disk.

Write-ahead log, ``synchronous=FULL`` and ``secure_delete=ON``, through APSW, which brings a current SQLite.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import apsw

from isthmus.errors import ArtefactError, InputError, IsthmusError, StorageError
from isthmus.log import logger
from isthmus.service.problems import BusyError
from isthmus.service.records import CONSENT, ERASE, EVENT, Entry, Kind, Receipt, Record, tombstone

#: What is called with the outcome, from the writer's thread, in the order of the log.
Done: TypeAlias = Callable[[Receipt | IsthmusError], None]

FORMAT: Final = 1
#: Entries written in one commit, about.
TOGETHER: Final = 2000
_SELECT: Final = "SELECT seq, id, kind, platform, user, item, event, value, ts, body FROM records "
_SOME: Final = _SELECT + "WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
_ONES: Final = _SELECT + "WHERE kind = 'event' AND platform = ? AND user = ?"
_DELETE: Final = "DELETE FROM records WHERE kind = ? AND platform = ? AND user = ?"
_ONE: Final = _SELECT + "WHERE id = ?"
_INSERT: Final = """
INSERT INTO records (id, kind, platform, user, item, event, value, ts, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING RETURNING seq
"""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
  platform TEXT NOT NULL, user TEXT NOT NULL, item TEXT NOT NULL, event TEXT NOT NULL,
  value REAL, ts INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS accounts ON records (platform, user) WHERE kind = 'event';
"""


def connect(path: Path) -> apsw.Connection:
    """Return a connection that loses nothing it has committed.

    Raises
    ------
    ArtefactError
        The file is no database.
    """
    try:
        db = apsw.Connection(str(path))
        db.set_busy_timeout(5000)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "trusted_schema=OFF"):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except apsw.CantOpenError as error:
        raise StorageError(f"cannot be opened: {error}", where=path) from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise ArtefactError(f"is no event log: {error}", where=path, fix="restore it from a backup") from error
    return db


class EventLog:
    """Everything that was accepted, in the order of the disk; open in one process at a time.

    Parameters
    ----------
    path : Path
        The SQLite file; made if it is not there.
    pending : int
        Entries that may wait for the disk.

    Raises
    ------
    InputError
        Another process has it open.
    ArtefactError
        The file is none of ours, damaged, or of another format.
    """

    def __init__(self, path: Path, *, pending: int = 50_000) -> None:
        self.path, self.pending = path, pending
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock(path.with_name(path.name + ".lock"))
        self._db = connect(path)
        self._prepare()
        self.secret = bytes.fromhex(str(self._meta("secret", secrets.token_hex(32))))
        self.seq = self._last()
        self._waiting = 0
        self._count = threading.Lock()
        self._unwiped = False
        self._jobs: queue.SimpleQueue[tuple[Sequence[Entry], Done] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name=f"log {path.stem}", daemon=True)
        self._writer.start()

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        """Write ``entries`` with the next commit and call ``done`` when they are on disk, or with what went wrong.

        Raises
        ------
        BusyError
            Too much waits for the disk already.
        """
        with self._count:
            if self._waiting + len(entries) > self.pending:
                raise BusyError("too many events wait for the disk")
            self._waiting += len(entries)
        self._jobs.put((entries, done))

    def put(self, entries: Sequence[Entry], *, seconds: float = 30.0) -> Receipt:
        """Write ``entries`` and return when they are on disk."""
        answer: queue.SimpleQueue[Receipt | IsthmusError] = queue.SimpleQueue()
        self.append(entries, answer.put)
        outcome = answer.get(timeout=seconds)
        if isinstance(outcome, IsthmusError):
            raise outcome
        return outcome

    @property
    def waiting(self) -> int:
        """Entries that wait for the disk."""
        return self._waiting

    def read(self, *, after: int = 0, until: int | None = None, size: int = 10_000) -> Iterator[list[Record]]:
        """Yield the records from ``after`` (not included) to ``until`` (included), ``size`` at a time, in order."""
        last = self.seq if until is None else until
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(5000)
        try:
            while after < last:
                rows = db.execute(_SOME, (after, last, size)).fetchall()
                if not rows:
                    return
                after = int(str(rows[-1][0]))
                yield [_record(row) for row in rows]
        finally:
            db.close()

    def of(self, accounts: Sequence[tuple[str, str]]) -> list[Record]:
        """Return the events of some accounts, in order."""
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(5000)
        try:
            rows = [row for account in accounts for row in db.execute(_ONES, account).fetchall()]
        finally:
            db.close()
        return sorted((_record(row) for row in rows), key=lambda record: record.seq)

    def close(self) -> None:
        """Write what waits, then let go of the file."""
        if self._writer.is_alive():
            self._jobs.put(None)
            self._writer.join()
        self._db.close()
        os.close(self._lock)

    def _prepare(self) -> None:
        try:
            self._db.execute(_SCHEMA)
            found = self._meta("format", FORMAT)
        except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
            raise ArtefactError(f"is no event log: {error}", where=self.path, fix="restore a backup") from error
        except apsw.Error as error:
            raise _failure(error, self.path) from error
        if found != FORMAT:
            raise ArtefactError(f"event log of format {found}, this version reads {FORMAT}", where=self.path)

    def _meta(self, name: str, default: str | int) -> object:
        with self._db:
            self._db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, default))
            rows = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchall()
        return rows[0][0]

    def _last(self) -> int:
        """Return the highest number ever given, also to records that were erased since."""
        found = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchall()
        return int(str(found[0][0])) if found else 0

    def _write(self) -> None:
        """Take what waits, write it in one commit, say so; again."""
        going = True
        while going:
            jobs, entries = [], 0
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                entries += len(job[0])
                if entries >= TOGETHER or self._jobs.empty():
                    break
                job = self._jobs.get()
            going = job is not None
            if jobs:
                self._commit(jobs)
                with self._count:
                    self._waiting -= entries

    def _commit(self, jobs: Sequence[tuple[Sequence[Entry], Done]]) -> None:
        outcomes: list[Receipt | IsthmusError] = []
        before = self.seq
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [self._take(entries) for entries, _ in jobs]
            self._db.execute("COMMIT")
        except Exception as error:
            self.seq = before
            self._roll_back()
            failed = _failure(error, self.path)
            logger.error("nothing was written: %s", failed)
            outcomes = [failed] * len(jobs)
        if self._unwiped:
            self._wipe()
        for (_, done), outcome in zip(jobs, outcomes, strict=True):
            try:
                done(outcome)
            except Exception:
                logger.exception("an answer of the log found nobody")

    def _take(self, entries: Sequence[Entry]) -> Receipt:
        records, twice, otherwise, erased = [], [], [], 0
        for entry in entries:
            given = entry
            if entry.kind == ERASE:
                erased += self._forget(entry)
                given = Entry(entry.id, ERASE, ts=entry.ts, body=json.dumps(self._stones(entry)))
            row = (given.id, given.kind, given.platform, given.user, given.item, given.event)
            found = self._db.execute(_INSERT, (*row, given.value, given.ts, given.body)).fetchall()
            if found:
                self.seq = int(str(found[0][0]))
                records.append(Record(self.seq, entry))
            else:
                twice.append(given.id)
                if not given.same(self._at(given.id)):
                    otherwise.append(given.id)
        return Receipt(tuple(records), tuple(twice), tuple(otherwise), self.seq, erased)

    def _at(self, name: str) -> Entry:
        return _record(self._db.execute(_ONE, (name,)).fetchall()[0]).entry

    def _forget(self, entry: Entry) -> int:
        """Take the events of the accounts in ``entry`` off the disk; return how many."""
        erased = 0
        for platform, user in json.loads(entry.body)["accounts"]:
            self._db.execute(_DELETE, (EVENT, platform, user))
            erased += self._db.changes()
            self._db.execute(_DELETE, (CONSENT, platform, user))
        self._unwiped = True
        return erased

    def _stones(self, entry: Entry) -> dict[str, list[str]]:
        accounts = json.loads(entry.body)["accounts"]
        return {"stones": [tombstone(self.secret, platform, user) for platform, user in accounts]}

    def _wipe(self, seconds: float = 5.0) -> None:
        """Write the file anew and empty the write-ahead log; readers may delay it.

        ``secure_delete`` alone is not enough: pages that were split keep copies of rows outside their cells.
        """
        end = time.monotonic() + seconds
        while self._unwiped and time.monotonic() < end:
            try:
                self._db.execute("VACUUM")
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._unwiped = False
            except (apsw.BusyError, apsw.LockedError):
                time.sleep(0.02)
            except apsw.Error as error:
                logger.error("erased events are still in the file: %s", error)
                return

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except apsw.Error as error:
            logger.error("rolling back: %s", error)


def _record(row: Sequence[object]) -> Record:
    seq, name, kind, platform, user, item, event, value, ts, body = row
    entry = Entry(
        str(name),
        _kind(str(kind)),
        str(platform),
        str(user),
        str(item),
        str(event),
        None if value is None else float(value),  # type: ignore[arg-type]
        int(ts),  # type: ignore[call-overload]
        str(body),
    )
    return Record(int(seq), entry)  # type: ignore[call-overload]


def _kind(word: str) -> Kind:
    return word  # type: ignore[return-value]


def _lock(path: Path) -> int:
    """Return the open file that says who writes here."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", where=path.parent) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InputError(
            "another service has this open", where=path.parent, fix="stop it, or take another --data"
        ) from error
    return handle


def _failure(error: Exception, path: Path) -> IsthmusError:
    """Return what an error of the database means to who sent events."""
    if isinstance(error, apsw.FullError):
        return StorageError("the disk is full", where=path.name, fix="free some space; nothing was written")
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return BusyError("the event log is in use")
    if isinstance(error, IsthmusError):
        return error
    return StorageError(f"cannot write: {type(error).__name__}", where=path.name)
