"""Two views of what a person did, for the contrastive loss of the sequence model, and what is like an item."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from isthmus.data.augment import Augment, two_views
from isthmus.data.sequences import Histories
from isthmus.data.similar import similar_by_company, similar_items
from isthmus.model.base import Places
from isthmus.model.catalogue import shaped
from isthmus.types import Floats, Indices, Ints

#: Items that may stand for an item, at most.
SIMILAR: Final = 5
#: Operations that put a similar item into a history.
EXCHANGING: Final = frozenset({"substitute", "insert"})


@dataclass(frozen=True, eq=False)
class Views:
    """How the two views of a history are made.

    Parameters
    ----------
    augment : Augment
        Operations and their shares.
    similar : int32 array (N, k), optional
        Similar items of each item, -1 where there are no more; substitute and insert need it.

    Examples
    --------
    >>> (items, _, _), last = Views(Augment(("crop",))).of(Histories.of([[3, 1, 4]]), False, np.random.default_rng(0))
    >>> items.tolist(), last.tolist()
    ([[4], [1]], [0, 0])
    """

    augment: Augment = field(default_factory=Augment)
    similar: Indices | None = None

    @property
    def exchanging(self) -> bool:
        """Whether an operation puts similar items in."""
        return bool(EXCHANGING & set(self.augment.operations))

    def told(self, histories: Histories, places: Places, vectors: Floats | None) -> Views:
        """Return these with a table of similar items, if they need one and have none."""
        if not self.exchanging or self.similar is not None:
            return self
        return replace(self, similar=similar_table(histories, places, vectors))

    def of(self, histories: Histories, dated: bool, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Return items, events and gaps of both views, (3, 2 B, L), and the place of each last event, (2 B,).

        The second views come after all first ones.
        """
        views = [shaped(view, dated) for view in two_views(histories, self.augment, rng, similar=self.similar)]
        width = max(batch.shape[2] for batch, _ in views)
        stacked = np.concatenate([np.pad(b, [(0, 0), (0, 0), (0, width - b.shape[2])]) for b, _ in views], axis=1)
        return stacked, np.concatenate([last for _, last in views])


def similar_table(histories: Histories, places: Places, vectors: Floats | None, k: int = SIMILAR) -> Indices:
    """Return what is most like each item, (N, k) int32, -1 where there is no more.

    Items that share a person with others: those they share most persons with, of any domain. The rest, such as new
    items: the nearest of the same domain by what the texts say.

    Parameters
    ----------
    histories : Histories
        Who met what.
    places : Places
        Domain of each item.
    vectors : float32 array (N, D), optional
        Text vectors, whitened; without them the rest has nothing similar.

    Examples
    --------
    >>> vectors = np.array([[1, 0], [0, 1], [1, 0.1], [1, 0.2]], np.float32)
    >>> similar_table(Histories.of([[0, 1]]), Places.nameless(4), vectors, k=1).ravel().tolist()
    [1, 0, 3, 2]
    """
    table = similar_by_company(histories, places.domain.size, k)
    alone = table[:, 0] < 0
    if vectors is None or not alone.any():
        return table
    for domain in np.unique(places.domain[alone]):
        rows = np.flatnonzero(places.domain == domain).astype(np.int32)
        near = similar_items(vectors[rows], k)[alone[rows]]
        table[rows[alone[rows]]] = np.where(near >= 0, rows[near], -1)
    return table
