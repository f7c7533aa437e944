"""The blend: one weight a method and a kind of person. Learned in :mod:`isthmus.model.stacking`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.files import Json
from isthmus.model.base import Method
from isthmus.model.constraints import Constraints
from isthmus.split.cohorts import FEW, person_cohorts
from isthmus.types import Bools, Floats, Indices

#: Kinds of persons with weights of their own.
COHORTS: Final = ("cold person", f"1-{FEW} events", "warm person")


def standardise(scores: Floats) -> Floats:
    """Return ``scores`` (B, T) with mean 0 and standard deviation 1 for each person; a constant row gives zeros.

    Examples
    --------
    >>> standardise(np.array([[1.0, 3.0], [5.0, 5.0]], np.float32)).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.einsum("bt,bt->b", centred, centred) / max(scores.shape[1], 1))[:, None]
    rounding = 1e-6 * np.abs(scores).max(axis=1, keepdims=True, initial=1e-3)
    scaled: Floats = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > rounding)
    return scaled


@dataclass(frozen=True)
class Blend:
    """Weights of the methods.

    Parameters
    ----------
    methods : tuple of str
        Names, ``M``.
    weights : mapping of str to tuple of float
        Weights (M,) of each kind of person in :data:`COHORTS`, not negative, of sum 1.
    voice : tuple of float, optional
        Weights (M,) that count for new items, those without any training event, in place of ``weights``: what reads
        has a say in them, what only knows who met what has none (:func:`isthmus.model.voice.give_voice`). The usual
        weights by default.
    level : float
        Added to the score of every new item.
    constraints : Constraints, optional
        Declared rules that the scores keep; none by default.
    """

    methods: tuple[str, ...]
    weights: Mapping[str, tuple[float, ...]]
    voice: tuple[float, ...] | None = None
    level: float = 0.0
    constraints: Constraints | None = field(default=None, compare=False)

    @property
    def plain(self) -> Blend:
        """The blend without declared rules: its scores are all finite."""
        return replace(self, constraints=None)

    @property
    def bare(self) -> bool:
        """Whether there is one method alone, whose scores are taken as they are."""
        alone = len(self.methods) == 1 and all(map(any, self.weights.values()))
        return alone and self == Blend(self.methods, self.weights)

    def of_persons(self, cohorts: Mapping[str, Bools]) -> Floats:
        """Return the weights of persons of some kinds, (B, M)."""
        flags = np.stack([cohorts[name] for name in COHORTS], axis=1).astype(np.float32)
        return np.asarray(flags @ np.array([self.weights[name] for name in COHORTS], np.float32))

    def keep(self, scores: Floats, histories: Histories, target: Indices) -> Floats:
        """Return ``scores`` (B, T) of the items ``target`` as the rules want them: lifted, or ``-inf``."""
        return scores if self.constraints is None else self.constraints.apply(scores, histories, target)

    def score(self, methods: Sequence[Method], histories: Histories, new: Bools) -> Floats:
        """Return the weighted sum of standardised scores, (B, T) float32.

        Parameters
        ----------
        methods : sequence of Method
            The fitted methods, in the order of :attr:`methods`.
        histories : Histories
            ``B`` histories.
        new : bool array (T,)
            Target items without any training event.
        """
        if self.bare:
            return self.keep(methods[0].score(histories), histories, methods[0].target)
        weights = self.of_persons(person_cohorts(histories, methods[0].target))
        total = np.zeros((len(histories), new.size), np.float32)
        total[:, new] = self.level
        for place, method in enumerate(methods):
            spoken = self.voice[place] if self.voice is not None and new.any() else 0.0
            rows = np.arange(len(histories)) if spoken else np.flatnonzero(weights[:, place])
            if rows.size == 0:
                continue
            some = histories if rows.size == len(histories) else histories.take(rows)
            own, scores = weights[rows, place][:, None], standardise(method.score(some))
            if self.voice is None:
                scores *= own
            else:
                scores *= np.where(new, np.float32(spoken), own)
            total[rows] += scores
        return self.keep(total, histories, methods[0].target)

    def to_json(self) -> Json:
        """Return weights, voice and level; the names of the methods and the rules are kept elsewhere."""
        weights = {cohort: list(row) for cohort, row in self.weights.items()}
        return {"weights": weights, "voice": None if self.voice is None else list(self.voice), "level": self.level}

    @classmethod
    def of_json(cls, methods: tuple[str, ...], said: Json) -> Blend:
        """Return the blend that :meth:`to_json` told of.

        Examples
        --------
        >>> blend = Blend(("knn",), dict.fromkeys(COHORTS, (1.0,)), voice=(2.0,), level=-1.0)
        >>> Blend.of_json(("knn",), blend.to_json()) == blend
        True
        """
        weights = {cohort: tuple(row) for cohort, row in cast("dict[str, list[float]]", said["weights"]).items()}
        voice = cast("list[float] | None", said.get("voice"))
        return cls(methods, weights, None if voice is None else tuple(voice), cast("float", said.get("level", 0.0)))

    def among(self, methods: Sequence[str]) -> Blend:
        """Return the same blend over more ``methods``, in that order; the new ones have no weight."""
        table = {
            cohort: tuple(dict(zip(self.methods, row, strict=True)).get(name, 0.0) for name in methods)
            for cohort, row in self.weights.items()
        }
        spoken = None if self.voice is None else dict(zip(self.methods, self.voice, strict=True))
        voice = None if spoken is None else tuple(spoken.get(name, 0.0) for name in methods)
        return replace(self, methods=tuple(methods), weights=table, voice=voice)

    def weighs(self, method: str) -> bool:
        """Return whether ``method`` has a weight for anybody."""
        place = self.methods.index(method)
        return any(row[place] > 0 for row in self.weights.values())

    def less(self, methods: Sequence[str]) -> Blend:
        """Return the blend as it is when some methods say nothing: the others keep their proportions, and their voice.

        Examples
        --------
        >>> blend = Blend(("knn", "graph"), dict.fromkeys(COHORTS, (0.5, 0.5)), voice=(0.0, 2.0), level=-1.0)
        >>> rest = blend.less(["graph"])
        >>> rest.weights["warm person"], rest.voice, rest.level
        ((1.0, 0.0), (0.0, 0.0), -1.0)
        """
        spoken = None if self.voice is None else zip(self.methods, self.voice, strict=True)
        voice = None if spoken is None else tuple(0.0 if name in methods else said for name, said in spoken)
        return replace(self, weights=self.without(methods).weights, voice=voice)

    def without(self, methods: Sequence[str]) -> Blend:
        """Return the blend with no weight on some methods, no voice and no rules; the others keep their proportions."""
        kept = np.array([name not in methods for name in self.methods], dtype=np.float64)
        table = {cohort: np.array(row) * kept for cohort, row in self.weights.items()}
        scaled = {cohort: tuple((row / (row.sum() or 1.0)).tolist()) for cohort, row in table.items()}
        return Blend(self.methods, scaled)
