"""Raw columns of any type → canonical text, numbers and times, as Polars expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from isthmus.data.sources.base import FILE, LINE
from isthmus.data.spec import UNIX, Source, Time
from isthmus.errors import DataError, nearest

_OFFSET = r"[ T]\d{2}:?\d{2}.*(?:Z|[+-]\d{2}:?\d{2})$"
_NAIVE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")


def check_columns(frame: pl.DataFrame, mapping: Mapping[str, Sequence[str]], where: object) -> None:
    """Raise :class:`DataError` with the nearest known name for a mapped column that ``frame`` lacks."""
    known = [name for name in frame.columns if name not in (LINE, FILE)]
    for column, names in mapping.items():
        for name in names:
            if name not in frame.columns:
                raise DataError(
                    f"no column '{name}'{nearest(name, known)} (mapped to {column})",
                    where=where,
                    fix=f"its columns are {', '.join(known)}",
                )


def words(frame: pl.DataFrame, name: str) -> pl.Expr:
    """Return column ``name`` as text: whole floats lose their ``.0``, NaN becomes null, lists become JSON text."""
    kind, column = frame.schema[name], pl.col(name)
    if kind == pl.String:
        return column
    if kind.is_float():
        whole = column.cast(pl.Int64, strict=False)
        text = pl.when(column == whole).then(whole.cast(pl.String)).otherwise(column.cast(pl.String))
        return pl.when(column.is_nan()).then(None).otherwise(text)
    if isinstance(kind, pl.List | pl.Array):
        inside = pl.struct(column.alias("v")).struct.json_encode()
        return pl.when(column.is_not_null()).then(inside.str.slice(5).str.head(-1))
    if isinstance(kind, pl.Struct):
        return column.struct.json_encode()
    return column.cast(pl.String)


def joined(frame: pl.DataFrame, names: Sequence[str], separator: str = " ") -> pl.Expr:
    """Return one or several columns as one text; null where all are null."""
    if len(names) == 1:
        return words(frame, names[0])
    parts = [words(frame, name) for name in names]
    return pl.when(pl.any_horizontal([part.is_not_null() for part in parts])).then(
        pl.concat_str(parts, separator=separator, ignore_nulls=True)
    )


def filled(text: pl.Expr, nulls: Sequence[str]) -> pl.Expr:
    """Return ``text`` without outer white space, null where it is one of the words for "nothing"."""
    bare = text.str.strip_chars()
    return pl.when(~bare.is_in(list(nulls))).then(bare)


def number(frame: pl.DataFrame, names: Sequence[str], source: Source) -> pl.Series:
    """Return the value column as finite floats, null where there is none."""
    if source.values:
        words = filled(joined(frame, names), source.nulls)
        plain = words.replace_strict(dict(source.values), default=None, return_dtype=pl.Float64)
        return _finite(frame.select(plain.alias("value"))["value"])
    return _floats(frame, names, source.nulls)


def _floats(frame: pl.DataFrame, names: Sequence[str], nulls: Sequence[str]) -> pl.Series:
    if len(names) == 1:
        column = frame[names[0]]
        simple = column.dtype == pl.String or column.dtype.is_numeric() or column.dtype == pl.Boolean
        plain = column.cast(pl.Float64, strict=False) if simple else None
        if plain is not None and (column.dtype != pl.String or plain.null_count() == 0):
            return _finite(plain)
    text = filled(joined(frame, names), nulls).cast(pl.Float64, strict=False)
    return _finite(frame.select(text.alias("value"))["value"])


def _finite(values: pl.Series) -> pl.Series:
    finite = values.is_finite().fill_null(False)
    return (
        values if finite.all() else values.zip_with(finite, pl.repeat(None, len(values), dtype=pl.Float64, eager=True))
    )


def instants(frame: pl.DataFrame, names: Sequence[str], source: Source, where: object) -> pl.Series:
    """Return times as microseconds since 1970 UTC (int64), null where a time is missing or not readable.

    Raises
    ------
    DataError
        Times without a zone where the spec declares none.
    """
    time = source.time or Time()
    if time.format in UNIX and not frame.schema[names[0]].is_temporal():
        scaled = _floats(frame, names, source.nulls) * UNIX[time.format]
        return scaled.round().cast(pl.Int64, strict=False)
    return frame.select(_moments(frame, names, source, where).alias("ts"))["ts"]


def _moments(frame: pl.DataFrame, names: Sequence[str], source: Source, where: object) -> pl.Expr:
    time = source.time or Time()
    kind = frame.schema[names[0]]
    if len(names) == 1 and (kind.is_temporal() and not isinstance(kind, pl.Duration | pl.Time)):
        return _typed(pl.col(names[0]), kind, time, where)
    text = filled(joined(frame, names), source.nulls)
    if time.format == "iso":
        return _iso(frame, text, time, where)
    return _micros(text.str.to_datetime(time.format, strict=False, time_unit="us"), time, "%z" in time.format)


def _typed(column: pl.Expr, kind: pl.DataType, time: Time, where: object) -> pl.Expr:
    aware = isinstance(kind, pl.Datetime) and kind.time_zone is not None
    if not aware and time.zone is None:
        raise _zoneless(where)
    return _micros(
        column.cast(pl.Datetime("us", kind.time_zone if isinstance(kind, pl.Datetime) else None)), time, aware
    )


def _iso(frame: pl.DataFrame, text: pl.Expr, time: Time, where: object) -> pl.Expr:
    has_offset = text.str.contains(_OFFSET)
    if time.zone is None and frame.select((~has_offset & text.str.contains(r"^\d{4}-\d\d")).any()).item():
        raise _zoneless(where)
    shaped = text.str.replace(" ", "T", literal=True)
    aware = pl.when(has_offset).then(shaped).str.to_datetime("%+", strict=False, time_unit="us")
    full = pl.when(shaped.str.len_bytes() == 10).then(shaped + "T00:00").otherwise(shaped)
    naive = pl.coalesce([full.str.to_datetime(form, strict=False, time_unit="us") for form in _NAIVE])
    return pl.coalesce(_micros(aware, time, True), pl.when(~has_offset).then(_micros(naive, time, False)))


def _micros(moment: pl.Expr, time: Time, aware: bool) -> pl.Expr:
    if not aware:
        moment = moment.dt.replace_time_zone(time.zone or "UTC", ambiguous="earliest", non_existent="null")
    return moment.dt.epoch("us")


def _zoneless(where: object) -> DataError:
    return DataError("times carry no time zone", where=where, fix='declare one: time = { …, zone = "UTC" }')
