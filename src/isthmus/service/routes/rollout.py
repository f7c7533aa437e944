"""Models that are tried beside the one that answers, and the gate they pass."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.rollout import trials
from isthmus.service.routes.base import Bodies, answer, caller_of, read, says, takes
from isthmus.service.routes.models import ModelPath
from isthmus.service.schemas_models import CanaryIn, JudgedOut, ShadowIn, TrialOut

Force = Annotated[bool, Query(description="Let it answer even if it does not pass.")]

#: Bodies the group reads.
BODIES: Final[Bodies] = (CanaryIn, ShadowIn)


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    _of_the_gate(app, service)
    _of_canaries(app, service)
    _of_shadows(app, service)


def _of_the_gate(app: FastAPI, service: Service) -> None:
    said = says(404, 409, 422, 507)

    @app.post("/v1/models/{name}/check", response_model=JudgedOut, tags=["models"], responses=said)
    async def models_check(name: ModelPath, request: Request) -> Response:
        """Return what a model shows beside the one that answers; nothing changes."""
        tenant, _ = caller_of(service, request)
        return answer(await trials.check(tenant, name))

    @app.post("/v1/models/{name}/promote", response_model=JudgedOut, tags=["models"], responses=said)
    async def models_promote(name: ModelPath, request: Request, force: Force = False) -> Response:
        """Let a model answer everybody if it passes the gate; else say what speaks against it (409)."""
        tenant, caller = caller_of(service, request)
        done = await trials.promote(tenant, name, force=force)
        noted = {"model": done["model"], "model_version": done["model_version"], "passed": done["passed"]}
        await service.note(tenant.name, caller.name, "model promoted", noted)
        return answer(done)


def _of_canaries(app: FastAPI, service: Service) -> None:
    said = says(404, 408, 409, 413, 415, 422, 507)

    @app.post(
        "/v1/models/{name}/canary",
        response_model=TrialOut,
        tags=["models"],
        responses=said,
        openapi_extra=takes(CanaryIn),
    )
    async def models_canary(name: ModelPath, request: Request) -> Response:
        """Let a model answer a share of the persons, the same ones every time; it goes when it does worse."""
        tenant, caller = caller_of(service, request)
        done = await trials.start_canary(tenant, name, await read(request, CanaryIn))
        await service.note(tenant.name, caller.name, "canary started", done)
        return answer(done)

    @app.delete(
        "/v1/models/{name}/canary", response_model=TrialOut, tags=["models"], responses=says(404, 409, 422, 507)
    )
    async def models_canary_end(name: ModelPath, request: Request) -> Response:
        """Let the model that answers make the canary's lists again."""
        tenant, caller = caller_of(service, request)
        done = await trials.end(tenant, name, "canary")
        await service.note(tenant.name, caller.name, "canary ended", done)
        return answer(done)


def _of_shadows(app: FastAPI, service: Service) -> None:
    said = says(404, 408, 409, 413, 415, 422, 507)

    @app.post(
        "/v1/models/{name}/shadow",
        response_model=TrialOut,
        tags=["models"],
        responses=said,
        openapi_extra=takes(ShadowIn),
    )
    async def models_shadow(name: ModelPath, request: Request) -> Response:
        """Let a model make a share of the lists too, after their answer is sent; nobody sees them."""
        tenant, caller = caller_of(service, request)
        done = await trials.start_shadow(tenant, name, await read(request, ShadowIn))
        await service.note(tenant.name, caller.name, "shadow started", done)
        return answer(done)

    @app.delete(
        "/v1/models/{name}/shadow", response_model=TrialOut, tags=["models"], responses=says(404, 409, 422, 507)
    )
    async def models_shadow_end(name: ModelPath, request: Request) -> Response:
        """Compare no more."""
        tenant, caller = caller_of(service, request)
        done = await trials.end(tenant, name, "shadow")
        await service.note(tenant.name, caller.name, "shadow ended", done)
        return answer(done)
