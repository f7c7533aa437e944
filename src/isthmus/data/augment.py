"""Augmentation of histories: cropped, thinned, reordered, and with similar items, for all persons at once.

Crop, mask and reorder are those of CL4SRec (Xie et al., "Contrastive Learning for Sequential Recommendation", ICDE
2022, section III-C), substitute and insert those of CoSeRec (Liu et al., "Contrastive Self-supervised Sequential
Recommendation with Robust Augmentation", 2021, section 4.1). A share of ``n`` events is ``floor(share * n)`` of them.

Item, weight and event of a row stay together. Times never fall: where items change places the times stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.types import Bools, Indices, Ints

Operation = Literal["crop", "mask", "reorder", "substitute", "insert"]
OPERATIONS: Final[tuple[Operation, ...]] = ("crop", "mask", "reorder", "substitute", "insert")


@dataclass(frozen=True)
class Augment:
    """Which operations may be drawn, and how much of a history each touches.

    Parameters
    ----------
    operations : tuple of str
        Names out of :data:`OPERATIONS`; each person's view is made by one of them, drawn at random.
    crop : float
        Share of the history that is kept, above 0, at most 1; one event at least.
    mask, reorder, substitute, insert : float
        Share of the events that are masked, shuffled, exchanged, or preceded by a similar item, in [0, 1]; the
        share masked is below 1.
    mask_item : int, optional
        Item index that stands for a masked event; without one, masked events are left out.
    short : int
        Histories of fewer events are only given operations that keep all their items (reorder, substitute, insert),
        and none if there is no such operation: Liu et al. (2021) spare short histories likewise.

    Raises
    ------
    InputError
        A share is out of range, or an operation has no such name.
    """

    operations: tuple[Operation, ...] = ("crop", "mask", "reorder")
    crop: float = 0.6
    mask: float = 0.3
    reorder: float = 0.6
    substitute: float = 0.3
    insert: float = 0.3
    mask_item: int | None = None
    short: int = 0

    def __post_init__(self) -> None:
        """Check names and shares."""
        unknown = set(self.operations) - set(OPERATIONS)
        if unknown or not self.operations:
            wrong = ", ".join(sorted(unknown)) or "given"
            raise InputError(f"no operation {wrong}", where="augment", fix=f"use {', '.join(OPERATIONS)}")
        for name in OPERATIONS:
            share = getattr(self, name)
            if not 0 <= share <= 1 or (name == "crop" and share == 0) or (name == "mask" and share == 1):
                raise InputError(f"{name} = {share} is out of range", where="augment", fix="take a share such as 0.3")


def two_views(
    histories: Histories, augment: Augment, rng: np.random.Generator, *, similar: Indices | None = None
) -> tuple[Histories, Histories]:
    """Return two views of each history, drawn independently: what a contrastive loss pulls together."""
    first = one_view(histories, augment, rng, similar=similar)
    return first, one_view(histories, augment, rng, similar=similar)


def one_view(
    histories: Histories, augment: Augment, rng: np.random.Generator, *, similar: Indices | None = None
) -> Histories:
    """Return a view of each history: one of ``augment.operations``, drawn for each person.

    Parameters
    ----------
    similar : int32 array (N, k), optional
        Similar items of each item, -1 where there are no more; needed by substitute and insert.

    Raises
    ------
    InputError
        An operation needs ``similar`` and it is not given.

    Examples
    --------
    >>> view = one_view(Histories.of([[3, 1, 4, 1, 5], []]), Augment(("crop",)), np.random.default_rng(0))
    >>> view.lengths.tolist(), view.items.tolist()
    ([3, 0], [4, 1, 5])
    """
    if similar is None and {"substitute", "insert"} & set(augment.operations):
        raise InputError("substitute and insert need a table of similar items", where="augment", fix="give similar")
    drawn = rng.integers(len(augment.operations), size=len(histories))
    keeping = [place for place, name in enumerate(augment.operations) if name not in ("crop", "mask")]
    few = histories.lengths < augment.short
    drawn[few] = rng.choice(keeping, size=int(few.sum())) if keeping else -1
    for place, name in sorted(enumerate(augment.operations), key=lambda pair: pair[1] == "mask"):
        histories = _apply(histories, augment, name, drawn == place, similar, rng)
    return histories


def _apply(
    histories: Histories,
    augment: Augment,
    name: Operation,
    who: Bools,
    similar: Indices | None,
    rng: np.random.Generator,
) -> Histories:
    if name == "crop":
        return crop(histories, augment.crop, rng, who=who)
    if name == "mask":
        return mask(histories, augment.mask, rng, item=augment.mask_item, who=who)
    if name == "reorder":
        return reorder(histories, augment.reorder, rng, who=who)
    table = similar if similar is not None else np.zeros((0, 0), np.int32)
    change = substitute if name == "substitute" else insert
    return change(histories, augment.substitute if name == "substitute" else augment.insert, table, rng, who=who)


def crop(histories: Histories, share: float, rng: np.random.Generator, *, who: Bools | None = None) -> Histories:
    """Return a random stretch of ``share`` of each history, one event at least; of the persons ``who`` (B,) only."""
    lengths = histories.lengths
    length = np.maximum(_portion(lengths, share), np.minimum(lengths, 1))
    return histories.keep(_stretch(histories, length, rng) | ~_touched(histories, who)[histories.rows])


def mask(
    histories: Histories,
    share: float,
    rng: np.random.Generator,
    *,
    item: int | None = None,
    who: Bools | None = None,
) -> Histories:
    """Return histories without ``share`` of their events, or with ``item`` in their places."""
    hidden = _some(histories, share, rng, who)
    if item is None:
        return histories.keep(~hidden)
    return replace(histories, items=np.where(hidden, np.int32(item), histories.items))


def reorder(histories: Histories, share: float, rng: np.random.Generator, *, who: Bools | None = None) -> Histories:
    """Return histories in which a random stretch of ``share`` of the events is shuffled; the times stay.

    Examples
    --------
    >>> reorder(Histories.of([[1, 2, 3, 4, 5, 6]]), 0.5, np.random.default_rng(0)).items.tolist()
    [1, 2, 3, 6, 5, 4]
    """
    length = np.where(_touched(histories, who), _portion(histories.lengths, share), 0)
    return _shuffled(histories, np.flatnonzero(_stretch(histories, length, rng)), rng)


def shuffle_histories(histories: Histories, rng: np.random.Generator) -> Histories:
    """Return each person's events in random order, at the times there were: a control for what order is worth.

    Examples
    --------
    >>> shuffled = shuffle_histories(Histories.of([[1, 2, 3, 4], [9]]), np.random.default_rng(0))
    >>> shuffled.items.tolist(), shuffled.ts.tolist()
    ([4, 3, 2, 1, 9], [0, 1, 2, 3, 4])
    """
    return _shuffled(histories, np.arange(histories.items.size), rng)


def substitute(
    histories: Histories, share: float, similar: Indices, rng: np.random.Generator, *, who: Bools | None = None
) -> Histories:
    """Return histories with ``share`` of the items exchanged for similar ones; an item without any stays.

    Parameters
    ----------
    similar : int32 array (N, k)
        Similar items of each item, any of which is taken with equal chance; -1 after the last one.
    """
    chosen = _some(histories, share, rng, who)
    other = _draw_similar(histories.items, similar, rng)
    return replace(histories, items=np.where(chosen & (other >= 0), other, histories.items))


def insert(
    histories: Histories, share: float, similar: Indices, rng: np.random.Generator, *, who: Bools | None = None
) -> Histories:
    """Return histories in which a similar item stands before ``share`` of the events, with the same time and weight.

    The newest event stays the newest. ``similar`` as in :func:`substitute`.

    Examples
    --------
    >>> similar = np.array([[-1], [2], [1]], np.int32)
    >>> insert(Histories.of([[0, 1, 2]]), 1.0, similar, np.random.default_rng(0)).items.tolist()
    [0, 2, 1, 1, 2]
    """
    other = _draw_similar(histories.items, similar, rng)
    chosen = _some(histories, share, rng, who) & (other >= 0)
    source = np.repeat(np.arange(chosen.size), 1 + chosen)
    new = np.zeros(source.size, dtype=bool)
    new[np.flatnonzero(chosen) + np.arange(int(chosen.sum()))] = True
    before = np.concatenate([[0], np.cumsum(chosen)])
    return Histories(
        histories.indptr + before[histories.indptr],
        np.where(new, other[source], histories.items[source]),
        histories.weights[source],
        histories.ts[source],
        histories.events[source],
    )


def _touched(histories: Histories, who: Bools | None) -> Bools:
    return np.ones(len(histories), dtype=bool) if who is None else who


def _portion(lengths: Ints, share: float) -> Ints:
    """Return ``floor(share * lengths)``, (B,); 0.29 of 100 is 29 although the product is a hair below."""
    if not 0 <= share <= 1:
        raise InputError(f"share {share} is out of range", where="augment", fix="take a share in [0, 1]")
    portion: Ints = np.floor(share * lengths + 1e-9).astype(np.int64)
    return portion


def _stretch(histories: Histories, length: Ints, rng: np.random.Generator) -> Bools:
    """Return which events lie in a random stretch of ``length`` (B,) events of each history, (E,)."""
    start = rng.integers(0, histories.lengths - length, endpoint=True)
    rows = histories.rows
    place = np.arange(rows.size) - histories.indptr[rows]
    inside: Bools = (place >= start[rows]) & (place < (start + length)[rows])
    return inside


def _some(histories: Histories, share: float, rng: np.random.Generator, who: Bools | None) -> Bools:
    """Return ``share`` of each person's events, drawn without repeats, (E,)."""
    order = _at_random(histories.rows, rng)
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(order.size)
    count = np.where(_touched(histories, who), _portion(histories.lengths, share), 0)
    drawn: Bools = rank - np.repeat(histories.indptr[:-1], histories.lengths) < np.repeat(count, histories.lengths)
    return drawn


def _at_random(rows: Ints, rng: np.random.Generator) -> Ints:
    """Return places that sort ``rows``, which rise, with those of one row in random order."""
    order: Ints = np.argsort((rows << 32) | rng.integers(1 << 32, size=rows.size))
    return order


def _shuffled(histories: Histories, places: Ints, rng: np.random.Generator) -> Histories:
    """Return histories whose events at ``places``, which rise, are shuffled within each person; times stay."""
    order = np.arange(histories.items.size)
    order[places] = places[_at_random(histories.rows[places], rng)]
    return Histories(
        histories.indptr, histories.items[order], histories.weights[order], histories.ts, histories.events[order]
    )


def _draw_similar(items: Indices, similar: Indices, rng: np.random.Generator) -> Indices:
    """Return one of the similar items of each item, -1 where there is none, (E,)."""
    if similar.ndim != 2 or (items.size and (similar.shape[0] <= int(items.max()))):
        raise InputError(f"a table of similar items of shape {similar.shape} does not cover all items", where="augment")
    point = rng.random(items.size)
    if similar.shape[1] == 0:
        return np.full(items.size, -1, dtype=np.int32)
    count = (similar >= 0).sum(axis=1)[items]
    drawn: Indices = similar[items, (point * count).astype(np.int64)]
    return drawn
