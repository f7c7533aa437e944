"""Waiting events → the sorted events table: cleaned a partition at a time, appended to one Parquet file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from isthmus.data.clean import Clocks, clean_events
from isthmus.data.ingest_events import EventIngest
from isthmus.data.ingest_store import AccountIndex
from isthmus.data.pseudonyms import Pseudonyms
from isthmus.data.sources.base import LINE
from isthmus.data.tables import empty
from isthmus.types import EVENTS, Bools, Ints

if TYPE_CHECKING:
    import pyarrow as pa

_KEPT = ["account", "item", "event", "value", "ts"]


@dataclass(frozen=True)
class Written:
    """What came out: how many events, and the accounts (platform, user) that still have one."""

    rows: int
    accounts: pl.DataFrame


class EventWriter:
    """Turns what an :class:`EventIngest` holds into ``events.parquet``.

    Parameters
    ----------
    ingest : EventIngest
        All sources read.
    known : polars.DataFrame
        platform, item of the items table; events on others are dropped if the spec says so.
    pseudonyms : Pseudonyms, optional
        What users are called in the table, if not by their own names.
    """

    def __init__(self, ingest: EventIngest, known: pl.DataFrame, pseudonyms: Pseudonyms | None = None) -> None:
        self.ingest = ingest
        self.platforms = ingest.words.platforms.all()
        self.users = ingest.words.users.all()
        self.items = ingest.words.items.all()
        self._sorted_items = self.items.sort()
        self._item_rank = self.items.rank("ordinal").to_numpy().astype(np.int64) - 1
        self.accounts = _accounts(ingest, self.platforms, self.users, pseudonyms)
        self._known = _lookup(known, self.platforms, self.items) if ingest.spec.clean.unknown_items == "drop" else None

    def write(self, path: Path) -> Written:
        """Clean, sort and write all events; what a rule takes goes to the rejects."""
        import pyarrow.parquet as pq

        index = AccountIndex(self.accounts)
        alive = np.zeros(self.accounts.height, dtype=bool)
        writer, total = None, 0
        for rows in self.ingest.store.partitions(index):
            kept = self._clean(rows)
            if kept.is_empty():
                continue
            alive[kept["account"].to_numpy()] = True
            table = self._table(kept)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False)
            writer.write_table(table)
            total += kept.height
        if writer is None:
            empty("events").write_parquet(path)
        else:
            writer.close()
        return Written(total, self.accounts.filter(pl.Series(alive)).select("platform", "user"))

    def _clean(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._known is not None:
            known = pl.Series(self._known[rows["platform"].to_numpy(), rows["item"].to_numpy()])
            self._reject(rows.filter(~known).with_columns(pl.lit("unknown_items").alias("rule")))
            rows = rows.filter(known)
        kept, gone = clean_events(rows, self.ingest.spec.clean, self._clocks())
        self._reject(gone)
        return kept.select(_KEPT)

    def _clocks(self) -> Clocks:
        codes = np.arange(len(self.platforms))
        order = np.isin(codes, sorted(self.ingest.order_platforms - self.ingest.timed_platforms))
        return Clocks(fine=np.isin(codes, sorted(self.ingest.fine_platforms)) & ~order, order=order)

    def _reject(self, rows: pl.DataFrame) -> None:
        for (source,), group in rows.partition_by("source", as_dict=True, maintain_order=True).items():
            words = group.select(
                pl.col("line").alias(LINE),
                pl.col("rule").alias("reason"),
                platform=self.platforms.gather(group["platform"]),
                user=self.users.gather(group["user"]),
                item=self.items.gather(group["item"]),
                event=pl.Series(EVENTS).gather(group["event"]),
                value="value",
                ts=pl.from_epoch("ts", time_unit="us"),
            )
            raw = pl.struct("platform", "user", "item", "event", "value", "ts").struct.json_encode().alias("raw")
            self.ingest.rejects.add(
                self.ingest.labels[int(str(source))], words.select(LINE, "reason", raw), cleaned=True
            )

    def _table(self, rows: pl.DataFrame) -> pa.Table:
        import pyarrow as pa

        account = rows["account"].to_numpy().astype(np.int64)
        low, high = int(account[0]), int(account[-1]) + 1
        some = self.accounts[low:high]
        names = some["platform"].unique(maintain_order=True)
        places = some["platform"].cast(pl.Enum(names)).to_physical().to_numpy()
        items, item = _used(self._item_rank[rows["item"].to_numpy()], len(self.items))
        columns = {
            "platform": _words(names, places[account - low]),
            "user": _words(some["name"], account - low),
            "item": _words(self._sorted_items.gather(items), item),
            "event": _words(pl.Series(EVENTS), rows["event"].to_numpy()),
            "value": rows["value"].to_arrow(),
            "ts": pa.array(rows["ts"].to_numpy(), type=pa.timestamp("us", tz="UTC")),
        }
        return pa.table(columns)


def _words(words: pl.Series, codes: np.ndarray[tuple[int], np.dtype[np.integer]]) -> pa.DictionaryArray:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), words.to_arrow().cast(pa.string()))


def _used(codes: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the codes that occur, rising, and each row's place among them."""
    used = np.zeros(size, dtype=bool)
    used[codes] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[codes]


def _accounts(
    ingest: EventIngest, platforms: pl.Series, users: pl.Series, pseudonyms: Pseudonyms | None
) -> pl.DataFrame:
    """Return platform, user, name, platform_code, user_code and rows of all accounts, as the table has them."""
    codes = ingest.accounts.total()
    accounts = codes.select(
        platform=platforms.gather(codes["platform"]),
        user=users.gather(codes["user"]),
        platform_code="platform",
        user_code="user",
        rows="rows",
    )
    names = accounts["user"] if pseudonyms is None else pseudonyms.users(accounts)
    return accounts.with_columns(names.alias("name")).sort("platform", "name")


def _lookup(known: pl.DataFrame, platforms: pl.Series, items: pl.Series) -> Bools:
    """Return a table (platform code, item code) of what is known."""
    table = np.zeros((len(platforms), len(items)), dtype=bool)
    codes = (
        known.join(pl.DataFrame({"platform": platforms}).with_row_index("p"), on="platform")
        .join(pl.DataFrame({"item": items}).with_row_index("i"), on="item")
        .select("p", "i")
    )
    table[codes["p"].to_numpy(), codes["i"].to_numpy()] = True
    return table
