"""How two towers learn: softmax of each event given the person's other events, with ids that are dropped by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from isthmus.data.sequences import ranges
from isthmus.model.base import TrainingData
from isthmus.model.losses import info_nce
from isthmus.model.softmax import unseen_sampled_softmax
from isthmus.rng import generator
from isthmus.types import Floats, Ints

if TYPE_CHECKING:
    from isthmus.model.towers import Towers

#: Events of a batch, and how many of the person's events on either side of an event tell of it.
BATCH: Final = 512
NEAR: Final = 30
#: Items of the target that a batch is compared with: all, or so many, half of them by popularity.
DRAWN: Final = 2048
WEIGHT_DECAY: Final = 1e-2
#: Of the towers' states while they learn.
DROPOUT: Final = 0.2
#: Temperature of the contrast, and its items.
TEMPERATURE: Final = 0.1
CONTRASTED: Final = 512


def learn_towers(method: Towers, data: TrainingData, rows: Floats, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
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
        lessons = _Lessons(method, data)
        net = TowerNet(rows, _start(method, data, rows), lessons.met)
        epochs = int(method.number("epochs")) if lessons.asked.size else 0
        batches = -(-lessons.asked.size // BATCH)
        optimiser = torch.optim.AdamW(net.parameters(), lr=method.number("learning_rate"), weight_decay=WEIGHT_DECAY)
        fading = torch.optim.lr_scheduler.OneCycleLR(optimiser, method.number("learning_rate"), total_steps=epochs * batches + 1)
        for _ in range(epochs):
            for places in np.array_split(rng.permutation(lessons.asked), batches):
                optimiser.zero_grad()
                lessons.loss(net, np.sort(places), rng).backward()
                optimiser.step()
                fading.step()
    return net.learned(data.n_items)


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
        self.ids = nn.Parameter(0.02 * torch.randn(2, met.size + 1, dim))
        self.fame = nn.Parameter(torch.zeros(met.size + 1))

    def drop(self, share: float) -> Tensor:
        """Return 1 for each id that is there and 0 for each that is dropped, (M + 1, 1); the last is nobody's."""
        kept = (torch.rand(len(self.fame), 1) >= share).float()
        kept[-1] = 0.0
        return kept

    def inputs(self, items: Tensor, kept: Tensor) -> Tensor:
        """Return the places of items in histories, (U, d)."""
        place = self.place[items]
        return self.rows[items] @ self.maps[0] + self.ids[0][place] * kept[place]

    def outputs(self, items: Tensor, kept: Tensor) -> Tensor:
        """Return the places of items in lists, and their popularity, (U, d + 1)."""
        place = self.place[items]
        said, rows = kept[place], self.rows[items]
        fame = (rows @ self.liked)[:, None] + self.fame[place][:, None] * said
        return torch.cat([rows @ self.maps[1] + self.ids[1][place] * said, fame], dim=1)

    def contrast(self, items: Tensor) -> Tensor:
        """Return the loss of taking what the events of an item tell for what is known of another (InfoNCE)."""
        known, told = self.rows[items] @ self.maps[1], self.ids[1][self.place[items]]
        return info_nce(normalize(known, dim=1), normalize(told, dim=1), temperature=TEMPERATURE)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def learned(self, n_items: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Return maps, liked, ids and fame as arrays over ``n_items`` items."""
        self.ids[:, -1], self.fame[-1] = 0.0, 0.0
        place = self.place[:n_items]
        ids, fame = self.ids[:, place], self.fame[place]
        return self.maps.numpy().copy(), self.liked.numpy().copy(), ids.numpy(), fame.numpy()


import os
def _start(method, data, rows):
    from isthmus.model.aligned import align, behaviour
    dim=int(method.number("dim"))
    how=os.environ.get("TSTART","align"); size=float(os.environ.get("TSIZE","3"))
    if how=="random":
        ax=spread_axes(rows.shape[1],dim); maps=np.stack([ax,ax]); 
    else:
        met=behaviour(data.learn_from(bool(method.settings["sources"])), data.n_items)
        known=np.flatnonzero(np.diff(met.indptr)>0)
        M=align(rows[known],met[known][:,known],l2=3.0)
        lam=float(os.environ.get("TPLAIN","0"))
        M=(M+M.T)/2; 
        w,V=np.linalg.eigh(M.astype(np.float64))
        if lam: 
            M=M+lam*abs(w).max()*np.eye(len(M)); w,V=np.linalg.eigh(M.astype(np.float64))
        o=np.argsort(-abs(w))[:dim]; w,V=w[o],V[:,o]
        A=V*np.sqrt(abs(w)); B=A*np.sign(w); maps=np.stack([A,B])
    maps=np.pad(maps,((0,0),(0,0),(0,max(dim-maps.shape[2],0)))).astype(np.float32)
    some=rows[np.linspace(0,len(rows)-1,500).astype(int)]
    std=float(((some@maps[0])@(some@maps[1]).T).std()) or 1.
    return np.ascontiguousarray(maps*np.float32((size/ std)**.5*0.5))

def spread_axes(width: int, dim: int) -> Floats:
    """Return ``dim`` directions of length 1 at right angles in ``width`` dimensions, (width, dim), drawn once for all.

    Examples
    --------
    >>> axes = spread_axes(6, 4)
    >>> np.allclose(axes.T @ axes, np.eye(4), atol=1e-5)
    True
    """
    drawn = np.random.default_rng(0).normal(size=(max(width, dim), dim))
    return np.ascontiguousarray(np.linalg.qr(drawn)[0][:width], dtype=np.float32)


class _Lessons:
    """The events that are asked for, and what tells of each."""

    def __init__(self, method: Towers, data: TrainingData) -> None:
        histories = data.learn_from(bool(method.settings["sources"]))
        self.items, self.weights = histories.items.astype(np.int64), histories.weights
        self.first = np.repeat(histories.indptr[:-1], histories.lengths)
        self.last = np.repeat(histories.indptr[1:], histories.lengths)
        several = self.last - self.first > 1
        self.asked = np.flatnonzero(several & data.in_target[self.items])
        self.met = np.unique(self.items)
        self.target = data.target.astype(np.int64)
        self.decay, self.dropout = method.number("decay"), method.number("dropout")
        self.contrast = method.number("contrast")
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
        shown = nn.functional.dropout(shown, DROPOUT)
        shown = torch.cat([shown, shown.new_ones(len(shown), 1)], dim=1)
        total = self._softmax(net, shown, wanted, (row, self.items[around]), rng)
        if self.contrast:
            some = rng.choice(self.met, min(CONTRASTED, self.met.size), replace=False)
            total = total + self.contrast * net.contrast(torch.from_numpy(some))
        return total

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
