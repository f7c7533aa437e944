"""Whether advisories name a version of the lock: ``python -m tools.advisories FILE`` reads them in OSV's format.

FILE is one record or a list of them (JSON), or a ZIP of records: the export of osv.dev for PyPI is one. Nothing is
fetched. Exit code 1: the lock is concerned; 2: FILE says nothing of PyPI, which is no all-clear.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from zipfile import ZipFile, is_zipfile

from packaging.version import InvalidVersion, Version

LOCK = Path("requirements.lock")
_LINE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")
Record = Mapping[str, object]


def plain(name: str) -> str:
    """Return the name of a package in its one form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    r"""Return the version of every package in the text of a lock.

    Examples
    --------
    >>> locked("# a comment\nApsw==3.54.0\n")
    {'apsw': '3.54.0'}
    """
    found = [match for line in text.splitlines() if (match := _LINE.match(line))]
    return {plain(one[1]): one[2] for one in found}


@dataclass(frozen=True)
class Checked:
    """What a list of advisories said of the lock: how many concern PyPI, when the newest changed, and what is hit."""

    advisories: int
    newest: str
    lines: list[str]


def check(path: Path, packages: Mapping[str, str]) -> Checked:
    """Return what the advisories in a file say of ``packages`` (name to version)."""
    count, newest, lines = 0, "", []
    for record in records(path):
        parts = [part for part in _dicts(record.get("affected")) if _package(part)]
        if not parts or record.get("withdrawn"):
            continue
        count, newest = count + 1, max(newest, str(record.get("modified", "")))
        for name in sorted({_package(part) for part in parts} & set(packages)):
            if any(affects(part, packages[name]) for part in parts if _package(part) == name):
                names = ", ".join([str(record.get("id")), *map(str, cast("list[str]", record.get("aliases") or []))])
                lines.append(f"{names} ({_severity(record)}): {name} {packages[name]}")
    return Checked(count, newest, lines)


def records(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON file, or of all JSON files of a ZIP."""
    if is_zipfile(path):
        with ZipFile(path) as packed:
            for name in sorted(packed.namelist()):
                if name.endswith(".json"):
                    yield json.loads(packed.read(name))
        return
    said = json.loads(path.read_text(encoding="utf-8"))
    yield from said if isinstance(said, list) else [said]


def affects(part: Record, number: str) -> bool:
    """Return whether an entry of ``affected`` holds a version; what cannot be compared counts as held.

    Examples
    --------
    >>> bounds = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}
    >>> affects({"ranges": [bounds]}, "2.0"), affects({"ranges": [bounds]}, "2.1")
    (True, False)
    """
    version = Version(Version(number).public)  # a build for a processor has the holes of its release
    try:
        named = any(Version(one) == version for one in cast("list[str]", part.get("versions") or []))
        bounds = [one for one in _dicts(part.get("ranges")) if one.get("type") in ("ECOSYSTEM", "SEMVER")]
        return named or any(_inside(_dicts(one.get("events")), version) for one in bounds)
    except InvalidVersion:
        return True


def _inside(events: Sequence[Record], version: Version) -> bool:
    """Return whether a version lies between events of a range, as OSV says they are to be read."""
    steps = sorted((Version(str(value)), name) for event in events for name, value in event.items())
    inside = False
    for at, name in steps:
        if name == "introduced" and version >= at:
            inside = True
        elif (name == "fixed" and version >= at) or (name == "last_affected" and version > at):
            inside = False
    return inside


def _package(part: Record) -> str:
    said = part.get("package")
    if not isinstance(said, Mapping) or said.get("ecosystem") != "PyPI":
        return ""
    return plain(str(said.get("name")))


def _severity(record: Record) -> str:
    own = record.get("database_specific")
    word = own.get("severity") if isinstance(own, Mapping) else None
    scores = [str(one.get("score")) for one in _dicts(record.get("severity"))]
    return str(word or (scores or ["severity unknown"])[0]).lower()


def _dicts(said: object) -> list[Record]:
    return [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []


def main(words: Sequence[str] | None = None) -> int:
    """Say what concerns the lock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lock", type=Path, default=LOCK)
    said = parser.parse_args(words)
    packages = locked(said.lock.read_text(encoding="utf-8"))
    found = check(said.file, packages)
    print(
        "\n".join([*found.lines, f"{found.advisories} advisories of PyPI, the newest of {found.newest or 'no date'}"])
    )
    print(f"{len(packages)} packages locked, {len(found.lines)} hit(s)")
    if not found.advisories or not packages:
        return 2
    return 1 if found.lines else 0


if __name__ == "__main__":
    sys.exit(main())
