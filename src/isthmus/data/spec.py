"""The import spec: which files hold what, as typed settings read from ``SPEC.toml`` (reference: docs/spec.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, field_validator, model_validator

from isthmus.config import Settings, parse, read_toml
from isthmus.data.media import check_template
from isthmus.data.spec_checks import check_columns, check_labels, check_place
from isthmus.data.tables import SCHEMAS
from isthmus.errors import nearest
from isthmus.types import EVENTS

Kind = Literal["events", "items", "users", "identities", "edges", "links", "rules"]
Format = Literal["csv", "jsonl", "json", "parquet", "sql", "sequence", "rating", "edgelist", "segments"]

#: Columns of sealed segments by kind: those of the canonical tables.
SEGMENTS: Final = {kind: tuple(SCHEMAS[kind]) for kind in ("events", "items")}
#: Words of a rating file without header, in the order such files have.
RATING_NAMES: Final = ("user", "item", "value", "ts")
EDGELIST_NAMES: Final = ("head", "tail")
ORDER: Final = "order"
IGNORE: Final = "ignore"
UNIX: Final[dict[str, int]] = {"unix_s": 1_000_000, "unix_ms": 1_000, "unix_us": 1}


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _time_word(value: object) -> object:
    return {"format": value} if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]


class Columns(Settings):
    """Where each canonical column is found: a column of the file, several to be joined, or ``@file`` (its name)."""

    user: Names = ()
    item: Names = ()
    platform: Names = ()
    domain: Names = ()
    event: Names = ()
    value: Names = ()
    ts: Names = ()
    title: Names = ()
    text: Names = ()
    categories: Names = ()
    attributes: Names = ()
    image: Names = ()
    audio: Names = ()
    lang: Names = ()
    available_from: Names = ()
    available_until: Names = ()
    person: Names = ()
    key: Names = ()
    other_platform: Names = ()
    other_user: Names = ()
    head: Names = ()
    relation: Names = ()
    tail: Names = ()
    entity: Names = ()
    rule: Names = ()
    weight: Names = ()

    def mapped(self) -> dict[str, tuple[str, ...]]:
        """Return the columns that are given, canonical name to names in the file."""
        return {name: value for name, value in self if value}


class Time(Settings):
    """How times are written: ``unix_s``, ``unix_ms``, ``unix_us``, ``iso``, ``order`` or a strptime pattern."""

    format: str = "iso"
    zone: str | None = None

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        try:
            if zone is not None:
                ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"no such time zone '{zone}' (use an IANA name such as Asia/Shanghai)") from None
        return zone

    @model_validator(mode="after")
    def _pattern_has_zone(self) -> Time:
        if self.format in (*UNIX, "iso", ORDER):
            return self
        if "%" not in self.format:
            hint = nearest(self.format, [*UNIX, "iso", ORDER])
            raise ValueError(f"unknown time format '{self.format}'{hint}")
        if "%z" not in self.format and "%Z" not in self.format and "%s" not in self.format and self.zone is None:
            raise ValueError(f"times written as '{self.format}' carry no time zone: add zone (for example \"UTC\")")
        return self

    @property
    def order_only(self) -> bool:
        """Whether the file has an order and no times."""
        return self.format == ORDER


class IdMap(Settings):
    """A file that turns the ids of a source into others, for ids in ``offset .. offset + rows`` or any words."""

    path: str
    key: str
    value: str
    names: tuple[str, ...] = ()
    delimiter: str = "\t"
    encoding: str = "utf-8"
    offset: int = 0
    platform: str | None = None
    domain: str | None = None


class Entry(Settings):
    """Fields inside one entry of a sequence, for example ``item|unix|`` with ``fields = ["item", "ts"]``."""

    delimiter: str = Field(min_length=1)
    fields: tuple[str, ...] = ("item",)

    @field_validator("fields")
    @classmethod
    def _has_item(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if "item" not in fields:
            raise ValueError("must name 'item'")
        return fields


class Sequence(Settings):
    """Shape of a sequence file: ``user <delimiter> item <item_delimiter> item …``."""

    item_delimiter: str | None = Field(default=None, min_length=1)
    skip_fields: int = Field(default=0, ge=0)
    entry: Entry | None = None


class Prefix(Settings):
    """Words put before the ids of a source that counts from 1 like another one."""

    user: str = ""
    item: str = ""


class Source(Settings):
    """One file, set of files, or query."""

    kind: Kind
    path: str | None = None
    format: Format | None = None
    platform: str | None = None
    domain: str | None = None
    columns: Columns = Columns()
    header: bool | None = None
    names: tuple[str, ...] = ()
    delimiter: str | None = Field(default=None, min_length=1)
    quote: str | None = Field(default=None, max_length=1)
    encoding: str = "utf-8"
    skip_lines: int = Field(default=0, ge=0)
    rest: bool = False
    nulls: tuple[str, ...] = ("", "nan", "NaN", "null", "NULL", "None", "N/A", "n/a", "<NA>", "\\N")
    event: str | None = None
    events: Mapping[str, str] = {}
    values: Mapping[str, float] = {}
    scale: tuple[float, float] | None = None
    factor: float = 1.0
    time: Annotated[Time, BeforeValidator(_time_word)] | None = None
    since: date | None = None
    separator: str | None = Field(default=None, min_length=1)
    collect: bool = False
    relation: str | None = None
    files: Mapping[Literal["image", "audio"], str] = {}
    prefix: Prefix = Prefix()
    sequence: Sequence = Sequence()
    item_maps: tuple[IdMap, ...] = ()
    user_maps: tuple[IdMap, ...] = ()
    url: str | None = None
    query: str | None = None

    @field_validator("event")
    @classmethod
    def _known_event(cls, event: str | None) -> str | None:
        if event is not None and event not in EVENTS:
            raise ValueError(_no_event(event))
        return event

    @field_validator("events")
    @classmethod
    def _known_events(cls, events: Mapping[str, str]) -> Mapping[str, str]:
        for event in events.values():
            if event not in (*EVENTS, IGNORE):
                raise ValueError(_no_event(event))
        return events

    @field_validator("files")
    @classmethod
    def _templates(cls, files: Mapping[str, str]) -> Mapping[str, str]:
        for problem in map(check_template, files.values()):
            if problem:
                raise ValueError(problem)
        return files

    @field_validator("scale")
    @classmethod
    def _rising(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not scale[0] < scale[1]:
            raise ValueError(f"must rise, for example [1, 5], and is {list(scale)}")
        return scale

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        for check in (check_place, check_columns, check_labels):
            problem = check(self)
            if problem:
                raise ValueError(problem)
        return self

    @property
    def shape(self) -> str:
        """Format, told by the file's name where it is not given."""
        return self.format or ("sql" if self.url else _format_of(self.path or ""))

    @property
    def has_header(self) -> bool:
        """Whether the first line names the columns: told by ``header``, else a file whose names are given has none."""
        return not self.field_names if self.header is None else self.header

    @property
    def order_only(self) -> bool:
        """Whether the events have an order and no times."""
        return self.time.order_only if self.time is not None else "ts" not in self.mapping

    @property
    def field_names(self) -> tuple[str, ...]:
        """Column names of a file without header."""
        preset = {"rating": RATING_NAMES, "edgelist": EDGELIST_NAMES}.get(self.shape, ())
        return self.names or preset

    @property
    def mapping(self) -> dict[str, tuple[str, ...]]:
        """Canonical column -> columns of the file."""
        given = self.columns.mapped()
        preset = {
            "rating": {name: (name,) for name in self.field_names if name in RATING_NAMES},
            "edgelist": {"head": ("head",), "tail": ("tail",), "relation": ("@file",)},
            "sequence": {"user": ("user",), "item": ("item",)},
            "segments": {name: (name,) for name in SEGMENTS.get(self.kind, ())},
        }.get(self.shape, {})
        if self.shape == "sequence" and self.sequence.entry is not None:
            preset = {**preset, **{name: (name,) for name in self.sequence.entry.fields if name in RATING_NAMES}}
        if self.relation is not None:
            preset.pop("relation", None)
        return {**preset, **given}

    @property
    def label(self) -> str:
        """How messages name the source."""
        return self.path or self.query or self.kind


class Clean(Settings):
    """Cleaning rules, each with its switch and default."""

    duplicates: bool = True
    near_seconds: float = Field(default=2.0, ge=0)
    unknown_items: Literal["keep", "drop"] = "keep"
    not_taste: Literal["keep", "drop"] = "keep"
    burst_per_minute: int = Field(default=200, ge=0)
    bot_gap_bits: float = Field(default=0.5, ge=0)
    bot_min_events: int = Field(default=50, ge=3)
    future: bool = True
    now: datetime | None = None
    since: date | None = date(1990, 1, 1)
    markup: bool = True
    unicode: bool = True
    placeholders: bool = True
    placeholder_titles: tuple[str, ...] = ()
    items: Literal["all", "met"] = "all"
    max_cell: int = Field(default=1_000_000, ge=1)

    @field_validator("now")
    @classmethod
    def _has_zone(cls, now: datetime | None) -> datetime | None:
        if now is not None and now.tzinfo is None:
            raise ValueError("needs a time zone, for example 2024-01-01T00:00:00Z")
        return now


class Identity(Settings):
    """How accounts of several platforms become one person."""

    same_ids: tuple[tuple[str, ...], ...] = ()
    secret_env: str | None = None
    pseudonyms_env: str | None = None


class Spec(Settings):
    """A whole ``SPEC.toml``."""

    name: str = Field(min_length=1)
    max_reject_share: float = Field(default=0.2, ge=0, le=1)
    clean: Clean = Clean()
    identity: Identity = Identity()
    source: tuple[Source, ...]

    @field_validator("source")
    @classmethod
    def _some(cls, source: tuple[Source, ...]) -> tuple[Source, ...]:
        if not source:
            raise ValueError("a spec needs at least one [[source]]")
        return source


def read_spec(path: Path) -> Spec:
    """Return the spec in a TOML file.

    Raises
    ------
    SpecError
        No such file, not TOML, an unknown key (the nearest known one is suggested), a wrong or missing value.
    """
    return parse(Spec, read_toml(path), where=path)


def _no_event(event: str) -> str:
    return (
        f"no event '{event}'{nearest(event, list(EVENTS))}; events are {', '.join(EVENTS)} (or {IGNORE} in a mapping)"
    )


def _format_of(path: str) -> str:
    stem = re.sub(r"\.(gz|bz2|xz)$", "", path.lower())
    suffix = stem.rsplit(".", 1)[-1]
    return {"jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "parquet": "parquet", "edgelist": "edgelist"}.get(
        suffix, "csv"
    )
