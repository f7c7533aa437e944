"""A disk under SQLite whose power can be cut: what was not synced is dropped or torn, sector by sector."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

SECTOR = 512


@dataclass
class _File:
    """What is safely on the disk, and what was written since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)


class Disk(apsw.VFS):
    """The default file system while it is registered; ``after`` is called after each write, sync or truncation."""

    def __init__(self, after: Callable[[], None]) -> None:
        self.files: dict[str, _File] = {}
        self.after = after
        super().__init__("power-cut", "unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _Handle(self, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(name, syncdir)
        self.files.pop(name, None)

    def image(self, rng: random.Random, keep: float) -> dict[str, bytes]:
        """Return the files after a cut now: of what was not synced, sectors are kept with probability ``keep``."""
        found = {}
        for name, file in self.files.items():
            data = bytearray(file.durable)
            for offset, written in file.pending:
                _apply(data, offset, written, lambda: rng.random() < keep)
            found[Path(name).name] = bytes(data)
        return found


class _Handle(apsw.VFSFile):
    def __init__(self, disk: Disk, name: object, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        if path not in disk.files:
            there = Path(path)
            disk.files[path] = _File(bytearray(there.read_bytes() if there.exists() else b""))
        self._file = disk.files[path]

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._file.pending.append((offset, bytes(data)))
        self._disk.after()

    def xTruncate(self, size: int) -> None:  # noqa: N802
        super().xTruncate(size)
        self._file.pending.append((size, None))
        self._disk.after()

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.after()
        super().xSync(flags)
        for offset, written in self._file.pending:
            _apply(self._file.durable, offset, written, lambda: True)
        self._file.pending.clear()
        self._disk.after()


def _apply(data: bytearray, offset: int, written: bytes | None, kept: Callable[[], bool]) -> None:
    if written is None:
        if kept():
            del data[offset:]
        return
    for start in range(0, len(written), SECTOR):
        if kept():
            part = written[start : start + SECTOR]
            at = offset + start
            if len(data) < at:
                data.extend(bytes(at - len(data)))
            data[at : at + len(part)] = part
