"""Moves the fragments of changelog.d into CHANGELOG.md under a version: ``python -m tools.changelog 0.2.0``."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path


def released(changelog: str, fragments: list[str], heading: str) -> str:
    r"""Return ``changelog`` with a new section before the older ones.

    Examples
    --------
    >>> print(released("# Changelog\n\n## 0.1\n\n- Old.\n", ["- New.\n"], "0.2"))
    # Changelog
    <BLANKLINE>
    ## 0.2
    <BLANKLINE>
    - New.
    <BLANKLINE>
    ## 0.1
    <BLANKLINE>
    - Old.
    <BLANKLINE>
    """
    section = f"## {heading}\n\n" + "".join(fragment.strip() + "\n" for fragment in fragments)
    head, older = re.split(r"(?=^## )", changelog, maxsplit=1, flags=re.M) if "\n## " in changelog else (changelog, "")
    return f"{head.rstrip()}\n\n{section}" + (f"\n{older}" if older else "")


def main() -> int:
    """Write the section and remove the fragments; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version")
    version = parser.parse_args().version
    paths = sorted(Path("changelog.d").glob("*.md"))
    if not paths:
        print("changelog.d holds no fragments", file=sys.stderr)
        return 1
    target = Path("CHANGELOG.md")
    heading = f"{version} ({datetime.now(UTC):%Y-%m-%d})"
    fragments = [path.read_text(encoding="utf-8") for path in paths]
    target.write_text(released(target.read_text(encoding="utf-8"), fragments, heading), encoding="utf-8")
    for path in paths:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
