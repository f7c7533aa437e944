"""The service over PostgreSQL: started, killed with its database, refused where it cannot be."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest
from tests.servers import Proxy, proxied
from tests.small_postgres import postgres
from tests.small_service import account, event, item, started
from tests.test_cli import isthmus

from isthmus.client import Client, Event, ServiceError


def _status(url: str, path: str = "/readyz") -> int:
    return httpx.get(url + path, timeout=5).status_code


def _until(condition: object, seconds: float) -> float:
    began = time.monotonic()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < began + seconds
        time.sleep(0.02)
    return time.monotonic() - began


READS: dict[str, dict[str, object]] = {
    "/v1/recommend": {"persons": [account()], "reasons": 1},
    "/v1/similar": item(),
    "/v1/explain": {**account(), "item": item(3)},
    "/v1/compare": {"account": account()},
}


def test_events_are_kept_in_a_database_and_lists_go_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7, R13: 503 and Retry-After while it is gone, never a false 202; reads go on; ready within 5 s of its return."""
    with postgres() as server:
        monkeypatch.setenv("SHOP_EVENTS", server.url)
        words = ("--data", "${SHOP_EVENTS}", "--folder", tmp_path / "keys")
        with started(tmp_path / "unused", *words) as (process, url), Client(url) as client:
            first = client.send([Event(**event(1))])  # type: ignore[arg-type]
            assert (first.data_version, first.model, bool(first.model_version)) == (1, "first", True)
            server.kill()
            began = time.monotonic()
            refused = httpx.post(url + "/v1/events", json={"events": [event(2, id="lost?")]}, timeout=10)
            assert time.monotonic() < began + 3
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            _until(lambda: _status(url) == 503, 3)
            assert "database" in httpx.get(url + "/readyz").text
            for path, body in READS.items():
                said = httpx.post(url + path, json=body)
                assert said.status_code == 200
                assert said.json()["degraded"], path
                assert said.json()["degraded_by"] == httpx.get(url + "/readyz").json()["reasons"]
            assert client.recommend([tuple(account().values())]).degraded_by == ("the database cannot be reached",)  # type: ignore[list-item]
            assert httpx.get(url + f"/v1/persons/north:{account()['user']}").status_code == 503
            server.start()
            assert _until(lambda: _status(url) == 200, 5) < 5
            for path, body in READS.items():
                assert httpx.post(url + path, json=body).json()["degraded_by"] == [], path
            again = client.send([Event(**event(2, id="lost?"))])  # type: ignore[arg-type]
            assert (again.data_version, again.duplicates) == (2, ())
            told = client.export_person(("north", account()["user"]))
            assert len(told["events"]) == 2  # type: ignore[arg-type]
            second = isthmus("serve", Path(process.args[2]), "--port", 0, *words)  # type: ignore[index]
            assert second.code == 2
            assert "another service" in second.err
            process.kill()
        assert sorted(path.name for path in (tmp_path / "keys").iterdir() if path.suffix == ".db") == ["system.db"]
        with started(tmp_path / "unused", *words) as (_, url), Client(url) as client:
            assert len(client.export_person(("north", account()["user"]))["events"]) == 2  # type: ignore[arg-type]
            assert client.erase_person(("north", account()["user"]))["events"] == 2


FAULTS = {"dark": True, "delay": 2.0, "drip": 3}


def test_a_database_that_is_silent_late_or_slow_holds_up_no_list_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R13: events are on disk or 503 with Retry-After soon; lists go on; all is well 5 s after the fault is gone."""
    with postgres() as server, proxied(server.url) as (through, proxy):
        monkeypatch.setenv("SHOP_EVENTS", through)
        words = ("--data", "${SHOP_EVENTS}", "--folder", tmp_path / "keys")
        with started(tmp_path / "unused", *words) as (_, url), Client(url) as client:
            kept = [name for fault in FAULTS for name in _under(fault, url, client, proxy)]
            told = client.export_person(("north", account()["user"]))["events"]
    assert set(kept) <= {one["id"] for one in told}, "no 202 was false"  # type: ignore[attr-defined]


def _under(fault: str, url: str, client: Client, proxy: Proxy) -> list[str]:
    """Send and ask while the database has a fault; return the ids of the events that were answered 202."""
    answers: list[tuple[str, httpx.Response, float]] = []
    lists: list[float] = []

    def send(name: str) -> None:
        began = time.monotonic()
        got = httpx.post(url + "/v1/events", json={"events": [event(1, id=name)]}, timeout=30)
        answers.append((name, got, time.monotonic() - began))

    send(f"before {fault}")
    setattr(proxy, fault, FAULTS[fault])
    senders = [threading.Thread(target=send, args=(f"{fault} {n}",)) for n in range(5)]
    for n, sender in enumerate(senders):
        sender.start()
        began = time.monotonic()
        assert httpx.post(url + "/v1/recommend", json={"persons": [account(n)]}, timeout=30).status_code == 200
        lists.append(time.monotonic() - began)
    for sender in senders:
        sender.join()
    if fault == "dark":
        assert _status(url) == 503, "2 s after the first event at the latest"
        told = httpx.post(url + "/v1/recommend", json={"persons": [account()]}).json()
        assert told["degraded"], "events may lack"
    setattr(proxy, fault, type(FAULTS[fault])(0))
    back = _until(lambda: _status(url) == 200 and _sent(client), 15)
    assert httpx.post(url + "/v1/recommend", json={"persons": [account()]}).json()["degraded_by"] == []
    slowest = max(took for _, _, took in answers)
    print(f"{fault}: events {slowest:.2f} s at most, lists {max(lists):.2f} s, back after {back:.2f} s")
    refused = [got for _, got, _ in answers if got.status_code != 202]
    assert len(refused) == len(senders)
    assert all(got.status_code == 503 and "retry-after" in got.headers for got in refused)
    assert slowest < 3
    assert max(lists) < 1
    assert back < 5
    return [name for name, got, _ in answers if got.status_code == 202]


def _sent(client: Client) -> bool:
    try:
        client.send([Event(**event(2))])  # type: ignore[arg-type]
    except ServiceError:
        return False
    return True
