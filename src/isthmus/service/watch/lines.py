"""Lines of the log, written beside requests."""

from __future__ import annotations

import logging
import os
import queue
import threading
from typing import Final

#: Lines that may wait for their reader; more are dropped, and counted.
WAITING: Final = 10_000
#: Seconds that lines get when the process ends.
LEAVE: Final = 1.0


class Aside(logging.Handler):
    r"""Writes lines in a thread of its own: a reader that is slow, or does not read, halts no request.

    Parameters
    ----------
    handle : int
        The open file that lines go to; it stays open.
    most : int
        Lines that may wait.

    Examples
    --------
    >>> reading, writing = os.pipe()
    >>> lines = Aside(writing)
    >>> lines.handle(logging.makeLogRecord({"msg": "began"}))
    True
    >>> lines.close()
    >>> os.read(reading, 100)
    b'began\n'
    """

    def __init__(self, handle: int, most: int = WAITING) -> None:
        super().__init__()
        self._handle, self._most = handle, most
        #: Lines dropped since the beginning, counted by whoever logs; and those the thread has told of.
        self._lost, self._told = 0, 0
        # the only one that a signal may enter while the thread it stops is inside
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log lines", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Let a line be written soon; drop it where too many wait."""
        if self._lines.qsize() >= self._most:
            self._lost += 1
            return
        try:
            self._lines.put(self.format(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, for a second at most."""
        self._lines.put(None)
        self._thread.join(LEAVE)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            self._put(line)
            self._tell()
        self._tell()

    def _tell(self) -> None:
        """Write how many lines were dropped since that was written last."""
        now = self._lost
        lost, self._told = now - self._told, now
        if lost:
            said = f"{lost} lines were dropped: nobody read them in time"
            self._put(self.format(logging.makeLogRecord({"msg": said, "levelname": "WARNING", "levelno": 30})))

    def _put(self, line: str) -> None:
        left = line.encode("utf-8", "replace") + b"\n"
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError:  # nobody reads any longer
            return
