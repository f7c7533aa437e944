"""Verbs about one person on many platforms: works, consistency, consents; and the lists of recommend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.show import Json, Verbose, facts, put_json, say, table, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from isthmus.recommender import Recommender
    from isthmus.recommender.listing import Rules
    from isthmus.recommender.persons import PersonLists

app = typer.Typer()
consents_app = typer.Typer(
    help="What a person allows: whether one platform's events may be used for lists on another.", no_args_is_help=True
)
app.add_typer(consents_app, name="consents")

Folder = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")]
Table = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table here: .parquet, .csv or .jsonl.")]


@dataclass(frozen=True)
class Ask:
    """What ``recommend`` was asked: as :class:`isthmus.recommender.persons.Question`, which would load Polars."""

    k: int
    target: str | None
    rules: Rules
    events: pl.DataFrame | None
    exclude_seen: bool


def pairs_of(works: str, model: Recommender) -> pl.DataFrame | None:
    """Return the pairs of items that are one work: from a reviewed file, found now (``auto``), or ``none``."""
    from isthmus.recommender.works import find_works, read_works

    if works == "none":
        return None
    return find_works(model.items) if works == "auto" else read_works(Path(works))


def write_everybody(
    model: Recommender, ask: Ask, users: pl.DataFrame | None, out: Path, *, quiet: bool = False
) -> None:
    """Write the lists of all accounts asked for, and say so unless ``quiet``."""
    from isthmus.pipeline.frames import write_lists

    lists = model.recommend(
        users, target=ask.target, k=ask.k, exclude_seen=ask.exclude_seen, events=ask.events, rules=ask.rules
    )
    write_lists(lists, out)
    if quiet:
        return
    accounts = lists.select("platform", "user").unique().height
    if wants_json():
        domains = lists["domain"].unique().sort().to_list()
        put_json({"lists": str(out), "accounts": accounts, "rows": lists.height, "domains": domains})
        return
    say(f"{accounts:,} accounts, {lists.height:,} places: {out}")


def show_person(model: Recommender, ask: Ask, who: tuple[str | None, str | None], out: Path | None) -> None:
    """Show all lists of one person, named by name or account; write them too where ``out`` is given."""
    from isthmus.recommender.persons import Question, accounts_of, person_lists

    accounts = accounts_of(model, person=who[0], account=who[1], events=ask.events)
    question = Question(ask.k, ask.target, ask.rules, ask.events, ask.exclude_seen)
    found = person_lists(model, accounts, question)
    if out is not None:
        write_everybody(model, ask, found.accounts, out, quiet=True)
    if wants_json():
        put_json({**_card(found), **({} if out is None else {"out": str(out)})})
        return
    for (domain, platform), part in found.lists.group_by("domain", "item_platform", maintain_order=True):
        rows = part.select("rank", "title", "item", "score").rows()
        table(f"{domain} on {platform}", ("", "title", "item", "score"), rows)
    facts(f"person {found.name}", _facts(found))
    if out is not None:
        say(f"lists: {out}")


def _card(found: PersonLists) -> dict[str, object]:
    parts = found.lists.group_by("domain", "item_platform", maintain_order=True)
    lists = [
        {"domain": domain, "platform": platform, "items": part.select("rank", "item", "title", "score").to_dicts()}
        for (domain, platform), part in parts
    ]
    return {
        "person": found.name,
        "accounts": found.accounts.to_dicts(),
        "events": found.met,
        "lists": lists,
        "consistency": found.consistency,
    }


def _facts(found: PersonLists) -> dict[str, object]:
    rows: dict[str, object] = {
        "accounts": ", ".join(f"{platform}:{user}" for platform, user in found.accounts.rows()),
        "events": ", ".join(f"{platform} {count:,}" for platform, count in found.met.items()) or "none",
    }
    if found.consistency is not None:
        rows["consistency (1 one taste, 0 as two persons)"] = found.consistency["score"]
        rows["agreement with the person's events, alike"] = found.consistency["taste_score"]
    return rows


@app.command("works")
def works_(
    source: Annotated[Path, typer.Argument(metavar="MODEL|CORPUS", help="Folder of a model or of a corpus.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the pairs go: .csv, to be reviewed.")],
    least: Annotated[float, typer.Option(min=0, max=1, help="Lowest score of a pair that is shown.")] = 0.45,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """List items of different platforms that may be one work: edit 'same', and give the file to recommend --works."""
    from isthmus.data.corpus import MANIFEST, Corpus
    from isthmus.pipeline.frames import write_table
    from isthmus.recommender import Recommender
    from isthmus.recommender.works import find_works

    if out.suffix != ".csv":
        raise InputError(f"the ending '{out.suffix}' is not .csv", where=out, fix="name a .csv file")
    corpus = (source / MANIFEST).is_file()
    items = Corpus.open(source).items if corpus else Recommender.open(source).items
    pairs = find_works(items, least=least)
    write_table(pairs, out)
    same = int((pairs["same"] == "yes").sum())
    if wants_json():
        put_json({"pairs": str(out), "rows": pairs.height, "same": same})
        return
    rows = pairs.select("title", "platform", "other_title", "other_platform", "score", "same").head(10).rows()
    table("pairs, the surest first", ("title", "platform", "title", "platform", "score", "same"), rows)
    say(f"{pairs.height:,} pairs, {same:,} taken for one work: {out}")


@app.command("consistency")
def consistency_(
    model: Folder,
    people: Annotated[int, typer.Option(min=2, help="Persons drawn.")] = 500,
    k: Annotated[int, typer.Option("-k", min=1, help="Length of each list.")] = 10,
    calibrate: Annotated[float, typer.Option(metavar="WEIGHT", min=0, max=1, help="As in recommend.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For the draw.")] = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Measure whether a person's lists on several platforms show one taste, more than lists of others do."""
    from isthmus.recommender import Recommender
    from isthmus.recommender.listing import Rules
    from isthmus.recommender.persons import Question, model_consistency
    from isthmus.recommender.works import find_works

    opened = Recommender.open(model)
    rules = Rules(by_platform=True, works=find_works(opened.items), calibrate=calibrate)
    found = model_consistency(opened, Question(k=k, rules=rules), people=people, seed=seed)
    if wants_json():
        put_json(found)
        return
    facts("consistency of lists over platforms", found)


@consents_app.command("set")
def set_(
    model: Folder,
    person: Annotated[str | None, typer.Option(metavar="NAME", help="Whose events: by name.")] = None,
    account: Annotated[str | None, typer.Option(metavar="PLATFORM:USER", help="Or by an account.")] = None,
    source: Annotated[str, typer.Option("--from", metavar="PLATFORM", help="Events of this platform; * any.")] = "*",
    to: Annotated[str, typer.Option(metavar="PLATFORM", help="For lists on this one; * any other.")] = "*",
    forbid: Annotated[bool, typer.Option("--forbid/--allow", help="What is said.")] = True,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="Many at once, from a table.")] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Forbid (or allow again) the use of a person's events on one platform for lists on another."""
    import polars as pl

    from isthmus.pipeline.frames import read_consents
    from isthmus.recommender import Recommender
    from isthmus.recommender.consents import conform_consents, with_consents, write_consents
    from isthmus.recommender.persons import accounts_of

    opened = Recommender.open(model)
    if file is not None:
        if person is not None or account is not None:
            raise InputError("a file and a person are both given", fix="give one of them")
        said, where = read_consents(file), str(file)
    else:
        accounts_of(opened, person=person, account=account)
        platform, _, user = (account or "").partition(":")
        who = {"person": person, "platform": platform or None, "user": user or None}
        said = pl.DataFrame([{**who, "from_platform": source, "to_platform": to, "allowed": str(not forbid)}])
        where = "consents"
    people = opened.content.people
    new = people.hidden(conform_consents(said, opened.items["platform"].unique().sort().to_list(), where=where))
    write_consents(with_consents(people.consents, new), model)
    if wants_json():
        put_json({"set": new.to_dicts()})
        return
    say(f"{new.height:,} said; they hold from the next list on")


@consents_app.command("list")
def list_(
    model: Folder,
    out: Table = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Show what people said."""
    from isthmus.pipeline.frames import write_table
    from isthmus.recommender import Recommender

    said = Recommender.open(model).content.people.consents
    if out is not None:
        write_table(said, out)
    if wants_json():
        put_json(said.to_dicts())
        return
    table("consents", said.columns, said.rows())
