"""Events come in."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from isthmus.service import changes
from isthmus.service.core import Service
from isthmus.service.routes.base import Bodies, answer, caller_of, read, says, takes
from isthmus.service.schemas import EventsIn, EventsOut

#: Bodies the group reads.
BODIES: Final[Bodies] = (EventsIn,)


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    said = says(404, 408, 413, 415, 422, 507)

    @app.post(
        "/v1/events",
        response_model=EventsOut,
        status_code=202,
        tags=["events"],
        responses=said,
        openapi_extra=takes(EventsIn),
    )
    async def events(request: Request) -> Response:
        """Take in events: the answer comes when they are on disk, and the next list counts them."""
        tenant, caller = caller_of(service, request)
        changes.refuse_late(tenant)
        body = await read(request, EventsIn)
        async with service.spending(caller, "events", len(body.events)):
            return answer(await changes.take_events(tenant, caller, body, service.monitor), 202)
