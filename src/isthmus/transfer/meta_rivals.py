"""What adapting a person must beat without learning: the mean of similar people."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.model.base import TrainingData
from isthmus.train.carriers import SequenceCarrier
from isthmus.types import Floats

#: People compared with at a time.
BLOCK = 256


class SimilarPeople:
    """The mean of what the most similar training people met in the target, weighed by the cosine of their states.

    Parameters
    ----------
    method : SequenceCarrier
        Fitted; its first member gives the states.
    data : TrainingData
        The people who may vouch: those with an event of the target.
    neighbours : int
        How many of them do.
    """

    name = "similar people"

    def __init__(self, method: SequenceCarrier, data: TrainingData, *, neighbours: int = 50) -> None:
        inside = np.bincount(data.histories.rows[data.in_target[data.histories.items]], minlength=len(data.histories))
        people = data.histories.take(np.flatnonzero(inside))
        self.method, self.neighbours = method, min(neighbours, len(people))
        met = people.matrix(data.n_items)[:, data.target]
        self.met = sparse.csr_array((np.ones(met.nnz, np.float32), met.indices, met.indptr), shape=met.shape)
        self.states = self._states(people)

    def score(self, histories: Histories) -> Floats:
        """Return the scores, (B, T) float32; zeros without any event."""
        found = np.zeros((len(histories), self.met.shape[1]), np.float32)
        for start in range(0, len(histories), BLOCK):
            near = self._states(histories.take(np.arange(start, min(start + BLOCK, len(histories))))) @ self.states.T
            if self.neighbours < near.shape[1]:
                edge = -np.partition(-near, self.neighbours - 1, axis=1)[:, self.neighbours - 1 : self.neighbours]
                near = np.where(near >= edge, near, 0)
            voices = sparse.csr_array(np.maximum(near, 0))
            found[start : start + BLOCK] = (voices @ self.met).toarray() / max(self.neighbours, 1)
        found[histories.lengths == 0] = 0.0
        return found

    def _states(self, histories: Histories) -> Floats:
        """Return the states of people, of length 1, (B, d)."""
        model, table, dated = self.method.models[0], self.method.tables[0], self.method.has_dates
        parts = [
            model.states(table, histories.take(np.arange(start, min(start + BLOCK, len(histories)))), dated=dated)
            for start in range(0, len(histories), BLOCK)
        ]
        states = np.concatenate([np.zeros((0, table.shape[1]), np.float32), *parts])
        unit: Floats = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-9)
        return unit
