"""Connections that give no whole request in time, or headers or a refused body without end, are closed.

What goes out in one step goes out together: headers and body one after the other would be two calls of the system, and
wake the other side twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of the headers of a request, at most.
HEADERS: Final = 64 << 10
#: Bytes of a body that are thrown away after its request was refused, at most: time for the client to read why.
REFUSED: Final = 8 << 20
#: Requests under way from which on it is noted when one came, for the gate to see how long it waited.
CROWD: Final = 64
#: Name of that time in the state of a request.
CAME: Final = "came"
#: What figures call an answer that the connection gives itself, for there is no whole request.
OPERATION: Final = "connection"
#: Told of such an answer: its status, and the seconds since it was waited for.
Told = Callable[[int, float], None]
_LATE: Final = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_LONG: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Whole:
    """A transport that holds back what is written until there is more, or the present step of the loop is over.

    Everything but writing and closing is the transport's own.

    Parameters
    ----------
    transport : asyncio.Transport
        What writes.
    loop : asyncio.AbstractEventLoop
        Its loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._held = transport, loop, b""

    def __getattr__(self, name: str) -> object:
        """Return what the transport has."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write what was held back together with ``data``, or hold it back."""
        if self._held:
            whole, self._held = self._held + data, b""
            self._transport.write(whole)
        elif data:
            self._held = bytes(data)
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what was held back."""
        if self._held:
            whole, self._held = self._held, b""
            self._transport.write(whole)

    def close(self) -> None:
        """Write what was held back, and close."""
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """uvicorn's connection with a limit of time and length for what no request waits for.

    The time runs from the connection's beginning, and from the first byte after an answer, to the end of the headers.
    """

    #: Seconds in which headers must arrive.
    seconds: float = 10.0
    #: Told of every answer given here.
    told: Told = staticmethod(lambda _status, _seconds: None)
    _clock: asyncio.TimerHandle | None = None
    _since: float = 0.0
    _size: int = 0
    _inside: bool = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first headers."""
        super().connection_made(cast("asyncio.Transport", Whole(transport, self.loop)))
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes while nobody waits for it."""
        answered = self._answered
        if answered and self._clock is None:
            self._wait()
        if answered:
            self._size += len(data)
        super().data_received(data)
        if self._clock is not None and self._size > (REFUSED if self._inside else HEADERS):
            self._end()

    @property
    def _answered(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; of a request under way the gate tells."""
        if self._answered:
            self.told(400, self.loop.time() - self._since)
        super().send_400_response(msg)

    def on_headers_complete(self) -> None:
        """Stop waiting: the rest is the gate's."""
        self._rest()
        self._inside = True
        if len(self.tasks) > CROWD:
            self.scope["state"][CAME] = time.perf_counter()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Remember that the body has ended; if it was refused, so has the wait for its end."""
        self._inside = False
        self._rest()
        super().on_message_complete()

    def _wait(self) -> None:
        self._size, self._since = 0, self.loop.time()
        self._clock = self.loop.call_later(self.seconds, self._end)

    def _rest(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self) -> None:
        """Close the connection; say why unless an answer went out already."""
        long = self._size > HEADERS
        self._rest()
        if not self.transport.is_closing():
            if not self._inside:
                self.told(431 if long else 408, self.loop.time() - self._since)
                self.transport.write(_LONG if long else _LATE)
            self.transport.close()


def limited(seconds: float, told: Told) -> type[Connection]:
    """Return the connection with another limit of time, and who is told of its answers."""
    return type("Connection", (Connection,), {"seconds": seconds, "told": staticmethod(told)})
