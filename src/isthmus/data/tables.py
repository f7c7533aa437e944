"""The canonical tables: columns, types, order, and the check every table passes before it is stored."""

from __future__ import annotations

from typing import Final

import polars as pl

from isthmus.errors import DataError

TS: Final = pl.Datetime("us", "UTC")

#: Table name -> column -> type. A missing optional column is filled with nulls.
SCHEMAS: Final[dict[str, dict[str, pl.DataType]]] = {
    "events": {
        "platform": pl.String(),
        "user": pl.String(),
        "item": pl.String(),
        "event": pl.String(),
        "value": pl.Float64(),
        "ts": TS,
    },
    "items": {
        "platform": pl.String(),
        "item": pl.String(),
        "domain": pl.String(),
        "title": pl.String(),
        "text": pl.String(),
        "categories": pl.List(pl.String()),
        "attributes": pl.String(),
        "image": pl.String(),
        "audio": pl.String(),
        "lang": pl.String(),
        "available_from": TS,
        "available_until": TS,
    },
    "users": {"platform": pl.String(), "user": pl.String(), "attributes": pl.String()},
    "identities": {"platform": pl.String(), "user": pl.String(), "person": pl.String()},
    "edges": {"head": pl.String(), "relation": pl.String(), "tail": pl.String()},
    "links": {"platform": pl.String(), "item": pl.String(), "entity": pl.String()},
    "rules": {"rule": pl.String(), "head": pl.String(), "tail": pl.String(), "weight": pl.Float64()},
}

#: Tables that a corpus folder has a file of only where they have a row.
OPTIONAL: Final = ("rules",)

#: Columns that may not be null.
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "events": ("platform", "user", "item", "event", "ts"),
    "items": ("platform", "item", "domain"),
    "users": ("platform", "user"),
    "identities": ("platform", "user", "person"),
    "edges": ("head", "relation", "tail"),
    "links": ("platform", "item", "entity"),
    "rules": ("rule", "head", "tail"),
}

#: Key columns: unique where the table has one row a key, and the order rows are stored in.
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "events": ("platform", "user", "ts"),
    "items": ("platform", "item"),
    "users": ("platform", "user"),
    "identities": ("platform", "user"),
    "edges": ("head", "relation", "tail"),
    "links": ("platform", "item", "entity"),
    "rules": ("rule", "head", "tail"),
}


def empty(table: str) -> pl.DataFrame:
    """Return ``table`` with no rows."""
    return pl.DataFrame(schema=SCHEMAS[table])


def conform(table: str, frame: pl.DataFrame, *, where: object = "") -> pl.DataFrame:
    """Return ``frame`` with exactly the canonical columns and types of ``table``, sorted by its key (stable).

    Raises
    ------
    DataError
        A required column is missing or holds nulls, a type does not fit, or a unique key repeats.
    """
    schema, place = SCHEMAS[table], where or table
    missing = [column for column in REQUIRED[table] if column not in frame.columns]
    if missing:
        raise DataError(f"table {table} lacks column(s) {', '.join(missing)}", where=place)
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    ]
    try:
        shaped = frame.select(columns)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise DataError(f"table {table} has a column of the wrong type: {error}", where=place) from error
    for column in REQUIRED[table]:
        nulls = shaped[column].null_count()
        if nulls:
            raise DataError(f"column '{column}' of {table} has {nulls} empty value(s)", where=place)
    key = list(KEYS[table])
    if table != "events" and shaped.select(key).is_duplicated().any():
        raise DataError(f"table {table} repeats a key ({', '.join(key)})", where=place)
    return shaped.sort(key, maintain_order=True)
