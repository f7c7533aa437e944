"""The command line: every verb, one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from isthmus.cli import (
    backup,
    consume,
    data,
    distil,
    doctor,
    events,
    items,
    judge,
    keys,
    learn,
    lists,
    meta,
    models,
    people,
    persons,
    search,
    serve,
    splits,
    tasks,
    transfer,
    watch,
    whole,
)
from isthmus.cli.show import fail
from isthmus.errors import IsthmusError

if TYPE_CHECKING:
    from typer._click.core import Context

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
_ORDER = (
    "demo",
    "doctor",
    "run",
    "data",
    "narrate",
    "split",
    "audit",
    "encode",
    "search",
    "pretrain",
    "adapt",
    "distil",
    "fit",
    "meta",
    "trial",
    "classify",
    "rate",
    "evaluate",
    "compare",
)


class Guarded(TyperGroup):
    """A group whose verbs never end in a traceback: 2 for bad input, 1 for failure, 130 for an interruption."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the verbs in the order of the work."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def invoke(self, ctx: Context) -> object:
        """Run the verb; turn what it raises into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except IsthmusError as error:
            _debug()
            fail(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            fail("interrupted; nothing is half written")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            if type(error).__module__.startswith("typer"):
                raise
            _debug()
            fail(f"{type(error).__name__}: {_first_line(error)} (set ISTHMUS_DEBUG=1 for the traceback)")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Guarded,
    help="Carry what a recommender learned in one domain over to another, with a language model as the carrier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for group in (
    data.verbs,
    splits.app,
    learn.app,
    search.app,
    transfer.app,
    distil.app,
    meta.app,
    tasks.app,
    judge.app,
    lists.app,
    items.app,
    people.app,
    persons.app,
    serve.app,
    events.app,
    backup.app,
    consume.app,
    keys.app,
    models.app,
    watch.app,
    whole.app,
    doctor.app,
):
    app.add_typer(group)


def _version(asked: bool) -> None:
    if asked:
        from isthmus import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carry what a recommender learned in one domain over to another, with a language model as the carrier."""


def main() -> None:
    """Run the command line with the arguments of this process."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("ISTHMUS_DEBUG"):
        import warnings

        warnings.filterwarnings("ignore")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="isthmus")
    except KeyboardInterrupt:
        sys.exit(130)


def _debug() -> None:
    if os.environ.get("ISTHMUS_DEBUG"):
        import traceback

        traceback.print_exc()


def _first_line(error: Exception) -> str:
    said = str(error).strip()
    return said.splitlines()[0][:300] if said else "no further message"
