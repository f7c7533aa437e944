"""Writes requirements.hashes: the pins of requirements.lock, each with the sha256 of every file its index has of it.

``python -m tools.hashes`` needs the network and uv (``pip install uv``), which reads the hashes from PyPI. A version
installed with a local part (``torch 2.13.0+cpu``) is not on PyPI: its hash is that of the one wheel pip finds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tools.advisories import LOCK, locked

OUT = Path("requirements.hashes")
HEAD = """\
# The pins of requirements.lock with the sha256 of their files, written by `make lock`. For Linux on x86-64:
# pip install --require-hashes --no-deps -r requirements.hashes
# Hashes are of PyPI's files, except: {local}, the one wheel of the CPU build for CPython {python}.
# It is not on PyPI: give pip the index of CPU builds that pytorch.org names, by --extra-index-url.
"""


def of_pypi(pins: list[str]) -> str:
    """Return the lines of a file of requirements for ``pins``, with the hashes that PyPI lists."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is needed to read the hashes of the locked files: pip install uv, then lock again")
    words = ["--no-config", "pip", "compile", "-", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate"]
    words += ["--default-index", "https://pypi.org/simple", "--python", sys.executable, "--quiet"]
    return subprocess.run([uv, *words], input="\n".join(pins), check=True, text=True, stdout=subprocess.PIPE).stdout


def of_wheel(name: str, number: str) -> str:
    """Return the sha256 of the file that pip takes for one version, local part included."""
    words = ["install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", f"{name}=={number}"]
    done = subprocess.run([sys.executable, "-m", "pip", *words], check=True, text=True, stdout=subprocess.PIPE)
    (taken,) = json.loads(done.stdout)["install"]
    return str(taken["download_info"]["archive_info"]["hashes"]["sha256"])


def main() -> int:
    """Write the file; return the exit code."""
    pins = locked(LOCK.read_text(encoding="utf-8"))
    local = {name: version(name) for name in pins if "+" in version(name)}
    text = of_pypi([f"{name}=={number}" for name, number in pins.items() if name not in local])
    for name, number in local.items():
        text += f"{name}=={pins[name]} \\\n    --hash=sha256:{of_wheel(name, number)}\n"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    head = HEAD.format(
        local=" and ".join(f"{name} {number}" for name, number in local.items()) or "none", python=python
    )
    OUT.write_text(head + text, encoding="utf-8")
    print(f"{OUT}: {len(pins)} packages, {text.count('--hash=')} hashes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
