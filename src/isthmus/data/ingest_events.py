"""Raw rows of event sources → events as numbers, or rejects with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl

from isthmus.data.idmaps import IdMaps
from isthmus.data.ingest_columns import check_columns
from isthmus.data.ingest_parse import BLANK, BatchParser, Vocabularies
from isthmus.data.ingest_rejects import Rejects
from isthmus.data.ingest_store import CODES, EventStore, Tally
from isthmus.data.sources.base import LINE, Batch
from isthmus.data.spec import IGNORE, Source, Spec
from isthmus.types import EVENT_WEIGHTS, EVENTS, Ints

_NOT_TASTE = [place for place, event in enumerate(EVENTS) if EVENT_WEIGHTS[event] == 0]
_SECOND = 1_000_000
_MINUTE = 60 * _SECOND


@dataclass
class EventIngest:
    """Takes event batches in, keeps numbers; what it learned on the way is read off its fields afterwards.

    Parameters
    ----------
    spec : Spec
        Cleaning rules and identity groups.
    store : EventStore
        Where the rows wait.
    rejects : Rejects
        Where rows go that cannot be used.
    now : datetime
        Later times are impossible.
    """

    spec: Spec
    store: EventStore
    rejects: Rejects
    now: datetime
    words: Vocabularies = field(default_factory=Vocabularies)
    labels: list[str] = field(default_factory=list)
    order_platforms: set[int] = field(default_factory=set)
    timed_platforms: set[int] = field(default_factory=set)
    fine_platforms: set[int] = field(default_factory=set)
    accounts: Tally = field(default_factory=lambda: Tally(("platform", "user")))
    met: Tally = field(default_factory=lambda: Tally(("platform", "item"), "domain"))
    _places: dict[str, Ints] = field(default_factory=dict)

    def add(self, batch: Batch, source: Source, maps: IdMaps) -> None:
        """Parse one batch, store its good rows, reject the others."""
        check_columns(batch.frame, source.mapping, batch.label)
        parsed = BatchParser(source, self.spec.clean, maps, self.words, self.now).parse(batch)
        rows = pl.DataFrame(parsed.columns)
        reasons = parsed.reasons()
        if reasons is not None:
            self._set_apart(reasons, batch)
            rows = rows.filter(reasons.is_null())
        self._keep(self._taste(rows, batch), source, batch.label)

    def _set_apart(self, reasons: pl.Series, batch: Batch) -> None:
        self.rejects.count("ignored_events", int((reasons == IGNORE).sum()))
        self.rejects.count("blank_rows", int((reasons == BLANK).sum()))
        bad = (reasons.is_not_null() & ~reasons.is_in([IGNORE, BLANK])).fill_null(False)
        raw = pl.struct(pl.all().exclude(LINE)).struct.json_encode().alias("raw")
        self.rejects.add(batch.label, batch.frame.filter(bad).select(LINE, raw).with_columns(reasons.filter(bad)))

    def _taste(self, rows: pl.DataFrame, batch: Batch) -> pl.DataFrame:
        """Return the rows without impressions and ad clicks, where the spec drops these."""
        if self.spec.clean.not_taste == "keep":
            return rows
        out = pl.col("event").is_in(_NOT_TASTE)
        lines = batch.frame.join(rows.filter(out).select(LINE), on=LINE, how="semi")
        raw = pl.struct(pl.all().exclude(LINE)).struct.json_encode().alias("raw")
        gone = lines.select(LINE, pl.lit("not_taste").alias("reason"), raw)
        self.rejects.add(batch.label, gone, cleaned=True)
        return rows.filter(~out)

    def _keep(self, rows: pl.DataFrame, source: Source, label: str) -> None:
        if label not in self.labels:
            self.labels.append(label)
        place = pl.lit(self.labels.index(label), dtype=pl.UInt32)
        codes = rows.rename({LINE: "line"}).with_columns(place.alias("source"))
        self.accounts.add(codes)
        self.met.add(codes)
        self.store.add(self._timed(codes, source).select(list(CODES)))

    def _timed(self, codes: pl.DataFrame, source: Source) -> pl.DataFrame:
        """Note which platforms have times (and finer ones than minutes); give order-only rows their place as time."""
        platforms = set(codes["platform"].unique().to_list())
        if not source.order_only:
            self.timed_platforms |= platforms
            if not platforms <= self.fine_platforms:
                fine = codes.filter(pl.col("ts") % _MINUTE != 0)["platform"].unique().to_list()
                self.fine_platforms |= set(fine)
            return codes
        self.order_platforms |= platforms
        spaces = {code: self._space(code) for code in platforms}
        space = pl.col("platform").replace_strict(spaces, return_dtype=pl.String)
        parts = [
            frame.with_columns(pl.Series("ts", self._place(str(name), frame["user"]) * _SECOND))
            for (name,), frame in codes.with_columns(space=space)
            .partition_by("space", as_dict=True, maintain_order=True, include_key=False)
            .items()
        ]
        return pl.concat(parts) if parts else codes

    def _space(self, platform: int) -> str:
        """Return the name of the id space of a platform: platforms with the same ids share one order a user."""
        name = str(self.words.platforms.all()[platform])
        return next((group[0] for group in self.spec.identity.same_ids if name in group), name)

    def _place(self, space: str, users: pl.Series) -> Ints:
        """Return how many rows each row's user had before it in this id space, over all batches."""
        size = self.words.users.size
        before = self._places.get(space, np.zeros(0, dtype=np.int64))
        counts = np.zeros(size, dtype=np.int64)
        counts[: before.size] = before
        codes = users.to_numpy()
        within = (
            pl.DataFrame({"user": users}).select(pl.int_range(pl.len()).over("user").alias("place"))["place"].to_numpy()
        )
        places: Ints = counts[codes] + within
        self._places[space] = counts + np.bincount(codes, minlength=size)
        return places
