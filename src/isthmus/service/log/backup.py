"""Copies of a service's data while it runs, and the way back: the same files whichever store keeps the logs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import apsw

from isthmus import __version__
from isthmus.data.sources.segments import MANIFEST as SEGMENTS
from isthmus.data.sources.segments import durable, read_manifest, verified, write_manifest
from isthmus.errors import ArtefactError, InputError, IsthmusError
from isthmus.files import Json, new_folder, read_json, sha256, storage_errors, write_json
from isthmus.service.log.base import FORMAT, Place
from isthmus.service.log.erasures import erase_again, erased_after
from isthmus.service.log.sqlite import INSERT, SCHEMA
from isthmus.service.log.upkeep import FOLDER

if TYPE_CHECKING:
    import psycopg

MANIFEST: Final = "backup.json"
_ROWS: Final = 5_000
_SEQ: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'records'"


def backup(place: Place, out: Path) -> Json:
    """Copy the data of a service, which may go on meanwhile, into a new folder; return its manifest.

    Segments are copied before the logs, so that no segment knows more than its log. Logs are copied as they stand
    at one moment each.

    Raises
    ------
    InputError
        ``out`` exists, or there is nothing to copy.
    """
    if not place.folder.is_dir():
        raise InputError("no such folder", where=place.folder, fix="name the --data of a service")
    if out.exists():
        raise InputError("exists already", where=out, fix="name a new folder")
    with new_folder(out, replace=False) as part:
        part.chmod(0o700)
        for folder in sorted((place.folder / FOLDER).glob("*")):
            _copy_segments(folder, part / FOLDER / folder.name)
        marks = _from_database(place.database, part) if place.database else {}
        for path in sorted(place.folder.iterdir()):
            if path.suffix == ".db":
                seq = _copy_database(path, part / path.name)
                marks.update({path.stem: seq} if seq is not None else {})
            elif path.suffix == ".json" and not path.name.startswith("."):
                shutil.copy2(path, part / path.name)
        if not marks:
            raise InputError("holds no event log", where=place.folder, fix="name the --data of a service")
        files = {str(path.relative_to(part)): sha256(path) for path in sorted(part.rglob("*")) if path.is_file()}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        said: Json = {"format": FORMAT, "version": __version__, "created": when, "logs": marks, "files": files}
        write_json(part / MANIFEST, said)
        for path in (*(part / name for name in files), part / MANIFEST, part):
            durable(path)
    return said


def check(folder: Path) -> Json:
    """Return the manifest of a backup whose files are all there and unchanged.

    Raises
    ------
    ArtefactError
        It is no backup, of another format, or a file is missing or was changed.
    """
    said = read_json(folder / MANIFEST, what="backup")
    files, marks = said.get("files"), said.get("logs")
    if said.get("format") != FORMAT or not isinstance(files, dict) or not isinstance(marks, dict):
        raise ArtefactError("is a backup of another format, or damaged", where=folder)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    for name, digest in cast("dict[str, str]", files).items():
        if name not in there or sha256(folder / name) != digest:
            raise ArtefactError("is missing, or was changed", where=folder / name, fix="take another backup")
    for name in sorted(there - set(files)):
        raise ArtefactError("does not belong to the backup", where=folder / name, fix="take it out")
    return said


def restore(folder: Path, place: Place, newer: Place | None = None) -> Json:
    """Put a backup where a service can use it; return the backup's manifest. A running service must not be there.

    Whom it holds and who was erased since, as ``newer`` data or a newer backup says, is erased again.

    Raises
    ------
    InputError
        There is something already.
    ArtefactError
        The backup is damaged.
    """
    said = check(folder)
    logs = cast("dict[str, int]", said["logs"])
    erased = {} if newer is None else erased_after(newer, folder, logs)
    target = place.folder
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError("is not empty", where=target, fix="restore into a new folder")
    with new_folder(target) as part:
        part.chmod(0o700)
        for name in cast("dict[str, str]", said["files"]):
            if place.database and name.removesuffix(".db") in logs:
                continue
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / name, part / name)
            durable(part / name)
        durable(part)
        if place.database:
            _into_database(place.database, {name: folder / f"{name}.db" for name in logs})
    durable(target.parent)
    erase_again(place, erased)
    return said


def _copy_segments(folder: Path, out: Path, tries: int = 5) -> None:
    """Copy segments; a file that is replaced meanwhile is looked for again."""
    if not (folder / SEGMENTS).is_file():
        return None
    out.mkdir(parents=True)
    manifest = read_manifest(folder)
    for segment in manifest.files:
        try:
            shutil.copy2(folder / segment.file, out / segment.file)
            verified(out, segment)
        except (FileNotFoundError, IsthmusError):
            if tries <= 1 or read_manifest(folder) == manifest:
                verified(folder, segment)
                raise
            shutil.rmtree(out)
            time.sleep(0.1)
            return _copy_segments(folder, out, tries - 1)
    return write_manifest(out, manifest)


def _copy_database(path: Path, out: Path) -> int | None:
    """Copy an SQLite file as it stands at one moment; return the number of its newest record, None if it is no log."""
    with (
        storage_errors(out),
        closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as source,
        closing(apsw.Connection(str(out))) as copy,
    ):
        source.set_busy_timeout(5000)
        with copy.backup("main", source, "main") as running:
            while not running.done:
                try:
                    running.step(-1)
                except (apsw.BusyError, apsw.LockedError):
                    time.sleep(0.02)
        copy.execute("PRAGMA journal_mode=DELETE").fetchall()
        if copy.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            raise ArtefactError("is damaged", where=path, fix="isthmus doctor")
        if not copy.table_exists(None, "records"):
            return None
        found = copy.execute(_SEQ).fetchall()
        return int(str(found[0][0])) if found else 0


def _from_database(url: str, out: Path) -> dict[str, int]:
    """Copy every log of a database, as all stood at one moment, into SQLite files; return their marks."""
    from isthmus.service.log.pgsession import PREFIX, connect, said_busy

    marks = {}
    with said_busy(), connect(url, "public", autocommit=False) as db:
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = db.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'isthmus\\_%' ORDER BY 1").fetchall()
        for (schema,) in found:
            name = str(schema).removeprefix(PREFIX)
            marks[name] = _file_of(db, str(schema), out / f"{name}.db")
    return marks


def _file_of(db: psycopg.Connection, schema: str, path: Path) -> int:
    """Write a schema's log as an SQLite file."""
    from psycopg import sql

    db.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))
    meta = {str(name): str(value) for name, value in db.execute("SELECT name, value FROM meta")}
    with storage_errors(path), closing(apsw.Connection(str(path))) as file, file:
        file.execute(SCHEMA)
        rows = (("format", FORMAT), ("secret", meta["secret"]))
        file.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        with db.cursor(f"copy_{schema}") as cursor:
            cursor.itersize = _ROWS
            cursor.execute(
                'SELECT seq, id, kind, platform, "user", item, event, value, ts, body FROM records ORDER BY seq'
            )
            while some := cursor.fetchmany(_ROWS):
                file.executemany(INSERT, some)
        file.execute("DELETE FROM sqlite_sequence WHERE name = 'records'")
        file.execute("INSERT INTO sqlite_sequence VALUES ('records', ?)", (int(meta["last"]),))
    return int(meta["last"])


def _into_database(url: str, files: dict[str, Path]) -> None:
    """Put logs into a database, all or none."""
    from isthmus.service.log.pgsession import connect, said_busy, schema_of
    from isthmus.service.log.postgres import prepare

    with said_busy(), connect(url, "public", autocommit=False) as db:
        for name, path in files.items():
            schema = schema_of(name)
            with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as file:
                meta = {str(key): str(value) for key, value in file.execute("SELECT name, value FROM meta")}
                last = file.execute(_SEQ).fetchall()
                said = {"secret": meta["secret"], "last": str(last[0][0] if last else 0)}
                prepare(db, schema)
                if db.execute("SELECT 1 FROM meta WHERE name = 'last' AND value <> '0'").fetchone():
                    raise InputError(f"holds a log of '{name}' already", where="--data", fix="take another database")
                for key, value in said.items():
                    db.execute("UPDATE meta SET value = %s WHERE name = %s", (value, key))
                _fill(db, file.execute("SELECT * FROM records ORDER BY seq"))


def _fill(db: psycopg.Connection, rows: Sequence[object] | apsw.Cursor) -> None:
    words = 'COPY records (seq, id, kind, platform, "user", item, event, value, ts, body) FROM STDIN'
    with db.cursor() as cursor, cursor.copy(words) as copy:
        for row in rows:
            copy.write_row(cast("tuple[object, ...]", row))
