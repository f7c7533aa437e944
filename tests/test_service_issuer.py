"""The keys of an issuer: a name that is looked up again answers from elsewhere, and leads nowhere (DNS rebinding)."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.issuer import answering, key_set

from isthmus.errors import InputError
from isthmus.service.lock import issuer
from isthmus.service.lock.issuer import fetched, keys_of

NAME, OUTSIDE, INSIDE = "keys.example", "93.184.216.34", "127.0.0.1"
DISCOVERY = "/.well-known/openid-configuration"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate for a name that vouches for itself, and its key."""
    key, today = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(form))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(form, serialization.PrivateFormat.PKCS8, plain))
    return files


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path, monkeypatch)
    yield made
    made.close()
    issuer._authorities.cache_clear()


class World:
    """A network: what a name answers, one time after the other; a server with TLS that stands for the outside."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[str]] = []
        self.looked_up, self.connected, self.hosts = 0, list[str](), list[str]()
        self.folder, self._look, self._connect = folder, socket.getaddrinfo, socket.create_connection
        file, key = certificate(folder, NAME)
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                world.hosts.append(self.headers["host"])
                content = json.dumps(key_set("ec")).encode()
                moved = self.path == "/moved"
                self.send_response(302 if moved else 200)
                self.send_header("location", "/keys")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(file, key)
        self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"https://{NAME}:{self.server.server_port}"
        patch.setenv("SSL_CERT_FILE", str(file))
        issuer._authorities.cache_clear()
        patch.setattr(socket, "getaddrinfo", self._found)
        patch.setattr(socket, "create_connection", self._went)

    def _found(self, host: str, *more: object, **named: object) -> object:
        if host != NAME:
            return self._look(host, *more, **named)  # type: ignore[arg-type, call-overload]
        self.looked_up += 1
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in now]

    def _went(self, address: tuple[str, int], *more: object, **named: object) -> object:
        host, port = address
        if port == self.server.server_port:
            self.connected.append(host)
            if host == "93.184.216.35":
                raise ConnectionRefusedError
            address = ("127.0.0.1", port)
        return self._connect(address, *more, **named)  # type: ignore[arg-type]

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def asked(world: World, path: str = "/keys") -> Callable[[], object]:
    """Return a request for the keys that an issuer names on another host than its own."""

    def ask() -> object:
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        with answering(answers) as (address, _):
            said = {"issuer": address, "jwks_uri": world.url + path}
            answers[DISCOVERY] = (200, {}, json.dumps(said).encode())
            return keys_of(address)

    return ask


def test_what_was_looked_up_first_is_what_is_asked(world: World) -> None:
    world.answers = [[OUTSIDE], [INSIDE]]
    assert asked(world)() == key_set("ec")
    assert world.connected == [OUTSIDE]
    assert world.looked_up == 1, "a second answer is never asked for"
    assert world.hosts == [f"{NAME}:{world.server.server_port}"], "the server knows which name is meant"


@pytest.mark.parametrize("first", [[INSIDE], [OUTSIDE, INSIDE], ["10.0.0.7"], ["169.254.169.254"], []])
def test_an_address_inside_is_not_asked_whatever_the_name_says_later(world: World, first: list[str]) -> None:
    world.answers = [first, [OUTSIDE]]
    with pytest.raises(InputError, match="inside a private network"):
        asked(world)()
    assert world.connected == []


def test_another_address_of_the_same_answer_is_tried_and_redirects_lead_nowhere(world: World) -> None:
    world.answers = [["93.184.216.35", OUTSIDE], [INSIDE]]
    assert asked(world)() == key_set("ec")
    assert world.connected == ["93.184.216.35", OUTSIDE]
    world.answers = [[OUTSIDE]]
    with pytest.raises(InputError, match="answered 302"):
        asked(world, "/moved")()


def test_the_certificate_must_be_of_the_name_and_not_of_the_address(world: World) -> None:
    world.answers = [[OUTSIDE]]
    assert fetched(world.url + "/keys") == key_set("ec")
    world.tls.load_cert_chain(*certificate(world.folder, "other.example"))
    with pytest.raises(InputError, match="no answer"):
        fetched(world.url + "/keys")
    assert world.hosts == [f"{NAME}:{world.server.server_port}"], "nothing was said to it"
