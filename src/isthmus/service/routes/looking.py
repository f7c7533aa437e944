"""Looking at the service: what a key opens, the last hour, models side by side, items, audit log, reports."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import FastAPI, Query, Request
from starlette.responses import Response
from starlette.routing import Route

from isthmus.service.core import Service
from isthmus.service.lock.gate import address_of, token_of
from isthmus.service.looking import compare as comparing
from isthmus.service.looking import pages as looking
from isthmus.service.looking.forms import (
    AccessOut,
    AuditOut,
    CompareIn,
    CompareOut,
    FoundOut,
    ItemOut,
    OverviewOut,
    ReportOut,
)
from isthmus.service.routes.base import Bodies, answer, caller_of, read, says, takes
from isthmus.service.routes.items import ItemPath
from isthmus.service.routes.models import ModelPath

Words = Annotated[str, Query(description="Part of a title or id.", min_length=1, max_length=200, examples=["sea"])]

Before = Annotated[int | None, Query(description="Entries with smaller numbers only.", ge=1, lt=1 << 62)]
Limit = Annotated[int, Query(description="Entries at most.", ge=1, le=looking.ENTRIES)]
Verify = Annotated[bool, Query(description="Go through the whole chain: the longer the log, the longer it takes.")]

#: Bodies the group reads.
BODIES: Final[Bodies] = (CompareIn,)


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    candidates = comparing.Candidates()
    _of_service(app, service)
    _of_items(app, service)

    @app.post(
        "/v1/compare",
        response_model=CompareOut,
        tags=["console"],
        responses=says(404, 408, 413, 415, 422),
        openapi_extra=takes(CompareIn),
    )
    async def compare(request: Request) -> Response:
        """Return lists of up to four models side by side, all from one history; nothing of it is kept."""
        tenant, caller = caller_of(service, request)
        body = await read(request, CompareIn)
        async with service.spending(caller, "lists", 1):
            return answer(await comparing.compare(tenant, candidates, caller, body))

    @app.get("/v1/models/{name}/report", response_model=ReportOut, tags=["models"], responses=says(404, 422))
    async def models_report(name: ModelPath, request: Request) -> Response:
        """Return what a model reached in its report, by cohort, and its weights if it is the one that answers."""
        tenant, _ = caller_of(service, request)
        return answer(await asyncio.to_thread(looking.report, tenant, name))


def _of_service(app: FastAPI, service: Service) -> None:
    @app.get("/v1/access", response_model=AccessOut, tags=["console"], responses=says())
    async def access(request: Request) -> Response:
        """Say what the key of this request opens; without a key, or with a wrong one, what is open to everybody."""
        paths = {(way, one.path) for one in app.routes if isinstance(one, Route) for way in one.methods or ()}
        plain = {(way, path.replace(":rest}", "}")) for way, path in paths}
        token = token_of(dict(request.scope["headers"])) if service.vault.locked else ""
        key = service.guesses.find(address_of(request.scope), token) if token else None
        return answer(looking.access(service, key, plain))

    @app.get("/v1/overview", response_model=OverviewOut, tags=["console"], responses=says(404))
    async def overview(request: Request) -> Response:
        """Return the last hour by the minute: traffic, durations, errors; and what there is, and what waits."""
        tenant, _ = caller_of(service, request)
        return answer(looking.overview(service, tenant))

    @app.get("/v1/audit", response_model=AuditOut, tags=["console"], responses=says(404, 422))
    async def audit(
        request: Request, before: Before = None, limit: Limit = looking.ENTRIES, verify: Verify = False
    ) -> Response:
        """Return the newest entries of the audit log, checked; with `verify` after its whole chain was."""
        tenant, _ = caller_of(service, request)
        return answer(await asyncio.to_thread(looking.audit, service, tenant, before, limit, whole=verify))


def _of_items(app: FastAPI, service: Service) -> None:
    @app.get("/v1/items", response_model=FoundOut, tags=["items"], responses=says(404, 422))
    async def items_find(q: Words, request: Request) -> Response:
        """Find items by a part of their title or id."""
        tenant, _ = caller_of(service, request)
        return answer(await looking.find(tenant, q))

    @app.get("/v1/items/{item:rest}", response_model=ItemOut, tags=["items"], responses=says(404, 422))
    async def items_get(item: ItemPath, request: Request) -> Response:
        """Return what is known of an item, and how often it was listed of late."""
        tenant, _ = caller_of(service, request)
        return answer(looking.item(tenant, item))
