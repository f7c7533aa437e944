"""One tree of errors. Each says what went wrong, where, and what to do; each has an exit code and an HTTP status."""

from __future__ import annotations

from difflib import get_close_matches
from typing import ClassVar


class IsthmusError(Exception):
    """Something failed while working: exit code 1.

    Parameters
    ----------
    what : str
        What went wrong, in one sentence.
    where : str
        File, table, key or step concerned; empty if there is none.
    fix : str
        What the user can do about it; empty if there is nothing.

    Examples
    --------
    >>> print(InputError("no column 'user'", where="ratings.csv", fix="name it under [source.columns]"))
    ratings.csv: no column 'user'. Fix: name it under [source.columns]
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, *, where: object = "", fix: str = "") -> None:
        self.what = what.rstrip(".")
        self.where = str(where)
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}. Fix: {self.fix}" if self.fix else head


class InputError(IsthmusError):
    """The user's input cannot be used as it is: exit code 2."""

    exit_code = 2
    http_status = 422


class SpecError(InputError):
    """A spec or configuration file is wrong."""


class DataError(InputError):
    """Rows, tables or files of data are wrong."""


class ArtefactError(InputError):
    """A corpus, split, vectors or model folder is missing, damaged, or of another format version."""


class NotFoundError(InputError):
    """A platform, domain, person or item that the artefact does not hold."""

    http_status = 404


class LeakError(InputError):
    """The audit found information that the test would not allow."""


class TrainingError(IsthmusError):
    """Training cannot go on: the loss is no finite number any more."""


class StorageError(IsthmusError):
    """The disk is full, or a file cannot be written."""

    http_status = 507


def nearest(word: str, known: list[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known word nearest to ``word``, or an empty string.

    Examples
    --------
    >>> nearest("colums", ["columns", "path"])
    " (did you mean 'columns'?)"
    """
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
