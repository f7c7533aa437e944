"""Keys and the audit log: one small SQLite file for all tenants, shared by the service and the command line."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from isthmus.errors import InputError, NotFoundError, StorageError, nearest
from isthmus.service.lock.key import EVERY, SCOPES, Key
from isthmus.service.log.sqlite import connect
from isthmus.service.problems import BusyError

if TYPE_CHECKING:
    from isthmus.service.lock.tokens import Tokens
    from isthmus.service.settings import TokenSettings

FILE: Final = "system.db"
#: Seconds after which a change of the keys by another process is seen.
FRESH: Final = 0.5
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS keys (
  prefix TEXT PRIMARY KEY, salt TEXT NOT NULL, hash TEXT NOT NULL, tenant TEXT NOT NULL, scopes TEXT NOT NULL,
  platforms TEXT NOT NULL, label TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER, revoked INTEGER);
CREATE TABLE IF NOT EXISTS audit (
  number INTEGER PRIMARY KEY AUTOINCREMENT, ts INTEGER NOT NULL, tenant TEXT NOT NULL, actor TEXT NOT NULL,
  action TEXT NOT NULL, said TEXT NOT NULL, before TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS usage (
  prefix TEXT NOT NULL, day INTEGER NOT NULL, kind TEXT NOT NULL, used INTEGER NOT NULL,
  PRIMARY KEY (prefix, day, kind));
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_USED: Final = "SELECT used FROM usage WHERE prefix = ? AND day = ? AND kind = ?"
_USE: Final = """
INSERT INTO usage VALUES (?, ?, ?, ?) ON CONFLICT (prefix, day, kind) DO UPDATE SET used = used + excluded.used
"""
_NAMES: Final = "INSERT OR IGNORE INTO secrets VALUES ('names', ?)"
_KEYS: Final = """
SELECT prefix, salt, hash, tenant, scopes, platforms, label, created, expires, revoked, events, lists FROM keys
"""
_NOTE: Final = "INSERT INTO audit (ts, tenant, actor, action, said, before, hash) VALUES (?, ?, ?, ?, ?, ?, ?)"
_NOTES: Final = """
SELECT number, ts, tenant, actor, action, said, before, hash FROM audit WHERE number > ? ORDER BY number LIMIT ?
"""
_NEWEST: Final = """
SELECT number, ts, tenant, actor, action, said, before, hash FROM audit WHERE tenant = ? AND number < ?
ORDER BY number DESC LIMIT ?
"""
#: Entries of the audit log read at a time.
PAGE: Final = 1000
#: Pages of the audit log's file in memory, KiB (negative as SQLite has it): it is written at its end.
_CACHE: Final = -256
_START: Final = "0" * 64


@dataclass(frozen=True)
class Walked:
    """How far the chain of the audit log was gone through.

    Parameters
    ----------
    place : int
        Number of the last entry.
    digest : str
        Its hash.
    tenants : mapping of str to int
        Entries of each tenant.
    """

    place: int = 0
    digest: str = _START
    tenants: Mapping[str, int] = field(default_factory=dict)


class Vault:
    """Keys and audit log in a folder.

    Parameters
    ----------
    folder : Path
        Folder of the service's data.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / FILE
        self._db = connect(self.path)
        self._db.execute(_SCHEMA)
        known = [row[1] for row in self._db.execute("PRAGMA table_info(keys)").fetchall()]
        for name in ("events", "lists"):  # not in files of the first version
            if name not in known:
                self._db.execute(f"ALTER TABLE keys ADD COLUMN {name} INTEGER")
        self._book, self._booking = connect(self.path), threading.Lock()  # the audit log is used from other threads
        self._book.execute(f"PRAGMA cache_size={_CACHE}")
        self._rows: dict[str, tuple[Key, bytes, str]] = {}
        self._seen, self._looked = -1, 0.0
        self._refresh()
        self.tokens: Tokens | None = None
        self._walked = Walked()

    def create(
        self,
        *,
        tenant: str,
        scopes: Sequence[str],
        platforms: Sequence[str] = (),
        label: str = "",
        days: float | None = None,
        quota: tuple[int | None, int | None] = (None, None),
    ) -> tuple[Key, str]:
        """Return a new key and its text, which is shown this once.

        ``quota`` is how many events it may send and how many lists it may get in a day (UTC).

        Raises
        ------
        InputError
            An unknown scope, or none; all tenants, and not ``metrics`` alone.
        """
        for scope in scopes:
            if scope not in SCOPES:
                fix = f"scopes: {', '.join(SCOPES)}"
                raise InputError(f"no scope '{scope}'{nearest(scope, list(SCOPES))}", where="--scope", fix=fix)
        if tenant == EVERY and set(scopes) - {"metrics"}:
            fix = "take --scope metrics alone, or one tenant"
            raise InputError(f"a key for all tenants ('{EVERY}') reads figures only", where="--tenant", fix=fix)
        if not scopes:
            raise InputError("a key without a scope opens nothing", where="--scope", fix=f"take {', '.join(SCOPES)}")
        now = int(time.time())
        expires = None if days is None else int(now + days * 86400)
        prefix, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_hex(16)
        key = Key(prefix, tenant, tuple(scopes), tuple(platforms), label, now, expires, None, *quota)
        row = (prefix, salt, _hash(salt, secret), tenant, json.dumps(key.scopes), json.dumps(key.platforms), label)
        with self._alone():
            self._book.execute("INSERT INTO keys VALUES (?,?,?,?,?,?,?,?,?,NULL,?,?)", (*row, now, expires, *quota))
            self._add(tenant, "command line", "key created", {"prefix": prefix, "scopes": list(scopes)})
        self._refresh()
        return key, f"isk_{prefix}_{secret}"

    def trust(self, settings: TokenSettings) -> None:
        """Take tokens of an issuer beside keys."""
        from isthmus.service.lock.tokens import Tokens  # signatures take a while to import; keys do not need them

        self._db.execute(_NAMES, (secrets.token_hex(32),))
        secret = self._db.execute("SELECT value FROM secrets WHERE name = 'names'").fetchall()[0][0]
        self.tokens = Tokens(settings, bytes.fromhex(str(secret)), SCOPES)

    def known(self) -> list[Key]:
        """Return all keys, also those revoked, oldest first."""
        self._refresh()
        return sorted((row[0] for row in self._rows.values()), key=lambda key: (key.created, key.prefix))

    def revoke(self, prefix: str) -> None:
        """Close a key for good.

        Raises
        ------
        NotFoundError
            No such key.
        """
        found = {key.prefix: key for key in self.known()}.get(prefix)
        if found is None:
            raise NotFoundError(f"no key '{prefix}'", fix="isthmus keys list")
        if found.revoked is None:
            with self._alone():
                self._book.execute("UPDATE keys SET revoked = ? WHERE prefix = ?", (int(time.time()), prefix))
                self._add(found.tenant, "command line", "key revoked", {"prefix": prefix})
            self._refresh()

    def find(self, token: str) -> Key | None:
        """Return the key of a text, None if it opens nothing; an unknown one takes as long as a wrong one."""
        if self.tokens is not None and token.count(".") == 2:
            return self.tokens.find(token)
        self._look()
        kind, _, rest = token.partition("_")
        prefix, _, secret = rest.partition("_")
        key, salt, digest = self._rows.get(prefix, (None, b"-", "-"))
        right = hmac.compare_digest(hmac.digest(salt, secret.encode(), "sha256").hex(), digest)
        if key is None or not right or kind != "isk" or not key.valid(time.time()):
            return None
        return key

    def _look(self) -> None:
        """Take in what another process has written, within :data:`FRESH` seconds."""
        now = time.monotonic()
        if now > self._looked + FRESH:
            self._looked = now
            if self._db.pragma("data_version") != self._seen:
                self._refresh()

    @property
    def locked(self) -> bool:
        """Whether a key or a token is needed: a key was ever made, or tokens of an issuer are taken."""
        if not self._rows:
            self._look()
        return bool(self._rows) or self.tokens is not None

    def lease(self, prefix: str, kind: str, day: int, wanted: int, most: int) -> int:
        """Return how many of ``wanted`` a key may still have on a day, of ``most``; they count as used."""
        with self._alone():
            rows = self._book.execute(_USED, (prefix, day, kind)).fetchall()
            granted = max(min(wanted, most - (int(str(rows[0][0])) if rows else 0)), 0)
            self._book.execute(_USE, (prefix, day, kind, granted))
            self._book.execute("DELETE FROM usage WHERE day < ?", (day - 31,))
        return granted

    def note(self, tenant: str, actor: str, action: str, said: dict[str, object]) -> None:
        """Add to the audit log; say nothing in it that names a person."""
        with self._alone():
            self._add(tenant, actor, action, said)

    def _add(self, tenant: str, actor: str, action: str, said: dict[str, object]) -> None:
        row = (int(time.time()), tenant, actor, action, json.dumps(said, sort_keys=True))
        last = self._book.execute("SELECT hash FROM audit ORDER BY number DESC LIMIT 1").fetchall()
        before = str(last[0][0]) if last else _START
        self._book.execute(_NOTE, (*row, before, _link(before, *row)))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Read and write with nobody else writing in between.

        Raises
        ------
        StorageError
            The disk is full: nothing was written.
        BusyError
            Another process writes there for long: nothing was written.
        """
        with self._booking:
            try:
                self._book.execute("BEGIN IMMEDIATE")
                yield
                self._book.execute("COMMIT")
            except apsw.FullError as error:
                self._give_up()
                raise StorageError(
                    "the disk is full: nothing can be noted", where=FILE, fix="free some space; ask again"
                ) from error
            except (apsw.BusyError, apsw.LockedError) as error:
                self._give_up()
                raise BusyError("the audit log is in use") from error
            except BaseException:
                self._give_up()
                raise

    def _give_up(self) -> None:
        if self._book.in_transaction:  # a full disk has ended it already
            self._book.execute("ROLLBACK")

    def audit(self) -> list[dict[str, object]]:
        """Return the audit log, oldest first.

        Raises
        ------
        InputError
            An entry was changed or is missing.
        """
        return [{name: one[name] for name in one if name != "digest"} for one in self.entries()]

    def verify(self, *, whole: bool) -> Mapping[str, int]:
        """Return how many entries of the audit log each tenant has, after the chain was gone through.

        Not ``whole``: the entries that came since the last time. An older one that was changed since is not found so.

        Raises
        ------
        InputError
            An entry was changed or is missing.
        """
        start = Walked() if whole else self._walked
        tenants, place = Counter(start.tenants), start.place
        digest = start.digest
        if start.place and [row[-1] for row in self._page(start.place - 1, 1)] != [start.digest]:
            raise InputError(f"entry {start.place} of the audit log was changed or is missing", where=self.path)
        for entry in self.entries(start):
            tenants[str(entry["tenant"])] += 1
            place, digest = place + 1, str(entry["digest"])
        self._walked = Walked(place, digest, tenants)
        return tenants

    def newest(self, tenant: str, before: int | None, most: int) -> list[dict[str, object]]:
        """Return entries of one tenant, the newest first, from those with a number less than ``before``.

        Raises
        ------
        InputError
            One of them was changed.
        """
        with self._booking:
            rows = self._book.execute(_NEWEST, (tenant, before or 1 << 62, most)).fetchall()
        found = []
        for number, ts, whose, actor, action, said, linked, digest in rows:
            if digest != _link(linked, ts, whose, actor, action, said):
                raise InputError(f"entry {number} of the audit log was changed or follows a gap", where=self.path)
            entry = {"ts": ts, "actor": actor, "action": action, "said": json.loads(str(said))}
            found.append({"number": number, **entry, "hash": str(digest)[:16]})
        return found

    def entries(self, start: Walked | None = None) -> Iterator[dict[str, object]]:
        """Yield the audit log, oldest first, a part of it in memory at a time; what follows ``start`` if given.

        Raises
        ------
        InputError
            An entry was changed or is missing.
        """
        before, place = (_START, 0) if start is None else (start.digest, start.place)
        with self._booking:
            last = self._book.execute("SELECT seq FROM sqlite_sequence WHERE name = 'audit'").fetchall()
        while rows := self._page(place):
            for number, ts, tenant, actor, action, said, linked, digest in rows:
                place += 1
                if number != place or linked != before or digest != _link(before, ts, tenant, actor, action, said):
                    raise InputError(f"entry {number} of the audit log was changed or follows a gap", where=self.path)
                before = str(digest)
                entry = {"ts": ts, "tenant": tenant, "actor": actor, "action": action, "said": json.loads(str(said))}
                yield {**entry, "hash": before[:16], "digest": before}
        if last and int(str(last[0][0])) > place:
            raise InputError("the end of the audit log is missing", where=self.path)

    def _page(self, after: int, most: int | None = None) -> list[tuple[object, ...]]:
        with self._booking:
            return self._book.execute(_NOTES, (after, most or PAGE)).fetchall()

    def close(self) -> None:
        """Let go of the file."""
        self._book.close()
        self._db.close()

    def _refresh(self) -> None:
        self._seen = self._db.pragma("data_version")
        rows = {}
        for prefix, salt, digest, tenant, scopes, platforms, *more in self._db.execute(_KEYS):
            key = Key(prefix, tenant, tuple(json.loads(scopes)), tuple(json.loads(platforms)), *more)
            rows[prefix] = key, salt.encode(), digest
        self._rows = rows


def _hash(salt: str, secret: str) -> str:
    return hmac.digest(salt.encode(), secret.encode(), "sha256").hex()


def _link(*parts: object) -> str:
    """Return the hash of an entry and of the one before it."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
