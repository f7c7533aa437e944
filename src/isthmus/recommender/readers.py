"""From the texts of items to their features."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from isthmus.encode.graph import Neighbours
from isthmus.encode.modalities import Knowledge
from isthmus.encode.static import open_encoder
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.encode.verbalise import told_items
from isthmus.model.base import Features, Places
from isthmus.room import appended, stacked
from isthmus.split.temporal import CONTEXT, TEST, Split
from isthmus.types import Floats


@dataclass(frozen=True)
class Readers:
    """What turns an item's text into features, kept with the model so that new items can be read.

    Parameters
    ----------
    tfidf : TfidfEncoder
        Vocabulary and weights, learned from items known in training.
    model : str or None
        Name or folder of the language model; None for the bundled one.
    vectors : bool
        Whether language-model vectors are used at all.
    texts : bool
        Whether the texts themselves are kept, for methods that read on their own.
    knowledge : Knowledge
        Graph, pictures, sounds and films.
    """

    tfidf: TfidfEncoder
    model: str | None = None
    vectors: bool = True
    texts: bool = False
    knowledge: Knowledge = field(default_factory=Knowledge)

    def read(self, items: pl.DataFrame) -> Features:
        """Return the features of ``items``, one row each; vectors come from the cache where they were made before."""
        texts = Template().render(items).to_list()
        vectors = encode_items(items, open_encoder(self.model)).matrix if self.vectors else None
        text = self.tfidf.transform(texts)
        return Features(text, vectors, Places.of(items), tuple(texts) if self.texts else None, *self._known(items))

    def _known(self, items: pl.DataFrame) -> tuple[Neighbours | None, dict[str, Floats]]:
        """Return what graph and files say of ``items``."""
        more, graph = self.knowledge.read_files(items), self.knowledge.graph
        if graph is not None and self.knowledge.told:
            more["told"] = encode_items(told_items(graph, items), open_encoder(self.model)).matrix
        return (None if graph is None else graph.neighbours(items)), more


def vocabulary(split: Split) -> TfidfEncoder:
    """Return the TF-IDF encoder of the texts of items with a training event."""
    met = split.events.filter((pl.col("part") < TEST) | (pl.col("part") == CONTEXT))["item"].unique().sort()
    texts = Template().render(split.corpus.items[met]).to_list()
    return TfidfEncoder.fit(texts if any(texts) else ["-"])


def stack(old: Features, new: Features) -> Features:
    """Return the features of old items followed by those of new ones."""
    text = None if old.text is None or new.text is None else stacked(old.text, new.text)
    vectors = None if old.vectors is None or new.vectors is None else appended(old.vectors, new.vectors)
    texts = None if old.texts is None or new.texts is None else (*old.texts, *new.texts)
    graph = None if old.graph is None or new.graph is None else old.graph + new.graph
    more = {name: appended(rows, new.more[name]) for name, rows in old.more.items() if name in new.more}
    places = None if old.places is None or new.places is None else old.places + new.places
    return Features(text, vectors, places, texts, graph, more)
