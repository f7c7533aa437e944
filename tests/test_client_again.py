"""The client sends again what does no harm twice, and nothing else; a real server that keeps its answers to itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from isthmus.client import Client, Event, ServiceError

#: Seconds the client waits for an answer, and the server before it gives one.
WAIT, SILENT = 0.2, 0.6


@contextmanager
def server(status: int, headers: Mapping[str, str], *, silent: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server with one answer for everything, and the requests it took."""
    took: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            took.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("content-length", 0)))
            time.sleep(silent)
            self.send_response(status)
            for name, value in {**headers, "content-length": "2"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client has gone, as it should
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{found.server_address[1]}", took
        finally:
            found.shutdown()
            thread.join()


def test_what_may_have_been_done_is_not_done_again() -> None:
    with server(200, {}, silent=SILENT) as (url, took), Client(url, timeout=WAIT, tries=3) as client:
        for act in (
            client.rollout.rollback,
            lambda: client.activate("old"),
            lambda: client.erase_person(("shop", "u1")),
        ):
            took.clear()
            with pytest.raises(ServiceError, match="no answer: ReadTimeout"):
                act()
            assert len(took) == 1, took
        took.clear()
        with pytest.raises(ServiceError, match="no answer"):
            client.send([Event("shop", "u1", "b1", "view")])
        assert took == ["POST /v1/events"] * 3, "events carry ids"


@pytest.mark.parametrize("later", ["3600", format_datetime(datetime.now(UTC) + timedelta(hours=1))])
def test_a_long_wait_is_told_and_not_waited(later: str) -> None:
    with server(429, {"retry-after": later}) as (url, took), Client(url) as client:
        began = time.monotonic()
        with pytest.raises(ServiceError):
            client.send([Event("shop", "u1", "b1", "view")])
        assert time.monotonic() - began < 2
        assert len(took) == 1


def test_a_short_wait_is_waited_whatever_its_form() -> None:
    for said in ("0.05", "soon", format_datetime(datetime.now(UTC))):
        with server(503, {"retry-after": said}) as (url, took), Client(url, tries=2) as client:
            with pytest.raises(ServiceError):
                client.rollout.rollback()
            assert len(took) == 2, "it was refused, so it may be asked again"
