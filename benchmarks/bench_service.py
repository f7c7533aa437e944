"""The service under load: against an empty route that returns the same bytes, and part by part against its goals.

    python benchmarks/bench_service.py [--only PART ...] [--items 20000] [--persons 100000] [--rounds 3] [--seconds 3]
        [--reloads 100] [--worlds FOLDER] [--out FOLDER]

Parts: ``pace``; ``anybody`` lists of all persons ready, and with reasons; ``L2`` 100,000 items; ``L3`` events in
batches; ``L5`` five times too much; ``M1`` reloads; ``M5`` a shadow. A synthetic catalogue and histories;
popularity, item kNN and TF-IDF blended. The server is a process of its own, the generator keeps connections open
and shares the machine. Requests a second depend on what else runs there, so the processor time of the server for
one request is measured too. Writes service.json and README.md; parts measured before stay in them, and so does what
a person wrote below "What this says".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from service_anybody import anybody
from service_page import goals, page
from service_parts import Part, Size, many_events, many_items, pace
from service_strain import overload, reloads, shadow

#: By the name of the option.
PARTS = {
    "pace": pace,
    "anybody": anybody,
    "L2": many_items,
    "L3": many_events,
    "L5": overload,
    "M1": reloads,
    "M5": shadow,
}


def measured(name: str, size: Size) -> Part:
    """Return the figures of a part, and the machine it was measured on."""
    before = os.getloadavg()[0]
    found = PARTS[name](size)
    machine = {
        "created": datetime.now(UTC).date().isoformat(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{part: version(part) for part in ("uvicorn", "fastapi", "apsw", "orjson", "numpy")},
        "load_before": before,
        "load_after": os.getloadavg()[0],
    }
    return {**found, "machine": machine}


def write(out: Path, data: dict) -> None:
    """Write the report of all parts measured so far."""
    out.mkdir(parents=True, exist_ok=True)
    report = out / "README.md"
    before = report.read_text(encoding="utf-8") if report.is_file() else ""
    (out / "service.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    report.write_text(page(data, before), encoding="utf-8")


def read(out: Path | None) -> dict[str, Part]:
    """Return the parts of an earlier report."""
    if out is None or not (out / "service.json").is_file():
        return {}
    found: dict[str, Part] = json.loads((out / "service.json").read_text(encoding="utf-8")).get("parts", {})
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--ready", type=int, default=1000, help="persons whose lists are ready")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--worlds", type=Path, help="where the models are kept for the next run")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    parts = read(args.out)
    with TemporaryDirectory() as folder:
        size = Size(
            args.worlds or Path(folder), args.items, args.persons, args.ready, args.rounds, args.seconds, args.reloads
        )
        for name in args.only:
            parts[name] = measured(name, size)
            data = {"items": args.items, "persons": args.persons, "parts": {n: parts[n] for n in PARTS if n in parts}}
            if args.out:
                write(args.out, data)
            for goal in goals({name: parts[name]}):
                print(f"{'met   ' if goal.met else 'missed'} {goal.id}: {goal.what}: {goal.figure}", file=sys.stderr)
    print(json.dumps({name: parts[name] for name in args.only}))


if __name__ == "__main__":
    main()
