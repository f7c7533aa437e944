"""Verbs about people: profile, ask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json

if TYPE_CHECKING:
    import polars as pl

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


@app.command("ask")
def ask_(
    model: Folder,
    target: Annotated[str, typer.Option(metavar="DOMAIN", help="Domain the list is for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many questions.")] = 5,
    about: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="Domain of the items asked about; default all.")
    ] = None,
    account: Account = None,
    answers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What was answered: platform, item, answer (yes, no or unknown)."),
    ] = None,
    length: Annotated[int, typer.Option("--list", min=0, help="Length of the list that the answers give.")] = 10,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the questions go as CSV, to fill in and give back.")
    ] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Choose the items to ask somebody about, and make a list from the answers."""
    from isthmus.pipeline.frames import read_answers
    from isthmus.recommender import Recommender
    from isthmus.recommender.asking import Interview
    from isthmus.recommender.profile import Who

    said = None if answers is None else read_answers(answers)
    who = None if account is None else Who.parse(None, account)
    interview = Interview(Recommender.open(model), target, about=about, who=who)
    asked = interview.questions(k, said)
    found = interview.recommend(said, k=length) if length and (said is not None or who is not None) else None
    if out is not None:
        _write_questions(asked, said, out)
    if wants_json():
        put_json({"questions": asked.to_dicts(), "list": None if found is None else found.to_dicts()})
        return
    table("ask about", asked.columns, asked.rows())
    if found is not None:
        table(f"list of {target}", found.columns, found.rows())
    if out is not None:
        say(f"fill in the column answer (yes, no, unknown) and give it back with --answers: {out}")


def _write_questions(asked: pl.DataFrame, said: pl.DataFrame | None, out: Path) -> None:
    """Write what was answered and what is asked now."""
    import polars as pl

    from isthmus.files import new_file
    from isthmus.pipeline.frames import harmless

    rows = asked.select("platform", "item", "title", answer=pl.lit(None, pl.String))
    if said is not None:
        rows = pl.concat([said.select("platform", "item", pl.lit(None, pl.String).alias("title"), "answer"), rows])
    with new_file(out) as part:
        harmless(rows).write_csv(part)
