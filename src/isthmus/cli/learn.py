"""Verbs that learn: encode, fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, cast

import typer

from isthmus.cli.show import Json, Verbose, facts, put_json, say, table, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.files import Json as Json_
    from isthmus.model.base import Settings
    from isthmus.recommender import Recommender

app = typer.Typer()

Model = Annotated[
    str | None,
    typer.Option(metavar="NAME_OR_PATH", help="Language model that reads the items; default the bundled MiniLM."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,NAME",
        help="Methods that take part; default `all`, to which others can be added: `all,sequence`. Repeatable.",
    ),
]
Target = Annotated[list[str] | None, typer.Option(metavar="DOMAIN", help="Target domain; default all. Repeatable.")]
Budget = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Time for tuning each target domain.")]
From = Annotated[
    list[Path] | None,
    typer.Option(
        "--from", metavar="MODEL", help="Folder that pretrain or adapt wrote: its carrier takes part. Repeatable."
    ),
]
Segments = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,NAME",
        help="Attributes of users, and weekday, hour, month, that may tell people without events apart. Repeatable.",
    ),
]
Protected = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A protected attribute that --segments may use all the same.")
]
Rules = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Rules that every list keeps: rule, head, tail, weight; beside the corpus's."),
]
Members = Annotated[int, typer.Option(min=1, help="Times that each carrier is trained and averaged in the end.")]
Practise = Annotated[
    bool, typer.Option("--practise", help="Train carriers once more, so that they may have a say about new items.")
]


@app.command("encode")
def encode_(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a corpus.")],
    model: Model = None,
    kinds: Annotated[
        str, typer.Option("--with", metavar="NAME,NAME", help="text, graph, image, audio, video; several are fused.")
    ] = "text",
    image_model: Annotated[
        str | None, typer.Option(metavar="NAME_OR_PATH", help="Image model; default colour, texture and shape.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="VECTORS", help="Folder for the vectors; they are kept for fit anyway.")
    ] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Read the items' texts with a language model, and their graph and files; what was read before is not again."""
    from isthmus.data.corpus import Corpus
    from isthmus.encode.modalities import encode_corpus

    opened = Corpus.open(corpus)
    start = perf_counter()
    vectors, told = encode_corpus(opened, split_words([kinds]), model=model, image_model=image_model)
    seconds = perf_counter() - start
    if out is not None:
        vectors.save(out)
    known = int(vectors.known.sum())
    if wants_json():
        said: dict[str, object] = {"items": len(vectors), "dim": vectors.dim, "seconds": seconds}
        said |= {"with_text": told.get("text", 0), "with": told, "known": known}
        put_json({**said, "encoder": vectors.encoder, "vectors": None if out is None else str(out)})
        return
    parts = ", ".join(f"{count:,} of them with {_article(name)}" for name, count in told.items())
    say(f"{len(vectors):,} items, {parts}, {vectors.dim} dimensions, {seconds:.1f} s")
    if out is not None:
        say(f"vectors: {out}")


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'ai' else 'a'} {kind}"


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
    start: From = None,
    members: Members = 1,
    practise: Practise = False,
    segments: Segments = None,
    protected: Protected = None,
    rules: Rules = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Tune every method on validation, learn the blend, and fit both on all that may be known."""
    from isthmus.pipeline.frames import read_rules
    from isthmus.recommender import Recommender
    from isthmus.recommender.constrained import constrained
    from isthmus.recommender.newcomers import told_by_accounts, with_segments
    from isthmus.split.temporal import Split
    from isthmus.train.fit import FitSettings
    from isthmus.train.found import read_best
    from isthmus.train.methods import ALL, named

    begun, declared = perf_counter(), None if rules is None else read_rules(rules)
    domain, starts = (None, {}) if settings is None else read_best(settings)
    targets = split_words(target) or ((domain,) if domain else ())
    carried = read_starts_for(model, start or [], targets)
    starts = {**starts, **{name: {**starts.get(name, {}), **chosen} for name, chosen in carried.items()}}
    names = named((*(split_words(methods) or (ALL, *starts)), *carried))
    how = FitSettings(names, budget, refit=refit, seed=seed, settings=starts, members=members)
    how = replace(how, practise=practise)
    opened, by = Split.open(split), split_words(segments)
    told_by_accounts(opened, by, split_words(protected))
    fitted = Recommender.fit(opened, targets=targets or None, model=model, settings=how)
    if by:
        fitted = with_segments(fitted, opened, by, protected=split_words(protected), seed=seed)
    if declared is not None:
        fitted = constrained(fitted, declared, opened.corpus.links)
    fitted.save(out)
    _tell(fitted, out, perf_counter() - begun)


def _tell(fitted: Recommender, out: Path, seconds: float) -> None:
    """Show weights and validation figures of each target."""
    newcomers = fitted.content.newcomers
    tried = {} if newcomers is None else newcomers.tried
    if wants_json():
        said: dict[str, dict[str, object]] = {
            domain: {"valid": found.valid, "weights": {name: list(row) for name, row in found.blend.weights.items()}}
            | ({"segments": tried[domain]} if domain in tried else {})
            for domain, found in fitted.targets.items()
        }
        kept = {"rules": fitted.card["rules"]} if "rules" in fitted.card else {}
        put_json({"model": str(out), "targets": said, **kept, "seconds": seconds})
        return
    for domain, found in fitted.targets.items():
        weights = list(found.blend.weights.items())
        columns = ("method", "NDCG@10 on valid", *(f"weight, {name}" for name, _ in weights))
        rows = [
            (method, found.valid.get(method), *(float(row[place]) for _, row in weights))
            for place, method in enumerate(found.blend.methods)
        ]
        table(domain, columns, rows)
        if newcomers is not None and domain in tried:
            title = f"people without events in {domain}, by {', '.join(newcomers.by)}"
            facts(title, _worth(cast("Json_", tried[domain])))
    if "rules" in fitted.card:
        facts("rules that lists keep", _rules(cast("Json_", fitted.card["rules"])))
    say(f"model: {out} ({seconds:.1f} s)")


def _rules(kept: Json_) -> dict[str, object]:
    """Return how many rules there are of each kind, and what does not hold together."""
    problems = cast("list[str]", kept["problems"])
    return {**cast("Json_", kept["declared"]), "problems": "; ".join(problems) or "none"}


def _worth(choice: Json_) -> dict[str, object]:
    """Return what validation said of segments, in words."""
    kept = float(str(choice["share"]))
    return {
        "kept": f"yes, as {kept:.0%} of the score" if kept else "no",
        "validation people who chose": choice["people"],
        "their NDCG@10 without": choice["before"],
        "gain, and its standard error": f"{choice['gain']:+} ± {choice['error']}",
    }


def read_starts(folders: list[Path], targets: tuple[str, ...]) -> dict[str, Settings]:
    """Return the settings that each carrier starts with, given folders of pre-trained models.

    A folder of adapted models gives that of the target if there is one, else what they share.

    Raises
    ------
    InputError
        Two models of one carrier, or several targets for adapted models.
    ArtefactError
        No pre-trained model there, or one of another format version.
    """
    if not folders:
        return {}
    from isthmus.transfer.adapted_files import is_adapted, start_folder
    from isthmus.transfer.pretrained import read_card

    found: dict[str, Settings] = {}
    for folder in folders:
        if is_adapted(folder) and len(targets) != 1:
            raise InputError("holds models adapted to targets", where=folder, fix="name one --target, or its backbone")
        start = start_folder(folder, targets[0] if targets else None)
        carrier = str(read_card(start)["carrier"])
        if carrier in found:
            raise InputError(f"two models of the carrier {carrier}", where="--from", fix="give one of each carrier")
        found[carrier] = {"start": str(start)}
    return found


def read_starts_for(model: str | None, folders: list[Path], targets: tuple[str, ...]) -> dict[str, Settings]:
    """Return what :func:`read_starts` does, once a sequence model was pre-trained on what ``model`` reads.

    Raises
    ------
    InputError
        It was pre-trained on what another text encoder reads.
    """
    found = read_starts(folders, targets)
    if "sequence" in found:
        from isthmus.transfer.pretrain import require_encoder

        require_encoder(str(found["sequence"]["start"]), model)
    return found


def split_words(given: list[str] | None) -> tuple[str, ...]:
    """Return the names of a repeatable flag, each of which may hold several with commas between."""
    return tuple(name.strip() for words in given or [] for name in words.split(",") if name.strip())
