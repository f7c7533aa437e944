"""What a sequence model looks at: a catalogue of items, and batches of histories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from isthmus.data.sequences import Histories
from isthmus.model.base import Places
from isthmus.types import Bools, Floats, Indices, Ints

MINUTE: Final = 60_000_000
#: Buckets of the time since the event before: powers of four of a minute, the last over 16 years; 0 says not known.
GAPS: Final = 13


@dataclass
class Events:
    """A batch of histories.

    Parameters
    ----------
    items, events, gaps : int64 Tensors (B, L)
        Item row, event code and gap bucket of each event, oldest first, filled with zeros at the end.
    rows : int64 Tensor (U,), optional
        Rows of the catalogue that ``items`` counts in; the whole catalogue if None.
    """

    items: Tensor
    events: Tensor
    gaps: Tensor
    rows: Tensor | None = None


class Catalogue(nn.Module):  # type: ignore[misc]
    """What the model reads of the items: nothing here is learned or saved with it.

    Parameters
    ----------
    vectors : float32 array (N, D)
        Text vectors, whitened; rows of zeros without a text.
    places : Places
        Domain and platform of each item.
    config : SequenceConfig
        Whose names the places are looked up in.
    known : int32 array (n_items,)
        Items that the id embeddings stand for.
    """

    def __init__(self, vectors: Floats | None, places: Places, config: PretrainedConfig, known: Indices) -> None:
        super().__init__()
        vectors = np.zeros((places.domain.size, 0), np.float32) if vectors is None else vectors
        id_of = np.full(places.domain.size, config.n_items, np.int64)
        id_of[known] = np.arange(config.n_items)
        for name, table in (
            ("id_of", torch.from_numpy(id_of)),
            ("vectors", torch.from_numpy(np.ascontiguousarray(vectors))),
            ("domain", torch.from_numpy(_known(config.domains, places.domains)[places.domain])),
            ("platform", torch.from_numpy(_known(config.platforms, places.platforms)[places.platform])),
        ):
            self.register_buffer(name, table, persistent=False)
            # rows of each domain, and the place of each item among those of its domain
        order = np.argsort(places.domain, kind="stable")
        first = np.searchsorted(places.domain[order], np.arange(len(places.domains) + 1))
        place = np.empty(order.size, np.int64)
        place[order] = np.arange(order.size) - first[places.domain[order]]
        self.register_buffer("place", torch.from_numpy(place), persistent=False)
        self.register_buffer("order", torch.from_numpy(order), persistent=False)
        self.first: list[int] = first.tolist()

    def rows(self, domain: int) -> Tensor:
        """Return the rows of a domain, rising."""
        return self.order[self.first[domain] : self.first[domain + 1]]


def _known(known: list[str], names: tuple[str, ...]) -> np.ndarray:
    """Return the place of each name among the known ones, 0 for others."""
    return np.array([known.index(name) if name in known else 0 for name in names], dtype=np.int64)


def shaped(histories: Histories, dated: bool) -> tuple[Ints, Ints]:
    """Return items, events and gaps of histories, (3, B, L), and the place of each last event, (B,)."""
    n = histories.lengths
    width = max(int(n.max(initial=0)), 1)
    first = np.zeros(histories.items.size, dtype=bool)
    first[histories.indptr[:-1][n > 0]] = True
    cell = histories.rows * width + np.arange(histories.items.size) - histories.indptr[:-1][histories.rows]
    batch = np.zeros((3, len(histories) * width), np.int64)
    batch[:, cell] = histories.items, histories.events, gap_buckets(histories.ts, first, dated)
    return batch.reshape(3, len(histories), width), np.maximum(n - 1, 0)


def gap_buckets(ts: Ints, first: Bools, dated: bool) -> Ints:
    """Return the bucket of the time since the event before, (E,); 0 for the first one and where there are no dates.

    Examples
    --------
    >>> ts = np.array([0, 30, 3600, 90000]) * 1_000_000
    >>> gap_buckets(ts, np.array([True, False, False, False]), dated=True).tolist()
    [0, 1, 4, 7]
    """
    gaps = np.diff(ts, prepend=ts[:1])
    steps = np.floor(np.log2(np.maximum(gaps, MINUTE) / MINUTE) / 2)
    buckets = np.clip(np.where(gaps > MINUTE, steps + 2, 1), 1, GAPS).astype(np.int64)
    return np.where(first | (not dated), 0, buckets)
