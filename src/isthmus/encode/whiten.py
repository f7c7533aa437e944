"""Whitening: make the directions of a set of vectors equally strong, so that cosine uses all of them.

Vectors of pre-trained text encoders crowd in a narrow cone, and a few directions decide every cosine. Removing the
mean and the covariance is known to help similarity (Su et al. 2021, arXiv:2103.15316; Huang et al. 2021, EMNLP
Findings, "WhiteningBERT") and recommendation (Zhang et al. 2024, ICDE, arXiv:2402.10602).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from isthmus.errors import DataError
from isthmus.types import Floats


@dataclass(frozen=True)
class Whitening:
    """The map ``x -> (x - mean) @ directions``, fitted once and applicable to vectors that come later.

    Parameters
    ----------
    mean : float32 array (D,)
        Mean of the rows it was fitted on.
    directions : float32 array (D, D')
        One column an output dimension.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(size=(500, 3)).astype("float32") @ np.diag([5, 1, 0.1]).astype("float32")
    >>> np.cov(Whitening.fit(rows).transform(rows).T).round(2).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """

    mean: Floats
    directions: Floats

    @classmethod
    def fit(
        cls, rows: Floats, *, shrink: float = 0.0, dim: int | None = None, kind: Literal["zca", "pca"] = "zca"
    ) -> Whitening:
        """Return the whitening of ``rows``.

        With the covariance ``U diag(s) U'``, the map is ``U diag(t ** -1/2) U'`` (ZCA: nearest to the input) or its
        first ``dim`` columns without the last factor (PCA), where ``t = (1 - shrink) * s + shrink * mean(s)``
        (Kessy, Lewin, Strimmer 2018, The American Statistician 72:309; the shrinkage is Ledoit and Wolf's form).
        Directions in which the rows do not vary are left out.

        Parameters
        ----------
        rows : float32 array (N, D)
            Rows to fit on; rows of zeros (items without a vector) are passed over.
        shrink : float
            0 whitens fully, 1 only centres and scales all directions alike.
        dim : int, optional
            Keep this many of the strongest directions (PCA only).
        kind : {"zca", "pca"}
            Which of the equivalent rotations.

        Raises
        ------
        DataError
            Fewer than two rows to fit on, or ``shrink`` or ``dim`` out of range.
        """
        _check(shrink, dim, kind, rows.shape[1])
        used = rows[np.any(rows != 0, axis=1)].astype(np.float64)
        if len(used) < 2:
            raise DataError(f"whitening needs at least 2 vectors, got {len(used)}", fix="encode more items first")
        mean = used.mean(axis=0)
        centred = used - mean
        strength, axes = np.linalg.eigh(centred.T @ centred / (len(used) - 1))
        strength, axes = strength[::-1], axes[:, ::-1]
        varies = strength > max(strength[0], 0.0) * 1e-9
        target = np.maximum((1 - shrink) * strength + shrink * strength.mean(), np.finfo(np.float64).tiny)
        scale = np.where(varies, target**-0.5, 0.0)
        directions = axes * scale
        directions = directions @ axes.T if kind == "zca" else directions[:, :dim]
        return cls(mean.astype(np.float32), np.ascontiguousarray(directions, dtype=np.float32))

    def transform(self, rows: Floats) -> Floats:
        """Return the whitened rows, (N, D') float32; rows of zeros stay zero."""
        white: Floats = ((rows - self.mean) @ self.directions).astype(np.float32, copy=False)
        white[~np.any(rows != 0, axis=1)] = 0.0
        return white

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the map."""
        return hashlib.sha256(self.mean.tobytes() + self.directions.tobytes()).hexdigest()[:16]


def _check(shrink: float, dim: int | None, kind: str, width: int) -> None:
    if not 0.0 <= shrink <= 1.0:
        raise DataError(f"shrink must lie in [0, 1], not {shrink}", where="whitening")
    if dim is not None and kind != "pca":
        raise DataError("dim needs kind='pca'", where="whitening")
    if dim is not None and not 1 <= dim <= width:
        raise DataError(f"dim must lie in [1, {width}], not {dim}", where="whitening")
