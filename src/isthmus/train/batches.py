"""Batches for the sequence model: windows of histories, of like length together, the same for the same step always."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from isthmus.data.sequences import Histories, ranges
from isthmus.model.base import DAY, Doubles, Places
from isthmus.model.catalogue import gap_buckets
from isthmus.rng import generator
from isthmus.train.views import Views
from isthmus.types import Bools, Floats, Ints

#: Batches shuffled together before they are sorted by length.
POOL: Final = 32


@dataclass(frozen=True)
class BatchSettings:
    """How histories are cut into batches.

    Parameters
    ----------
    events : int
        Events of a batch, about; never fewer than a window looks at.
    length : int
        Events that a window looks at.
    half_life : float
        Days after which a training event counts half; 0 counts all alike. Only where events have dates.
    repeats : bool
        Whether an item that the person had before counts as a next item.
    sampled : int
        Candidates of each domain of a batch for the sampled softmax; 0 is the whole catalogue.
    views : Views, optional
        How the two views of its histories are made that each batch holds too; none without.
    alpha : float
        The next items of a domain with ``n`` of them count together as ``n ** alpha`` (temperature sampling by
        weight); 1 counts all alike.
    seed : int
        Order of the batches.
    """

    events: int = 4096
    length: int = 50
    half_life: float = 0.0
    repeats: bool = False
    sampled: int = 0
    views: Views | None = None
    alpha: float = 1.0
    seed: int = 0


class SequenceBatches:
    """Every next item of many histories.

    Parameters
    ----------
    histories : Histories
        What may be learned from.
    places : Places
        Domain of each item.
    predict : bool array (N,)
        Items that count as a next item: those of the domains that are learned.
    settings : BatchSettings
        Sizes and weights.
    now : int
        Time of the newest event, microseconds since 1970.
    dated : bool
        Whether times are dates.
    """

    def __init__(
        self,
        histories: Histories,
        places: Places,
        predict: Bools,
        settings: BatchSettings,
        *,
        now: int = 0,
        dated: bool = True,
    ) -> None:
        self.settings, self.places = settings, places
        self.histories, self.dated = histories, dated
        self.items = histories.items.astype(np.int64)
        self.events = histories.events.astype(np.int64)
        first = np.zeros(self.items.size, dtype=bool)
        first[histories.indptr[:-1][histories.lengths > 0]] = True
        self.gaps = gap_buckets(histories.ts, first, dated)
        self.weights = self._weights(histories, predict, first, now, dated)
        self.start, self.stop = self._windows(histories)
        self._drawn = _frequencies(histories, places) if settings.sampled else {}
        self._epoch, self._plan = -1, [np.zeros(0, np.int64)]
        self._n = len(self._batches(0)) if self.start.size else 0

    def _weights(self, histories: Histories, predict: Bools, first: Bools, now: int, dated: bool) -> Floats:
        """Return how much each event counts as a next item, (E,)."""
        settings = self.settings
        counts = predict[histories.items] & ~first
        if not settings.repeats:
            keys = histories.rows * (int(histories.items.max(initial=0)) + 1) + histories.items
            once = np.zeros(keys.size, dtype=bool)
            once[np.unique(keys, return_index=True)[1]] = True
            counts &= once
        age = (now - histories.ts) / DAY
        faded = 0.5 ** (age / settings.half_life) if settings.half_life and dated else np.ones(age.size)
        weights = (counts * faded).astype(np.float32)
        if settings.alpha < 1:
            domain = self.places.domain[histories.items]
            sums = np.bincount(domain, weights=weights, minlength=len(self.places.domains))
            scale = np.where(sums > 0, np.maximum(sums, 1.0), 1.0) ** (settings.alpha - 1)
            weights *= (scale * weights.sum() / max((sums * scale).sum(), 1e-9))[domain].astype(np.float32)
        return weights

    def _windows(self, histories: Histories) -> tuple[Ints, Ints]:
        """Return start and stop of each window: ``length + 1`` events, the last of one is the first of the next."""
        length = self.settings.length
        number = np.maximum(-(-(histories.lengths - 1) // length), 0)
        person = np.repeat(np.arange(len(histories)), number)
        back = np.arange(person.size) - np.repeat(np.cumsum(number) - number, number)
        stop = histories.indptr[person + 1] - back * length
        start = np.maximum(stop - length - 1, histories.indptr[person])
        sums = np.concatenate([[0.0], np.cumsum(self.weights, dtype=np.float64)])
        useful = sums[stop] - sums[start + 1] > 0
        return start[useful], stop[useful]

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._n

    def _batches(self, epoch: int) -> list[Ints]:
        """Return the windows of each batch of an epoch."""
        if epoch != self._epoch:
            rng = generator(self.settings.seed, "batches", epoch)
            events = max(self.settings.events, self.settings.length)  # else epochs differ in their number of batches
            order = rng.permutation(self.start.size)
            lengths = (self.stop - self.start)[order]
            pool = np.cumsum(lengths) // (POOL * events)
            order = order[np.lexsort((lengths, pool))]
            batch = (np.cumsum((self.stop - self.start)[order] - 1) - 1) // events
            parts = np.split(order, np.flatnonzero(np.diff(batch)) + 1)
            self._epoch, self._plan = epoch, [parts[place] for place in rng.permutation(len(parts))]
        return self._plan

    def batch(self, step: int) -> dict[str, dict[str, Tensor]]:
        """Return the inputs of :meth:`isthmus.model.sequence.SequenceModel.forward` for a step, counted from 0."""
        return {"batch": self.fields(step)}

    def fields(self, step: int) -> dict[str, Tensor]:
        """Return the fields of the :class:`~isthmus.model.catalogue.Batch` of a step, and what :meth:`_more` adds."""
        epoch, place = divmod(step, self._n)
        plan = self._batches(epoch)
        windows = plan[min(place, len(plan) - 1)]
        start, stop = self.start[windows], self.stop[windows]
        B, L = windows.size, int((stop - start).max()) - 1
        seen = ranges(start, stop - 1)
        row = np.repeat(np.arange(B), stop - start - 1)
        cell = row * L + seen - np.repeat(start, stop - start - 1)
        shaped = np.zeros((3, B * L), np.int64)
        shaped[0, cell], shaped[1, cell], shaped[2, cell] = self.items[seen], self.events[seen], self.gaps[seen]
        shaped[2, ::L] = 0
        counted = self.weights[seen + 1] > 0
        cell, after = cell[counted], seen[counted] + 1
        targets = self.items[after]
        order = np.argsort(self.places.domain[targets], kind="stable")
        domains, first = np.unique(self.places.domain[targets[order]], return_index=True)
        last = np.append(first[1:], targets.size)
        made = {
            "places": cell[order],
            "targets": targets[order],
            "spans": np.stack([first, last, domains, 0 * first, 0 * first], axis=1).astype(np.int64),
        }
        if not self.settings.repeats:
            made |= self._seen(np.repeat(start, stop - start - 1)[counted][order], after[order])
        if self.settings.views is not None:
            made |= self._views(self.settings.views, start, stop, generator(self.settings.seed, "views", step))
        if self.settings.sampled:
            made |= self._sample(shaped[0], made, generator(self.settings.seed, "sample", step))
        items, events, gaps = shaped.reshape(3, B, L)
        made |= {"items": items, "events": events, "gaps": gaps}
        whole = {**made, **self._more(after[order])}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in whole.items()}
        return {**tensors, "weights": torch.from_numpy(self.weights[after][order])}

    def _more(self, after: Ints) -> Mapping[str, Ints | Floats]:  # noqa: ARG002
        """Return what a kind of batches tells besides of the events to predict, whose places are ``after`` (P,)."""
        return {}

    def _views(self, views: Views, start: Ints, stop: Ints, rng: np.random.Generator) -> dict[str, Ints]:
        """Return two views of the batch's windows."""
        seen, whole = ranges(start, stop), self.histories
        indptr = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int64)
        windows = Histories(indptr, whole.items[seen], whole.weights[seen], whole.ts[seen], whole.events[seen])
        stacked, lasts = views.of(windows, self.dated, rng)
        return {"views": stacked, "lasts": lasts}

    def _seen(self, start: Ints, after: Ints) -> dict[str, Ints]:
        """Return what stands before each next item in its window: place in ``places``, rising, and item."""
        rows = np.repeat(np.arange(after.size), after - start)
        items = self.items[ranges(start, after)]
        same = self.places.domain[items] == self.places.domain[self.items[after]][rows]
        return {"seen_rows": rows[same], "seen_items": items[same]}

    def _sample(self, items: Ints, made: dict[str, Ints], rng: np.random.Generator) -> dict[str, Ints]:
        """Draw candidates by popularity, and renumber everything to the rows that take part; changes ``items``."""
        spans = made["spans"]
        drawn: list[Ints] = []
        log_q: list[Floats] = []
        for span in spans:
            rows, share = self._drawn[int(span[2])]
            some = rng.choice(rows.size, size=self.settings.sampled, p=share)
            span[3], span[4] = len(drawn) * self.settings.sampled, (len(drawn) + 1) * self.settings.sampled
            drawn.append(rows[some])
            log_q.append(np.log(share[some] * self.settings.sampled).astype(np.float32))
        chosen = np.concatenate(drawn)
        looked_at = made["views"][0].ravel() if "views" in made else items[:0]
        rows = np.unique(np.concatenate([chosen, items, made["targets"], looked_at]))
        items[:] = np.searchsorted(rows, items)
        if "seen_items" in made:
            made["seen_items"] = np.searchsorted(rows, made["seen_items"])
        if "views" in made:
            made["views"][0] = np.searchsorted(rows, made["views"][0])
        places = {"drawn": np.searchsorted(rows, chosen), "targets": np.searchsorted(rows, made["targets"])}
        return {"rows": rows, "log_q": np.concatenate(log_q), **places}


def _frequencies(histories: Histories, places: Places) -> dict[int, tuple[Ints, Doubles]]:
    """Return the rows of each domain, and the share with which each is drawn: half by popularity, half evenly."""
    counts = np.bincount(histories.items, minlength=places.domain.size)
    tables = {}
    for domain in range(len(places.domains)):
        rows = np.flatnonzero(places.domain == domain)
        popular = counts[rows] / max(counts[rows].sum(), 1)
        share = 0.5 * popular + 0.5 / max(rows.size, 1)
        tables[domain] = (rows, share / share.sum())
    return tables
