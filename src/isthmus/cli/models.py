"""The verbs of models: keys and signatures of folders; trials and promotion in a running service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isthmus.cli.extras import needs
from isthmus.cli.show import Json, Verbose, facts, put_json, say, table, wants_json

if TYPE_CHECKING:
    from isthmus.client import Client, Judged

app = typer.Typer()
group = typer.Typer(help="Models of the service: signatures, trials, promotion.", no_args_is_help=True)
app.add_typer(group, name="models")

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Folder of the model, in the folder of models.")]
Url = Annotated[str, typer.Option(metavar="URL", help="The service; its key is read from ISTHMUS_KEY.")]
Share = Annotated[float, typer.Option(help="Above 0, at most 1.")]
_HERE = "http://127.0.0.1:8080"


@group.command("keygen")
def keygen_(
    private: Annotated[Path, typer.Argument(metavar="FILE", help="Private key; the public one is FILE.pub.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Make a pair of keys: with the private one models are signed, with the public one they are checked."""
    with needs("service"):
        from isthmus.service.rollout.signing import keygen

    public = private.with_name(private.name + ".pub")
    name = keygen(private, public)
    if wants_json():
        put_json({"key": name, "private": str(private), "public": str(public)})
        return
    say(f"{private} is for you alone; give {public} to isthmus serve --trust (key {name})")


@group.command("sign")
def sign_(
    model: Model,
    key: Annotated[Path, typer.Option(metavar="FILE", help="Private key of isthmus models keygen.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Vouch for a model: for its manifest, and so for every file that the manifest names."""
    with needs("service"):
        from isthmus.service.rollout.signing import sign

    name = sign(model, key)
    if wants_json():
        put_json({"model": str(model), "key": name})
        return
    say(f"{model} is signed by key {name}")


@group.command("verify")
def verify_(
    model: Model,
    trust: Annotated[list[Path], typer.Option(metavar="PEM", help="Public key; may be given several times.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Check that a model is whole, and signed by a key that is trusted."""
    with needs("service"):
        from isthmus.service.rollout.signing import Trust
    from isthmus.recommender import Recommender

    digest = Trust(trust).require(model)
    Recommender.open(model)
    if wants_json():
        put_json({"model": str(model), "sha256": digest})
        return
    say(f"{model} is whole and signed; its manifest is {digest}")


@group.command("list")
def list_(url: Url = _HERE, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """List the models of a service, and how those that are tried do."""
    with _client(url) as client:
        said = client.rollout.models()
    if wants_json():
        put_json(said)
        return
    rows = [list(one.values()) for one in said["models"]]  # type: ignore[attr-defined]
    table("models", ("name", "version", "answers"), rows)
    for role in ("canary", "shadow", "ended"):
        trial = said[role]
        if isinstance(trial, dict):
            facts(role, trial)


@group.command("shadow")
def shadow_(name: Name, share: Share = 1.0, url: Url = _HERE, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """Let a model make a share of the lists too, for nobody, to compare."""
    with _client(url) as client:
        _tried(name, "shadow", client.rollout.shadow(name, share))


@group.command("canary")
def canary_(
    name: Name,
    share: Share = 0.1,
    errors: Annotated[float | None, typer.Option(help="Share of its lists that may fail; 0.02.")] = None,
    seconds: Annotated[float | None, typer.Option(help="What 99 of 100 lists keep to; the deadline.")] = None,
    url: Url = _HERE,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Let a model answer a share of the persons, the same ones every time; it goes when it does worse."""
    with _client(url) as client:
        _tried(name, "canary", client.rollout.canary(name, share, errors=errors, seconds=seconds))


@group.command("end")
def end_(
    name: Name,
    role: Annotated[Literal["canary", "shadow"], typer.Argument(help="As what it is tried.")],
    url: Url = _HERE,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Try a model no more."""
    with _client(url) as client:
        client.rollout.end(name, role)
    _tried(name, role, 0.0)


@group.command("check")
def check_(name: Name, url: Url = _HERE, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """Say whether a model would pass the gate, and what speaks against it; exit code 2 if it would not."""
    with _client(url) as client:
        judged = client.rollout.check(name)
    _judged(judged)
    if not judged.passed:
        raise typer.Exit(2)


@group.command("promote")
def promote_(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Even if it does not pass the gate.")] = False,
    url: Url = _HERE,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Let a model answer everybody if it passes the gate."""
    with _client(url) as client:
        _judged(client.rollout.promote(name, force=force))


@group.command("rollback")
def rollback_(url: Url = _HERE, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """Let the model before answer again."""
    with _client(url) as client:
        name = client.rollout.rollback()
    if wants_json():
        put_json({"model": name})
        return
    say(f"{name} answers")


def _client(url: str) -> Client:
    with needs("service"):
        from isthmus.client import Client
    return Client(url, key=os.environ.get("ISTHMUS_KEY") or None, timeout=600.0)


def _tried(name: str, role: str, share: float) -> None:
    if wants_json():
        put_json({"model": name, "role": role, "share": share})
        return
    say(f"{name}: {role} of {share:.1%}" if share else f"{name} is no {role} any more")


def _judged(judged: Judged) -> None:
    if wants_json():
        put_json({"model": judged.model, "passed": judged.passed, "reasons": list(judged.reasons)})
        return
    say(f"{judged.model} {'passes' if judged.passed else 'does not pass'}")
    for reason in judged.reasons:
        say(f"- {reason}")
