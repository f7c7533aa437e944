"""A model's folder is closed: a manifest that knows itself, the files it names, and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import numpy as np
from safetensors import safe_open

from isthmus.errors import ArtefactError
from isthmus.files import Json, json_text, sha256
from isthmus.room import roomy

#: Kinds of files a model consists of: none of them can hold a program.
KINDS: Final = (".json", ".parquet", ".safetensors")
#: The name of the signature, where there is one; see :mod:`isthmus.service.rollout.signing`.
SIGNATURE: Final = "signature.json"
#: Bytes of an array that are read in one go, about: meanwhile no other thread has its turn.
STEP: Final = 1 << 20
_SEAL: Final = "sha256"
_FIX: Final = "fit it again"


def sealed(manifest: Mapping[str, object]) -> Json:
    """Return ``manifest`` as JSON gives it back, with a checksum of all the rest of it.

    Examples
    --------
    >>> seal = sealed({"format": 3})
    >>> sorted(seal), sealed({"format": 4})["sha256"] == seal["sha256"]
    (['format', 'sha256'], False)
    """
    plain: Json = json.loads(json_text(manifest))
    return {**plain, _SEAL: _digest(plain)}


def require_sealed(file: Path, manifest: Json, *, since: int) -> None:
    """Refuse a ``manifest``, read from ``file``, of which a byte was changed; from format ``since`` on it has a seal.

    Raises
    ------
    ArtefactError
        It was changed.
    """
    seal = manifest.get(_SEAL)
    if seal is None and cast("int", manifest["format"]) < since:
        return
    rest = {name: value for name, value in manifest.items() if name != _SEAL}
    try:
        same = seal == _digest(rest) and file.read_bytes() == json_text(manifest).encode()
    except ValueError:
        same = False
    if not same:
        raise ArtefactError(f"{file.name} was changed since it was written", where=file.parent, fix=_FIX)


def require_closed(path: Path, files: Mapping[str, str], beside: tuple[str, ...]) -> None:
    """Refuse a folder that holds anything but ``files`` with their checksums, and the names ``beside``.

    Raises
    ------
    ArtefactError
        A file is missing, was changed, is of another kind, is a link or a folder, or is named by nobody.
    """
    for file in sorted(path.iterdir()):
        if file.is_symlink() or not file.is_file():
            raise ArtefactError(f"{file.name} is no plain file", where=path, fix="take it out")
        if file.name not in files and file.name not in beside:
            raise ArtefactError(f"{file.name} is no part of the model", where=path, fix="take it out")
    for name, digest in files.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise ArtefactError(f"{name} is missing", where=path, fix=_FIX)
        if file.suffix not in KINDS:
            raise ArtefactError(f"{name} is of a kind that is not read", where=path, fix=f"only {', '.join(KINDS)}")
        if sha256(file) != digest:
            raise ArtefactError(f"{name} was changed since it was written", where=path, fix=_FIX)


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file.

    Raises
    ------
    ArtefactError
        A number in it is none.
    """
    with safe_open(file, framework="numpy") as opened:
        found = {name: _array(opened, name) for name in opened.keys()}  # noqa: SIM118
    for name, array in found.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ArtefactError(f"'{name}' in {file.name} holds what is no number", where=file.parent, fix=_FIX)
    return found


def _array(opened: safe_open, name: str) -> np.ndarray:
    """Return an array of an open file, read a part after the other."""
    part = opened.get_slice(name)  # type: ignore[no-untyped-call]
    shape = part.get_shape()
    rows = max(STEP // (8 * max(math.prod(shape[1:]), 1)), 1)
    if not math.prod(shape) or not shape or shape[0] <= rows:
        whole: np.ndarray = opened.get_tensor(name)  # type: ignore[no-untyped-call]
        return whole
    first = part[:rows]
    found = roomy(shape, first.dtype)  # items may come later
    found[:rows] = first
    for start in range(rows, shape[0], rows):
        found[start : start + rows] = part[start : min(start + rows, shape[0])]
    return found


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json_text(content).encode()).hexdigest()
