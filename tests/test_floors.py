"""The house stands: floors import downwards only, no cycles, sizes kept, examples in docstrings true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import isthmus
from tools.sizes import offences

ROOT = Path(__file__).parents[1]
MODULES = sorted(found.name for found in pkgutil.walk_packages(isthmus.__path__, "isthmus."))


def contracts() -> list[dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_import_contracts_are_kept() -> None:
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"  # it silences all other loggers
    command = [sys.executable, "-c", lint, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_every_room_stands_on_a_floor() -> None:
    layers = next(contract["layers"] for contract in contracts() if contract["type"] == "layers")
    named = {room.strip(" ()") for layer in layers for room in layer.split("|")}
    assert {name for name in MODULES if name.count(".") == 1} <= named


def test_no_module_imports_itself_in_a_circle() -> None:
    import grimp

    graph = grimp.build_graph("isthmus", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 20
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_sizes_are_kept() -> None:
    found = [
        offence
        for path in sorted((ROOT / "src").rglob("*.py"))
        for offence in offences(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n" * 401, "module has 401 lines"),
        ("def f():\n" + "    x = 1\n" * 50, "f has 51 lines"),
        ("def f(self, a, b, c, d, e, *, g): ...", None),
        ("def f(a, b, c, d, e, g, *, h): ...", "f has 7 parameters"),
        ("def f(**more): ...", r"f takes \*\*more"),
        ("def f(a: list[Any]): ...", "f has Any in its signature"),
        ("def _f(a: Any, **more): ...", None),
        ("class C:\n" + "".join(f"    def m{k}(self): ...\n" for k in range(13)), "class C has 13 public methods"),
        ("class C:\n" + "".join(f"    @property\n    def m{k}(self): ...\n" for k in range(13)), None),
    ],
)
def test_the_check_of_sizes_sees_what_it_should(source: str, message: str | None) -> None:
    import re

    found = list(offences(Path("m.py"), source))
    assert len(found) == (message is not None)
    assert message is None or re.search(message, found[0])


@pytest.mark.parametrize("name", ["isthmus", *MODULES])
def test_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples_in_docstrings() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(tests) >= 25
