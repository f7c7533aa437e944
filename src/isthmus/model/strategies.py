"""What of a pre-trained model is trained, behind one switch, for both carriers.

| strategy | what is trained |
|---|---|
| full | everything |
| top | the upper ``top`` blocks, what stands above them, and the head |
| frozen | the head |
| adapter | a bottleneck after attention and after feed-forward in each block, the norms of the blocks, and the head |
| lora | low-rank updates of all linear maps of the blocks, and the head |
| adalora | the same, with ranks where they matter most, and the head |
| prefix | keys and values before all others in each block, and the head |

The head is what belongs to a target. Sequence model: embeddings of ids, domains and platforms, and the last norm.
Language model: a linear map of the pooled vector that starts as the identity, and the heads of classes.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from isthmus.errors import InputError, nearest
from isthmus.model.inserts import blocks_of, insert, put_prefix
from isthmus.model.lora import add_adalora, add_lora, is_low_rank, merge
from isthmus.rng import generator

STRATEGIES: Final = ("full", "top", "frozen", "adapter", "lora", "adalora", "prefix")
#: Parts of either carrier that belong to a target.
HEAD: Final = ("ids", "domain", "platform", "end", "head", "classes")
#: Standard deviation of a new prefix. On MiniLM the outputs then keep a cosine of 0.99; with keys and values of words,
#: which Li and Liang (ACL 2021, section 7.4) start from, it was 0.80 to 0.94.
NEAR_ZERO: Final = 0.02


@dataclass(frozen=True)
class StrategySettings:
    """What is trained.

    Parameters
    ----------
    strategy : str
        One of :data:`STRATEGIES`.
    top : int
        Upper blocks that ``top`` trains.
    rank, alpha : int, float
        Of ``lora`` and ``adalora``; updates count ``alpha / rank``.
    bottleneck : int
        Width of the bottlenecks of ``adapter``.
    prefix : int
        Keys and values of ``prefix`` in each block.
    dropout : float
        Of ``adapter``, ``lora`` and ``adalora``.
    head : bool
        Whether all but ``full`` train the head too.
    seed : int
        For the starting values of what is put in.

    Raises
    ------
    InputError
        An unknown strategy, or a size that makes no sense.

    Examples
    --------
    >>> StrategySettings("lora").rank
    8
    """

    strategy: str = "full"
    top: int = 1
    rank: int = 8
    alpha: float = 16.0
    bottleneck: int = 16
    prefix: int = 8
    dropout: float = 0.0
    head: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            hint = nearest(self.strategy, list(STRATEGIES))
            raise InputError(
                f"no strategy '{self.strategy}'{hint}", where="strategy", fix=f"take one of {', '.join(STRATEGIES)}"
            )
        for key in ("top", "rank", "alpha", "bottleneck", "prefix"):
            if not getattr(self, key) > 0:
                raise InputError(f"{key} makes no sense", where=f"strategy.{key}", fix="take more than 0")
        if not 0 <= self.dropout < 1:
            raise InputError("dropout makes no sense", where="strategy.dropout", fix="take 0 or more, and less than 1")
        if self.strategy == "frozen" and not self.head:
            raise InputError("nothing would be trained", where="strategy.head", fix="leave head on with frozen")


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` made of a model.

    Parameters
    ----------
    settings : StrategySettings
        What is trained.
    name : str
        Of the target.
    trainable, total : int
        Parameters that are trained, and all.
    """

    settings: StrategySettings
    name: str
    trainable: int
    total: int

    @property
    def share(self) -> float:
        """Share of the parameters that is trained."""
        return self.trainable / max(self.total, 1)


def prepare(model: PreTrainedModel, settings: StrategySettings, *, name: str = "default") -> Prepared:
    """Mark what of a model is trained, in place, and put in what a strategy needs; return the counts.

    The model gives the same outputs as before to the bit, but for ``prefix``. Prepare a sequence model after it was
    :meth:`grown <isthmus.model.sequence.SequenceModel.grown>`, and a language model after it got its class heads.

    Parameters
    ----------
    model : SequenceModel or LanguageModel
        Pre-trained.
    settings : StrategySettings
        What to train.
    name : str
        Of the target.

    Raises
    ------
    InputError
        ``top`` is more than there are blocks, the model has such parts already, or its kind has no place for them.
    """
    if is_low_rank(model):
        raise InputError("has updates of a strategy already", where=name, fix="take plain(model) first")
    model.__dict__.pop("_layers", None)  # a language model caches which layer a parameter is of
    with torch.random.fork_rng():
        torch.manual_seed(int(generator(settings.seed, "strategy", name).integers(2**63)))
        if settings.strategy != "full" and settings.head and hasattr(model, "backbone") and model.head is None:
            _put_in(model, "head", model.dim)
        _START[settings.strategy](model, settings)
    if settings.head:
        _mark_head(model)
    model.strategy_settings = settings
    counts = [(tensor.numel(), tensor.requires_grad) for tensor in model.parameters()]
    return Prepared(settings, name, sum(n for n, on in counts if on), sum(n for n, _ in counts))


def plain(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model ready to be saved, read, or trained on as any other; in place.

    Low-rank updates are added to the weights. Bottlenecks, prefixes and the linear head stay in; ``config.strategy``
    notes them, so that ``from_pretrained`` and state dicts go there and back.
    """
    merge(model)
    model.__dict__.pop("strategy_settings", None)
    return model.requires_grad_(True)


def _full(model: PreTrainedModel, _: StrategySettings) -> None:
    model.requires_grad_(True)


def _top(model: PreTrainedModel, settings: StrategySettings) -> None:
    blocks = blocks_of(model)
    if settings.top > len(blocks):
        raise InputError(
            f"there are {len(blocks)} blocks, not {settings.top}",
            where="strategy.top",
            fix=f"take {len(blocks)} at most, or full",
        )
    model.requires_grad_(False)
    for part in (*blocks[-settings.top :], *_above(model, blocks)):
        part.requires_grad_(True)


def _above(model: PreTrainedModel, blocks: list[nn.Module]) -> list[nn.Module]:
    """Return what comes after the blocks, beside them: the last norm, if there is one."""
    for parent in model.modules():
        beside = list(parent.children())
        for place, part in enumerate(beside):
            if isinstance(part, nn.ModuleList) and list(part) == blocks:
                return beside[place + 1 :]
    return []


def _frozen(model: PreTrainedModel, _: StrategySettings) -> None:
    model.requires_grad_(False)


def _adapter(model: PreTrainedModel, settings: StrategySettings) -> None:
    _put_in(model, "adapter", {"size": settings.bottleneck, "dropout": settings.dropout})
    model.requires_grad_(False)
    for block in blocks_of(model):
        for name, part in block.named_modules():
            if name.endswith("bottleneck") or "norm" in type(part).__name__.lower():
                part.requires_grad_(True)


def _lora(model: PreTrainedModel, settings: StrategySettings) -> None:
    _refuse_second(model)
    (add_lora if settings.strategy == "lora" else add_adalora)(model, settings.rank, settings.alpha, settings.dropout)


def _prefix(model: PreTrainedModel, settings: StrategySettings) -> None:
    _refuse_second(model)
    layers, heads, width = _keys(model)
    shape = (layers, 2, heads, settings.prefix, width)
    _put_in(model, "prefix", list(shape))
    put_prefix(model, NEAR_ZERO * torch.randn(shape))
    model.requires_grad_(False)
    for name, tensor in model.named_parameters():
        if name.rpartition(".")[2] == "prefix":
            tensor.requires_grad_(True)


_START: Final = {
    "full": _full,
    "top": _top,
    "frozen": _frozen,
    "adapter": _adapter,
    "lora": _lora,
    "adalora": _lora,
    "prefix": _prefix,
}


def _mark_head(model: PreTrainedModel) -> None:
    for name in HEAD:
        part = getattr(model, name, None)
        if isinstance(part, nn.Module):
            part.requires_grad_(True)


def _put_in(model: PreTrainedModel, kind: str, sizes: object) -> None:
    """Insert a part and note it in the configuration."""
    if kind != "head":
        _refuse_second(model)
    insert(model, {kind: sizes})
    model.config.strategy = {**(getattr(model.config, "strategy", None) or {}), kind: sizes}


def _refuse_second(model: PreTrainedModel) -> None:
    noted = set(getattr(model.config, "strategy", None) or {}) - {"head"}
    if noted:
        raise InputError(
            f"has an inserted {noted.pop()} already", where="strategy", fix="go on with full, top or frozen"
        )


def _keys(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return layers, heads of keys, and length of a key; for a language model, those of a word that it reads."""
    if not hasattr(model, "backbone"):
        return len(model.blocks), model.config.heads, model.config.dim // model.config.heads
    takes = inspect.signature(model.backbone.forward).parameters
    if not {"past_key_values", "position_ids"} <= takes.keys():
        kind = type(model.backbone).__name__
        raise InputError("its attention takes no prefix", where=kind, fix="take adapter or lora")
    cache, word = DynamicCache(), torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    mode = model.training
    model.eval()
    with torch.no_grad():
        model.backbone(input_ids=word, attention_mask=torch.ones_like(word), past_key_values=cache)
    model.train(mode)
    _, heads, _, width = cache.layers[0].keys.shape
    return len(cache.layers), heads, width
