"""Sealed segments of a service: Parquet files with a manifest that says of each what its bytes are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import polars as pl

from isthmus.data.sources.base import LINE, Batch
from isthmus.data.tables import SCHEMAS, TS
from isthmus.errors import ArtefactError, DataError
from isthmus.files import new_file, sha256

if TYPE_CHECKING:
    from isthmus.data.spec import Source

MANIFEST: Final = "segments.json"
FORMAT: Final = 1
#: Columns of a segment of events, which is sorted by platform, user, time and number.
EVENTS: Final[dict[str, pl.DataType]] = {
    "seq": pl.Int64(),
    "id": pl.String(),
    "platform": pl.String(),
    "user": pl.String(),
    "item": pl.String(),
    "event": pl.String(),
    "value": pl.Float64(),
    "ts": TS,
}


@dataclass(frozen=True)
class Segment:
    """One file.

    Parameters
    ----------
    file : str
        Its name in the folder.
    sha256 : str
        Of its bytes.
    rows : int
        Rows in it.
    first, last : int
        Numbers in the log of the records that were sealed with it, both included.
    """

    file: str
    sha256: str
    rows: int
    first: int
    last: int


@dataclass(frozen=True)
class Manifest:
    """What a folder of segments holds.

    Parameters
    ----------
    sealed_until : int
        Number of the newest record of the log that is sealed.
    erased_until : int
        Number of the newest record of the log up to which erased and ended events were taken out.
    segments : tuple of Segment
        Events, oldest first.
    items : Segment, optional
        Items that came over the service.
    """

    sealed_until: int = 0
    erased_until: int = 0
    segments: tuple[Segment, ...] = ()
    items: Segment | None = None

    @property
    def files(self) -> tuple[Segment, ...]:
        """All files."""
        return self.segments if self.items is None else (*self.segments, self.items)

    @property
    def rows(self) -> int:
        """Events in all segments."""
        return sum(segment.rows for segment in self.segments)

    def replaced(self, old: Segment, new: Segment | None) -> Manifest:
        """Return the manifest with a segment replaced, or without it."""
        kept = [new if segment == old else segment for segment in self.segments]
        return replace(self, segments=tuple(segment for segment in kept if segment is not None))

    def bytes(self) -> bytes:
        """Return the manifest as it stands on disk: one form for one content, with a checksum of it."""
        said = {"format": FORMAT, "schema": {name: str(kind) for name, kind in EVENTS.items()}, **asdict(self)}
        text = json.dumps(said, sort_keys=True, indent=1)
        return json.dumps({**said, "checksum": hashlib.sha256(text.encode()).hexdigest()}, indent=1).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """Return what a folder of segments holds.

    Raises
    ------
    ArtefactError
        There is no manifest, it was changed, or it is of another format.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        fix = "name a folder that isthmus serve or isthmus events seal wrote"
        raise ArtefactError("is no folder of segments", where=folder, fix=fix) from None
    try:
        said = json.loads(data)
        if said["format"] != FORMAT:
            raise ArtefactError(f"segments of format {said['format']}, this version reads {FORMAT}", where=path)
        listed = [Segment(**cast("dict[str, object]", one)) for one in said["segments"]]  # type: ignore[arg-type]
        items = None if said["items"] is None else Segment(**said["items"])
        found = Manifest(int(said["sealed_until"]), int(said["erased_until"]), tuple(listed), items)
    except (ValueError, KeyError, TypeError):
        found = None
    if found is None or found.bytes() != data:
        raise ArtefactError("the manifest was changed or is damaged", where=path, fix="restore it from a backup")
    return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest: on disk when this returns, whole or not at all."""
    with new_file(folder / MANIFEST) as part:
        part.write_bytes(manifest.bytes())
        durable(part)
    durable(folder)


def durable(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def verified(folder: Path, segment: Segment) -> Path:
    """Return the path of a segment whose bytes are those that were sealed.

    Raises
    ------
    ArtefactError
        It is missing, or was changed.
    """
    path = folder / segment.file
    if path.parent != folder or not path.is_file():
        raise ArtefactError("a segment is missing", where=path, fix="restore it from a backup")
    if sha256(path) != segment.sha256:
        raise ArtefactError("a segment was changed or is damaged", where=path, fix="restore it from a backup")
    return path


def read_segments(path: Path, source: Source, label: str) -> Iterator[Batch]:
    """Yield the events, or the items, of a folder of segments, every file checked against the manifest.

    Raises
    ------
    DataError
        The folder holds nothing of that kind.
    """
    manifest = read_manifest(path)
    if source.kind == "events":
        names, files = list(EVENTS), list(manifest.segments)
    else:
        names, files = list(SCHEMAS["items"]), [] if manifest.items is None else [manifest.items]
    if not files:
        raise DataError(f"no {source.kind} are sealed yet", where=label, fix="isthmus events seal --data URL")
    first = 1
    for segment in files:
        frame = pl.read_parquet(verified(path, segment), columns=names)
        yield Batch(f"{label}/{segment.file}", frame.with_columns(pl.int_range(first, first + pl.len()).alias(LINE)))
        first += frame.height
