"""New items on trial: the bonus and the cap they get in lists, and how often they were shown."""

from __future__ import annotations

import numpy as np

from isthmus.model.fresh import Exploration, expected
from isthmus.train.fit import Target
from isthmus.types import Bools, Floats, Indices, Ints


class Tries:
    """The new items of one target domain, and how often each was listed since the model was opened.

    Parameters
    ----------
    target : Target
        What was learned for the domain, with the items that came since.
    """

    def __init__(self, target: Target) -> None:
        self.items, self.new = target.items, target.new
        self.hopes = expected(target.methods, target.new)
        self.shown = np.zeros(target.new.size, np.int64)

    def lifted(self, how: Exploration, scores: Floats, columns: Ints) -> Floats:
        """Return scores (B, C) of some columns with the bonus of each new item, and the best new ones under the cap."""
        return how.apply(scores, self.new[columns], self.shown[columns], self.hopes[columns])

    def under(self, rows: Indices, cap: int) -> Bools:
        """Return which places of a list (L,) stay if it may hold ``cap`` new items: the first ones."""
        new = self.new[np.searchsorted(self.items, rows)]
        return np.asarray(~new | (np.cumsum(new) <= cap))

    def count(self, rows: Indices) -> None:
        """Count a list that was given."""
        self.shown[np.searchsorted(self.items, rows)] += 1

    def carry(self, before: Tries) -> None:
        """Take over the counts of the same items, which come first."""
        self.shown[: before.shown.size] = before.shown
