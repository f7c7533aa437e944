"""Which model answers."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import FastAPI, Path, Request
from starlette.responses import Response

from isthmus.service import changes
from isthmus.service.core import Service
from isthmus.service.routes.base import Bodies, answer, caller_of, says
from isthmus.service.schemas_models import ActivatedOut, ModelsOut

ModelPath = Annotated[str, Path(description="Folder of the model.", examples=["model-2"], max_length=255)]

#: Bodies the group reads.
BODIES: Final[Bodies] = ()


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/v1/models", response_model=ModelsOut, tags=["models"], responses=says())
    async def models(request: Request) -> Response:
        """Return the models that can be activated."""
        tenant, _ = caller_of(service, request)
        return answer(changes.models(tenant))

    @app.post("/v1/models/rollback", response_model=ActivatedOut, tags=["models"], responses=says(404, 409, 422, 507))
    async def models_rollback(request: Request) -> Response:
        """Let the model before answer again."""
        tenant, caller = caller_of(service, request)
        async with service.noting(tenant.name, caller.name, "model rolled back", {"request": caller.request}) as noted:
            done = await changes.rollback(tenant)
            noted.update(done)
        return answer(done)

    @app.post("/v1/models/{name}/activate", response_model=ActivatedOut, tags=["models"], responses=says(404, 422, 507))
    async def models_activate(name: ModelPath, request: Request) -> Response:
        """Load a model beside the one that answers, check it, and let it answer; no request fails meanwhile."""
        tenant, caller = caller_of(service, request)
        tenant.models.version(name)
        asked = {"model": name, "request": caller.request}
        async with service.noting(tenant.name, caller.name, "model activated", asked) as noted:
            done = await changes.activate(tenant, name)
            noted.update(done)
        return answer(done)
