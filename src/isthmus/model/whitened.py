"""Text vectors, whitened domain by domain, so that domains lie on top of each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isthmus.encode.whiten import Whitening
from isthmus.model.base import Features, Places
from isthmus.types import Floats, Indices


def whitenings(features: Features, shrink: float) -> dict[str, Whitening]:
    """Return the whitening of each domain's vectors; domains with fewer than two texts have none.

    Whitening each domain by itself takes away what its texts have in common, so that domains lie on top of each other
    (in the manner of Sun, Feng and Saenko, CORAL, AAAI 2016); ZCA keeps the meaning of the axes.
    """
    vectors = features.vectors
    if vectors is None:
        return {}
    places = features.places or Places.nameless(len(vectors))
    found = {}
    for place, name in enumerate(places.domains):
        rows = vectors[places.domain == place]
        if np.any(rows != 0, axis=1).sum() >= 2:
            found[name] = Whitening.fit(rows, shrink=shrink)
    return found


def apply(maps: Mapping[str, Whitening], features: Features) -> Floats | None:
    """Return the vectors of all items, each whitened by the map of its domain, (N, D); None without vectors."""
    vectors = features.vectors
    if vectors is None:
        return None
    places = features.places or Places.nameless(len(vectors))
    white = np.zeros_like(vectors)
    for place, name in enumerate(places.domains):
        rows = places.domain == place
        if name in maps:
            white[rows] = maps[name].transform(vectors[rows])
    return white


def whitened(features: Features, shrink: float) -> Floats | None:
    """Return the vectors of all items, each whitened by its domain, (N, D); None without vectors."""
    return apply(whitenings(features, shrink), features)


def strongest_directions(features: Features, rows: Indices, dim: int) -> Floats:
    """Return the directions in which the text vectors of some items vary most, each domain by itself, (D, dim)."""
    vectors = features.vectors
    if vectors is None:
        return np.zeros((0, dim), np.float32)
    places = features.places or Places.nameless(len(vectors))
    total = np.zeros((vectors.shape[1], vectors.shape[1]))
    for place in np.unique(places.domain[rows]):
        some = vectors[rows[places.domain[rows] == place]].astype(np.float64)
        some = some[np.any(some != 0, axis=1)]
        centred = some - some.mean(axis=0) if len(some) else some
        total += centred.T @ centred
    axes = np.linalg.eigh(total)[1][:, ::-1][:, :dim]
    return np.pad(axes, [(0, 0), (0, dim - axes.shape[1])]).astype(np.float32)
