"""Lists, likeness and reasons."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.lists import answers
from isthmus.service.routes.base import Bodies, answer, caller_of, read, says, takes
from isthmus.service.schemas import ExplainIn, ExplainOut, RecommendIn, RecommendOut, SimilarIn, SimilarOut

#: Bodies the group reads.
BODIES: Final[Bodies] = (RecommendIn, SimilarIn, ExplainIn)


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    said = says(404, 408, 413, 415, 422, 507)

    @app.post(
        "/v1/recommend", response_model=RecommendOut, tags=["lists"], responses=said, openapi_extra=takes(RecommendIn)
    )
    async def recommend(request: Request) -> Response:
        """Return lists: all accepted events count."""
        tenant, caller = caller_of(service, request)
        body = await read(request, RecommendIn)
        domains = len(tenant.live.domains) if body.target is None else 1
        async with service.spending(caller, "lists", len(body.persons) * domains):
            return answer(await answers.recommend(tenant, caller, body, service.monitor))

    @app.post("/v1/similar", response_model=SimilarOut, tags=["lists"], responses=said, openapi_extra=takes(SimilarIn))
    async def similar(request: Request) -> Response:
        """Return what goes with an item."""
        tenant, caller = caller_of(service, request)
        body = await read(request, SimilarIn)
        async with service.spending(caller, "lists", 1):
            return answer(await answers.similar(tenant, body))

    @app.post("/v1/explain", response_model=ExplainOut, tags=["lists"], responses=said, openapi_extra=takes(ExplainIn))
    async def explain(request: Request) -> Response:
        """Return which items of the history speak for an item."""
        tenant, caller = caller_of(service, request)
        body = await read(request, ExplainIn)
        async with service.spending(caller, "lists", 1):
            return answer(await answers.explain(tenant, caller, body))
