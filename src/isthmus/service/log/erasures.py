"""Erasures that came after a backup, done again in what was restored from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import apsw

from isthmus.errors import InputError, NotFoundError
from isthmus.service.log.base import Place
from isthmus.service.log.opening import open_log
from isthmus.service.log.records import CONSENT, EVENT, Record, record_of, tombstone
from isthmus.service.log.segments import Segments
from isthmus.service.log.upkeep import FOLDER

_KEY: Final = "SELECT value FROM meta WHERE name = 'secret'"
_ERASED: Final = """
SELECT seq, id, kind, platform, "user", item, event, value, ts, body FROM records
WHERE kind = 'erase' AND seq > {} ORDER BY seq
"""


def erased_after(newer: Place, backup: Path, marks: Mapping[str, int]) -> dict[str, list[Record]]:
    """Return the erasures of each log that a backup does not know, from the data or the backup that has them.

    Raises
    ------
    NotFoundError
        A log of the backup is not there.
    InputError
        It is another log: its tombstones have another key.
    """
    found = {}
    for name, mark in marks.items():
        secret, found[name] = (_of_database if newer.database else _of_file)(newer, name, mark)
        with closing(apsw.Connection(str(backup / f"{name}.db"), flags=apsw.SQLITE_OPEN_READONLY)) as file:
            if secret != str(file.execute(_KEY).fetchall()[0][0]):
                raise InputError("is another log than that of the backup", where=name, fix="name the data it is of")
    return found


def erase_again(place: Place, erased: Mapping[str, Sequence[Record]]) -> int:
    """Do erasures in restored logs and their segments; return how many events are gone.

    Tombstones of people whom a log does not know go into it too: a model may know them.
    """
    gone = 0
    for name, records in erased.items():
        with closing(open_log(place, name)) as log:
            parts = log.read(kinds=(EVENT, CONSENT))
            accounts = {(one.entry.platform, one.entry.user) for part in parts for one in part}
            known = {tombstone(log.secret, *account): account for account in accounts}
            for record in records:
                stones = json.loads(record.entry.body)["stones"]
                mine = [known[stone] for stone in stones if stone in known]
                said = {"accounts": mine, "stones": [stone for stone in stones if stone not in known]}
                gone += log.put([replace(record.entry, body=json.dumps(said))], seconds=600.0).erased
            Segments(place.folder / FOLDER / name).clean(log, list(accounts))
    return gone


def _of_file(place: Place, name: str, mark: int) -> tuple[str, list[Record]]:
    path = place.folder / f"{name}.db"
    if not path.is_file():
        raise NotFoundError(f"no log of '{name}'", where=place.folder, fix="name data or a backup of the same service")
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        db.set_busy_timeout(5000)
        rows = db.execute(_ERASED.format("?"), (mark,)).fetchall()
        return str(db.execute(_KEY).fetchall()[0][0]), [record_of(row) for row in rows]


def _of_database(place: Place, name: str, mark: int) -> tuple[str, list[Record]]:
    from isthmus.service.log.pgsession import connect, said_busy, schema_of

    with said_busy(), connect(place.database, schema_of(name)) as db:
        if db.execute("SELECT to_regclass('records')").fetchall() == [(None,)]:
            raise NotFoundError(f"no log of '{name}'", where="--erased", fix="name the database of the same service")
        rows = db.execute(_ERASED.format("%s"), (mark,)).fetchall()
        return str(db.execute(_KEY).fetchall()[0][0]), [record_of(row) for row in rows]
