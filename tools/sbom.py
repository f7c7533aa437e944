"""What the lock holds, as a bill of materials (CycloneDX 1.5, JSON), and whether a list of advisories names any of it.

``python -m tools.sbom OUT [--advisories FILE]``; FILE is JSON, a list of objects with ``id``, ``package``, ``versions``
(such as ``<2.1``) and ``severity``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

LOCK = Path("requirements.lock")
_LINE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")


def locked(text: str) -> dict[str, str]:
    r"""Return the version of every package in the text of a lock.

    Examples
    --------
    >>> locked("# a comment\nApsw==3.54.0\n")
    {'apsw': '3.54.0'}
    """
    found = [match for line in text.splitlines() if (match := _LINE.match(line))]
    return {re.sub(r"[-_.]+", "-", one[1]).lower(): one[2] for one in found}


def bill(packages: dict[str, str], version: str) -> dict[str, object]:
    """Return the bill of materials of isthmus ``version``."""
    parts = []
    for name, number in sorted(packages.items()):
        address = f"pkg:pypi/{name}@{number}"
        part: dict[str, object] = {"type": "library", "name": name, "version": number, "purl": address}
        licence = _licence(name)
        parts.append({**part, "licenses": [{"license": {"name": licence}}]} if licence else part)
    whole = {"type": "library", "name": "isthmus", "version": version, "licenses": [{"license": {"id": "Apache-2.0"}}]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": whole},
        "components": parts,
    }


def _licence(name: str) -> str:
    try:
        said = metadata(name)
    except PackageNotFoundError:
        return ""
    named = [str(one) for key in ("License-Expression", "License") for one in said.get_all(key) or [] if len(one) < 80]
    classes = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or [] if line.startswith("License")]
    return named[0] if named else "; ".join(classes)


def concerned(packages: dict[str, str], advisories: Sequence[dict[str, str]]) -> list[str]:
    """Return a line for each advisory that names a version in the lock.

    Examples
    --------
    >>> concerned({"apsw": "3.54.0"}, [{"id": "X-1", "package": "APSW", "versions": "<3.55", "severity": "critical"}])
    ['X-1 (critical): apsw 3.54.0']
    """
    found = []
    for one in advisories:
        name = re.sub(r"[-_.]+", "-", one["package"]).lower()
        number = packages.get(name)
        if number is not None and SpecifierSet(one["versions"]).contains(number, prereleases=True):
            found.append(f"{one['id']} ({one.get('severity', 'unknown')}): {name} {number}")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Write the bill; return 1 if an advisory names any of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--advisories", type=Path)
    said = parser.parse_args(words)
    from isthmus import __version__

    packages = locked(LOCK.read_text(encoding="utf-8"))
    said.out.write_text(json.dumps(bill(packages, __version__), indent=1) + "\n", encoding="utf-8")
    print(f"{said.out}: {len(packages)} packages")
    lines = concerned(packages, json.loads(said.advisories.read_text(encoding="utf-8"))) if said.advisories else []
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
