"""Verbs about the catalogue of a model: items add, items list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json

app = typer.Typer()
verbs = typer.Typer(help="The items a model serves.", no_args_is_help=True)
app.add_typer(verbs, name="items")

Folder = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")]


@verbs.command("add")
def add_(
    model: Folder,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="New items: platform, item, domain, title, text, categories.")
    ],
    out: Annotated[Path, typer.Option(metavar="MODEL2", help="Folder of the model that knows them too.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Take new items into a model, in seconds: they are placed by their texts, nothing is learned again."""
    from isthmus.files import require_free
    from isthmus.pipeline.frames import read_items
    from isthmus.recommender import Recommender

    require_free(out)
    items = read_items(file)
    longer = Recommender.open(model).add_items(items).save(out)
    if wants_json():
        put_json({"model": str(out), "added": items.height, "items": longer.items.height})
        return
    say(f"{items.height:,} items added, {longer.items.height:,} in all: {out}")


@verbs.command("list")
def list_(
    model: Folder,
    new: Annotated[bool, typer.Option("--new", help="Only items of which nothing was learned.")] = False,
    most: Annotated[int, typer.Option("-n", min=1, help="Rows to show at most.")] = 50,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Show the items that a model may list, and which of them are new."""
    from isthmus.recommender import Recommender
    from isthmus.recommender.items import list_items

    found = list_items(Recommender.open(model).content, new=new)
    if wants_json():
        put_json(found.to_dicts())
        return
    table(f"{found.height:,} items", found.columns, found.head(most).rows())
