"""Sessions with PostgreSQL, and what one commit of the event log does in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from isthmus.errors import InputError
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
    row_of,
    stones_of,
)
from isthmus.service.problems import BusyError

#: Beginning of the names of our schemas, and letters of a tenant's name.
PREFIX: Final = "isthmus_"
LONGEST: Final = 50
#: Seconds a statement may take without a word from the server before its connection is given up.
SILENCE: Final = 5.0
_OPTIONS: Final = (
    "-c synchronous_commit=on -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
)
_KNOWN: Final = """
SELECT seq, id, kind, platform, "user", item, event, value, ts, body FROM records WHERE id = ANY(%s)
"""
INSERT: Final = """
INSERT INTO records (seq, id, kind, platform, "user", item, event, value, ts, body)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_GONE: Final = """DELETE FROM records WHERE kind = %s AND platform = %s AND "user" = %s"""
_OLD: Final = "DELETE FROM records WHERE kind = %s AND ts < %s"
_LAST: Final = "UPDATE meta SET value = %s WHERE name = 'last'"
#: What is owed after an erasure: kept until it is done, whatever happens to the process.
_OWE: Final = """
INSERT INTO meta VALUES ('unwiped', %s)
ON CONFLICT (name) DO UPDATE SET value = (meta.value::bigint + excluded.value::bigint)::text
"""


def connect(url: str, schema: str, *, name: str = "isthmus", autocommit: bool = True) -> psycopg.Connection:
    """Return a session whose tables are those of ``schema``.

    Raises
    ------
    InputError
        The URL is none.
    BusyError
        The server cannot be reached.
    """
    try:
        given = str(conninfo_to_dict(url).get("options") or "")
        return psycopg.connect(
            url,
            autocommit=autocommit,
            application_name=name,
            connect_timeout=2,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=int(SILENCE * 1000),
            options=f'{given} -c search_path="{schema}" {_OPTIONS}',
        )
    except psycopg.OperationalError as error:
        raise BusyError("the database cannot be reached") from error
    except psycopg.ProgrammingError:
        fix = "write it as postgresql://USER@HOST/DATABASE; the password may stand in PGPASSWORD"
        raise InputError("that is no database URL", where="--data", fix=fix) from None


def schema_of(tenant: str) -> str:
    """Return the schema of a tenant.

    Examples
    --------
    >>> schema_of("default")
    'isthmus_default'
    """
    if not tenant.isidentifier() or not tenant.isascii() or len(tenant) > LONGEST:
        raise InputError(f"a tenant in a database has a name of up to {LONGEST} plain letters", where=tenant)
    return PREFIX + tenant


class Taking:
    """What one commit takes in: asks once which ids are known, and inserts many rows at once."""

    def __init__(self, db: psycopg.Connection, secret: bytes, top: int, ids: list[str]) -> None:
        self.db, self.secret, self.top, self.freed = db, secret, top, 0
        self._start = top
        self._rows: list[tuple[object, ...]] = []
        self._known = {record.entry.id: record.entry for record in map(record_of, db.execute(_KNOWN, (ids,)))}

    def take(self, entries: Sequence[Entry]) -> Receipt:
        """Take some entries in."""
        records, twice, otherwise, erased = [], [], [], 0
        for entry in entries:
            given, gone = entry, self._forget(entry)
            erased += gone
            if entry.kind == EXPIRE and not gone:
                continue
            if entry.kind == ERASE:
                given = stones_of(entry, self.secret)
            known = self._known.get(given.id)
            if known is None:
                self.top += 1
                self._known[given.id] = given
                self._rows.append(row_of(Record(self.top, given)))
                records.append(Record(self.top, entry))
            else:
                twice.append(given.id)
                if not given.same(known):
                    otherwise.append(given.id)
        return Receipt(tuple(records), tuple(twice), tuple(otherwise), self.top, erased)

    def end(self) -> None:
        """Insert what is left, and remember the highest number ever given, and what is to be wiped."""
        self._flush()
        if self.freed:
            self.db.execute(_OWE, (str(self.freed),))
        if self.top > self._start:
            self.db.execute(_LAST, (str(self.top),))

    def _flush(self) -> None:
        if self._rows:
            with self.db.cursor() as cursor:
                cursor.executemany(INSERT, self._rows)
            self._rows = []

    def _forget(self, entry: Entry) -> int:
        """Delete what an erasure or the end of a term takes off the disk; return how many events."""
        if entry.kind not in (ERASE, EXPIRE):
            return 0
        self._flush()
        said = 0
        if entry.kind == ERASE:
            accounts = accounts_of(entry)
            gone = sum(self.db.execute(_GONE, (EVENT, *account)).rowcount for account in accounts)
            said = sum(self.db.execute(_GONE, (CONSENT, *account)).rowcount for account in accounts)
            dropped = {name for name, one in self._known.items() if (one.platform, one.user) in accounts}
        else:
            gone = self.db.execute(_OLD, (EVENT, entry.ts)).rowcount
            dropped = {name for name, one in self._known.items() if one.kind == EVENT and one.ts < entry.ts}
        for name in dropped:
            if self._known[name].kind in (EVENT, CONSENT):
                del self._known[name]
        self.freed += gone + said > 0
        return gone


@contextmanager
def said_busy() -> Iterator[None]:
    """Turn a server that goes while it is read into a BusyError."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise BusyError("the database cannot be reached") from error
