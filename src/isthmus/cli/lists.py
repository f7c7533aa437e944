"""Verbs that use a model: recommend, similar."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.show import Json, Verbose, put_json, table, wants_json
from isthmus.errors import InputError

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")]
Length = Annotated[int, typer.Option("-k", min=1, help="Length of each list.")]
Items = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="New items: platform, item, domain, title, text, categories; nothing is fitted."),
]


Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the lists go: .parquet, .csv or .jsonl; or name one person."),
]
Users = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Accounts: platform, user, and what `fit --segments` named; default everybody.",
    ),
]
Person = Annotated[str | None, typer.Option(metavar="NAME", help="One person: all lists on screen, by platform.")]
Account = Annotated[str | None, typer.Option(metavar="PLATFORM:USER", help="The same by one account of the person.")]
Domain = Annotated[str | None, typer.Option(metavar="DOMAIN", help="One domain; default all.")]
Seen = Annotated[bool, typer.Option("--exclude-seen/--include-seen", help="Whether items of the history are left out.")]
Since = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What happened since (platform, user, item, event), oldest first.")
]
WorksFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="One edition of a work: reviewed pairs (isthmus works), or auto, or none. "
        "Default: auto for one person, none for everybody.",
    ),
]
MetElsewhere = Annotated[
    bool, typer.Option("--met-elsewhere/--not-met-elsewhere", help="Whether other editions of works met may be listed.")
]
Consents = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What people allow and forbid, on top of what the model keeps."),
]
Calibrate = Annotated[
    float, typer.Option(metavar="WEIGHT", min=0, max=1, help="How much a list keeps to the person's shares of themes.")
]
Explore = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        min=0,
        max=1,
        help="New items get up to this share of each list, and a bonus; 0 for none at all.",
    ),
]
Bonus = Annotated[
    float, typer.Option("--explore-bonus", min=0, help="That bonus, in standard deviations of a method's scores.")
]
Shown = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="How often items were shown (platform, item, shown): the bonus fades with it."),
]


@app.command("recommend")
def recommend_(
    model: Folder,
    out: Out = None,
    users: Users = None,
    person: Person = None,
    account: Account = None,
    target: Domain = None,
    k: Length = 10,
    exclude_seen: Seen = True,
    events: Since = None,
    items: Items = None,
    works: WorksFile = None,
    met_elsewhere: MetElsewhere = False,
    consents: Consents = None,
    calibrate: Calibrate = 0.0,
    explore: Explore = None,
    explore_bonus: Bonus = 0.5,
    shown: Shown = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Write a list for every account and domain: platform, user, domain, item, rank, score, item_platform.

    With --person or --account: show all lists of one person, one for each domain and platform, and how consistent
    they are.
    """
    from isthmus.cli import persons
    from isthmus.model.fresh import Exploration
    from isthmus.pipeline.frames import check_lists_path, read_consents, read_events, read_items, read_shown, read_users
    from isthmus.recommender import Recommender
    from isthmus.recommender.listing import Rules

    alone = person is not None or account is not None
    if out is None and not alone:
        raise InputError("no place for the lists", fix="give --out FILE, or name one person with --person or --account")
    if users is not None and alone:
        raise InputError("--users and one person are both given", fix="give one of them")
    if shown is not None and explore is None:
        raise InputError("--shown without exploring", where="--shown", fix="add --explore SHARE")
    if out is not None:
        check_lists_path(out)
    asked = None if users is None else read_users(users, more=True)
    since = None if events is None else read_events(events)
    added = None if items is None else read_items(items)
    said = None if consents is None else read_consents(consents)
    how = None if explore is None else Exploration.of_share(explore, k, bonus=explore_bonus)
    times = None if shown is None else read_shown(shown)
    opened = Recommender.open(model)
    if added is not None:
        opened = opened.add_items(added)
    pairs = persons.pairs_of(works or ("auto" if alone else "none"), opened)
    rules = Rules(alone, pairs, met_elsewhere, said, calibrate, how, times)
    ask = persons.Ask(k, target, rules, since, exclude_seen)
    if out is None or alone:
        persons.show_person(opened, ask, (person, account), out)
    else:
        persons.write_everybody(opened, ask, asked, out)


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
