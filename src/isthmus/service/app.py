"""The web application: every route, and one form for every error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.convertors import register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import Response

from isthmus import __version__
from isthmus.errors import InputError, IsthmusError
from isthmus.service.core import Service
from isthmus.service.direct import Direct, Handler, endpoints
from isthmus.service.examples import EXAMPLES
from isthmus.service.lock.gate import Caller, Gate
from isthmus.service.lock.operations import OPERATIONS
from isthmus.service.problems import RequestError, problem
from isthmus.service.routes import (
    consents,
    console,
    drift,
    events,
    health,
    items,
    lists,
    looking,
    models,
    persons,
    rollout,
)
from isthmus.service.routes.base import NAMED, Rest
from isthmus.service.schemas import ProblemOut
from isthmus.service.watch.traces import Traced

#: Groups of operations, in the order of the OpenAPI document.
GROUPS: Final = (lists, health, drift, events, items, persons, consents, models, rollout, looking, console)
_SCHEMES: Final[dict[str, dict[str, str]]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, or a token of the issuer."},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A key."},
}
_REF: Final = "#/components/schemas/{model}"


def create_app(service: Service, *, log_all: bool = False) -> FastAPI:
    """Return the application of ``service``; it starts and stops with the server."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="Isthmus",
        version=__version__,
        description="Events in, lists out. Errors have one form: application/problem+json.",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    describe = app.openapi
    app.openapi = lambda: _with_problems(describe())  # type: ignore[method-assign]
    register_url_convertor("rest", Rest())
    for group in GROUPS:
        group.add(app, service)
    handlers: dict[type[Exception], Handler] = {
        IsthmusError: _ours,
        RequestValidationError: _invalid,
        HTTPException: _theirs,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Direct, endpoints=endpoints(app), handlers=handlers)
    app.add_middleware(Gate, guard=service.guard, log_all=log_all)
    if service.tracing is not None:
        app.add_middleware(Traced, tracing=service.tracing)
    return app


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Add the one form of errors; FastAPI's own form for invalid requests, which is never sent, goes."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for body in (*(body for group in GROUPS for body in group.BODIES), ProblemOut):
        said = body.model_json_schema(ref_template=_REF)
        schemas.update({**said.pop("$defs", {}), body.__name__: said})
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    document["components"]["securitySchemes"] = _SCHEMES
    for one in OPERATIONS:
        if one.scope and one.path in document["paths"]:
            document["paths"][one.path][one.method.lower()]["security"] = [{name: [one.scope]} for name in _SCHEMES]
    return document


def _request_id(request: Request) -> str:
    caller = request.scope.get("caller")
    return caller.request if isinstance(caller, Caller) else ""


async def _ours(request: Request, error: Exception) -> Response:
    return problem(cast("IsthmusError", error), _request_id(request))


async def _invalid(request: Request, error: Exception) -> Response:
    """Name the first field that is wrong; what was sent is not repeated."""
    first = cast("RequestValidationError", error).errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid":
        said = f"the body is no JSON: {first['ctx']['error']}"
        return problem(RequestError(400, said, fix="see /openapi.json for an example"), _request_id(request))
    if first.get("ctx", {}).get("pattern") == NAMED:
        return problem(InputError("names nothing", where=where, fix="write PLATFORM:ID"), _request_id(request))
    said = str(first["msg"]).removeprefix("Value error, ")
    return problem(InputError(said, where=where, fix="see /openapi.json"), _request_id(request))


async def _theirs(request: Request, error: Exception) -> Response:
    cause = error.__cause__
    if isinstance(cause, IsthmusError):
        return problem(cause, _request_id(request))
    failed = cast("HTTPException", error)
    ours = RequestError(failed.status_code, str(failed.detail).lower(), headers=failed.headers)
    return problem(ours, _request_id(request))
