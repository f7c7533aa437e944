"""Models of tasks on disk: JSON, Parquet and safetensors, every file named with its checksum in the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from isthmus.errors import ArtefactError, SpecError
from isthmus.files import Json, new_folder, read_json, sha256, write_json
from isthmus.model.base import State

FORMAT: Final = 1
ARRAYS: Final = "arrays.safetensors"
FIX: Final = "learn it again"


@dataclass(frozen=True)
class Parts:
    """What a model of a task is made of.

    Parameters
    ----------
    said : dict
        Settings, names and weights, as JSON.
    arrays : mapping of str to array
        What was learned.
    tables : mapping of str to polars.DataFrame
        Tables by name.
    """

    said: Json
    arrays: State
    tables: Mapping[str, pl.DataFrame]


def is_kept(path: Path, kind: str) -> bool:
    """Return whether folder ``path`` holds a model of ``kind``: ``ratings`` or ``classes``."""
    return (path / f"{kind}.json").is_file()


def write_parts(path: Path, kind: str, parts: Parts) -> None:
    """Write a model to folder ``path``, whole or not at all."""
    with new_folder(path) as folder:
        save_file({name: np.ascontiguousarray(array) for name, array in parts.arrays.items()}, folder / ARRAYS)
        for name, table in parts.tables.items():
            table.write_parquet(folder / f"{name}.parquet")
        files = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        write_json(folder / f"{kind}.json", {"format": FORMAT, "said": parts.said, "files": files})


@contextmanager
def whole_or_damaged(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a model is put together into the one error that says so.

    Raises
    ------
    ArtefactError
        A part is lacking, or is not what it should be.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, OSError, SpecError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise ArtefactError(f"the model is damaged: {error}", where=path, fix=FIX) from error


def read_parts(path: Path, kind: str) -> Parts:
    """Return what :func:`write_parts` wrote.

    Raises
    ------
    ArtefactError
        No such model there, a file is missing or was changed, or it has another format version.
    """
    manifest = read_json(path / f"{kind}.json", what=f"model of {kind}")
    if manifest.get("format") != FORMAT:
        raise ArtefactError(
            f"format {manifest.get('format')} of {kind}, this version reads {FORMAT}", where=path, fix=FIX
        )
    with whole_or_damaged(path):
        files = cast("Mapping[str, str]", manifest["files"])
        for name, digest in files.items():
            file = path / name
            if Path(name).name != name or not file.is_file() or sha256(file) != digest:
                raise ArtefactError(f"{name} is missing, or was changed since it was written", where=path, fix=FIX)
        tables = {Path(name).stem: pl.read_parquet(path / name) for name in files if name.endswith(".parquet")}
        return Parts(cast("Json", manifest["said"]), load_file(path / ARRAYS), tables)
