"""What a model was made for, as far as it can be counted: its events, its items' texts, how popular its items are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from isthmus.recommender import Recommender
from isthmus.service.watch.texts import Meaning, length, script
from isthmus.types import EVENTS, Codes

#: Newest events of the model that make the reference.
EVENTS_OF_MODEL: Final = 20_000
#: Items of the model whose texts do, spread over all.
TEXTS_OF_MODEL: Final = 5_000
#: Share of events on unknown items that is expected, since items come before they are told of.
UNKNOWN: Final = 0.01
#: How popular an item is: its place among the items with any event.
RANKS: Final = ("first 1%", "first 10%", "first half", "second half", "no events", "new")
_ENDS: Final = (0.01, 0.1, 0.5, 1.0)
Counts = dict[str, float]


@dataclass(frozen=True)
class Reference:
    """Counts that are expected.

    Parameters
    ----------
    version : str
        Of the model.
    domains, kinds, known, lengths, scripts : dict of str to float
        Counts; empty where the model says nothing.
    meaning : Meaning, optional
        Where the vectors of the items lie.
    ranks : int8 array (N,)
        How popular each item is, place in :data:`RANKS`.
    """

    version: str
    domains: Counts
    kinds: Counts
    known: Counts
    lengths: Counts
    scripts: Counts
    meaning: Meaning | None
    ranks: Codes

    @classmethod
    def of(cls, model: Recommender, version: str) -> Reference:
        """Return the reference of a model; takes a second for a large one."""
        newest = model.content.people.events.sort("ts", descending=True).head(EVENTS_OF_MODEL)
        texts = model.items[:: max(model.items.height // TEXTS_OF_MODEL, 1)].select("title", "text").rows()
        said = [joined(title, text) for title, text in texts]
        n = float(max(newest.height, 1))
        return cls(
            version,
            _counted(model.items["domain"].gather(newest["item"]).to_list()),
            _counted(EVENTS[code] for code in newest["event"].to_list()),
            {"known": n * (1 - UNKNOWN), "unknown": n * UNKNOWN},
            _counted(map(length, said)),
            _counted(map(script, said)),
            Meaning.of(model.features.vectors),
            _ranked(model),
        )

    def rank(self, row: int) -> str:
        """Return how popular an item is."""
        return RANKS[self.ranks[row]] if row < len(self.ranks) else "new"


def joined(title: str | None, text: str | None) -> str:
    """Return what an item says, in one."""
    return f"{title or ''} {text or ''}".strip()


def _counted(buckets: Iterable[str]) -> Counts:
    counts: Counts = {}
    for bucket in buckets:
        counts[bucket] = counts.get(bucket, 0.0) + 1.0
    return counts


def _ranked(model: Recommender) -> Codes:
    counts = np.bincount(model.content.people.events["item"].to_numpy(), minlength=model.items.height)
    places = np.empty(counts.size)
    places[np.argsort(-counts, kind="stable")] = np.arange(1, counts.size + 1) / max(int((counts > 0).sum()), 1)
    return np.where(counts > 0, np.searchsorted(_ENDS, places), RANKS.index("no events")).astype(np.int8)
