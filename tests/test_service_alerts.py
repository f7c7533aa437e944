"""Alerts, live: faults put into a service, a real Prometheus and a real Alertmanager, and what a webhook is told."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import uvicorn
from tests.small_service import event, models, recommender
from tests.watch_parts import Webhook, free_port, until, watched

from isthmus.errors import StorageError
from isthmus.service.app import create_app
from isthmus.service.core import Places, Service
from isthmus.service.settings import ServiceSettings
from isthmus.service.watch import gauges, observer
from isthmus.service.watch.shipped import rules

MISSING = [name for name in ("prometheus", "prometheus-alertmanager") if shutil.which(name) is None]
Usage = namedtuple("Usage", "total used free")


@contextmanager
def listening(data: Path, model: Path) -> Iterator[tuple[str, Service]]:
    """Serve in a thread of this process, so that faults can be put in; yield the address."""
    settings = ServiceSettings(warm=False, deadline=20.0, patrol=0.5, drift_seconds=0.0)
    service = Service.open(Places(data, {"default": model}), settings)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(service), port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        until(lambda: server.started, 20)
        yield f"127.0.0.1:{port}", service
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def answering(port: int) -> Iterator[None]:
    """Answer scrapes with nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def quick() -> str:
    """Return the shipped rules with short times, so that the test is short."""
    text = re.sub(r"for: \w+", "for: 0s", rules())
    return re.sub(r"\[\d+m\]", "[4s]", text)


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian packages of these names)")
def test_faults_reach_the_webhook_and_so_does_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "WINDOW", 100)
    model = tmp_path / "models" / "first"
    shutil.copytree(models() / "first", model)
    hook, away = Webhook(), free_port()
    with (
        hook.listening() as told,
        listening(tmp_path / "data", model) as (address, service),
        watched(tmp_path / "watch", [address, f"127.0.0.1:{away}"], quick(), told),
    ):
        faults = Faults(service, f"http://{address}", model, monkeypatch)
        until(lambda: hook.firing("IsthmusDown"), 20)
        assert set(hook.states) == {"IsthmusDown"}, "nothing else is wrong yet"
        faults.begin()
        began = time.monotonic()
        wanted = ["Errors", "EventLag", "Drift", "ModelStale", "DiskLow", "AuditBroken", "NotReady"]
        names = [f"Isthmus{name}" for name in wanted]
        took: dict[str, float] = {}

        def all_true(true: Callable[[str], bool]) -> bool:
            for name in names:
                if name not in took and true(name):
                    took[name] = time.monotonic() - began
            return len(took) == len(names)

        until(lambda: all_true(hook.firing), 60, hook.states)
        print("told after", {name: round(seconds, 1) for name, seconds in took.items()})
        assert max(took.values()) <= 60
        faults.end()
        began, took = time.monotonic(), {}
        with answering(away):
            names.append("IsthmusDown")
            until(lambda: all_true(hook.resolved), 60, hook.states)
        print("resolved after", {name: round(seconds, 1) for name, seconds in took.items()})


class Faults:
    """What goes wrong, all at once, and is mended."""

    def __init__(self, service: Service, url: str, model: Path, patch: pytest.MonkeyPatch) -> None:
        self.service, self.url, self.model, self.patch = service, url, model, patch
        self.log = service.tenant().log
        self.commit = self.log._commit  # type: ignore[attr-defined]
        self.going = threading.Event()
        self.senders: list[threading.Thread] = []

    def begin(self) -> None:
        """Change the domains of events; then break the disk, the clock, the audit log; let writes hang and fail."""
        items = recommender().items
        source = items.filter(domain="source").select("platform", "item").rows()
        for start in (0, 1, 2):
            events = [
                {"platform": name[0], "user": f"u{n}", "item": name[1], "event": "purchase"}
                for n, name in enumerate((source * 9)[start : start + 200])
            ]
            assert httpx.post(f"{self.url}/v1/events", json={"events": events}).status_code == 202
        self.patch.setattr(gauges.shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 10**8, 10**8))
        os.utime(self.model / "model.json", (time.time() - 40 * 86400,) * 2)
        self._audit("somebody else")

        hangs = time.monotonic() + 8

        def refuse(jobs: list[object]) -> list[StorageError]:
            self.going.wait(max(hangs - time.monotonic(), 0))
            return [StorageError("the disk is full")] * len(jobs)

        self.log._commit = refuse  # type: ignore[attr-defined]
        for _ in range(3):
            sender = threading.Thread(target=self._send)
            sender.start()
            self.senders.append(sender)

    def _send(self) -> None:
        while not self.going.is_set():
            httpx.post(f"{self.url}/v1/events", json={"events": [event(1)]}, timeout=30)
            time.sleep(0.2)

    def end(self) -> None:
        """Mend all."""
        self.going.set()
        for sender in self.senders:
            sender.join()
        self.log._commit = self.commit  # type: ignore[attr-defined]
        self.patch.undo()
        self.patch.setattr(observer, "WINDOW", 100)
        os.utime(self.model / "model.json")
        self._audit("me")
        items = recommender().items.select("platform", "item").rows()
        usual = recommender().content.people.events["item"].to_list()
        events = [
            {"platform": items[row][0], "user": f"v{n}", "item": items[row][1], "event": "purchase"}
            for n, row in enumerate(usual[:: max(len(usual) // 800, 1)])
        ]
        for start in range(0, len(events), 400):
            answer = httpx.post(f"{self.url}/v1/events", json={"events": events[start : start + 400]})
            assert answer.status_code == 202

    def _audit(self, who: str) -> None:
        vault = self.service.vault
        if who != "me":
            vault.note("default", "me", "tried", {})
        with vault._booking:
            vault._book.execute("UPDATE audit SET actor = ? WHERE number = 1", (who,))
