"""The service over PostgreSQL: started, killed with its database, refused where it cannot be."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from tests.small_postgres import postgres
from tests.small_service import account, event, started
from tests.test_cli import isthmus

from isthmus.client import Client, Event


def _status(url: str, path: str = "/readyz") -> int:
    return httpx.get(url + path, timeout=5).status_code


def _until(condition: object, seconds: float) -> float:
    began = time.monotonic()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < began + seconds
        time.sleep(0.02)
    return time.monotonic() - began


def test_events_are_kept_in_a_database_and_lists_go_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R7, R13: 503 and Retry-After while it is gone, never a false 202; reads go on; ready within 5 s of its return."""
    with postgres() as server:
        monkeypatch.setenv("SHOP_EVENTS", server.url)
        words = ("--data", "${SHOP_EVENTS}", "--folder", tmp_path / "keys")
        with started(tmp_path / "unused", *words) as (process, url), Client(url) as client:
            assert client.send([Event(**event(1))]).data_version == 1  # type: ignore[arg-type]
            server.kill()
            began = time.monotonic()
            refused = httpx.post(url + "/v1/events", json={"events": [event(2, id="lost?")]}, timeout=10)
            assert time.monotonic() < began + 3
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            _until(lambda: _status(url) == 503, 3)
            assert "database" in httpx.get(url + "/readyz").text
            for _ in range(3):
                assert httpx.post(url + "/v1/recommend", json={"persons": [account()]}).status_code == 200
            assert httpx.get(url + f"/v1/persons/north:{account()['user']}").status_code == 503
            server.start()
            assert _until(lambda: _status(url) == 200, 5) < 5
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
