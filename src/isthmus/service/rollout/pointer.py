"""The file that remembers which model answers, and which are tried beside it: whole or not at all, over restarts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter

from isthmus.files import new_file

Role = Literal["canary", "shadow"]
ROLES: Final[tuple[Role, ...]] = ("canary", "shadow")


@dataclass(frozen=True)
class Trial:
    """A model that is tried beside the one that answers.

    Parameters
    ----------
    model, version : str
        Which.
    share : float
        Of a canary: share of the persons it answers. Of a shadow: share of the lists it makes too.
    errors : float
        Share of a canary's lists that may fail.
    seconds : float
        What 99 of 100 lists of a canary must keep to.
    """

    model: str
    version: str
    share: float
    errors: float = 0.02
    seconds: float = 0.25


@dataclass(frozen=True)
class Ended:
    """A trial that is over.

    Parameters
    ----------
    role : str
        ``canary`` or ``shadow``.
    model, version : str
        Which.
    reason : str
        Why.
    at : int
        Microseconds since 1970.
    """

    role: Role
    model: str
    version: str
    reason: str
    at: int


@dataclass(frozen=True)
class Pointer:
    """Which model answers, which did before, and which are tried.

    Parameters
    ----------
    given : str
        The model the service was started with: another one given later counts more than ``active``.
    active : str
        Name of the model that answers.
    previous : tuple of str
        Names of those before, the newest last.
    canary, shadow : Trial, optional
        Models that are tried.
    ended : Ended, optional
        The newest trial that is over.
    """

    given: str
    active: str
    previous: tuple[str, ...] = ()
    canary: Trial | None = None
    shadow: Trial | None = None
    ended: Ended | None = None

    def trial(self, role: Role) -> Trial | None:
        """Return the model that is tried as canary or as shadow."""
        return self.canary if role == "canary" else self.shadow

    def tried(self, role: Role, trial: Trial | None) -> Pointer:
        """Return the pointer with another trial, or none."""
        return replace(self, canary=trial) if role == "canary" else replace(self, shadow=trial)

    def over(self, role: Role, reason: str, at: int) -> Pointer:
        """Return the pointer after a trial ended; one that is not under way ends nothing."""
        trial = self.trial(role)
        if trial is None:
            return self
        return replace(self.tried(role, None), ended=Ended(role, trial.model, trial.version, reason, at))


_POINTER: Final = TypeAdapter(Pointer)


def read_pointer(file: Path) -> Pointer | None:
    """Return what ``file`` says, None where there is none.

    Raises
    ------
    ValueError
        It is damaged.
    """
    try:
        return _POINTER.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None


def write_pointer(file: Path, pointer: Pointer) -> None:
    """Write ``pointer``: on disk when this returns, whole or not at all."""
    with new_file(file) as part, part.open("w", encoding="utf-8") as handle:
        json.dump(asdict(pointer), handle)
        handle.flush()
        os.fsync(handle.fileno())
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
