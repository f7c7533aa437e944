"""The student of item-to-item weights, while it learns: a fixed number of weights a row, fitted by gradient."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from isthmus.model.student import ListStudent
from isthmus.transfer.distil_steps import Adam, Pupil
from isthmus.types import Floats, Indices, Ints

_BLOCK = 256


class ListPupil(Pupil):
    """Learns the weights of a :class:`~isthmus.model.student.ListStudent`.

    It begins with what each item says alone, and then fits these weights and the bias to what is said of people.
    """

    student: ListStudent

    def begin(self, kept: int) -> None:
        """Start with the ``kept`` largest additions of each item."""
        lessons = self.lessons
        width = min(kept, lessons.target.size)
        self.columns, values = _largest(lessons.added, width)
        student = ListStudent({"kept": kept})
        student.target, student.n_items = lessons.target, lessons.n_items
        student.bias = lessons.bias.copy()
        indptr = np.arange(0, lessons.n_items * width + 1, width, dtype=np.int32)
        shape = (lessons.n_items, lessons.target.size)
        student.weights = sparse.csr_array((values.ravel(), self.columns.ravel(), indptr), shape=shape)
        self.student = student
        own = student.weights.data.reshape(values.shape)  # a view: what is learned is what is served
        self.steps = (Adam(own, self.learning_rate), Adam(student.bias, self.learning_rate))

    def _batch(self, some: Ints) -> float:
        histories = self.lessons.histories.take(some)
        profile, kinds = self.student.read(histories), self.student.cohorts(histories)
        scores = (profile @ self.student.weights).toarray() + self.student.bias[kinds]
        loss, slope = self._slope(some, scores)
        entries = sparse.coo_array(profile)
        items, place = np.unique(entries.col, return_inverse=True)
        spread = entries.data[:, None] * slope[entries.row[:, None], self.columns[entries.col]]
        gather = sparse.csr_array((np.ones(place.size, np.float32), (place, np.arange(place.size))))
        self.steps[0].step(items.astype(np.int64), np.asarray(gather @ spread, dtype=np.float32))
        self._step_bias(kinds, slope)
        return loss

    def finished(self) -> ListStudent:
        """Return the student, without weights of 0."""
        self.student.weights = self.student.weights.copy()
        self.student.weights.eliminate_zeros()
        return self.student


def _largest(added: sparse.csr_array, width: int) -> tuple[Indices, Floats]:
    """Return the columns, rising, and values of the ``width`` largest entries of each row, (N, width) each.

    A row with fewer is filled with columns that it lacks, at 0: each column comes once.
    """
    columns = np.zeros((added.shape[0], width), np.int32)
    values = np.zeros((added.shape[0], width), np.float32)
    for start in range(0, added.shape[0], _BLOCK):
        block = added[start : start + _BLOCK].toarray()
        best = np.sort(np.argpartition(-block, width - 1, axis=1)[:, :width], axis=1)
        columns[start : start + _BLOCK] = best
        values[start : start + _BLOCK] = np.take_along_axis(block, best, axis=1)
    return columns, values
