"""The way of a newcomer, timed: a fresh clone, `make demo`, `isthmus serve`, the README's `curl`, the console's page.

    python benchmarks/bench_newcomer.py [--source REPOSITORY] [--out FOLDER]

Runs the commands as the README has them, in a temporary folder; only the port differs. `make demo` sets up `.venv`,
so packages come from the index that pip is set to. Writes newcomer.json and newcomer.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
SEEN = "http://127.0.0.1:8080"
#: What the README says of serving the demonstration's model, the beginning of its `curl`, and who is asked for there.
SERVE, CURL = "isthmus serve demo-town/model", f"curl -s {SEEN}/v1/recommend"
THERE, HERE = '{"platform": "shop", "user": "0000007"}', '{"platform": "bookshop", "user": "0000438"}'


def timed(name: str, steps: dict[str, float], work: Callable[[], bytes]) -> bytes:
    """Return what ``work`` says; remember its seconds."""
    began = time.perf_counter()
    said = work()
    steps[name] = time.perf_counter() - began
    return said


def done(command: list[str], folder: Path) -> bytes:
    """Return the output of a command that must succeed."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE).stdout


@contextmanager
def serving(folder: Path, steps: dict[str, float]) -> Iterator[str]:
    """Start what the README starts; yield its address when it listens."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    began = time.perf_counter()
    words = [f".venv/bin/{SERVE.split()[0]}", *SERVE.split()[1:], "--port", "0"]
    process = subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        steps["isthmus serve, until it listens"] = time.perf_counter() - began
        yield address
    finally:
        process.terminate()
        process.wait(30)


def way(source: str, folder: Path) -> dict[str, object]:
    """Return the seconds of each step, and what the list was."""
    steps: dict[str, float] = {}
    clone = folder / "isthmus"
    timed("git clone", steps, lambda: done(["git", "clone", "-q", source, str(clone)], folder))
    readme = (clone / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in readme.splitlines() if line.startswith(CURL) and THERE in line)
    lacking = [said for said in (SERVE, HERE) if said not in readme]
    timed("make demo, .venv from nothing", steps, lambda: done(["make", "demo"], clone))
    timed("make demo, again", steps, lambda: done(["make", "demo"], clone))
    with serving(clone, steps) as address:
        words = shlex.split(line.replace(SEEN, address).replace(THERE, HERE))
        answer = json.loads(timed("curl, a list with reasons", steps, lambda: done(words, clone)))
        page = timed("the console's page", steps, lambda: urllib.request.urlopen(f"{address}/console").read())
        for script in re.findall(rb'(?:src|href)="([^":]+)"', page):
            place = f"{address}/{script.decode()}"
            assert urllib.request.urlopen(place).status == 200
    lists = answer["lists"]
    reasons = [why for one in lists for item in one["items"] for why in item["reasons"]]
    assert reasons, "no list has a reason"
    assert not answer["degraded"]
    return {
        "steps": steps,
        "lists": len(lists),
        "reasons": len(reasons),
        "first": lists[0]["items"][0],
        "readme_lacks": lacking,
    }


def page(data: dict) -> str:
    """Return the report."""
    rows = [f"| {name} | {seconds:,.2f} |" for name, seconds in data["steps"].items()]
    said = f"{data['created']}, {data['cores']} core(s), load average {data['load']:.1f} at the end."
    names = f"The answer had {data['lists']} lists with {data['reasons']} reasons."
    names += "".join(f" **The README does not say** `{said}`." for said in data["readme_lacks"])
    return "\n".join(["# The way of a newcomer", "", said, names, "", "| step | seconds |", "|---|---|", *rows, ""])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", default=str(ROOT), help="what is cloned")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = way(args.source, Path(folder))
    data = {
        "created": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        **found,
    }
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "newcomer.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        (args.out / "newcomer.md").write_text(page(data), encoding="utf-8")
    print(json.dumps(data))


if __name__ == "__main__":
    main()
