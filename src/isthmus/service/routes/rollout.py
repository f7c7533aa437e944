"""Models that are tried beside the one that answers, and the gate they pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from isthmus.service.core import Service
from isthmus.service.rollout import trials
from isthmus.service.rollout.pointer import Role
from isthmus.service.routes.base import Bodies, answer, caller_of, read, says, takes
from isthmus.service.routes.models import ModelPath
from isthmus.service.schemas_models import CanaryIn, JudgedOut, ShadowIn, TrialOut

Force = Annotated[bool, Query(description="Let it answer even if it does not pass.")]

#: Bodies the group reads.
BODIES: Final[Bodies] = (CanaryIn, ShadowIn)


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    _of_the_gate(app, service)
    for kind in _KINDS:
        _of_trials(app, service, kind)


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
        tenant.models.version(name)
        asked = {"model": name, "request": caller.request}
        async with service.noting(tenant.name, caller.name, "model promoted", asked) as noted:
            done = await trials.promote(tenant, name, force=force)
            noted.update(model_version=done["model_version"], passed=done["passed"])
        return answer(done)


@dataclass(frozen=True)
class _Kind:
    """A way of trying a model: its name, what its body is, how it begins, and what is said of both routes."""

    name: Role
    body: type[CanaryIn | ShadowIn]
    start: Callable[..., Awaitable[dict[str, object]]]
    starting: str
    ending: str


_KINDS: Final = (
    _Kind(
        "canary",
        CanaryIn,
        trials.start_canary,
        "Let a model answer a share of the persons, the same ones every time; it goes when it does worse.",
        "Let the model that answers make the canary's lists again.",
    ),
    _Kind(
        "shadow",
        ShadowIn,
        trials.start_shadow,
        "Let a model make a share of the lists too, after their answer is sent; nobody sees them.",
        "Compare no more.",
    ),
)


def _of_trials(app: FastAPI, service: Service, kind: _Kind) -> None:
    path, started = f"/v1/models/{{name}}/{kind.name}", says(404, 408, 409, 413, 415, 422, 507)

    @app.post(
        path,
        name=f"models_{kind.name}",
        description=kind.starting,
        response_model=TrialOut,
        tags=["models"],
        responses=started,
        openapi_extra=takes(kind.body),
    )
    async def start(name: ModelPath, request: Request) -> Response:
        tenant, caller = caller_of(service, request)
        body = await read(request, kind.body)
        tenant.models.version(name)
        asked = {"model": name, "request": caller.request}
        async with service.noting(tenant.name, caller.name, f"{kind.name} started", asked) as noted:
            done = await kind.start(tenant, name, body)
            noted.update(done)
        return answer(done)

    @app.delete(
        path,
        name=f"models_{kind.name}_end",
        description=kind.ending,
        response_model=TrialOut,
        tags=["models"],
        responses=says(404, 409, 422, 507),
    )
    async def end(name: ModelPath, request: Request) -> Response:
        tenant, caller = caller_of(service, request)
        async with service.noting(tenant.name, caller.name, f"{kind.name} ended", {"request": caller.request}) as noted:
            done = await trials.end(tenant, name, kind.name)
            noted.update(done)
        return answer(done)
