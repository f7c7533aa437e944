"""A language model of few words and random weights as a folder that any text encoder reads, and texts for it."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from tempfile import mkdtemp

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as parts
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
COLOURS = ("green", "black", "white", "red", "rare", "old", "茶")
THINGS = ("tea", "cup", "hammer", "saw", "book", "song", "film", "##s")
TEXTS = [
    *(f"{one} {two}" for one, two in product(COLOURS, THINGS[:7])),
    *(f"a {one} {two}s {three}" for one, two, three in product(COLOURS[:4], THINGS[:6], THINGS[:6])),
    *(f"{one} 绿{two}叶" for one, two in product(COLOURS[:4], THINGS[:3])),
]


@cache
def reader() -> str:
    """Return a folder of sentence-transformers: BERT with 4 layers, 16 dimensions."""
    torch.manual_seed(0)
    words = (*SPECIAL, *COLOURS, *THINGS, "a", ".", ",")
    tokens = Tokenizer(WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokens.normalizer, tokens.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokens.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    plain = Path(mkdtemp())
    BertModel(config).save_pretrained(plain)
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokens, model_max_length=64, **special).save_pretrained(plain)
    body = parts.Transformer(str(plain))
    folder = mkdtemp()
    whole = SentenceTransformer(modules=[body, parts.Pooling(16, "mean"), parts.Normalize()], device="cpu")
    whole.save_pretrained(folder, create_model_card=False)
    return folder
