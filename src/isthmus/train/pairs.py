"""Pairs that belong together, for the contrastive objective: history and next item, two views, items of one person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from isthmus.data.sequences import Histories, ranges
from isthmus.errors import InputError, nearest
from isthmus.model.reading import Reader, Tokens
from isthmus.rng import generator
from isthmus.train.schedule import Schedule, TextSettings
from isthmus.train.texts import tensors
from isthmus.types import Bools, Floats, Indices, Ints

Kind = Literal["next", "views", "together"]
KINDS: Final = ("next", "views", "together")
#: Items compared at a time when hard negatives are looked for.
_BLOCK: Final = 1024


@dataclass(frozen=True)
class PairSettings(TextSettings):
    """How pairs are made and put into batches.

    Parameters
    ----------
    events : int
        Newest events of a history that are told.
    window : int
        Items of one person belong together if at most this many events lie between.
    kept : float
        Share of the events that a view keeps.
    repeats : bool
        Whether an item that the person had before counts as a next item.
    """

    events: int = 30
    window: int = 3
    kept: float = 0.6
    repeats: bool = False


class ContrastivePairs:
    """Pairs of texts that belong together, each batch from one domain, so that the others in it are hard to tell apart.

    ``next``: what a person did so far, and the item that came next. ``together``: two items of one person, near in
    time, whatever their domains. ``views``: two random parts of what one person did (negatives are other people).
    The domain of a pair is that of its right item (of the newest item for ``views``). Items that the person had at
    any time never count as negatives.

    Parameters
    ----------
    kind : {"next", "views", "together"}
        What belongs together.
    reader : Reader
        Reads items and people of the corpus.
    histories : Histories
        What may be learned from.
    settings : PairSettings
        Sizes and seed.
    hard : int32 array (N, k), optional
        Items to tell each item from, -1 for none: see :func:`hard_negatives`. Each pair brings one of them.
    predict : bool array (N,), optional
        Items that may stand on the right.

    Raises
    ------
    InputError
        No such kind, or no pair.
    """

    def __init__(
        self,
        kind: Kind,
        reader: Reader,
        histories: Histories,
        settings: PairSettings,
        *,
        hard: Indices | None = None,
        predict: Bools | None = None,
    ) -> None:
        if kind not in KINDS:
            raise InputError(f"no pairs '{kind}'{nearest(kind, list(KINDS))}", fix=f"kinds are {', '.join(KINDS)}")
        self.kind, self.reader, self.settings, self.hard = kind, reader, settings, hard
        readable = reader.items.lengths > 0
        self.histories = histories if kind != "together" else histories.keep(readable[histories.items])
        self.person = self.histories.rows
        self.may = readable if predict is None else readable & predict
        self.examples = np.flatnonzero(self._useful())
        self.schedule = Schedule(
            self._lengths()[self.examples], settings, self._domains()[self.examples], purpose=f"pairs {kind}"
        )
        self._n_items = len(reader.items)
        self._owned = np.unique(self.person * self._n_items + self.histories.items)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.schedule)

    def _useful(self) -> Bools:
        """Return which events are the right side of a pair, (E,); for views, which persons have two views, (B,)."""
        histories = self.histories
        if self.kind == "views":
            return histories.lengths > 1
        right = self.may[histories.items]
        if self.kind == "together":
            return right & (histories.lengths[self.person] > 1)
        first = np.zeros(histories.items.size, bool)
        first[histories.indptr[:-1][histories.lengths > 0]] = True
        if not self.settings.repeats:
            keys = self.person * (int(histories.items.max(initial=0)) + 1) + histories.items
            once = np.zeros(keys.size, bool)
            once[np.unique(keys, return_index=True)[1]] = True
            right &= once
        return right & ~first

    def _lengths(self) -> Ints:
        histories = self.histories
        if self.kind == "views":
            told: Ints = np.minimum(histories.lengths, self.settings.events)
            return told
        if self.kind == "together":
            return self.reader.items.lengths[histories.items]
        before: Ints = np.minimum(np.arange(self.person.size) - histories.indptr[self.person], self.settings.events)
        return before

    def _domains(self) -> Ints:
        items = self.histories.items
        if self.kind == "views":
            items = items[np.maximum(self.histories.indptr[1:] - 1, 0)]
        return self.reader.places.domain[items].astype(np.int64)

    def batch(self, step: int) -> dict[str, list[dict[str, Tensor | str]]]:
        """Return the input of the model for a step."""
        chosen = self.examples[self.schedule.rows(step)]
        rng = generator(self.settings.seed, "pairs", self.kind, step)
        if self.kind == "views":
            some = self.histories.take(chosen).last(self.settings.events)
            left, right = (self.reader.behaviour(_view(some, self.settings.kept, rng)) for _ in range(2))
            return self._made(left, right, None)
        if self.kind == "next":
            left = self.reader.behaviour(self._before(chosen))
        else:
            beside = self._beside(chosen, rng)
            chosen, beside = chosen[beside >= 0], beside[beside >= 0]
            left = self.reader.items.take(self.histories.items[beside])
        items = np.concatenate([self.histories.items[chosen], self._harder(chosen, rng)])
        owned = self.person[chosen, None] * self._n_items + items
        place = np.minimum(np.searchsorted(self._owned, owned), self._owned.size - 1)
        return self._made(left, self.reader.items.take(items), self._owned[place] == owned)

    def _made(self, left: Tokens, right: Tokens, ignored: Bools | None) -> dict[str, list[dict[str, Tensor | str]]]:
        sides = {**tensors(left, "left_ids", "left_mask"), **tensors(right, "right_ids", "right_mask")}
        masks = {} if ignored is None else {"ignored": torch.from_numpy(ignored)}
        return {"parts": [{"objective": "contrastive", **sides, **masks}]}

    def _before(self, chosen: Ints) -> Histories:
        """Return what came before each event: the newest events only."""
        start = np.maximum(self.histories.indptr[self.person[chosen]], chosen - self.settings.events)
        rows, whole = ranges(start, chosen), self.histories
        indptr = np.concatenate([[0], np.cumsum(chosen - start)])
        return Histories(indptr, whole.items[rows], whole.weights[rows], whole.ts[rows], whole.events[rows])

    def _beside(self, chosen: Ints, rng: np.random.Generator) -> Ints:
        """Return another event of the same person near each event; -1 where it is on the same item."""
        start, stop = self.histories.indptr[self.person[chosen]], self.histories.indptr[self.person[chosen] + 1]
        away = rng.integers(1, self.settings.window + 1, chosen.size) * rng.choice([-1, 1], chosen.size)
        away = np.where((chosen + away < start) | (chosen + away >= stop), -away, away)
        found = np.clip(chosen + away, start, stop - 1)
        return np.where(self.histories.items[found] == self.histories.items[chosen], -1, found)

    def _harder(self, chosen: Ints, rng: np.random.Generator) -> Ints:
        """Return one hard negative of each right item that has any."""
        if self.hard is None or not self.hard.shape[1]:
            return np.zeros(0, np.int64)
        table = self.hard[self.histories.items[chosen]]
        picked = table[np.arange(chosen.size), rng.integers(0, table.shape[1], chosen.size)].astype(np.int64)
        return picked[picked >= 0]


def _view(histories: Histories, kept: float, rng: np.random.Generator) -> Histories:
    """Return a random part of each history: each event with chance ``kept``, and one of them at least."""
    drawn = rng.random(histories.items.size)
    order = np.lexsort((drawn, histories.rows))
    least = np.zeros(drawn.size, bool)
    least[order[histories.indptr[:-1][histories.lengths > 0]]] = True
    return histories.keep((drawn < kept) | least)


def hard_negatives(
    vectors: Floats, domain: Indices, histories: Histories, *, k: int = 10, too_near: float = 0.95
) -> Indices:
    """Return for each item the ``k`` nearest of its domain that no person had together with it, (N, k) int32.

    Nearest by cosine, nearest first; -1 where there are fewer. Items nearer than ``too_near`` are taken for the same
    thing under another number. Items without a vector neither have nor are negatives.

    Parameters
    ----------
    vectors : float32 array (N, D)
        Of length 1 or 0.
    domain : int32 array (N,)
        Domain of each item.
    histories : Histories
        Training events.
    k : int
        How many.
    too_near : float
        Cosine from which on an item is passed over.

    Examples
    --------
    >>> vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [1, 0]], np.float32)
    >>> hard_negatives(vectors, np.zeros(4, np.int32), Histories.of([[0, 1]]), k=1).ravel().tolist()
    [2, 3, 1, 1]
    """
    together = histories.matrix(len(vectors)) > 0
    found = np.full((len(vectors), k), -1, np.int32)
    known = np.any(vectors != 0, axis=1)
    for place in np.unique(domain):
        rows = np.flatnonzero((domain == place) & known)
        people = together[:, rows].astype(np.float32).tocsc()
        for start in range(0, rows.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            scores = vectors[rows[block]] @ vectors[rows].T
            scores[scores >= too_near] = -2.0
            met = (people[:, block].T @ people).tocoo()
            scores[met.row, met.col] = -2.0
            n = min(k, rows.size)
            best = np.argpartition(-scores, n - 1, axis=1)[:, :n]
            value = np.take_along_axis(scores, best, axis=1)
            order = np.argsort(-value, axis=1, kind="stable")
            best, value = np.take_along_axis(best, order, axis=1), np.take_along_axis(value, order, axis=1)
            found[rows[block], :n] = np.where(value > -2.0, rows[best], -1)
    return found
