"""What is erased while somebody holds the files open: the receipt says so, and the bytes go when they can."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import httpx
import pytest
from tests.small_postgres import Postgres, postgres
from tests.small_service import event, served, started
from tests.test_service_log import Store, erasure
from tests.test_service_privacy import found, path

from isthmus.service.core import Service
from isthmus.service.log.records import Entry

NAME = "leaving-by-the-back-door"
LEAVING = {"platform": "north", "user": NAME}
#: Seconds within which the bytes are gone once nobody reads any more.
SOON = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as one:
        yield one


@pytest.fixture(params=["sqlite", "postgresql, the table is read", "postgresql, something else is read"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return Store(tmp_path, None)
    return Store(tmp_path, request.getfixturevalue("server"))


def reader(store: Store, what: str) -> Callable[[], None]:
    """Hold the store open as a backup does; return what ends it."""
    if store.server is None:
        return holding(store.folder / f"{store.name}.db")
    import psycopg

    db = psycopg.connect(store.server.url)
    db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    table = f"isthmus_{store.name}.records" if "the table" in what else "pg_class"
    assert db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return db.close


def holding(file: Path) -> Callable[[], None]:
    db = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM records").fetchall()
    return db.close


def held(store: Store) -> bool:
    return any(NAME.encode() in one.read_bytes() for one in store.files())


def gone(look: Callable[[], bool]) -> float:
    """Return the seconds until nothing is found any more."""
    began = time.monotonic()
    while look():
        assert time.monotonic() < began + SOON, "the bytes are still there"
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.parametrize("again", [False, True], ids=["goes on", "starts again"])
def test_what_readers_hold_is_wiped_when_they_let_go(store: Store, request: pytest.FixtureRequest, again: bool) -> None:
    """The log, on either store: readers of the table, and whoever only began before the erasure."""
    log = store.open()
    log.put([Entry(f"e{k}", "event", "shop", NAME if k % 9 == 0 else "stays", "i", "view", ts=k) for k in range(900)])
    end = reader(store, request.node.callspec.params["store"])
    receipt = log.put([erasure(NAME)])
    assert (receipt.erased, receipt.wiped, log.unwiped) == (100, False, 1)
    assert held(store), "the search finds what is there"
    log.put([Entry("later", "event", "shop", "stays", "i", "view", ts=901)])
    if again:
        log.close()
        log = store.open()
        assert log.unwiped == 1
    time.sleep(1.2)
    assert held(store), "tried again, and still held"
    end()
    print(f"gone {gone(lambda: held(store)):.2f} s after the reader")
    gone(lambda: log.unwiped > 0)
    assert len(log.of([("shop", "stays")])) == 801
    log.put([Entry("x", "event", "shop", NAME, "i", "view")])
    assert log.put([erasure(NAME)]).wiped
    assert not held(store)
    log.close()


def test_a_receipt_says_whether_the_bytes_are_gone_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with started(data) as (process, url), httpx.Client(base_url=url, timeout=30) as client:
        for time_of in range(2):
            client.post("/v1/events", json={"events": [event(k, LEAVING) for k in range(20)]})
            end = holding(data / "default.db")
            receipt = client.delete(path("persons", LEAVING)).json()
            assert (receipt["events"], receipt["wiped"]) == (20, False)
            assert 'isthmus_log_unwiped_erasures{tenant="default"} 1.0' in client.get("/metrics").text
            assert client.get(path("persons", LEAVING)).status_code == 404
            assert found(data, [NAME])
            if time_of == 0:
                end()
                gone(lambda: found(data, [NAME]) > 0)
        process.kill()
        process.wait()
    end()
    assert found(data, [NAME]), "what was killed left it there"
    with started(data) as (process, url):
        print(f"gone {gone(lambda: found(data, [NAME]) > 0):.2f} s after the start")
        figure = 'isthmus_log_unwiped_erasures{tenant="default"} 1.0'
        gone(lambda: figure in httpx.get(f"{url}/metrics", timeout=30).text)
    with closing(apsw.Connection(str(data / "default.db"))) as db:
        assert not db.execute("SELECT * FROM meta WHERE name = 'unwiped'").fetchall()


def test_segments_that_cannot_be_written_are_said_and_cleaned_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receipt is given: the log has forgotten the person, and what is left is told."""
    monkeypatch.setattr("isthmus.service.log.upkeep.AGAIN", 0.2)

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        import asyncio

        await client.post("/v1/events", json={"events": [event(k, LEAVING) for k in range(20)]})
        segments = service.tenant().upkeep.segments
        segments.seal(service.tenant().log)
        manifest = segments.folder / "segments.json"
        kept = manifest.read_bytes()
        manifest.write_bytes(b"{")
        receipt = (await client.delete(path("persons", LEAVING))).json()
        assert (receipt["events"], receipt["sealed"], receipt["wiped"]) == (20, 0, False)
        manifest.write_bytes(kept)
        began = time.monotonic()
        while found(tmp_path, [NAME]) and time.monotonic() < began + SOON:
            await asyncio.sleep(0.05)
        assert not found(tmp_path, [NAME])

    served(tmp_path, test)
