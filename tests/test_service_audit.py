"""No change without an entry in the audit log, whenever it cannot be written; and a log that is read page by page."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import apsw
import httpx
import pytest
from tests.small_service import event, served
from tests.test_service_privacy import path
from tests.test_service_wiping import holding

from isthmus.service.core import Service
from isthmus.service.lock.vault import Vault

LEAVING = {"platform": "north", "user": "leaving"}


def writing(folder: Path) -> apsw.Connection:
    """Write into the file of the audit log, so that nobody else can."""
    db = apsw.Connection(str(folder / "system.db"))
    db.set_busy_timeout(5000)
    db.execute("BEGIN IMMEDIATE")
    return db


def hurry(service: Service) -> None:
    """Let the audit log wait a tenth of a second only for its file."""
    with service.vault._booking:
        service.vault._book.set_busy_timeout(100)


def actions(service: Service) -> list[object]:
    return [one["action"] for one in service.vault.audit()]


def test_what_cannot_be_noted_is_not_done(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        await client.post("/v1/events", json={"events": [event(1, LEAVING)]})
        hurry(service)
        db = writing(tmp_path)
        for method, where in (
            ("DELETE", path("persons", LEAVING)),
            ("GET", path("persons", LEAVING)),
            ("POST", "/v1/models/second/activate"),
        ):
            assert (await client.request(method, where)).status_code == 503, where
        db.close()
        assert actions(service) == []
        assert service.tenant().live.version.name == "first"
        assert len((await client.get(path("persons", LEAVING))).json()["events"]) == 1
        assert (await client.post("/v1/models/second/activate")).status_code == 200
        assert (await client.post("/v1/models/nowhere/activate")).status_code == 404
        assert (await client.delete(path("persons", {**LEAVING, "user": "nobody"}))).status_code == 404
        assert actions(service) == ["person exported", "model activated: begun", "model activated"]

    served(tmp_path, test)


def test_a_receipt_is_given_and_noted_later_when_the_log_is_busy_meanwhile(tmp_path: Path) -> None:
    """The entry of what is begun stands; the one with the receipt follows, once, as soon as it can be written."""

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        await client.post("/v1/events", json={"events": [event(1, LEAVING)]})
        log = service.tenant().log
        before, held = log.seq, []

        def meanwhile() -> None:
            while log.seq == before:
                time.sleep(0.001)
            held.append(writing(tmp_path))

        hurry(service)
        end = holding(tmp_path / "default.db")  # a reader: the erasure takes a second
        thread = threading.Thread(target=meanwhile)
        thread.start()
        answer = await client.delete(path("persons", LEAVING))
        thread.join()
        end()
        assert (answer.status_code, answer.json()["events"]) == (200, 1)
        assert actions(service) == ["person erased: begun"]
        held[0].close()
        until = time.monotonic() + 10
        while len(actions(service)) < 2 and time.monotonic() < until:
            await asyncio.sleep(0.05)
        told = service.vault.audit()
        assert [one["action"] for one in told] == ["person erased: begun", "person erased"]
        begun, done = (one["said"] for one in told)
        assert done == {**begun, "receipt": answer.json()["receipt"]}

    served(tmp_path, test)


def test_what_fails_says_so(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, service: Service) -> None:
        assert (await client.post("/v1/models/rollback")).status_code == 409
        assert actions(service) == ["model rolled back: begun", "model rolled back: failed"]

    served(tmp_path, test)


def test_no_key_comes_or_goes_without_its_entry(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    key, _ = vault.create(tenant="default", scopes=["events"])
    refuse = "CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END"
    vault._db.execute(refuse)
    with pytest.raises(apsw.Error):
        vault.create(tenant="default", scopes=["models"])
    with pytest.raises(apsw.Error):
        vault.revoke(key.prefix)
    assert [(one.prefix, one.revoked) for one in vault.known()] == [(key.prefix, None)]
    vault._db.execute("DROP TRIGGER no")
    vault.revoke(key.prefix)
    assert [one["action"] for one in vault.audit()] == ["key created", "key revoked"]
    vault.close()


def test_the_log_is_read_page_by_page_and_gone_through_once(tmp_path: Path) -> None:
    """Asked again only what is new is gone through; an old change is found when all is asked for, or shown."""

    async def test(client: httpx.AsyncClient, service: Service) -> None:
        for number in range(25):
            await service.note("default" if number % 5 else "other", "me", "tried", {"number": number})
        numbers, before = [], None
        while True:
            asked = {"limit": 6} if before is None else {"limit": 6, "before": before}
            said = (await client.get("/v1/audit", params=asked)).json()
            assert (said["intact"], said["entries"]) == (True, 20)
            numbers += [one["said"]["number"] for one in said["newest"]]
            before = said["before"]
            if before is None:
                break
        assert numbers == [number for number in reversed(range(25)) if number % 5]
        service.vault._db.execute("UPDATE audit SET actor = 'you' WHERE number = 2")
        last = {"limit": 6}
        assert (await client.get("/v1/audit", params=last)).json()["intact"], "not gone through again"
        assert not (await client.get("/v1/audit", params={"limit": 6, "before": 5})).json()["intact"], "shown"
        said = (await client.get("/v1/audit", params={**last, "verify": True})).json()
        assert (said["intact"], said["whole"]) == (False, True)
        assert "entry 2" in said["problem"]
        service.patrol.look()
        assert not (await client.get("/v1/audit", params=last)).json()["intact"], "the patrol has found it"

    served(tmp_path, test)


@pytest.mark.parametrize(
    "change", ["DELETE FROM audit WHERE number = 3", "UPDATE audit SET said = 'x' WHERE number = 4"]
)
def test_what_is_new_is_gone_through_every_time(tmp_path: Path, change: str) -> None:
    from isthmus.errors import InputError

    vault = Vault(tmp_path)
    for number in range(3):
        vault.note("default", "me", "tried", {"number": number})
    assert vault.verify(whole=False) == {"default": 3}
    vault.note("default", "me", "tried", {"number": 3})
    vault._db.execute(change)
    with pytest.raises(InputError, match="audit log"):
        vault.verify(whole=False)
    vault.close()
