"""What every request passes: its id, its key, its limits; and what every answer carries."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isthmus.errors import IsthmusError
from isthmus.log import logger
from isthmus.service.lock.connection import CAME
from isthmus.service.lock.guesses import Guesses
from isthmus.service.lock.limits import Buckets
from isthmus.service.lock.operations import Operation, find, methods
from isthmus.service.lock.shared_limits import SharedBuckets
from isthmus.service.monitor import Monitor
from isthmus.service.problems import BusyError, RequestError, problem
from isthmus.service.settings import DEFAULT_TENANT, ServiceSettings
from isthmus.service.watch.traces import trace_id

if TYPE_CHECKING:
    from isthmus.service.lock.key import Key
    from isthmus.service.lock.vault import Vault

_NONE: Final[Mapping[str, int]] = {}
_ID: Final = re.compile(rb"[A-Za-z0-9_-]{8,64}")
_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
#: The console: scripts and styles of this service only, none inside a page, and no way to make text into markup.
_PAGE: Final = [
    *(one for one in _HEADERS if one[0] != b"content-security-policy"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        b"require-trusted-types-for 'script'; trusted-types 'none'",
    ),
]
#: Seconds that a request of a crowd may wait for its turn; later it is refused, which costs little, so that those that
#: are taken are answered soon.
LATE: Final = 0.05
_LOCAL: Final = (b"localhost", b"127.0.0.1", b"[::1]")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Parameters
    ----------
    name : str
        Prefix of the key; ``open`` without keys.
    tenant : str
        Whose data.
    platforms : tuple of str
        Platforms whose people may be asked for; empty for all.
    request : str
        Id of the request.
    quota : mapping of str to int
        What may be used up in a day: events, lists.
    """

    name: str
    tenant: str
    platforms: tuple[str, ...]
    request: str
    quota: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, before it is known who asks.

    Parameters
    ----------
    headers : mapping of bytes to bytes
        As they came.
    request : str
        Its id.
    address : str
        Where it comes from.
    waited : float
        Seconds that it waited for its turn.
    """

    headers: MutableMapping[bytes, bytes]
    request: str
    address: str
    waited: float = 0.0


@dataclass
class Doors:
    """Whether the service is about to end, how many requests are inside, and when the newest came (perf_counter)."""

    draining: bool = False
    inside: int = 0
    came: float = 0.0


@dataclass(frozen=True)
class Guard:
    """What the gate checks with.

    Parameters
    ----------
    vault : Vault
        The keys.
    buckets : Buckets
        The limits of rate.
    monitor : Monitor
        Where requests are counted.
    settings : ServiceSettings
        The other limits.
    doors : Doors
        How many are inside.
    guesses : Guesses
        Finds keys.
    shared : SharedBuckets, optional
        Limits of rate that hold for other processes too, in place of ``buckets``.
    """

    vault: Vault
    buckets: Buckets
    monitor: Monitor
    settings: ServiceSettings
    doors: Doors
    guesses: Guesses
    shared: SharedBuckets | None = None

    def admit(self, operation: Operation | None, asked: Asked) -> Caller:
        """Return who asks.

        Raises
        ------
        RequestError
            The request is refused.
        BusyError
            Too many are inside.
        """
        asked_openly = operation is not None and operation.open
        if not asked_openly and (self.doors.inside > self.settings.in_flight or asked.waited > LATE):
            raise BusyError("too many requests at a time")
        caller = self._caller(operation, asked)
        if not asked_openly and self.shared is None:
            _refuse_until(self.buckets.take(caller.name))
        return caller

    async def pace(self, operation: Operation | None, caller: Caller) -> None:
        """Refuse who asks too often of all processes together.

        Raises
        ------
        RequestError
            The request is refused.
        """
        if self.shared is not None and (operation is None or not operation.open):
            _refuse_until(await self.shared.take(caller.name))

    def _caller(self, operation: Operation | None, asked: Asked) -> Caller:
        headers, request = asked.headers, asked.request
        if not self.vault.locked:
            if not _local(headers.get(b"host", b"")):
                raise RequestError(421, "without keys the service answers this machine only", fix="isthmus keys create")
            if operation is not None and operation.method != "GET" and _foreign(headers):
                raise RequestError(403, "another site's page may change nothing here", fix="isthmus keys create")
            return Caller("open", DEFAULT_TENANT, (), request)
        if operation is None or not operation.scope:
            return Caller("open", DEFAULT_TENANT, (), request)
        key = self.guesses.find(asked.address, token_of(headers))
        if key is None:
            fix = "send the header Authorization: Bearer KEY"
            raise RequestError(401, "a valid key is needed", fix=fix, headers={"www-authenticate": "Bearer"})
        if operation.scope not in key.scopes:
            raise RequestError(403, f"the key lacks the scope '{operation.scope}'")
        return Caller(key.prefix, key.tenant, key.platforms, request, _quota(key))


def _quota(key: Key) -> Mapping[str, int]:
    if key.events is None and key.lists is None:
        return _NONE
    return {name: most for name, most in (("events", key.events), ("lists", key.lists)) if most is not None}


def token_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the key a request was sent with, empty if it was sent with none."""
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer":
        return token.decode("latin-1").strip()
    return headers.get(b"x-api-key", b"").decode("latin-1")


def address_of(scope: Scope) -> str:
    """Return where a request comes from, empty if that is not known."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _refuse_until(wait: float) -> None:
    if wait:
        raise RequestError(429, "too many requests", headers={"retry-after": str(int(wait) + 1)})


def _local(host: bytes) -> bool:
    """Return whether a Host header names this machine: a page of elsewhere that was pointed here is refused."""
    name = host[: host.rfind(b"]") + 1] if host.startswith(b"[") else host.partition(b":")[0]
    return name in _LOCAL or not host


def _foreign(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a browser says that the page of another site sends a request."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host", b"")


def _nothing_there(path: str) -> RequestError:
    """Return the refusal of what is no operation, which the application never sees: its scope would not be known."""
    allowed = ", ".join(methods(path))
    if allowed:
        return RequestError(405, "method not allowed", fix=f"take {allowed}", headers={"allow": allowed})
    return RequestError(404, "not found", fix="operations: /openapi.json, pages for people: /console")


class Gate:
    """ASGI middleware around the application.

    Parameters
    ----------
    app : ASGI application
        What answers.
    guard : Guard
        What is checked.
    log_all : bool
        Whether every request is logged, or only those that fail.
    """

    def __init__(self, app: ASGIApp, guard: Guard, *, log_all: bool = False) -> None:
        self.app, self.guard, self._log_all = app, guard, log_all
        self._quiet = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        began, guard = time.perf_counter(), self.guard
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request = given.decode() if given and _ID.fullmatch(given) else os.urandom(16).hex()
        operation = find(scope["method"], scope["path"])
        page = operation is not None and operation.page
        pipe = _Pipe(send, request, guard.doors, _PAGE if page else _HEADERS)
        guard.doors.inside += 1
        guard.doors.came = began
        try:
            guarded = _Body(receive, headers, guard.settings)
            if guard.vault.tokens is not None and operation is not None and operation.scope:
                await guard.vault.tokens.prepare(token_of(headers))
            waited = began - scope.get("state", {}).get(CAME, began)
            scope["caller"] = caller = guard.admit(operation, Asked(headers, request, address_of(scope), waited))
            if guard.shared is not None:
                await guard.pace(operation, caller)
            if operation is None:
                raise _nothing_there(scope["path"])
            await self.app(scope, guarded.receive, pipe.send)
        except IsthmusError as error:
            await self._refuse(error, scope, pipe)
        except Exception:
            logger.exception("request failed", extra={"fields": {"request_id": request, "trace_id": trace_id()}})
            await self._refuse(IsthmusError("failed"), scope, pipe)
        finally:
            guard.doors.inside -= 1
            seconds = time.perf_counter() - began
            name = "other" if operation is None else operation.name
            known = scope.get("caller")
            guard.monitor.request(known.tenant if known else "", name, pipe.status, seconds)
            if self._log_all or (pipe.status >= 500 and self._worth_a_line(pipe.status, began)):
                self._log(name, scope, pipe, seconds)

    def _worth_a_line(self, status: int, now: float) -> bool:
        """Return whether a failure is logged: of requests refused in a crowd, one a second."""
        if status == 503:
            if now < self._quiet:
                return False
            self._quiet = now + 1.0
        return True

    async def _refuse(self, error: IsthmusError, scope: Scope, pipe: _Pipe) -> None:
        if not pipe.status:
            await problem(error, pipe.request)(scope, _nothing, pipe.send)

    def _log(self, name: str, scope: Scope, pipe: _Pipe, seconds: float) -> None:
        caller = scope.get("caller")
        fields = {
            "request_id": pipe.request,
            "operation": name,
            "status": pipe.status,
            "ms": round(1000 * seconds, 2),
            "key": caller.name if caller else "",
            "tenant": caller.tenant if caller else "",
        }
        if traced := trace_id():
            fields["trace_id"] = traced
        logger.info("request", extra={"fields": fields})


class _Pipe:
    """The way out: adds headers, remembers the status."""

    def __init__(self, send: Send, request: str, doors: Doors, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._send, self.request, self._doors, self._headers = send, request, doors, headers
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = message["headers"]
            own += self._headers
            own.append((b"x-request-id", self.request.encode()))
            if self._doors.draining:
                own.append((b"connection", b"close"))
        await self._send(message)


class _Body:
    """The way in: refuses bodies that are too long, too slow or compressed."""

    def __init__(self, receive: Receive, headers: MutableMapping[bytes, bytes], settings: ServiceSettings) -> None:
        self._receive, self._most = receive, settings.body
        self._seconds, self._size, self._ended = settings.body_seconds, 0, False
        self._began = time.monotonic()
        length = headers.get(b"content-length", b"0")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise RequestError(415, "compressed bodies are not read", fix="send it as it is")
        if not length.isdigit() or int(length) > self._most:
            raise self._too_large()

    def _too_large(self) -> RequestError:
        return RequestError(413, f"more than {self._most} bytes", fix="send less at a time")

    async def receive(self) -> Message:
        if self._ended:
            return await self._receive()
        left = self._seconds - (time.monotonic() - self._began)
        try:
            async with asyncio.timeout(max(left, 0)):
                message = await self._receive()
        except TimeoutError:
            raise RequestError(408, "the body came too slowly", headers={"connection": "close"}) from None
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise self._too_large()
        self._ended = not message.get("more_body", False)
        return message


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
