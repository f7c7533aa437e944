"""Verbs that use a model: recommend, similar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.show import Bonus, Explore, Json, Verbose, put_json, table, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.recommender import Recommender

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
Declared = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Rules for these lists, beside the model's: rule, head, tail, weight."),
]
Calibrate = Annotated[
    float, typer.Option(metavar="WEIGHT", min=0, max=1, help="How much a list keeps to the person's shares of themes.")
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
    rules: Declared = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Write a list for every account and domain: platform, user, domain, item, rank, score, item_platform.

    With --person or --account: show all lists of one person, one for each domain and platform, and how consistent
    they are.
    """
    from isthmus.cli import persons
    from isthmus.model.fresh import Exploration
    from isthmus.pipeline import frames
    from isthmus.recommender.listing import Rules

    alone = person is not None or account is not None
    if out is None and not alone:
        raise InputError("no place for the lists", fix="give --out FILE, or name one person with --person or --account")
    if users is not None and alone:
        raise InputError("--users and one person are both given", fix="give one of them")
    if shown is not None and explore is None:
        raise InputError("--shown without exploring", where="--shown", fix="add --explore SHARE")
    if out is not None:
        frames.check_lists_path(out)
    asked = None if users is None else frames.read_users(users, more=True)
    since = None if events is None else frames.read_events(events)
    said = None if consents is None else frames.read_consents(consents)
    how = None if explore is None else Exploration.of_share(explore, k, bonus=explore_bonus)
    times = None if shown is None else frames.read_shown(shown)
    opened = _opened(model, items, rules)
    pairs = persons.pairs_of(works or ("auto" if alone else "none"), opened)
    ask = persons.Ask(k, target, Rules(alone, pairs, met_elsewhere, said, calibrate, how, times), since, exclude_seen)
    if out is None or alone:
        persons.show_person(opened, ask, (person, account), out)
    else:
        persons.write_everybody(opened, ask, asked, out)


def _opened(model: Path, items: Path | None, rules: Path | None) -> Recommender:
    """Return the model with the new items and the rules of two files; both are read before the model is."""
    from isthmus.pipeline.frames import read_items, read_rules
    from isthmus.recommender import Recommender
    from isthmus.recommender.constrained import constrained

    added = None if items is None else read_items(items)
    declared = None if rules is None else read_rules(rules)
    opened = Recommender.open(model)
    if added is not None:
        opened = opened.add_items(added)
    return opened if declared is None else constrained(opened, declared)


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
    platform, colon, name = item.partition(":")
    if not (platform and colon and name):
        raise InputError(f"'{item}' names no item", where="--item", fix="write it as PLATFORM:ID")
    found = _opened(model, items, None).similar(platform, name, k=k)
    if wants_json():
        put_json(found.to_dicts())
        return
    table(f"goes with {item}", found.columns, found.rows())
