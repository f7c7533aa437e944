"""What all heads are: settings, what was right, and scores that are products of a query and a key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from isthmus.errors import InputError


@dataclass(frozen=True)
class HeadSettings:
    """Sizes and names of a head.

    Parameters
    ----------
    dim : int
        Length of a state and of an item vector.
    start : float
        The map of states starts as this many times the identity: 1 for a head that stands alone, 0 for one that is
        added to a transferred head. Classification always starts at 0.
    labels : tuple of str
        Names of the classes, in the order of the columns (classification).
    epsilon : float
        Added to ratings before the logarithm (squared log ratio).
    """

    dim: int
    start: float = 1.0
    labels: tuple[str, ...] = ()
    epsilon: float = 1.0


@dataclass(frozen=True)
class Truth:
    """What was right for each row of a batch.

    Parameters
    ----------
    wanted : int64 Tensor (B,)
        Row of the next, chosen or rated item in the table; or the class, below 0 where there is no label.
    negatives : int64 Tensor (B, n), optional
        Rows of items that were not chosen (ranking); see :func:`isthmus.model.heads.draw_negatives`.
    ratings : Tensor (B,), optional
        On the user's own scale (rating).
    weights : Tensor (B,), optional
        How much each row counts; all alike by default.
    """

    wanted: Tensor
    negatives: Tensor | None = None
    ratings: Tensor | None = None
    weights: Tensor | None = None


class Head(nn.Module, ABC):  # type: ignore[misc]
    """A head. Its score of a state and an item, or class, is the product of query and key."""

    name: ClassVar[str]
    #: Names of its losses, the default first.
    losses: ClassVar[tuple[str, ...]]
    #: What its scores are; only scores of one unit add up.
    unit: str

    def __init__(self, settings: HeadSettings, loss: str) -> None:
        super().__init__()
        self.settings, self.loss_name = settings, loss

    @abstractmethod
    def query(self, states: Tensor) -> Tensor:
        """Return what is asked for each state, (B, q)."""

    @abstractmethod
    def keys(self, table: Tensor | None) -> Tensor:
        """Return what answers of each item or class, (T, q)."""

    @abstractmethod
    def loss_of(self, query: Tensor, keys: Tensor, truth: Truth) -> Tensor:
        """Return the loss of scores ``query @ keys.T``, a scalar."""

    def score(self, states: Tensor, table: Tensor | None = None) -> Tensor:
        """Return the score of each item, or class, for each state, (B, T); higher is better."""
        return self.query(states) @ self.keys(table).T

    def predict(self, states: Tensor, table: Tensor | None = None, items: Tensor | None = None) -> Tensor:
        """Return what the head says of every item or class, (B, T); or of one item a row, its row in ``items`` (B,).

        Scores of next items and rankings, ratings on the user's own scale, probabilities of classes.
        """
        query, keys = self.query(states), self.keys(table)
        return self.meaning(query @ keys.T if items is None else (query * keys[items]).sum(1))

    def meaning(self, scores: Tensor) -> Tensor:
        """Return what scores say, of the same shape."""
        return scores

    def loss(self, states: Tensor, table: Tensor | None, truth: Truth) -> Tensor:
        """Return the loss of states (B, d) and items (T, d), a scalar.

        Raises
        ------
        InputError
            ``truth`` lacks what the loss needs, or shapes do not fit.
        """
        return self.loss_of(self.query(states), self.keys(table), truth)


class ItemHead(Head):
    """A head that compares a linear map of the state, the identity at first, with the items."""

    unit = "products"

    def __init__(self, settings: HeadSettings, loss: str) -> None:
        super().__init__(settings, loss)
        self.map = nn.Linear(settings.dim, settings.dim)
        with torch.no_grad():
            self.map.weight.copy_(settings.start * torch.eye(settings.dim))
            self.map.bias.zero_()

    def query(self, states: Tensor) -> Tensor:
        """Return the mapped states, (B, d)."""
        return self.map(states)

    def keys(self, table: Tensor | None) -> Tensor:
        """Return the items as they are, (T, d)."""
        return items_of(table)


def items_of(table: Tensor | None) -> Tensor:
    """Return the table, which must be there."""
    if table is None:
        raise InputError("this head compares with items", fix="pass a table of item vectors")
    return table
