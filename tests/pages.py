"""The pages of the documentation, and the programs and commands in them."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def text_of(name: str) -> str:
    """Return the text of a page."""
    return (DOCS / name).read_text("utf-8")


def blocks_of(text: str, language: str) -> list[str]:
    """Return the blocks of code of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run_programs(name: str, count: int, known: dict[str, object] | None = None) -> dict[str, object]:
    """Run the ``count`` Python programs of a page, one after the other, and return the names they leave."""
    programs = blocks_of(text_of(name), "python")
    assert len(programs) == count, name
    names: dict[str, object] = {"__name__": "page"} | (known or {})
    for program in programs:
        exec(compile(program, name, "exec"), names)
    return names


def commands_of(text: str) -> list[str]:
    """Return the commands of isthmus in the blocks for a shell."""
    lines = [line for block in blocks_of(text, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("isthmus ")]
