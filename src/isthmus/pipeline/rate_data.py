"""Ratings of a split: what may be learned from, what is asked, and the contents of items that models read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.encode.text import TextEncoder
from isthmus.errors import InputError
from isthmus.model.base import Doubles
from isthmus.model.rating_base import Ratings
from isthmus.recommender.readers import vocabulary
from isthmus.split.cohorts import target_items
from isthmus.split.temporal import CONTEXT, TEST, VALID, Split
from isthmus.transfer.scene import Scene, rated, reading_of
from isthmus.types import PARTS, Bools, Floats, Ints

#: Directions of the contents that rating models read.
DIM: Final = 64


@dataclass(frozen=True)
class Question:
    """Pairs whose rating is asked.

    Parameters
    ----------
    persons, items : int64 arrays (n,)
        Corpus indices.
    truth : float64 array (n,)
        The ratings.
    """

    persons: Ints
    items: Ints
    truth: Doubles


@dataclass(frozen=True)
class RatingTask:
    """The ratings of one domain of a split, perhaps with those that the same people gave elsewhere.

    Parameters
    ----------
    split : Split
        Where they come from.
    domain : str
        The target.
    events : polars.DataFrame
        person, item, value, part, home (in the target), in the order of time; rows with a rating only.
    elsewhere : bool
        Whether ratings in other domains, moved and stretched to the target's mean and spread, are learned from too.
    """

    split: Split
    domain: str
    events: pl.DataFrame
    elsewhere: bool = False

    @classmethod
    def of(cls, split: Split, domain: str) -> RatingTask:
        """Return the task of ``domain``.

        Raises
        ------
        InputError
            No such domain, or no ratings to learn from, to choose by, or to measure with.
        """
        names = [split.corpus.require_domain(domain), *(name for name in split.corpus.domains if name != domain)]
        tables = [_ratings(split, name) for name in names]
        home = tables[0].with_columns(home=pl.lit(True))
        for part in (0, VALID, TEST):
            if not (home["part"] == part).any():
                raise InputError(
                    f"the part {PARTS[part]} has no rating in domain '{domain}'",
                    where=split.corpus.name,
                    fix="import ratings as the column value, or split with other shares",
                )
        centre, spread = _scale(home)
        others = [
            table.with_columns(home=pl.lit(False), value=(pl.col("value") - middle) / width * spread + centre)
            for table in tables[1:]
            for middle, width in [_scale(table)]
            if width > 0
        ]
        return cls(split, domain, pl.concat([home, *others]).sort("person", "ts", maintain_order=True))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of persons and of items of the corpus."""
        return len(self.split.corpus.persons), self.split.corpus.items.height

    @property
    def has_more(self) -> bool:
        """Whether there are ratings in other domains to learn from."""
        return bool((~self.events["home"] & (self.events["part"] == 0)).any())

    def known(self, part: int) -> Ratings:
        """Return what may be known when ``part`` is predicted: everything earlier, and context."""
        return self._of((pl.col("part") < part) | (pl.col("part") == CONTEXT))

    def taught(self, part: int) -> Ratings:
        """Return what may be learned from before ``part``."""
        return self._of((pl.col("part") < part) & (pl.col("part") != CONTEXT))

    def asked(self, part: int) -> Question:
        """Return the ratings of ``part`` in the target; of a pair rated twice there the last."""
        found = self._of((pl.col("part") == part) & pl.col("home"))
        return Question(found.persons, found.items, found.values)

    def at_home(self, ratings: Ratings) -> Ratings:
        """Return the ratings of items of the target."""
        mask = np.zeros(self.shape[1], dtype=bool)
        mask[target_items(self.split, self.domain)] = True
        return ratings.keep(mask[ratings.items])

    def overlap(self, part: int) -> Bools:
        """Return who has events in other domains that may be known when ``part`` is predicted, (P,)."""
        known = self.split.known(part)
        away = known.filter(self.split.corpus.items["domain"].gather(known["item"]) != self.domain)
        found = np.zeros(self.shape[0], dtype=bool)
        found[away["person"].unique().to_numpy()] = True
        return found

    def histories(self, part: int, persons: Ints) -> Histories:
        """Return what is known of some persons (rising, each once) before ``part``, over all domains."""
        return Histories.from_frame(self.split.known(part), persons)

    def _of(self, which: pl.Expr) -> Ratings:
        chosen = self.events.filter(which if self.elsewhere else which & pl.col("home"))
        columns = [chosen[name].to_numpy() for name in ("person", "item", "value")]
        return Ratings.of(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2], self.shape)


def item_contents(
    split: Split, *, model: str | None = None, start: Path | None = None, domain: str = "", read: bool = True
) -> Mapping[str, Floats]:
    """Return the contents of all items, (N, at most 64) each, by who read them.

    Parameters
    ----------
    split : Split
        Directions are learned from the items met before test.
    model : str, optional
        Language model that reads; the bundled one by default.
    start : Path, optional
        Pre-trained model that reads too.
    domain : str
        Target that the pre-trained model is shown.
    read : bool
        Whether the language model reads at all.

    Returns
    -------
    dict of str to float32 array
        ``tfidf``, ``text`` (the language model as it is), ``transferred`` (the pre-trained model).
    """
    items = split.corpus.items
    texts = Template().render(items).to_list()
    met = np.unique(split.known(TEST)["item"].to_numpy())
    found: dict[str, Floats] = {"tfidf": _strongest(vocabulary(split).transform(texts), met)}
    if read:
        found["text"] = _strongest(encode_items(items, TextEncoder(model)).matrix, met)
    if start is not None:
        found["transferred"] = _strongest(carried_vectors(split, domain, start), met)
    return found


def carried_vectors(split: Split, domain: str, start: Path) -> Floats:
    """Return what the pre-trained model in folder ``start`` makes of every item, as it is, (N, d) float32."""
    import torch

    from isthmus.transfer.adapted_files import backbone_of
    from isthmus.transfer.pretrained import load, read_card

    source = backbone_of(start)
    scene = Scene.of(split, domain, read_card(source))
    model = load(source).eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        if hasattr(model, "grown"):
            model = model.grown(scene.places, 0).eval()
        reading = reading_of(model, scene, np.zeros(0, np.int32))
        return np.asarray(reading.contents(np.arange(split.corpus.items.height, dtype=np.int32)), dtype=np.float32)


def _strongest(matrix: sparse.csr_array | Floats, met: Ints) -> Floats:
    """Return the strongest directions of the rows ``met`` in all rows; zeros where nothing is said."""
    from sklearn.decomposition import PCA, TruncatedSVD

    size = abs(matrix).sum(axis=1)
    said = np.asarray(size).ravel() > 0
    dim = min(DIM, min(matrix.shape) - 1, met.size - 1)
    if dim < 1 or not said[met].any():
        return np.zeros((matrix.shape[0], 1), np.float32)
    kind = TruncatedSVD(dim, random_state=0) if sparse.issparse(matrix) else PCA(dim, random_state=0)
    found = np.asarray(kind.fit(matrix[met]).transform(matrix), dtype=np.float32)
    return np.where(said[:, None], found, np.float32(0))


def _ratings(split: Split, domain: str) -> pl.DataFrame:
    kept = rated(split, domain).filter(pl.col("value").is_not_null())
    return kept.select("person", "item", "value", "part", "ts")


def _scale(table: pl.DataFrame) -> tuple[float, float]:
    """Return mean and standard deviation of the ratings that teach; 0 for no spread."""
    values = table.filter(pl.col("part") == 0)["value"]
    return float(cast("float | None", values.mean()) or 0.0), float(cast("float | None", values.std()) or 0.0)
