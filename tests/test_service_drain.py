"""The service is told to end while people ask: nothing under way fails, nothing answered is forgotten."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx
from tests.small_service import account, event, started
from tests.tiers import count

from isthmus.client import Client


class Askers:
    """People who ask and send until health says 503, as a balancer would let them."""

    def __init__(self, url: str, acked: list[str], first: int) -> None:
        self.wrong: list[object] = []
        self.ready: list[int] = []
        self.answered = 0
        self._url, self._acked, self._first = url, acked, first
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(4)]
        for thread in self.threads:
            thread.start()

    def _ask(self, number: int) -> None:
        n = 0
        with httpx.Client(base_url=self._url) as client:
            while 503 not in self.ready:
                n += 1
                name = f"{self._first}-{number}-{n}"
                deed = event(n % 20, {"platform": "north", "user": "drain"}, id=name)
                try:
                    sent = client.post("/v1/events", json={"events": [deed]})
                    lists = client.post("/v1/recommend", json={"persons": [account()], "k": 3})
                    self.ready.append(client.get("/readyz").status_code)
                except httpx.HTTPError as error:
                    self.wrong.append(error)
                    return
                self.answered += 2
                if sent.status_code == 202:
                    self._acked.append(name)
                self.wrong += [got.status_code for got in (sent, lists) if got.status_code not in (200, 202)]


def test_told_to_end_under_load_no_request_fails_and_nothing_is_forgotten(tmp_path: Path) -> None:
    acked: list[str] = []
    for round_ in range(count(5, 20)):
        with started(tmp_path, "--no-warm") as (process, url):
            askers = Askers(url, acked, round_)
            until = time.monotonic() + 30
            while askers.answered < 40 and time.monotonic() < until:
                time.sleep(0.02)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=20)
            took = time.monotonic() - began
            for thread in askers.threads:
                thread.join()
            assert not askers.wrong
            assert askers.answered >= 40
            assert set(askers.ready) == {200, 503}
            assert process.returncode == 0, err
            assert took <= 10
            assert "Traceback" not in err
    with started(tmp_path, "--no-warm") as (_, url), Client(url) as client:
        told = client.export_person(("north", "drain"))["events"]
        assert {deed["id"] for deed in told} >= set(acked)  # type: ignore[attr-defined]
