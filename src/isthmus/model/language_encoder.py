"""Vectors made by a trained language model: of items, as any encoder gives them, and of people."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
import torch

from isthmus.data.sequences import Histories
from isthmus.encode.base import Templated
from isthmus.encode.template import Template
from isthmus.encode.text import BLOCK, Precision, batches, has_bf16, one_core_each
from isthmus.errors import InputError
from isthmus.log import progress
from isthmus.model.language import LanguageModel
from isthmus.model.reading import Reader, Tokens, tokenise
from isthmus.types import Floats, Ints

#: Tokens of one batch, padding included: few enough that a core works in its cache.
BATCH_TOKENS: Final = 1024


class LanguageEncoder(Templated):
    """Reads item texts with a trained :class:`LanguageModel`: an encoder for ``isthmus.encode`` and the item store.

    Parameters
    ----------
    model : LanguageModel
        With its tokeniser. Its weights are read now: train it further and make another encoder.
    template : Template, optional
        What makes up the text of an item.
    precision : {"auto", "float32", "bfloat16"}
        ``auto`` takes bfloat16 where the processor computes in it.

    Raises
    ------
    InputError
        The model has no tokeniser.
    """

    kind = "language"

    def __init__(
        self, model: LanguageModel, *, template: Template | None = None, precision: Precision = "auto"
    ) -> None:
        if model.tokenizer is None:
            raise InputError("the model has no tokeniser", where="language encoder", fix="set model.tokenizer")
        self.model, self.template, self.precision = model, template or Template(), precision

    @cached_property
    def model_fingerprint(self) -> str:
        """Hash of weights, configuration, tokeniser and precision."""
        return weights_fingerprint(self.model, str(_in_bf16(self.model, self.precision)))

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.model.dim

    def encode(self, items: pl.DataFrame) -> Floats:
        """Return (N, D) float32, one row of length 1 an item; zeros for an item without any text."""
        texts = self.texts(items).to_list()
        rows = np.zeros((len(texts), self.dim), np.float32)
        with progress("encode", len(texts)) as advance:
            for places, vectors in self.stream(texts):
                rows[places] = vectors
                advance(places.size)
        return rows

    def stream(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Floats]]:
        """Yield (places in ``texts``, their vectors) batch by batch, longest texts of each block first."""
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            tokens = tokenise(self.model.tokenizer, block, self.model.config.max_tokens_item)
            for places, vectors in read(self.model, tokens, self.precision):
                yield places + start, vectors


def person_vectors(
    model: LanguageModel, reader: Reader, histories: Histories, *, precision: Precision = "auto"
) -> Floats:
    """Return one vector of length 1 a person, (B, D) float32; zeros for an empty history.

    Parameters
    ----------
    model : LanguageModel
        Whose vectors of items they are compared with.
    reader : Reader
        Tells the histories as tokens.
    histories : Histories
        Of B persons.
    precision : {"auto", "float32", "bfloat16"}
        ``auto`` takes bfloat16 where the processor computes in it.
    """
    rows = np.zeros((len(histories), model.dim), np.float32)
    with progress("read people", len(histories)) as advance:
        for places, vectors in read(model, reader.behaviour(histories), precision):
            rows[places] = vectors
            advance(places.size)
    return rows


def read(model: LanguageModel, tokens: Tokens, precision: Precision = "auto") -> Iterator[tuple[Ints, Floats]]:
    """Yield (places, their vectors of length 1) batch by batch, texts of like length together; zeros without tokens."""
    found = list(batches(tokens.lengths, BATCH_TOKENS))
    with _still(model, bf16=_in_bf16(model, precision)) as reader:

        def one(places: Ints) -> Floats:
            ids, mask = (torch.from_numpy(array).to(model.device) for array in tokens.take(places).padded())
            with torch.inference_mode():
                vectors: Floats = reader.embed(ids, mask).cpu().numpy()
            return vectors

        with one_core_each(1 if model.device.type != "cpu" else len(found)) as pool:
            yield from zip(found, map(one, found) if pool is None else pool.map(one, found), strict=True)
    empty = np.flatnonzero(tokens.lengths == 0)
    if empty.size:
        yield empty, np.zeros((empty.size, model.dim), np.float32)


@contextmanager
def _still(model: LanguageModel, *, bf16: bool) -> Iterator[LanguageModel]:
    """Yield the model ready to read, a copy in bfloat16 if asked; the model is afterwards as it was."""
    if bf16:
        yield copy.deepcopy(model).to(torch.bfloat16).eval()
        return
    training = model.training
    try:
        yield model.eval()
    finally:
        model.train(training)


def _in_bf16(model: LanguageModel, precision: Precision) -> bool:
    return has_bf16(model.device.type) if precision == "auto" else precision == "bfloat16"


def weights_fingerprint(model: LanguageModel, *words: str) -> str:
    """Return the hash of what turns a text into a vector: backbone, pooling, longest text, tokeniser, and ``words``."""
    config = model.config
    digest = hashlib.sha256(f"{config.pooling} {config.max_tokens_item} {' '.join(words)}".encode())
    for name, weight in sorted(model.backbone.state_dict().items()):
        digest.update(f"\n{name} {weight.dtype} {tuple(weight.shape)} ".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    tokenizer = model.tokenizer
    if tokenizer is not None:
        said = (
            json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"vocab": tokenizer.get_vocab()}
        )
        kept = {name: part for name, part in said.items() if name not in ("truncation", "padding")}
        digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()[:32]
