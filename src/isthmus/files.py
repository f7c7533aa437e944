"""Whole or not at all: files and folders are written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from isthmus.errors import ArtefactError, InputError, StorageError

Json = dict[str, object]

#: The file that says what a folder of ours holds.
MANIFESTS: Final = (
    "corpus.json",
    "split.json",
    "vectors.json",
    "model.json",
    "ratings.json",
    "run.json",
    "classes.json",
    "report.json",
    "isthmus.json",
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EROFS, errno.EPERM)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into a :class:`StorageError` that names the path."""
    try:
        yield
    except Exception as error:
        number = _errno(error)
        if number in _FULL:
            raise StorageError("the disk is full", where=path, fix="free some space; nothing was changed") from error
        if number in _REFUSED and isinstance(error, OSError):
            raise StorageError(f"cannot write: {error.strerror}", where=path) from error
        raise


def _errno(error: Exception) -> int | None:
    """Return the operating system's error number, also of Polars' errors, which carry it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextmanager
def new_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` on success and disappears on any failure.

    An existing ``path`` is replaced only if it is empty or holds one of :data:`MANIFESTS`, and only by content of
    the same kind that is complete: a split never takes the place of its corpus.
    """
    path = Path(path)
    require_free(path)
    if path.exists() and not replace:
        raise InputError("exists already", where=path, fix="choose another --out")
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    with storage_errors(path):
        sweep(path)
        part.mkdir(parents=True)
    try:
        with storage_errors(path):
            yield part
            if path.exists():
                _require_kind(path, part)
                path.rename(old)
            part.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def require_free(path: Path) -> None:
    """Refuse a folder that :func:`new_folder` would refuse: to be called before long work, not after it."""
    if path.exists() and not (path.is_dir() and (_kinds(path) or not any(path.iterdir()))):
        raise InputError("exists and was not written by isthmus", where=path, fix="choose another --out")


def sweep(path: Path) -> None:
    """Remove what killed runs left beside ``path``; bring the old content back if a kill hit between two renames."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(part|old)-(\d+)")
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    for left in beside:
        found = pattern.fullmatch(left.name)
        if found is None or _alive(int(found[2])):
            continue
        if found[1] == "old" and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _kinds(folder: Path) -> set[str]:
    """Return which manifests a folder holds."""
    return {name for name in MANIFESTS if (folder / name).is_file()}


def _require_kind(old: Path, new: Path) -> None:
    kinds = _kinds(old)
    if kinds and kinds != _kinds(new):
        kind = ", ".join(sorted(name.removesuffix(".json") for name in kinds))
        raise InputError(f"holds a {kind} already, which was left as it is", where=old, fix="choose another --out")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` on success and removed on failure."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def json_text(content: Mapping[str, object]) -> str:
    """Return ``content`` as the JSON text that :func:`write_json` writes."""
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write ``content`` as UTF-8 JSON, whole or not at all."""
    with new_file(path) as part:
        part.write_text(json_text(content), encoding="utf-8")


def read_json(path: Path, *, what: str) -> Json:
    """Return the JSON object in ``path``; ``what`` names the artefact in the error if it is not one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ArtefactError(
            f"is not a {what}", where=Path(path).parent, fix=f"name a folder written as a {what}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"the {what} is damaged: {error}", where=path, fix="write it again") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"the {what} is damaged: not a JSON object", where=path, fix="write it again")
    return cast("Json", content)


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
