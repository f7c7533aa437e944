"""Verbs that carry over: pretrain, adapt, trial."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from isthmus.cli.learn import From, Members, Methods, read_starts, split_words
from isthmus.cli.show import Json, Verbose, facts, put_json, say, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.evaluate.report import Report
    from isthmus.split.temporal import Split

app = typer.Typer()

Carrier = Literal["sequence", "language"]
Track = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,NAME", help="tensorboard (default where installed), wandb, mlflow, or none."),
]
Seed = Annotated[int, typer.Option(min=0, help="For everything that draws.")]
Epochs = Annotated[float | None, typer.Option(help="Times that all is gone through; default by carrier.")]
Rate = Annotated[float | None, typer.Option(help="The highest learning rate; default by carrier and strategy.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE,…",
        help="Other settings, of training (warmup, weight_decay, accumulation, adversarial, layer_decay, average, "
        "patience, gradient_checkpointing, …), of the strategy (top, rank, bottleneck, prefix, …), of the model.",
    ),
]


@app.command("pretrain")
def pretrain_(
    splits: Annotated[list[Path], typer.Argument(metavar="SPLIT …", help="Folders of one or more splits.")],
    out: Annotated[Path, typer.Option(metavar="MODEL", help="Folder for the model; MODEL.logs for the trackers.")],
    domains: Annotated[
        list[str] | None, typer.Option(metavar="DOMAIN,DOMAIN", help="Domains to learn from; default all. Repeatable.")
    ] = None,
    carrier: Annotated[Carrier, typer.Option(help="What carries.")] = "sequence",
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WEIGHT,…",
            help="sequence: next, views. language: contrastive-next, contrastive-together, contrastive-views, "
            "contrastive-paraphrase, mlm, clm, classify.",
        ),
    ] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,NAME",
            help="How views are made: crop, mask, reorder, substitute, insert; default the first three.",
        ),
    ] = None,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    seed: Seed = 0,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME_OR_PATH", help="Language model that reads, or is trained; default MiniLM."),
    ] = None,
    track: Track = None,
    settings: Set = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Learn a model from the training parts of some domains, to carry it over to others; a stopped run goes on."""
    weights = read_weights(objective)
    made = read_operations(augment, weights if carrier == "sequence" else {})
    given = {"epochs": epochs, "learning_rate": learning_rate, "objectives": weights, "augment": made}
    chosen = {name: value for name, value in given.items() if value is not None}
    common = {"domains": split_words(domains), "seed": seed, "track": read_trackers(track)}
    common |= read_pretraining(settings, carrier)
    opened = _open(splits)
    from isthmus.files import require_free
    from isthmus.transfer.scene import require_texts

    require_free(out)
    require_texts(opened, split_words(domains))
    said = _pretrained(opened, carrier, model, out, {**common, **chosen})
    _tell_learned(carrier, said, out)


def _pretrained(
    splits: list[Split], carrier: Carrier, model: str | None, out: Path, given: Mapping[str, object]
) -> Mapping[str, object]:
    """Pre-train a carrier with the settings given, and return what its card says."""
    with working(out) as work:
        if carrier == "sequence":
            from isthmus.transfer.pretrain import SequencePretraining, pretrain_sequence

            how = SequencePretraining(model=model, **given)  # type: ignore[arg-type]
            return pretrain_sequence(splits, out, how, work=work)
        from isthmus.transfer.language import LanguagePretraining, pretrain_language

        told = LanguagePretraining(start=model, **given)  # type: ignore[arg-type]
        return pretrain_language(splits, out, told, work=work)


@app.command("adapt")
def adapt_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that pretrain, or adapt, wrote.")],
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of a split.")],
    target: Annotated[str, typer.Option(metavar="DOMAIN", help="Target domain.")],
    out: Annotated[Path, typer.Option(metavar="MODEL2", help="Folder for the adapted models of one MODEL.")],
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="full, top, frozen, adapter, lora, adalora or prefix.")
    ] = "full",
    head: Annotated[
        str, typer.Option(metavar="NAME", help="next-item, ranking, rating or classification.")
    ] = "next-item",
    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="softmax; bpr, bce; mse, bce01, squared-log-ratio; cross-entropy. Default by head."
        ),
    ] = "",
    additive: Annotated[bool, typer.Option("--additive", help="Add to what the model says as it is.")] = False,
    classes: Annotated[str, typer.Option(help="What classification tells: categories or domain.")] = "categories",
    epochs: Epochs = None,
    learning_rate: Rate = None,
    seed: Seed = 0,
    track: Track = None,
    settings: Set = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Adapt a pre-trained model to a target with a strategy and a task head; several targets share one folder."""
    from isthmus.split.temporal import Split
    from isthmus.transfer.adapt import AdaptSettings, adapt

    how = AdaptSettings(
        target=target,
        strategy=strategy,
        head=head,
        loss=loss,
        additive=additive,
        classes=classes,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        track=read_trackers(track),
        **read_adapting(settings),  # type: ignore[arg-type]
    )
    with working(out) as work:
        said = adapt(model, Split.open(split), how, out, work=work).metrics
    _tell_adapted(target, said, out)


@app.command("trial")
def trial_(
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of a split.")],
    target: Annotated[str, typer.Option(metavar="DOMAIN", help="Target domain.")],
    start: From,
    out: Annotated[Path, typer.Option(metavar="REPORT", help="Folder for report.json and report.html.")],
    seeds: Annotated[int, typer.Option(min=1, help="Times that each carrier is trained.")] = 5,
    shares: Annotated[
        str, typer.Option(metavar="SHARE,SHARE", help="Shares of the people that teach in the target; 0 is zero-shot.")
    ] = "1",
    budget: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Time for tuning the methods of a share.")
    ] = 60.0,
    methods: Methods = None,
    members: Members = 1,
    shuffled: Annotated[
        bool, typer.Option("--shuffled", help="Train the carriers on shuffled histories too, as a control.")
    ] = False,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Try a pre-trained model against the same from scratch and against no source, and say whether it helped."""
    from isthmus.pipeline.trial_report import features_of, report, trials
    from isthmus.pipeline.trials import TrialSettings
    from isthmus.split.temporal import Split
    from isthmus.train.methods import named

    wanted = read_shares(shares)
    opened = Split.open(split)
    domain = opened.corpus.require_domain(target)
    starts = read_starts(start or [], (domain,))
    how = TrialSettings(starts, seeds=seeds, budget=budget, methods=named(split_words(methods)), members=members)
    how = replace(how, shuffled=shuffled)
    with working(out) as work:
        done = trials(opened, domain, features_of(opened, how), how, wanted, work=work)
        made = report(done, opened)
        made.save(out)
    _tell(made, out)


def read_weights(given: Sequence[str] | None) -> dict[str, float] | None:
    """Return the weights in ``name=weight`` words; a name alone weighs 1, and no words are None.

    Examples
    --------
    >>> read_weights(["next=1,views=0.1", "mlm"])
    {'next': 1.0, 'views': 0.1, 'mlm': 1.0}
    """
    words = split_words(list(given) if given else None)
    found = {}
    for word in words:
        name, _, weight = word.partition("=")
        try:
            found[name.strip()] = float(weight or 1)
        except ValueError:
            raise InputError(f"'{weight}' is no weight", where=f"--objective {word}", fix="write NAME=0.5") from None
    return found or None


def read_adapting(given: Sequence[str] | None) -> dict[str, object]:
    """Return the settings of an adaptation in ``key=value`` words.

    Raises
    ------
    InputError
        An unknown key, or a value that is none.

    Examples
    --------
    >>> read_adapting(["rank=4,warmup=0.1"])
    {'sizes': {'rank': 4}, 'training': {'warmup': 0.1}}
    """
    from isthmus.model.strategies import StrategySettings
    from isthmus.train.given import ELSEWHERE, keys_of, read_given
    from isthmus.train.settings import LoopSettings
    from isthmus.transfer.adapt import AdaptSettings

    own = {key: kind for key, kind in keys_of(AdaptSettings).items() if key in ("ids", "negatives", "persons")}
    kinds = own, keys_of(StrategySettings, ("strategy", "head", "seed")), keys_of(LoopSettings, ELSEWHERE)
    more, sizes, training = read_given(split_words(list(given) if given else None), kinds)
    return {**more, "sizes": sizes, "training": training}


def read_pretraining(given: Sequence[str] | None, carrier: Carrier) -> dict[str, object]:
    """Return the settings of a pre-training in ``key=value`` words.

    Raises
    ------
    InputError
        An unknown key, or a value that is none.

    Examples
    --------
    >>> read_pretraining(["dim=32,adversarial=0.5"], "sequence")
    {'dim': 32, 'training': {'adversarial': 0.5}}
    """
    from isthmus.train.given import ELSEWHERE, keys_of, read_given
    from isthmus.train.settings import LoopSettings

    if carrier == "sequence":
        from isthmus.transfer.pretrain import SequencePretraining

        own = keys_of(SequencePretraining, (*ELSEWHERE, "model"))
    else:
        from isthmus.transfer.language import LanguagePretraining

        own = keys_of(LanguagePretraining, (*ELSEWHERE, "start"))
    more, training = read_given(split_words(list(given) if given else None), (own, keys_of(LoopSettings, ELSEWHERE)))
    return {**more, "training": training} if training else more


def read_operations(given: Sequence[str] | None, weights: Mapping[str, float] | None) -> tuple[str, ...] | None:
    """Return the operations that make views; None if none are named.

    Raises
    ------
    InputError
        Nothing is learned from views.

    Examples
    --------
    >>> read_operations(["crop,insert"], {"next": 1.0, "views": 0.1})
    ('crop', 'insert')
    """
    if given is None:
        return None
    if not (weights or {}).get("views"):
        raise InputError(
            "no views are learned from",
            where="--augment",
            fix="add --objective next=1,views=0.1 with the sequence carrier, or leave it out",
        )
    return split_words(list(given))


def read_trackers(given: list[str] | None) -> tuple[str, ...]:
    """Return the trackers: TensorBoard where it is installed unless others, or none, are named."""
    from importlib.util import find_spec

    from isthmus.train.settings import LoopSettings

    if given is None:
        return ("tensorboard",) if find_spec("tensorboard") else ()
    named = split_words(given)
    return () if named == ("none",) else LoopSettings(track=named).track


def read_shares(given: str) -> list[float]:
    """Return shares of people, rising, each once.

    Examples
    --------
    >>> read_shares("1,0.1,0")
    [0.0, 0.1, 1.0]
    """
    try:
        found = sorted({float(word) for word in given.split(",") if word.strip()})
    except ValueError:
        found = []
    if not found or not all(0 <= share <= 1 for share in found):
        raise InputError(f"'{given}' are no shares", where="--shares", fix="write numbers from 0 to 1, as in 0,0.1,1")
    return found


@contextmanager
def working(out: Path) -> Iterator[Path]:
    """Yield ``OUT.work`` for checkpoints; in the end what trackers wrote is in ``OUT.logs``, and the rest is gone."""
    work, logs = _beside(out, "work"), _beside(out, "logs")
    fresh = not work.exists()
    try:
        yield work
    except InputError:
        if fresh:
            shutil.rmtree(work, ignore_errors=True)
        raise
    if (work / "logs").is_dir():
        shutil.rmtree(logs, ignore_errors=True)
        (work / "logs").rename(logs)
    shutil.rmtree(work, ignore_errors=True)


def _beside(out: Path, kind: str) -> Path:
    return out.with_name(f"{out.resolve().name}.{kind}")


def _logs(out: Path) -> str:
    logs = _beside(out, "logs")
    return f"; logs: {logs}" if logs.is_dir() else ""


def _open(paths: Sequence[Path]) -> list[Split]:
    from isthmus.split.temporal import Split

    return [Split.open(path) for path in paths]


def _tell_learned(carrier: str, said: Mapping[str, object], out: Path) -> None:
    if wants_json():
        put_json({"model": str(out), **said})
        return
    log = cast("dict[str, object]", said["log"])
    learned = ", ".join(str(row["domain"]) for row in cast("list[dict[str, object]]", said["domains"]))
    shown = {"learned from": learned, "events": said["events"], "items": said["items"], "steps": log["steps"]}
    facts(f"a {carrier} model", {**shown, "seconds": log["seconds"], "NDCG@10 on valid": log["best"]})
    say(f"model: {out}{_logs(out)}")


def _tell_adapted(target: str, said: Mapping[str, object], out: Path) -> None:
    if wants_json():
        put_json({"model": str(out), **said})
        return
    metric, memory = str(said["metric"]), f"{float(str(said['peak_memory'])) / 2**20:.0f} MiB"
    names = {"strategy": "strategy", "head": "head", "loss": "loss", "trainable": "trainable parameters"}
    shown = {name: said[key] for key, name in names.items()}
    took = {"of": said["total"], "seconds": said["seconds"], "peak memory": memory}
    facts(target, {**shown, **took, f"{metric} before": said["before"], f"{metric} after": said["after"]})
    if said["kept"] == "before":
        reached = float(str(said["reached"]))
        say(f"training made it worse ({metric} {reached:.4f} at best), so it stays as it was before")
    say(f"model: {out}{_logs(out)}")


def _tell(made: Report, out: Path) -> None:
    section = cast("list[dict[str, object]]", made.data["sections"])[0]
    verdict = cast("dict[str, object]", section["verdict"])
    if wants_json():
        put_json({"report": str(out / "report.html"), "verdict": verdict, "curve": section["curve"]})
        return
    say(str(verdict["sentence"]))
    say(f"report: {out / 'report.html'}")
