"""The verbs of the event log: seal it into segments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.extras import needs
from isthmus.cli.show import Json, Verbose, facts, put_json, say, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.service.log.base import Place

app = typer.Typer()
group = typer.Typer(help="The event log of the service.", no_args_is_help=True)
app.add_typer(group, name="events")

Data = Annotated[str, typer.Option(metavar="URL", help="Data of the service: sqlite:///DIR, or postgresql://...")]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where --data is a database: folder of keys and segments.")
]


@group.command("seal")
def seal_(
    data: Data,
    folder: Folder = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose.")] = "default",
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Seal what the log took in since the last time into Parquet; a running service does so by itself."""
    place = place_of_data(data, folder)
    from isthmus.service.log.opening import open_log
    from isthmus.service.log.segments import Segments
    from isthmus.service.log.upkeep import FOLDER

    if not place.database and not (place.folder / f"{tenant}.db").is_file():
        raise InputError(f"no events of '{tenant}'", where=place.folder, fix="name the --data of a service")
    log = open_log(place, tenant)
    segments = Segments(place.folder / FOLDER / tenant)
    try:
        sealed = segments.seal(log)
    finally:
        log.close()
    manifest = segments.manifest
    said = {"sealed": sealed, "events": manifest.rows, "segments": len(manifest.segments)}
    if wants_json():
        put_json({**said, "folder": str(segments.folder)})
        return
    facts("segments", {**said, "until record": manifest.sealed_until})
    say(f"segments: {segments.folder}")


def place_of_data(data: str, folder: Path | None) -> Place:
    """Return the place that ``--data`` and ``--folder`` name."""
    with needs("service"):
        from isthmus.service.log.base import place_of
    if folder is None and "sqlite:///" not in data and "://" in data:
        raise InputError("a database needs a folder too", where="--folder", fix="name the --folder of isthmus serve")
    return place_of(data, folder, folder or Path())
