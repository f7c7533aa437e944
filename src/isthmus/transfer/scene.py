"""What a carrier is shown of a corpus, and what it makes of people and items there, as plain arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.encode.static import open_encoder
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.errors import InputError
from isthmus.files import Json
from isthmus.model.base import Features, Places
from isthmus.model.whitened import whitened
from isthmus.split.cohorts import target_items
from isthmus.split.temporal import Split
from isthmus.types import EVENTS, Floats, Indices

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from isthmus.model.language import LanguageModel
    from isthmus.model.reading import Reader
    from isthmus.model.sequence import SequenceModel

#: Persons whose states are made at a time.
BLOCK: Final = 512


@dataclass(frozen=True)
class Scene:
    """The items of a corpus as a pre-trained model reads them, and a target domain among them.

    Parameters
    ----------
    items : polars.DataFrame
        An items table, N rows.
    places : Places
        Domain and platform of each item.
    domain : str
        The target.
    target : int32 array (T,)
        Items of the target, rising.
    texts : tuple of str
        Text of each item, N.
    vectors : float32 array (N, D) or None
        Whitened text vectors, for the sequence carrier.
    dated : bool
        Whether times are dates.
    """

    items: pl.DataFrame
    places: Places
    domain: str
    target: Indices
    texts: tuple[str, ...]
    vectors: Floats | None
    dated: bool

    @classmethod
    def of(cls, split: Split, domain: str, card: Json, features: Features | None = None, *, hide: str = "") -> Scene:
        """Return the scene for the model that ``card`` tells of; its text encoder reads the items.

        Parameters
        ----------
        split : Split
            Whose corpus it is.
        domain : str
            The target.
        card : dict
            See :func:`isthmus.transfer.pretrained.read_card`.
        features : Features, optional
            Text vectors made before by the encoder of the model.
        hide : str
            A column that is not read, since it is what a head is to tell; ``features`` must be made without it.

        Raises
        ------
        InputError
            No such domain, one item there, all its texts the same, or the encoder is another one by now.
        """
        items = split.corpus.items
        target = target_items(split, split.corpus.require_domain(domain))
        read = items.with_columns(pl.lit(None, items.schema[hide]).alias(hide)) if hide else items
        texts = tuple(Template().render(read).to_list())
        if target.size < 2:
            raise InputError(f"domain '{domain}' has one item, so there is no choice to learn", fix="give more items")
        if len({texts[item] for item in target.tolist()}) < 2:
            raise InputError(
                f"all items of domain '{domain}' have the same text, or none, so nothing can be carried over to them",
                fix="give titles, or fit without a pre-trained model",
            )
        vectors = _vectors(read, card, features) if card["carrier"] == "sequence" else None
        return cls(items, Places.of(items), domain, target, texts, vectors, not split.corpus.order_only)


def require_texts(splits: Sequence[Split], domains: Sequence[str]) -> None:
    """Refuse splits whose items say nothing: in no domain of ``domains`` (all if empty) are there two texts.

    Raises
    ------
    InputError
        There is nothing to read.
    """
    for split in splits:
        items = split.corpus.items
        told = items.select("domain", text=pl.Series(Template().render(items).to_list(), dtype=pl.String))
        some = told.filter(pl.col("domain").is_in(domains)) if domains else told
        if some.is_empty() or some.group_by("domain").agg(n=pl.col("text").n_unique()).filter(pl.col("n") > 1).height:
            return
    raise InputError("all items have the same text, or none, so there is nothing to carry over", fix="give titles")


def _vectors(items: pl.DataFrame, card: Json, features: Features | None) -> Floats | None:
    said = cast("Json", card.get("settings") or {})
    shrink = float(cast("float", said.get("shrink", 0.1)))
    if features is None or features.vectors is None:
        encoder = open_encoder(cast("str | None", said.get("model")))
        if card.get("encoder") != encoder.fingerprint:
            raise InputError(
                "the text encoder is not the one that the model was pre-trained with",
                where=said.get("model") or "bundled encoder",
                fix="pre-train it again",
            )
        features = Features(None, encode_items(items, encoder).matrix)
    return whitened(Features(None, features.vectors, Places.of(items)), shrink)


class Reading(ABC):
    """What a model makes of people and items, with its weights of now.

    Parameters
    ----------
    scene : Scene
        What it is shown.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @abstractmethod
    def states(self, histories: Histories) -> Floats:
        """Return what each person is, (B, d); zeros for an empty history."""

    @abstractmethod
    def table(self) -> Floats:
        """Return the items of the target as states are compared with them, (T, d)."""

    @abstractmethod
    def contents(self, rows: Indices) -> Floats:
        """Return what some items of the corpus are, for their classes, (n, d)."""


class SequenceReading(Reading):
    """The states and items of a sequence model; it attends to the scene from then on.

    Parameters
    ----------
    model : SequenceModel
        Reads.
    scene : Scene
        What it is shown.
    known : int32 array (n_items,)
        Items that its id embeddings stand for.
    """

    def __init__(self, model: SequenceModel, scene: Scene, known: Indices) -> None:
        super().__init__(scene)
        self.model = model
        self.all = model.whole(scene.vectors, scene.places, known)

    def states(self, histories: Histories) -> Floats:
        """Return what stands after the last event of each history, (B, d)."""
        found = np.zeros((len(histories), self.all.shape[1]), np.float32)
        for start in range(0, len(histories), BLOCK):
            some = np.arange(start, min(start + BLOCK, len(histories)))
            found[some] = self.model.states(self.all, histories.take(some), dated=self.scene.dated)
        found[histories.lengths == 0] = 0.0
        return found

    def table(self) -> Floats:
        """Return the item vectors of the target, (T, d)."""
        return self.contents(self.scene.target)

    def contents(self, rows: Indices) -> Floats:
        """Return the item vectors of some items, (n, d)."""
        found: Floats = self.all[rows]
        return found


class LanguageReading(Reading):
    """The people and items of a language model, people divided by its temperature.

    Parameters
    ----------
    model : LanguageModel
        Reads.
    scene : Scene
        What it is shown.
    """

    def __init__(self, model: LanguageModel, scene: Scene) -> None:
        super().__init__(scene)
        self.model = model
        self.scale = np.float32(1 / model.config.pair_temperature)

    @cached_property
    def reader(self) -> Reader:
        """What tells people and items in words."""
        from isthmus.train.languages import reader_of

        return reader_of(self.model, self.scene.texts, self.scene.places)

    def states(self, histories: Histories) -> Floats:
        """Return the vectors of people told in words, divided by the temperature, (B, d)."""
        from isthmus.model.language_encoder import person_vectors

        return person_vectors(self.model, self.reader, histories) * self.scale

    def table(self) -> Floats:
        """Return the vectors of the target's items, (T, d)."""
        return self._read(self.scene.target)

    def contents(self, rows: Indices) -> Floats:
        """Return the vectors of some items, divided by the temperature, (n, d)."""
        return self._read(rows) * self.scale

    def _read(self, rows: Indices) -> Floats:
        from isthmus.train.languages import read_items

        return read_items(self.model, [self.scene.texts[row] for row in rows.tolist()])


def rated(split: Split, domain: str) -> pl.DataFrame:
    """Return the events of a split with ``value`` null but for the ratings in ``domain``.

    Ratings are the events ``rate`` with a value; where the domain has none, all events with a value.
    """
    inside = pl.Series(split.corpus.items["domain"].gather(split.events["item"]) == domain)
    finite = pl.col("value").is_not_null() & pl.col("value").is_finite() & inside
    rate = finite & (pl.col("event") == EVENTS.index("rate"))
    kept = rate if split.events.select(rate.any()).item() else finite
    return split.events.with_columns(value=pl.when(kept).then("value"))


def reading_of(model: PreTrainedModel, scene: Scene, known: Indices) -> Reading:
    """Return what ``model``, either carrier, makes of a scene."""
    if hasattr(model, "backbone"):
        return LanguageReading(model, scene)
    return SequenceReading(model, scene, known)
