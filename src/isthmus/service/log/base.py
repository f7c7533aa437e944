"""What every event log can do, whichever store keeps it, and the writer that puts many requests into one commit."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from isthmus.config import expand
from isthmus.errors import InputError, IsthmusError
from isthmus.log import logger
from isthmus.service.log.records import Entry, Receipt, Record
from isthmus.service.problems import BusyError
from isthmus.service.settings import data_folder

#: What is called with the outcome, from the writer's thread, in the order of the log. Where a commit's fate was
#: not known it is called with a BusyError, and again with the receipt once it turns out that all was on disk.
Done: TypeAlias = Callable[[Receipt | IsthmusError], None]
Jobs: TypeAlias = Sequence[tuple[Sequence[Entry], Done]]

FORMAT: Final = 1
#: Records read at a time: what is replayed beside requests leaves memory behind that it once took.
PART: Final = 1000
#: Seconds between two tries to wipe what was erased, and the same where the last one failed for another reason than
#: that somebody reads.
AGAIN: Final = 0.5
LATER: Final = 30.0
#: Seconds an erasure waits for those who read.
READERS: Final = 1.0
#: Entries written in one commit, about.
TOGETHER: Final = 2000
POSTGRES: Final = ("postgresql://", "postgres://")


class EventLog(Protocol):
    """Everything that was accepted, in the order of the disk; open in one process at a time.

    Attributes
    ----------
    secret : bytes
        Key of the tombstones.
    seq : int
        Number of the newest record on disk.
    waiting : int
        Entries that wait for the disk.
    away : str
        Why nothing can be written just now; empty while all is well.
    patience : float
        Seconds after which a request does not wait for its commit any longer.
    unwiped : int
        Erasures whose bytes are still in the files of the store.
    """

    @property
    def secret(self) -> bytes: ...  # noqa: D102
    @property
    def seq(self) -> int: ...  # noqa: D102
    @property
    def waiting(self) -> int: ...  # noqa: D102
    @property
    def away(self) -> str: ...  # noqa: D102
    @property
    def patience(self) -> float: ...  # noqa: D102
    @property
    def unwiped(self) -> int: ...  # noqa: D102

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        """Write ``entries`` with the next commit and call ``done`` when they are on disk, or with what went wrong.

        Raises
        ------
        BusyError
            Too much waits for the disk already.
        """

    def put(self, entries: Sequence[Entry], *, seconds: float = 30.0) -> Receipt:
        """Write ``entries`` and return when they are on disk."""

    def read(
        self, *, after: int = 0, until: int | None = None, size: int = PART, kinds: Sequence[str] = ()
    ) -> Iterator[list[Record]]:
        """Yield records from ``after`` (not included) to ``until`` (included), ``size`` at a time, in order.

        With ``kinds`` only those.
        """

    def of(self, accounts: Sequence[tuple[str, str]]) -> list[Record]:
        """Return the events of some accounts, in order."""

    def close(self) -> None:
        """Write what waits, then let go of the store."""


@dataclass(frozen=True)
class Place:
    """Where a service keeps what it is told.

    Parameters
    ----------
    folder : Path
        Folder of keys, audit log, pointers, segments, and of the event logs if ``database`` is empty.
    database : str
        ``postgresql://`` URL of the event logs.
    """

    folder: Path
    database: str = ""


def place_of(data: str | None, folder: Path | None, beside: Path) -> Place:
    """Return where a service keeps what it is told, from its options.

    Parameters
    ----------
    data : str, optional
        ``sqlite:///DIR``, a folder, or ``postgresql://...`` (``${NAME}`` takes a variable of the environment).
    folder : Path, optional
        Folder for what is no event, where ``data`` is a database.
    beside : Path
        The folder if none is given.

    Examples
    --------
    >>> place_of("postgresql://me@db/events", None, Path("model.service")).folder.name
    'model.service'
    """
    url = "" if data is None else expand(data, where="--data")
    if not url.startswith(POSTGRES):
        found = beside if data is None else data_folder(url)
        if folder is not None and folder != found:
            raise InputError("is for a database", where="--folder", fix="name the folder with --data")
        return Place(found)
    return Place(folder or beside, url)


class GroupCommit(ABC):
    """A writer thread that takes what waits, writes it in one commit, says so; again.

    Parameters
    ----------
    name : str
        Name of the log.
    pending : int
        Entries that may wait for the disk.
    idle : float, optional
        Seconds without work after which :meth:`_idle` is called.
    """

    patience = 120.0

    def __init__(self, name: str, pending: int, idle: float | None = None) -> None:
        self.pending, self.seq, self.unwiped = pending, 0, 0
        self._waiting = 0
        self._count = threading.Lock()
        self._pause = idle
        self._jobs: queue.SimpleQueue[tuple[Sequence[Entry], Done] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name=f"log {name}", daemon=True)

    def append(self, entries: Sequence[Entry], done: Done) -> None:
        """Write ``entries`` with the next commit and call ``done`` when they are on disk, or with what went wrong."""
        with self._count:
            if self._waiting + len(entries) > self.pending:
                raise BusyError("too many events wait for the disk")
            self._waiting += len(entries)
        self._jobs.put((entries, done))

    def put(self, entries: Sequence[Entry], *, seconds: float = 30.0) -> Receipt:
        """Write ``entries`` and return when they are on disk."""
        answer: queue.SimpleQueue[Receipt | IsthmusError] = queue.SimpleQueue()
        self.append(entries, answer.put)
        outcome = answer.get(timeout=seconds)
        if isinstance(outcome, IsthmusError):
            raise outcome
        return outcome

    @property
    def waiting(self) -> int:
        """Entries that wait for the disk."""
        return self._waiting

    @property
    def away(self) -> str:
        """Why nothing can be written just now; empty while all is well."""
        return ""

    @abstractmethod
    def _commit(self, jobs: Jobs) -> Sequence[Receipt | IsthmusError]:
        """Write ``jobs`` in one commit; return the outcome of each."""

    def _idle(self) -> None:  # noqa: B027
        """Look after the store while nothing waits."""

    def _end(self) -> None:
        """Write what waits, then end the thread."""
        if self._writer.is_alive():
            self._jobs.put(None)
            self._writer.join()

    def _write(self) -> None:
        going = True
        while going:
            jobs, entries = [], 0
            try:
                job = self._jobs.get(timeout=self._pause)
            except queue.Empty:
                self._idle()
                continue
            while job is not None:
                jobs.append(job)
                entries += len(job[0])
                if entries >= TOGETHER or self._jobs.empty():
                    break
                job = self._jobs.get()
            going = job is not None
            if jobs:
                tell(jobs, self._commit(jobs))
                with self._count:
                    self._waiting -= entries


def tell(jobs: Jobs, outcomes: Sequence[Receipt | IsthmusError]) -> None:
    """Call everybody with their outcome."""
    for (_, done), outcome in zip(jobs, outcomes, strict=True):
        try:
            done(outcome)
        except Exception:
            logger.exception("an answer of the log found nobody")
