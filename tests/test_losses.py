"""Losses against naive oracles; gradients; what the sampled softmax approaches; memory of the whole-catalogue one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isthmus.errors import InputError
from isthmus.model import losses
from isthmus.model.losses import catalogue_softmax


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows at a time."""
    monkeypatch.setattr(losses, "FEWEST_ROWS", 3)
    monkeypatch.setattr(losses, "CELLS", {"cpu": 1})


def draw(P: int, T: int, d: int, *, kind: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
    """Return states, table, bias that learn, targets and weights."""
    source = torch.Generator().manual_seed(seed)
    leaves = [torch.randn(*shape, generator=source, dtype=torch.float64) for shape in ((P, d), (T, d), (T,))]
    states, table, bias = (leaf.to(kind).requires_grad_() for leaf in leaves)
    targets = torch.randint(T, (P,), generator=source)
    return states, table, bias, targets, torch.rand(P, generator=source, dtype=torch.float64)


def oracle(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean cross-entropy, row by row."""
    total = 0.0
    for row, target, weight in zip(scores, targets, weights, strict=True):
        total += weight * (np.log(np.sum(np.exp(row - row.max()))) + row.max() - row[target])
    return float(total / weights.sum())


@settings(max_examples=30, deadline=None)
@given(P=st.integers(1, 9), T=st.integers(1, 9), d=st.integers(1, 4), seed=st.integers(0, 99), tilt=st.booleans())
def test_whole_catalogue_is_the_naive_sum(P: int, T: int, d: int, seed: int, tilt: bool) -> None:
    states, table, bias, targets, weights = draw(P, T, d, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "FEWEST_ROWS", 2)
        patch.setattr(losses, "CELLS", {"cpu": 1})
        loss = catalogue_softmax(states, table, targets, weights, bias=bias if tilt else None, scale=1.7)
    scores = 1.7 * (states @ table.T) + (bias if tilt else 0)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(oracle(scores.detach().numpy(), targets.numpy(), weights.numpy()), abs=1e-9)


@pytest.mark.usefixtures("small_blocks")
def test_whole_catalogue_gradients() -> None:
    states, table, bias, targets, weights = draw(7, 5, 3)
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def loss(*leaves: Tensor) -> Tensor:
        return catalogue_softmax(leaves[0], leaves[1], targets, weights, bias=leaves[2], scale=leaves[3])

    assert torch.autograd.gradcheck(loss, (states, table, bias, scale))
    with pytest.raises(InputError, match="no second derivative"):
        torch.autograd.grad(loss(states, table, bias, scale), states, create_graph=True)
