"""The two-vector student, while it learns: it begins with the teacher's principal directions."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from isthmus.encode.base import unit
from isthmus.model.student import VectorStudent
from isthmus.rng import generator
from isthmus.transfer.distil_steps import Adam, Pupil
from isthmus.types import Floats, Ints


class VectorPupil(Pupil):
    """Learns the vectors of a :class:`~isthmus.model.student.VectorStudent`.

    The items' additions, each item alone, are cut to their ``dim`` strongest directions (truncated singular values);
    the vectors of both sides start there, and learn from what is said of people.
    """

    student: VectorStudent

    def begin(self, dim: int, seed: int = 0) -> None:
        """Start with the ``dim`` strongest directions of the items' additions."""
        lessons = self.lessons
        student = VectorStudent({"dim": dim})
        student.target, student.n_items = lessons.target, lessons.n_items
        student.bias = lessons.bias.copy()
        student.given, student.listed = directions(lessons.added, dim, generator(seed, "distil", "directions"))
        self.axes = unit(student.listed.T).T
        self.student = student
        arrays = (student.given, student.listed, student.bias)
        self.steps = tuple(Adam(array, self.learning_rate) for array in arrays)

    def _batch(self, some: Ints) -> float:
        student, histories = self.student, self.lessons.histories.take(some)
        profile, kinds = student.read(histories), student.cohorts(histories)
        persons = np.asarray(profile @ student.given, dtype=np.float32)
        loss, slope = self._slope(some, persons @ student.listed.T + student.bias[kinds])
        back = slope @ student.listed
        if weight := self.objectives.get("vector", 0.0):
            more, pull = cosine_gradient(persons, self._taught(some, kinds))
            loss, back = loss + weight * more, back + np.float32(weight) * pull
        items = np.unique(profile.indices).astype(np.int64)
        self.steps[0].step(items, np.asarray(profile[:, items].T @ back, dtype=np.float32))
        self.steps[1].step(np.arange(len(student.listed)), np.asarray(slope.T @ persons, dtype=np.float32))
        self._step_bias(kinds, slope)
        return loss

    def _taught(self, some: Ints, kinds: Ints) -> Floats:
        """Return the teacher's best scores beyond the bias, on the principal directions, (B, D)."""
        lessons = self.lessons
        columns = lessons.columns[some, : lessons.top]
        above = lessons.scores[some, : lessons.top] - lessons.bias[kinds[:, None], columns]
        above = np.where(np.isfinite(above), np.maximum(above, 0.0), 0.0)
        rows = np.repeat(np.arange(some.size), lessons.top)
        sparse_rows = sparse.csr_array((above.ravel(), (rows, columns.ravel())), shape=(some.size, lessons.target.size))
        return np.asarray(sparse_rows @ self.axes, dtype=np.float32)


def directions(added: sparse.csr_array, dim: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return (N, dim) and (T, dim) whose product is near ``added`` (N, T): its largest singular values, halved.

    By random projection with two power iterations (Halko, Martinsson and Tropp, SIAM Review 2011, algorithm 4.4);
    columns of zeros where the matrix has fewer directions.
    """
    rank = min(dim, *added.shape)
    start = rng.normal(size=(added.shape[1], min(rank + 8, min(added.shape)))).astype(np.float32)
    base = np.linalg.qr(np.asarray(added @ start))[0]
    for _ in range(2):
        base = np.linalg.qr(np.asarray(added.T @ base))[0]
        base = np.linalg.qr(np.asarray(added @ base))[0]
    left, strength, right = np.linalg.svd(np.asarray(added.T @ base).T, full_matrices=False)
    half = np.sqrt(strength[:rank])
    pad = [(0, 0), (0, dim - rank)]
    given, listed = (base @ left[:, :rank]) * half, right[:rank].T * half
    return np.pad(given, pad).astype(np.float32), np.pad(listed, pad).astype(np.float32)


def cosine_gradient(mine: Floats, theirs: Floats) -> tuple[float, Floats]:
    """Return the mean of ``1 - cosine`` of the rows, and its gradient by ``mine`` (B, D); rows of zeros say nothing."""
    length = np.linalg.norm(mine, axis=1, keepdims=True)
    said = (length > 0) & (np.linalg.norm(theirs, axis=1, keepdims=True) > 0)
    here, there = unit(mine), unit(theirs)
    cosine = np.einsum("bd,bd->b", here, there)[:, None]
    slope = np.divide(cosine * here - there, length, out=np.zeros_like(mine), where=said) / len(mine)
    return float(np.where(said, 1.0 - cosine, 0.0).sum() / max(len(mine), 1)), slope.astype(np.float32)
