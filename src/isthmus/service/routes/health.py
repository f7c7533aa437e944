"""Is it there, is it ready, how is it doing."""

from __future__ import annotations

from typing import Final, cast

from fastapi import FastAPI, Request
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.lock.gate import Caller
from isthmus.service.lock.key import EVERY
from isthmus.service.routes.base import Bodies, answer, says
from isthmus.service.schemas import Health, LiveOut, ReadyOut
from isthmus.service.watch.health import reasons, simpler

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
        """Say whether requests should be sent here; if not, 503 and why."""
        found = reasons(service)
        status = "draining" if service.doors.draining else "unready" if found else "ok"
        said = {"status": status, "reasons": found, "degraded": simpler(service)}
        return answer(said, 503 if found else 200)

    @app.get("/v2/health/live", response_model=LiveOut, tags=["health"], responses={421: says()[421]})
    async def v2_live() -> Response:
        """Say that the process runs, in the words of KServe."""
        return answer({"live": True})

    @app.get(
        "/v2/health/ready",
        response_model=ReadyOut,
        tags=["health"],
        responses={503: {"model": ReadyOut}, 421: says()[421]},
    )
    async def v2_ready() -> Response:
        """Say whether requests should be sent here, in the words of KServe."""
        ready = not reasons(service)
        return answer({"ready": ready}, 200 if ready else 503)

    @app.get("/metrics", tags=["health"], response_class=Response, responses=says())
    async def metrics(request: Request) -> Response:
        """Return figures for Prometheus: to a key of one of several tenants only those of its tenant."""
        caller = cast("Caller", request.scope["caller"])
        of = None if caller.tenant == EVERY or not service.vault.locked else service.tenant(caller.tenant).name
        said = service.monitor.text(None if len(service.tenants) == 1 else of)
        return Response(said, media_type="text/plain; version=0.0.4; charset=utf-8")
