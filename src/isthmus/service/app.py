"""The web application: every route, and one form for every error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeVar, cast

import orjson
from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from isthmus import __version__
from isthmus.errors import InputError, IsthmusError
from isthmus.service import answers, changes
from isthmus.service.core import Service
from isthmus.service.gate import Caller, Gate
from isthmus.service.problems import MEDIA, TITLES, RequestError, problem
from isthmus.service.schemas import (
    ActivatedOut,
    ErasedOut,
    EventsIn,
    EventsOut,
    ExplainIn,
    ExplainOut,
    Health,
    ItemsIn,
    ItemsOut,
    ModelsOut,
    PersonOut,
    ProblemOut,
    RecommendIn,
    RecommendOut,
    RemovedOut,
    SimilarIn,
    SimilarOut,
)
from isthmus.service.tenant import Tenant

Responses = dict[int | str, dict[str, object]]
_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{model}"
B = TypeVar("B", bound=BaseModel)
PersonName = Annotated[str, Path(description="PLATFORM:USER", examples=["shop:u17"], max_length=1024)]
ItemPath = Annotated[str, Path(description="PLATFORM:ITEM", examples=["shop:b3"], max_length=1024)]
ModelPath = Annotated[str, Path(description="Folder of the model.", examples=["model-2"], max_length=255)]


def _says(*statuses: int) -> Responses:
    """Return the OpenAPI form of the errors of an operation that needs a key."""
    every = sorted({400, 401, 403, 421, 429, 500, 503, *statuses})
    schema = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    return {status: {"description": TITLES[status], "content": {MEDIA: schema}} for status in every}


def _takes(body: type[BaseModel]) -> dict[str, object]:
    """Return the OpenAPI form of a body that :func:`_read` reads."""
    schema = {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}
    return {"requestBody": {"required": True, "content": {_JSON: schema}}}


async def _read(request: Request, body: type[B]) -> B:
    """Return the body of a request; JSON is parsed and checked in one pass, which takes a third of FastAPI's time."""
    kind = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"")
    if kind.partition(b";")[0].strip().lower() != _JSON.encode():
        raise RequestError(415, "the body is no JSON", fix=f"send it as {_JSON}")
    parts, more = [], True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the connection ended before the body did")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    try:
        return body.model_validate_json(b"".join(parts))
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


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
    _lists(app, service)
    _health(app, service)
    _events(app, service)
    _items(app, service)
    _persons(app, service)
    _models(app, service)
    app.add_exception_handler(IsthmusError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _theirs)
    app.add_middleware(Gate, guard=service.guard, log_all=log_all)
    return app


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Add the one form of errors; FastAPI's own form for invalid requests, which is never sent, goes."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for body in (RecommendIn, SimilarIn, ExplainIn, EventsIn, ItemsIn, ProblemOut):
        said = body.model_json_schema(ref_template=_REF)
        schemas.update({**said.pop("$defs", {}), body.__name__: said})
    return document


def _caller(request: Request) -> Caller:
    return cast("Caller", request.scope["caller"])


def _json(content: object, status: int = 200) -> Response:
    said = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(said, status, media_type=_JSON)


def _of(service: Service, request: Request) -> tuple[Tenant, Caller]:
    caller = _caller(request)
    return service.tenant(caller.tenant), caller


def _health(app: FastAPI, service: Service) -> None:
    @app.get("/livez", response_model=Health, tags=["health"], responses={421: _says()[421]})
    async def livez() -> Response:
        """Say that the process runs."""
        return _json({"status": "ok"})

    @app.get("/readyz", response_model=Health, tags=["health"], responses={503: {"model": Health}, 421: _says()[421]})
    async def readyz() -> Response:
        """Say whether requests should be sent here: 503 while the service ends."""
        ending = service.doors.draining
        return _json({"status": "draining" if ending else "ok"}, 503 if ending else 200)

    @app.get("/metrics", tags=["health"], response_class=Response, responses=_says())
    async def metrics() -> Response:
        """Return figures for Prometheus."""
        service.monitor.in_flight.set(service.doors.inside)
        return Response(service.monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _lists(app: FastAPI, service: Service) -> None:
    said = _says(404, 408, 413, 415, 422)

    @app.post(
        "/v1/recommend", response_model=RecommendOut, tags=["lists"], responses=said, openapi_extra=_takes(RecommendIn)
    )
    async def recommend(request: Request) -> Response:
        """Return lists: all accepted events count."""
        tenant, caller = _of(service, request)
        return _json(await answers.recommend(tenant, caller, await _read(request, RecommendIn), service.monitor))

    @app.post("/v1/similar", response_model=SimilarOut, tags=["lists"], responses=said, openapi_extra=_takes(SimilarIn))
    async def similar(request: Request) -> Response:
        """Return what goes with an item."""
        tenant, _ = _of(service, request)
        return _json(await answers.similar(tenant, await _read(request, SimilarIn)))

    @app.post("/v1/explain", response_model=ExplainOut, tags=["lists"], responses=said, openapi_extra=_takes(ExplainIn))
    async def explain(request: Request) -> Response:
        """Return which items of the history speak for an item."""
        tenant, caller = _of(service, request)
        return _json(await answers.explain(tenant, caller, await _read(request, ExplainIn)))


def _events(app: FastAPI, service: Service) -> None:
    said = _says(404, 408, 413, 415, 422, 507)

    @app.post(
        "/v1/events",
        response_model=EventsOut,
        status_code=202,
        tags=["events"],
        responses=said,
        openapi_extra=_takes(EventsIn),
    )
    async def events(request: Request) -> Response:
        """Take in events: the answer comes when they are on disk, and the next list counts them."""
        tenant, caller = _of(service, request)
        return _json(await changes.take_events(tenant, caller, await _read(request, EventsIn), service.monitor), 202)


def _items(app: FastAPI, service: Service) -> None:
    said = _says(404, 408, 413, 415, 422, 507)

    @app.put(
        "/v1/items",
        response_model=ItemsOut,
        tags=["items"],
        responses={**said, 409: _says(409)[409]},
        openapi_extra=_takes(ItemsIn),
    )
    async def items_put(request: Request) -> Response:
        """Make items known by their text; when the answer comes they can be listed."""
        tenant, caller = _of(service, request)
        done = await changes.put_items(tenant, await _read(request, ItemsIn))
        await service.note(tenant.name, caller.name, "items written", {"items": done["written"]})
        return _json(done)

    @app.delete("/v1/items/{item:path}", response_model=RemovedOut, tags=["items"], responses=said)
    async def items_delete(item: ItemPath, request: Request) -> Response:
        """Take an item off all lists."""
        tenant, caller = _of(service, request)
        done = await changes.remove_item(tenant, item)
        await service.note(tenant.name, caller.name, "item removed", {"data_version": done["data_version"]})
        return _json(done)


def _persons(app: FastAPI, service: Service) -> None:
    @app.get("/v1/persons/{person:path}", response_model=PersonOut, tags=["persons"], responses=_says(404, 422))
    async def persons_export(person: PersonName, request: Request) -> Response:
        """Return all that is known of a person."""
        tenant, caller = _of(service, request)
        told = changes.export(tenant, caller, person)
        await service.note(tenant.name, caller.name, "person exported", {"request": caller.request})
        return _json(told)

    @app.delete("/v1/persons/{person:path}", response_model=ErasedOut, tags=["persons"], responses=_says(404, 422, 507))
    async def persons_erase(person: PersonName, request: Request) -> Response:
        """Erase a person: the events leave the disk, and no answer knows the person any more."""
        tenant, caller = _of(service, request)
        done = await changes.erase(tenant, caller, person)
        await service.note(tenant.name, caller.name, "person erased", {"receipt": done["receipt"]})
        return _json(done)


def _models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=ModelsOut, tags=["models"], responses=_says())
    async def models(request: Request) -> Response:
        """Return the models that can be activated."""
        tenant, _ = _of(service, request)
        return _json(changes.models(tenant))

    @app.post("/v1/models/rollback", response_model=ActivatedOut, tags=["models"], responses=_says(404, 422, 507))
    async def models_rollback(request: Request) -> Response:
        """Let the model before answer again."""
        tenant, caller = _of(service, request)
        done = await changes.rollback(tenant)
        await service.note(tenant.name, caller.name, "model rolled back", done)
        return _json(done)

    @app.post(
        "/v1/models/{name}/activate", response_model=ActivatedOut, tags=["models"], responses=_says(404, 422, 507)
    )
    async def models_activate(name: ModelPath, request: Request) -> Response:
        """Load a model beside the one that answers, check it, and let it answer; no request fails meanwhile."""
        tenant, caller = _of(service, request)
        done = await changes.activate(tenant, name)
        await service.note(tenant.name, caller.name, "model activated", done)
        return _json(done)


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
        return problem(RequestError(400, "the body is no JSON"), _request_id(request))
    said = str(first["msg"]).removeprefix("Value error, ")
    return problem(InputError(said, where=where, fix="see /openapi.json"), _request_id(request))


async def _theirs(request: Request, error: Exception) -> Response:
    cause = error.__cause__
    if isinstance(cause, IsthmusError):
        return problem(cause, _request_id(request))
    failed = cast("HTTPException", error)
    ours = RequestError(failed.status_code, str(failed.detail).lower(), headers=failed.headers)
    return problem(ours, _request_id(request))
