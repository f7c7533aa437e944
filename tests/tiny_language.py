"""Tiny language models with random weights, and texts to read: what the tests of the language carrier share."""

from __future__ import annotations

from functools import cache
from tempfile import mkdtemp

import numpy as np
import polars as pl
import torch
from transformers import BertConfig, GPT2Config, LlamaConfig, PretrainedConfig

from isthmus.encode.weights import locate
from isthmus.model.language import LanguageModel
from isthmus.model.language_config import LanguageConfig
from isthmus.model.language_files import load_tokenizer
from isthmus.model.reading import Tokens, tokenise

WORDS = 30_522
SIZES = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
ENDS = {"bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(
        vocab_size=WORDS,
        **SIZES,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ),
    "gpt2": GPT2Config(vocab_size=WORDS, n_embd=16, n_layer=3, n_head=2, n_positions=128, resid_pdrop=0.0, **ENDS),
    "llama": LlamaConfig(vocab_size=WORDS, **SIZES, num_key_value_heads=1, max_position_embeddings=128, **ENDS),
}
ITEMS = pl.DataFrame(
    {
        "platform": ["shop", "books", "shop"],
        "item": ["1", "2", "3"],
        "domain": ["food", "books", "tools"],
        "title": ["Green tea", "A diver's year", "Steel hammer, 500 g"],
    }
)
TEXTS = ["green tea", "a steel hammer with a long and heavy handle", "x", "reef and wreck: two dives"]


def tiny(kind: str, **options: object) -> LanguageModel:
    torch.manual_seed(0)
    objectives = ["contrastive", "mlm" if kind == "bert" else "clm"]
    config = LanguageConfig(backbone=CONFIGS[kind].to_dict(), objectives=objectives, **options)
    model = LanguageModel(config)
    model.tokenizer = load_tokenizer(locate(None))
    return model.eval()


@cache
def folder(kind: str = "bert") -> str:
    """Return the folder of a tiny model with random weights."""
    path = mkdtemp()
    model = tiny(kind)
    model.config.objectives = ["contrastive"]
    model.words.clear()
    model.save_pretrained(path)
    return path


@cache
def some_tokens() -> Tokens:
    return tokenise(load_tokenizer(locate(None)), TEXTS, 64)


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = some_tokens().padded()
    if side == "left":
        for row, n in enumerate(mask.sum(1)):
            ids[row], mask[row] = np.roll(ids[row], -n), np.roll(mask[row], -n)
    return torch.from_numpy(ids), torch.from_numpy(mask)
