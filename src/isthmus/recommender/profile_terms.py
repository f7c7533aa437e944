"""The categories and words that interests are named by, and how much everybody meets of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast

import numpy as np
import polars as pl
from scipy import sparse
from scipy.special import gammaincinv

from isthmus.model.base import Doubles
from isthmus.recommender.facade import Recommender
from isthmus.recommender.protected import names_protected
from isthmus.types import Indices

#: What is added to observed and expected.
SHRINK: Final = 0.5
#: A word worth naming: two or more unspaced characters, or three or more letters.
_WORD: Final = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2}|[^\\W\\d_]{3,}")


@dataclass(frozen=True)
class Terms:
    """Names for interests, ``C`` of them.

    Parameters
    ----------
    names, kinds : list of str
        (C,); a kind is ``category`` or ``word``.
    has : csr array (N, C) float32
        1 where an item has the term.
    platforms : list of str
        Names.
    platform : int32 array (N,)
        Place of each item's platform.
    weight : float64 array (N,)
        What everybody together met of each item.
    base : float64 array (platforms, C)
        Share of what everybody meets on a platform that has the term.
    usual : float64 array (platforms,)
        Mean weight of a person's strongest event on an item, on each platform.
    """

    names: list[str]
    kinds: list[str]
    has: sparse.csr_array
    platforms: list[str]
    platform: Indices
    weight: Doubles
    base: Doubles
    usual: Doubles

    @cached_property
    def kinds_array(self) -> np.ndarray:
        """Kinds, (C,)."""
        return np.array(self.kinds, dtype=object)


def terms_of(model: Recommender, *, least: int) -> Terms:
    """Return the terms of the model's items that ``least`` or more persons met and that name nothing protected."""
    names, kinds, has = _categories(model.items)
    words, worded = _words(model)
    has = sparse.csr_array(sparse.hstack([has, worded], format="csr"))
    names, kinds = names + words, kinds + ["word"] * len(words)
    met = _met(model)
    free = ~names_protected(pl.Series(names, dtype=pl.String)).to_numpy()
    persons = np.asarray(((met > 0) @ has > 0).sum(axis=0)).ravel()
    kept = np.flatnonzero(free & (persons >= least))
    has = sparse.csr_array(has[:, kept])
    weight = np.asarray(met.sum(axis=0), dtype=np.float64).ravel()
    platforms = cast("list[str]", model.items["platform"].unique().sort().to_list())
    place = model.items["platform"].replace_strict(platforms, range(len(platforms)), return_dtype=pl.Int32).to_numpy()
    by_platform = sparse.csr_array((weight, (place, np.arange(weight.size))), shape=(len(platforms), weight.size))
    totals = np.maximum(np.asarray(by_platform.sum(axis=1)).ravel(), 1e-12)
    base = (by_platform @ has).toarray() / totals[:, None]
    pairs = np.bincount(place, np.diff(met.tocsc().indptr), minlength=len(platforms))
    return Terms(
        [names[k] for k in kept],
        [kinds[k] for k in kept],
        has,
        platforms,
        place,
        weight,
        base,
        totals / np.maximum(pairs, 1),
    )


def _met(model: Recommender) -> sparse.csr_array:
    """Return the weight of each item's strongest event for each person, (persons, N)."""
    events = model.content.people.events.group_by("person", "item").agg(pl.col("weight").max())
    rows, row = np.unique(events["person"].to_numpy(), return_inverse=True)
    cells = (events["weight"].to_numpy().astype(np.float64), (row, events["item"].to_numpy().astype(np.int64)))
    return sparse.csr_array(cells, shape=(rows.size, model.items.height))


def _categories(items: pl.DataFrame) -> tuple[list[str], list[str], sparse.csr_array]:
    """Return the names and kinds of categories, and which items have each, (N, categories)."""
    name = pl.col("categories").str.strip_chars()
    pairs = items.select("categories").with_row_index("row").explode("categories", empty_as_null=True, keep_nulls=True)
    pairs = pairs.select("row", categories=name).filter(pl.col("categories").fill_null("") != "").unique()
    names = cast("list[str]", pairs["categories"].unique().sort().to_list())
    column = pairs["categories"].replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()
    cells = (np.ones(pairs.height, np.float32), (pairs["row"].to_numpy().astype(np.int64), column))
    return names, ["category"] * len(names), sparse.csr_array(cells, shape=(items.height, len(names)))


def _words(model: Recommender) -> tuple[list[str], sparse.csr_array]:
    """Return the words of the model's vocabulary that are worth naming, and which items have each, (N, words)."""
    text = model.features.text
    known = cast("list[str]", model.content.readers.tfidf.state()["words"])
    places = [place for place, word in enumerate(known) if _WORD.fullmatch(word)]
    if text is None or not places:
        return [], sparse.csr_array((model.items.height, 0), dtype=np.float32)
    chosen = sparse.csr_array(text[:, places])
    chosen.data = np.ones_like(chosen.data)
    return [known[place] for place in places], chosen


def shrunk(observed: Doubles, expected: Doubles, tail: float) -> tuple[Doubles, Doubles, Doubles]:
    """Return the shrunk ratio ``(O + 1/2) / (E + 1/2)`` with the bounds that its Gamma leaves ``tail`` outside of.

    Examples
    --------
    >>> ratio, low, high = shrunk(np.array([0.0, 7.0]), np.array([0.0, 2.0]), 0.025)
    >>> ratio.tolist(), bool(low[1] > 1 > low[0])
    ([1.0, 3.0], True)
    """
    shape, rate = observed + SHRINK, expected + SHRINK
    return shape / rate, gammaincinv(shape, tail) / rate, gammaincinv(shape, 1 - tail) / rate
