"""Verbs about people: profile, ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, wants_json

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")]
Account = Annotated[str | None, typer.Option(metavar="PLATFORM:USER", help="One of the person's accounts.")]


@app.command("profile")
def profile_(
    model: Folder,
    person: Annotated[str | None, typer.Option(metavar="P", help="The person, as the identities name them.")] = None,
    account: Account = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Language of the text.")] = "en",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the profile goes: .json, or text with any other ending.")
    ] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Tell what one person likes, by platform and over time, with the events that show it."""
    from isthmus.files import new_file, write_json
    from isthmus.recommender import Recommender
    from isthmus.recommender.profile import Who, profile

    who = Who.parse(person, account)
    found = profile(Recommender.open(model), who)
    if out is not None and out.suffix == ".json":
        write_json(out, found.data)
    elif out is not None:
        with new_file(out) as part:
            part.write_text(found.tell(language), encoding="utf-8")
    if wants_json():
        put_json(found.data)
    elif out is None:
        say(found.tell(language).rstrip())
    else:
        say(f"profile: {out}")
