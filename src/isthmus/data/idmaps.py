"""Id maps: files that turn the ids of a source (line numbers, indices) into the ids other files use."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from isthmus.data.ingest_columns import check_columns
from isthmus.data.sources.delimited import read_delimited
from isthmus.data.sources.readers import files_of
from isthmus.data.spec import IdMap, Source
from isthmus.errors import DataError


class IdMaps:
    """The user and item maps of one source.

    A map with neither ``platform`` nor ``domain`` leaves those of the source as they are.
    """

    def __init__(self, items: pl.DataFrame | None = None, users: pl.DataFrame | None = None) -> None:
        self._items = items
        self._users = users

    @classmethod
    def of(cls, source: Source, spec_path: Path) -> IdMaps:
        """Read the maps that ``source`` declares."""
        return cls(_table(source.item_maps, spec_path), _table(source.user_maps, spec_path))

    def table(self, column: str, words: pl.Series) -> pl.DataFrame:
        """Return what each distinct user or item word becomes.

        Parameters
        ----------
        column : str
            ``user`` or ``item``.
        words : polars.Series
            Distinct ids as the source has them.

        Returns
        -------
        polars.DataFrame
            id (null: no map knows the word), platform, domain (null: those of the source); rows as ``words``.
        """
        maps = self._users if column == "user" else self._items
        if maps is None:
            none = pl.lit(None, dtype=pl.String)
            return pl.DataFrame({"id": words}).with_columns(none.alias("platform"), none.alias("domain"))
        return (
            pl.DataFrame({"word": words})
            .join(maps, on="word", how="left", maintain_order="left")
            .select("id", "platform", "domain")
        )

    def apply(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return ``rows`` (platform, user, item, domain) with mapped ids, and ``unmapped`` where a map has none."""
        rows = rows.with_columns(pl.lit(False).alias("unmapped"))
        for column, maps in (("item", self._items), ("user", self._users)):
            if maps is None:
                continue
            table = self.table(column, rows[column])
            rows = rows.with_columns(
                pl.col("unmapped") | (table["id"].is_null() & rows[column].is_not_null()),
                table["id"].alias(column),
                table["platform"].fill_null(rows["platform"]),
                table["domain"].fill_null(rows["domain"]),
            )
        return rows


def _table(maps: tuple[IdMap, ...], spec_path: Path) -> pl.DataFrame | None:
    if not maps:
        return None
    table = pl.concat([_read(part, spec_path) for part in maps])
    double = table.filter(table["word"].is_duplicated())["word"]
    if len(double):
        raise DataError(f"the id '{double[0]}' stands twice", where=maps[0].path, fix="set offset, or remove one")
    return table


def _read(part: IdMap, spec_path: Path) -> pl.DataFrame:
    source = Source(
        kind="links",
        path=part.path,
        format="csv",
        platform="map",
        names=part.names,
        delimiter=part.delimiter,
        encoding=part.encoding,
        columns={"item": part.key, "entity": part.value},  # type: ignore[arg-type]
    )
    frames = []
    for path in files_of(part.path, spec_path):
        for batch in read_delimited(path, source, path.name):
            check_columns(batch.frame, source.mapping, path)
            frames.append(batch.frame)
    key = pl.col(part.key).str.strip_chars()
    if part.offset:
        key = (key.cast(pl.Int64, strict=False) + part.offset).cast(pl.String)
    return pl.concat(frames).select(
        key.alias("word"),
        pl.col(part.value).str.strip_chars().alias("id"),
        pl.lit(part.platform, dtype=pl.String).alias("platform"),
        pl.lit(part.domain, dtype=pl.String).alias("domain"),
    )
