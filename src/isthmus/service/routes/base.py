"""What routes share: how a body is read, an answer written, and errors described in the OpenAPI document."""

from __future__ import annotations

from typing import Final, TypeVar, cast

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.gate import Caller
from isthmus.service.problems import MEDIA, TITLES, RequestError
from isthmus.service.tenant import Tenant

Responses = dict[int | str, dict[str, object]]
JSON: Final = "application/json"
#: ``PLATFORM:ID`` in a path.
NAMED: Final = r"^[^:]+:[\s\S]+$"
#: Bodies that are described in the OpenAPI document by hand, because :func:`read` reads them.
Bodies = tuple[type[BaseModel], ...]
B = TypeVar("B", bound=BaseModel)


def says(*statuses: int) -> Responses:
    """Return the OpenAPI form of the errors of an operation that needs a key."""
    every = sorted({400, 401, 403, 421, 429, 500, 503, *statuses})
    schema = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    return {status: {"description": TITLES[status], "content": {MEDIA: schema}} for status in every}


def takes(body: type[BaseModel]) -> dict[str, object]:
    """Return the OpenAPI form of a body that :func:`read` reads."""
    schema = {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}
    return {"requestBody": {"required": True, "content": {JSON: schema}}}


async def read(request: Request, body: type[B]) -> B:
    """Return the body of a request; JSON is parsed and checked in one pass, which takes a third of FastAPI's time."""
    kind = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"")
    if kind.partition(b";")[0].strip().lower() != JSON.encode():
        raise RequestError(415, "the body is no JSON", fix=f"send it as {JSON}")
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


def answer(content: object, status: int = 200) -> Response:
    """Return an answer of JSON."""
    said = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(said, status, media_type=JSON)


def caller_of(service: Service, request: Request) -> tuple[Tenant, Caller]:
    """Return whose data is asked for, and who asks."""
    caller = cast("Caller", request.scope["caller"])
    return service.tenant(caller.tenant), caller
