"""A domain cut in two by what its texts say, so that each half can stand for a domain of which nothing was learned."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl
from sklearn.decomposition import TruncatedSVD

from isthmus.model.base import Features, Places
from isthmus.split.cohorts import target_items
from isthmus.split.temporal import Split
from isthmus.types import Bools, Indices, Ints

#: Between a domain's name and the number of its half.
MARK: Final = "\x1f"


def halved(split: Split, domain: str, features: Features, seed: int) -> tuple[Split, Features]:
    """Return the split and the features with ``domain`` as two domains, named by :func:`half`.

    The items are parted at the median of the strongest direction in which their texts differ, so that the halves are
    equally large and as unlike as one domain allows. Events stay as they are.
    """
    items = target_items(split, domain)
    second = items[_sides(features, items, seed)]
    names = split.corpus.items["domain"].to_numpy().astype(object)
    names[items] = half(domain, 1)
    names[second] = half(domain, 2)
    corpus = split.corpus.with_domains(pl.Series("domain", names, dtype=pl.String))
    return Split(corpus, split.events, split.card), replace(features, places=Places.of(corpus.items))


def half(domain: str, number: int) -> str:
    """Return the name of a half."""
    return f"{domain}{MARK}{number}"


def whole(domain: str) -> str:
    """Return the name of the domain that ``domain`` is a half of, or ``domain``.

    Examples
    --------
    >>> whole(half("books", 2)), whole("books")
    ('books', 'books')
    """
    return domain.partition(MARK)[0]


def _sides(features: Features, items: Indices, seed: int) -> Bools:
    """Return which of ``items`` are in the second half, (T,)."""
    rows = features.text if features.text is not None else features.vectors
    order: Ints = np.arange(items.size)
    if rows is not None and min(rows.shape[1], items.size) > 2:
        said = TruncatedSVD(2, random_state=seed).fit_transform(rows[items])
        order = np.argsort(said[:, 1], kind="stable")  # the first direction is what all texts share
    later = np.zeros(items.size, dtype=bool)
    later[order[items.size // 2 :]] = True
    return later
