"""Buckets of an item's text: how long, in which script, how far from what the model knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from isthmus.types import Floats

_LENGTHS: Final = (0, 15, 31, 63, 127, 255, 511, 1023, 4095)
_SCRIPTS: Final = (
    (0x0041, 0x024F, "latin"),
    (0x0370, 0x03FF, "greek"),
    (0x0400, 0x052F, "cyrillic"),
    (0x0590, 0x05FF, "hebrew"),
    (0x0600, 0x077F, "arabic"),
    (0x0900, 0x0DFF, "indic"),
    (0x0E00, 0x0E7F, "thai"),
    (0x3040, 0x30FF, "kana"),
    (0x3400, 0x9FFF, "han"),
    (0xAC00, 0xD7AF, "hangul"),
)
#: Letters of a text that are looked at.
SOME: Final = 50
#: Rows that make the reference of meaning.
ROWS: Final = 5_000
#: Groups of items.
GROUPS: Final = 8


def length(text: str) -> str:
    """Return the bucket of a text's length.

    Examples
    --------
    >>> length(""), length("The sea at night"), length("x" * 5000)
    ('0', '16-31', '4096-')
    """
    low = 0
    for most in _LENGTHS:
        if len(text) <= most:
            return str(most) if low == most else f"{low}-{most}"
        low = most + 1
    return f"{low}-"


def script(text: str) -> str:
    """Return the script most letters of a text are in.

    Examples
    --------
    >>> script("The sea at night"), script("夜の海 ひとり"), script("夜晚的海"), script("123")
    ('latin', 'kana', 'han', 'none')
    """
    counts: dict[str, int] = {}
    some = text[:SOME]
    if some.isascii():  # nearly all texts of many catalogues, and looking at each letter takes long
        return "latin" if some.upper() != some.lower() else "none"
    for letter in some:
        if letter.isalpha():
            name = _script(ord(letter))
            counts[name] = counts.get(name, 0) + 1
    if not counts:
        return "none"
    if "kana" in counts and "han" in counts:
        counts["kana"] += counts.pop("han")  # Japanese is written in both
    return max(counts, key=lambda name: counts[name])


@lru_cache(4096)
def _script(code: int) -> str:
    return next((name for first, last, name in _SCRIPTS if first <= code <= last), "other")


@dataclass(frozen=True)
class Meaning:
    """Where the vectors of the model's items lie: groups of them, and how near to its group an item lies.

    Parameters
    ----------
    centres : float32 array (G, D)
        Middle of each group, of length 1.
    near : float
        Likeness to the nearest middle that all but one in a hundred have.
    reference : dict of str to float
        Items of each group, and those that lie ``far`` from all.
    """

    centres: Floats
    near: float
    reference: dict[str, float]

    @classmethod
    def of(cls, vectors: Floats | None) -> Meaning | None:
        """Return the meaning of some vectors (N, D); None where there are too few."""
        if vectors is None:
            return None
        some = np.asarray(vectors[:: max(len(vectors) // ROWS, 1)], np.float32)
        sizes = np.linalg.norm(some, axis=1)
        some = some[sizes > 0] / sizes[sizes > 0, None]
        if len(some) < 10 * GROUPS:
            return None
        from sklearn.cluster import KMeans

        found = KMeans(GROUPS, n_init=1, random_state=0).fit(some)
        centres = found.cluster_centers_.astype(np.float32)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
        like = (some @ centres.T).max(axis=1)
        made = cls(centres, float(np.quantile(like, 0.01)), {})
        buckets, counts = np.unique([made.bucket(row) for row in some], return_counts=True)
        return replace(made, reference=dict(zip(buckets.tolist(), counts.astype(float).tolist(), strict=True)))

    def bucket(self, vector: Floats) -> str:
        """Return the group of a vector (D,); ``none`` for a row of zeros, ``far`` if it lies far from all."""
        size = float(np.linalg.norm(vector))
        if not size:
            return "none"
        like = self.centres @ (vector / size)
        group = int(like.argmax())
        return f"group {group + 1}" if like[group] >= self.near else "far"
