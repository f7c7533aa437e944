"""The server process: starts, says where it listens, drains when told to end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import socket
import sys
import time
from functools import partial
from types import FrameType
from typing import Final

import uvicorn

from isthmus.errors import InputError
from isthmus.log import logger
from isthmus.service.app import create_app
from isthmus.service.core import Places, Service
from isthmus.service.lock.connection import OPERATION, limited
from isthmus.service.monitor import JsonLines
from isthmus.service.settings import ServiceSettings
from isthmus.service.watch.lines import Aside

#: Seconds without a request after which a service that drains stops to listen, and seconds after which it does so
#: anyhow: a connection that is closed while a request is on its way fails that request.
SETTLE: Final = (0.5, 4.0)
#: Heaps that threads share, at most; as glibc has it, eight for each core, each of which keeps what it once needed.
HEAPS: Final = 2
_ARENA_MAX: Final = -8


class _Server(uvicorn.Server):
    """A server that says it drains before it stops listening."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Drain, then end; end at once when told a second time."""
        if self._service.doors.draining:
            self.force_exit = self.should_exit = True
            return
        doors = self._service.doors
        doors.draining, doors.came = True, time.perf_counter()
        logger.info("draining")
        asyncio.get_event_loop().call_later(SETTLE[0], self._settle, doors.came + SETTLE[1])

    def _settle(self, latest: float) -> None:
        now = time.perf_counter()
        left = min(self._service.doors.came + SETTLE[0], latest) - now
        if left > 0:
            asyncio.get_event_loop().call_later(left, self._settle, latest)
        else:
            self.should_exit = True


def run(places: Places, settings: ServiceSettings, *, log_all: bool = False) -> None:
    """Serve until told to end (SIGTERM, SIGINT).

    Raises
    ------
    InputError
        The address is taken, or the service cannot be opened; see :meth:`~isthmus.service.core.Service.open`.
    """
    _share_heaps()
    listener = _listen(settings)
    try:
        service = Service.open(places, settings)
    except BaseException:
        listener.close()
        raise
    gc.freeze()  # the collector need not look at what was loaded: its rounds would halt requests for long
    _log_json(verbose=log_all)
    config = uvicorn.Config(
        create_app(service, log_all=log_all),
        http=limited(settings.header_seconds, partial(service.monitor.request, "", OPERATION)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.drain),
        timeout_keep_alive=30,
        backlog=2048,
    )
    listener.listen(config.backlog)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}\n")
    sys.stdout.flush()
    _Server(config, service).run(sockets=[listener])


def _share_heaps() -> None:
    """Let all threads take memory from few heaps; without glibc nothing is done."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, HEAPS)


def _listen(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise InputError(f"cannot listen: {error.strerror}", where=where, fix="take another --port or --host") from None
    return listener


def _log_json(*, verbose: bool) -> None:
    handler = Aside(sys.stderr.fileno())
    handler.setFormatter(JsonLines())
    for name in ("isthmus", "uvicorn.error", "opentelemetry"):
        named = logging.getLogger(name)
        named.handlers, named.propagate = [handler], False
        named.setLevel(logging.INFO if verbose or name == "isthmus" else logging.WARNING)
