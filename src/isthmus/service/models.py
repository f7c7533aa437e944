"""The models a tenant can serve: folders beside each other, and a pointer to the one that answers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isthmus.errors import ArtefactError, InputError, IsthmusError, NotFoundError, nearest
from isthmus.files import new_file, sha256
from isthmus.log import logger
from isthmus.recommender import Recommender
from isthmus.service.live import Version

_MANIFEST: Final = "model.json"
#: Earlier models that can be gone back to.
REMEMBERED: Final = 10


@dataclass(frozen=True)
class Pointer:
    """Which model answers, and which did before.

    Parameters
    ----------
    given : str
        The model the service was started with: another one given later counts more than ``active``.
    active : str
        Name of the model that answers.
    previous : tuple of str
        Names of those before, the newest last.
    """

    given: str
    active: str
    previous: tuple[str, ...] = ()


class Models:
    """The folder of models, one of which answers.

    Parameters
    ----------
    given : Path
        Model the service was started with.
    folder : Path
        Where models lie; only those in it can be activated.
    pointer : Path
        The file that remembers which one answers, over restarts.
    """

    def __init__(self, given: Path, folder: Path, pointer: Path) -> None:
        self.given, self.folder, self._file = given.resolve(), folder.resolve(), pointer
        if self.given.parent != self.folder:
            raise InputError(f"the model is not in {self.folder}", where="--models", fix="name the folder it lies in")
        self.pointer = self._read()

    def names(self) -> list[str]:
        """Return the names of all models in the folder."""
        found = self.folder.iterdir() if self.folder.is_dir() else iter(())
        return sorted(path.name for path in found if (path / _MANIFEST).is_file() and not path.name.startswith("."))

    def version(self, name: str) -> Version:
        """Return the version of a model; its name is looked up among :meth:`names`, never used as a path."""
        known = self.names()
        if name not in known:
            raise NotFoundError(
                f"no model '{name}'{nearest(name, known)}", fix=f"models: {', '.join(known[:20]) or 'none'}"
            )
        return Version(name, sha256(self.folder / name / _MANIFEST)[:12])

    def written(self, name: str) -> float:
        """Return when the manifest of a model was written, seconds since 1970; 0 if it is gone."""
        try:
            return (self.folder / name / _MANIFEST).stat().st_mtime
        except OSError:
            return 0.0

    def open(self, name: str) -> tuple[Recommender, Version]:
        """Return a model, every file checked against its manifest.

        Raises
        ------
        NotFoundError
            No such model.
        ArtefactError
            A file is missing, was changed, or is of another format.
        """
        version = self.version(name)
        opened = Recommender.open(self.folder / name)
        if self.version(name) != version:
            raise ArtefactError("was written anew while it was read", where=name, fix="try again")
        return opened, version

    def first(self) -> tuple[Recommender, Version]:
        """Return the model to start with: the active one, or the nearest one before it that is whole."""
        wanted = list(dict.fromkeys([self.pointer.active, *reversed(self.pointer.previous), self.given.name]))
        problem: IsthmusError = ArtefactError("is not a model", where=self.given, fix="name a folder written by fit")
        for name in wanted:
            try:
                opened = self.open(name)
            except IsthmusError as error:
                problem = error
                if name != wanted[-1]:
                    logger.error("model %s cannot be served: %s", name, error)
                continue
            if name != self.pointer.active:
                self.point(Pointer(str(self.given), name, ()))
            return opened
        raise problem

    def activated(self, name: str) -> Pointer:
        """Return the pointer after ``name`` was activated."""
        if name == self.pointer.active:
            return self.pointer
        before = (*(old for old in self.pointer.previous if old != name), self.pointer.active)
        return Pointer(str(self.given), name, before[-REMEMBERED:])

    def back(self) -> Pointer:
        """Return the pointer after going back to the model before."""
        if not self.pointer.previous:
            raise InputError("there is no model to go back to", fix="activate one by name")
        return Pointer(str(self.given), self.pointer.previous[-1], self.pointer.previous[:-1])

    def point(self, pointer: Pointer) -> None:
        """Remember ``pointer``: on disk when this returns, whole or not at all."""
        content = {"given": pointer.given, "active": pointer.active, "previous": list(pointer.previous)}
        with new_file(self._file) as part, part.open("w", encoding="utf-8") as handle:
            json.dump(content, handle)
            handle.flush()
            os.fsync(handle.fileno())
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.pointer = pointer

    def _read(self) -> Pointer:
        start = Pointer(str(self.given), self.given.name)
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            found = Pointer(str(content["given"]), str(content["active"]), _texts(content["previous"]))
        except FileNotFoundError:
            return start
        except (ValueError, KeyError, TypeError) as error:
            logger.error("the pointer to the model is damaged (%s): %s answers", error, self.given.name)
            return start
        return found if found.given == start.given else start


def _texts(names: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(name) for name in names)
