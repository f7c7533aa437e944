"""Writes docs/cli.md from the command line's definitions and docs/api.md from the public names; --check compares."""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click.core import Command, Context, Parameter

NOTE = "<!-- Written by `make docs` from the code. Change the code, not this page. -->\n"


def cli_page() -> str:
    """Return the reference of every verb: usage, help, arguments and flags."""
    import typer

    root = typer.main.get_command(importlib.import_module("isthmus.cli.main").app)
    context = root.context_class(root, info_name="isthmus", terminal_width=10_000)
    return "\n".join([NOTE, "# Command line\n", *_command(root, context)])


def _command(command: Command, context: Context) -> Iterator[str]:
    if context.parent is not None:
        yield f"## {context.command_path}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}\n"
    rows = [row for parameter in command.params if (row := _row(parameter, context))]
    if rows:
        yield "\n".join(["| name | meaning |", "|---|---|", *rows, ""])
    if not isinstance(command, TyperGroup):
        return
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if inner is not None and not inner.hidden:
            yield from _command(inner, command.context_class(inner, info_name=name, parent=context))


def _row(parameter: Parameter, context: Context) -> str:
    """Return one line of the table; empty for a parameter that help does not show."""
    record = None if parameter.name == "help" else parameter.get_help_record(context)
    if record is None:
        return ""
    names, about = (" ".join(text.split()).replace("|", "\\|") for text in record)
    return f"| `{names}` | {about} |"


def api_page() -> str:
    """Return the reference of the public names: docstrings of classes and of their public methods."""
    package = importlib.import_module("isthmus")
    parts = [NOTE, "# Python API\n", f"{inspect.cleandoc(package.__doc__ or '')}\n"]
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing):
            parts += [f"## isthmus.{name}\n", _fenced(thing), *_members(thing)]
    return "\n".join(parts)


def _members(thing: type[object]) -> Iterator[str]:
    for name, member in vars(thing).items():
        function = getattr(member, "__func__", getattr(member, "fget", None) or getattr(member, "func", member))
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        is_property = not inspect.isfunction(member) and not hasattr(member, "__func__")
        shown = "" if is_property else str(inspect.signature(function))
        yield f"### {thing.__name__}.{name}{shown}\n"
        yield _fenced(function)


def _fenced(thing: object) -> str:
    return f"```text\n{inspect.getdoc(thing) or ''}\n```\n"


def main() -> int:
    """Write or check both pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a page is not what the code says")
    check = parser.parse_args().check
    stale = []
    for name, page in (("cli", cli_page), ("api", api_page)):
        path, text = Path("docs") / f"{name}.md", page()
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            stale.append(str(path))
        elif not check:
            path.write_text(text, encoding="utf-8")
    print(f"docs: not current: {', '.join(stale)} (run make docs)" if stale else "docs: current")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
