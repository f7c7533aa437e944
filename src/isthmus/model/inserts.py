"""Small learned parts put into a pre-trained model: bottlenecks, prefixes, and a linear head.

``model.config.strategy`` notes what is in, so that a model built from its configuration has the same parts and its
weights fit: :meth:`from_pretrained` and state dicts go there and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import DynamicCache, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from isthmus.errors import InputError

#: What ``config.strategy`` may say: sizes of what is put in, by kind.
KINDS: Final = ("adapter", "prefix", "head")


class Bottleneck(nn.Module):  # type: ignore[misc]
    """``x + up(gelu(down(x)))``; changes nothing before it has learned.

    Source: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, section 2.1; the start is
    exactly the identity, theirs is near it.

    Parameters
    ----------
    dim, size : int
        Length of a state, and of the bottleneck.
    dropout : float
        Inside the bottleneck.

    Examples
    --------
    >>> x = torch.randn(3, 8)
    >>> torch.equal(Bottleneck(8, 2)(x), x)
    True
    """

    def __init__(self, dim: int, size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, size), nn.Linear(size, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x_Ld: Tensor) -> Tensor:
        """Return (..., d)."""
        return x_Ld + self.up(self.dropout(gelu(self.down(x_Ld))))


class ResidualLinear(nn.Module):  # type: ignore[misc]
    """``x + W x`` with ``W`` zero at the start: a linear map that starts as the identity, and decays towards it.

    Parameters
    ----------
    dim : int
        Length of a vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, dim))

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return (N, D)."""
        return x_ND + nn.functional.linear(x_ND, self.weight.to(x_ND.dtype))


def insert(model: PreTrainedModel, note: Mapping[str, object] | None) -> None:
    """Put into a model what a note says, with starting values.

    Parameters
    ----------
    model : PreTrainedModel
        A sequence model or a language model.
    note : dict, optional
        ``adapter``: {size, dropout}; ``prefix``: shape (layers, 2, heads, n, w); ``head``: length of a vector.

    Raises
    ------
    InputError
        The note has an unknown entry, or the blocks have no place for a bottleneck.
    """
    note = note or {}
    unknown = [key for key in note if key not in KINDS]
    if unknown:
        raise InputError(f"its configuration asks for '{unknown[0]}', which is not known", where=type(model).__name__)
    if "adapter" in note:
        sizes = note["adapter"]
        if not isinstance(sizes, Mapping):
            raise InputError("its configuration has no sizes of the adapter", where=type(model).__name__)
        _add_bottlenecks(model, int(sizes["size"]), float(sizes["dropout"]))
    if "prefix" in note:
        shape = note["prefix"]
        if not isinstance(shape, Sequence):
            raise InputError("its configuration has no shape of the prefix", where=type(model).__name__)
        put_prefix(model, torch.zeros(*shape))
    if "head" in note:
        model.head = ResidualLinear(int(str(note["head"]))).to(next(model.parameters()).device)


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the Transformer blocks of either carrier, bottom to top."""
    return list(model.layers() if hasattr(model, "layers") else model.blocks)


def _add_bottlenecks(model: PreTrainedModel, size: int, dropout: float) -> None:
    for block in blocks_of(model):
        for place in outputs(block):
            weight = place.weight
            dim = weight.shape[1] if isinstance(place, Conv1D) else weight.shape[0]
            place.bottleneck = Bottleneck(dim, size, dropout).to(weight.device, weight.dtype)
            place.register_forward_hook(_through_bottleneck)


def _through_bottleneck(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
    return module.bottleneck(output)


def linears(block: nn.Module) -> dict[str, nn.Module]:
    """Return the linear maps of a block by name, in their order; not those of a bottleneck."""
    return {
        name: module
        for name, module in block.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and "bottleneck" not in name.split(".")
    }


def outputs(block: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the last linear map of a block's attention, and that of its feed-forward part.

    Raises
    ------
    InputError
        It has no such two.

    Examples
    --------
    >>> from isthmus.model.layers import Block
    >>> block = Block(8, 2, 0.0)
    >>> outputs(block) == (block.attention.out, block.down)
    True
    """
    attends: list[nn.Module] = []
    feeds: list[nn.Module] = []
    for name, module in linears(block).items():
        (attends if "att" in name.split(".")[0] else feeds).append(module)
    if not attends or not feeds:
        raise InputError(
            "its blocks have no attention and feed-forward part side by side",
            where=type(block).__name__,
            fix="take another strategy than adapter",
        )
    return attends[-1], feeds[-1]


def put_prefix(model: PreTrainedModel, prefix: Tensor) -> None:
    """Give a model its prefix: keys and values (layers, 2, heads, n, w) before all others.

    Source: Li and Liang, "Prefix-Tuning", ACL 2021, section 4.2, without the reparametrisation.
    """
    weight = next(model.parameters())
    prefix = prefix.to(weight.device, weight.dtype)
    if hasattr(model, "backbone"):
        model.prefix = nn.Parameter(prefix.clone())
        model.supports_gradient_checkpointing = False  # keys and values of a checkpointed layer would be added twice
        return
    for block, part in zip(blocks_of(model), prefix, strict=True):
        block.attention.prefix = nn.Parameter(part.clone())


def read_with_prefix(backbone: PreTrainedModel, prefix: Tensor, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Return the state of each token, (B, L, D), where all can look at the prefix; places count from the first token.

    Parameters
    ----------
    backbone : PreTrainedModel
        Encoder or decoder that takes ``past_key_values``.
    prefix : Tensor (layers, 2, heads, n, w)
        Keys and values.
    ids_BL, mask_BL : int64 Tensors (B, L)
        Tokens, padded on the right.
    """
    B, L = ids_BL.shape
    device = ids_BL.device.type
    if torch.is_autocast_enabled(device):
        prefix = prefix.to(torch.get_autocast_dtype(device))
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix):
        cache.update(keys.expand(B, -1, -1, -1), values.expand(B, -1, -1, -1), layer)
    return backbone(
        input_ids=ids_BL,
        attention_mask=torch.cat([mask_BL.new_ones(B, prefix.shape[3]), mask_BL], dim=1),
        position_ids=torch.arange(L, device=ids_BL.device)[None],
        past_key_values=cache,
    ).last_hidden_state
