"""Heads: what they score and say, that they learn known answers, what stays frozen, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from isthmus.errors import InputError
from isthmus.model.heads import (
    HEADS,
    AdditiveHead,
    ClassificationHead,
    Head,
    HeadSettings,
    RatingHead,
    Truth,
    draw_negatives,
    make_head,
)
from isthmus.model.losses import bce, bpr, catalogue_softmax

DIM = 4
LABELS = ("books", "films", "music")
ALL = [(name, loss) for name, kind in HEADS.items() for loss in kind.losses]


def new(name: str, loss: str = "", *, start: float = 1.0, dim: int = DIM) -> Head:
    """Return a head whose parameters are no longer what they start as."""
    head = make_head(name, loss, settings=HeadSettings(dim, start, LABELS if name == "classification" else ()))
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in head.parameters():
            part += 0.1 * torch.randn(part.shape, generator=source)
    return head


def world(B: int = 64, T: int = 10, seed: int = 0) -> tuple[Tensor, Tensor, Truth]:
    """Return states, items and truths of every kind."""
    source = torch.Generator().manual_seed(seed)
    states, table = torch.randn(B, DIM, generator=source), torch.randn(T, DIM, generator=source)
    wanted = torch.randint(3, (B,), generator=source)
    ratings = torch.randint(1, 6, (B,), generator=source).float()
    return states, table, Truth(wanted, draw_negatives(wanted, T, 2, source), ratings)


def learn(head: Head, states: Tensor, table: Tensor | None, truth: Truth, steps: int = 300) -> float:
    """Return the loss after some steps."""
    learned = [part for part in head.parameters() if part.requires_grad]
    optimiser = torch.optim.Adam(learned, lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = head.loss(states, table, truth)
        loss.backward()
        optimiser.step()
    return loss.item()


@pytest.mark.parametrize("name", ["next-item", "ranking"])
def test_a_new_item_head_scores_as_the_carrier(name: str) -> None:
    states, table, _ = world()
    head = make_head(name, settings=HeadSettings(DIM))
    torch.testing.assert_close(head.score(states, table), states @ table.T)


def test_losses_of_item_heads_are_those_of_their_scores() -> None:
    states, table, truth = world()
    rows = torch.arange(states.shape[0])
    weights = torch.rand(rows.numel())
    truth = Truth(truth.wanted, truth.negatives, truth.ratings, weights)
    softmax = new("next-item")
    mapped = softmax.map(states)
    expected = catalogue_softmax(mapped, table, truth.wanted, weights)
    torch.testing.assert_close(softmax.loss(states, table, truth), expected)
    for name, loss in (("bpr", bpr), ("bce", bce)):
        head = new("ranking", name)
        scores = head.score(states, table)
        expected = loss(scores[rows, truth.wanted], scores.gather(1, truth.negatives), weights)
        torch.testing.assert_close(head.loss(states, table, truth), expected)


@pytest.mark.parametrize(("name", "loss"), ALL)
def test_every_head_falls_saves_and_says_the_same_again(name: str, loss: str, tmp_path: Path) -> None:
    states, table, truth = world()
    head = new(name, loss)
    if isinstance(head, RatingHead):
        head.learn_scale(truth.ratings)
    before = head.loss(states, table, truth).item()
    after = learn(head, states, table, truth, 60)
    assert after < before - 0.01
    said = head.predict(states, table)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    again = make_head(name, loss, settings=head.settings)
    again.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert torch.equal(again.predict(states, table), said)
    columns = torch.arange(states.shape[0]) % said.shape[1]
    if name == "classification":
        torch.testing.assert_close(said.sum(1), torch.ones(len(said)))
    else:
        torch.testing.assert_close(head.predict(states, table, columns), said[torch.arange(len(said)), columns])


@pytest.mark.parametrize("loss", RatingHead.losses)
def test_ratings_that_the_head_can_say_are_found_again(loss: str) -> None:
    """Of a world in which the ratings come from such a head, most of the variance is told."""
    states, table, _ = world(B=600)
    truth_head = new("rating", loss)
    with torch.no_grad():
        truth_head.map.weight.add_(torch.eye(DIM)).mul_(
            0.2 if loss == "mse" else 1.5
        )  # few places beyond the ends of the scale
    truth_head.scale.copy_(torch.tensor([1.0, 5.0]))
    truth_head.person.bias.data.fill_(0.5 if loss == "mse" else 0.0)
    wanted = torch.arange(600) % table.shape[0]
    with torch.no_grad():
        ratings = truth_head.predict(states, table, wanted)
    head = make_head("rating", loss, settings=HeadSettings(DIM)).learn_scale(ratings)
    learn(head, states[:400], table, Truth(wanted[:400], ratings=ratings[:400]))
    with torch.no_grad():
        said = head.predict(states[400:], table, wanted[400:])
    left = ((said - ratings[400:]) ** 2).mean() / ratings[400:].var()
    assert left < 0.1
    assert ratings.min() <= said.min()
    assert said.max() <= ratings.max()


@pytest.mark.parametrize("loss", RatingHead.losses)
def test_a_rating_head_starts_at_the_mean_place_of_its_scale(loss: str) -> None:
    head = make_head("rating", loss, settings=HeadSettings(DIM, start=1.0))
    ratings = torch.tensor([2.0, 10.0, 9.0, 9.0])
    head.learn_scale(ratings)
    assert head.scale.tolist() == [2, 10]
    said = head.predict(torch.randn(3, DIM), torch.randn(5, DIM))
    assert said.flatten().tolist() == pytest.approx([7.5] * 15), "how near an item is to a person is no rating"


def test_ratings_never_leave_the_scale() -> None:
    for loss in RatingHead.losses:
        head = new("rating", loss).learn_scale(torch.tensor([1.0, 5.0]))
        said = head.predict(torch.tensor([[500.0, 0, 0, 0], [-500.0, 0, 0, 0]]), torch.eye(DIM)[:1])
        assert said.flatten().tolist() == pytest.approx([5, 1])


@pytest.mark.parametrize(("name", "loss"), ALL)
def test_rows_of_weight_zero_do_not_count(name: str, loss: str) -> None:
    states, table, truth = world()
    half = torch.arange(64) < 32
    head = new(name, loss)
    if isinstance(head, RatingHead):
        head.learn_scale(truth.ratings)
    some = Truth(truth.wanted[:32], truth.negatives[:32], truth.ratings[:32])
    weighed = Truth(truth.wanted, truth.negatives, truth.ratings, half.float())
    torch.testing.assert_close(head.loss(states, table, weighed), head.loss(states[:32], table, some))


def test_epsilon_of_the_settings_is_used() -> None:
    states, table, truth = world()
    ratings = [make_head("rating", "squared-log-ratio", settings=HeadSettings(DIM, epsilon=e)) for e in (0.1, 1.0)]
    narrow, wide = (head.learn_scale(truth.ratings).loss(states, table, truth) for head in ratings)
    assert narrow > 1.3 * wide


def test_items_that_are_rated_higher_score_higher() -> None:
    states, table, _ = world(B=200)
    wanted = torch.arange(200) % 10
    head = make_head("rating", settings=HeadSettings(DIM))
    ratings = 3 + table[wanted, 0]
    head.learn_scale(ratings)
    learn(head, states, table, Truth(wanted, ratings=ratings))
    order = head.score(states, table).mean(0).argsort()
    assert order.tolist() == table[:, 0].argsort().tolist()


def test_classes_are_learned_and_named() -> None:
    states, _, _ = world(B=300)
    codes = states[:, :3].argmax(1)
    head = make_head("classification", settings=HeadSettings(DIM, labels=LABELS))
    assert isinstance(head, ClassificationHead)
    names = [LABELS[code] for code in codes.tolist()]
    assert head.codes(names).tolist() == codes.tolist()
    some = torch.where(torch.arange(300) % 3 == 0, -1, codes)
    learn(head, states, None, Truth(some))
    right = [said == name for said, name in zip(head.names(states), names, strict=True)]
    assert sum(right) > 0.93 * 300


@pytest.mark.parametrize(("name", "loss"), ALL)
@pytest.mark.parametrize("apart", [False, True])
def test_additive_scores_are_the_sum_and_only_the_task_learns(name: str, loss: str, apart: bool) -> None:
    states, table, truth = world()
    old, task = new(name, loss), new(name, loss, start=0.0)
    other_states, other_table, _ = world(seed=1)
    both = AdditiveHead(old, task, apart=apart).train()
    first = (states, table) if not apart else (torch.cat([other_states, states], 1), torch.cat([other_table, table], 1))
    carried = old.score(other_states, other_table) if apart else old.score(states, table)
    torch.testing.assert_close(both.score(*first), carried + task.score(states, table))
    for part in (old, task):
        if isinstance(part, RatingHead):
            part.learn_scale(truth.ratings)
    kept = {key: value.clone() for key, value in old.state_dict().items()}
    start = both.loss(*first, truth).item()
    assert learn(both, *first, truth, 60) < start
    assert not old.training
    assert all(torch.equal(value, kept[key]) for key, value in old.state_dict().items())
    torch.testing.assert_close(both.predict(*first), task.meaning(both.score(*first)))


def test_an_added_head_that_starts_at_zero_changes_nothing_and_can_learn() -> None:
    states, table, truth = world()
    old = new("next-item")
    task = make_head("next-item", settings=HeadSettings(DIM, start=0.0))
    both = AdditiveHead(old, task)
    torch.testing.assert_close(both.score(states, table), old.score(states, table))
    both.loss(states, table, truth).backward()
    assert task.map.weight.grad.abs().sum() > 0


def test_the_carried_head_asks_for_no_gradient() -> None:
    both = AdditiveHead(new("ranking"), new("ranking"))
    assert {name.split(".")[0] for name, part in both.named_parameters() if part.requires_grad} == {"task"}


def test_no_gradient_reaches_the_carried_states() -> None:
    states, table, truth = world()
    wide = torch.cat([states, states], 1).requires_grad_()
    AdditiveHead(new("next-item"), new("next-item"), apart=True).loss(wide, torch.cat([table] * 2, 1), truth).backward()
    assert not wide.grad[:, :DIM].any()
    assert wide.grad[:, DIM:].any()


@settings(max_examples=30, deadline=None)
@given(T=st.integers(2, 7), seed=st.integers(0, 99))
def test_negatives_are_all_other_items_evenly(T: int, seed: int) -> None:
    wanted = torch.arange(T)
    drawn = draw_negatives(wanted, T, 1500, torch.Generator().manual_seed(seed))
    assert drawn.shape == (T, 1500)
    counts = torch.stack([(drawn == item).sum(1) for item in range(T)], 1).float() / 1500
    expected = (1 - torch.eye(T)) / (T - 1)
    assert (counts.diagonal() == 0).all()
    assert (counts - expected).abs().max() < 0.08


def test_unknown_heads_losses_and_classes_are_named() -> None:
    plain = HeadSettings(DIM)
    with pytest.raises(InputError, match=r"did you mean 'ranking'.*heads: next-item, ranking, rating, classification"):
        make_head("rankings", settings=plain)
    with pytest.raises(InputError, match="did you mean 'bpr'"):
        make_head("ranking", "bprr", settings=plain)
    with pytest.raises(InputError, match="losses: softmax"):
        make_head("next-item", "mse", settings=plain)
    with pytest.raises(InputError, match="dim 0"):
        make_head("next-item", settings=HeadSettings(0))
    for labels in ((), ("a", "a")):
        with pytest.raises(InputError, match="classes without names"):
            make_head("classification", settings=HeadSettings(DIM, labels=labels))
    with pytest.raises(InputError, match=r"no class 'film'.*films"):
        new("classification").codes(["film"])


def test_what_a_loss_needs_is_asked_for() -> None:
    states, table, truth = world()
    with pytest.raises(InputError, match="negatives"):
        new("ranking").loss(states, table, Truth(truth.wanted))
    with pytest.raises(InputError, match="needs ratings"):
        new("rating").loss(states, table, Truth(truth.wanted))
    with pytest.raises(InputError, match="table"):
        new("next-item").score(states)
    with pytest.raises(InputError, match="besides"):
        draw_negatives(truth.wanted, 1, 1, torch.Generator())


@pytest.mark.parametrize("ratings", [[], [3.0, 3.0], [1.0, float("nan")]])
def test_ratings_without_a_scale_are_refused(ratings: list[float]) -> None:
    with pytest.raises(InputError, match="no scale"):
        new("rating").learn_scale(torch.tensor(ratings))


def test_ratings_without_a_logarithm_are_refused() -> None:
    with pytest.raises(InputError, match="rating of -1 has no logarithm"):
        new("rating", "squared-log-ratio").learn_scale(torch.tensor([-1.0, 3.0]))
    new("rating", "mse").learn_scale(torch.tensor([-1.0, 3.0]))


def test_scores_of_different_units_do_not_add() -> None:
    with pytest.raises(InputError, match="do not add up"):
        AdditiveHead(new("next-item"), new("rating"))
    with pytest.raises(InputError, match="do not add up"):
        AdditiveHead(new("rating", "mse"), new("rating", "bce01"))
    AdditiveHead(new("next-item"), new("ranking"))
    other = make_head("classification", settings=HeadSettings(DIM, labels=("a", "b", "c")))
    with pytest.raises(InputError, match="same labels"):
        AdditiveHead(other, new("classification"))
