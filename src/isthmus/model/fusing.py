"""Small networks that make one vector of an item's modalities, and learn from which items people meet in a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.types import Floats, Ints

KINDS: Final = ("gated", "experts", "attention")
_EXPERTS: Final = 4
_HEADS: Final = 4


class Fusion(nn.Module):  # type: ignore[misc]
    """Modalities in, one vector out; a modality that is missing, or dropped while training, is not looked at.

    Parameters
    ----------
    dims : mapping of str to int
        Length of the vectors of each modality, in order.
    kind : {"gated", "experts", "attention"}
        ``gated``: a softmax over the modalities that are there weighs their projections (Arevalo et al. 2017,
        arXiv:1702.01992). ``experts``: a router weighs experts that read all modalities together (Shazeer et al. 2017,
        arXiv:1701.06538). ``attention``: a learned query attends to the modalities (Lee et al., ICML 2019).
    dim : int
        Length of the result.
    """

    def __init__(self, dims: Mapping[str, int], kind: str, dim: int = 64) -> None:
        super().__init__()
        self.kind = kind
        self.enter = nn.ModuleList([nn.Linear(size, dim) for size in dims.values()])
        count = len(dims)
        if kind == "gated":
            self.gate = nn.Linear(dim, 1)
        elif kind == "experts":
            self.router = nn.Linear(count * dim + count, _EXPERTS)
            self.experts = nn.ModuleList([nn.Linear(count * dim + count, dim) for _ in range(_EXPERTS)])
        else:
            self.query = nn.Parameter(torch.randn(1, 1, dim) / dim**0.5)
            self.attention = nn.MultiheadAttention(dim, _HEADS, batch_first=True)

    def forward(self, parts: list[Tensor], there: Tensor) -> Tensor:
        """Return (B, dim), rows of length 1; zeros for an item with no modality.

        Parameters
        ----------
        parts : list of Tensor (B, D)
            Vectors of each modality.
        there : bool Tensor (B, modalities)
            Which modalities each item has.
        """
        entered = torch.stack([enter(part) for enter, part in zip(self.enter, parts, strict=True)], 1)
        entered = entered * there[:, :, None]
        some = there.any(1, keepdim=True)
        if self.kind == "gated":
            shares = self.gate(torch.tanh(entered)).squeeze(2).masked_fill(~there & some, -torch.inf).softmax(1)
            fused = (shares[:, :, None] * entered).sum(1)
        elif self.kind == "experts":
            whole = torch.cat([entered.flatten(1), there.float()], 1)
            heard = torch.stack([expert(whole) for expert in self.experts], 1)
            fused = (self.router(whole).softmax(1)[:, :, None] * heard).sum(1)
        else:
            query = self.query.expand(len(entered), -1, -1)
            fused = self.attention(query, entered, entered, key_padding_mask=~there & some, need_weights=False)[0][:, 0]
            fused = fused + entered.sum(1) / there.sum(1, keepdim=True).clamp(min=1)
        return functional.normalize(fused, dim=1) * some


class Shown:
    """The modalities of all items as tensors.

    Parameters
    ----------
    parts : mapping of str to float32 array (N, D)
        Vectors by modality; a row of zeros where missing.
    """

    def __init__(self, parts: Mapping[str, Floats]) -> None:
        self.dims = {name: int(rows.shape[1]) for name, rows in parts.items()}
        self.parts = [torch.from_numpy(np.ascontiguousarray(rows)) for rows in parts.values()]
        self.there = torch.stack([(part != 0).any(1) for part in self.parts], 1)

    def fuse(self, model: Fusion, rows: Tensor, *, drop: float = 0.0) -> Tensor:
        """Return the fused vectors of some items, each modality dropped with chance ``drop``, never all of them."""
        there = self.there[rows]
        if drop:
            kept = there & (torch.rand(there.shape) >= drop)
            there = torch.where(kept.any(1, keepdim=True), kept, there)
        return model([part[rows] for part in self.parts], there)


def train_fusion(shown: Shown, pairs: Ints, kind: str, *, seed: int, epochs: int = 4, drop: float = 0.3) -> Fusion:
    """Return the network learned from items met in a row.

    Each item is to be told from the others of its batch by the one met before it (InfoNCE, van den Oord et al. 2018,
    temperature 0.1), less the logarithm of how often each is met (Yi et al., RecSys 2019), with modality dropout.

    Parameters
    ----------
    shown : Shown
        The items.
    pairs : int64 array (2, K)
        An item and the next one.
    kind : str
        See :class:`Fusion`.
    seed : int
        For weights, order and dropout.
    epochs : int
        Passes over the pairs.
    drop : float
        Chance that a modality is dropped.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Fusion(shown.dims, kind)
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        first, second = torch.from_numpy(pairs)
        fame = torch.bincount(second, minlength=len(shown.there)).float().clamp(min=1).log()
        for _ in range(epochs):
            for some in torch.randperm(first.numel()).split(512):
                here, there = (shown.fuse(model, end[some], drop=drop) for end in (first, second))
                scores = here @ there.T / 0.1 - fame[second[some]]
                same = (second[some][:, None] == second[some]) & ~torch.eye(len(some), dtype=torch.bool)
                loss = functional.cross_entropy(scores.masked_fill(same, -torch.inf), torch.arange(len(some)))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    model.eval()
    return model


def fused_vectors(shown: Shown, model: Fusion) -> Floats:
    """Return the fused vector of each item, (N, dim) float32."""
    blocks = torch.arange(len(shown.there)).split(8192)
    with torch.inference_mode():
        return np.concatenate([shown.fuse(model, rows).numpy() for rows in blocks]).astype(np.float32)
