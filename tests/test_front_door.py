"""The front door: few names, light to open, and the pages and commands that describe it are true."""

from __future__ import annotations

import importlib.util
import os
import re
import statistics
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

import isthmus

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "scipy", "polars", "pyarrow", "implicit")
needs_cli = pytest.mark.skipif(importlib.util.find_spec("isthmus.cli.main") is None, reason="no command line yet")


def loaded_by(code: str) -> set[str]:
    """Return which heavy packages a fresh interpreter has loaded after ``code``."""
    ask = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_few_sorted_names_which_all_exist() -> None:
    assert isthmus.__all__ == sorted(isthmus.__all__)
    assert len(isthmus.__all__) <= 12
    assert all(getattr(isthmus, name) is not None for name in isthmus.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Corpse'"):
        _ = isthmus.Corpse


def test_the_package_is_typed() -> None:
    assert (Path(isthmus.__file__).parent / "py.typed").exists()


def test_import_is_light() -> None:
    assert loaded_by("import isthmus") == set()


def test_import_is_quick() -> None:
    code = "import time; start = time.perf_counter(); import isthmus; print(time.perf_counter() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    assert statistics.median(float(run.stdout) for run in runs) <= 0.3


@needs_cli
def test_help_is_light() -> None:
    lines = (
        "import sys",
        "sys.argv = ['isthmus', '--help']",
        "try:",
        "    from isthmus.cli.main import main",
        "    main()",
        "except SystemExit:",
        "    pass",
    )
    assert loaded_by("\n".join(lines)) == set()


@needs_cli
def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([str(Path(sys.executable).parent / "isthmus"), "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 1.5  # 0.5 s on a quiet machine; tests share theirs


@needs_cli
def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_pins_every_dependency_exactly() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=]", line)[0].lower() for line in wanted} - {"isthmus"}
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert names <= {line.split("==")[0] for line in lines}


def unhashed(lock: str, hashes: str) -> list[str]:
    """Return each pin of the lock that the file of hashes has not with hashes, and each it has and the lock has not."""
    lines = [line.split() for line in hashes.replace("\\\n", "").splitlines() if not line.startswith("#")]
    hashed = [
        line[0]
        for line in lines
        if line[1:] and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in line[1:])
    ]
    pins = [line for line in lock.splitlines() if not line.startswith("#")]
    return sorted({*pins} ^ {*hashed} | {pin for pin in hashed if hashed.count(pin) > 1})


def test_every_pin_of_the_lock_has_hashes() -> None:
    lock, hashes = (ROOT / "requirements.lock").read_text(), (ROOT / "requirements.hashes").read_text()
    assert unhashed(lock, hashes) == []
    pin = re.search(r"^(torch==\S+) \\\n.*\n", hashes, re.M)
    assert pin is not None
    assert unhashed(lock, hashes.replace(pin[0], "")) == [pin[1]]
    assert unhashed(lock, hashes.replace(pin[0], pin[1] + "\n")) == [pin[1]]
    assert unhashed(lock, hashes.replace(pin[1], "torch==0.1")) == sorted([pin[1], "torch==0.1"])
    assert unhashed(lock, hashes.replace(pin[0], pin[0][:-9] + "\n")) == [pin[1]], "a hash cut short"


def test_hashes_are_not_written_without_their_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tools import hashes

    monkeypatch.setattr(hashes, "OUT", tmp_path / "requirements.hashes")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="pip install uv"):
        hashes.main()
    assert not hashes.OUT.exists()


def test_every_package_the_source_imports_is_declared() -> None:
    import tomllib
    from importlib.metadata import packages_distributions

    import grimp

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    declared = {re.split(r"[\[<>=]", line)[0].lower() for line in wanted}
    graph = grimp.build_graph("isthmus", include_external_packages=True, cache_dir=None)
    outside = {name for name in graph.modules if graph.is_module_squashed(name)} - set(sys.stdlib_module_names)
    homes = packages_distributions()
    for package in sorted(outside):
        names = {home.lower().replace("_", "-") for home in homes.get(package.split(".")[0], [package])}
        assert names & declared, f"{package} is imported and not declared"


def test_make_lists_the_targets_of_the_contract() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"demo", "test", "check", "bench", "docs", "clean"} <= listed
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_decision_records_have_their_four_parts() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert len(records) >= 6
    for number, path in enumerate(records, start=1):
        text = path.read_text(encoding="utf-8")
        assert path.name.startswith(f"{number:04d}-")
        assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Options", "Decision", "Validation"], path.name


def test_notebooks_show_texts_as_texts() -> None:
    """S10: no class of ours writes HTML for notebooks, and the tables we return write it with every payload escaped."""
    own = re.compile(r"_repr_(html|markdown|svg|javascript|mimebundle)_|_ipython_display_")
    assert not [path for path in (ROOT / "src").rglob("*.py") if own.search(path.read_text(encoding="utf-8"))]
    payloads = (ROOT / "tests" / "hostile.txt").read_text(encoding="utf-8").splitlines()
    names = [f"{place}-{payload}" for place, payload in enumerate(payloads)]
    rows = pl.DataFrame({"platform": "shop", "item": names, "title": payloads})
    with pl.Config(tbl_rows=len(names), fmt_str_lengths=10_000):
        page = rows._repr_html_()
    assert len(payloads) >= 60
    found = Tags()
    found.feed(page)
    assert found.names <= {"div", "style", "table", "thead", "tbody", "tr", "th", "td", "small"}, found.names
    texts = "".join(found.texts)
    assert all(payload.strip() in texts for payload in payloads if "\\" not in payload), "shown, as text"
    found.feed(f"<td>{payloads[0]}</td>")
    assert "script" in found.names, "the reader would have seen it"


class Tags(HTMLParser):
    """The elements of a page, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
