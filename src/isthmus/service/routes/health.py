"""Is it there, is it ready, how is it doing."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.routes.base import Bodies, answer, says
from isthmus.service.schemas import Health

#: Bodies the group reads.
BODIES: Final[Bodies] = ()


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/livez", response_model=Health, tags=["health"], responses={421: says()[421]})
    async def livez() -> Response:
        """Say that the process runs."""
        return answer({"status": "ok"})

    @app.get("/readyz", response_model=Health, tags=["health"], responses={503: {"model": Health}, 421: says()[421]})
    async def readyz() -> Response:
        """Say whether requests should be sent here: 503 while the service ends."""
        ending = service.doors.draining
        return answer({"status": "draining" if ending else "ok"}, 503 if ending else 200)

    @app.get("/metrics", tags=["health"], response_class=Response, responses=says())
    async def metrics() -> Response:
        """Return figures for Prometheus."""
        service.monitor.in_flight.set(service.doors.inside)
        return Response(service.monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
