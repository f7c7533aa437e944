"""What the lock holds, as a bill of materials (CycloneDX 1.5, JSON): ``python -m tools.sbom OUT``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from tools.advisories import LOCK, locked


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


def main(words: Sequence[str] | None = None) -> None:
    """Write the bill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    said = parser.parse_args(words)
    from isthmus import __version__

    packages = locked(LOCK.read_text(encoding="utf-8"))
    said.out.write_text(json.dumps(bill(packages, __version__), indent=1) + "\n", encoding="utf-8")
    print(f"{said.out}: {len(packages)} packages")


if __name__ == "__main__":
    main()
