"""Several vectors an item made one: each kind whitened, all kinds as strong as each other, a missing one left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from isthmus.encode.base import unit
from isthmus.encode.whiten import Whitening
from isthmus.errors import DataError
from isthmus.types import Floats

#: Items that stand behind each direction: whitening fewer makes noise as strong as what is known.
SHARE: Final = 5


@dataclass(frozen=True)
class Fuser:
    """Whitens each modality and puts them side by side.

    Parameters
    ----------
    whitenings : mapping of str to Whitening
        One a modality, in the order of the output.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> draw = lambda dim: rng.normal(size=(50, dim)).astype("float32")
    >>> blocks = {"text": draw(8), "image": draw(4)}
    >>> blocks["image"][0] = 0
    >>> fused = Fuser.fit(blocks).transform(blocks)
    >>> fused.shape, np.linalg.norm(fused, axis=1).round(3).tolist()[:2]
    ((50, 12), [1.0, 1.0])
    """

    whitenings: Mapping[str, Whitening]

    @classmethod
    def fit(cls, blocks: Mapping[str, Floats], *, dim: int = 128, shrink: float = 0.1) -> Fuser:
        """Return the fuser of ``blocks``: modality -> (N, D); at most ``dim`` directions of each are kept.

        Raises
        ------
        DataError
            No modality has two items or more.
        """
        counts = {name: int(np.any(rows != 0, axis=1).sum()) for name, rows in sorted(blocks.items())}
        if max(counts.values(), default=0) < 2:
            raise DataError("no modality has vectors of two items", where="fuse", fix="encode something first")
        return cls(
            {
                name: Whitening.fit(blocks[name], shrink=shrink, dim=_directions(blocks[name], count, dim), kind="pca")
                for name, count in counts.items()
                if count > 1
            }
        )

    def parts(self, blocks: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return the whitened vectors of each modality, (N, D) of length 1, zeros where missing.

        Raises
        ------
        DataError
            A modality the fuser was fitted on is not there.
        """
        lacking = set(self.whitenings) - set(blocks)
        if lacking:
            raise DataError(f"lacks {', '.join(sorted(lacking))}", where="fuse")
        return {name: unit(white.transform(blocks[name])) for name, white in self.whitenings.items()}

    def transform(self, blocks: Mapping[str, Floats]) -> Floats:
        """Return the fused vectors, (N, sum of dims) float32 of length 1; zeros for an item with nothing.

        The cosine of two items is the mean of the cosines of the modalities both have, damped where one of them lacks
        one the other has.
        """
        return unit(np.concatenate(list(self.parts(blocks).values()), axis=1))


def _directions(rows: Floats, count: int, most: int) -> int:
    """Return how many directions ``count`` items can tell from chance: one for :data:`SHARE` of them, at most."""
    return min(most, int(rows.shape[1]), max(count // SHARE, 1))
