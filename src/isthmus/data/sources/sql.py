"""SQL sources: a SQLAlchemy URL and a query, read in batches through the server's cursor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from isthmus.config import expand
from isthmus.data.sources.base import LINE, Batch
from isthmus.data.spec import Source
from isthmus.errors import DataError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ROWS = 50_000


def read_sql(source: Source, *, where: object) -> Iterator[Batch]:
    """Yield the rows of the source's query with the types the database gives.

    Raises
    ------
    DataError
        SQLAlchemy or a driver is missing, the URL is no URL, the connection or the query fails. Passwords are
        never shown.
    """
    try:
        import sqlalchemy as sa
    except ImportError:
        raise DataError("SQL sources need SQLAlchemy", where=where, fix="pip install 'isthmus[sql]'") from None
    url = expand(source.url or "", where=where)
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)  # a closed connection is gone, also after an error
        with engine.connect() as connection:
            yield from _rows(connection, source.query or "", source.label)
    except sa.exc.ArgumentError:
        raise DataError("url is not a SQLAlchemy URL", where=where, fix="for example sqlite:///shop.db") from None
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        raise DataError(
            f"the query failed: {str(cause).splitlines()[0]}",
            where=source.label,
            fix="try it in the database's console",
        ) from None


def _rows(connection: Connection, query: str, label: str) -> Iterator[Batch]:
    import sqlalchemy as sa

    result = connection.execution_options(stream_results=True, max_row_buffer=_ROWS).execute(sa.text(query))
    names = list(result.keys())
    first = 1
    for part in result.partitions(_ROWS):
        columns = zip(*part, strict=True)
        frame = pl.DataFrame(
            {name: pl.Series(values, strict=False) for name, values in zip(names, columns, strict=True)}
        )
        yield Batch(label, frame.with_columns(pl.int_range(first, first + pl.len()).alias(LINE)))
        first += frame.height
