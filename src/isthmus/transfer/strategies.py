"""The switch between strategies of transfer, for both carriers; see :mod:`isthmus.model.strategies`.

It is made on the floor of models, so that training can use it; here it has its name, its row in a table, and a model
built anew from what was noted.
"""

from __future__ import annotations

import torch
from transformers import PretrainedConfig, PreTrainedModel

from isthmus.errors import ArtefactError
from isthmus.model.language import LanguageModel
from isthmus.model.lora import merge
from isthmus.model.sequence import SequenceModel
from isthmus.model.strategies import STRATEGIES, Prepared, StrategySettings, plain, prepare
from isthmus.train.settings import LoopLog

__all__ = ["STRATEGIES", "Prepared", "StrategySettings", "carrier", "merge", "plain", "prepare", "rebuild", "trained"]


def trained(prepared: Prepared, log: LoopLog) -> dict[str, str | int | float]:
    """Return a row of the table of strategies.

    Keys: target, strategy, trainable (parameters), total (parameters), share, seconds, peak_memory (bytes).

    Examples
    --------
    >>> log = LoopLog(10, 2.5, (10,), (0.5,), (), 0.0, 10, 30, 1 << 20)
    >>> trained(Prepared(StrategySettings("frozen"), "Food", 30, 120), log)["share"]
    0.25
    """
    return {
        "target": prepared.name,
        "strategy": prepared.settings.strategy,
        "trainable": prepared.trainable,
        "total": prepared.total,
        "share": prepared.share,
        "seconds": log.seconds,
        "peak_memory": log.peak_memory,
    }


def carrier(model_type: str) -> type[PreTrainedModel]:
    """Return the class of a carrier by the ``model_type`` of its configuration.

    Raises
    ------
    ArtefactError
        No such carrier.
    """
    for kind in (SequenceModel, LanguageModel):
        if kind.config_class.model_type == model_type:
            return kind
    raise ArtefactError(f"holds a model of type '{model_type}', which is no carrier", fix="name a carrier's folder")


def rebuild(config: PretrainedConfig, settings: StrategySettings | None = None) -> PreTrainedModel:
    """Return a model with all that was put in, for weights to be loaded into.

    Bottlenecks, prefixes and the head come from ``config.strategy``; low-rank updates from ``settings``.
    """
    with torch.random.fork_rng():
        model: PreTrainedModel = carrier(config.model_type)(config)
    if settings is not None and settings.strategy in ("lora", "adalora"):
        prepare(model, settings)
    return model.eval()
