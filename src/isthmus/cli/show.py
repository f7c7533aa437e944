"""What a person sees and what a machine reads: Rich tables or one JSON object on stdout, all else on stderr."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isthmus.errors import IsthmusError
from isthmus.log import logger

if TYPE_CHECKING:
    from rich.console import Console

_asked_json = False


def _set_json(asked: bool) -> bool:
    global _asked_json
    _asked_json = asked
    return asked


def _set_verbose(asked: bool) -> bool:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("isthmus: %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if asked else logging.WARNING)
    return asked


#: The words of ``isthmus.types.Protocol``, written here because that module loads NumPy and ``--help`` must not.
Protocol = Literal["time", "leave-last"]
#: Flags that every verb has.
Json = Annotated[bool, typer.Option("--json", callback=_set_json, is_eager=True, help="Machine-readable output.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", callback=_set_verbose, is_eager=True, help="Say more.")]
#: How new items are tried out, for all verbs that make lists.
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


def wants_json() -> bool:
    """Return whether this command was asked for JSON."""
    return _asked_json


def console(*, error: bool = False) -> Console:
    """Return a console on stdout (or stderr) that takes every text literally."""
    from rich.console import Console

    made = Console(stderr=error, markup=False, highlight=False, emoji=False)
    return made if made.is_terminal else Console(stderr=error, markup=False, highlight=False, emoji=False, width=120)


def put_json(content: object) -> None:
    """Write ``content`` as JSON to stdout: numbers of NumPy as numbers, no NaN."""
    from isthmus.evaluate.report import plain

    typer.echo(_dumps(plain(content), indent=1))


def say(text: str) -> None:
    """Write a line for a person: on stdout, or on stderr where stdout is for JSON."""
    console(error=wants_json()).print(text, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table for a person; columns of numbers stand on the right. With ``--json`` nothing is written."""
    if wants_json():
        return
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold")
    for place, name in enumerate(columns):
        right = bool(rows) and all(isinstance(row[place], (int, float)) for row in rows)
        made.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    console().print(made)


def facts(title: str, content: Mapping[str, object]) -> None:
    """Write names and values for a person."""
    table(title, ("", ""), [(name, value) for name, value in content.items()])


def fail(error: IsthmusError | str) -> None:
    """Write what went wrong to stderr, and as JSON to stdout where that was asked for."""
    console(error=True).print(f"isthmus: {error}", soft_wrap=True)
    if wants_json():
        known = isinstance(error, IsthmusError)
        said = {"what": error.what, "where": error.where, "fix": error.fix} if known else {"what": error}  # type: ignore[union-attr]
        typer.echo(_dumps({"error": said}))


def _dumps(content: object, indent: int | None = None) -> str:
    """Return JSON that standard output can carry: letters as they are where it speaks UTF-8, else escaped."""
    wide = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    return json.dumps(content, ensure_ascii=not wide, indent=indent)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"
    return str(value)
