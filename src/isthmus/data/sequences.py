"""Histories: what each of many persons did, oldest first, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from scipy import sparse

from isthmus.types import Bools, Codes, Floats, Indices, Ints


@dataclass(frozen=True)
class Histories:
    """Events of ``B`` persons in one flat array; those of person ``b`` are ``indptr[b]:indptr[b + 1]``, oldest first.

    Parameters
    ----------
    indptr : int64 array (B + 1,)
        Where each person's events start.
    items : int32 array (E,)
        Item index of each event.
    weights : float32 array (E,)
        What each event says about taste, above 0, at most 1.
    ts : int64 array (E,)
        Microseconds since 1970, UTC.
    events : int8 array (E,), optional
        What happened: the place in :data:`isthmus.types.EVENTS`; all 0 if not given.

    Examples
    --------
    >>> histories = Histories.of([[3, 1], [], [2]])
    >>> len(histories), histories.lengths.tolist()
    (3, [2, 0, 1])
    """

    indptr: Ints
    items: Indices
    weights: Floats
    ts: Ints
    events: Codes = field(default_factory=lambda: np.zeros(0, np.int8))

    def __post_init__(self) -> None:
        """Fill in the events if they are not given."""
        if self.events.size != self.items.size:
            object.__setattr__(self, "events", np.zeros(self.items.size, np.int8))

    @classmethod
    def of(cls, items: list[list[int]]) -> Histories:
        """Return histories of plain item lists, with weight 1 and rising times."""
        lengths = np.array([len(row) for row in items], dtype=np.int64)
        flat = np.array([item for row in items for item in row], dtype=np.int32)
        ts = np.arange(flat.size, dtype=np.int64)
        return cls(np.concatenate([[0], np.cumsum(lengths)]), flat, np.ones(flat.size, np.float32), ts)

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, persons: Ints) -> Histories:
        """Return the histories of ``persons`` (sorted, unique) from a frame sorted by person and time.

        ``frame`` has columns person, item, weight, ts and perhaps event; a person without rows gets an empty history.
        """
        person = frame["person"].to_numpy()
        start, stop = np.searchsorted(person, persons, "left"), np.searchsorted(person, persons, "right")
        rows = ranges(start, stop)
        items = frame["item"].to_numpy().astype(np.int32)[rows]
        weights = frame["weight"].to_numpy().astype(np.float32)[rows]
        ts = frame["ts"].to_physical().to_numpy().astype(np.int64)[rows]
        events = frame["event"].to_numpy().astype(np.int8)[rows] if "event" in frame.columns else np.zeros(0, np.int8)
        indptr = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int64)
        return cls(indptr, items, weights, ts, events)

    def __len__(self) -> int:
        """Return the number of persons ``B``."""
        return self.indptr.size - 1

    @property
    def lengths(self) -> Ints:
        """Number of events of each person, (B,)."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> Ints:
        """Person number ``0..B-1`` of each event, (E,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def age(self) -> Ints:
        """Place of each event from the end of its history: 0 for the newest, (E,)."""
        return np.repeat(self.indptr[1:], self.lengths) - 1 - np.arange(self.items.size)

    def take(self, persons: Ints) -> Histories:
        """Return the histories of the given places, in that order."""
        start, stop = self.indptr[persons], self.indptr[np.asarray(persons) + 1]
        rows = ranges(start, stop)
        indptr = np.concatenate([[0], np.cumsum(stop - start)]).astype(np.int64)
        return Histories(indptr, self.items[rows], self.weights[rows], self.ts[rows], self.events[rows])

    def keep(self, events: Bools) -> Histories:
        """Return the histories with only the events where ``events`` (E,) is true."""
        counts = np.bincount(self.rows[events], minlength=len(self))
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Histories(indptr, self.items[events], self.weights[events], self.ts[events], self.events[events])

    def within(self, rows: Indices) -> Histories:
        """Return the histories with items counted in ``rows`` (rising), which must hold them all."""
        return replace(self, items=np.searchsorted(rows, self.items).astype(np.int32))

    def last(self, n: int) -> Histories:
        """Return the newest ``n`` events of each person."""
        return self.keep(self.age < n)

    def matrix(self, n_items: int, *, decay: float = 1.0) -> sparse.csr_array:
        """Return the persons × items matrix (B, n_items), float32.

        Entry: the largest ``weight * decay ** age`` of the person's events on the item: repeats do not add up,
        so that ten views of one item do not drown the rest.
        """
        values = self.weights * np.float32(decay) ** self.age.astype(np.float32)
        order = np.lexsort((-values, self.items, self.rows))
        rows, items = self.rows[order], self.items[order]
        first = np.ones(rows.size, dtype=bool)
        first[1:] = (rows[1:] != rows[:-1]) | (items[1:] != items[:-1])
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows[first], minlength=len(self)))])
        # 32 bits: in a product scipy would else copy all indices of the other matrix to 64
        data = values[order][first].astype(np.float32), items[first].astype(np.int32), indptr.astype(np.int32)
        return sparse.csr_array(data, shape=(len(self), n_items))


def ranges(start: Ints, stop: Ints) -> Ints:
    """Return the concatenation of ``arange(start[i], stop[i])`` for all ``i``.

    Examples
    --------
    >>> ranges(np.array([0, 5]), np.array([2, 7])).tolist()
    [0, 1, 5, 6]
    """
    lengths = np.asarray(stop - start, dtype=np.int64)
    offset = np.repeat(np.asarray(start, dtype=np.int64) - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return offset + np.arange(lengths.sum())
