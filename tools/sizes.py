"""Sizes that keep the house readable: prints every offender and exits 1 if there is one.

Limits: 400 lines a module, 50 lines a function (docstring aside), 6 parameters, 12 public methods a class
(properties aside); no ``**kwargs`` and no ``Any`` in public signatures. Complexity is ruff's (C901, at most 10).
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 50
PARAMETERS = 6
PUBLIC_METHODS = 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


def offences(path: Path, source: str) -> Iterator[str]:
    """Yield one line for each limit that ``source`` breaks.

    Examples
    --------
    >>> list(offences(Path("m.py"), "def f(a, b, c, d, e, f, g): ..."))
    ['m.py:1: f has 7 parameters (limit 6)']
    """
    lines = source.count("\n")
    if lines > MODULE_LINES:
        yield f"{path}:1: module has {lines} lines (limit {MODULE_LINES})"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield from (f"{path}:{node.lineno}: {node.name} {what}" for what in _function(node))
        elif isinstance(node, ast.ClassDef):
            methods = sum(isinstance(part, Function) and _is_method(part) for part in node.body)
            if methods > PUBLIC_METHODS and not node.name.startswith("Test"):
                yield f"{path}:{node.lineno}: class {node.name} has {methods} public methods (limit {PUBLIC_METHODS})"


def _function(node: Function) -> Iterator[str]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    documentation = ast.get_docstring(node, clean=False)
    lines -= documentation.count("\n") + 1 if documentation else 0
    if lines > FUNCTION_LINES:
        yield f"has {lines} lines (limit {FUNCTION_LINES})"
    names = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    count = sum(name.arg not in ("self", "cls") for name in names)
    # the flags of a command are given by name: no parameter list that code must carry
    if count > PARAMETERS and not _is_command(node):
        yield f"has {count} parameters (limit {PARAMETERS})"
    if node.name.startswith("_"):
        return
    if node.args.kwarg:
        yield f"takes **{node.args.kwarg.arg}"
    marks = [name.annotation for name in names] + [node.returns]
    if any(isinstance(part, ast.Name) and part.id == "Any" for mark in marks if mark for part in ast.walk(mark)):
        yield "has Any in its signature"


def _is_method(node: Function) -> bool:
    properties = any("property" in ast.unparse(mark) for mark in node.decorator_list)
    return not node.name.startswith("_") and not properties


def _is_command(node: Function) -> bool:
    return any("command" in ast.unparse(mark) or "callback" in ast.unparse(mark) for mark in node.decorator_list)


def main() -> int:
    """Check ``src``, ``tools`` and the length of the other modules; return the exit code."""
    found: list[str] = []
    lengths: list[int] = []
    for path in sorted([*Path("src").rglob("*.py"), *Path("tools").rglob("*.py")]):
        source = path.read_text(encoding="utf-8")
        lengths.append(source.count("\n"))
        found += offences(path, source)
    for path in sorted([*Path("tests").rglob("*.py"), *Path("benchmarks").rglob("*.py")]):
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > MODULE_LINES:
            found.append(f"{path}:1: module has {lines} lines (limit {MODULE_LINES})")
    print(
        "\n".join(found) or f"sizes: {len(lengths)} modules, median {statistics.median(lengths):.0f} lines, no offender"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
