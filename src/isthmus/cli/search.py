"""Verb that searches settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isthmus.cli.learn import Model, split_words
from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json

if TYPE_CHECKING:
    from isthmus.train.found import Found

app = typer.Typer()


@app.command("search")
def search_(
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of a split.")],
    target: Annotated[str, typer.Option(metavar="DOMAIN", help="Target domain.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the search; one there already goes on.")],
    methods: Annotated[
        list[str] | None, typer.Option(metavar="NAME,NAME", help="Methods to search; default all. Repeatable.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Time in all; each method gets the same share.")] = 10.0,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of each method, at most.")] = None,
    seed: Annotated[int, typer.Option(help="For everything that draws.")] = 0,
    sampler: Annotated[Literal["tpe", "random"], typer.Option(help="What draws the trials.")] = "tpe",
    pruner: Annotated[Literal["median", "none"], typer.Option(help="What stops poor trials.")] = "median",
    model: Model = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Search the settings of methods on validation, the same time for each; a stopped search goes on."""
    from isthmus.recommender.readers import Readers, vocabulary
    from isthmus.split.temporal import Split
    from isthmus.train.methods import METHODS
    from isthmus.train.search import SearchSettings, search

    how = SearchSettings(split_words(methods) or tuple(METHODS), minutes, trials, seed, sampler, pruner)
    opened = Split.open(split)
    domain = opened.corpus.require_domain(target)
    reads = bool({"text", "sequence"} & set(how.methods))
    told = "language" in how.methods
    features = Readers(vocabulary(opened), model, vectors=reads, texts=told).read(opened.corpus.items)
    try:
        found = search(opened, domain, features, how, folder=out)
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on with the trials in {out}")
        raise
    _show(found, out)


def _show(found: Found, out: Path) -> None:
    if wants_json():
        said = {
            name: {"settings": best.settings, "ndcg@10": best.ndcg, "defaults": best.usual, "trials": best.trials}
            for name, best in found.best.items()
        }
        put_json({"search": str(out), "domain": found.domain, "methods": said, "trials": found.trials.height})
        return
    columns = ("method", "NDCG@10 on valid", "with defaults", "trials", "pruned", "failed", "seconds")
    rows = [
        (name, best.ndcg, best.usual, best.trials, best.pruned, best.failed, best.seconds)
        for name, best in sorted(found.best.items(), key=lambda pair: -pair[1].ndcg)
    ]
    table(found.domain, columns, rows)
    say(f"settings: {out / 'best.json'} (for isthmus fit --settings)")
