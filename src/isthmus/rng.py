"""Seeded random generators, one independent stream a purpose."""

from __future__ import annotations

import hashlib

import numpy as np

from isthmus.errors import InputError


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """Return a generator that depends on ``seed`` and on every word of ``purpose``, on any machine alike.

    Examples
    --------
    >>> bool(generator(1, "split").random() == generator(1, "split").random())
    True
    >>> bool(generator(1, "split").random() == generator(1, "blend").random())
    False
    """
    if seed < 0:
        raise InputError(f"seed {seed} is negative", fix="take 0 or more")
    words = "\x1f".join(str(word) for word in purpose).encode()
    digest = hashlib.blake2b(words, digest_size=16).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])
