"""Traces: a request joined with whoever sent it (W3C ``traceparent``), and its steps, by OpenTelemetry; off by default.

Attributes say what was asked for and how much of it, never whose or of what; errors are given by status, not by text.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal

from isthmus.errors import InputError
from isthmus.service.lock.operations import find

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Attributes = Mapping[str, str | int | bool]
#: The word for traces on standard error, one JSON object a line.
CONSOLE: Final = "console"
#: Seconds that sending traces away may take, also at the end.
PATIENCE: Final = 3
#: Spans that may wait to be sent; more are dropped.
WAITING: Final = 16_384
_PARENT: Final = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]([0-9a-f])")
_tracer: ContextVar[Tracer | None] = ContextVar("isthmus_tracer", default=None)
_NOTHING: Final = nullcontext()


def step(name: str, attributes: Attributes | None = None) -> AbstractContextManager[object]:
    """Return a context that is a span of the request at work, or nothing where that is not traced.

    Examples
    --------
    >>> with step("log commit", {"isthmus.records": 3}):
    ...     pass
    """
    tracer = _tracer.get()
    if tracer is None:
        return _NOTHING
    return tracer.start_as_current_span(
        name, attributes=dict(attributes or {}), record_exception=False, set_status_on_exception=False
    )


def trace_id() -> str:
    """Return the id of the trace at work, 32 hexadecimal digits; empty where there is none."""
    if _tracer.get() is None:
        return ""
    from opentelemetry.trace import format_trace_id, get_current_span

    return format_trace_id(get_current_span().get_span_context().trace_id)


def traceparent() -> str:
    """Return the W3C ``traceparent`` of the span at work, for whoever is asked next; empty where there is none."""
    if _tracer.get() is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    said: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(said)
    return said.get("traceparent", "")


def is_followed(parent: str) -> bool:
    """Return whether a ``traceparent`` names a trace that somebody follows.

    Examples
    --------
    >>> is_followed("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    True
    >>> is_followed("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
    False
    """
    found = _PARENT.fullmatch(parent)
    return found is not None and bool(int(found[1], 16) & 1)


class Tracing:
    """Where spans go.

    Parameters
    ----------
    target : str
        ``console``, or the address of a collector that takes OTLP over HTTP, such as
        ``http://127.0.0.1:4318/v1/traces``.
    version : str
        Of this package.
    share : float
        Share of the requests traced that come without a ``traceparent``; those with one are traced if it says so.

    Raises
    ------
    InputError
        Another target, or the packages are not installed.
    """

    def __init__(self, target: str, version: str, *, share: float = 1.0) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

            said = {"service.name": "isthmus", "service.version": version, "service.instance.id": secrets.token_hex(8)}
            self._provider = TracerProvider(
                sampler=ParentBasedTraceIdRatio(share), resource=Resource(said), shutdown_on_exit=False
            )
            exporter = _exporter(target)
        except ImportError as error:
            raise InputError(f"{error.name} is not installed", fix="pip install 'isthmus[trace]'") from None
        if target == CONSOLE:
            self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        else:
            many = BatchSpanProcessor(exporter, max_queue_size=WAITING, schedule_delay_millis=1000)
            self._provider.add_span_processor(many)
        self._tracer = self._provider.get_tracer("isthmus", version)

    @contextmanager
    def joined(
        self, name: str, parent: str, attributes: Attributes, *, kind: Literal["SERVER", "CONSUMER"] = "SERVER"
    ) -> Iterator[Span]:
        """Give the span of a request or of messages; it belongs to the trace that ``parent`` names, if any."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        before = TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {})
        token = _tracer.set(self._tracer)
        try:
            with self._tracer.start_as_current_span(
                name,
                context=before,
                kind=SpanKind[kind],
                attributes=dict(attributes),
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                yield span
        finally:
            _tracer.reset(token)

    def close(self) -> None:
        """Send what waits."""
        self._provider.force_flush(PATIENCE * 1000)
        self._provider.shutdown()


def _exporter(target: str) -> SpanExporter:
    if target == CONSOLE:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    if not target.startswith(("http://", "https://")):
        raise InputError(
            f"'{target}' takes no traces", where="--traces", fix=f"write {CONSOLE} or http://HOST/v1/traces"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=target, timeout=PATIENCE)


class Traced:
    """ASGI middleware around the gate: one span a request, but for health and figures.

    Parameters
    ----------
    app : ASGI application
        What answers.
    tracing : Tracing
        Where spans go.
    """

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app, self._tracing = app, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        operation = find(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if operation is None or operation.open:
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        said = {"http.request.method": operation.method, "http.route": operation.path}
        with self._tracing.joined(f"{operation.method} {operation.path}", given.decode("latin-1"), said) as span:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _answered(span, message["status"])
                await send(message)

            await self.app(scope, receive, watched)
            caller = scope.get("caller")
            if caller is not None:
                span.set_attribute("isthmus.tenant", caller.tenant)


def _answered(span: Span, status: int) -> None:
    from opentelemetry.trace import StatusCode

    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
