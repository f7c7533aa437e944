"""The rating head of a model that was carried over: what it learns, and what it then says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from isthmus.model.base import Doubles
from isthmus.model.bias import Bias
from isthmus.pipeline.rate_data import RatingTask
from isthmus.split.temporal import VALID, Split
from isthmus.transfer.scene import rated
from isthmus.types import Ints

if TYPE_CHECKING:
    from isthmus.transfer.adapt import AdaptSettings
    from isthmus.transfer.adapted import Adapted

#: People that a rating head reads at a time.
BLOCK: Final = 256
#: Losses with which a head learns what the biases leave over; the others need ratings as they are.
ABOVE: Final = ("", "mse")


@dataclass(frozen=True)
class CarriedHead:
    """A trained rating head, and what it stands on.

    The state of a person tells what they met, not which ratings they gave. So with squared error the head learns what
    the biases leave over of each rating, and adds to what they say.

    Parameters
    ----------
    adapted : Adapted
        The model with the head.
    task : RatingTask
        Where it was learned.
    above : bool
        Whether it adds to the biases.
    """

    adapted: Adapted
    task: RatingTask
    above: bool

    @classmethod
    def learn(cls, start: Path, task: RatingTask, how: AdaptSettings, bias: Bias) -> CarriedHead:
        """Return the head of the pre-trained model in folder ``start``, learned from train; valid chooses the epoch.

        Parameters
        ----------
        start : Path
            The pre-trained model.
        task : RatingTask
            What is known.
        how : AdaptSettings
            With the head ``rating``.
        bias : Bias
            Learned from train.
        """
        from isthmus.transfer.adapt import adapt

        above = how.loss in ABOVE
        split = left_over(task, bias) if above else task.split
        with TemporaryDirectory() as folder:
            return cls(adapt(start, split, how, Path(folder) / "adapted"), task, above)

    def ratings(self, part: int, bias: Bias, persons: Ints, items: Ints) -> Doubles:
        """Return the rating of each pair, given what may be known before ``part``, (n,).

        Parameters
        ----------
        part : int
            ``VALID`` or ``TEST``.
        bias : Bias
            Learned from what is before ``part``.
        persons, items : int64 arrays (n,)
            The pairs.
        """
        asked, rows = np.unique(persons, return_inverse=True)
        histories = self.task.histories(part, asked)
        columns = np.searchsorted(self.adapted.scene.target, items)
        found = np.zeros(items.size)
        for start in range(0, asked.size, BLOCK):
            some = np.flatnonzero((rows >= start) & (rows < start + BLOCK))
            table = self.adapted.predict(histories.take(np.arange(start, min(start + BLOCK, asked.size))))
            found[some] = table[rows[some] - start, columns[some]]
        return found + bias.predict(self.task.known(part), persons, items) if self.above else found


def left_over(task: RatingTask, bias: Bias) -> Split:
    """Return the split with what ``bias``, learned from train, leaves over in place of the ratings of the target."""
    events = rated(task.split, task.domain)
    persons, items = (events[name].to_numpy().astype(np.int64) for name in ("person", "item"))
    said = pl.Series(bias.predict(task.known(VALID), persons, items))
    return Split(task.split.corpus, events.with_columns(value=pl.col("value") - said), task.split.card)
