"""Softmax over items: exact over a whole catalogue, a block at a time, or over a sample of it."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from isthmus.errors import InputError

#: Scores held at a time by :func:`catalogue_softmax` on a CPU (16 MB in float32), and elsewhere.
CELLS: Final = {"cpu": 1 << 22}
CELLS_ELSEWHERE: Final = 1 << 26
#: Rows held at a time, at least.
FEWEST_ROWS: Final = 32
#: A right answer less likely than this is looked at again, with logarithms.
UNLIKELY: Final = 1e-30


def catalogue_softmax(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float | Tensor = 1.0,
) -> Tensor:
    """Return the exact cross-entropy of next items over the whole catalogue, without ever holding all scores.

    The scores are ``scale * states @ table.T + bias``, softmax over the items. A block of rows at a time, the scores
    become probabilities and these the gradients of states, table and bias, all in the forward pass (in the manner of
    the fused linear cross-entropy of Hsu et al., Liger Kernel, 2024, arXiv:2410.10989). The backward pass only scales
    them; there is no second derivative.

    Parameters
    ----------
    states : Tensor (P, d)
        What is known of each person at each place. If both ``states`` and ``table`` are bfloat16, products are taken
        in it, else in float32 (or float64); softmax and sums are float32 at least. Autocast changes nothing.
    table : Tensor (T, d)
        Item vectors.
    targets : int64 Tensor (P,)
        Row of ``table`` that came next.
    weights : Tensor (P,), optional
        How much each row counts, 0 or more; all alike by default.
    bias : Tensor (T,), optional
        Added to the score of each item.
    scale : float or scalar Tensor
        Inverse temperature; a Tensor can be learned.

    Returns
    -------
    Tensor
        Scalar, float32 (float64 for float64).

    Raises
    ------
    InputError
        Shapes do not fit; or, in the backward pass, a second derivative is asked for.

    Examples
    --------
    >>> states, table = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> round(float(catalogue_softmax(states, table, torch.tensor([0, 2]))), 4)
    0.3955
    """
    return _exact(states * scale, table, targets, weights, (bias, None))


def unseen_softmax(
    states: Tensor, table: Tensor, targets: Tensor, weights: Tensor | None, seen_rows: Tensor, seen_items: Tensor
) -> Tensor:
    """Return :func:`catalogue_softmax` where each row has items that cannot come next, as lists leave them out.

    A model that is asked for new items only should not spend its strength on pushing down what somebody just met,
    and all that is like it.

    Parameters
    ----------
    states, table, targets, weights : Tensors
        As for :func:`catalogue_softmax`.
    seen_rows, seen_items : int64 Tensors (M,)
        Row of ``states``, rising, and row of ``table`` that it cannot have next; the right answer is left alone.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> states, table = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> rows, items = torch.tensor([0, 0]), torch.tensor([1, 2])
    >>> round(float(unseen_softmax(states, table, torch.tensor([0, 2]), torch.tensor([1.0, 0.0]), rows, items)), 4)
    0.0
    """
    kept = seen_items != targets[seen_rows]
    return _exact(states, table, targets, weights, (None, (seen_rows[kept], seen_items[kept])))


def _exact(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    more: tuple[Tensor | None, tuple[Tensor, Tensor] | None],
) -> Tensor:
    """Return the loss, given bias and what was seen."""
    _check(states, table, targets)
    bias, seen = more
    kind = torch.promote_types(states.dtype, table.dtype)
    kind = torch.float32 if kind is torch.float16 else kind
    queries, items = states.to(kind), table.to(kind)
    shares = shares_of(weights, targets.numel(), queries)
    if not torch.is_grad_enabled():
        queries, items, bias = queries.detach(), items.detach(), None if bias is None else bias.detach()
    return _CatalogueSoftmax.apply(queries, items, bias, targets, (shares, seen))


class _CatalogueSoftmax(torch.autograd.Function):  # type: ignore[misc]
    """Loss and gradients of :func:`catalogue_softmax`, ``shares`` being weights that sum to 1."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        states: Tensor,
        table: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        counted: tuple[Tensor, tuple[Tensor, Tensor] | None],
    ) -> Tensor:
        shares, seen = counted
        needed = ctx.needs_input_grad[:3]
        wide = shares.dtype
        P, T = states.shape[0], table.shape[0]
        rows = block_rows(P, T, states.device.type)
        with torch.autocast(states.device.type, enabled=False):
            d_states = torch.empty_like(states) if needed[0] else None
            d_table = torch.zeros_like(table, dtype=wide) if needed[1] else None
            d_bias = torch.zeros_like(bias, dtype=wide) if needed[2] else None
            scores, chances = shares.new_empty(rows, T), shares.new_empty(P)
            for first in range(0, P, rows):
                part = slice(first, first + rows)
                state, share, target = states[part], shares[part, None], targets[part, None]
                cells = None if seen is None else _cells(seen, first, first + rows)
                chance = _chances((state, table), bias, cells, scores[: state.shape[0]])
                chances[part] = chance.gather(1, target).squeeze(1)
                chance.scatter_add_(1, target, -torch.ones_like(share))
                slope = chance.to(table.dtype)
                if d_states is not None:
                    torch.mm(slope, table, out=d_states[part])
                if d_table is not None:
                    _add_product(d_table, slope.T, (state * share).to(table.dtype))
                if d_bias is not None:
                    d_bias.addmv_(chance.T, share[:, 0])
            if d_states is not None:
                d_states.mul_(shares[:, None])
            losses = _surprise(chances, states, table, bias, targets)
        ctx.save_for_backward(*(part for part in (d_states, d_table, d_bias) if part is not None))
        ctx.kinds = states.dtype, table.dtype, None if bias is None else bias.dtype
        return (losses * shares).sum()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise InputError("catalogue_softmax has no second derivative", fix="leave out create_graph=True")
        saved = iter(ctx.saved_tensors)
        grads = [
            (next(saved) * d_loss).to(kind) if need else None
            for need, kind in zip(ctx.needs_input_grad[:3], ctx.kinds, strict=True)
        ]  # fmt: skip
        return (*grads, None, None)


def block_rows(P: int, T: int, device: str) -> int:
    """Return how many rows of scores over ``T`` items are held at a time on a kind of device."""
    cells = CELLS.get(device, CELLS_ELSEWHERE)
    return max(min(max(cells // max(T, 1), FEWEST_ROWS), P), 1)


def _cells(seen: tuple[Tensor, Tensor], first: int, last: int) -> tuple[Tensor, Tensor]:
    """Return row, counted from ``first``, and item of what was seen by the rows of a block."""
    rows, items = seen
    span = torch.searchsorted(rows, torch.tensor([first, last], device=rows.device)).tolist()
    return rows[span[0] : span[1]] - first, items[span[0] : span[1]]


def _chances(
    factors: tuple[Tensor, Tensor], bias: Tensor | None, cells: tuple[Tensor, Tensor] | None, out: Tensor
) -> Tensor:
    """Return the probability of each item for each state, in ``out`` where that is safe; none for ``cells``."""
    states, table = factors
    if states.dtype == out.dtype:
        torch.mm(states, table.T, out=out)
    else:
        out.copy_(states @ table.T)
    if bias is not None:
        out.add_(bias)
    if cells is not None:
        out[cells] = -torch.inf
    return torch.softmax(out, 1, out=out) if out.device.type == "cpu" else torch.softmax(out, 1)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


def _surprise(chances: Tensor, states: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """Return ``-log(chances)``, (P,); those too small to be told from 0 are computed again by logarithms.

    There what was seen counts in the sum: the loss shown is a little too high, its gradients are not touched.
    """
    losses = chances.log().neg_()
    wide = losses.dtype
    unlikely = (chances < UNLIKELY).nonzero().squeeze(1)
    for some in unlikely.split(block_rows(unlikely.numel(), table.shape[0], table.device.type)):
        scores = (states[some] @ table.T).to(wide)
        scores = scores if bias is None else scores + bias
        losses[some] = -log_softmax(scores, 1).gather(1, targets[some, None]).squeeze(1)
    return losses


def sampled_softmax(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    sampled: Tensor,
    log_q: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of next items against a sample of the catalogue that all rows share.

    The sum over all other items in the softmax is replaced by its estimate from the sample, in which each drawn item
    counts ``1 / q``: its score is ``state . item - log q`` (Bengio and Senecal, IEEE Trans. Neural Networks 2008; Yi et
    al., RecSys 2019). A row's own target among the sample does not count. The more are drawn, from whatever
    distribution that can draw all, the nearer loss and gradient come to those of :func:`catalogue_softmax`.

    Parameters
    ----------
    states : Tensor (P, d)
        What is known of each person at each place.
    table : Tensor (U, d)
        Item vectors, each item in one row only: an own target is known by its row.
    targets : int64 Tensor (P,)
        Row of ``table`` that came next.
    sampled : int64 Tensor (C,)
        Rows of ``table`` drawn; an item drawn twice stands twice.
    log_q : Tensor (C,)
        Logarithm of the expected number of times that each is drawn: ``log(C * p)`` for ``C`` draws with replacement
        at probability ``p``; of the probability to be drawn at all where an item stands once at most.
    weights : Tensor (P,), optional
        How much each row counts; all alike by default.

    Returns
    -------
    Tensor
        Scalar.

    Raises
    ------
    InputError
        Shapes do not fit.

    Examples
    --------
    >>> states, table, every = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), torch.arange(3)
    >>> round(float(sampled_softmax(states, table, torch.tensor([0, 2]), every, torch.zeros(3))), 4)
    0.3955
    """
    return _sampled((states, table, targets), (sampled, log_q), weights, None)


def unseen_sampled_softmax(
    states: Tensor,
    table: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    sample: tuple[Tensor, Tensor],
    seen: tuple[Tensor, Tensor],
) -> Tensor:
    """Return :func:`sampled_softmax` where each row has items that cannot come next.

    What is drawn of these does not count: the sum over the other items is that of :func:`unseen_softmax`, estimated.

    Parameters
    ----------
    states, table, targets, weights : Tensors
        As for :func:`sampled_softmax`.
    sample : two Tensors (C,)
        Rows of ``table`` drawn, and the logarithm of the expected number of times that each is drawn.
    seen : two int64 Tensors (M,)
        Row of ``states``, and row of ``table`` that it cannot have next; the right answer is left alone.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> states, table = torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> sample, seen = (torch.arange(3), torch.zeros(3)), (torch.tensor([0, 0]), torch.tensor([1, 2]))
    >>> weights = torch.tensor([1.0, 0.0])
    >>> round(float(unseen_sampled_softmax(states, table, torch.tensor([0, 2]), weights, sample, seen)), 4)
    0.0
    """
    return _sampled((states, table, targets), sample, weights, seen)


def _sampled(
    asked: tuple[Tensor, Tensor, Tensor],
    sample: tuple[Tensor, Tensor],
    weights: Tensor | None,
    seen: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return the loss, given states, table and targets, what was drawn, and what was seen."""
    (states, table, targets), (sampled, log_q) = asked, sample
    _check(states, table, targets)
    if sampled.shape != log_q.shape or sampled.dim() != 1:
        raise InputError(f"log_q {tuple(log_q.shape)} does not fit sampled {tuple(sampled.shape)}")
    own = (states * table[targets]).sum(1, keepdim=True).float()
    others = (states @ table[sampled].T).float() - log_q
    barred = sampled == targets[:, None]
    if seen is not None:
        barred[_drawn(sampled, *seen)] = True
    losses = -log_softmax(torch.cat([own, others.masked_fill(barred, -torch.inf)], dim=1), dim=1)[:, 0]
    return (losses * shares_of(weights, losses.numel(), losses)).sum()


def _drawn(sampled: Tensor, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Return row, and place in ``sampled``, of each time that one of ``items`` (M,) was drawn."""
    (ordered, order), items = sampled.sort(), items.contiguous()
    first = torch.searchsorted(ordered, items)
    times = torch.searchsorted(ordered, items, right=True) - first
    within = torch.arange(int(times.sum()), device=items.device) - (times.cumsum(0) - times).repeat_interleave(times)
    return rows.repeat_interleave(times), order[first.repeat_interleave(times) + within]


def _check(states: Tensor, table: Tensor, targets: Tensor) -> None:
    fits = states.dim() == table.dim() == 2 and states.shape[1] == table.shape[1] and table.shape[0] > 0
    if not fits or targets.shape != states.shape[:1]:
        shapes = ", ".join(str(tuple(part.shape)) for part in (states, table, targets))
        raise InputError(f"states, table, targets of shapes {shapes} do not fit", fix="pass (P, d), (T, d) and (P,)")


def shares_of(weights: Tensor | None, rows: int, like: Tensor) -> Tensor:
    """Return weights that sum to 1, (rows,), float32 at least; all 0 where nothing counts.

    Raises
    ------
    InputError
        There is not one weight a row.

    Examples
    --------
    >>> shares_of(torch.tensor([1.0, 3.0]), 2, torch.zeros(1)).tolist()
    [0.25, 0.75]
    """
    kind = torch.promote_types(like.dtype, torch.float32)
    if weights is None:
        return torch.full((rows,), 1.0 / max(rows, 1), dtype=kind, device=like.device)
    if weights.shape != (rows,):
        raise InputError(f"{tuple(weights.shape)} weights for {rows} rows", fix="pass one weight a row")
    total = weights.detach().to(kind)
    return total / total.sum().clamp(min=torch.finfo(kind).tiny)
