"""Sealing: what the log took in becomes Parquet files that training, and any other tool, can read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from isthmus.data.sources.segments import (
    EVENTS,
    MANIFEST,
    Manifest,
    Segment,
    durable,
    read_manifest,
    verified,
    write_manifest,
)
from isthmus.errors import ArtefactError
from isthmus.files import new_file, sha256
from isthmus.log import logger
from isthmus.service.lists.items import Account, items_frame
from isthmus.service.log.base import EventLog
from isthmus.service.log.records import ERASE, EVENT, EXPIRE, ITEM, Record, tombstone

#: Events of a segment, at most.
ROWS: Final = 500_000
#: Segments of less than half as many events that are left beside each other; of more, larger ones are made: each file
#: costs an erasure time.
FEW: Final = 24
_ORDER: Final = ("platform", "user", "ts", "seq")


@dataclass(frozen=True)
class _Gone:
    """What is to be taken out: tombstones and times, each with the number of the record that says so."""

    stones: dict[str, int]
    terms: list[tuple[int, int]]

    def __bool__(self) -> bool:
        return bool(self.stones or self.terms)


class Segments:
    """The sealed segments of one log; one process at a time, the one that has the log.

    Parameters
    ----------
    folder : Path
        Where they lie; made with the first segment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._busy = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """What is sealed.

        Raises
        ------
        ArtefactError
            The manifest is damaged.
        """
        return read_manifest(self.folder) if (self.folder / MANIFEST).exists() else Manifest()

    def seal(self, log: EventLog) -> int:
        """Seal what the log took in since the last time; return how many events.

        Erasures and ended terms that are not applied yet are applied first.
        """
        with self._busy:
            until = log.seq
            self._clean(log, until, ())
            manifest = self.manifest
            if until <= manifest.sealed_until:
                return 0
            before = manifest.rows
            for frame, items, last in _batches(log, manifest.sealed_until, until):
                manifest = self._add(manifest, frame, items, last)
                write_manifest(self.folder, manifest)
            if manifest.sealed_until < until:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                manifest = replace(manifest, sealed_until=until)
                write_manifest(self.folder, manifest)
            manifest = self._merged(manifest)
            self._sweep(manifest)
            return manifest.rows - before

    def clean(self, log: EventLog, known: Sequence[Account] = ()) -> int:
        """Take out what was erased or ended; return how many events.

        Parameters
        ----------
        log : EventLog
            Says what was erased.
        known : sequence of (platform, user)
            Accounts that were erased, as far as they are known by name: others take long to find, by tombstone.
        """
        with self._busy:
            return self._clean(log, log.seq, known)

    def _clean(self, log: EventLog, until: int, known: Sequence[Account]) -> int:
        manifest = self.manifest
        if not manifest.files and not manifest.sealed_until:
            return 0
        gone = _gone(log, manifest.erased_until, until)
        before = manifest.rows
        names = {tombstone(log.secret, *account): account for account in known}
        plain = {names[stone]: seq for stone, seq in gone.stones.items() if stone in names}
        hidden = {stone: seq for stone, seq in gone.stones.items() if stone not in names}
        if gone and manifest.segments:
            drop = _of_names(plain) | _of_terms(gone.terms)
            if hidden:
                drop = drop | _of_names(self._found(manifest, hidden, log.secret))
            touched = self._scan(manifest, "file").filter(drop).select("file").unique().collect()["file"].to_list()
            for segment in manifest.segments:
                if str(self.folder / segment.file) in touched:
                    manifest = self._without(manifest, segment, drop)
        if until > manifest.erased_until:
            manifest = replace(manifest, erased_until=until)
            write_manifest(self.folder, manifest)
        self._sweep(manifest)
        return before - manifest.rows

    def _scan(self, manifest: Manifest, file: str | None = None) -> pl.LazyFrame:
        """Return the events of all segments, gone through together: one by one, many files take long."""
        return pl.scan_parquet([self.folder / one.file for one in manifest.segments], include_file_paths=file)

    def _found(self, manifest: Manifest, stones: dict[str, int], secret: bytes) -> dict[Account, int]:
        """Return the accounts in the segments that a tombstone names."""
        pairs = self._scan(manifest).select("platform", "user").unique().collect().rows()
        marked = ((tombstone(secret, *pair), pair) for pair in pairs)
        return {(pair[0], pair[1]): stones[stone] for stone, pair in marked if stone in stones}

    def _without(self, manifest: Manifest, segment: Segment, drop: pl.Expr) -> Manifest:
        """Return the manifest after rows were taken out of a segment: a new file, under another name."""
        kept = pl.read_parquet(self.folder / segment.file).filter(~drop)
        name = _next(segment.file)
        return manifest.replaced(segment, self._write(name, kept, segment.first, segment.last) if kept.height else None)

    def _add(self, manifest: Manifest, frame: pl.DataFrame, items: dict[Account, str], last: int) -> Manifest:
        """Return the manifest after another segment, and the items with those that came."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        first = manifest.sealed_until + 1
        made = manifest.segments
        if frame.height:
            made = (*made, self._write(f"events-{first:012d}-{last:012d}.parquet", frame.sort(_ORDER), first, last))
        table = manifest.items
        if items:
            fresh = items_frame(list(items.items()))
            if table is not None:
                old = pl.read_parquet(self.folder / table.file)
                fresh = pl.concat([old.join(fresh, on=["platform", "item"], how="anti"), fresh])
            table = self._write(f"items-{last:012d}.parquet", fresh.sort("platform", "item"), 1, last)
        return replace(manifest, sealed_until=last, segments=made, items=table)

    def _merged(self, manifest: Manifest) -> Manifest:
        """Return the manifest after small segments beside each other became larger ones, if there were many."""
        for group in _groups(manifest.segments):
            try:
                frames = [pl.read_parquet(verified(self.folder, one)) for one in group]
            except ArtefactError as error:
                logger.error("small segments are not put together: %s", error)
                return manifest
            first, last = group[0].first, group[-1].last
            whole = self._write(f"events-{first:012d}-{last:012d}.parquet", pl.concat(frames).sort(_ORDER), first, last)
            kept = [whole if one == group[0] else one for one in manifest.segments if one not in group[1:]]
            manifest = replace(manifest, segments=tuple(kept))
            write_manifest(self.folder, manifest)
        return manifest

    def _write(self, name: str, frame: pl.DataFrame, first: int, last: int) -> Segment:
        with new_file(self.folder / name) as part:
            frame.write_parquet(part, compression="zstd", row_group_size=50_000)
            durable(part)
            digest = sha256(part)
        return Segment(name, digest, frame.height, first, last)

    def _sweep(self, manifest: Manifest) -> None:
        """Remove files that the manifest does not name: those replaced, and what a killed process left."""
        if not self.folder.is_dir():
            return
        named = {MANIFEST, *(segment.file for segment in manifest.files)}
        for path in self.folder.iterdir():
            if path.name not in named and path.is_file():
                path.unlink()


def _batches(log: EventLog, after: int, until: int) -> Iterator[tuple[pl.DataFrame, dict[Account, str], int]]:
    """Yield events, items and the last number of each segment to be."""
    events: list[Record] = []
    items: dict[Account, str] = {}
    for some in log.read(after=after, until=until):
        for record in some:
            if record.entry.kind == EVENT:
                events.append(record)
            elif record.entry.kind == ITEM:
                items[record.entry.platform, record.entry.item] = record.entry.body
        if len(events) >= ROWS:
            yield _frame(events), items, some[-1].seq
            events, items = [], {}
    if events or items:
        yield _frame(events), items, until


def _groups(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Return small segments beside each other that together hold no more than one may."""
    if sum(one.rows < ROWS // 2 for one in segments) <= FEW:
        return []
    groups: list[list[Segment]] = [[]]
    for one in segments:
        if one.rows >= ROWS // 2 or sum(other.rows for other in groups[-1]) >= ROWS // 2:
            groups.append([])
        if one.rows < ROWS // 2:
            groups[-1].append(one)
    return [group for group in groups if len(group) > 1]


def _frame(records: Sequence[Record]) -> pl.DataFrame:
    rows = [
        (record.seq, one.id, one.platform, one.user, one.item, one.event, one.value, one.ts)
        for record in records
        for one in (record.entry,)
    ]
    plain = {**EVENTS, "ts": pl.Int64()}
    return pl.DataFrame(rows, schema=plain, orient="row").with_columns(pl.col("ts").cast(EVENTS["ts"]))


def _gone(log: EventLog, after: int, until: int) -> _Gone:
    stones: dict[str, int] = {}
    terms = []
    for some in log.read(after=after, until=until, kinds=(ERASE, EXPIRE)):
        for record in some:
            if record.entry.kind == EXPIRE:
                terms.append((record.entry.ts, record.seq))
            else:
                stones.update(dict.fromkeys(json.loads(record.entry.body)["stones"], record.seq))
    return _Gone(stones, terms)


def _of_names(accounts: dict[Account, int]) -> pl.Expr:
    """Return which rows are of accounts, and older than what erased them."""
    drop = pl.lit(False)
    for (platform, user), seq in accounts.items():
        drop = drop | ((pl.col("platform") == platform) & (pl.col("user") == user) & (pl.col("seq") < seq))
    return drop


def _of_terms(terms: Sequence[tuple[int, int]]) -> pl.Expr:
    drop = pl.lit(False)
    for before, seq in terms:
        drop = drop | ((pl.col("ts") < pl.lit(before).cast(EVENTS["ts"])) & (pl.col("seq") < seq))
    return drop


def _next(name: str) -> str:
    """Return another name for a file that is written anew.

    Examples
    --------
    >>> _next("events-1-9.parquet"), _next("events-1-9.2.parquet")
    ('events-1-9.1.parquet', 'events-1-9.3.parquet')
    """
    stem, _, number = name.removesuffix(".parquet").partition(".")
    return f"{stem}.{int(number or 0) + 1}.parquet"
