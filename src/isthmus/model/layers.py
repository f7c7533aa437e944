"""Layers of the sequence model: the adaptor from text vectors, and causal attention with rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class Adaptor(nn.Module):  # type: ignore[misc]
    """Text vectors to item vectors: whitening with learned parameters, then a mixture of experts (MISSION T6).

    Each expert is a linear map of the shifted vector, ``(x - b_g) W_g``; a softmax gate over the input mixes them
    (Hou et al., UniSRec, KDD 2022, equations 2 to 4). No expert sees which item or domain it reads, so unseen ones
    work.

    Parameters
    ----------
    width, dim : int
        Length of a text vector, and of an item vector.
    experts : int
        Number of experts.
    dropout : float
        Dropout of the input.
    """

    def __init__(self, width: int, dim: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.experts = dim, experts
        self.project = nn.Linear(width, experts * dim)
        self.gate = nn.Linear(width, experts)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the item vectors, (N, d)."""
        # whitened vectors have length about sqrt(width): at length 1 the optimiser's steps have the right size
        x_ND = self.dropout(x_ND / self.project.in_features**0.5)
        shares_NG = self.gate(x_ND).softmax(-1)
        said_NGd = self.project(x_ND).view(-1, self.experts, self.dim)
        return torch.einsum("ng,ngd->nd", shares_NG, said_NGd)


class Attention(nn.Module):  # type: ignore[misc]
    """Causal self-attention; what stands later is never seen. Learned prefixes may stand before everything."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, dropout
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        #: Keys and values (2, heads, n, d / heads) that every event may look at (prefix tuning), or None.
        self.prefix: Tensor | None = None

    def forward(self, x_BLd: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Return what each event gathers from itself and what came before, (B, L, d)."""
        B, L, d = x_BLd.shape
        q, k, v = (
            part(x_BLd).view(B, L, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        q, k = rotated(q, turn), rotated(k, turn)
        drop = self.drop if self.training else 0.0
        if self.prefix is None:
            y = scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=drop)
        else:
            first_k, first_v = (part.expand(B, -1, -1, -1).to(k.dtype) for part in self.prefix)
            seen = torch.ones(L, L, dtype=torch.bool, device=x_BLd.device).tril()
            seen = torch.cat([seen.new_ones(L, first_k.shape[2]), seen], dim=1)
            k, v = torch.cat([first_k, k], dim=2), torch.cat([first_v, v], dim=2)
            y = scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=drop)
        return self.out(y.transpose(1, 2).reshape(B, L, d))


class Block(nn.Module):  # type: ignore[misc]
    """One Transformer block, normalised before each part."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLd: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Return the events after this block, (B, L, d)."""
        x_BLd = x_BLd + self.dropout(self.attention(self.norm_attention(x_BLd), turn))
        return x_BLd + self.dropout(self.down(gelu(self.up(self.norm_feed(x_BLd)))))


def turning(length: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (length, width / 2) of rotary positions (Su et al., RoFormer, 2021)."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(length, device=device)[:, None] * rates
    return angles.cos(), angles.sin()


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Return ``x`` (..., L, w) turned by its positions."""
    cos, sin = (part.to(x.dtype) for part in turn)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
