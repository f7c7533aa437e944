"""Task heads: from the state of a person and a table of items to next items, rankings, ratings, and classes (T1).

Every score of a head is a product ``query(state) . key(item)``: so any head can be added to a transferred one
(:class:`AdditiveHead`) and learned with its own loss. A new head for items starts as the carrier itself: it ranks by
the products of states and items. Heads keep what they learned in ``state_dict()``, all plain Tensors; with
:class:`HeadSettings`, their name and their loss they are made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from isthmus.errors import InputError, nearest
from isthmus.model.heads_base import Head, HeadSettings, ItemHead, Truth, items_of
from isthmus.model.losses import bce, bce01, bpr, catalogue_softmax, cross_entropy, mse, squared_log_ratio

__all__ = [
    "HEADS",
    "AdditiveHead",
    "ClassificationHead",
    "Head",
    "HeadSettings",
    "NextItemHead",
    "RankingHead",
    "RatingHead",
    "Truth",
    "draw_negatives",
    "make_head",
]


class NextItemHead(ItemHead):
    """The next item: softmax over the whole catalogue.

    Examples
    --------
    >>> head = make_head("next-item", settings=HeadSettings(dim=2))
    >>> head.score(torch.eye(2), torch.tensor([[3.0, 1.0]])).tolist()
    [[3.0], [1.0]]
    """

    name = "next-item"
    losses = ("softmax",)

    def loss_of(self, query: Tensor, keys: Tensor, truth: Truth) -> Tensor:
        """Return the cross-entropy of the wanted items."""
        return catalogue_softmax(query, keys, truth.wanted, truth.weights)


class RankingHead(ItemHead):
    """The chosen item above others that were not: BPR, or binary cross-entropy."""

    name = "ranking"
    losses = ("bpr", "bce")

    def loss_of(self, query: Tensor, keys: Tensor, truth: Truth) -> Tensor:
        """Return the loss of the wanted items against the negatives."""
        if truth.negatives is None:
            raise InputError("ranking needs negatives", fix="draw_negatives(wanted, n_items, n, generator)")
        positive = (query * keys[truth.wanted]).sum(1)
        negative = torch.einsum("bd,bnd->bn", query, keys[truth.negatives])
        return {"bpr": bpr, "bce": bce}[self.loss_name](positive, negative, truth.weights)


class RatingHead(ItemHead):
    """A rating on the user's own scale.

    The score of a person and an item is ``map(state) . item / sqrt(d)`` plus what the state, the item, and all ratings
    say alone. At first it is the mean for all, since how near an item is to a person is no rating. The scale is that
    of the training ratings: call :meth:`learn_scale` with them first. For squared error the score is the place on that
    scale, from 0 to 1, cut at its ends when predicted; for the other losses a sigmoid of the score is.
    """

    name = "rating"
    losses = ("mse", "bce01", "squared-log-ratio")

    def __init__(self, settings: HeadSettings, loss: str) -> None:
        super().__init__(settings, loss)
        self.unit = "places on the scale" if loss == "mse" else "logits on the scale"
        self.person = nn.Linear(settings.dim, 1)
        self.item = nn.Linear(settings.dim, 1, bias=False)
        for part in (self.map.weight, self.person.weight, self.person.bias, self.item.weight):
            nn.init.zeros_(part)
        self.register_buffer("scale", torch.tensor([0.0, 1.0]))

    def learn_scale(self, ratings: Tensor) -> RatingHead:
        """Take the scale, and where predictions start, from the training ratings; return self.

        Raises
        ------
        InputError
            There are no two different ratings, one is not finite, or one is too low for the logarithm of the loss.
        """
        if ratings.numel() == 0 or not bool(ratings.isfinite().all()) or bool(ratings.min() == ratings.max()):
            raise InputError("ratings have no scale", fix="pass finite ratings, at least two different ones")
        if self.loss_name == "squared-log-ratio" and bool(ratings.min() <= -self.settings.epsilon):
            raise InputError(f"a rating of {ratings.min().item():g} has no logarithm", fix="take a larger epsilon")
        self.scale.copy_(torch.stack([ratings.min(), ratings.max()]))
        mean = self._place(ratings.to(self.scale)).mean()
        with torch.no_grad():
            self.person.bias.fill_(self.settings.start * (mean if self.loss_name == "mse" else mean.logit()))
        return self

    def query(self, states: Tensor) -> Tensor:
        """Return the mapped states, what each says alone, and 1, (B, d + 2)."""
        mapped = self.map(states) / self.settings.dim**0.5
        return torch.cat([mapped, self.person(states), torch.ones_like(mapped[:, :1])], dim=1)

    def keys(self, table: Tensor | None) -> Tensor:
        """Return the items, 1, and what each says alone, (T, d + 2)."""
        items = items_of(table)
        return torch.cat([items, torch.ones_like(items[:, :1]), self.item(items)], dim=1)

    def loss_of(self, query: Tensor, keys: Tensor, truth: Truth) -> Tensor:
        """Return the loss of the ratings of the wanted items."""
        if truth.ratings is None:
            raise InputError("the rating head needs ratings")
        scores, ratings = (query * keys[truth.wanted]).sum(1), truth.ratings.to(self.scale)
        if self.loss_name == "mse":
            return mse(scores, self._place(ratings), truth.weights)
        if self.loss_name == "bce01":
            return bce01(scores, self._place(ratings), truth.weights)
        return squared_log_ratio(self.meaning(scores), ratings, truth.weights, epsilon=self.settings.epsilon)

    def meaning(self, scores: Tensor) -> Tensor:
        """Return scores as ratings on the user's own scale."""
        place = scores.clamp(0, 1) if self.loss_name == "mse" else scores.sigmoid()
        low, high = self.scale
        return low + (high - low) * place

    def _place(self, ratings: Tensor) -> Tensor:
        low, high = self.scale
        return (ratings - low) / (high - low)


class ClassificationHead(Head):
    """The class of a person or an item, whose vectors take the place of states; it needs no table."""

    name = "classification"
    losses = ("cross-entropy",)
    unit = "logits of classes"

    def __init__(self, settings: HeadSettings, loss: str) -> None:
        super().__init__(settings, loss)
        labels = settings.labels
        if not labels or len(set(labels)) < len(labels):
            raise InputError("classes without names, or two of one name", fix="pass labels, each once")
        self.map = nn.Linear(settings.dim, len(labels))
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def query(self, states: Tensor) -> Tensor:
        """Return the vectors and 1, (B, d + 1)."""
        return pad(states, (0, 1), value=1.0)

    def keys(self, table: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return the weights of each class and its bias, (C, d + 1)."""
        return torch.cat([self.map.weight, self.map.bias[:, None]], dim=1)

    def loss_of(self, query: Tensor, keys: Tensor, truth: Truth) -> Tensor:
        """Return the cross-entropy of the wanted classes."""
        return cross_entropy(query @ keys.T, truth.wanted, truth.weights)

    def meaning(self, scores: Tensor) -> Tensor:
        """Return the probability of each class."""
        return scores.softmax(-1)

    def names(self, states: Tensor) -> list[str]:
        """Return the name of the likeliest class of each vector."""
        return [self.settings.labels[code] for code in self.score(states).argmax(1).tolist()]

    def codes(self, names: Sequence[str | None]) -> Tensor:
        """Return the class of each name, (B,); -1 for None.

        Raises
        ------
        InputError
            There is no such class.

        Examples
        --------
        >>> head = make_head("classification", settings=HeadSettings(dim=2, labels=("books", "films")))
        >>> head.codes(["films", None, "books"]).tolist()
        [1, -1, 0]
        """
        places: dict[str | None, int] = {name: place for place, name in enumerate(self.settings.labels)}
        places[None] = -1
        for name in names:
            if name not in places:
                raise InputError(f"no class '{name}'{nearest(str(name), list(self.settings.labels))}")
        return torch.tensor([places[name] for name in names], dtype=torch.int64)


class AdditiveHead(Head):
    """Score = transferred + task (S2 4.2): what was carried over is frozen, what the task adds is learned.

    Parameters
    ----------
    transferred : Head
        The head that was carried over. It is never trained, and gets no gradient through its states or items.
    task : Head
        The head to learn; the loss is its own. Made with ``start=0`` it adds nothing at first.
    apart : bool
        Whether the transferred model is another one than the task's: states and tables then carry its columns first,
        ``transferred.settings.dim`` of them, and the task's after. If not, both heads read the same.

    Raises
    ------
    InputError
        The scores of the heads are of different units or classes.

    Examples
    --------
    >>> old, new = (make_head("next-item", settings=HeadSettings(dim=2, start=start)) for start in (1.0, 0.0))
    >>> AdditiveHead(old, new).score(torch.eye(2), torch.tensor([[3.0, 1.0]])).tolist()
    [[3.0], [1.0]]
    """

    def __init__(self, transferred: Head, task: Head, *, apart: bool = False) -> None:
        super().__init__(task.settings, task.loss_name)
        if transferred.settings.labels != task.settings.labels:
            raise InputError("the transferred and the task head have other classes", fix="pass the same labels")
        if transferred.unit != task.unit:
            raise InputError(f"{transferred.unit} and {task.unit} do not add up", fix="use alike heads and losses")
        self.transferred, self.task, self.apart, self.unit = transferred, task, apart, task.unit
        transferred.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> AdditiveHead:
        """Train the task head, or not; the transferred one stays as it is used."""
        super().train(mode)
        self.transferred.eval()
        return self

    def query(self, states: Tensor) -> Tensor:
        """Return both queries side by side."""
        old, new = self._sides(states)
        return torch.cat([self.transferred.query(old).detach(), self.task.query(new)], dim=1)

    def keys(self, table: Tensor | None) -> Tensor:
        """Return both keys side by side."""
        old, new = (None, None) if table is None else self._sides(table)
        return torch.cat([self.transferred.keys(old).detach(), self.task.keys(new)], dim=1)

    def loss_of(self, query: Tensor, keys: Tensor, truth: Truth) -> Tensor:
        """Return the task's loss of the summed scores."""
        return self.task.loss_of(query, keys, truth)

    def meaning(self, scores: Tensor) -> Tensor:
        """Return what the summed scores say to the task."""
        return self.task.meaning(scores)

    def _sides(self, both: Tensor) -> tuple[Tensor, Tensor]:
        if not self.apart:
            return both, both
        width = self.transferred.settings.dim
        return both[:, :width], both[:, width:]


#: Every head by name.
HEADS: Final[dict[str, type[Head]]] = {
    kind.name: kind for kind in (NextItemHead, RankingHead, RatingHead, ClassificationHead)
}


def make_head(name: str, loss: str = "", *, settings: HeadSettings) -> Head:
    """Return a new head.

    Parameters
    ----------
    name : str
        One of :data:`HEADS`.
    loss : str
        One of its losses; its default if empty.
    settings : HeadSettings
        Sizes and names.

    Raises
    ------
    InputError
        There is no such head or loss, or the settings do not suit it.

    Examples
    --------
    >>> make_head("ranking", "bce", settings=HeadSettings(dim=4)).loss_name
    'bce'
    """
    if name not in HEADS:
        raise InputError(f"no head '{name}'{nearest(name, list(HEADS))}", fix=f"heads: {', '.join(HEADS)}")
    if settings.dim < 1:
        raise InputError(f"a head of dim {settings.dim}", fix="take 1 or more")
    kind = HEADS[name]
    if loss and loss not in kind.losses:
        known = ", ".join(kind.losses)
        raise InputError(f"head {name} has no loss '{loss}'{nearest(loss, list(kind.losses))}", fix=f"losses: {known}")
    return kind(settings, loss or kind.losses[0])


def draw_negatives(wanted: Tensor, n_items: int, n: int, generator: torch.Generator) -> Tensor:
    """Return ``n`` items for each wanted one, drawn evenly from all others, int64 (B, n).

    Raises
    ------
    InputError
        There is no other item.

    Examples
    --------
    >>> draw_negatives(torch.tensor([0, 1]), 2, 2, torch.Generator().manual_seed(0)).tolist()
    [[1, 1], [0, 0]]
    """
    if n_items < 2:
        raise InputError("no item to draw besides the wanted one", fix="rank at least two items")
    drawn = torch.randint(n_items - 1, (wanted.numel(), n), generator=generator, device=generator.device)
    drawn = drawn.to(wanted.device)
    return drawn + (drawn >= wanted[:, None])
