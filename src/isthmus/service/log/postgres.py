"""The event log in PostgreSQL: a schema a tenant, the same one writer, the same group commit.

The session that writes holds an advisory lock, so it must be a session of its own: not one lent by a pooler that
hands out transactions.
"""

from __future__ import annotations

import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import psycopg
from psycopg import sql

from isthmus.errors import ArtefactError, InputError, IsthmusError, StorageError
from isthmus.log import logger
from isthmus.service.log.base import FORMAT, LATER, PART, READERS, GroupCommit, Jobs, tell
from isthmus.service.log.pgsession import SILENCE, Taking, connect, said_busy, schema_of
from isthmus.service.log.records import Entry, Receipt, Record, record_of
from isthmus.service.problems import BusyError

#: Seconds between two looks at a server with nothing to write, and between two tries to reach one that is gone.
LOOK: Final = 0.5
_SOME: Final = """
SELECT seq, id, kind, platform, "user", item, event, value, ts, body FROM records
WHERE seq > %s AND seq <= %s AND (%s::text[] IS NULL OR kind = ANY(%s)) ORDER BY seq LIMIT %s
"""
_ONES: Final = """
SELECT seq, id, kind, platform, "user", item, event, value, ts, body FROM records
WHERE kind = 'event' AND platform = %s AND "user" = %s
"""
_META: Final = "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (name) DO NOTHING"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE IF NOT EXISTS records (
  seq bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, kind text NOT NULL, platform text NOT NULL,
  "user" text NOT NULL, item text NOT NULL, event text NOT NULL, value double precision, ts bigint NOT NULL,
  body text NOT NULL);
CREATE INDEX IF NOT EXISTS accounts ON records (platform, "user") WHERE kind = 'event';
"""
#: Seconds in which a session that just ended may still hold its lock.
LETTING_GO: Final = 2.0
_PAID: Final = "DELETE FROM meta WHERE name = 'unwiped'"
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
#: End our own session of before, where the server has not noticed yet that it is gone.
_END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name = %s"


class PostgresLog(GroupCommit):
    """Everything that was accepted, in the order of the disk; written by one process at a time.

    Parameters
    ----------
    url : str
        ``postgresql://USER@HOST/DATABASE``.
    tenant : str
        Whose.
    pending : int
        Entries that may wait for the disk.

    Raises
    ------
    InputError
        Another process writes there, the server cannot be reached, or the user may not make a schema.
    ArtefactError
        The tables are of another format.
    """

    patience = 2.0

    def __init__(self, url: str, tenant: str, *, pending: int = 50_000) -> None:
        super().__init__(tenant, pending, idle=LOOK)
        self.url, self.schema = url, schema_of(tenant)
        self._db: psycopg.Connection | None = None
        self._name = f"isthmus-{secrets.token_hex(6)}"
        self._pid = 0
        self._away, self._tried = "", 0.0
        self._doubt: tuple[Jobs, Sequence[Receipt]] | None = None
        self._busy_since = float("inf")
        self._try = 0.0
        self._closing = threading.Event()
        self._db = self._first()
        self._writer.start()
        threading.Thread(target=self._watch, name=f"watch {tenant}", daemon=True).start()

    @property
    def away(self) -> str:
        """Why nothing can be written just now; empty while all is well."""
        return self._away

    def append(self, entries: Sequence[Entry], done: object) -> None:
        """Write ``entries`` with the next commit and call ``done`` when they are on disk, or with what went wrong.

        Raises
        ------
        InputError
            A text holds the NUL character, which PostgreSQL cannot store.
        BusyError
            Too much waits for the disk already.
        """
        for one in entries:
            if any("\0" in text for text in (one.id, one.platform, one.user, one.item, one.event, one.body)):
                raise InputError("the NUL character cannot be stored", fix="leave it out")
        super().append(entries, done)  # type: ignore[arg-type]

    def read(
        self, *, after: int = 0, until: int | None = None, size: int = PART, kinds: Sequence[str] = ()
    ) -> Iterator[list[Record]]:
        """Yield records from ``after`` (not included) to ``until`` (included), ``size`` at a time, in order."""
        last = self.seq if until is None else until
        wanted = list(kinds) or None
        with said_busy(), connect(self.url, self.schema) as db:
            while after < last:
                rows = db.execute(_SOME, (after, last, wanted, wanted, size)).fetchall()
                if not rows:
                    return
                after = int(rows[-1][0])
                yield [record_of(row) for row in rows]

    def of(self, accounts: Sequence[tuple[str, str]]) -> list[Record]:
        """Return the events of some accounts, in order."""
        with said_busy(), connect(self.url, self.schema) as db:
            rows = [row for account in accounts for row in db.execute(_ONES, account).fetchall()]
        return sorted((record_of(row) for row in rows), key=lambda record: record.seq)

    def close(self) -> None:
        """Write what waits, then let go of the session."""
        self._end()
        self._closing.set()
        if self._db is not None:
            self._db.close()

    def _first(self) -> psycopg.Connection:
        try:
            db = connect(self.url, self.schema, name=self._name)
        except BusyError as error:
            said = str(error.__cause__).strip().splitlines()
            raise InputError(f"the database cannot be reached: {said[0] if said else ''}", where="--data") from None
        try:
            end = time.monotonic() + LETTING_GO
            while not (locked := _locked(db, self.schema)) and time.monotonic() < end:
                time.sleep(0.05)
            if not locked:
                fix = "stop it, or take another database"
                raise InputError("another service has this open", where=self.schema, fix=fix)
            self._prepare(db)
        except psycopg.Error as error:
            db.close()
            raise InputError(f"the database refuses: {_line(error)}", where=self.schema) from None
        except IsthmusError:
            db.close()
            raise
        self._pid = db.info.backend_pid
        return db

    def _prepare(self, db: psycopg.Connection) -> None:
        with db.transaction():
            prepare(db, self.schema)
        found = _meta(db)
        if found["format"] != str(FORMAT):
            where = self.schema
            raise ArtefactError(f"event log of format {found['format']}, this version reads {FORMAT}", where=where)
        self.secret, self.seq = bytes.fromhex(found["secret"]), int(found["last"])
        self.unwiped = int(found.get("unwiped", 0))

    def _idle(self) -> None:
        """Notice that the server is gone before somebody needs it, and that it is back; wipe what could not be yet."""
        try:
            with self._timed():
                db = self._session()
                db.execute("SELECT 1")
        except (psycopg.Error, IsthmusError) as error:
            self._lost(error)
            return
        if self.unwiped and time.monotonic() >= self._try:
            self._wipe(db, LOOK / 5)

    def _session(self) -> psycopg.Connection:
        """Return the session that may write, a new one if need be; what was in doubt is settled then."""
        if self._db is not None:
            return self._db
        if time.monotonic() < self._tried + LOOK:
            raise BusyError(self._away)
        self._tried = time.monotonic()
        db = connect(self.url, self.schema, name=self._name)
        try:
            if not _locked(db, self.schema):
                db.execute(_END, (self._pid, self._name))
                raise BusyError("the writer of before is not gone yet")
            self._settle(_meta(db))
        except BaseException:
            db.close()
            raise
        self._db, self._pid, self._away = db, db.info.backend_pid, ""
        logger.info("the database is back")
        return db

    def _settle(self, found: dict[str, str]) -> None:
        """Say what became of the commit during which the server went."""
        last, self.unwiped = int(found["last"]), int(found.get("unwiped", 0))
        doubt, self._doubt = self._doubt, None
        if doubt is not None and doubt[1] and last == doubt[1][-1].seq > self.seq:
            self.seq = last
            tell(*doubt)
        if last != self.seq:
            raise StorageError(f"the log ends at {last}, not at {self.seq}", where=self.schema, fix="start again")

    def _commit(self, jobs: Jobs) -> Sequence[Receipt | IsthmusError]:
        outcomes: Sequence[Receipt] = ()
        try:
            with self._timed():
                db = self._session()
                with db.transaction():
                    taking = Taking(db, self.secret, self.seq, [one.id for entries, _ in jobs for one in entries])
                    outcomes = [taking.take(entries) for entries, _ in jobs]
                    taking.end()
                    outcomes = [replace(one, wiped=not taking.freed) for one in outcomes]
                    self._doubt = jobs, outcomes
                self.seq, self._doubt = taking.top, None
                self.unwiped += taking.freed
        except Exception as error:
            failed = self._lost(error)
            return [failed] * len(jobs)
        if taking.freed:
            self._wipe(db, READERS)
            return [replace(one, wiped=not self.unwiped) for one in outcomes]
        if self.unwiped and time.monotonic() >= self._try:
            self._wipe(db, LOOK / 5)
        return outcomes

    def _lost(self, error: Exception) -> IsthmusError:
        """Return what an error means to who sent events; let go of a session that is broken."""
        db = self._db
        if db is not None and (db.closed or db.broken or isinstance(error, psycopg.OperationalError)):
            logger.error("the database is gone: %s", _line(error))
            self._away = "the database cannot be reached"
            self._db, self._tried = None, 0.0
            db.close()
        if isinstance(error, psycopg.errors.DiskFull):
            return StorageError("the disk is full", where=self.schema, fix="free some space; nothing was written")
        if self._db is None and not isinstance(error, StorageError):
            return BusyError(self._away)
        self._doubt = None
        if isinstance(error, IsthmusError):
            return error
        logger.error("nothing was written: %s", _line(error))
        return StorageError(f"cannot write: {type(error).__name__}", where=self.schema)

    def _wipe(self, db: psycopg.Connection, seconds: float) -> None:
        """Write the table anew: a deleted row stays in its file until then.

        Who reads the table holds it up, for ``seconds``; and whoever began before the erasure and has not ended may
        still see the rows, so that the server copies them.
        """
        began = time.monotonic()
        try:
            if write_anew(db, seconds) == 0:
                db.execute(_PAID)
                self.unwiped = 0
        except psycopg.errors.LockNotAvailable:
            self._try = time.monotonic() + 4 * LOOK
            return
        except psycopg.Error as error:
            logger.error("erased events are still in the files, and it is tried again: %s", _line(error))
            self._try = began + LATER
            self._lost(error)
            return
        now = time.monotonic()
        self._try = now + max(LOOK, 10 * (now - began))

    @contextmanager
    def _timed(self) -> Iterator[None]:
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = float("inf")

    def _watch(self) -> None:
        """Cut the connection to a server that has fallen silent: nothing else would end the wait for its answer."""
        while not self._closing.wait(LOOK):
            db = self._db
            if db is None or time.monotonic() < self._busy_since + SILENCE:
                continue
            try:
                with socket.socket(fileno=socket.dup(db.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
            except (OSError, psycopg.Error):
                continue
            self._busy_since = float("inf")


def prepare(db: psycopg.Connection, schema: str) -> None:
    """Make the tables of a log in ``schema``, where they are not there, and look there from now on."""
    db.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    db.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema)))
    db.execute(_SCHEMA)
    for name, value in (("format", str(FORMAT)), ("secret", secrets.token_hex(32)), ("last", "0")):
        db.execute(_META, (name, value))


def write_anew(db: psycopg.Connection, seconds: float) -> int:
    """Write the table of a log anew; return how many deleted rows had to be copied, for somebody sees them still."""
    said: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        said.append(notice.message_detail or "")

    db.add_notice_handler(hear)
    try:
        db.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(f"{seconds * 1000:.0f}ms")))
        db.execute("VACUUM (FULL, VERBOSE) records")
    finally:
        db.remove_notice_handler(hear)
        if not (db.closed or db.broken):
            db.execute("SET lock_timeout = 0")
    return sum(int(found[0]) for one in said if (found := re.findall(r"\d+", one)))


def _locked(db: psycopg.Connection, schema: str) -> bool:
    row = db.execute(_LOCK, (schema,)).fetchone()
    return row is not None and bool(row[0])


def _meta(db: psycopg.Connection) -> dict[str, str]:
    return {str(name): str(value) for name, value in db.execute("SELECT name, value FROM meta")}


def _line(error: Exception) -> str:
    """Return the first line of an error; never the values of a statement."""
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__
