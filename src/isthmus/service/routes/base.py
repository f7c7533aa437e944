"""What routes share: how a body is read, an answer written, and errors described in the OpenAPI document."""

from __future__ import annotations

from typing import Final, TypeVar, cast

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.convertors import Convertor
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.lock.gate import Caller
from isthmus.service.problems import MEDIA, TITLES, RequestError
from isthmus.service.tenant import Tenant

Responses = dict[int | str, dict[str, object]]
JSON: Final = "application/json"
#: ``PLATFORM:ID`` in a path.
NAMED: Final = r"^[^:]+:[\s\S]+$"
#: Bytes of a body without texts of items, at most: 1,000 events of 1,000 bytes each.
LARGEST: Final = 1 << 20
#: Wrong things in a body that are looked at.
ERRORS: Final = 1000
#: Bodies that are described in the OpenAPI document by hand, because :func:`read` reads them.
Bodies = tuple[type[BaseModel], ...]
B = TypeVar("B", bound=BaseModel)


class Rest(Convertor[str]):
    """The rest of a path, line breaks and all: ids may hold any character."""

    regex = r"(?s:.+)"

    def convert(self, value: str) -> str:
        """Return the text."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text."""
        return value


def says(*statuses: int) -> Responses:
    """Return the OpenAPI form of the errors of an operation that needs a key."""
    every = sorted({400, 401, 403, 421, 429, 500, 503, *statuses})
    schema = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    return {status: {"description": TITLES[status], "content": {MEDIA: schema}} for status in every}


def takes(body: type[BaseModel]) -> dict[str, object]:
    """Return the OpenAPI form of a body that :func:`read` reads."""
    schema = {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}
    return {"requestBody": {"required": True, "content": {JSON: schema}}}


async def read(request: Request, body: type[B], *, most: int = LARGEST) -> B:
    """Return the body of a request; JSON is parsed and checked in one pass, which takes a third of FastAPI's time.

    A body of more than ``most`` bytes is refused: parsed it takes forty times as much.
    """
    kind = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"")
    if kind.partition(b";")[0].strip().lower() != JSON.encode():
        raise RequestError(415, "the body is no JSON", fix=f"send it as {JSON}")
    parts, more, size = [], True, 0
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the connection ended before the body did")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise RequestError(413, f"more than {most} bytes", fix="send less at a time")
        more = message.get("more_body", False)
    try:
        return body.model_validate_json(b"".join(parts))
    except ValidationError as error:
        if error.error_count() > ERRORS:  # to list them would take more memory than the body
            raise RequestError(422, "much of it is wrong", fix="see /openapi.json") from None
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


def answer(content: object, status: int = 200) -> Response:
    """Return an answer of JSON."""
    said = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(said, status, media_type=JSON)


def caller_of(service: Service, request: Request) -> tuple[Tenant, Caller]:
    """Return whose data is asked for, and who asks."""
    caller = cast("Caller", request.scope["caller"])
    return service.tenant(caller.tenant), caller
