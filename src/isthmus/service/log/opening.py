"""Which event log a place has: an SQLite file, or a schema of a PostgreSQL database."""

from __future__ import annotations

from isthmus.errors import InputError
from isthmus.service.log.base import EventLog, Place
from isthmus.service.log.sqlite import SqliteLog


def open_log(place: Place, tenant: str, *, pending: int = 50_000) -> EventLog:
    """Return the event log of a tenant: an SQLite file in the folder, or a schema of the database.

    Raises
    ------
    InputError
        Another process has it open, or the driver is not installed.
    ArtefactError
        It is none of ours, damaged, or of another format.
    """
    if not place.database:
        return SqliteLog(place.folder / f"{tenant}.db", pending=pending)
    try:
        from isthmus.service.log.postgres import PostgresLog
    except ImportError as error:
        raise InputError(f"{error.name} is not installed", fix="pip install 'isthmus[sql]'") from None
    return PostgresLog(place.database, tenant, pending=pending)
