"""One batch of raw event rows → columns of numbers, and why single rows cannot be used.

Ids are handled as distinct words: trimmed, mapped and checked once a word, not once a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import reduce
from operator import and_
from typing import Final

import polars as pl

from isthmus.data.idmaps import IdMaps
from isthmus.data.ingest_columns import filled, instants, joined, number
from isthmus.data.ingest_store import Words
from isthmus.data.sources.base import LINE, Batch
from isthmus.data.spec import IGNORE, Clean, Source
from isthmus.types import EVENTS

BLANK: Final = "blank"
_SECOND = 1_000_000


@dataclass
class Vocabularies:
    """The words of an import: platforms, users, items, domains."""

    platforms: Words = field(default_factory=Words)
    users: Words = field(default_factory=Words)
    items: Words = field(default_factory=Words)
    domains: Words = field(default_factory=Words)


@dataclass
class Parsed:
    """Columns of one batch, row by row, and the problems found: reason → which rows (only where there are any)."""

    columns: dict[str, pl.Series] = field(default_factory=dict)
    problems: dict[str, pl.Series] = field(default_factory=dict)

    def problem(self, reason: str, rows: pl.Series) -> None:
        """Note that ``rows`` (boolean) cannot be used; the first reason noted for a row is the one it gets."""
        rows = rows.fill_null(False)
        if rows.any():
            self.problems[reason] = rows | self.problems[reason] if reason in self.problems else rows

    def reasons(self) -> pl.Series | None:
        """Return the reason of each row (null: it is good), or None if all are good."""
        if not self.problems:
            return None
        chain: pl.Expr = pl.lit(None, dtype=pl.String)
        for place, reason in reversed(list(enumerate(self.problems))):
            chain = pl.when(pl.col(str(place))).then(pl.lit(reason)).otherwise(chain)
        masks = {str(place): rows for place, rows in enumerate(self.problems.values())}
        return pl.DataFrame(masks).select(chain.alias("reason"))["reason"]


@dataclass(frozen=True)
class Coded:
    """A column as numbers (u32, null: empty cell) of its distinct words, trimmed (null: a word for "nothing")."""

    name: str
    codes: pl.Series
    words: pl.Series

    @property
    def lacks(self) -> bool:
        """Whether any row has no id."""
        return self.codes.null_count() > 0 or self.words.null_count() > 0

    @property
    def missing(self) -> pl.Series:
        """Which rows have no id."""
        return self.words.is_null().gather(self.codes).fill_null(True)


class BatchParser:
    """Parses the batches of one source.

    Parameters
    ----------
    source : Source
        What the spec says of it.
    clean : Clean
        Limits.
    maps : IdMaps
        Its id maps.
    words : Vocabularies
        Where words get their numbers.
    now : datetime
        Later times are impossible.
    """

    def __init__(self, source: Source, clean: Clean, maps: IdMaps, words: Vocabularies, now: datetime) -> None:
        self.source = source
        self.clean = clean
        self.maps = maps
        self.words = words
        self.now = now
        self.mapping = source.mapping

    def parse(self, batch: Batch) -> Parsed:
        """Return the batch's platform, user, item, domain (u32), event (u8), value (f64), ts (i64, µs) and @line."""
        frame, parsed = batch.frame, Parsed()
        users = self._distinct(frame, "user")
        items = self._distinct(frame, "item")
        if users.lacks and items.lacks:
            others = [~self._given(frame, name) for name in ("value", "ts") if name in self.mapping]
            parsed.problem(BLANK, reduce(and_, others, users.missing & items.missing))
        self._event(frame, parsed)
        self._labels(frame, parsed)
        self._ids(users, parsed)
        self._ids(items, parsed)
        parsed.problem("no platform", parsed.columns["platform"].is_null())
        parsed.columns["value"] = self._value(frame, parsed)
        parsed.columns["ts"] = self._ts(frame, parsed, batch.label)
        parsed.columns[LINE] = frame[LINE].cast(pl.Int64)
        return parsed

    def _distinct(self, frame: pl.DataFrame, name: str) -> Coded:
        text = frame.select(joined(frame, self.mapping[name]).alias(name))[name]
        words = Words()
        codes = words.codes(text)
        kept = words.all().to_frame("word").select(filled(pl.col("word"), self.source.nulls))["word"]
        return Coded(name, codes, kept)

    def _given(self, frame: pl.DataFrame, name: str) -> pl.Series:
        return frame.select(filled(joined(frame, self.mapping[name]), self.source.nulls).is_not_null().alias("given"))[
            "given"
        ]

    def _labels(self, frame: pl.DataFrame, parsed: Parsed) -> None:
        """Fill in platform and domain: a column of the file, with the source's own word where it is empty."""
        for name, constant, words in (
            ("platform", self.source.platform, self.words.platforms),
            ("domain", self.source.domain, self.words.domains),
        ):
            own = None if constant is None else words.code(constant)
            if name in self.mapping:
                text = filled(joined(frame, self.mapping[name]), self.source.nulls)
                codes = words.codes(frame.select(text.alias(name))[name])
                parsed.columns[name] = codes if own is None else codes.fill_null(own)
            else:
                parsed.columns[name] = pl.repeat(own, frame.height, dtype=pl.UInt32, eager=True)

    def _ids(self, ids: Coded, parsed: Parsed) -> None:
        """Fill in user or item: words mapped and checked once each, then spread over the rows."""
        name, limit = ids.name, self.clean.max_cell
        table = self.maps.table(name, ids.words)
        if ids.lacks:
            parsed.problem(f"no {name}", ids.missing)
        long = table["id"].str.len_bytes() > limit
        if long.any():
            parsed.problem(f"id longer than {limit} bytes", long.gather(ids.codes))
        unmapped = table["id"].is_null() & ids.words.is_not_null()
        if unmapped.any():
            parsed.problem("id not in the id map", unmapped.gather(ids.codes))
        words = self.words.users if name == "user" else self.words.items
        prefix = self.source.prefix.user if name == "user" else self.source.prefix.item
        parsed.columns[name] = words.codes(prefix + table["id"] if prefix else table["id"]).gather(ids.codes)
        for label, known in (("platform", self.words.platforms), ("domain", self.words.domains)):
            if table[label].null_count() < table.height:
                own = known.codes(table[label]).gather(ids.codes)
                parsed.columns[label] = own.fill_null(parsed.columns[label])

    def _event(self, frame: pl.DataFrame, parsed: Parsed) -> None:
        if "event" not in self.mapping:
            code = EVENTS.index(self.source.event or "rate")
            parsed.columns["event"] = pl.repeat(code, frame.height, dtype=pl.UInt8, eager=True)
            return
        words = filled(joined(frame, self.mapping["event"]), self.source.nulls).replace(dict(self.source.events))
        event = frame.select(words.alias("event"))["event"]
        parsed.problem(IGNORE, event == IGNORE)
        parsed.problem("unknown event", ~event.is_in([*EVENTS, IGNORE]) | event.is_null())
        parsed.columns["event"] = event.cast(pl.Enum(EVENTS), strict=False).to_physical().cast(pl.UInt8)

    def _value(self, frame: pl.DataFrame, parsed: Parsed) -> pl.Series:
        if "value" not in self.mapping:
            return pl.repeat(None, frame.height, dtype=pl.Float64, eager=True)
        value = number(frame, self.mapping["value"], self.source)
        if value.null_count():
            parsed.problem("value is not a number", value.is_null() & self._given(frame, "value"))
        plain = value if self.source.factor == 1 else value * self.source.factor
        if self.source.scale is None:
            return plain
        low, high = self.source.scale
        scaled = (value - low) / (high - low)
        rated = (parsed.columns["event"] == EVENTS.index("rate")).fill_null(False)
        parsed.problem("value outside the scale", rated & ~scaled.is_between(0, 1))
        return scaled.zip_with(rated, plain)

    def _ts(self, frame: pl.DataFrame, parsed: Parsed, label: str) -> pl.Series:
        if self.source.order_only or "ts" not in self.mapping:
            return pl.repeat(0, frame.height, dtype=pl.Int64, eager=True)
        ts = instants(frame, self.mapping["ts"], self.source, label)
        if ts.null_count():
            given = self._given(frame, "ts")
            parsed.problem("no time", ~given)
            parsed.problem("time not readable", ts.is_null() & given)
        if self.clean.future:
            parsed.problem("time in the future", ts > int(self.now.timestamp()) * _SECOND)
        since = self.source.since or self.clean.since
        if since is not None:
            parsed.problem(f"time before {since}", ts < _micros(since))
        return ts


def _micros(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * _SECOND
