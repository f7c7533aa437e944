"""Large batches of events: written many in a statement, told apart as if one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from httpx import AsyncClient
from tests.small_service import event, served

from isthmus.service.core import Service
from isthmus.service.log.records import Entry, Record
from isthmus.service.log.sqlite import ROWS, SqliteLog


def entry(number: int) -> Entry:
    return Entry(f"e{number}", "event", "shop", "u\x00'; --", f"i{number}", "view", 0.1 * number, number, "{}")


def read(log: SqliteLog) -> list[Record]:
    return [record for some in log.read(size=77) for record in some]


def test_large_batches_are_numbered_in_order_and_read_back_exactly(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    sizes = [1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 7, 1000]
    batches, first = [], 0
    for size in sizes:
        batches.append([entry(first + n) for n in range(size)])
        first += size
    receipts = [log.put(batch) for batch in batches]
    every = [record for receipt in receipts for record in receipt.records]
    assert [record.seq for record in every] == list(range(1, first + 1))
    assert [record.entry for record in every] == [entry(n) for n in range(first)]
    assert read(log) == every
    assert log.seq == first
    log.close()


def test_a_large_batch_names_what_was_known(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log.sqlite")
    first = log.put([entry(n) for n in range(2 * ROWS)])
    other = replace(entry(3), item="another")
    batch = [*(entry(n) for n in range(2 * ROWS - 1, 4 * ROWS)), other, entry(5000), entry(5000)]
    receipt = log.put(batch)
    assert receipt.duplicates == (f"e{2 * ROWS - 1}", "e3", "e5000")
    assert receipt.conflicts == ("e3",)
    assert [record.entry.id for record in receipt.records] == [*(f"e{n}" for n in range(2 * ROWS, 4 * ROWS)), "e5000"]
    later = log.put([entry(n) for n in range(9000, 9000 + ROWS)])
    assert read(log) == [*first.records, *receipt.records, *later.records]
    log.close()


def test_events_without_a_time_happened_in_the_order_they_were_sent_in(tmp_path: Path) -> None:
    async def test(client: AsyncClient, service: Service) -> None:
        new = {"platform": "north", "user": "new"}
        sent = [event(n, new) for n in (7, 3, 9, 1, 8, 2, 6, 5)]
        await client.post("/v1/events", json={"events": sent})
        live = service.tenant().live
        history = live.state.batch([live.state.person(**new)])
        assert [live.shelf.ids[row] for row in history.items] == [one["item"] for one in sent]
        told = (await client.get("/v1/persons/north:new")).json()["events"]
        assert [one["item"] for one in told] == [one["item"] for one in sent]

    served(tmp_path, test)
