"""What the event log holds: one record for each thing that happened, numbered in the order of the disk."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, cast

Kind = Literal["event", "item", "remove", "erase", "consent", "expire"]
EVENT: Final = "event"
ITEM: Final = "item"
REMOVE: Final = "remove"
ERASE: Final = "erase"
CONSENT: Final = "consent"
EXPIRE: Final = "expire"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to be written.

    Parameters
    ----------
    id : str
        Unique in a tenant: a second entry with the same id is not written.
    kind : str
        ``event``; ``item`` and ``remove`` (an item comes and goes); ``erase`` (a person goes);
        ``consent`` (a person says which use of events is allowed); ``expire`` (events before ``ts`` go).
    platform, user, item : str
        Who and what; empty where it does not apply.
    event : str
        Event word.
    value : float, optional
        Rating, seconds.
    ts : int
        Microseconds since 1970, UTC.
    body : str
        JSON: the item's texts, what a consent says.
    """

    id: str
    kind: Kind
    platform: str = ""
    user: str = ""
    item: str = ""
    event: str = ""
    value: float | None = None
    ts: int = 0
    body: str = ""

    def same(self, other: Entry) -> bool:
        """Return whether both say the same, whatever was filled in by the clock."""
        return (self.kind, self.platform, self.user, self.item, self.event, self.value, self.body) == (
            other.kind,
            other.platform,
            other.user,
            other.item,
            other.event,
            other.value,
            other.body,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """An entry on disk, with its number."""

    seq: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of some entries.

    Parameters
    ----------
    records : tuple of Record
        Those written, in order.
    duplicates : tuple of str
        Ids that were on disk already.
    conflicts : tuple of str
        Those of the duplicates that say something else than what is on disk, which stays.
    seq : int
        Number of the newest record of the log.
    erased : int
        Events taken off the disk.
    wiped : bool
        Whether no byte of what was erased is left in the files; if not, it is tried again until it is done.
    """

    records: tuple[Record, ...]
    duplicates: tuple[str, ...]
    conflicts: tuple[str, ...]
    seq: int
    erased: int = 0
    wiped: bool = True


def content_id(*parts: object) -> str:
    """Return an id that depends on all ``parts``: the same event sent twice gets the same one.

    Examples
    --------
    >>> content_id("shop", "u1", "i1", "view", 5) == content_id("shop", "u1", "i1", "view", 5)
    True
    >>> content_id("a", "bc") == content_id("ab", "c")
    False
    """
    said = json.dumps(parts, ensure_ascii=True, default=str).encode()
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def tombstone(secret: bytes, platform: str, user: str) -> str:
    """Return what stays of an erased account: a keyed hash, so that an older model's copy is not used again."""
    return hmac.new(secret, json.dumps([platform, user]).encode(), hashlib.sha256).hexdigest()


def pseudonym(secret: bytes, platform: str, user: str) -> str:
    """Return the name of an account in the audit log: without the key of the log nobody can tell whose it is."""
    return hmac.new(secret, json.dumps(["audit", platform, user]).encode(), hashlib.sha256).hexdigest()[:16]


def record_of(row: Sequence[object]) -> Record:
    """Return the record of a row: seq, id, kind, platform, user, item, event, value, ts, body."""
    seq, name, kind, platform, user, item, event, value, ts, body = row
    entry = Entry(
        str(name),
        cast("Kind", kind),
        str(platform),
        str(user),
        str(item),
        str(event),
        None if value is None else float(cast("float", value)),
        int(cast("int", ts)),
        str(body),
    )
    return Record(int(cast("int", seq)), entry)


def row_of(record: Record) -> tuple[object, ...]:
    """Return the row of a record, as :func:`record_of` reads it."""
    one = record.entry
    return record.seq, one.id, one.kind, one.platform, one.user, one.item, one.event, one.value, one.ts, one.body


def accounts_of(entry: Entry) -> list[tuple[str, str]]:
    """Return the accounts an erasure names before it is written."""
    return [(platform, user) for platform, user in json.loads(entry.body)["accounts"]]


def stones_of(entry: Entry, secret: bytes) -> Entry:
    """Return what is written of an erasure: tombstones in the place of names."""
    given = json.loads(entry.body).get("stones", [])
    stones = [*(tombstone(secret, platform, user) for platform, user in accounts_of(entry)), *given]
    return replace(entry, platform="", user="", item="", event="", value=None, body=json.dumps({"stones": stones}))
