"""Print a Markdown table of broken inputs and what isthmus says to each (cases: tests/bad_cases.py).

python benchmarks/bad_input.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bad_cases import CASES, Case, outcome


def row(case: Case) -> str:
    with tempfile.TemporaryDirectory() as name:
        os.environ["ISTHMUS_CASE"] = name
        kind, text = outcome(case, Path(name))
    shown = text.replace("|", "\\|").replace("\n", " ")
    verdict = "refused" if kind == "error" else "imported"
    ok = "yes" if case.message in text and (kind == "works") == case.works else "**NO**"
    return f"| {case.name} | {verdict} | {shown[:300]} | {ok} |"


def main() -> None:
    print("| input | outcome | message, or rows set apart | as expected |")
    print("|---|---|---|---|")
    for case in CASES:
        print(row(case))
    print(f"\n{len(CASES)} cases.")


if __name__ == "__main__":
    main()
