"""The method that reads a knowledge graph: items tied to the entities that the items of the history are tied to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, cast

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories
from isthmus.encode.graph import Neighbours
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Doubles, Features, Method, Settings, State, TrainingData
from isthmus.rng import generator
from isthmus.types import Floats, Indices, Ints

#: Persons who teach the weights of the relations, and items that each one's last item is compared with.
TEACHERS: Final = 1000
RIVALS: Final = 50
#: Fewer teachers than this leave all relations alike.
ENOUGH: Final = 30
#: How firmly all relations are held to weigh alike.
PRIOR: Final = 5.0


class GraphContent(Method):
    """Entities shared with the history, rare ones most, summed with decay; an item does not speak for itself.

    An item is a row of entities, each weighted by its ``idf`` and by the weight of the relation that ties it to the
    item; rows are divided by their length to the power ``norm`` (1: cosine). With ``learned`` the weights of the
    relations come from training: they tell each person's last item from others as well as may be, and a relation that
    tells nothing ends at 0. Validation decides whether they are used.
    """

    name = "graph"
    defaults: ClassVar[Settings] = {"decay": 0.9, "sources": True, "learned": True, "norm": 1.0}
    grid: ClassVar = {
        "sources": (True, False),
        "learned": (True, False),
        "norm": (1.0, 0.5, 0.0),
        "decay": (0.9, 0.7, 1.0),
    }
    reading = ("decay", "sources")
    inductive = True

    def _fit(self, data: TrainingData, seed: int) -> None:
        ties = data.features.graph
        if ties is None:
            raise InputError("the method graph needs edges and links", fix="name sources of kind edges and links")
        self.idf = ties.idf()
        self.weights = np.ones(len(ties.relations), np.float32)
        if self.settings["learned"]:
            lesson = _Lesson.of(data, seed)
            if lesson is not None:
                self.weights = lesson.weigh(ties, self.idf, self.number("norm"))
        self._take(ties)

    def _take(self, ties: Neighbours) -> None:
        """Keep the items' rows of entities, those of the targets by entity, and how like itself each item is."""
        self.rows, _ = _rows(ties, self.weights, self.idf, self.number("norm"))
        self.by_entity = sparse.csr_array(self.rows[self.target].T)
        self.own = np.asarray(self.rows.multiply(self.rows).sum(axis=1), dtype=np.float32).ravel()

    def score(self, histories: Histories) -> Floats:
        """Return what each target item shares with the history, (B, T)."""
        profile = self.profile(histories)
        scores = np.asarray(((profile @ self.rows) @ self.by_entity).toarray(), dtype=np.float32)
        alone = cast("sparse.csr_array", profile[:, self.target]).tocoo()
        scores[alone.row, alone.col] -= alone.data * self.own[self.target[alone.col]]
        return scores

    def state(self) -> State:
        """Return the weights of relations and entities."""
        return {"weights": self.weights, "idf": self.idf}

    def restore(self, state: State, features: Features) -> None:
        """Take back the weights and apply them to the graph."""
        if features.graph is None or features.graph.n_entities != state["idf"].size:
            raise ArtefactError("the model lacks its graph")
        self.weights, self.idf = state["weights"].astype(np.float32), state["idf"].astype(np.float32)
        self._take(features.graph)

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Take the ties of old and new items, weighted as before."""
        self.restore(self.state(), features)


def _rows(ties: Neighbours, weights: Floats, idf: Floats, norm: float) -> tuple[sparse.csr_array, Floats]:
    """Return the weighted rows of entities, (N, E), and what each was multiplied with, (N,): length to ``-norm``."""
    rows = ties.matrix(weights)
    rows.data *= idf[rows.indices]
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float32).ravel())
    scale = (np.where(length > 0, length, 1.0) ** -norm).astype(np.float32)
    rows.data *= np.repeat(scale, np.diff(rows.indptr))
    return rows, scale


@dataclass(frozen=True)
class _Lesson:
    """What persons had, and what each took last, among what they might have taken.

    Parameters
    ----------
    profile : csr array (B, N)
        What each of ``B`` persons had before.
    choices : int64 array (B, 1 + RIVALS)
        Items; the first is what the person took, the others were drawn by their popularity, so that the weights tell
        of taste and not of fame.
    """

    profile: sparse.csr_array
    choices: Ints

    @classmethod
    def of(cls, data: TrainingData, seed: int) -> _Lesson | None:
        """Return what the training events teach, None where too few persons have two events or more."""
        every = data.learn_from(True)
        last = every.items[every.indptr[1:] - 1]
        able = np.flatnonzero((every.lengths > 1) & data.in_target[last])
        if able.size < ENOUGH:
            return None
        rng = generator(seed, "graph")
        some = every.take(np.sort(rng.choice(able, min(able.size, TEACHERS), replace=False)))
        answers = some.items[some.indptr[1:] - 1]
        before = some.keep((some.age > 0) & (some.items != np.repeat(answers, some.lengths)))
        fame = data.popularity[data.target].astype(np.float64)
        drawn = rng.choice(data.target, (len(some), RIVALS), p=fame / fame.sum())
        return cls(before.matrix(data.n_items, decay=0.9), np.concatenate([answers[:, None], drawn], axis=1))

    def weigh(self, ties: Neighbours, idf: Floats, norm: float) -> Floats:
        """Return the weight of each relation, (R,), between 0 and a few.

        A conditional logit (McFadden 1974) of the last item among the choices; its inputs are what each relation of
        an item shares with the history. The prior is that all relations weigh alike.
        """
        even = np.ones(len(ties.relations), np.float32)
        rows, length = _rows(ties, even, idf, norm)
        profile = self.profile @ rows
        shared = np.zeros((*self.choices.shape, even.size))
        wanted, place = np.unique(self.choices, return_inverse=True)
        picked = np.arange(len(self.choices))[:, None], place.reshape(self.choices.shape)
        for kind in np.unique(ties.relation):
            part = ties.matrix((np.arange(even.size) == kind).astype(np.float32))[wanted]
            part.data *= (idf[part.indices] * np.repeat(length[wanted], np.diff(part.indptr))).astype(np.float32)
            shared[:, :, kind] = (profile @ sparse.csr_array(part.T)).toarray()[picked]
        return np.sqrt(_logit(shared)).astype(np.float32)


def _logit(shared: Doubles) -> Doubles:
    """Return the weights (R,), not negative, of mean 1 before they move, that explain the first of each choice best."""
    from scipy.optimize import minimize

    total = shared.sum(axis=2)
    scale = 1.0 / max(float(total.std()), 1e-9)
    grown = minimize(lambda a: _loss(a[0] * total * scale)[0], np.ones(1), bounds=[(1e-3, 100.0)], method="L-BFGS-B").x
    unit = shared * scale * float(grown[0])

    def cost(weights: Doubles) -> tuple[float, Doubles]:
        value, pull = _loss(unit @ weights)
        far = weights - 1.0
        return value + PRIOR / 2 * float(far @ far), np.einsum("bc,bcr->r", pull, unit) + PRIOR * far

    found = minimize(cost, np.ones(unit.shape[2]), jac=True, bounds=[(0.0, None)] * unit.shape[2], method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64)


def _loss(scores: Doubles) -> tuple[float, Doubles]:
    """Return the sum of the negative log chances of the first column, and its slope by ``scores`` (B, C)."""
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    value = -float(np.log(np.maximum(chances[:, 0], 1e-300)).sum())
    chances[:, 0] -= 1.0
    return value, chances
