"""Losses against naive oracles; gradients; what the sampled softmax approaches; what the whole-catalogue one holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy as reference
from torch.utils._python_dispatch import TorchDispatchMode

from isthmus.errors import InputError
from isthmus.model import softmax
from isthmus.model.losses import (
    bce,
    bce01,
    bpr,
    catalogue_softmax,
    cross_entropy,
    info_nce,
    mse,
    sampled_softmax,
    squared_log_ratio,
    unseen_sampled_softmax,
    unseen_softmax,
)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows at a time."""
    monkeypatch.setattr(softmax, "FEWEST_ROWS", 3)
    monkeypatch.setattr(softmax, "CELLS", {"cpu": 1})


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
        patch.setattr(softmax, "FEWEST_ROWS", 2)
        patch.setattr(softmax, "CELLS", {"cpu": 1})
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


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_whole_catalogue_computes_only_gradients_that_are_needed(wanted: tuple[bool, ...]) -> None:
    *leaves, targets, weights = draw(7, 5, 3)
    for leaf, want in zip(leaves, wanted, strict=True):
        leaf.requires_grad_(want)
    catalogue_softmax(leaves[0], leaves[1], targets, weights, bias=leaves[2]).backward()
    got = [leaf.grad for leaf in leaves]
    assert [grad is not None for grad in got] == list(wanted)
    learned = leaves[wanted.index(True)]
    scores = leaves[0] @ leaves[1].T + leaves[2]
    expected = (reference(scores, targets, reduction="none") * weights).sum() / weights.sum()
    torch.testing.assert_close(learned.grad, torch.autograd.grad(expected, learned)[0])


def test_whole_catalogue_without_gradients() -> None:
    states, table, bias, targets, weights = draw(6, 4, 3)
    with torch.no_grad():
        quiet = catalogue_softmax(states, table, targets, weights, bias=bias)
    assert not quiet.requires_grad
    assert quiet.item() == catalogue_softmax(states, table, targets, weights, bias=bias).item()


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 3e-3)])
@pytest.mark.usefixtures("small_blocks")
def test_whole_catalogue_in_short_numbers(kind: torch.dtype, tolerance: float) -> None:
    states, table, bias, targets, weights = draw(64, 50, 8, kind=kind)
    exact = [part.detach().double().requires_grad_() for part in (states, table, bias)]
    loss = catalogue_softmax(states, table, targets, weights, bias=bias)
    true = catalogue_softmax(exact[0], exact[1], targets, weights, bias=exact[2])
    loss.backward()
    true.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(true.item(), rel=tolerance)
    for part, whole in zip((states, table, bias), exact, strict=True):
        assert part.grad.dtype == kind
        off = (part.grad.double() - whole.grad).norm() / whole.grad.norm()
        assert off < tolerance


def test_autocast_changes_nothing() -> None:
    states, table, _, targets, weights = draw(9, 30, 4, kind=torch.float32)
    states = states * 100  # some targets so unlikely that they are computed by logarithms
    plain = catalogue_softmax(states, table, targets, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = catalogue_softmax(states, table, targets, weights)
        assert mse(states[0], states[1]).dtype == torch.float32
    exact = catalogue_softmax(states.double(), table.double(), targets, weights)
    assert plain.item() == cast.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("biased", [False, True])
def test_an_impossible_item_costs_its_true_surprise(biased: bool) -> None:
    """Its probability cannot be told from 0 in float32."""
    states, table = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[0.0], [400.0]], requires_grad=True)
    bias = torch.tensor([-50.0, 0.0]) if biased else None
    loss = catalogue_softmax(states, table, torch.tensor([0, 1, 0]), bias=bias)
    assert loss.item() == pytest.approx((450 if biased else 400) * 2 / 3)
    loss.backward()
    assert table.grad.squeeze().tolist() == pytest.approx([-2 / 3, 2 / 3])


@pytest.mark.parametrize("P", [0, 3])
def test_where_nothing_counts_the_loss_is_zero(P: int) -> None:
    states, table, _, targets, _ = draw(P, 4, 2)
    loss = catalogue_softmax(states, table, targets, torch.zeros(P))
    loss.backward()
    assert loss.item() == 0
    assert not table.grad.any()
    assert not states.grad.any()


def test_a_score_that_is_not_a_number_shows_in_the_loss() -> None:
    states, table, _, targets, _ = draw(3, 4, 2)
    broken = states.detach().clone()
    broken[1, 0] = torch.nan
    assert catalogue_softmax(broken, table, targets).isnan()


class Largest(TorchDispatchMode):
    """Remembers the largest Tensor that any operation returned."""

    cells = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        self.cells = max(
            [self.cells, *(part.untyped_storage().nbytes() // 4 for part in made if torch.is_tensor(part))]
        )
        return out


def test_all_scores_are_never_held() -> None:
    states, table, bias, targets, weights = draw(3000, 2000, 4, kind=torch.float32)
    with Largest() as seen:
        catalogue_softmax(states, table, targets, weights, bias=bias).backward()
    assert seen.cells <= softmax.CELLS["cpu"]
    with Largest() as seen:
        reference(states @ table.T, targets).backward()
    assert seen.cells == 3000 * 2000


def test_rows_held_fit_the_cells() -> None:
    assert softmax.block_rows(4096, 12_000, "cpu") == softmax.CELLS["cpu"] // 12_000
    assert softmax.block_rows(4096, 10_000_000, "cpu") == softmax.FEWEST_ROWS
    assert softmax.block_rows(10, 100, "cpu") == 10


def test_sample_of_everything_is_the_whole() -> None:
    states, table, _, targets, weights = draw(8, 6, 3)
    whole = catalogue_softmax(states, table, targets, weights)
    sample = sampled_softmax(states, table, targets, torch.arange(6), torch.zeros(6), weights)
    assert sample.item() == pytest.approx(whole.item(), rel=1e-5)


def test_own_target_in_the_sample_does_not_count() -> None:
    states, table, _, _, _ = draw(4, 6, 3)
    loss = sampled_softmax(states, table, torch.full((4,), 2), torch.tensor([2, 2]), torch.zeros(2))
    assert loss.item() == 0


@settings(max_examples=40, deadline=None)
@given(P=st.integers(1, 5), C=st.integers(0, 12), seed=st.integers(0, 999))
def test_what_was_seen_is_no_rival_among_the_drawn(P: int, C: int, seed: int) -> None:
    states, table, _, targets, weights = draw(P, 7, 3, seed=seed)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 7, C)
    log_q = rng.normal(size=C)
    rows, items = np.nonzero(rng.random((P, 7)) < 0.3)
    sample = torch.from_numpy(drawn), torch.from_numpy(log_q)
    seen = torch.from_numpy(rows), torch.from_numpy(items)
    found = unseen_sampled_softmax(states, table, targets, weights, sample, seen)
    losses = []
    for row in range(P):
        scores = (table @ states[row]).detach().numpy()
        right = int(targets[row])
        met = set(items[rows == row].tolist()) | {right}
        rivals = [np.exp(scores[item] - q) for item, q in zip(drawn.tolist(), log_q, strict=True) if item not in met]
        losses.append(np.log(np.exp(scores[right]) + sum(rivals)) - scores[right])
    assert found.item() == pytest.approx(naive_mean(losses, weights.numpy()), rel=1e-4, abs=1e-6)


def test_drawing_every_item_once_leaves_what_was_seen_out_as_the_exact_one_does() -> None:
    states, table, _, targets, weights = draw(5, 9, 3, seed=2)
    rows, items = torch.tensor([0, 0, 1, 3, 4, 4]), torch.tensor([1, 8, 2, 2, 0, 5])
    every = torch.arange(9), torch.zeros(9)
    found = unseen_sampled_softmax(states, table, targets, weights, every, (rows, items))
    exact = unseen_softmax(states, table, targets, weights, rows, items)
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)
    assert found.item() < sampled_softmax(states, table, targets, *every, weights).item() - 0.01


def test_sampled_gradient_approaches_the_whole_from_any_distribution() -> None:
    states, table, _, targets, weights = draw(5, 40, 3, seed=3)
    whole = torch.autograd.grad(catalogue_softmax(states, table, targets, weights), table)[0]
    share = torch.softmax(2 * torch.randn(40, generator=torch.Generator().manual_seed(1)), 0) * 0.9 + 0.1 / 40
    source = torch.Generator().manual_seed(7)

    def off(draws: int, *, corrected: bool = True, times: int = 60) -> float:
        """Return the distance of the mean gradient to the true one, relative."""
        total = torch.zeros_like(table)
        for _ in range(times):
            rows = torch.multinomial(share, draws, replacement=True, generator=source)
            log_q = (draws * (share[rows] if corrected else torch.full((draws,), 1 / 40))).log()
            total += torch.autograd.grad(sampled_softmax(states, table, targets, rows, log_q, weights), table)[0]
        return float((total / times - whole).norm() / whole.norm())

    few, some, many = off(5), off(100), off(5000)
    assert few > 2 * some > 2 * many
    assert many < 0.02
    assert off(5000, corrected=False) > 0.2


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def naive_mean(values: list[float], weights: np.ndarray) -> float:
    return float(sum(v * w for v, w in zip(values, weights, strict=True)) / weights.sum())


@settings(max_examples=25, deadline=None)
@given(B=st.integers(1, 6), n=st.integers(1, 4), seed=st.integers(0, 99))
def test_ranking_and_rating_losses_are_the_naive_sums(B: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    up, down, w = rng.normal(size=B), rng.normal(size=(B, n)), rng.uniform(0.1, 1, B)
    y, p = rng.uniform(0, 1, B), rng.uniform(0, 1, B)
    right = [-np.mean([np.log(sigmoid(up[b] - down[b, i])) for i in range(n)]) for b in range(B)]
    told = [-np.log(sigmoid(up[b])) - sum(np.log(1 - sigmoid(down[b, i])) for i in range(n)) for b in range(B)]
    unsure = [-y[b] * np.log(p[b]) - (1 - y[b]) * np.log(1 - p[b]) for b in range(B)]
    ratio = [np.log((y[b] + 0.1) / (p[b] + 0.1)) ** 2 for b in range(B)]
    t: Callable[[np.ndarray], Tensor] = torch.from_numpy
    assert bpr(t(up), t(down), t(w)).item() == pytest.approx(naive_mean(right, w))
    assert bce(t(up), t(down), t(w)).item() == pytest.approx(naive_mean(told, w))
    assert mse(t(p), t(y), t(w)).item() == pytest.approx(naive_mean(list((y - p) ** 2), w))
    assert bce01(t(np.log(p / (1 - p))), t(y), t(w)).item() == pytest.approx(naive_mean(unsure, w))
    assert squared_log_ratio(t(p), t(y), t(w), epsilon=0.1).item() == pytest.approx(naive_mean(ratio, w))
    assert bpr(t(up), t(down)).item() == pytest.approx(np.mean(right))


def test_the_printed_log_ratio_is_unbounded_and_ours_is_not() -> None:
    ratings, guess = torch.tensor([1.0, 3.0]), torch.tensor([1e6, 1e6])
    assert torch.log(ratings / guess).mean() < -12
    assert squared_log_ratio(guess, ratings) > 100
    assert squared_log_ratio(ratings, ratings) == 0


def test_losses_stay_finite_at_extreme_scores() -> None:
    far = torch.tensor([1e4, -1e4], requires_grad=True)
    total = bpr(far, -far[:, None]) + bce(far, far[:, None]) + bce01(far, torch.tensor([0.0, 1.0]))
    total.backward()
    assert total.isfinite()
    assert far.grad.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(B=st.integers(1, 6), C=st.integers(1, 5), seed=st.integers(0, 99))
def test_classes_are_the_naive_sum_over_labelled_rows(B: int, C: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, classes, w = rng.normal(size=(B, C)), rng.integers(-1, C, B), rng.uniform(0.1, 1, B)
    known = classes >= 0
    loss = cross_entropy(*(torch.from_numpy(part) for part in (scores, classes, w))).item()
    expected = oracle(scores[known], classes[known], w[known]) if known.any() else 0.0
    assert loss == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(B=st.integers(1, 5), H=st.integers(0, 3), seed=st.integers(0, 99), both=st.booleans(), wide=st.booleans())
def test_contrast_is_the_naive_sum(B: int, H: int, seed: int, both: bool, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    left, right, hard = rng.normal(size=(B, 3)), rng.normal(size=(B, 3)), rng.normal(size=(H, 3))
    same = rng.random((B, B + H if wide else B)) < 0.4

    def score(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(x @ y / np.linalg.norm(x) / np.linalg.norm(y) / 0.3))

    there, back = 0.0, 0.0
    for b in range(B):
        own = score(left[b], right[b])
        wrong = sum(score(left[b], right[c]) for c in range(B) if c != b and not same[b, c])
        wrong += sum(score(left[b], hard[h]) for h in range(H) if not (wide and same[b, B + h]))
        there -= np.log(own / (own + wrong)) / B
        others = sum(score(left[c], right[b]) for c in range(B) if c != b and not same[c, b])
        back -= np.log(own / (own + others)) / B
    loss = info_nce(
        torch.from_numpy(left), torch.from_numpy(right), temperature=0.3, both=both,
        hard=torch.from_numpy(hard) if H else None, same=torch.from_numpy(same),
    )  # fmt: skip
    assert loss.item() == pytest.approx((there + back) / 2 if both else there, rel=1e-4, abs=1e-5)


def test_contrast_learns_its_temperature() -> None:
    temperature = torch.tensor(0.5, requires_grad=True)
    info_nce(torch.eye(3), torch.eye(3), temperature=temperature).backward()
    assert temperature.grad > 0  # pairs that fit want it colder


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: catalogue_softmax(torch.zeros(2, 3), torch.zeros(4, 2), torch.zeros(2).long()), "do not fit"),
        (lambda: catalogue_softmax(torch.zeros(2, 3), torch.zeros(0, 3), torch.zeros(2).long()), "do not fit"),
        (lambda: catalogue_softmax(torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(3).long()), "do not fit"),
        (lambda: mse(torch.zeros(2), torch.zeros(2), torch.ones(3)), "weights for 2 rows"),
        (lambda: sampled_softmax(torch.eye(2), torch.eye(2), *torch.zeros(2, 2).long(), torch.zeros(3)), "log_q"),
        (lambda: bpr(torch.zeros(2), torch.zeros(2)), "do not fit"),
        (lambda: bce(torch.zeros(2), torch.zeros(3, 1)), "do not fit"),
        (lambda: mse(torch.zeros(2), torch.zeros(2, 1)), "do not fit"),
        (lambda: bce01(torch.zeros(2), torch.tensor([0.0, 5.0])), "not on"),
        (lambda: bce01(torch.zeros(1), torch.tensor([torch.nan])), "not on"),
        (lambda: squared_log_ratio(torch.tensor([-1.0]), torch.zeros(1)), "or less"),
        (lambda: cross_entropy(torch.zeros(2, 3), torch.zeros(3).long()), "do not fit"),
        (lambda: info_nce(torch.zeros(2, 3), torch.zeros(3, 3)), "no pairs"),
        (lambda: info_nce(torch.eye(2), torch.eye(2), same=torch.ones(2, 3) > 0), "mask"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong: Callable[[], Tensor], says: str) -> None:
    with pytest.raises(InputError, match=says):
        wrong()
