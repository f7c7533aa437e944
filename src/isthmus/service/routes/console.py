"""The console's files: read once, served from memory."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Final

from fastapi import FastAPI, Path
from starlette.responses import Response

from isthmus.errors import NotFoundError
from isthmus.service.core import Service
from isthmus.service.routes.base import Bodies, Responses, says

#: Bodies the group reads.
BODIES: Final[Bodies] = ()
_PAGE: Final = "index.html"
_KINDS: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}
FileName = Annotated[str, Path(description="File of the console.", examples=["console.css"], max_length=64)]


def assets() -> dict[str, bytes]:
    """Return the console's files by name.

    Examples
    --------
    >>> sorted(assets())[:3]
    ['api.js', 'app.js', 'charts.js']
    """
    folder = files("isthmus.service").joinpath("console")
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.name.rpartition(".")[2] in _KINDS}


def add(app: FastAPI, service: Service) -> None:
    """Add the routes, unless the service runs without a console."""
    if not service.settings.console:
        return
    known = assets()
    said: Responses = {421: says()[421], 503: says()[503]}

    @app.get("/console", tags=["console"], response_class=Response, responses=said)
    async def console() -> Response:
        """Return the page of the console."""
        return Response(known[_PAGE], media_type=_KINDS["html"])

    @app.get(
        "/console/{file}",
        tags=["console"],
        response_class=Response,
        responses={**said, 404: says(404)[404], 422: says(422)[422]},
    )
    async def console_file(file: FileName) -> Response:
        """Return a file of the console."""
        if file not in known:
            raise NotFoundError("no such file", fix="open /console")
        return Response(known[file], media_type=_KINDS[file.rpartition(".")[2]])
