"""Which sketch stands for which method in a shortlist."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TypeVar, cast

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.model.aligned import Aligned
from isthmus.model.base import ItemToItem, Method
from isthmus.model.content import TextContent, TfidfContent
from isthmus.model.factors import Als, InnerProduct
from isthmus.model.fresh import Launch
from isthmus.model.graph import GraphContent
from isthmus.model.popularity import Popularity
from isthmus.recommender.parts import Columns, Part, Sketch, Spread
from isthmus.recommender.sketches import FixedSketch, Says, SparseSketch, TextSketch, WholeSketch
from isthmus.recommender.vectors import Vectors, VectorSketch
from isthmus.room import appended
from isthmus.types import Floats, Ints

One = TypeVar("One")


def sketch_of(method: Method, columns: Columns, before: Sketch | None = None) -> Sketch:
    """Return a method as a shortlist needs it; ``before`` is that of the same method with the first items only."""
    sketch: Sketch | None = None
    if isinstance(method, Popularity | Launch):
        sketch = _fixed(method, columns, before)
    elif type(method).score is ItemToItem.score:
        sketch = SparseSketch(cast("ItemToItem", method), columns)
    elif type(method).score is TfidfContent.score or isinstance(method, GraphContent):
        sketch = _words(cast("TfidfContent | GraphContent", method), columns, before)
    elif isinstance(method, Aligned) and method.text is not None:
        sketch = AlignedSketch(method, columns, _had(before, AlignedSketch))
    else:
        had = _had(before, VectorSketch)
        vectors = _vectors(method, columns, None if had is None else had.vectors)
        sketch = None if vectors is None else VectorSketch(vectors, columns, had)
    return WholeSketch(method, columns) if sketch is None else sketch


def _had(before: Sketch | None, kind: type[One]) -> One | None:
    return before if isinstance(before, kind) else None


def _fixed(method: Popularity | Launch, columns: Columns, before: Sketch | None) -> Sketch:
    values = method.scores if isinstance(method, Popularity) else method.expected
    return FixedSketch(values.astype(np.float32, copy=False), columns, _had(before, FixedSketch))


def _words(method: TfidfContent | GraphContent, columns: Columns, before: Sketch | None) -> Sketch:
    rows, itself = (method.rows, method.own) if isinstance(method, GraphContent) else (method.text, method.itself)
    return TextSketch(Says(rows, itself, method.profile), columns, _had(before, TextSketch))


def _vectors(method: Method, columns: Columns, before: Vectors | None) -> Vectors | None:
    """Return the vectors of a method that compares some, None for any other."""
    score = type(method).score
    if isinstance(method, Als) and score is Als.score:
        return Vectors(method.factors, method.place, rows=columns.items)
    if isinstance(method, InnerProduct) and score is InnerProduct.score:
        return Vectors(method.outputs, method.place, bias=method.bias)
    if not isinstance(method, TextContent) or score is not TextContent.score:
        return None
    had = np.zeros(0, np.float32) if before is None or before.itself is None else before.itself
    fresh = method.vectors[had.size :]
    itself = appended(had, np.einsum("nd,nd->n", fresh, fresh))
    return Vectors(method.vectors, method.place, rows=columns.items, itself=itself, profile=method.profile)


def dense(sketch: Sketch) -> VectorSketch | None:
    """Return the part of a sketch that compares dense vectors, None if there is none."""
    if isinstance(sketch, AlignedSketch):
        return sketch.near
    return sketch if isinstance(sketch, VectorSketch) else None


class AlignedSketch:
    """Both channels of :class:`isthmus.model.aligned.Aligned`: expected behaviour by vectors, likeness by texts.

    Parameters
    ----------
    method : Aligned
        The method; it must have texts.
    columns : Columns
        The items.
    before : AlignedSketch, optional
        That of the same model with the first items only.
    """

    def __init__(self, method: Aligned, columns: Columns, before: AlignedSketch | None = None) -> None:
        share = method.number("share")
        self._weights = (1 - share) / float(method.sizes[0]), share / float(method.sizes[1])

        def asks(histories: Histories) -> Floats:
            return np.asarray(method.profile(histories) @ method.wished, dtype=np.float32)

        assert method.text is not None
        near, alike = (None, None) if before is None else (before.near, before._alike)
        had = np.zeros(0, np.float32) if alike is None else alike.itself
        itself = appended(had, (np.diff(method.text.indptr[had.size :]) > 0).astype(np.float32))
        self.near: VectorSketch = VectorSketch(Vectors(method.rows, asks, rows=columns.items), columns, near)
        self._alike: TextSketch = TextSketch(Says(method.text, itself, method.profile), columns, alike)

    def parts(self, histories: Histories) -> Sequence[Part]:
        """Return what the method says for each history."""
        pairs = zip(self.near.parts(histories), self._alike.parts(histories), strict=True)
        return [Both(near, alike, self._weights) for near, alike in pairs]


class Both:
    """The weighted sum of two parts.

    Parameters
    ----------
    first, second : Part
        The parts.
    weights : (float, float)
        Their weights.
    """

    def __init__(self, first: Part, second: Part, weights: tuple[float, float]) -> None:
        self._parts, self._weights = (first, second), weights

    @cached_property
    def spread(self) -> Spread:
        """Mean and deviation; how far the two go together is seen in the sample."""
        (a, b), (first, second) = self._weights, (part.spread for part in self._parts)
        some = [part.sampled.astype(np.float64) for part in self._parts]
        together = float(np.mean((some[0] - some[0].mean()) * (some[1] - some[1].mean())))
        square = (a * first.deviation) ** 2 + (b * second.deviation) ** 2 + 2 * a * b * together
        return Spread(a * first.mean + b * second.mean, float(np.sqrt(max(square, 0.0))))

    @property
    def sampled(self) -> Floats:
        """The scores of the sample of items."""
        return self._sum([part.sampled for part in self._parts])

    def propose(self, count: int) -> Ints:
        """Return what either proposes."""
        return np.concatenate([part.propose(count) for part in self._parts])

    def at(self, columns: Ints) -> Floats:
        """Return the scores of some columns."""
        return self._sum([part.at(columns) for part in self._parts])

    def _sum(self, scores: Sequence[Floats]) -> Floats:
        a, b = map(np.float32, self._weights)
        return np.asarray(a * scores[0] + b * scores[1])
