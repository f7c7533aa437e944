"""The verbs backup and restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from isthmus.cli.events import place_of_data
from isthmus.cli.show import Json, Verbose, facts, put_json, say, wants_json

if TYPE_CHECKING:
    from isthmus.files import Json as Content

app = typer.Typer()

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Data of a service: sqlite:///DIR, its folder, or postgresql://...")
]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where DATA is a database: folder of keys, audit log and segments.")
]


@app.command("backup")
def backup_(
    data: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
    folder: Folder = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Copy events, keys, audit log and segments of a service, which goes on meanwhile."""
    place = place_of_data(data, folder)
    from isthmus.service.log.backup import backup

    _tell(backup(place, out), "backup", out)


@app.command("restore")
def restore_(
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="Folder written by isthmus backup.")],
    data: Data,
    folder: Folder = None,
    erased: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Newer data, or a newer backup: who was erased there is erased again."),
    ] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Put a backup into a new place, of the same kind of store or the other one; it is checked first."""
    place = place_of_data(data, folder)
    from isthmus.service.log.backup import restore

    newer = None if erased is None else place_of_data(erased, None)
    _tell(restore(backup, place, newer), "restored", place.folder)


def _tell(said: Content, what: str, where: Path) -> None:
    logs = cast("dict[str, int]", said["logs"])
    files = len(cast("dict[str, str]", said["files"]))
    if wants_json():
        put_json({"folder": str(where), "created": said["created"], "logs": logs, "files": files})
        return
    facts(what, {**{f"{name} until record": seq for name, seq in logs.items()}, "files": files})
    say(f"{what}: {where}")
