"""One form for every error of the service: problem+json (RFC 9457), made from the tree of :mod:`isthmus.errors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar, Final

from starlette.responses import Response

from isthmus.errors import InputError, IsthmusError
from isthmus.log import logger

MEDIA: Final = "application/problem+json"
#: What a status means, for errors that are not ours.
TITLES: Final[dict[int, str]] = {
    400: "bad request",
    401: "who are you",
    403: "not allowed",
    404: "not found",
    405: "method not allowed",
    408: "too slow",
    409: "conflict",
    411: "length needed",
    413: "too large",
    415: "media type not read",
    421: "another host",
    422: "cannot be used",
    429: "too many requests",
    500: "failed",
    503: "not now",
    507: "disk full",
}


class RequestError(InputError):
    """A request that is refused before it is looked at: the status says why."""

    def __init__(self, status: int, what: str, *, fix: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(what, fix=fix)
        self.status = status
        self.headers = dict(headers or {})


class BusyError(IsthmusError):
    """There is too much to do just now: come back later."""

    http_status: ClassVar[int] = 503
    #: Seconds.
    retry_after: ClassVar[int] = 1


class ConflictError(InputError):
    """What is asked for does not go together with what is there."""

    http_status: ClassVar[int] = 409


def status_of(error: IsthmusError) -> int:
    """Return the HTTP status of an error.

    Examples
    --------
    >>> status_of(BusyError("later")), status_of(RequestError(413, "too long"))
    (503, 413)
    """
    return error.status if isinstance(error, RequestError) else error.http_status


def problem(error: IsthmusError, request: str = "") -> Response:
    """Return ``error`` as an answer; ``request`` is the request's id. A failure of ours is logged and says no more."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, RequestError) else {}
    if isinstance(error, BusyError):
        headers["retry-after"] = str(error.retry_after)
    if status == 500:
        logger.error("request %s: %s", request, type(error).__name__)
        error = IsthmusError("something went wrong here", fix="tell the operator the request id")
    body = {
        "type": f"urn:isthmus:problem:{type(error).__name__.removesuffix('Error').lower()}",
        "title": TITLES.get(status, "failed"),
        "status": status,
        "detail": error.what,
        "where": error.where,
        "fix": error.fix,
        "request_id": request,
    }
    return Response(json.dumps(body), status, headers, media_type=MEDIA)
