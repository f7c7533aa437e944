"""How two towers learn: softmax of each event given the person's other events, with ids that are dropped by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding_bag

from isthmus.data.sequences import Histories, ranges
from isthmus.model.aligned import align, behaviour
from isthmus.model.base import TrainingData
from isthmus.model.softmax import unseen_sampled_softmax
from isthmus.rng import generator
from isthmus.types import Floats, Ints

if TYPE_CHECKING:
    from isthmus.model.towers import Towers

#: Events of a batch, and how many of the person's events on either side of an event tell of it.
BATCH: Final = 1024
NEAR: Final = 30
#: Items of the target that a batch is compared with: all, or so many, half of them by popularity.
DRAWN: Final = 2048
WEIGHT_DECAY: Final = 1e-2
#: Ridge of the map to begin with, and items that say how large its products are.
RIDGE, SOME = 3.0, 500
#: Of the towers' states while they learn.
DROPOUT: Final = 0.2

#: Maps, liked, ids and fame.
Learned: TypeAlias = tuple[Floats, Floats, Floats, Floats]


def learn_towers(method: Towers, data: TrainingData, rows: Floats, seed: int) -> Learned:
    """Return maps (2, D, d), liked (D,), ids (2, N, d) and fame (N,), as :class:`~isthmus.model.towers.Towers` says.

    Parameters
    ----------
    method : Towers
        Whose settings say how.
    data : TrainingData
        Training events.
    rows : float32 array (N, D)
        What is known of the items.
    seed : int
        For the start, the order, and what is dropped.
    """
    rng = generator(seed, "towers")
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(1 << 31)))
        histories = data.learn_from(bool(method.settings["sources"]))
        lessons = _Lessons(method, data, histories)
        start = first_maps(rows, behaviour(histories, data.n_items), int(method.number("dim")))
        net = TowerNet(rows, start, lessons.met)
        epochs = int(method.number("epochs")) if lessons.asked.size else 0
        rate, batches = method.number("learning_rate"), -(-lessons.asked.size // BATCH)
        steps = [
            torch.optim.AdamW([net.maps, net.liked], lr=rate, weight_decay=WEIGHT_DECAY),
            torch.optim.SparseAdam(net.ids.parameters(), lr=rate),  # only items of the batch move
        ]
        fading = [torch.optim.lr_scheduler.OneCycleLR(one, rate, total_steps=epochs * batches + 1) for one in steps]
        for _ in range(epochs):
            for places in np.array_split(rng.permutation(lessons.asked), batches):
                net.zero_grad()
                lessons.loss(net, np.sort(places), rng).backward()
                for one, slower in zip(steps, fading, strict=True):
                    one.step()
                    slower.step()
    learned: Learned = net.learned(data.n_items)
    return learned


class TowerNet(nn.Module):  # type: ignore[misc]
    """Maps of what is known of items ``rows`` (N, D), and id vectors of the items ``met`` (M,)."""

    def __init__(self, rows: Floats, start: Floats, met: Ints) -> None:
        super().__init__()
        dim = start.shape[2]
        self.rows = torch.from_numpy(np.ascontiguousarray(rows))
        self.place = torch.full((len(rows),), met.size, dtype=torch.int64)
        self.place[torch.from_numpy(met)] = torch.arange(met.size)
        self.maps = nn.Parameter(torch.from_numpy(start))
        self.liked = nn.Parameter(torch.zeros(rows.shape[1]))
        self.ids = nn.ModuleList(nn.Embedding(met.size + 1, size, sparse=True) for size in (dim, dim + 1))
        for table in self.ids:
            nn.init.normal_(table.weight, std=0.02)

    def drop(self, share: float) -> Tensor:
        """Return 1 for each id that is there and 0 for each that is dropped, (M + 1, 1); the last is nobody's."""
        kept = (torch.rand(self.ids[0].num_embeddings, 1) >= share).float()
        kept[-1] = 0.0
        return kept

    def inputs(self, items: Tensor, kept: Tensor) -> Tensor:
        """Return the places of items in histories, (U, d)."""
        place = self.place[items]
        return self.rows[items] @ self.maps[0] + self.ids[0](place) * kept[place]

    def outputs(self, items: Tensor, kept: Tensor) -> Tensor:
        """Return the places of items in lists, and their popularity, (U, d + 1)."""
        place = self.place[items]
        rows = self.rows[items]
        said = torch.cat([rows @ self.maps[1], (rows @ self.liked)[:, None]], dim=1)
        return said + self.ids[1](place) * kept[place]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def learned(self, n_items: int) -> Learned:
        """Return maps, liked, ids and fame as arrays over ``n_items`` items."""
        place = self.place[:n_items]
        shown, listed = (table.weight[place] * (place < table.num_embeddings - 1)[:, None] for table in self.ids)
        ids = torch.stack([shown, listed[:, :-1]]).numpy()
        return self.maps.numpy().copy(), self.liked.numpy().copy(), ids, listed[:, -1].numpy().copy()


def first_maps(rows: Floats, met: sparse.csr_array, dim: int) -> Floats:
    """Return maps (2, D, dim) from which to learn: the strongest part of :func:`isthmus.model.aligned.align`.

    Parameters
    ----------
    rows : float32 array (N, D)
        What is known of the items.
    met : csr array (N, N)
        How often two items are met by one person (:func:`isthmus.model.aligned.behaviour`).
    dim : int
        Length of the vectors.
    """
    known = np.flatnonzero(np.diff(met.indptr) > 0)
    company = align(rows[known], sparse.csr_array(met[known][:, known]), l2=RIDGE).astype(np.float64)
    strength, axes = np.linalg.eigh((company + company.T) / 2)
    order = np.argsort(-np.abs(strength))[:dim]
    shown = axes[:, order] * np.sqrt(np.abs(strength[order]))
    maps = np.stack([shown, shown * np.sign(strength[order])])
    some = rows[np.linspace(0, len(rows) - 1, SOME).astype(np.int64)]
    spread = float(((some @ maps[0]) @ (some @ maps[1]).T).std()) or 1.0
    wide: Floats = np.pad(maps / spread**0.5, [(0, 0), (0, 0), (0, dim - order.size)]).astype(np.float32)
    return wide


class _Lessons:
    """The events that are asked for, and what tells of each."""

    def __init__(self, method: Towers, data: TrainingData, histories: Histories) -> None:
        self.items, self.weights = histories.items.astype(np.int64), histories.weights
        self.first = np.repeat(histories.indptr[:-1], histories.lengths)
        self.last = np.repeat(histories.indptr[1:], histories.lengths)
        several = self.last - self.first > 1
        self.asked = np.flatnonzero(several & data.in_target[self.items])
        self.met = np.unique(self.items)
        self.target = data.target.astype(np.int64)
        self.decay, self.dropout = method.number("decay"), method.number("dropout")
        popular = np.bincount(np.searchsorted(self.target, self.items[self.asked]), minlength=self.target.size)
        self.chance = 0.5 * popular / max(popular.sum(), 1) + 0.5 / max(self.target.size, 1)
        self.chance /= self.chance.sum()

    def loss(self, net: TowerNet, places: Ints, rng: np.random.Generator) -> Tensor:
        """Return the loss of the events at ``places``, each given the others of its person."""
        wanted = self.items[places]
        start, stop = np.maximum(self.first[places], places - NEAR), np.minimum(self.last[places], places + NEAR + 1)
        around, row = ranges(start, stop), np.repeat(np.arange(places.size), stop - start)
        other = self.items[around] != wanted[row]
        around, row = around[other], row[other]
        says = self.weights[around] * self.decay ** (np.abs(around - places[row]) - 1)
        whole = np.maximum(np.bincount(row, weights=says, minlength=places.size), 1e-9)
        says = (says / np.sqrt(whole)[row]).astype(np.float32)
        met, inside = np.unique(self.items[around], return_inverse=True)
        kept = net.drop(self.dropout)
        bags = torch.from_numpy(np.searchsorted(row, np.arange(places.size)))
        shown = embedding_bag(
            torch.from_numpy(inside.astype(np.int64)), net.inputs(torch.from_numpy(met), kept), bags,
            mode="sum", per_sample_weights=torch.from_numpy(says),
        )  # fmt: skip
        shown = dropout(shown, DROPOUT)
        shown = torch.cat([shown, shown.new_ones(len(shown), 1)], dim=1)
        return self._softmax(net, shown, wanted, (row, self.items[around]), rng)

    def _softmax(
        self, net: TowerNet, shown: Tensor, wanted: Ints, seen: tuple[Ints, Ints], rng: np.random.Generator
    ) -> Tensor:
        """Return the cross-entropy of the wanted items among all of the target, or a sample; what was seen is none."""
        if self.target.size <= 2 * DRAWN:
            drawn, log_q = np.arange(self.target.size), np.zeros(self.target.size, np.float32)
        else:
            drawn = rng.choice(self.target.size, DRAWN, p=self.chance)
            log_q = np.log(DRAWN * self.chance[drawn]).astype(np.float32)
        table = np.unique(np.concatenate([self.target[drawn], wanted]))
        rows, items = seen
        there = np.isin(items, table)
        outputs = net.outputs(torch.from_numpy(table), net.drop(self.dropout))
        sample = torch.from_numpy(np.searchsorted(table, self.target[drawn])), torch.from_numpy(log_q)
        barred = torch.from_numpy(rows[there]), torch.from_numpy(np.searchsorted(table, items[there]))
        return unseen_sampled_softmax(
            shown, outputs, torch.from_numpy(np.searchsorted(table, wanted)), None, sample, barred
        )
