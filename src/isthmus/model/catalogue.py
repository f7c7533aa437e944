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


@dataclass
class Batch:
    """What the sequence model learns from in a step.

    Parameters
    ----------
    items, events, gaps : int64 Tensors (B, L)
        See :class:`Events`: no earlier place can see what the end of a shorter history is filled with.
    places : int64 Tensor (P,)
        Which of the ``B * L`` places predict, grouped by the domain of the next item.
    targets, weights : Tensors (P,)
        The next item's row, and how much it counts.
    spans : int64 Tensor (S, 5)
        One row a domain: start and stop in ``places``, the domain, start and stop of its candidates in ``drawn``.
    rows, drawn, log_q : Tensors (U,), (C,), (C,), optional
        With sampled softmax: the rows of the catalogue that take part, in which all items of the batch then count;
        the candidates, and the logarithm of how often each is drawn.
    seen_rows, seen_items : int64 Tensors (M,), optional
        Place in ``places``, rising, and row of an item of the same domain that cannot come next there.
    group : int64 Tensor (), optional
        Which catalogue.
    views, lasts : int64 Tensors (3, 2 B', L') and (2 B',), optional
        Items, events, gaps of two views of some histories, the second ones after all first, and the place of the last
        event of each.
    """

    items: Tensor
    events: Tensor
    gaps: Tensor
    places: Tensor
    targets: Tensor
    weights: Tensor
    spans: Tensor
    rows: Tensor | None = None
    drawn: Tensor | None = None
    log_q: Tensor | None = None
    seen_rows: Tensor | None = None
    seen_items: Tensor | None = None
    group: Tensor | None = None
    views: Tensor | None = None
    lasts: Tensor | None = None

    @property
    def histories(self) -> Events:
        """What the persons did."""
        return Events(self.items, self.events, self.gaps, self.rows)

    @property
    def viewed(self) -> Events | None:
        """Both views of the histories."""
        return None if self.views is None else Events(self.views[0], self.views[1], self.views[2], self.rows)

    def seen(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return what cannot come next at the places from ``start`` to ``stop``: place from ``start`` on, and row."""
        if self.seen_rows is None or self.seen_items is None:
            none = self.targets[:0]
            return none, none
        bounds = torch.tensor([start, stop], device=self.seen_rows.device)
        first, last = torch.searchsorted(self.seen_rows, bounds).tolist()
        return self.seen_rows[first:last] - start, self.seen_items[first:last]


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
