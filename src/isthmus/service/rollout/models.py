"""The models a tenant can serve: folders beside each other, and a pointer to the one that answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isthmus.errors import ArtefactError, InputError, IsthmusError, NotFoundError, nearest
from isthmus.files import sha256
from isthmus.log import logger
from isthmus.recommender import Recommender
from isthmus.recommender.store import MANIFEST, version_of
from isthmus.service.lists.live import Version
from isthmus.service.problems import ConflictError
from isthmus.service.rollout.pointer import Pointer, read_pointer, write_pointer

if TYPE_CHECKING:
    from isthmus.service.rollout.signing import Trust

#: Earlier models that can be gone back to.
REMEMBERED: Final = 10


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
    trust : Trust, optional
        Keys, one of which must have signed a model; without it models need no signature.
    shared : bool
        Whether models of other tenants lie there too: then there is none to be seen but the given one.
    """

    def __init__(
        self, given: Path, folder: Path, pointer: Path, trust: Trust | None = None, *, shared: bool = False
    ) -> None:
        self.given, self.folder, self._file, self._trust = given.resolve(), folder.resolve(), pointer, trust
        self._shared = shared
        if self.given.parent != self.folder:
            raise InputError(f"the model is not in {self.folder}", where="--models", fix="name the folder it lies in")
        self.pointer = self._read()

    def names(self) -> list[str]:
        """Return the names of the models that can be activated."""
        if self._shared:
            return [self.given.name] if (self.given / MANIFEST).is_file() else []
        found = self.folder.iterdir() if self.folder.is_dir() else iter(())
        return sorted(path.name for path in found if (path / MANIFEST).is_file() and not path.name.startswith("."))

    def version(self, name: str) -> Version:
        """Return the version of a model; its name is looked up among :meth:`names`, never used as a path."""
        known = self.names()
        if name not in known:
            raise NotFoundError(
                f"no model '{name}'{nearest(name, known)}", fix=f"models: {', '.join(known[:20]) or 'none'}"
            )
        return Version(name, version_of(self.folder / name))

    def written(self, name: str) -> float:
        """Return when the manifest of a model was written, seconds since 1970; 0 if it is gone."""
        try:
            return (self.folder / name / MANIFEST).stat().st_mtime
        except OSError:
            return 0.0

    def open(self, name: str) -> tuple[Recommender, Version]:
        """Return a model, every file checked against its manifest.

        Raises
        ------
        NotFoundError
            No such model.
        ArtefactError
            A file is missing, was changed, is of another format, or the model is not signed as it must be.
        """
        version = self.version(name)
        path = self.folder / name
        if path.is_symlink():
            raise ArtefactError("is a link", where=path, fix="copy the folder")
        signed = None if self._trust is None else self._trust.require(path)
        opened = Recommender.open(path)
        if self.version(name) != version or signed not in (None, sha256(path / MANIFEST)):
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
        """Return the pointer after ``name`` was activated; it is tried no more."""
        old = self.pointer
        if name == old.active:
            return old
        before = (*(one for one in old.previous if one != name), old.active)
        return self._answers(name, before[-REMEMBERED:])

    def back(self) -> Pointer:
        """Return the pointer after going back to the model before."""
        if not self.pointer.previous:
            raise ConflictError("there is no model to go back to", fix="activate one by name")
        return self._answers(self.pointer.previous[-1], self.pointer.previous[:-1])

    def _answers(self, name: str, previous: tuple[str, ...]) -> Pointer:
        old = self.pointer
        canary, shadow = (None if one is None or one.model == name else one for one in (old.canary, old.shadow))
        return replace(old, given=str(self.given), active=name, previous=previous, canary=canary, shadow=shadow)

    def point(self, pointer: Pointer) -> None:
        """Remember ``pointer``: on disk when this returns, whole or not at all."""
        write_pointer(self._file, pointer)
        self.pointer = pointer

    def _read(self) -> Pointer:
        start = Pointer(str(self.given), self.given.name)
        try:
            found = read_pointer(self._file)
        except ValueError:
            logger.error("the pointer to the model is damaged: %s answers", self.given.name)
            return start
        return found if found is not None and found.given == start.given else start


def require_model(path: Path) -> None:
    """Refuse a folder that holds no model, before anything is written for it.

    Raises
    ------
    ArtefactError
        There is no such folder, or it is none that ``fit`` wrote; models inside it are named.
    """
    if (path / MANIFEST).is_file():
        return
    inside = sorted(one.parent.name for one in path.glob(f"*/{MANIFEST}")) if path.is_dir() else []
    said = "is not a model" if path.exists() else "no such folder"
    fix = f"did you mean {path / inside[0]}?" if inside else "name a folder written by isthmus fit"
    raise ArtefactError(said, where=path, fix=fix)
