"""A private PostgreSQL on a free port, which can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

WHY = "no PostgreSQL server here (Debian: apt-get install postgresql)"


def tool(name: str) -> str | None:
    """Return a PostgreSQL program: Debian keeps those of a server out of the path."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((str(home / name) for home in homes if (home / name).exists()), shutil.which(name))


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Postgres:
    """A server of our own; ``settings`` go to its command line."""

    def __init__(self, *settings: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="isthmus-postgres-"))  # pytest's own folders are closed to others
        self._who: dict[str, object] = {}
        if os.getuid() == 0:  # the server refuses to run as root
            shutil.chown(self.home, "postgres")
            self._who = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.port, self._settings = free_port(), settings
        self.url = f"postgresql://isthmus@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        command = [tool("initdb"), "-D", self.home / "data", "-U", "isthmus", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(command, check=True, cwd=self.home, stdout=subprocess.DEVNULL, **self._who)  # type: ignore[call-overload]

    def start(self) -> None:
        """Start, and wait until it answers."""
        import psycopg

        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.home), "-c", "shared_buffers=16MB"]
        for setting in self._settings:
            options += ["-c", setting]
        with (self.home / "log").open("ab") as log:
            command = [tool("postgres"), "-D", self.home / "data", *options]
            self._process = subprocess.Popen(command, cwd=self.home, stdout=log, stderr=log, **self._who)  # type: ignore[call-overload]
        end = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert time.monotonic() < end, (self.home / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """Kill every process of the server at once."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to every process of the server."""
        assert self._process is not None
        family = psutil.Process(self._process.pid)
        for one in [family, *family.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def stop(self) -> None:
        """End it and remove its files."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def postgres(*settings: str) -> Iterator[Postgres]:
    """Yield a server that answers; skip the test where there is none."""
    if not (tool("initdb") and tool("postgres")):
        pytest.skip(WHY)
    pytest.importorskip("psycopg")
    server = Postgres(*settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
