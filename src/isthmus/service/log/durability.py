"""What a store can keep, and what it cannot: its settings and its files looked at, before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from isthmus.errors import InputError, IsthmusError
from isthmus.service.log.base import POSTGRES
from isthmus.service.settings import data_folder

Level = Literal["ok", "note", "weak", "fail"]
REDIS: Final = ("redis://", "rediss://", "unix://")
#: The first SQLite without the error that could damage a write-ahead log that is begun anew.
SQLITE: Final = (3, 51, 3)
#: File systems that forget, and those whose locks and memory maps another machine may not see.
_FORGETS: Final = ("tmpfs", "ramfs")
_REMOTE: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs")


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Parameters
    ----------
    name : str
        What.
    level : str
        ``ok``; ``note``: good to know; ``weak``: something accepted may be lost; ``fail``: damaged or out of reach.
    said : str
        What was found, and what it means.
    """

    name: str
    level: Level
    said: str


def look(url: str) -> list[Finding]:
    """Return what a store can keep: a folder or ``sqlite:///DIR``, ``postgresql://...``, or ``redis://...``.

    Raises
    ------
    InputError
        It is none of these, or its client is not installed.
    """
    looks: Callable[[str], Iterator[Finding]] = _folder
    if url.startswith(POSTGRES):
        looks = _postgres
    elif url.startswith(REDIS):
        looks = _redis
    try:
        return list(looks(url))
    except ImportError as error:
        raise InputError(f"{error.name} is not installed", fix="pip install 'isthmus[sql,stream]'") from None


def _folder(url: str) -> Iterator[Finding]:
    from isthmus.recommender.store import MANIFEST as MODEL
    from isthmus.service.lock.vault import FILE
    from isthmus.service.log.backup import MANIFEST, check
    from isthmus.service.log.upkeep import FOLDER

    folder = data_folder(url)
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, fix="name the --data of a service, a backup, or a model")
    if (folder / MANIFEST).is_file():
        yield _tried("backup", lambda: f"every file as it was copied, {check(folder)['created']}")
        return
    if (folder / MODEL).is_file():
        yield _tried("model", lambda: f"every file as it was written, version {_opened(folder)}")
        return
    yield _disk(folder)
    yield _sqlite()
    stores = sorted(folder.glob("*.db"))
    if not stores:
        yield Finding("events", "note", "no service keeps its data here yet")
    for path in stores:
        yield _file(path)
        if path.name == FILE:
            yield _audit(folder)
    for one in sorted((folder / FOLDER).glob("*")):
        yield _segments(one)


def _opened(model: Path) -> str:
    """Return the version of a model after it was opened, every file checked."""
    from isthmus.recommender import Recommender
    from isthmus.recommender.store import version_of

    Recommender.open(model)
    return version_of(model)


def _disk(folder: Path) -> Finding:
    kind = _filesystem(folder)
    if kind in _FORGETS:
        return Finding("disk", "weak", f"{kind}: everything is gone when the machine is")
    if kind in _REMOTE:
        return Finding("disk", "weak", f"{kind}: SQLite needs a local disk; use PostgreSQL")
    mode = folder.stat().st_mode & 0o077
    if mode:
        return Finding("disk", "note", f"{kind}; others may look into the folder (chmod 700 {folder})")
    return Finding("disk", "ok", kind)


def _filesystem(folder: Path) -> str:
    """Return the kind of file system a folder is on."""
    best, kind = "", "unknown"
    whole = str(folder.resolve())
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return kind
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4]
        if (whole + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def _sqlite() -> Finding:
    import apsw

    found = apsw.sqlite_lib_version()
    if tuple(map(int, found.split("."))) < SQLITE:
        least = ".".join(map(str, SQLITE))
        return Finding("sqlite", "weak", f"{found}: may damage its write-ahead log; {least} or later does not")
    return Finding("sqlite", "ok", f"{found}; the service writes with synchronous=FULL and a write-ahead log")


def _file(path: Path) -> Finding:
    import apsw

    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            db.set_busy_timeout(5000)
            said = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
            mode = str(db.execute("PRAGMA journal_mode").fetchall()[0][0])
    except apsw.Error as error:
        return Finding(path.name, "fail", f"damaged: {error}")
    if said != ["ok"]:
        return Finding(path.name, "fail", f"damaged: {said[0]}")
    return Finding(path.name, "ok", f"whole, journal mode {mode}")


def _audit(folder: Path) -> Finding:
    from isthmus.service.lock.vault import Vault

    def told() -> str:
        with closing(Vault(folder)) as vault:
            return f"unbroken, {sum(vault.verify(whole=True).values())} entries"

    return _tried("audit log", told)


def _segments(folder: Path) -> Finding:
    from isthmus.data.sources.segments import MANIFEST, read_manifest, verified

    def told() -> str:
        manifest = read_manifest(folder)
        for segment in manifest.files:
            verified(folder, segment)
        return f"{len(manifest.segments)} as they were sealed, {manifest.rows} events"

    if not (folder / MANIFEST).is_file() and not any(folder.glob("*.parquet")):
        return Finding(f"segments: {folder.name}", "ok", "none yet")
    return _tried(f"segments: {folder.name}", told)


def _postgres(url: str) -> Iterator[Finding]:
    import psycopg

    from isthmus.service.log.pgsession import connect

    try:
        with connect(url, "public") as db:
            said = {name: str(value) for name, value in db.execute("SELECT name, setting FROM pg_settings")}
            unlogged = db.execute(
                "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname LIKE 'isthmus\\_%' AND c.relpersistence <> 'p'"
            ).fetchone()
    except (psycopg.Error, IsthmusError):
        yield Finding("postgresql", "fail", "cannot be reached, or does not let us in")
        return
    yield Finding("postgresql", "ok", said["server_version"])
    for name, lost in (
        ("fsync", "a power cut may lose or damage everything"),
        ("full_page_writes", "a power cut may tear pages"),
    ):
        good = said[name] == "on"
        yield Finding(name, "ok" if good else "weak", said[name] if good else f"off: {lost}")
    commit = said["synchronous_commit"]
    kept = "on in our session" if commit == "off" else f"{commit}; on in our session"
    yield Finding("synchronous_commit", "ok", kept)
    sums = said.get("data_checksums") == "on"
    yield Finding("data_checksums", "ok" if sums else "note", "on" if sums else "off: silent damage stays unseen")
    if not said.get("synchronous_standby_names"):
        yield Finding("standby", "note", "none is waited for: if the disk is lost, so is what the last backup lacks")
    if unlogged is not None and unlogged[0]:
        yield Finding("tables", "fail", "unlogged: a crash empties them")


def _redis(url: str) -> Iterator[Finding]:
    import redis

    try:
        with closing(redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)) as db:
            said = {**_config(db, "appendonly"), **_config(db, "appendfsync"), **_config(db, "maxmemory-policy")}
    except (redis.RedisError, OSError, ValueError):
        yield Finding("redis", "fail", "cannot be reached, or does not say its settings")
        return
    lost = {
        "always": "",
        "everysec": "a power cut loses up to a second of a stream",
        "no": "a power cut loses what the system had not written yet",
    }
    if said["appendonly"] != "yes":
        yield Finding("appendonly", "weak", "no: a stream is gone after a crash, but for the last snapshot")
    else:
        left = lost.get(said["appendfsync"], "unknown setting")
        yield Finding("appendfsync", "weak" if left else "ok", f"{said['appendfsync']}{': ' * bool(left)}{left}")
    policy = said["maxmemory-policy"]
    if policy != "noeviction":
        yield Finding("maxmemory-policy", "weak", f"{policy}: events of a stream may be thrown out unread")


def _config(db: object, name: str) -> dict[str, str]:
    found = db.config_get(name)  # type: ignore[attr-defined]
    return {str(key): str(value) for key, value in found.items()}


def _tried(name: str, told: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", told())
    except IsthmusError as error:
        return Finding(name, "fail", str(error))
