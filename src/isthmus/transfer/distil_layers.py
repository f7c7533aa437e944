"""A language model with fewer layers: every other layer is kept, and learns to give the vectors of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from isthmus.encode.text import TextEncoder, TextSettings, load, quiet
from isthmus.errors import InputError
from isthmus.files import Json, new_folder, require_free, sha256, write_json
from isthmus.log import progress
from isthmus.rng import generator
from isthmus.types import Floats

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

#: Where models keep their layers.
STACKS: Final = ("encoder.layer", "transformer.layer", "layers", "h", "model.layers", "transformer.h")
HELD_BACK: Final = 0.1


@dataclass(frozen=True)
class LayerSettings:
    """How a model with fewer layers is taught.

    Parameters
    ----------
    layers : int, optional
        Layers that are kept, spread evenly and the last among them; half by default.
    epochs : float
        Times that all texts are gone through; 0 only takes layers away.
    learning_rate : float
        Of AdamW, at its highest.
    max_tokens : int
        Texts are cut there while it learns.
    texts : int
        Texts it learns from, at most.
    seed : int
        For everything that draws.
    """

    layers: int | None = None
    epochs: float = 1.0
    learning_rate: float = 2e-4
    max_tokens: int = 64
    texts: int = 4000
    seed: int = 0


def distil_layers(
    texts: Sequence[str], out: str | Path, *, model: str | None = None, settings: LayerSettings | None = None
) -> Json:
    """Write a language model with fewer layers to folder ``out``; return what became of it.

    The student begins with some of the teacher's layers (Sanh et al., DistilBERT, 2019) and learns to give the
    teacher's vectors of ``texts``: 1 - cosine (Reimers and Gurevych, EMNLP 2020). The folder is one of
    sentence-transformers: ``--model OUT`` reads with it everywhere.

    Returns
    -------
    dict
        layers, of, texts, parameters, and the mean cosine to the teacher on texts held back before and after.

    Raises
    ------
    InputError
        Too few texts, no such number of layers, or ``out`` is taken.
    NotFoundError
        No such language model.
    """
    settings, path = settings or LayerSettings(), Path(out)
    require_free(path)
    distinct = list(dict.fromkeys(text for text in texts if text))
    order = generator(settings.seed, "layers", "texts").permutation(len(distinct))[: settings.texts]
    chosen = [distinct[place] for place in order]
    if len(chosen) < 2:
        raise InputError(
            "fewer than two texts to learn from", where="distil", fix="give a split whose items have texts"
        )
    teacher = TextEncoder(model, settings=TextSettings(precision="float32", max_tokens=settings.max_tokens))
    student = load(teacher.folder, bf16=False, device="cpu", pooling="auto")
    kept, of = _cut(student, settings.layers)
    taught = teacher.encode_texts(chosen)
    held = max(1, int(HELD_BACK * len(chosen)))
    before = _cosine(student, teacher, chosen[:held], taught[:held])
    _teach(student, (chosen[held:], taught[held:]), settings)
    after = _cosine(student, teacher, chosen[:held], taught[:held])
    said: Json = {"layers": kept, "of": of, "texts": len(chosen), "cosine_before": before, "cosine": after}
    said["parameters"] = sum(weight.numel() for weight in student.parameters())
    _write(student, path, said)
    return said


def _stack(student: SentenceTransformer) -> tuple[torch.nn.Module, str]:
    """Return the module that holds the list of layers, and the list's name there."""
    body = student[0].model
    for name in STACKS:
        *path, last = name.split(".")
        holder = body
        for part in path:
            holder = getattr(holder, part, None)
        if hasattr(holder, last):
            return holder, last
    raise InputError("the model keeps its layers where none are known", where=type(body).__name__)


def _cut(student: SentenceTransformer, wanted: int | None) -> tuple[int, int]:
    """Take layers away; return how many are left, and how many there were."""
    import torch

    holder, name = _stack(student)
    layers = list(getattr(holder, name))
    of = len(layers)
    kept = max(1, of // 2) if wanted is None else wanted
    if not 1 <= kept <= of:
        raise InputError(f"{kept} layers of a model that has {of}", where="--layers", fix=f"take 1 to {of}")
    chosen = [of - 1 - turn * of // kept for turn in reversed(range(kept))]
    setattr(holder, name, torch.nn.ModuleList([layers[place] for place in chosen]))
    config = student[0].model.config
    for key in ("num_hidden_layers", "n_layers", "n_layer"):
        if key in config.to_dict():
            setattr(config, key, kept)
    return kept, of


def _vectors(student: SentenceTransformer, texts: Sequence[str], max_tokens: int) -> torch.Tensor:
    features = student.tokenizer(list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    found = dict(features)
    for module in student:
        found = module(found)
    vectors: torch.Tensor = found["sentence_embedding"]
    return vectors


def _cosine(student: SentenceTransformer, teacher: TextEncoder, texts: Sequence[str], taught: Floats) -> float:
    import torch

    student.eval()
    limit = teacher.settings.max_tokens or 64
    with torch.inference_mode():
        parts = [_vectors(student, texts[start : start + 32], limit) for start in range(0, len(texts), 32)]
        mine = torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()
    return float(np.einsum("nd,nd->n", mine, taught / np.maximum(np.linalg.norm(taught, axis=1)[:, None], 1e-9)).mean())


def _teach(student: SentenceTransformer, lessons: tuple[Sequence[str], Floats], settings: LayerSettings) -> None:
    import torch

    texts, taught = lessons
    steps = int(np.ceil(settings.epochs * len(texts) / 32))
    if steps == 0:
        return
    student.eval()  # without dropout: the vectors are to be met exactly
    made = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    plan = torch.optim.lr_scheduler.OneCycleLR(made, settings.learning_rate, total_steps=steps + 1, pct_start=0.1)
    rng = generator(settings.seed, "layers", "order")
    order = np.concatenate([_by_length(texts, rng) for _ in range(int(np.ceil(settings.epochs)))])
    with progress("teach", steps) as advance:
        for step in range(steps):
            some = order[32 * step : 32 * step + 32]
            mine = _vectors(student, [texts[place] for place in some], settings.max_tokens)
            loss = 1 - torch.nn.functional.cosine_similarity(mine, torch.from_numpy(taught[some])).mean()
            made.zero_grad()
            loss.backward()
            made.step()
            plan.step()
            advance(1)


def _by_length(texts: Sequence[str], rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return all places once, texts of like length together, batches of 32 in random order."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64) + 1
    order = np.argsort(lengths + rng.random(lengths.size), kind="stable")
    parts = [order[start : start + 32] for start in range(0, order.size, 32)]
    return np.concatenate([parts[place] for place in rng.permutation(len(parts))])


def _write(student: SentenceTransformer, path: Path, said: Json) -> None:
    with new_folder(path) as folder:
        with quiet():
            student.save_pretrained(str(folder), safe_serialization=True, create_model_card=False)
        files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
        write_json(folder / "isthmus.json", {**said, "format": 1, "encoder": "layers", "files": files})
