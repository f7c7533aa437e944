"""The public keys of an issuer of tokens: from a file or by HTTP, and never from an address that nobody named."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

import httpx
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from isthmus.errors import InputError

Json = dict[str, object]
#: Bytes of a document, at most.
LARGEST: Final = 256 << 10
#: Seconds for one document.
SECONDS: Final = 3.0
#: The one algorithm each kind of key may sign with.
ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_BITS: Final = 2048


@dataclass(frozen=True)
class PublicKey:
    """A key and the one algorithm it is used with."""

    key: PyJWK
    algorithm: str


def checked(url: str) -> SplitResult:
    """Return the parts of an address that may be asked: ``https``, or ``http`` on this machine.

    Raises
    ------
    InputError
        Anything else.

    Examples
    --------
    >>> checked("https://login.example/keys").hostname
    'login.example'
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError("is no address", where=_shown(url)) from None
    odd = parts.username is not None or parts.password is not None or not url.isascii() or "\\" in url
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if odd or not host or not secure:
        raise InputError("is not asked for keys", where=_shown(url), fix="give an https address, or a file")
    return parts


def _shown(url: str) -> str:
    return url.partition("?")[0][:200]


def _addresses(parts: SplitResult, *, public: bool) -> list[str]:
    """Return the addresses of a host; if they have to be of the public network, all of them are."""
    try:
        found = socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    listed = list(dict.fromkeys(str(one[4][0]) for one in found))
    if public and not (listed and all(ipaddress.ip_address(one.partition("%")[0]).is_global for one in listed)):
        raise InputError("is inside a private network", where=parts.hostname, fix="give --jwks if that is right")
    return listed


def fetched(url: str, *, public: bool = False) -> Json:
    """Return a JSON document; redirects are not followed.

    The name is looked up once, and what was looked up is what is asked: no second answer can lead elsewhere.

    Parameters
    ----------
    url : str
        The address.
    public : bool
        Whether its host must be of the public network.

    Raises
    ------
    InputError
        The address may not be asked, or gives no such document.
    """
    parts = checked(url)
    reason = "its name is not known"
    for address in _addresses(parts, public=public):
        try:
            return _document(_read(url, address), _shown(url))
        except httpx.ConnectError as error:
            reason = type(error).__name__
        except httpx.HTTPError as error:
            raise InputError(f"no answer: {type(error).__name__}", where=_shown(url)) from None
    raise InputError(f"no answer: {reason}", where=_shown(url))


def _read(url: str, address: str) -> bytes:
    """Return what one address of the host of ``url`` says; certificate and ``Host`` are those of the name."""
    named = httpx.URL(url)
    headers = {"accept": "application/json", "host": named.netloc.decode()}
    with (
        httpx.Client(verify=_authorities(), timeout=SECONDS, follow_redirects=False, trust_env=False) as client,
        client.stream(
            "GET", named.copy_with(host=address), headers=headers, extensions={"sni_hostname": named.host}
        ) as answer,
    ):
        if answer.status_code != 200:
            raise InputError(f"answered {answer.status_code}", where=_shown(url))
        content = b""
        for part in answer.iter_bytes():
            content += part
            if len(content) > LARGEST:
                raise InputError("says too much", where=_shown(url))
        return content


@cache
def _authorities() -> ssl.SSLContext:
    """Return whom to believe: reading them takes longer than asking."""
    return httpx.create_ssl_context()


def _document(content: bytes, where: str) -> Json:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise InputError("is no JSON document", where=where)
    return said


def keys_of(issuer: str) -> Json:
    """Return the set of keys that an issuer names (OpenID Connect discovery).

    Raises
    ------
    InputError
        It says nothing, speaks for somebody else, or names an address inside a private network.
    """
    said = fetched(issuer.rstrip("/") + "/.well-known/openid-configuration")
    if said.get("issuer") != issuer:
        raise InputError("speaks for another issuer", where=issuer, fix="give --issuer as the issuer writes it")
    address = said.get("jwks_uri")
    if not isinstance(address, str):
        raise InputError("does not say where its keys are", where=issuer, fix="give --jwks")
    return fetched(address, public=checked(address).hostname != checked(issuer).hostname)


def read_keys(issuer: str, jwks: str) -> dict[str, PublicKey]:
    """Return the keys of an issuer by their id.

    Parameters
    ----------
    issuer : str
        Asked for the address of its keys if ``jwks`` is empty.
    jwks : str
        File or address of the keys.

    Raises
    ------
    InputError
        There is no key that can be used.
    """
    if jwks and "://" not in jwks:
        try:
            said = _document(Path(jwks).read_bytes()[: LARGEST + 1], jwks)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=jwks) from None
    else:
        said = fetched(jwks) if jwks else keys_of(issuer)
    listed = said.get("keys")
    found = {}
    for one in listed if isinstance(listed, list) else []:
        key = _key(one)
        if key is not None:
            found[str(one["kid"])] = key
    if not found:
        raise InputError("has no key that can be used", where=jwks or issuer, fix="RSA of 2048 bits, P-256 or Ed25519")
    return found


def _key(said: object) -> PublicKey | None:
    """Return one key of a set; None if it is not for signatures, too weak, or of another kind."""
    if not isinstance(said, Mapping) or not isinstance(said.get("kid"), str) or said.get("use", "sig") != "sig":
        return None
    kind = said.get("kty")
    algorithm = ALGORITHMS.get((str(kind), cast("str | None", None if kind == "RSA" else said.get("crv"))))
    if algorithm is None or said.get("alg", algorithm) not in (algorithm, "Ed25519"):
        return None
    try:
        key = PyJWK({name: value for name, value in said.items() if name not in ("d", "k")}, algorithm)
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if getattr(key.key, "key_size", _BITS) < _BITS and kind == "RSA":
        return None
    return PublicKey(key, algorithm)
