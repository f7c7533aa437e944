"""Private servers on spare ports of the loopback address, their data in a temporary folder, ended by process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int, seconds: float = 90.0) -> None:
    """Return when somebody listens on ``port``."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < until, f"nobody listens on port {port}"
            time.sleep(0.05)
        else:
            return


@contextmanager
def _home(name: str) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix=f"isthmus-{name}-"))  # pytest's own folders are closed to other users
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _program(*names: str, package: str) -> str:
    for name in names:
        found = shutil.which(name) or (name if Path(name).exists() else None)
        if found:
            return found
    return pytest.skip(f"no {Path(names[0]).name} here (Debian: apt-get install {package})")


@contextmanager
def _process(command: list[object], port: int, log: Path, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out, **more)  # type: ignore[call-overload]
    try:
        wait_for(port)
        yield process
    except AssertionError as error:
        if "nobody listens" in str(error):
            raise AssertionError(f"{error}: {log.read_text(errors='replace')[-1000:]}") from None
        raise
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()


@contextmanager
def redis_server(port: int | None = None, *words: str) -> Iterator[str]:
    """Yield the URL of a Redis that keeps nothing on disk."""
    program, port = _program("redis-server", package="redis-server"), port or free_port()
    with _home("redis") as home:
        command = [program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", home, *words]
        with _process(command, port, home / "log"):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def nats_server() -> Iterator[str]:
    """Yield the URL of a NATS server with JetStream."""
    program, port = _program("nats-server", "/usr/sbin/nats-server", package="nats-server"), free_port()
    command = [program, "-a", "127.0.0.1", "-p", port, "-js", "-sd"]
    with _home("nats") as home, _process([*command, home / "data"], port, home / "log"):
        yield f"nats://127.0.0.1:{port}"


@contextmanager
def rabbit_server() -> Iterator[str]:
    """Yield the URL of a RabbitMQ, with an Erlang port mapper of its own."""
    package = "rabbitmq-server"
    program = _program("/usr/lib/rabbitmq/bin/rabbitmq-server", package=package)
    epmd = _program("epmd", package=package)
    port, names = free_port(), free_port()
    with _home("rabbit") as home:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"isthmus{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "logs"),
            "RABBITMQ_CONFIG_FILE": str(home / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +S 1:1",
        }
        (home / "plugins").write_text("[].")
        with (
            _process([epmd, "-port", names, "-relaxed_command_check"], names, home / "epmd", env=env),
            _process([program], port, home / "log", env=env, start_new_session=True),
        ):
            yield f"amqp://guest:guest@127.0.0.1:{port}/"


class Proxy:
    """A TCP proxy that can let nothing through, or late.

    Attributes
    ----------
    target : int
        Port it leads to.
    dark : bool
        Whether bytes vanish without a word.
    gone : bool
        Whether new connections are ended at once.
    delay : float
        Seconds that bytes take.
    drip : int
        Bytes that go on at a time, ten times a second; 0 for all at once.
    refused : int
        New connections that led nowhere.
    """

    def __init__(self, target: int) -> None:
        self.target, self.dark, self.gone, self.delay, self.drip = target, False, False, 0.0, 0
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections."""
        self._end(self._open)

    def close(self) -> None:
        """End all connections and listen no more."""
        self._end([self._listener, *self._open])

    def _end(self, some: list[socket.socket]) -> None:
        for one in some:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.gone:
                    raise OSError("gone")
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                self.refused += 1
                continue
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                time.sleep(self.delay)
                while data and not self.dark:
                    some, data = (data[: self.drip], data[self.drip :]) if self.drip else (data, b"")
                    sink.sendall(some)
                    time.sleep(0.1 if data else 0.0)
        except OSError:
            pass
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(url: str) -> Iterator[tuple[str, Proxy]]:
    """Yield a URL that leads through a proxy to the server of ``url``, and the proxy."""
    head, _, rest = url.rpartition(":")
    digits = "".join(rest.partition("/")[0].partition("?")[0])
    proxy = Proxy(int(digits))
    try:
        yield f"{head}:{proxy.port}{rest[len(digits) :]}", proxy
    finally:
        proxy.close()
