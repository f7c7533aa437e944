"""Dead letters: messages nobody could use, one JSON object a line, with what was wrong, to be sent again."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from isthmus.errors import ArtefactError
from isthmus.files import new_file, storage_errors
from isthmus.service.log.records import content_id


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that could not be used.

    Parameters
    ----------
    id : str
        Made from where it came from and what it says.
    when : str
        When it was given up, ISO 8601.
    source, message : str
        The stream, and the broker's name of the message.
    sent : str
        When it was sent, if the broker said so, ISO 8601.
    tries : int
        How often it was tried.
    error : str
        What was wrong the last time.
    body : str
        The message; base64 if ``binary``.
    binary : bool
        Whether it was no text.
    """

    id: str
    when: str
    source: str
    message: str
    sent: str
    tries: int
    error: str
    body: str
    binary: bool = False

    @classmethod
    def of(cls, source: str, message: str, body: bytes, error: str, tries: int, sent: datetime | None = None) -> Letter:
        """Return the letter of a message."""
        name = content_id(source, message, body.hex())
        when, then = datetime.now(UTC).isoformat(timespec="seconds"), "" if sent is None else sent.isoformat()
        try:
            text, binary = body.decode(), False
        except UnicodeDecodeError:
            text, binary = base64.b64encode(body).decode(), True
        return cls(name, when, source, message, then, tries, error, text, binary)

    @property
    def content(self) -> bytes:
        """The message as it came."""
        return base64.b64decode(self.body) if self.binary else self.body.encode()


class Letters:
    """A file of dead letters; several processes may add to it.

    Parameters
    ----------
    path : Path
        The file; made with the first letter, readable by its owner only, for it holds what people did.

    Raises
    ------
    ArtefactError
        The file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._known = {letter.id for letter in self.read()}

    def put(self, letter: Letter) -> bool:
        """Add a letter and return whether it is new; it is on disk then.

        Raises
        ------
        StorageError
            The disk is full, or the file cannot be written.
        """
        if letter.id in self._known:
            return False
        line = json.dumps(asdict(letter), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        with storage_errors(self.path), self._alone():
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    line = b"\n" + line
                if os.write(handle, line) < len(line):
                    os.ftruncate(handle, size)
                    raise OSError(28, "no space left")
                os.fsync(handle)
            finally:
                os.close(handle)
        self._known.add(letter.id)
        return True

    def read(self) -> list[Letter]:
        """Return all letters, each once; a line that was cut off when a machine failed is left out."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found: dict[str, Letter] = {}
        for number, line in enumerate(lines, 1):
            try:
                letter = Letter(**json.loads(line))
            except (ValueError, TypeError):
                if number == 1 and len(lines) > 1:
                    raise ArtefactError("holds no dead letters", where=self.path, fix="name another file") from None
                continue
            found[letter.id] = letter
        return list(found.values())

    def forget(self, platform: str, user: str) -> int:
        """Take out the letters that name an account; return how many.

        One that cannot be read is taken out if the user's id stands in it.
        """
        gone = [letter.id for letter in self.read() if _names(letter.content, platform, user)]
        self.remove(gone)
        return len(gone)

    def remove(self, ids: Collection[str]) -> None:
        """Take letters out of the file."""
        with self._alone():
            kept = [letter for letter in self.read() if letter.id not in ids]
            with new_file(self.path) as part:
                text = "".join(json.dumps(asdict(letter), ensure_ascii=False) + "\n" for letter in kept)
                part.touch(mode=0o600)
                part.write_bytes(text.encode("utf-8", "surrogatepass"))
        self._known.difference_update(ids)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes out meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _names(content: bytes, platform: str, user: str) -> bool:
    """Return whether a message is about an account, as far as it can be read."""
    try:
        waiting = [json.loads(content)]
    except (ValueError, RecursionError):
        text = content.decode(errors="replace")
        forms = {user, json.dumps(user)[1:-1]}
        return any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text) for form in forms)
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if str(one.get("user")) == user and str(one.get("platform", platform)) == platform:
                return True
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return False
