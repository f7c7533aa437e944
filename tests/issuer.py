"""An issuer of tokens: keys, the set of their public parts, and an HTTP server that gives it away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://login.example"
AUDIENCE = "isthmus"


@cache
def private(kind: str) -> object:
    """Return a private key: rsa, weak, ec, ed, p384, stranger (RSA, of somebody else)."""
    if kind in ("rsa", "stranger", "weak"):
        return rsa.generate_private_key(65537, 1024 if kind == "weak" else 2048)
    if kind == "ed":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if kind == "p384" else ec.SECP256R1())


def public(kind: str) -> dict[str, object]:
    """Return the public part of a key as in a set of keys."""
    key = private(kind).public_key()  # type: ignore[attr-defined]
    maker = OKPAlgorithm if kind == "ed" else ECAlgorithm if kind in ("ec", "p384") else RSAAlgorithm
    return {**json.loads(maker.to_jwk(key)), "kid": kind, "use": "sig"}


def key_set(*kinds: str) -> dict[str, object]:
    return {"keys": [public(kind) for kind in kinds]}


def key_file(folder: Path, *kinds: str) -> Path:
    path = folder / "keys.json"
    path.write_text(json.dumps(key_set(*kinds)))
    return path


def claims(**more: object) -> dict[str, object]:
    """Return what a good token says; None takes a claim away."""
    now = int(time.time())
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann@example.org", "exp": now + 300, "scope": "recommend events"}
    return {name: value for name, value in {**said, **more}.items() if value is not None}


def signed(kind: str = "rsa", said: Mapping[str, object] | None = None, **headers: object) -> str:
    """Return a token signed with a key, which is named in the header."""
    algorithm = {"ed": "EdDSA", "ec": "ES256", "p384": "ES384"}.get(kind, "RS256")
    named = {"kid": kind, **headers}
    body = dict(claims() if said is None else said)
    return jwt.encode(body, private(kind), algorithm, {k: v for k, v in named.items() if v is not None})  # type: ignore[arg-type]


def pem(kind: str) -> bytes:
    key = private(kind).public_key()  # type: ignore[attr-defined]
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@contextmanager
def answering(answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list[str]]]:
    """Serve some answers by path on this machine; yield the address and the list of paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, content = answers.get(self.path, (404, {}, b"{}"))
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
