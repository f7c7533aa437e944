"""Losses: next items over a whole catalogue or a sample of it, ranking, ratings, classes, and contrast.

Every loss is a scalar Tensor, the mean over the rows of a batch, in float32 at least. ``weights`` say how much each row
counts: the mean is then a weighted one, and 0 where nothing counts. No gradient reaches the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, normalize, pad, softplus

from isthmus.errors import InputError
from isthmus.model.softmax import catalogue_softmax, sampled_softmax, shares_of, unseen_sampled_softmax, unseen_softmax

__all__ = [
    "bce",
    "bce01",
    "bpr",
    "catalogue_softmax",
    "cross_entropy",
    "info_nce",
    "mse",
    "sampled_softmax",
    "squared_log_ratio",
    "unseen_sampled_softmax",
    "unseen_softmax",
]


def bpr(positive: Tensor, negative: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``-log sigmoid(positive - negative)``, mean over negatives and persons (Rendle et al., UAI 2009).

    Parameters
    ----------
    positive : Tensor (B,)
        Score of the item that was chosen.
    negative : Tensor (B, n)
        Scores of items that were not.
    weights : Tensor (B,), optional
        How much each person counts.

    Examples
    --------
    >>> round(bpr(torch.tensor([1.0]), torch.tensor([[0.0, 1.0]])).item(), 4)
    0.5032
    """
    _pairs(positive, negative)
    return _mean(softplus(negative - positive[:, None]).mean(1), weights)


def bce(positive: Tensor, negative: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return ``-log sigmoid(positive) - sum log(1 - sigmoid(negative))``, mean over persons.

    The sum runs over a person's negatives (He et al., NCF, WWW 2017, equation 7).

    Parameters
    ----------
    positive : Tensor (B,)
        Score of the item that was chosen.
    negative : Tensor (B, n)
        Scores of items that were not.
    weights : Tensor (B,), optional
        How much each person counts.

    Examples
    --------
    >>> round(bce(torch.tensor([0.0]), torch.tensor([[0.0, 0.0]])).item(), 4)
    2.0794
    """
    _pairs(positive, negative)
    return _mean(softplus(-positive) + softplus(negative).sum(1), weights)


def mse(predicted: Tensor, actual: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of ``(actual - predicted) ** 2``; both (B,).

    Examples
    --------
    >>> mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])).item()
    2.0
    """
    _same(predicted, actual)
    return _mean((actual - predicted) ** 2, weights)


def bce01(scores: Tensor, actual: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of ``-y log p - (1 - y) log(1 - p)`` with ``p = sigmoid(score)``, for ratings y on [0, 1].

    It is least at ``p = y``, where it is the entropy of y and not 0.

    Parameters
    ----------
    scores : Tensor (B,)
        Before the sigmoid: so no logarithm of 0 can arise.
    actual : Tensor (B,)
        Ratings on [0, 1].
    weights : Tensor (B,), optional
        How much each rating counts.

    Raises
    ------
    InputError
        A rating is not on [0, 1].

    Examples
    --------
    >>> round(bce01(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.5])).item(), 4)
    0.6931
    """
    _same(scores, actual)
    if not bool(((actual >= 0) & (actual <= 1)).all()):
        raise InputError("a rating is not on [0, 1]", fix="bring ratings to [0, 1] first")
    return _mean(softplus(scores) - actual * scores, weights)


def squared_log_ratio(
    predicted: Tensor, actual: Tensor, weights: Tensor | None = None, *, epsilon: float = 1.0
) -> Tensor:
    """Return ``(1/N) sum log((y + epsilon) / (p + epsilon)) ** 2``, the squared error of logarithms.

    The mission prints this loss as ``(1/N) sum log(y / p)``. That is unbounded below: it falls for ever as the
    predictions p grow, whatever the ratings are, so that nothing can be learned from it. Squaring each logarithm gives
    a loss that is 0 at ``p = y`` only, and ``epsilon`` lets both be 0. With ``epsilon`` 1 it is the usual mean squared
    logarithmic error.

    Parameters
    ----------
    predicted, actual : Tensors (B,)
        Above ``-epsilon``.
    weights : Tensor (B,), optional
        How much each rating counts.
    epsilon : float
        Added to both.

    Raises
    ------
    InputError
        A rating or prediction is ``-epsilon`` or less.

    Examples
    --------
    >>> round(squared_log_ratio(torch.tensor([1.0]), torch.tensor([0.0])).item(), 4)
    0.4805
    """
    _same(predicted, actual)
    if bool((torch.stack([predicted, actual]) <= -epsilon).any()):
        raise InputError(f"a rating or prediction is {-epsilon} or less", fix="take a larger epsilon")
    return _mean((torch.log(actual + epsilon) - torch.log(predicted + epsilon)) ** 2, weights)


def cross_entropy(scores: Tensor, classes: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of ``-log softmax(scores)`` at the right class.

    Parameters
    ----------
    scores : Tensor (B, C)
        One column a class.
    classes : int64 Tensor (B,)
        Right column; a row below 0 is not labelled and does not count.
    weights : Tensor (B,), optional
        How much each row counts.

    Examples
    --------
    >>> round(cross_entropy(torch.tensor([[0.0, 0.0], [9.0, 1.0]]), torch.tensor([1, -1])).item(), 4)
    0.6931
    """
    if scores.dim() != 2 or classes.shape != scores.shape[:1]:
        raise InputError(f"classes {tuple(classes.shape)} do not fit scores {tuple(scores.shape)}")
    losses = -log_softmax(scores, 1).gather(1, classes.clamp(min=0)[:, None]).squeeze(1)
    labelled = (classes >= 0).to(losses.dtype)
    return _mean(losses, labelled if weights is None else labelled * weights)


def info_nce(
    left: Tensor,
    right: Tensor,
    *,
    temperature: float | Tensor = 0.05,
    hard: Tensor | None = None,
    same: Tensor | None = None,
    both: bool = True,
) -> Tensor:
    """Return the contrastive loss of pairs: each left vector finds its right one among those of the batch.

    Cross-entropy of cosines over ``temperature`` (van den Oord et al., 2018, equation 4); with ``both``, the mean of
    left to right and right to left (Radford et al., CLIP, ICML 2021).

    Parameters
    ----------
    left, right : Tensors (B, d)
        Row b of both belongs together. They need not have length 1.
    temperature : float or scalar Tensor
        A Tensor can be learned.
    hard : Tensor (H, d), optional
        Further wrong answers for every left vector.
    same : bool Tensor (B, B) or (B, B + H), optional
        True where a column is no wrong answer for a row (the same item, one the person also has): it is left out.
        What it says of the diagonal does not matter.
    both : bool
        Whether right vectors look for left ones as well; ``hard`` takes no part in that.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> round(info_nce(torch.eye(2), torch.eye(2), temperature=1.0).item(), 4)
    0.3133
    """
    B, H = left.shape[0], 0 if hard is None else hard.shape[0]
    if left.shape != right.shape:
        raise InputError(f"left {tuple(left.shape)} and right {tuple(right.shape)} are no pairs")
    if same is not None and tuple(same.shape) not in ((B, B), (B, B + H)):
        raise InputError(f"mask of shape {tuple(same.shape)}", fix=f"pass ({B}, {B}) or ({B}, {B + H})")
    answers = right if hard is None else torch.cat([right, hard])
    scores = (normalize(left, dim=1) @ normalize(answers, dim=1).T).float() / temperature
    if same is not None:
        own = torch.eye(B, same.shape[1], dtype=torch.bool, device=same.device)
        left_out = pad(same & ~own, (0, B + H - same.shape[1]))
        scores = scores.masked_fill(left_out, -torch.inf)
    found = -log_softmax(scores, 1).diagonal().mean()
    return (found - log_softmax(scores[:, :B], 0).diagonal().mean()) / 2 if both else found


def _pairs(positive: Tensor, negative: Tensor) -> None:
    if negative.dim() != 2 or positive.shape != negative.shape[:1]:
        shapes = f"{tuple(positive.shape)} and {tuple(negative.shape)}"
        raise InputError(f"scores of shapes {shapes} do not fit", fix="pass (B,) positive and (B, n) negative ones")


def _same(predicted: Tensor, actual: Tensor) -> None:
    if predicted.shape != actual.shape:
        raise InputError(f"predictions {tuple(predicted.shape)} do not fit ratings {tuple(actual.shape)}")


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    return (losses * shares_of(weights, losses.numel(), losses)).sum()
