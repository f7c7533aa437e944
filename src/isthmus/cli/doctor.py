"""Whether this machine can do the work: Python, packages, processor, cache, disk, language model, data."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.extras import needs
from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json
from isthmus.errors import IsthmusError

app = typer.Typer()

#: Free space below which a warning is given, in bytes.
LITTLE = 2 << 30


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``ok``, ``note`` (something optional is missing) or ``fail``."""

    name: str
    level: str
    said: str


@app.command("doctor")
def doctor_(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATA]...",
            help="Looked at instead of this machine: a service's folder, a backup, a model, postgresql://, redis://,"
            " or a stream: nats://HOST?stream=NAME, amqp://HOST?queue=NAME, kafka://HOST?topic=NAME.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where a store cannot keep what it accepts.")] = False,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Check this machine, or what stores can keep: exit code 1 if something is missing, damaged, or too weak."""
    if data:
        _stores(data, strict=strict)
        return
    checks = checked()
    if wants_json():
        put_json({"ok": not _failed(checks), "checks": [vars(check) for check in checks]})
    table("doctor", ("", "", ""), [(check.name, check.level, check.said) for check in checks])
    if _failed(checks):
        raise typer.Exit(1)
    if not wants_json():
        say("everything that is needed is there")


def _stores(urls: list[str], *, strict: bool) -> None:
    """Say what stores can keep."""
    with needs("service"):
        from isthmus.service.log.durability import look
        from isthmus.service.streams.keeps import SCHEMES, look_at_stream
    from isthmus.config import expand

    found = []
    for number, name in enumerate(urls, start=1):
        url = expand(name, where="doctor")
        found.append((number, look_at_stream(url) if url.startswith(SCHEMES) else look(url)))
    rows = [(number, one.name, one.level, one.said) for number, findings in found for one in findings]
    bad = sum(level == "fail" or (strict and level == "weak") for _, _, level, _ in rows)
    if wants_json():
        checks = [{"store": number, "name": name, "level": level, "said": said} for number, name, level, said in rows]
        put_json({"ok": not bad, "checks": checks})
    else:
        table("doctor", ("store", "", "", ""), rows)
    if bad:
        raise typer.Exit(1)
    if not wants_json():
        weak = sum(level == "weak" for _, _, level, _ in rows)
        say(f"{weak} setting(s) may lose what was accepted" if weak else "what is accepted is kept")


def checked() -> list[Check]:
    """Return all checks."""
    single: tuple[Callable[[], Check], ...] = (_python, _torch, _model, _cache, _disk, _data)
    return [*_packages(), *(check() for check in single)]


def _failed(checks: list[Check]) -> bool:
    return any(check.level == "fail" for check in checks)


def _python() -> Check:
    said = sys.version.split()[0]
    return Check("python", "ok" if sys.version_info >= (3, 11) else "fail", f"{said}, {os.cpu_count()} cores")


def _packages() -> list[Check]:
    """Return one check for the core and one for each extra, by what the package itself says it needs."""
    groups: dict[str, list[str]] = {"core": [], "text": [], "methods": [], "sql": []}
    for line in requires("isthmus") or []:
        need, _, when = line.partition(";")
        name = need.split(">=")[0].split("[")[0].strip()
        extra = when.partition("==")[2].strip().strip("\"'") or "core"
        if extra in groups and name != "isthmus":
            groups[extra].append(name)
    return [_group(extra, names) for extra, names in groups.items()]


def _group(extra: str, names: list[str]) -> Check:
    found = {name: _version(name) for name in names}
    missing = [name for name, said in found.items() if not said]
    if not missing:
        return Check(f"packages: {extra}", "ok", ", ".join(f"{name} {said}" for name, said in found.items()))
    fix = "pip install isthmus" if extra == "core" else f"pip install 'isthmus[{extra}]'"
    return Check(f"packages: {extra}", "fail" if extra == "core" else "note", f"missing {', '.join(missing)}: {fix}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _torch() -> Check:
    try:
        import torch

        from isthmus.encode.text import has_bf16
    except ImportError:
        return Check("torch", "note", "not installed: no language model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = "bfloat16" if has_bf16(device) else "float32 (no bfloat16 in hardware)"
    return Check("torch", "ok", f"{device}, {torch.get_num_threads()} threads, {bf16}")


def _model() -> Check:
    from isthmus.encode.weights import locate

    try:
        return Check("language model", "ok", locate(None).name)
    except IsthmusError as error:
        return Check("language model", "note", str(error))


def _cache() -> Check:
    from isthmus.encode.store import cache_folder

    folder = cache_folder()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Check("cache", "fail", f"{folder} cannot be written ({error.strerror}): set ISTHMUS_CACHE")
    return Check("cache", "ok", f"{folder}, {size / 1e6:,.1f} MB")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    return Check("disk", "ok" if free > LITTLE else "note", f"{free / 1e9:,.1f} GB free here")


def _data() -> Check:
    named = os.environ.get("ISTHMUS_DATA")
    if not named:
        return Check("ISTHMUS_DATA", "ok", "not set (only tests and benchmarks on real data read it)")
    there = Path(named).is_dir()
    return Check("ISTHMUS_DATA", "ok" if there else "note", named if there else f"{named} is no folder")
