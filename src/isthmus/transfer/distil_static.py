"""A language model as a table of token vectors: what it says of each token, then fitted to what it says of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy import sparse

from isthmus.encode.base import unit
from isthmus.encode.static import HASHED, StaticEncoder, Tokens, read_tokenizer, write_static
from isthmus.encode.text import TextEncoder
from isthmus.encode.whiten import Whitening
from isthmus.errors import InputError
from isthmus.files import Json, require_free
from isthmus.log import logger
from isthmus.rng import generator
from isthmus.types import Floats

#: How strongly token vectors are held where they begin: what is tried.
PULLS: Final = (0.03, 0.3, 3.0)
#: Steps of the conjugate gradients.
STEPS: Final = 25
#: Share of the texts that choose the pull, and how many at most.
HELD_BACK: Final = 0.1
MOST_HELD_BACK: Final = 1000
#: Fewer texts than this are not fitted to.
FEWEST: Final = 20


@dataclass(frozen=True)
class StaticSettings:
    """How a static encoder is made.

    Parameters
    ----------
    dim : int
        Length of a vector, at most that of the teacher's.
    rare : float
        A token of probability ``p`` counts ``rare / (rare + p)`` (smooth inverse frequency: Arora, Liang and Ma,
        ICLR 2017); ``p`` is counted in the texts.
    tune : bool
        Fit the token vectors to the teacher's vectors of the texts.
    texts : int
        Texts that are fitted to, at most.
    seed : int
        For everything that draws.
    """

    dim: int = 256
    rare: float = 1e-3
    tune: bool = True
    texts: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        if self.dim < 1 or self.texts < 1 or not self.rare > 0:
            raise InputError("dim, texts and rare must be above 0", where="static encoder")


def distil_static(
    texts: Sequence[str], out: str | Path, *, model: str | None = None, settings: StaticSettings | None = None
) -> Json:
    """Write a static encoder made from a language model to folder ``out``; return what became of it.

    Each token of the vocabulary is read by the model on its own, the vectors are cut to the directions in which
    texts vary most and weighted by how rare a token is (Tulkens and van Dongen, Model2Vec, 2024). Then the table is
    fitted to the model's vectors of ``texts``, centred, by ridge regression towards where it began; texts held back
    choose how strongly.

    Parameters
    ----------
    texts : sequence of str
        Texts of the kind that will be read: those of the items. Empty ones are passed over.
    out : str or Path
        Folder.
    model : str, optional
        The language model; the bundled one by default.
    settings : StaticSettings, optional
        How.

    Returns
    -------
    dict
        dim, tokens, texts, and the mean cosine to the teacher on texts held back before and after the fit (None where
        there was none).

    Raises
    ------
    InputError
        The settings are out of range, or ``out`` is taken.
    NotFoundError
        No such language model.
    """
    settings, path = settings or StaticSettings(), Path(out)
    require_free(path)
    teacher = TextEncoder(model)
    tokens = Tokens(read_tokenizer(teacher.folder / "tokenizer.json"))
    chosen = _some(texts, settings)
    counts = tokens.count(chosen)
    tune = settings.tune and len(chosen) >= FEWEST
    read = teacher.encode_texts(chosen) if tune else np.zeros((0, teacher.dim), np.float32)
    table = _table(teacher, tokens, settings, read) * _weights(counts, settings.rare)[:, None]
    said: Json = {"dim": table.shape[1], "tokens": tokens.size - HASHED, "texts": len(chosen)}
    said |= {"cosine_before": None, "cosine": None, "teacher": teacher.model_fingerprint}
    if tune:
        taught = unit(_cut(read, settings.dim).transform(read))
        table, found = _tune(table, counts, taught, settings.seed)
        said |= found
    write_static(path, table, tokens.tokenizer, said)
    StaticEncoder(path)
    return said


def _some(texts: Sequence[str], settings: StaticSettings) -> list[str]:
    """Return the distinct texts that are fitted to."""
    distinct = list(dict.fromkeys(text for text in texts if text))
    order = generator(settings.seed, "static", "texts").permutation(len(distinct))[: settings.texts]
    return [distinct[place] for place in np.sort(order)]


def _table(teacher: TextEncoder, tokens: Tokens, settings: StaticSettings, read: Floats) -> Floats:
    """Return the token vectors (V + HASHED, D), centred, on the directions of the vectors ``read`` if there are any.

    The hashed rows begin at random, with the length that the others have on average.
    """
    size = tokens.size - HASHED
    known = {number: word for word, number in tokens.tokenizer.get_vocab().items()}
    vectors = teacher.encode_texts([_plain(known.get(number, "")) for number in range(size)])
    own = _cut(vectors, settings.dim)
    rows = Whitening(own.mean, _cut(read, settings.dim).directions if len(read) else own.directions).transform(vectors)
    length = float(np.linalg.norm(rows, axis=1).mean()) or 1.0
    drawn = generator(settings.seed, "static", "hashed").normal(size=(HASHED, rows.shape[1]))
    return np.concatenate([rows, (length * unit(drawn.astype(np.float32))).astype(np.float32)])


def _cut(rows: Floats, dim: int) -> Whitening:
    return principal(rows, min(dim, rows.shape[1]))


def _plain(token: str) -> str:
    """Return a token as it stands in a text: without the marks of its place in a word, nothing for special ones."""
    special = len(token) > 2 and (token[0], token[-1]) in (("[", "]"), ("<", ">"))
    return "" if special else token.removeprefix("##").lstrip("▁Ġ")


def principal(rows: Floats, dim: int) -> Whitening:
    """Return the map to the ``dim`` directions in which ``rows`` vary most, centred and not scaled (PCA)."""
    used = rows[np.any(rows != 0, axis=1)].astype(np.float64)
    mean = used.mean(axis=0)
    axes = np.linalg.eigh((used - mean).T @ (used - mean))[1][:, ::-1][:, :dim]
    return Whitening(mean.astype(np.float32), np.ascontiguousarray(axes, dtype=np.float32))


def _weights(counts: sparse.csr_array, rare: float) -> Floats:
    """Return how much each column counts, (V + HASHED,); one never met counts as one met once."""
    met = np.maximum(np.asarray(counts.sum(axis=0)).ravel(), 1.0)
    share = met / max(float(met.sum()), 1.0)
    return np.asarray(rare / (rare + share), dtype=np.float32)


def _tune(table: Floats, counts: sparse.csr_array, taught: Floats, seed: int) -> tuple[Floats, Json]:
    """Return the table fitted to the vectors of the texts, and the mean cosines on texts held back."""
    order = generator(seed, "static", "held back").permutation(len(taught))
    held = min(MOST_HELD_BACK, max(int(HELD_BACK * len(taught)), 1))
    away, rest = np.sort(order[:held]), np.sort(order[held:])
    mean = _mean_rows(counts)
    scale = np.float32(1.0 / max(float(np.linalg.norm(np.asarray(mean[rest] @ table), axis=1).mean()), 1e-6))
    begin = table * scale
    found = {"cosine_before": _cosine(mean[away] @ begin, taught[away])}
    rivals = [(pull, ridge_towards(begin, mean[rest], taught[rest], pull)) for pull in PULLS]
    scored = [(_cosine(mean[away] @ rival, taught[away]), pull, rival) for pull, rival in rivals]
    best = max(scored, key=lambda row: row[0])
    logger.info("static: cosine on texts held back %.4f, after the fit %.4f", found["cosine_before"], best[0])
    if best[0] <= found["cosine_before"]:
        return begin, {**found, "cosine": found["cosine_before"]}
    return best[2], {**found, "cosine": best[0], "pull": best[1]}


def _mean_rows(counts: sparse.csr_array) -> sparse.csr_array:
    """Return each row divided by its sum."""
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    return sparse.csr_array(sparse.diags_array((1.0 / total).astype(np.float32)) @ counts)


def _cosine(mine: Floats, theirs: Floats) -> float:
    return float(np.einsum("nd,nd->n", unit(np.asarray(mine, np.float32)), theirs).mean())


def ridge_towards(begin: Floats, rows: sparse.csr_array, taught: Floats, pull: float) -> Floats:
    """Return the table ``E`` (V, D) with the least ``|rows E - taught|² + pull |E - begin|²``, by conjugate gradients.

    Parameters
    ----------
    begin : float32 array (V, D)
        Where the table is held.
    rows : csr array (N, V)
        How much of each token is in each text.
    taught : float32 array (N, D)
        Vectors of the texts.
    pull : float
        Above 0.
    """
    moved = np.zeros_like(begin)
    rest = np.asarray(rows.T @ (taught - rows @ begin), dtype=np.float32)
    going, size = rest.copy(), np.einsum("vd,vd->d", rest, rest)
    for _ in range(STEPS):
        ahead = np.asarray(rows.T @ (rows @ going), dtype=np.float32) + np.float32(pull) * going
        bent = np.einsum("vd,vd->d", going, ahead)
        step = np.divide(size, bent, out=np.zeros_like(size), where=bent > 1e-12)
        moved += step * going
        rest -= step * ahead
        left = np.einsum("vd,vd->d", rest, rest)
        going = rest + np.divide(left, size, out=np.zeros_like(left), where=size > 1e-12) * going
        size = left
    return begin + moved
