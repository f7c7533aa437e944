"""Prometheus, Alertmanager and what an alert is sent to, on spare ports, with data in a folder of the test."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(words: list[object], ready: str, log: Path) -> Iterator[None]:
    """Run a program until the block ends; the block begins when ``ready`` answers."""
    with log.open("w") as out:
        process = subprocess.Popen([str(word) for word in words], stdout=out, stderr=out, cwd=log.parent)
        try:
            until(lambda: _answers(ready), 20, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(true: Callable[[], object], seconds: float, said: object = "") -> float:
    """Wait until ``true()``; return how long that took."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            text = said.read_text() if isinstance(said, Path) else str(said)
            raise AssertionError(f"not within {seconds} s: {text[-2000:]}")
        time.sleep(0.1)
    return time.monotonic() - began


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


class Webhook:
    """What Alertmanager tells: by alert, the state it was told of last, and all states."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = {}

    @contextmanager
    def listening(self) -> Iterator[str]:
        """Yield the address alerts are sent to."""
        states = self.states

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                for alert in body["alerts"]:
                    states.setdefault(alert["labels"]["alertname"], []).append(alert["status"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def firing(self, name: str) -> bool:
        """Return whether the newest word of an alert is that it fires."""
        return self.states.get(name, ["-"])[-1] == "firing"

    def resolved(self, name: str) -> bool:
        """Return whether an alert fired and was then said to be over."""
        said = self.states.get(name, [])
        return "firing" in said and said[-1] == "resolved"


@contextmanager
def watched(folder: Path, targets: list[str], rules: str, hook: str) -> Iterator[None]:
    """Run Prometheus, which scrapes ``targets`` each second, and Alertmanager, which tells ``hook``."""
    folder.mkdir(parents=True, exist_ok=True)
    own, alerts = free_port(), free_port()
    (folder / "alerts.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": ["alerts.yml"],
                "scrape_configs": [{"job_name": "isthmus", "static_configs": [{"targets": targets}]}],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alerts}"]}]}]},
            }
        )
    )
    told = {"name": "hook", "webhook_configs": [{"url": hook, "send_resolved": True}]}
    route = {
        "receiver": "hook",
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": "1s",
        "repeat_interval": "1h",
    }
    (folder / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": [told]}))
    manager = [
        "prometheus-alertmanager",
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/am",
        f"--web.listen-address=127.0.0.1:{alerts}",
        "--cluster.listen-address=",
    ]
    server = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{own}",
        "--storage.tsdb.retention.time=1h",
    ]
    with (
        running(list(manager), f"http://127.0.0.1:{alerts}/-/ready", folder / "am.log"),
        running(list(server), f"http://127.0.0.1:{own}/-/ready", folder / "prom.log"),
    ):
        yield
