"""What a person says about the use of events of one platform for lists on another."""

from __future__ import annotations

import uuid
from typing import Annotated, Final

from fastapi import FastAPI, Path, Request
from starlette.responses import Response

from isthmus.errors import NotFoundError, nearest
from isthmus.recommender.consents import ANY
from isthmus.service.changes import account_of, consented, linked
from isthmus.service.core import Service
from isthmus.service.lists.answers import as_known, require_platforms
from isthmus.service.lists.items import Account
from isthmus.service.lists.live import clock
from isthmus.service.lock.consents import Said
from isthmus.service.lock.gate import Caller
from isthmus.service.log.records import pseudonym
from isthmus.service.problems import RequestError
from isthmus.service.routes.base import NAMED, Bodies, answer, caller_of, read, says, takes
from isthmus.service.schemas_consents import ConsentsIn, ConsentsOut
from isthmus.service.tenant import Tenant

PersonName = Annotated[str, Path(description="PLATFORM:USER", examples=["shop:u17"], max_length=1024, pattern=NAMED)]

#: Bodies the group reads.
BODIES: Final[Bodies] = (ConsentsIn,)


def add(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    @app.get("/v1/consents/{person:rest}", response_model=ConsentsOut, tags=["consents"], responses=says(404, 422))
    async def consents(person: PersonName, request: Request) -> Response:
        """Return what a person said, and which use that leaves."""
        tenant, caller = caller_of(service, request)
        return answer(_told(tenant, caller, linked(tenant, caller, person)[0]))

    @app.put(
        "/v1/consents/{person:rest}",
        response_model=ConsentsOut,
        tags=["consents"],
        responses=says(404, 408, 413, 415, 422, 507),
        openapi_extra=takes(ConsentsIn),
    )
    async def consents_put(person: PersonName, request: Request) -> Response:
        """Record what a person says; when the answer comes it is on disk, and every list keeps to it."""
        tenant, caller = caller_of(service, request)
        account = account_of(person)
        body = await read(request, ConsentsIn)
        now = clock()
        said = [Said(account, one.from_platform, one.to_platform, one.allowed, now) for one in body.consents]
        _check(tenant, caller, account, said)
        await tenant.write([one.entry(uuid.uuid4().hex) for one in said])
        told: dict[str, object] = {"person": pseudonym(tenant.log.secret, *account)}
        told["said"] = [[*one.pair, one.allowed] for one in said]
        await service.notes.add(tenant.name, caller.name, "consents recorded", told)
        return answer(_told(tenant, caller, account))


def _check(tenant: Tenant, caller: Caller, account: Account, said: list[Said]) -> None:
    """Refuse what may not be said, or would protect nobody.

    A key of one platform cannot open another one's events to itself: it may allow the use of its own events only, and
    forbid what concerns its own platform.
    """
    require_platforms(caller, [account[0]])
    known = tenant.live.uses.platforms
    for one in said:
        for name in one.pair:
            if name not in (*known, ANY):
                fix = f"platforms: {', '.join(known)}, or * for any"
                raise NotFoundError(f"no platform '{name}'{nearest(name, known)}", where="consents", fix=fix)
        mine = one.from_platform in caller.platforms or (not one.allowed and one.to_platform in caller.platforms)
        if caller.platforms and not mine:
            raise RequestError(403, f"the key may not speak for '{one.from_platform}'")


def _told(tenant: Tenant, caller: Caller, account: Account) -> dict[str, object]:
    live = tenant.live
    uses = live.uses
    person = live.state.person(*account)
    denied = uses.of(-1 if person is None else person)
    return {
        **as_known(tenant, live),
        "required": live.state.consents.required,
        "consents": consented(tenant, caller, account),
        "uses": [
            {"from_platform": start, "to_platform": end, "allowed": not denied[row, column]}
            for row, start in enumerate(uses.platforms)
            for column, end in enumerate(uses.platforms)
            if row != column and (not caller.platforms or {start, end} & set(caller.platforms))
        ],
    }
