"""Items come and go."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import FastAPI, Path, Request
from starlette.responses import Response

from isthmus.service import changes
from isthmus.service.core import Service
from isthmus.service.lists.answers import require_platforms
from isthmus.service.routes.base import NAMED, Bodies, answer, caller_of, read, says, takes
from isthmus.service.schemas import ItemsIn, ItemsOut, RemovedOut

ItemPath = Annotated[str, Path(description="PLATFORM:ITEM", examples=["shop:b3"], max_length=1024, pattern=NAMED)]

#: Bodies the group reads.
BODIES: Final[Bodies] = (ItemsIn,)


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    said = says(404, 408, 413, 415, 422, 507)

    @app.put(
        "/v1/items",
        response_model=ItemsOut,
        tags=["items"],
        responses={**said, 409: says(409)[409]},
        openapi_extra=takes(ItemsIn),
    )
    async def items_put(request: Request) -> Response:
        """Make items known by their text; when the answer comes they can be listed."""
        tenant, caller = caller_of(service, request)
        given = await read(request, ItemsIn, most=service.settings.body)
        require_platforms(caller, sorted({one.platform for one in given.items}))
        done = await changes.put_items(tenant, given)
        await service.notes.add(tenant.name, caller.name, "items written", {"items": done["written"]})
        return answer(done)

    @app.delete("/v1/items/{item:rest}", response_model=RemovedOut, tags=["items"], responses=said)
    async def items_delete(item: ItemPath, request: Request) -> Response:
        """Take an item off all lists."""
        tenant, caller = caller_of(service, request)
        require_platforms(caller, [item.partition(":")[0]])
        done = await changes.remove_item(tenant, item)
        await service.notes.add(tenant.name, caller.name, "item removed", {"data_version": done["data_version"]})
        return answer(done)
