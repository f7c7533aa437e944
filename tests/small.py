"""Corpora small enough to reason about: each event is (platform, user, item, day); a user is one person everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from isthmus.data.corpus import Corpus

START = datetime(2024, 1, 1, tzinfo=UTC)
DOMAINS = {"shop": "books", "cinema": "films", "radio": "music"}

Event = tuple[str, str, str, float]


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def events(log: Iterable[Event], event: str = "view") -> pl.DataFrame:
    rows = [(platform, user, item, event, None, day(when)) for platform, user, item, when in log]
    schema = {
        "platform": pl.String, "user": pl.String, "item": pl.String, "event": pl.String,
        "value": pl.Float64, "ts": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def items(
    keys: Iterable[tuple[str, str]], titles: Mapping[str, str | None], attributes: Mapping[str, str]
) -> pl.DataFrame:
    rows = [
        (platform, item, DOMAINS[platform], titles.get(item, f"title of {item[:1]}"), attributes.get(item))
        for platform, item in sorted(set(keys))
    ]
    names = ("platform", "item", "domain", "title", "attributes")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def corpus(
    log: Sequence[Event],
    *,
    titles: Mapping[str, str | None] | None = None,
    attributes: Mapping[str, str] | None = None,
    users: Mapping[str, str] | None = None,
    more: Sequence[tuple[str, str]] = (),
    order: Sequence[str] = (),
) -> Corpus:
    """``more``: items without events; ``users``: attributes of each user; ``order``: platforms without dates."""
    accounts = sorted({(platform, user) for platform, user, _, _ in log})
    identities = pl.DataFrame(
        [(platform, user, user) for platform, user in accounts],
        schema=dict.fromkeys(("platform", "user", "person"), pl.String),
        orient="row",
    )
    tables = {
        "events": events(log),
        "items": items([*((row[0], row[2]) for row in log), *more], titles or {}, attributes or {}),
        "identities": identities,
        "users": identities.select(
            "platform",
            "user",
            attributes=pl.col("user").replace_strict(users or {}, default=None, return_dtype=pl.String),
        ),
    }
    notes = {"time": dict.fromkeys(order, "order")} if order else {}
    return Corpus.from_tables(tables, name="small", notes=notes)
