"""Verbs that use a model: recommend, similar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json
from isthmus.errors import InputError

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")]
Length = Annotated[int, typer.Option("-k", min=1, help="Length of each list.")]
Items = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="New items: platform, item, domain, title, text, categories; nothing is fitted."),
]


@app.command("recommend")
def recommend_(
    model: Folder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the lists go: .parquet, .csv or .jsonl.")],
    users: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Accounts (platform, user); default everybody. Unknown ones are served."),
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="DOMAIN", help="One domain; default all.")] = None,
    k: Length = 10,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--include-seen", help="Whether items of the history are left out.")
    ] = True,
    events: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What happened since (platform, user, item, event), oldest first."),
    ] = None,
    items: Items = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Write a list for every account and domain: platform, user, domain, item, rank, score."""
    from isthmus.pipeline.frames import check_lists_path, read_events, read_items, read_users, write_lists
    from isthmus.recommender import Recommender

    check_lists_path(out)
    asked = None if users is None else read_users(users)
    since = None if events is None else read_events(events)
    added = None if items is None else read_items(items)
    opened = Recommender.open(model)
    if added is not None:
        opened = opened.add_items(added)
    lists = opened.recommend(asked, target=target, k=k, exclude_seen=exclude_seen, events=since)
    write_lists(lists, out)
    accounts = lists.select("platform", "user").unique().height
    if wants_json():
        domains = lists["domain"].unique().sort().to_list()
        put_json({"lists": str(out), "accounts": accounts, "rows": lists.height, "domains": domains})
        return
    say(f"{accounts:,} accounts, {lists.height:,} places: {out}")


@app.command("similar")
def similar_(
    model: Folder,
    item: Annotated[str, typer.Option(metavar="PLATFORM:ID", help="The item.")],
    k: Length = 10,
    items: Items = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Show the items of each domain that go best with one item."""
    from isthmus.pipeline.frames import read_items
    from isthmus.recommender import Recommender

    platform, colon, name = item.partition(":")
    if not (platform and colon and name):
        raise InputError(f"'{item}' names no item", where="--item", fix="write it as PLATFORM:ID")
    added = None if items is None else read_items(items)
    opened = Recommender.open(model)
    if added is not None:
        opened = opened.add_items(added)
    found = opened.similar(platform, name, k=k)
    if wants_json():
        put_json(found.to_dicts())
        return
    table(f"goes with {item}", found.columns, found.rows())
