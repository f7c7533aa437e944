"""Signatures of models: who holds the private key vouches for a manifest, which names the checksum of every file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from isthmus.errors import ArtefactError, InputError
from isthmus.files import json_text, new_file, read_json, storage_errors, write_json
from isthmus.recommender.closed import SIGNATURE
from isthmus.recommender.store import MANIFEST

#: Put before what is signed, so that a signature of something else says nothing about a model.
_ABOUT: Final = b"isthmus model manifest\n"
_ALGORITHM: Final = "ed25519"
_NO_KEY: Final = "is no ed25519 key in PEM"


class Trust:
    """Public keys, one of which must have signed a model.

    Parameters
    ----------
    files : sequence of Path
        Public keys in PEM.

    Raises
    ------
    InputError
        A file is no public key.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._keys = {fingerprint(key): key for key in map(_public, files)}

    def require(self, model: Path) -> str:
        """Return the SHA-256 of a model's manifest, which one of the keys signed as it is.

        Raises
        ------
        ArtefactError
            It is not signed, by another key, or not as it is.
        """
        try:
            manifest = (model / MANIFEST).read_bytes()
        except OSError:
            raise ArtefactError("is not a model", where=model, fix="name a folder written by fit") from None
        if not (model / SIGNATURE).is_file():
            raise ArtefactError("is not signed", where=model, fix="isthmus models sign")
        said = read_json(model / SIGNATURE, what="signature")
        if json_text(said).encode() != (model / SIGNATURE).read_bytes():
            raise ArtefactError(f"{SIGNATURE} was changed since it was written", where=model, fix="sign it again")
        key = self._keys.get(str(said.get("key")))
        if key is None or said.get("algorithm") != _ALGORITHM:
            raise ArtefactError("is signed by a key that is not trusted", where=model, fix="give its key with --trust")
        try:
            key.verify(bytes.fromhex(str(said.get("signature"))), _ABOUT + manifest)
        except (InvalidSignature, ValueError):
            raise ArtefactError(
                "was changed since it was signed", where=model, fix="take the model as it was signed"
            ) from None
        return hashlib.sha256(manifest).hexdigest()


def keygen(private: Path, public: Path) -> str:
    """Write a new pair of keys, the private one for its owner's eyes only; return the fingerprint.

    Raises
    ------
    InputError
        A file is there already: a key is never written over.
    """
    for path in (private, public):
        if path.exists():
            raise InputError("exists already", where=path, fix="name another file")
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with storage_errors(private):
        private.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    with new_file(public) as part:
        part.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return fingerprint(key.public_key())


def sign(model: Path, private: Path) -> str:
    """Sign a model that is whole, beside its manifest; return the fingerprint of the key.

    Raises
    ------
    ArtefactError
        The model is damaged.
    InputError
        No private key in the file.
    """
    from isthmus.recommender import Recommender

    key = _private(private)
    Recommender.open(model)
    made = key.sign(_ABOUT + (model / MANIFEST).read_bytes())
    name = fingerprint(key.public_key())
    said = {"algorithm": _ALGORITHM, "key": name, "signature": made.hex()}
    write_json(model / SIGNATURE, said)
    return name


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the name of a public key: the beginning of its SHA-256."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:32]


def _public(file: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(_bytes(file))
    except ValueError:
        raise InputError(_NO_KEY, where=file, fix="name the public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(_NO_KEY, where=file, fix="make one with isthmus models keygen")
    return key


def _private(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_bytes(file), password=None)
    except (ValueError, TypeError):
        raise InputError(_NO_KEY, where=file, fix="name the private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(_NO_KEY, where=file, fix="make one with isthmus models keygen")
    return key


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=file, fix="name the file of a key") from None
