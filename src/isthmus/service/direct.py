"""The busiest operations, answered before the framework's routing, which would take as long as the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, Exception], Awaitable[Response]]
#: Operations that read their body themselves and are asked for most.
BUSY: Final = (("POST", "/v1/recommend"), ("POST", "/v1/events"))


def endpoints(app: FastAPI) -> dict[tuple[str, str], Endpoint]:
    """Return what answers the busy operations, by method and path."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    found = {(method, route.path): route.endpoint for route in routes for method in route.methods or ()}
    return {name: found[name] for name in BUSY}


class Direct:
    """ASGI middleware inside the gate: calls the endpoint of a busy operation, passes everything else on.

    Parameters
    ----------
    app : ASGI application
        What answers everything else.
    endpoints : mapping of (str, str) to endpoint
        By method and path; each takes the request alone.
    handlers : mapping of exception class to handler
        What becomes of errors, as in the application.
    """

    def __init__(
        self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint], handlers: Mapping[type[Exception], Handler]
    ) -> None:
        self.app, self._endpoints, self._handlers = app, endpoints, handlers
        self._known = tuple(handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except self._known as error:
            response = await self._handler(error)(request, error)
        await response(scope, receive, send)

    def _handler(self, error: Exception) -> Handler:
        return next(handler for kind, handler in self._handlers.items() if isinstance(error, kind))
