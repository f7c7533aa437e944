"""Writes requirements.lock: the exact version, as installed, of everything that isthmus[dev] needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

HEAD = """\
# Exact versions for CPython 3.11+ on Linux, written by `make lock` from an environment that passes all tests.
# Install with plain pip; torch of this version is the CPU build. Users with a GPU install their own torch first.
"""


def needed(name: str, extras: set[str], seen: set[tuple[str, str]]) -> Iterator[str]:
    """Yield the names of the installed distributions that ``name`` with ``extras`` needs, itself included."""
    for extra in sorted({"", *extras}):
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        yield name
        for line in distribution(name).requires or []:
            wanted = Requirement(line)
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": extra})
            if applies and (extra == "" or "extra" in str(wanted.marker)):
                yield from _installed(wanted, seen)


def _installed(wanted: Requirement, seen: set[tuple[str, str]]) -> Iterator[str]:
    name = re.sub(r"[-_.]+", "-", wanted.name).lower()
    try:
        distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"{wanted} is needed and not installed: install it, then lock again") from None
    yield from needed(name, set(wanted.extras), seen)


def main() -> int:
    """Write the lock; return the exit code."""
    names = sorted(set(needed("isthmus", {"dev"}, set())) - {"isthmus"})
    lines = [f"{name}=={distribution(name).version.split('+')[0]}" for name in names]
    Path("requirements.lock").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"requirements.lock: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
