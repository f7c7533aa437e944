"""What is known of a person, and forgetting it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from isthmus.service import changes
from isthmus.service.core import Service
from isthmus.service.log.records import pseudonym
from isthmus.service.routes.base import NAMED, Bodies, Responses, answer, caller_of, says
from isthmus.service.schemas import ErasedOut, PersonOut
from isthmus.service.tenant import Tenant

PersonName = Annotated[str, Path(description="PLATFORM:USER", examples=["shop:u17"], max_length=1024, pattern=NAMED)]

Form = Annotated[Literal["json", "jsonl"], Query(alias="format", description="`jsonl`: the events only, one a line.")]
LINES: Final = "application/x-ndjson"

#: Bodies the group reads.
BODIES: Final[Bodies] = ()


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/v1/persons/{person:rest}", response_model=PersonOut, tags=["persons"], responses=_exported())
    async def persons_export(person: PersonName, request: Request, form: Form = "json") -> Response:
        """Return all that is known of a person; with `format=jsonl` the events, one a line."""
        tenant, caller = caller_of(service, request)
        told = await changes.export(tenant, caller, person)
        await service.note(tenant.name, caller.name, "person exported", _whom(tenant, person, request=caller.request))
        return answer(told) if form == "json" else Response(changes.as_lines(told), media_type=LINES)

    @app.delete("/v1/persons/{person:rest}", response_model=ErasedOut, tags=["persons"], responses=says(404, 422, 507))
    async def persons_erase(person: PersonName, request: Request) -> Response:
        """Erase a person: the events leave the disk, and no answer knows the person any more."""
        tenant, caller = caller_of(service, request)
        changes.linked(tenant, caller, person)
        whom = _whom(tenant, person, request=caller.request)
        async with service.noting(tenant.name, caller.name, "person erased", whom) as noted:
            done = await changes.erase(tenant, caller, person)
            noted["receipt"] = done["receipt"]
        return answer(done)


def _exported() -> Responses:
    """Return what an export may answer: each line of one is an event as `Deed` describes it."""
    line = {"schema": {"$ref": "#/components/schemas/Deed"}}
    return {**says(404, 422, 507), 200: {"description": "Successful Response", "content": {LINES: line}}}


def _whom(tenant: Tenant, person: str, **more: str) -> dict[str, object]:
    """Return what the audit log says: whom it was about, under a keyed name."""
    return {"person": pseudonym(tenant.log.secret, *changes.account_of(person)), **more}
