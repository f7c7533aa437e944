"""The event log in an SQLite file a tenant: one writer, many entries a commit; an answer means it is on disk.

Write-ahead log, ``synchronous=FULL`` and ``secure_delete=ON``, through APSW, which brings a current SQLite.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final

import apsw

from isthmus.errors import ArtefactError, InputError, IsthmusError, StorageError
from isthmus.log import logger
from isthmus.service.log.base import AGAIN, FORMAT, LATER, PART, READERS, GroupCommit, Jobs
from isthmus.service.log.records import (
    CONSENT,
    ERASE,
    EVENT,
    EXPIRE,
    Entry,
    Receipt,
    Record,
    accounts_of,
    record_of,
    stones_of,
)
from isthmus.service.problems import BusyError

_SELECT: Final = "SELECT seq, id, kind, platform, user, item, event, value, ts, body FROM records "
_SOME: Final = _SELECT + "WHERE seq > ? AND seq <= ? {} ORDER BY seq LIMIT ?"
_OLD: Final = "DELETE FROM records WHERE kind = ? AND ts < ?"
_ONES: Final = _SELECT + "WHERE kind = 'event' AND platform = ? AND user = ?"
_DELETE: Final = "DELETE FROM records WHERE kind = ? AND platform = ? AND user = ?"
_ONE: Final = _SELECT + "WHERE id = ?"
INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NEW: Final = "INSERT INTO records (id, kind, platform, user, item, event, value, ts, body) VALUES "
_NINE: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UNKNOWN: Final = " ON CONFLICT (id) DO NOTHING"
_INSERT: Final = _NEW + _NINE + _UNKNOWN + " RETURNING seq"
#: What is owed after an erasure: kept until it is done, whatever happens to the process.
_OWE: Final = "INSERT INTO meta VALUES ('unwiped', ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
_OWED: Final = "SELECT value FROM meta WHERE name = 'unwiped'"
_PAID: Final = "DELETE FROM meta WHERE name = 'unwiped'"
#: Milliseconds a statement waits for others.
_BUSY: Final = 5000
#: Events written by one statement: fewer are written one by one.
ROWS: Final = 50
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
  platform TEXT NOT NULL, user TEXT NOT NULL, item TEXT NOT NULL, event TEXT NOT NULL,
  value REAL, ts INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS accounts ON records (platform, user) WHERE kind = 'event';
"""


class _KnownError(Exception):
    """An event is known already."""


@lru_cache(maxsize=ROWS)
def _insert(rows: int) -> str:
    return _NEW + ", ".join([_NINE] * rows) + _UNKNOWN


def _row(one: Entry) -> tuple[str | float | None, ...]:
    return one.id, one.kind, one.platform, one.user, one.item, one.event, one.value, one.ts, one.body


def connect(path: Path) -> apsw.Connection:
    """Return a connection that loses nothing it has committed.

    Raises
    ------
    ArtefactError
        The file is no database.
    """
    try:
        db = apsw.Connection(str(path))
        db.set_busy_timeout(_BUSY)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "trusted_schema=OFF"):
            db.execute(f"PRAGMA {pragma}").fetchall()
    except apsw.CantOpenError as error:
        raise StorageError(f"cannot be opened: {error}", where=path) from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise ArtefactError(f"is no event log: {error}", where=path, fix="restore it from a backup") from error
    return db


class SqliteLog(GroupCommit):
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
        super().__init__(path.stem, pending, idle=AGAIN)
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock(path.with_name(path.name + ".lock"))
        try:
            self._db = connect(path)
            self._prepare()
            self.secret = bytes.fromhex(str(self._meta("secret", secrets.token_hex(32))))
            self.seq = self._top = self._last()
            self.unwiped = sum(int(str(row[0])) for row in self._db.execute(_OWED).fetchall())
        except BaseException:
            os.close(self._lock)
            raise
        self._freed, self._packed, self._try = 0, False, 0.0
        self._writer.start()

    def read(
        self, *, after: int = 0, until: int | None = None, size: int = PART, kinds: Sequence[str] = ()
    ) -> Iterator[list[Record]]:
        """Yield records from ``after`` (not included) to ``until`` (included), ``size`` at a time, in order."""
        last = self.seq if until is None else until
        some = _SOME.format(f"AND kind IN ({', '.join('?' * len(kinds))})" if kinds else "")
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        db.set_busy_timeout(5000)
        try:
            while after < last:
                rows = db.execute(some, (after, last, *kinds, size)).fetchall()
                if not rows:
                    return
                after = int(str(rows[-1][0]))
                yield [record_of(row) for row in rows]
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
        return sorted((record_of(row) for row in rows), key=lambda record: record.seq)

    def close(self) -> None:
        """Write what waits, then let go of the file."""
        self._end()
        self._idle()
        self._db.close()
        os.close(self._lock)

    def _prepare(self) -> None:
        try:
            self._db.execute(SCHEMA)
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

    def _commit(self, jobs: Jobs) -> Sequence[Receipt | IsthmusError]:
        self._top, self._freed = self.seq, 0
        try:
            self._db.execute("BEGIN IMMEDIATE")
            receipts = [self._take(entries) for entries, _ in jobs]
            if self._freed:
                self._db.execute(_OWE, (self._freed,))
            self._db.execute("COMMIT")
            self.seq = self._top
        except Exception as error:
            self._roll_back()
            failed = _failure(error, self.path)
            logger.error("nothing was written: %s", failed)
            return [failed] * len(jobs)
        if not self._freed:
            self._idle()
            return receipts
        self.unwiped += self._freed
        self._packed = False
        self._wipe(READERS)
        return [replace(receipt, wiped=not self.unwiped) for receipt in receipts]

    def _idle(self) -> None:
        """Wipe what could not be wiped yet."""
        if self.unwiped and time.monotonic() >= self._try:
            self._wipe(0.0)

    def _take(self, entries: Sequence[Entry]) -> Receipt:
        new = len(entries) >= ROWS and all(entry.kind == EVENT for entry in entries)
        return (self._take_new(entries) if new else None) or self._take_each(entries)

    def _take_new(self, entries: Sequence[Entry]) -> Receipt | None:
        """Write events none of which is known, many in a statement; if one is known, nothing is written."""
        try:
            with self._db:
                for start in range(0, len(entries), ROWS):
                    rows = [_row(entry) for entry in entries[start : start + ROWS]]
                    self._db.execute(_insert(len(rows)), tuple(chain.from_iterable(rows)))
                    if self._db.changes() < len(rows):
                        raise _KnownError
        except _KnownError:
            return None
        self._top = self._db.last_insert_rowid()
        first = self._top - len(entries) + 1
        return Receipt(tuple(Record(first + n, entry) for n, entry in enumerate(entries)), (), (), self._top)

    def _take_each(self, entries: Sequence[Entry]) -> Receipt:
        records, twice, otherwise, erased = [], [], [], 0
        for entry in entries:
            given = entry
            if entry.kind == ERASE:
                erased += self._forget(entry)
                given = stones_of(entry, self.secret)
            elif entry.kind == EXPIRE:
                gone = self._delete(_OLD, (EVENT, entry.ts))
                self._freed += gone > 0
                erased += gone
                if not gone:
                    continue
            found = self._db.execute(_INSERT, _row(given)).fetchall()
            if found:
                self._top = int(str(found[0][0]))
                records.append(Record(self._top, entry))
            else:
                twice.append(given.id)
                if not given.same(self._at(given.id)):
                    otherwise.append(given.id)
        return Receipt(tuple(records), tuple(twice), tuple(otherwise), self._top, erased)

    def _at(self, name: str) -> Entry:
        return record_of(self._db.execute(_ONE, (name,)).fetchall()[0]).entry

    def _forget(self, entry: Entry) -> int:
        """Take the events of the accounts in ``entry`` off the disk; return how many."""
        accounts = accounts_of(entry)
        said = sum(self._delete(_DELETE, (CONSENT, *account)) for account in accounts)
        gone = sum(self._delete(_DELETE, (EVENT, *account)) for account in accounts)
        self._freed += said + gone > 0
        return gone

    def _delete(self, statement: str, values: tuple[object, ...]) -> int:
        self._db.execute(statement, values)
        return self._db.changes()

    def _wipe(self, seconds: float) -> None:
        """Write the file anew and empty the write-ahead log; what readers delay for ``seconds`` is tried again later.

        ``secure_delete`` alone is not enough: pages that were split keep copies of rows outside their cells.
        """
        end = time.monotonic() + seconds
        self._db.set_busy_timeout(0)
        try:
            while self.unwiped:
                try:
                    self._write_anew()
                except (apsw.BusyError, apsw.LockedError):
                    if time.monotonic() >= end:
                        self._try = time.monotonic() + AGAIN
                        return
                    time.sleep(0.02)
        except apsw.Error as error:
            logger.error("erased events are still in the file, and it is tried again: %s", error)
            self._try = time.monotonic() + LATER
        finally:
            self._db.set_busy_timeout(_BUSY)

    def _write_anew(self) -> None:
        if not self._packed:
            self._db.execute("VACUUM")
            self._packed = True
        self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._db.execute(_PAID)
        self.unwiped = 0

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except apsw.Error as error:
            logger.error("rolling back: %s", error)


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
    """Return what an error of the database means to who asked."""
    if isinstance(error, apsw.FullError):
        return StorageError("the disk is full", where=path.name, fix="free some space; nothing was written")
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return BusyError("the event log is in use")
    if isinstance(error, IsthmusError):
        return error
    return StorageError(f"cannot write: {type(error).__name__}", where=path.name)
