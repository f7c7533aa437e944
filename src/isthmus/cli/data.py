"""Verbs on data: import, describe, narrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from isthmus.cli.show import Json, Verbose, facts, put_json, say, table, wants_json

if TYPE_CHECKING:
    from isthmus.data.corpus import Corpus

verbs = typer.Typer()
app = typer.Typer(help="Logs into a corpus, and what is in it.", no_args_is_help=True)

verbs.add_typer(app, name="data")

Folder = Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a corpus.")]


@app.command("import")
def import_(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.toml", help="What is where; see docs/spec.md.")],
    out: Annotated[Path, typer.Option(metavar="CORPUS", help="Folder for the corpus; an old one stays on failure.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Import the logs that a spec names: clean them, unite the people, write a corpus."""
    from isthmus.data.importer import import_corpus

    corpus = import_corpus(spec, out)
    manifest = corpus.manifest
    if wants_json():
        put_json({"corpus": str(out), **manifest})
        return
    table("read", ("kind", "source", "rows"), [_source(row) for row in cast("list[object]", manifest["sources"])])
    counts = [("rejected: " + name, count) for name, count in _counts(manifest, "rejects")]
    counts += [("cleaned: " + name, count) for name, count in _counts(manifest, "cleaning")]
    if counts:
        table("rejects.parquet and cleaning", ("rule", "rows"), counts)
    facts("corpus", {name: count for name, count in _counts(manifest, "counts") if count})
    say(f"corpus: {out}")


@app.command("describe")
def describe_(corpus: Folder, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """Show what a corpus holds: platforms, domains, overlap, texts, languages."""
    from isthmus.data.corpus import Corpus
    from isthmus.data.describe import describe

    found = describe(Corpus.open(corpus))
    if wants_json():
        put_json(found)
        return
    facts(f"{found['name']}", cast("dict[str, object]", found["counts"]))
    for by in ("platforms", "domains"):
        rows = [_place(name, place) for name, place in cast("dict[str, dict[str, object]]", found[by]).items()]
        columns = ("", "persons", "items", "events", "density", "titles", "texts", "head share", "languages", "time")
        table(by, columns, rows)
    overlap = cast("dict[str, list[dict[str, object]]]", found["overlap"])["platforms"]
    pairs = [(" + ".join(cast("list[str]", row["pair"])), row["both"], row["share_of_smaller"]) for row in overlap]
    table("people on two platforms", ("pair", "both", "share of the smaller"), pairs)


@verbs.command("narrate")
def narrate_(
    corpus: Folder,
    person: Annotated[
        str | None, typer.Option(metavar="P", help="A person, or an account as PLATFORM:USER; default the first ten.")
    ] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="Language of the sentences.")] = "en",
    max_tokens: Annotated[int, typer.Option(help="Room for one person's text.")] = 512,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Tell what people did as sentences, which a language model reads."""
    import numpy as np

    from isthmus.data.corpus import Corpus
    from isthmus.data.narrate import narrate

    opened = Corpus.open(corpus)
    places = range(min(10, opened.persons.len())) if person is None else [_person(opened, person)]
    told = narrate(opened, np.array(places, dtype=np.int64), language=language, max_tokens=max_tokens)
    names = opened.persons.gather(told["person"]).to_list()
    texts = told["text"].to_list()
    if wants_json():
        put_json([{"person": name, "text": text} for name, text in zip(names, texts, strict=True)])
        return
    for name, text in zip(names, texts, strict=True):
        say(f"{name}: {text}")


def _person(corpus: Corpus, name: str) -> int:
    """Return the index of a person, named as such or by one of the accounts."""
    import polars as pl

    from isthmus.errors import NotFoundError

    accounts = corpus.identities.filter(pl.format("{}:{}", "platform", "user") == name)["person"]
    found = corpus.persons.search_sorted(accounts[0] if accounts.len() else name)
    if found >= corpus.persons.len() or corpus.persons[found] != (accounts[0] if accounts.len() else name):
        raise NotFoundError(f"no person '{name}'", where=corpus.name, fix="write an account as PLATFORM:USER")
    return int(found)


def _source(row: object) -> tuple[object, object, object]:
    said = cast("dict[str, object]", row)
    return said["kind"], said["source"], said["rows"]


def _counts(manifest: dict[str, object], name: str) -> list[tuple[str, int]]:
    return list(cast("dict[str, int]", manifest.get(name, {})).items())


def _place(name: str, place: dict[str, object]) -> tuple[object, ...]:
    languages = cast("dict[str, float]", place["languages"])
    shown = ", ".join(f"{word} {share:.0%}" for word, share in list(languages.items())[:3])
    columns = ("persons", "items", "events", "density", "titles", "texts", "head_share")
    return (name, *(place[column] for column in columns), shown, _span(place["time"]))


def _span(time: object) -> str:
    if isinstance(time, str):
        return time
    bounds = cast("dict[str, object]", time)
    return f"{str(bounds['first'])[:10]} to {str(bounds['last'])[:10]}"
