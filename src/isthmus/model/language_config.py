"""Configuration of the language carrier, and which objectives fit which backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final, Literal

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from isthmus.errors import InputError, nearest
from isthmus.model.objectives import OBJECTIVES

Pooling = Literal["mean", "last", "cls"]

FORMAT: Final = 1
#: What a part of a batch holds besides labels.
INPUTS: Final = ("objective", "weight", "input_ids", "attention_mask")


class LanguageConfig(PretrainedConfig):  # type: ignore[misc]
    """Backbone and names of a language model.

    Parameters
    ----------
    backbone : PretrainedConfig or dict
        Configuration of the Hugging Face model inside, with its ``model_type``.
    pooling : {"mean", "last", "cls"}, optional
        How token states become one vector; default the last token for decoders, else the mean.
    max_tokens_item, max_tokens_person : int
        Longest texts it reads.
    pair_temperature : float
        Of the contrastive objective.
    objectives : list of str
        Objectives it has heads for.
    labels : dict of str to list of str
        Fields that texts are classified by, with the names of their classes.
    about : dict of str to str or list of str
        Where it comes from: base, licence, data (fingerprints), task. Ends up in the model card.
    strategy : dict
        Parts that a strategy of transfer put in (:mod:`isthmus.model.inserts`).
    """

    model_type = "isthmus-language"

    backbone: PretrainedConfig | None = None
    pooling: str | None = None
    max_tokens_item: int = 64
    max_tokens_person: int = 256
    pair_temperature: float = 0.05
    objectives: list[str] = field(default_factory=lambda: ["contrastive"])
    labels: dict[str, list[str]] = field(default_factory=dict)
    about: dict[str, str | list[str]] = field(default_factory=dict)
    strategy: dict[str, object] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self, **rest: object) -> None:
        """Make the backbone's configuration of a dict, and choose the pooling that fits it."""
        if isinstance(self.backbone, dict):
            self.backbone = AutoConfig.for_model(**self.backbone)
        self.pooling = self.pooling or ("last" if is_decoder(self.backbone) else "mean")
        super().__post_init__(**rest)


def is_decoder(backbone: PretrainedConfig | None) -> bool:
    """Return whether a backbone of this configuration reads from left to right only."""
    kind = getattr(backbone, "model_type", "")
    left_to_right = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return left_to_right or bool(getattr(backbone, "is_decoder", False))


def check_objectives(
    objectives: Sequence[str], labels: Mapping[str, Sequence[str]], backbone: PretrainedConfig
) -> None:
    """Raise an InputError for an objective that is unknown or does not fit the backbone, or a field without classes."""
    for name in objectives:
        if name not in OBJECTIVES:
            hint = nearest(name, list(OBJECTIVES))
            raise InputError(f"no objective '{name}'{hint}", fix=f"objectives are {', '.join(OBJECTIVES)}")
        if name == "mlm" and is_decoder(backbone):
            raise InputError("a decoder cannot learn masked words", where="objective mlm", fix="take clm")
        if name == "clm" and not is_decoder(backbone):
            raise InputError("an encoder sees the words that follow", where="objective clm", fix="take mlm")
        if name == "classify" and not labels:
            raise InputError("nothing to classify by", where="objective classify", fix="name the labels of a field")
    for name, classes in labels.items():
        if not classes or name in INPUTS or "." in name:
            raise InputError(f"labels '{name}' cannot be learned", fix="give names of classes, and a plain field name")
