"""The blend for few persons at a time: the same scores as :meth:`isthmus.model.blend.Blend.score`, sooner.

What does not depend on the person is made ready once: contiguous target vectors, texts of the target, products by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from scipy import sparse

from isthmus.data.sequences import Histories, ranges
from isthmus.model.base import ItemToItem, Method
from isthmus.model.blend import Blend, standardise
from isthmus.model.content import TextContent, TfidfContent
from isthmus.model.popularity import Popularity
from isthmus.recommender.pieces import Give, Linear, OfNeighbours, OfVectors, OfWords, Summed
from isthmus.split.cohorts import person_cohorts
from isthmus.train.fit import Target
from isthmus.types import Floats, Indices, Ints

#: From histories to scores (B, T).
Score = Callable[[Histories], Floats]
#: From histories and places among the targets to standardised scores (B, R); None where all have to be scored.
At = Callable[[Histories, Ints], Floats | None]


@dataclass(frozen=True)
class _Quick:
    """A method as the blend sees it."""

    name: str
    inductive: bool
    target: Indices
    score: Score
    at: At | None = None
    summed: Summed | None = None


class Scorer:
    """Scores of one target domain.

    Parameters
    ----------
    target : Target
        What was learned for the domain.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    @cached_property
    def _methods(self) -> list[Method]:
        """The methods, made ready when first needed: taking in an item does not wait for it."""
        return [cast("Method", method) for method in self._quick]

    @cached_property
    def _quick(self) -> list[_Quick]:
        return [_quick(method) for method in self.target.methods]

    @property
    def items(self) -> Indices:
        """Corpus item index of each column of the scores, (T,)."""
        return self.target.items

    def make_ready(self) -> None:
        """Make ready what the first call of :meth:`score` would wait for."""
        self._methods  # noqa: B018

    def score(self, histories: Histories, blend: Blend | None = None) -> Floats:
        """Return the blended score of each target item, (B, T) float32; see :meth:`~isthmus.model.blend.Blend.score`.

        ``blend`` weighs the methods, that of the target by default.

        Examples
        --------
        >>> from isthmus.model.blend import COHORTS, Blend
        >>> from isthmus.model.popularity import Popularity
        >>> popular = Popularity()
        >>> popular.target, popular.scores = np.arange(2, dtype=np.int32), np.array([0.0, 2.0], np.float32)
        >>> blend = Blend(("popularity",), dict.fromkeys(COHORTS, (1.0,)))
        >>> target = Target("books", popular.target, np.zeros(2, dtype=bool), [popular], blend)
        >>> nobody = Histories.of([[]])
        >>> bool((Scorer(target).score(nobody) == blend.score([popular], nobody, target.new)).all())
        True
        """
        return (blend or self.target.blend).score(self._methods, histories, self.target.new)

    def prepare(self) -> None:
        """Make ready what :meth:`at` needs: until then it scores all items."""
        for method in self._quick:
            if method.summed is not None:
                method.summed.prepare()

    def follow(self, before: Scorer) -> None:
        """Take over what :meth:`prepare` made ready ``before`` items came at the end."""
        if "_quick" in vars(before):
            for mine, old in zip(self._quick, before._quick, strict=True):
                if mine.summed is not None and old.summed is not None:
                    mine.summed.follow(old.summed)

    def at(self, histories: Histories, columns: Ints) -> Floats:
        """Return the blended scores of few target items, (B, R): those columns of :meth:`score`, up to rounding.

        Methods that are linear in the history score no other items, once :meth:`prepare` was called. It is meant for
        versions of one history: what is worked out once is of all items met by anybody.
        """
        target, blend = self.target, self.target.blend
        if blend.bare or blend.constraints is not None:
            return self.score(histories)[:, columns]
        weights = blend.of_persons(person_cohorts(histories, target.items))
        new = target.new[columns]
        total = np.zeros((len(histories), columns.size), np.float32)
        total[:, new] = blend.level
        for place, method in enumerate(self._quick):
            spoken = blend.voice[place] if blend.voice is not None and target.new.any() else 0.0
            own = weights[:, place, None]
            if not (spoken or own.any()):
                continue
            scores = None if method.at is None else method.at(histories, columns)
            if scores is None:
                scores = standardise(method.score(histories))[:, columns]
            total += scores * (own if blend.voice is None else np.where(new, np.float32(spoken), own))
        return total

    def seen(self, histories: Histories, scores: Floats) -> None:
        """Set the scores (B, T) of what is in the histories to minus infinity."""
        place = np.searchsorted(self.items, histories.items)
        place[place == self.items.size] = 0
        met = self.items[place] == histories.items
        scores[histories.rows[met], place[met]] = -np.inf


def _quick(method: Method) -> _Quick:
    score: Score = method.score
    at: At | None = None
    summed: Summed | None = None
    if type(method).score is ItemToItem.score:
        score, at = _item_to_item(cast("ItemToItem", method)), _linear(method, OfNeighbours(cast("ItemToItem", method)))
    elif isinstance(method, TfidfContent) and type(method).score is TfidfContent.score:
        score = _tfidf(method) if type(method) is TfidfContent else score
        summed = OfWords(method) if OfWords.fits(method) else None
    elif isinstance(method, TextContent) and type(method).score is TextContent.score:
        score, summed = _text(method) if type(method) is TextContent else score, OfVectors(method)
    elif isinstance(method, Popularity):
        at = _alike(method)
    if summed is not None:
        at = _linear(method, summed)
    return _Quick(method.name, method.inductive, method.target, score, at, summed)


def _linear(method: Method, give: Give) -> At:
    linear = Linear(give, method.target, method.n_items)
    return lambda histories, columns: linear.at(method.profile(histories), columns)


def _alike(method: Method) -> At:
    """Return the scores of a method that says the same to everybody."""
    row: list[Floats] = []

    def at(histories: Histories, columns: Ints) -> Floats:
        if not row:
            row.append(standardise(method.score(Histories.of([[]])))[0])
        return np.tile(row[0][columns], (len(histories), 1))

    return at


def _item_to_item(method: ItemToItem) -> Score:
    return lambda histories: product(method.profile(histories), method.weights)


def _tfidf(method: TfidfContent) -> Score:
    rows, text = method.target, method.text
    whole = rows.size == text.shape[0] and bool((rows == np.arange(rows.size)).all())
    listed = text if whole else sparse.csr_array(text[rows])
    less = _Itself(method.target, method.itself)

    def score(histories: Histories) -> Floats:
        profile = method.profile(histories)
        return less((listed @ (profile @ text).toarray().T).T, profile)

    return score


class _Itself:
    """Takes from scores what an item of a history gives to itself, as :func:`isthmus.model.content.without_self`."""

    def __init__(self, target: Indices, itself: Floats) -> None:
        self._itself = itself
        self._place = np.full(itself.size, -1, np.int32)
        self._place[target] = np.arange(target.size)

    def __call__(self, scores: Floats, profile: sparse.csr_array) -> Floats:
        """Return ``scores`` (B, T), changed in place; ``profile`` is (B, N)."""
        place = self._place[profile.indices]
        listed = place >= 0
        row = np.repeat(np.arange(profile.shape[0]), np.diff(profile.indptr))[listed]
        scores[row, place[listed]] -= profile.data[listed] * self._itself[profile.indices[listed]]
        return scores


def _text(method: TextContent) -> Score:
    less = _Itself(method.target, (method.vectors**2).sum(axis=1))
    listed = _rows(method.vectors, method.target).T

    def score(histories: Histories) -> Floats:
        profile = method.profile(histories)
        return less(np.asarray(profile @ method.vectors) @ listed, profile)

    return score


def _rows(table: Floats, rows: Indices) -> Floats:
    """Return some rows of ``table``, as a view where they follow each other."""
    if rows.size and rows[-1] - rows[0] + 1 == rows.size:
        return table[int(rows[0]) : int(rows[-1]) + 1]
    return table[rows]


def product(left: sparse.csr_array, right: sparse.csr_array) -> Floats:
    """Return the dense product of two sparse arrays, (B, T) float32.

    Counts weights into their places, which for few rows is quicker than a sparse product that is made dense.

    Examples
    --------
    >>> left = sparse.csr_array(np.array([[0.0, 2.0], [1.0, 1.0]], np.float32))
    >>> right = sparse.csr_array(np.array([[1.0, 0.0, 5.0], [0.0, 3.0, 0.0]], np.float32))
    >>> product(left, right).tolist()
    [[0.0, 6.0, 0.0], [1.0, 3.0, 5.0]]
    """
    height, width = left.shape[0], right.shape[1]
    start, stop = right.indptr[left.indices], right.indptr[left.indices + 1]
    taken = ranges(start, stop)
    times = np.asarray(stop - start, dtype=np.int64)
    place = right.indices[taken].astype(np.int64)
    if height > 1:
        row = np.repeat(np.arange(height), np.diff(left.indptr))
        place += np.repeat(row * width, times)
    worth = right.data[taken] * np.repeat(left.data, times)
    return np.bincount(place, weights=worth, minlength=height * width).astype(np.float32).reshape(height, width)
