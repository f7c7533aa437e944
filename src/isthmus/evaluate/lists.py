"""Metrics of the lists of all persons together: what is shown, how new, how varied, how popular."""

from __future__ import annotations

import numpy as np

from isthmus.evaluate.ranks import Doubles
from isthmus.types import Floats, Indices, Ints


def coverage(top: Indices, n_items: int) -> float:
    """Return the share of the ``n_items`` items of the catalogue that stand in at least one list.

    Examples
    --------
    >>> coverage(np.array([[0, 1], [0, -1]], np.int32), 4)
    0.5
    """
    return float(np.count_nonzero(exposure(top, n_items)) / n_items) if n_items else float("nan")


def gini(top: Indices, n_items: int) -> float:
    """Return the Gini coefficient of exposure over the catalogue: 0 all items alike, near 1 a few have it all."""
    counts = np.sort(exposure(top, n_items))
    total = int(counts.sum())
    if not total:
        return float("nan")
    places = np.arange(1, n_items + 1)
    return float(((2 * places - n_items - 1) * counts).sum() / (n_items * total))


def novelty(top: Indices, popularity: Ints, persons: int) -> float:
    """Return the mean self-information of the listed items, in bits.

    Parameters
    ----------
    top : int32 array (B, L)
        Lists of columns; -1 marks an empty place.
    popularity : int64 array (T,)
        Number of training persons of each item.
    persons : int
        Number of training persons.

    Notes
    -----
    ``-log2`` of the share of persons who know the item (Zhou et al., PNAS 2010), with one more person who knows
    everything, so that a new item has a finite value.
    """
    shown = top[top >= 0]
    return _mean(-np.log2((popularity[shown] + 1) / (persons + 1)))


def mean_popularity(top: Indices, popularity: Ints) -> float:
    """Return the mean number of training persons of the listed items (average recommendation popularity)."""
    return _mean(popularity[top[top >= 0]].astype(np.float64))


def diversity(top: Indices, vectors: Floats) -> float:
    """Return the intra-list diversity: one minus the mean cosine of the pairs of a list, averaged over lists.

    Parameters
    ----------
    top : int32 array (B, L)
        Lists of columns; -1 marks an empty place.
    vectors : float32 array (T, D)
        A vector for each column: text vectors, or one column a category. A zero vector is unlike everything.

    Notes
    -----
    Ziegler et al., WWW 2005. Lists of fewer than two items are left out; NaN if there are no others.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    step = max(1, 4_000_000 // max(1, top.shape[1] * vectors.shape[1]))
    return _mean(np.concatenate([_apart(top[i : i + step], unit) for i in range(0, len(top), step)]))


def exposure(top: Indices, n_items: int) -> Ints:
    """Return in how many lists each item stands, (T,)."""
    return np.bincount(top[top >= 0], minlength=n_items)


def _apart(top: Indices, unit: Floats) -> Doubles:
    """Return one minus the mean cosine of all pairs, for each list of at least two items."""
    listed = top >= 0
    shown = unit[np.where(listed, top, 0)] * listed[..., None]
    own = np.square(shown, dtype=np.float64).sum(axis=(1, 2))
    both = np.square(shown.sum(axis=1), dtype=np.float64).sum(axis=1) - own
    pairs = listed.sum(axis=1) * (listed.sum(axis=1) - 1)
    result: Doubles = 1 - both[pairs > 0] / pairs[pairs > 0]
    return result


def _mean(values: Doubles) -> float:
    return float(values.mean()) if values.size else float("nan")
