"""What goes out on a connection: an answer in one piece, in order, and nothing lost when it is closed."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import cast

from tests.small_service import started

from isthmus.service.lock.connection import Whole


class Wire:
    """A transport that remembers what was written, and when it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.paused = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append(b"closed")

    def pause_reading(self) -> None:
        self.paused += 1


def test_what_is_written_in_one_step_goes_out_together_and_in_order() -> None:
    async def run() -> list[list[bytes]]:
        wire, seen = Wire(), []
        whole = Whole(cast("asyncio.Transport", wire), asyncio.get_running_loop())
        whole.write(b"head ")
        whole.write(b"body")
        seen.append(wire.written.copy())
        whole.write(b"100 ")
        whole.write(b"")
        whole.write(b"alone")
        await asyncio.sleep(0)
        seen.append(wire.written.copy())
        whole.write(b"last")
        whole.close()
        await asyncio.sleep(0)
        whole.pause_reading()  # type: ignore[operator]
        assert wire.paused == 1
        return [*seen, wire.written]

    first = [b"head body"]
    second = [*first, b"100 ", b"alone"]
    assert asyncio.run(run()) == [first, second, [*second, b"last", b"closed"]]


def test_an_answer_comes_in_one_piece_and_answers_to_requests_sent_ahead_in_their_order(tmp_path: Path) -> None:
    with started(tmp_path) as (_, address):
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            ask = b"GET /%s HTTP/1.1\r\nhost: localhost\r\n\r\n"
            for _ in range(20):
                line.sendall(ask % b"livez")
                head, _, body = line.recv(1 << 16).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert body
            line.sendall(ask % b"livez" + ask % b"nowhere" + ask % b"livez")
            heard = b""
            while heard.count(b"HTTP/1.1 ") < 3 or not heard.endswith(body):
                heard += line.recv(1 << 16)
            assert [part[:3] for part in heard.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]
