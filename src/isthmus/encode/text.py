"""Text encoder: any sentence-transformers or Hugging Face model, fast on a CPU, one vector a text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from isthmus.config import Settings
from isthmus.encode.base import Templated
from isthmus.encode.template import Template
from isthmus.encode.weights import folder_fingerprint, is_causal, locate, modules
from isthmus.errors import ArtefactError, NotFoundError
from isthmus.log import progress
from isthmus.types import Floats, Ints

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

Precision = Literal["auto", "float32", "bfloat16"]
Pooling = Literal["auto", "mean", "last", "cls"]

#: Texts tokenised and sorted by length together: bounds memory, and leaves little padding.
BLOCK: Final = 65_536
#: More threads than this wait for the interpreter rather than for the cores.
MOST_WORKERS: Final = 16
_POOLING: Final = {"mean": "mean", "last": "lasttoken", "cls": "cls"}


class TextSettings(Settings):
    """How texts are read.

    Parameters
    ----------
    max_tokens : int, optional
        Longest text in tokens, at most what the model was made for (the default).
    batch_tokens : int
        Tokens of one batch, padding included: few enough that a core works in its cache.
    precision : {"auto", "float32", "bfloat16"}
        Of weights and sums inside the model; ``auto`` takes bfloat16 where the processor computes in it.
    pooling : {"auto", "mean", "last", "cls"}
        How token vectors become one; ``auto`` does what the model's folder says, else the mean, and the last token
        for decoders.
    device : {"auto", "cpu", "cuda"}
        Where to compute; ``auto`` takes a GPU if there is one.
    """

    max_tokens: int | None = None
    batch_tokens: int = 1024
    precision: Precision = "auto"
    pooling: Pooling = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class TextEncoder(Templated):
    """Reads item texts with a pre-trained language model.

    Texts are tokenised in one go, sorted by length and read in batches of about equal work; a text that comes twice
    is read once. Each vector depends on its own text only, and has length 1 unless the model's folder says otherwise.

    Parameters
    ----------
    model : str, optional
        Folder, or name on the Hugging Face hub; default the bundled all-MiniLM-L6-v2 (English, 384 dimensions).
        Only safetensors are read, and no code from the folder is run.
    settings : TextSettings
        How texts are read.
    template : Template
        What makes up the text of an item.

    Raises
    ------
    NotFoundError
        No such model.
    ArtefactError
        The model's folder is damaged or unsafe.

    Examples
    --------
    >>> encoder = TextEncoder(settings=TextSettings(precision="float32"))
    >>> vectors = encoder.encode_texts(["a cup of tea", "green tea", "a steel hammer"])
    >>> vectors.shape, bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    ((3, 384), True)
    """

    kind = "text"

    def __init__(
        self, model: str | None = None, *, settings: TextSettings | None = None, template: Template | None = None
    ) -> None:
        self.folder: Path = locate(model)
        self.settings = settings or TextSettings()
        self.template = template or Template()

    @cached_property
    def model_fingerprint(self) -> str:
        """Hash of weights, tokeniser, pooling and precision."""
        said = f"{self.settings.max_tokens} {self._bf16} {self.settings.pooling}"
        return hashlib.sha256(f"{folder_fingerprint(self.folder)} {said}".encode()).hexdigest()[:32]

    @cached_property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    def encode(self, items: pl.DataFrame) -> Floats:
        """Return (N, D) float32, one row an item; zeros for an item without any text."""
        return self.encode_texts(self.texts(items).to_list())

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return (len(texts), D) float32; zeros for an empty text."""
        distinct, places = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
        rows = np.zeros((distinct.size, self.dim), dtype=np.float32)
        with progress("encode", distinct.size) as advance:
            for found, vectors in self.stream(distinct.tolist()):
                rows[found] = vectors
                advance(found.size)
        return rows[places]

    def stream(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Floats]]:
        """Yield (places in ``texts``, their vectors) batch by batch, longest texts of each block first."""
        for start in range(0, len(texts), BLOCK):
            block = list(texts[start : start + BLOCK])
            tokens = self._tokens(block)
            lengths = np.array([len(row) for row in tokens], dtype=np.int64)
            lengths[[not text for text in block]] = 0
            found = list(batches(lengths, self.settings.batch_tokens))
            work = ([tokens[place] for place in places.tolist()] for places in found)
            for places, vectors in zip(found, self._forward_all(work, len(found)), strict=True):
                yield places + start, vectors
            empty = np.flatnonzero(lengths == 0)
            if empty.size:
                yield empty + start, np.zeros((empty.size, self.dim), dtype=np.float32)

    @cached_property
    def _device(self) -> str:
        import torch

        if self.settings.device != "auto":
            return self.settings.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def _bf16(self) -> bool:
        if self.settings.precision != "auto":
            return self.settings.precision == "bfloat16"
        return has_bf16(self._device)

    @cached_property
    def _model(self) -> SentenceTransformer:
        return load(self.folder, bf16=self._bf16, device=self._device, pooling=self.settings.pooling)

    @cached_property
    def max_tokens(self) -> int:
        """Longest text in tokens: the smaller of the setting and of what the model was made for."""
        limits = [self._model.max_seq_length, getattr(self._model[0].model.config, "max_position_embeddings", None)]
        if self.settings.max_tokens is not None:
            limits.append(self.settings.max_tokens)
        return min([int(limit) for limit in limits if limit], default=512)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, cut to ``max_tokens``, with the special tokens of the model."""
        prompt = self._model.prompts.get(self._model.default_prompt_name or "", "")
        rows: list[list[int]] = self._model.tokenizer(
            [prompt + text for text in texts] if prompt else texts,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return rows

    def _forward_all(self, work: Iterable[list[list[int]]], n: int) -> Iterator[Floats]:
        """Yield the vectors of ``n`` batches in order, several at a time on a CPU: one core reads one batch."""
        with one_core_each(1 if self._device != "cpu" else n) as pool:
            yield from map(self._forward, work) if pool is None else pool.map(self._forward, work)

    def _forward(self, tokens: list[list[int]]) -> Floats:
        """Return (len(tokens), D) float32: the model, then its own pooling and further modules in float32."""
        import torch

        features = _padded(tokens, self._device)
        with torch.inference_mode():
            features = self._model[0](features)
            features["token_embeddings"] = features["token_embeddings"].float()
            for module in list(self._model)[1:]:
                features = module(features)
        vectors: Floats = features["sentence_embedding"].float().cpu().numpy()
        return vectors


def batches(lengths: Ints, batch_tokens: int) -> Iterator[Ints]:
    """Yield the places of texts in batches of about equal work, longest first; texts of length 0 are passed over.

    A batch holds as many texts as fit ``batch_tokens`` when padded to its longest, and at least one.

    Examples
    --------
    >>> [batch.tolist() for batch in batches(np.array([3, 9, 0, 4, 2]), 9)]
    [[1], [3, 0], [4]]
    """
    order = np.argsort(-lengths, kind="stable")
    order = order[: int(np.count_nonzero(lengths))]
    start = 0
    while start < order.size:
        stop = start + max(1, batch_tokens // int(lengths[order[start]]))
        yield order[start:stop]
        start = stop


@contextmanager
def one_core_each(n: int) -> Iterator[ThreadPoolExecutor | None]:
    """Yield threads for ``n`` pieces of work in which torch uses one core each; None if one thread serves as well.

    Cores that share one small batch spend much of their time waiting for each other; with a batch each they do not.
    The caller's own number of threads stays as it is, and what is waiting when the caller stops is dropped.
    """
    import torch

    cores = torch.get_num_threads()
    workers = min(cores, n, MOST_WORKERS)
    if workers < 2:
        yield None
        return
    ready = Barrier(workers + 1)
    pool = ThreadPoolExecutor(workers, initializer=_use_one_core)
    try:
        for _ in range(workers):
            pool.submit(ready.wait)
        ready.wait()
        torch.set_num_threads(cores)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _use_one_core() -> None:
    import torch

    torch.get_num_threads()  # a thread's first call takes over the process's number, so it must come before ours
    torch.set_num_threads(1)


def _padded(tokens: list[list[int]], device: str) -> dict[str, torch.Tensor]:
    """Return ids and mask, (B, longest), padded on the right; a pad is never read, so any id will do."""
    import torch

    lengths = np.array([len(row) for row in tokens])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, dtype=np.int64)
    ids[mask] = np.concatenate(tokens)
    return {
        "input_ids": torch.from_numpy(ids).to(device),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)).to(device),
    }


def has_bf16(device: str) -> bool:
    """Return whether ``device`` multiplies bfloat16 in hardware (x86: AMX or AVX512-BF16; a GPU: since Ampere)."""
    import torch

    if device != "cpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    find = getattr(torch.cpu, "get_capabilities", dict)
    can: dict[str, object] = find()
    return any(bool(can.get(name)) for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16"))


def load(folder: Path, *, bf16: bool, device: str, pooling: Pooling) -> SentenceTransformer:
    """Return the model in ``folder`` ready to read: no dropout, fused attention, nothing fetched, no code run.

    Raises
    ------
    ArtefactError
        The files are damaged, or are no text model.
    """
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise NotFoundError(
            "text models are not installed", where="encode", fix="pip install 'isthmus[text]'"
        ) from error
    options = {"dtype": torch.bfloat16 if bf16 else torch.float32, "use_safetensors": True}
    with quiet():
        try:
            if modules(folder) and pooling == "auto":
                model = SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=options)
            else:
                model = _plain(folder, pooling, device, options)
        except Exception as error:  # a damaged file surfaces as an error of any of four libraries
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ArtefactError(f"cannot be loaded as a text model: {reason}", where=folder) from error
    model.eval()
    for module in list(model)[1:]:
        module.float()
    return model


def _plain(folder: Path, pooling: Pooling, device: str, options: dict[str, object]) -> SentenceTransformer:
    """Return a model whose folder says nothing about pooling, or whose pooling the caller overrides."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    body = parts.Transformer(str(folder), model_kwargs={**options, "local_files_only": True})
    chosen = pooling if pooling != "auto" else "last" if is_causal(folder) else "mean"
    pool = parts.Pooling(body.get_embedding_dimension(), _POOLING[chosen])
    return SentenceTransformer(modules=[body, pool, parts.Normalize()], device=device)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own bars and notes off the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
