"""Verbs that learn: encode, fit."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json

app = typer.Typer()

Model = Annotated[
    str | None,
    typer.Option(metavar="NAME_OR_PATH", help="Language model that reads the items; default the bundled MiniLM."),
]
Methods = Annotated[
    list[str] | None, typer.Option(metavar="NAME,NAME", help="Methods that take part; default all. Repeatable.")
]
Target = Annotated[list[str] | None, typer.Option(metavar="DOMAIN", help="Target domain; default all. Repeatable.")]
Budget = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Time for tuning each target domain.")]


@app.command("encode")
def encode_(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a corpus.")],
    model: Model = None,
    out: Annotated[
        Path | None, typer.Option(metavar="VECTORS", help="Folder for the vectors; they are kept for fit anyway.")
    ] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Read the items' texts with a language model; what was read before is not read again."""
    from isthmus.data.corpus import Corpus
    from isthmus.encode.store import encode_items
    from isthmus.encode.text import TextEncoder

    opened = Corpus.open(corpus)
    start = perf_counter()
    vectors = encode_items(opened.items, TextEncoder(model), corpus=opened.fingerprint)
    seconds = perf_counter() - start
    if out is not None:
        vectors.save(out)
    known = int(vectors.known.sum())
    if wants_json():
        said = {"items": len(vectors), "with_text": known, "dim": vectors.dim, "seconds": seconds}
        put_json({**said, "encoder": vectors.encoder, "vectors": None if out is None else str(out)})
        return
    say(f"{len(vectors):,} items, {known:,} of them with a text, {vectors.dim} dimensions, {seconds:.1f} s")
    if out is not None:
        say(f"vectors: {out}")


@app.command("fit")
def fit_(
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of a split.")],
    out: Annotated[Path, typer.Option(metavar="MODEL", help="Folder for the model.")],
    target: Target = None,
    methods: Methods = None,
    seed: Annotated[int, typer.Option(help="For everything that draws.")] = 0,
    budget: Budget = 180.0,
    refit: Annotated[bool, typer.Option("--refit/--no-refit", help="Learn again on train and valid.")] = True,
    model: Model = None,
    settings: Annotated[
        Path | None, typer.Option(metavar="BEST.JSON", help="Start from the settings that `isthmus search` found.")
    ] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Tune every method on validation, learn the blend, and fit both on all that may be known."""
    from isthmus.recommender import Recommender
    from isthmus.split.temporal import Split
    from isthmus.train.fit import FitSettings
    from isthmus.train.found import read_best
    from isthmus.train.methods import GROUND

    start = perf_counter()
    domain, starts = (None, {}) if settings is None else read_best(settings)
    named, targets = split_words(methods) or (*GROUND, *starts), split_words(target)
    how = FitSettings(methods=named, budget=budget, refit=refit, seed=seed, settings=starts)
    targets = targets or ((domain,) if domain else ())
    fitted = Recommender.fit(Split.open(split), targets=targets or None, model=model, settings=how)
    fitted.save(out)
    said = {
        domain: {"valid": found.valid, "weights": {name: list(row) for name, row in found.blend.weights.items()}}
        for domain, found in fitted.targets.items()
    }
    if wants_json():
        put_json({"model": str(out), "targets": said, "seconds": perf_counter() - start})
        return
    for domain, found in fitted.targets.items():
        weights = list(found.blend.weights.items())
        columns = ("method", "NDCG@10 on valid", *(f"weight, {name}" for name, _ in weights))
        rows = [
            (method, found.valid.get(method), *(float(row[place]) for _, row in weights))
            for place, method in enumerate(found.blend.methods)
        ]
        table(domain, columns, rows)
    say(f"model: {out} ({perf_counter() - start:.1f} s)")


def split_words(given: list[str] | None) -> tuple[str, ...]:
    """Return the names of a repeatable flag, each of which may hold several with commas between."""
    return tuple(name.strip() for words in given or [] for name in words.split(",") if name.strip())
