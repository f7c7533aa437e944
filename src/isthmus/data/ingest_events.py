"""Raw rows of event sources → events as numbers, or rejects with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import numpy as np
import polars as pl

from isthmus.data.idmaps import IdMaps
from isthmus.data.ingest_columns import check_columns, filled, instants, joined, number
from isthmus.data.ingest_rejects import Rejects
from isthmus.data.ingest_store import CODES, EventStore, Tally, Words
from isthmus.data.sources.base import LINE, Batch
from isthmus.data.spec import IGNORE, Clean, Source, Spec
from isthmus.types import EVENT_WEIGHTS, EVENTS, Ints

_NOT_TASTE = [event for event, weight in EVENT_WEIGHTS.items() if weight == 0]
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
    platforms: Words = field(default_factory=Words)
    users: Words = field(default_factory=Words)
    items: Words = field(default_factory=Words)
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
        shaped = _shape(batch, source, self.spec.clean)
        shaped = maps.apply(shaped).with_columns(
            _prefixed("user", source.prefix.user), _prefixed("item", source.prefix.item)
        )
        reason = _reason(source, self.spec.clean, self.now)
        marked = shaped.with_columns(reason.alias("reason"))
        if marked["reason"].null_count() < marked.height:
            marked = self._set_apart(marked, batch)
        self._keep(self._drop_words(marked, batch.label), source, batch.label)

    def _set_apart(self, marked: pl.DataFrame, batch: Batch) -> pl.DataFrame:
        bad = marked.select("row", "reason").filter(pl.col("reason").is_not_null())
        ignored = bad.filter(pl.col("reason") == IGNORE).height
        blank = bad.filter(pl.col("reason") == "blank").height
        self.rejects.count("ignored_events", ignored)
        self.rejects.count("blank_rows", blank)
        bad = bad.filter(~pl.col("reason").is_in([IGNORE, "blank"]))
        rows = batch.frame[bad["row"]] if bad.height else batch.frame.clear()
        raw = pl.struct(pl.all().exclude(LINE)).struct.json_encode()
        self.rejects.add(batch.label, rows.select(LINE, raw.alias("raw")).with_columns(bad["reason"]))
        return marked.filter(pl.col("reason").is_null())

    def _drop_words(self, rows: pl.DataFrame, label: str) -> pl.DataFrame:
        if self.spec.clean.not_taste == "keep" or rows.is_empty():
            return rows
        out = rows.filter(pl.col("event").is_in(_NOT_TASTE))
        if out.is_empty():
            return rows
        raw = pl.struct("platform", "user", "item", "event").struct.json_encode()
        self.rejects.add(label, out.select(LINE, pl.lit("not_taste").alias("reason"), raw.alias("raw")), cleaned=True)
        return rows.filter(~pl.col("event").is_in(_NOT_TASTE))

    def _keep(self, rows: pl.DataFrame, source: Source, label: str) -> None:
        if label not in self.labels:
            self.labels.append(label)
        place = self.labels.index(label)
        codes = rows.select(
            self.platforms.codes(rows["platform"]).alias("platform"),
            self.users.codes(rows["user"]).alias("user"),
            self.items.codes(rows["item"]).alias("item"),
            pl.col("event").cast(pl.Enum(EVENTS)).to_physical().cast(pl.UInt8),
            "value",
            "ts",
            pl.lit(place, dtype=pl.UInt32).alias("source"),
            pl.col(LINE).cast(pl.Int64).alias("line"),
            "domain",
        )
        self.accounts.add(codes)
        self.met.add(codes)
        codes = self._timed(codes.drop("domain"), source)
        self.store.add(codes.select(list(CODES)))

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
        name = str(self.platforms.all()[platform])
        return next((group[0] for group in self.spec.identity.same_ids if name in group), name)

    def _place(self, space: str, users: pl.Series) -> Ints:
        """Return how many rows each row's user had before it in this id space, over all batches."""
        size = self.users.size
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


def _shape(batch: Batch, source: Source, clean: Clean) -> pl.DataFrame:
    """Return the canonical columns as text, number and time, null where they cannot be had."""
    frame, mapping = batch.frame, source.mapping
    given = {
        name: filled(joined(frame, mapping[name]), source.nulls) for name in mapping if name not in ("value", "ts")
    }
    event = given.get("event", pl.lit(source.event or "rate"))
    if source.events:
        event = event.replace(dict(source.events))
    columns = {
        "platform": given.get("platform", pl.lit(source.platform)),
        "user": given["user"],
        "item": given["item"],
        "event": event,
        "domain": given.get("domain", pl.lit(source.domain)),
        "value": _value(frame, mapping, source, event),
        "ts": instants(frame, mapping["ts"], source, batch.label) if _has_time(source) else pl.lit(0, dtype=pl.Int64),
        "value_given": _given(frame, mapping, "value", source),
        "ts_given": _given(frame, mapping, "ts", source),
    }
    return frame.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
        LINE,
        *(column.alias(name) for name, column in columns.items()),
    ).with_columns(_too_long("user", clean), _too_long("item", clean))


def _too_long(name: str, clean: Clean) -> pl.Expr:
    return (pl.col(name).str.len_bytes() > clean.max_cell).alias(f"{name}_long")


def _has_time(source: Source) -> bool:
    return not source.order_only and "ts" in source.mapping


def _prefixed(name: str, prefix: str) -> pl.Expr:
    return (pl.lit(prefix) + pl.col(name)).alias(name) if prefix else pl.col(name)


def _given(frame: pl.DataFrame, mapping: dict[str, tuple[str, ...]], name: str, source: Source) -> pl.Expr:
    if name not in mapping:
        return pl.lit(False)
    return filled(joined(frame, mapping[name]), source.nulls).is_not_null()


def _value(frame: pl.DataFrame, mapping: dict[str, tuple[str, ...]], source: Source, event: pl.Expr) -> pl.Expr:
    """Return ratings on their scale as [0, 1], every other value times the source's factor."""
    if "value" not in mapping:
        return pl.lit(None, dtype=pl.Float64)
    value = number(frame, mapping["value"], source)
    plain = value if source.factor == 1 else value * source.factor
    if source.scale is None:
        return plain
    low, high = source.scale
    return pl.when(event == "rate").then((value - low) / (high - low)).otherwise(plain)


def _reason(source: Source, clean: Clean, now: datetime) -> pl.Expr:
    """Return why a row cannot be used, or null: the first test that holds."""
    tests: dict[str, pl.Expr] = {
        "blank": pl.col("user").is_null() & pl.col("item").is_null() & ~pl.col("ts_given") & ~pl.col("value_given"),
        IGNORE: pl.col("event") == IGNORE,
        "no user": pl.col("user").is_null(),
        "no item": pl.col("item").is_null(),
        f"id longer than {clean.max_cell} characters": pl.col("user_long") | pl.col("item_long"),
        "id not in the id map": pl.col("unmapped"),
        "no platform": pl.col("platform").is_null(),
        "unknown event": ~pl.col("event").is_in(list(EVENTS)) | pl.col("event").is_null(),
    }
    if "value" in source.mapping:
        tests["value is not a number"] = pl.col("value").is_null() & pl.col("value_given")
        if source.scale is not None:
            tests["value outside the scale"] = (pl.col("event") == "rate") & ~pl.col("value").is_between(0, 1)
    if _has_time(source):
        tests["no time"] = ~pl.col("ts_given")
        tests["time not readable"] = pl.col("ts").is_null()
        if clean.future:
            tests["time in the future"] = pl.col("ts") > int(now.timestamp()) * _SECOND
        since = source.since or clean.since
        if since is not None:
            tests[f"time before {since}"] = pl.col("ts") < _micros(since)
    chain: pl.Expr = pl.lit(None, dtype=pl.String)
    for reason, test in reversed(tests.items()):
        chain = pl.when(test).then(pl.lit(reason)).otherwise(chain)
    return chain


def _micros(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * _SECOND
