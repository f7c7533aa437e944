"""Themes: what items of all platforms are about, in words that the platforms share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.model.base import Doubles, Features
from isthmus.types import Bools, Indices

#: Categories that count, the most frequent first.
MOST: Final = 200
#: Clusters of texts, where categories are not shared.
CLUSTERS: Final = 24
_DIM: Final = 64


@dataclass(frozen=True)
class Themes:
    """What each item is about.

    Parameters
    ----------
    names : tuple of str
        ``G`` themes.
    rows : csr array (N, G) float64
        Share of each theme in each item: rows of sum 1, or 0 for an item of which nothing is known.
    kind : str
        ``categories``, ``clusters`` (of texts) or ``none``.
    """

    names: tuple[str, ...]
    rows: sparse.csr_array
    kind: str

    @classmethod
    def of(cls, items: pl.DataFrame, features: Features) -> Themes:
        """Return the themes of ``items``: their categories where platforms share them, else clusters of their texts.

        Categories are shared when on every platform at least half of the items have one that another platform has
        too. Clusters are k-means on language-model vectors, or on TF-IDF, with the mean of each domain taken away: else
        the clusters would be the domains.

        Examples
        --------
        >>> items = pl.DataFrame({"platform": ["a", "b"], "item": ["1", "1"], "domain": ["x", "y"],
        ...                       "categories": [["Sea", "Old"], ["sea "]]})
        >>> themes = Themes.of(items, Features())
        >>> themes.names, themes.rows.toarray().tolist()
        (('sea', 'old'), [[0.5, 0.5], [1.0, 0.0]])
        """
        words = _words(items)
        if not words.is_empty() and _shared(words, items):
            return _categories(words, items.height)
        vectors = _vectors(features)
        if vectors is None or not vectors.any():
            return cls((), sparse.csr_array((items.height, 0), dtype=np.float64), "none")
        return _clusters(vectors, items)

    def tastes(self, histories: Histories) -> Doubles:
        """Return the share of each theme in each history, (B, G): rows of sum 1, or 0 where nothing is known."""
        return shares(np.asarray((histories.matrix(self.rows.shape[0]) @ self.rows).toarray(), np.float64))

    def of_lists(self, items: Indices) -> Doubles:
        """Return the share of each theme in each list of item numbers (B, k), where -1 is an empty place: (B, G)."""
        rows, places = np.nonzero(items >= 0)
        which = sparse.csr_array(
            (np.ones(rows.size), (rows, items[rows, places])), shape=(len(items), self.rows.shape[0])
        )
        return shares(np.asarray((which @ self.rows).toarray(), np.float64))

    def carried(self, items: Indices) -> Bools:
        """Return which themes any of ``items`` has, (G,)."""
        return np.asarray(self.rows[items].sum(axis=0)).ravel() > 0


def shares(counts: Doubles) -> Doubles:
    """Return rows of sum 1; a row of zeros stays.

    Examples
    --------
    >>> shares(np.array([[1.0, 3.0], [0.0, 0.0]])).tolist()
    [[0.25, 0.75], [0.0, 0.0]]
    """
    total = counts.sum(axis=1, keepdims=True)
    found: Doubles = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    return found


def _words(items: pl.DataFrame) -> pl.DataFrame:
    """Return row, platform, theme: each category of each item once, the spelling evened out."""
    if "categories" not in items.columns:
        return pl.DataFrame(schema={"row": pl.UInt32, "platform": pl.String, "theme": pl.String})
    even = pl.col("theme").str.normalize("NFKC").str.to_lowercase().str.strip_chars()
    return (
        items.select("platform", theme="categories")
        .with_row_index("row")
        .explode("theme", empty_as_null=True, keep_nulls=True)
        .with_columns(theme=even)
        .filter(pl.col("theme").is_not_null() & (pl.col("theme") != ""))
        .unique(maintain_order=True)
    )


def _shared(words: pl.DataFrame, items: pl.DataFrame) -> bool:
    platforms = items["platform"].n_unique()
    wide = pl.col("platform").n_unique().over("theme") >= min(platforms, 2)
    rows = words.filter(wide).select("row", "platform").unique().group_by("platform").len()
    all_items = items.group_by("platform").len(name="items")
    share = all_items.join(rows, on="platform", how="left").select(pl.col("len").fill_null(0) / pl.col("items"))
    return bool((share.to_series() >= 0.5).all())


def _categories(words: pl.DataFrame, n: int) -> Themes:
    counted = words.group_by("theme", maintain_order=True).len().sort("len", descending=True, maintain_order=True)
    names = counted["theme"].head(MOST)
    known = words.join(pl.DataFrame({"theme": names}).with_row_index("place"), on="theme")
    rows, places = known["row"].to_numpy(), known["place"].to_numpy()
    flags = sparse.csr_array((np.ones(rows.size), (rows, places)), shape=(n, len(names)))
    total = np.maximum(np.asarray(flags.sum(axis=1)).ravel(), 1)
    return Themes(tuple(names), sparse.csr_array(sparse.diags_array(1 / total) @ flags), "categories")


def _vectors(features: Features) -> Doubles | None:
    if features.vectors is not None:
        return features.vectors.astype(np.float64)
    text = features.text
    if text is None or min(text.shape) <= 2:
        return None
    from sklearn.decomposition import TruncatedSVD

    return np.asarray(TruncatedSVD(min(_DIM, min(text.shape) - 1), random_state=0).fit_transform(text), np.float64)


def _clusters(vectors: Doubles, items: pl.DataFrame) -> Themes:
    from sklearn.cluster import MiniBatchKMeans

    said = np.flatnonzero(np.abs(vectors).sum(axis=1) > 0)
    domain = items["domain"].rank("dense").to_numpy().astype(np.int64)[said]
    sums = np.zeros((int(domain.max()) + 1, vectors.shape[1]))
    np.add.at(sums, domain, vectors[said])
    centred = vectors[said] - (sums / np.maximum(np.bincount(domain, minlength=len(sums)), 1)[:, None])[domain]
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    count = max(1, min(CLUSTERS, said.size // 5))
    label = MiniBatchKMeans(count, n_init=3, random_state=0, batch_size=2048).fit_predict(centred)
    rows = sparse.csr_array((np.ones(said.size), (said, label)), shape=(items.height, count))
    return Themes(tuple(f"cluster {number + 1}" for number in range(count)), rows, "clusters")
