"""The training loop: what it learns, in which order, how fast each weight, and what is left in the end."""

from __future__ import annotations

import math
import random
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.pages import run_programs, text_of
from tests.tiny_training import WORDS, TinyBatches, TinyConfig, TinyModel, follows, goodness, tiny
from torch import Tensor, nn
from transformers.utils import ModelOutput

from isthmus.errors import InputError, TrainingError
from isthmus.train.aids import Adversary, groups
from isthmus.train.callbacks import Plan
from isthmus.train.loop import LoopLog, LoopSettings, train
from isthmus.train.weights import average_weights, finite, learned, put

QUICK = LoopSettings(epochs=2, learning_rate=0.02, warmup=0.0, schedule="constant", weight_decay=0.0, clip=0.0)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_dropout(seed: int = 0) -> TinyModel:
    model = tiny(seed)
    model.dropout.p = 0.0
    return model


def by_hand(model: TinyModel, settings: LoopSettings, rates: list[float]) -> None:
    """Train as a textbook would: one group, batches in order, mean gradient over the accumulated ones."""
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    batches, step = TinyBatches(), 0
    model.train()
    for rate in rates:
        optimiser.zero_grad()
        for _ in range(settings.accumulation):
            (model(**batches.batch(step)).loss / settings.accumulation).backward()
            step += 1
        if settings.clip:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()


@pytest.mark.parametrize(
    ("changed", "factors"),
    [
        ({}, [1.0] * 20),
        ({"accumulation": 4}, [1.0] * 5),
        ({"clip": 0.05, "steps": 7}, [1.0] * 7),
        ({"schedule": "linear", "steps": 5}, [1.0, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "linear", "warmup": 0.5, "steps": 4}, [0.0, 0.5, 1.0, 0.5]),
        ({"schedule": "constant", "warmup": 0.5, "steps": 4}, [0.0, 0.5, 1.0, 1.0]),
        ({"schedule": "cosine", "steps": 4}, [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]),
    ],
    ids=["plain", "accumulation", "clip", "linear", "warm-up", "warm-up, constant", "cosine"],
)
def test_weights_are_those_of_a_loop_written_by_hand(changed: dict[str, object], factors: list[float]) -> None:
    settings = replace(QUICK, **changed)  # type: ignore[arg-type]
    naive, ours = without_dropout(), without_dropout()
    by_hand(naive, settings, [factor * settings.learning_rate for factor in factors])
    log = train(ours, TinyBatches(), settings)
    assert log.steps == len(factors)
    for name, value in learned(naive).items():
        torch.testing.assert_close(learned(ours)[name], value, rtol=1e-5, atol=1e-6)


def test_batches_are_asked_for_once_each_in_order_over_all_epochs() -> None:
    batches = TinyBatches(5)
    log = train(tiny(), batches, replace(QUICK, epochs=2.4, accumulation=3))
    assert batches.asked == list(range(12))
    assert (log.steps, log.at) == (4, (2, 4))


@given(st.integers(1, 30), st.floats(0.1, 9), st.integers(1, 7), st.none() | st.integers(1, 50))
def test_a_plan_ends_each_epoch_with_an_evaluation(n: int, epochs: float, k: int, steps: int | None) -> None:
    plan = Plan.of(n, LoopSettings(epochs=epochs, accumulation=k, steps=steps))
    assert plan.steps == (steps or math.ceil(plan.batches / k))
    assert max(plan.ends) == plan.steps
    whole = plan.batches // n
    assert whole <= len(plan.ends) <= whole + 1 or k > n
    assert all(any(0 <= end * k - epoch * n < k for end in plan.ends) for epoch in range(1, whole + 1))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = tiny(), tiny(), tiny()
    train(first, TinyBatches(), QUICK)
    torch.rand(7)
    train(again, TinyBatches(), QUICK)
    train(other, TinyBatches(), replace(QUICK, seed=1))
    assert same(learned(first), learned(again))
    assert not same(learned(first), learned(other))


def test_the_generators_and_the_configuration_of_the_caller_are_left_alone() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    model = tiny()
    before = model.config.to_dict()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = drawn()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    train(model, TinyBatches(), QUICK)
    assert drawn() == expected
    assert model.config.to_dict() == before
    assert not model.training


def test_the_best_weights_are_put_back() -> None:
    metrics = iter([0.1, 0.9, 0.3, 0.2])
    seen: list[dict[str, Tensor]] = []

    def watch(model: object) -> float:
        assert isinstance(model, TinyModel)
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(learned(model))
        return next(metrics)

    model = tiny()
    log = train(model, TinyBatches(), replace(QUICK, epochs=4), watch=watch)
    assert (log.best, log.best_step, log.watched) == (0.9, 20, (0.1, 0.9, 0.3, 0.2))
    assert same(learned(model), seen[1])
    assert not same(learned(model), seen[3])


def test_patience_ends_a_run_that_gets_no_better() -> None:
    metrics = iter([0.5, 0.6, 0.6, 0.1, 0.9])
    log = train(tiny(), TinyBatches(), replace(QUICK, epochs=5, patience=2), watch=lambda _: next(metrics))
    assert log.watched == (0.5, 0.6, 0.6, 0.1)
    assert (log.steps, log.best_step) == (40, 20)


def test_without_a_metric_the_last_weights_stay_and_the_log_says_so() -> None:
    log = train(tiny(), TinyBatches(), QUICK)
    assert math.isnan(log.best)
    assert (log.best_step, log.watched, log.averaged) == (20, (), False)
    assert log.to_json()["best"] is None
    assert log.losses[1] < log.losses[0]
    assert log.trainable == sum(p.numel() for p in tiny().parameters())
    assert log.seconds > 0
    assert log.peak_memory > 1 << 20


@pytest.mark.parametrize(("last", "averaged"), [(0.95, True), (0.5, False)])
def test_the_mean_of_the_last_evaluations_is_taken_if_it_is_better(last: float, averaged: bool) -> None:
    metrics, seen = iter([0.1, 0.9, 0.3, last]), []

    def watch(model: object) -> float:
        seen.append(learned(model))  # type: ignore[arg-type]
        return next(metrics)

    model = tiny()
    log = train(model, TinyBatches(), replace(QUICK, epochs=3, average=2), watch=watch)
    expected = average_weights(seen[1:3]) if averaged else seen[1]
    assert same(learned(model), expected)
    assert (log.averaged, log.best) == (averaged, max(0.9, last))


def test_the_mean_of_weights_is_the_mean_of_each_number() -> None:
    models = [tiny(seed) for seed in range(3)]
    mean = average_weights(models)
    for name in mean:
        stacked = np.stack([learned(model)[name].numpy() for model in models])
        np.testing.assert_allclose(mean[name].numpy(), stacked.mean(axis=0), rtol=1e-5, atol=1e-8)
    with pytest.raises(InputError, match="different shapes"):
        average_weights([tiny(), TinyModel(TinyConfig(dim=4))])
    with pytest.raises(InputError, match="nothing to average"):
        average_weights([])
    with pytest.raises(InputError, match="another model"):
        put(TinyModel(TinyConfig(dim=4)), learned(tiny()))


def test_bf16_learns_as_float32_does_while_the_weights_stay_float32() -> None:
    full, half = without_dropout(), without_dropout()
    longer = replace(QUICK, epochs=20)
    a = train(full, TinyBatches(), longer, watch=goodness)
    b = train(half, TinyBatches(), replace(longer, precision="bf16"), watch=goodness)
    assert half.top.weight.dtype == torch.float32
    assert a.losses != b.losses
    assert a.best == pytest.approx(b.best, abs=0.05)
    assert a.best > -0.1


def test_frozen_weights_stay_and_are_not_copied() -> None:
    model = tiny()
    model.embeddings.requires_grad_(False)
    before = model.embeddings.weight.clone()
    log = train(model, TinyBatches(), QUICK)
    assert torch.equal(model.embeddings.weight, before)
    assert "embeddings.weight" not in learned(model)
    assert log.trainable == sum(p.numel() for p in model.parameters()) - before.numel()


def test_groups_decay_matrices_only_and_lower_layers_learn_slower() -> None:
    model = tiny()
    model.layer_of = lambda name: {"top": 0, "norm": 1, "embeddings": 2}[name.split(".")[0]]
    found = groups(model, LoopSettings(learning_rate=1.0, layer_decay=0.5, weight_decay=0.1))
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    rates = {names[id(t)]: (group["lr"], group["weight_decay"]) for group in found for t in group["params"]}  # type: ignore[attr-defined]
    assert rates == {
        "top.weight": (1.0, 0.1),
        "top.bias": (1.0, 0.0),
        "norm.weight": (0.5, 0.0),
        "norm.bias": (0.5, 0.0),
        "embeddings.weight": (0.25, 0.1),
    }


def test_the_push_is_along_the_gradient_and_is_taken_back_to_the_bit() -> None:
    model = without_dropout()
    adversary = Adversary.of(model, 0.5)
    weight = model.embeddings.weight
    batch = TinyBatches().batch(0)
    adversary.start(accumulating=False)
    loss = model(**batch).loss
    loss.backward()
    before, gradient = weight.detach().clone(), weight.grad.clone()
    with adversary.pushed():
        moved = weight.detach() - before
        pushed = model(**batch).loss.item()
    torch.testing.assert_close(moved, 0.5 * gradient / gradient.norm(), rtol=1e-4, atol=1e-6)
    assert pushed > loss.item()
    assert torch.equal(weight, before)


def test_the_push_follows_the_last_batch_only_when_gradients_add_up() -> None:
    model = without_dropout()
    adversary = Adversary.of(model, 1.0)
    weight, batches = model.embeddings.weight, TinyBatches()
    model(**batches.batch(0)).loss.backward()
    adversary.start(accumulating=True)
    first = weight.grad.clone()
    model(**batches.batch(1)).loss.backward()
    own = weight.grad - first
    before = weight.detach().clone()
    with adversary.pushed():
        torch.testing.assert_close(weight.detach() - before, own / own.norm(), rtol=1e-4, atol=1e-5)


def test_adversarial_training_changes_the_outcome_and_still_learns() -> None:
    plain, pushed = tiny(), tiny()
    a = train(plain, TinyBatches(), QUICK, watch=goodness)
    b = train(pushed, TinyBatches(), replace(QUICK, adversarial=0.5), watch=goodness)
    assert a.watched != b.watched
    assert b.watched[-1] > goodness(tiny())


def test_an_update_is_told_to_the_model_while_its_gradients_are_there() -> None:
    model, told = tiny(), []
    model.after_update = lambda step, steps: told.append((step, steps, model.top.weight.grad is not None))
    train(model, TinyBatches(), replace(QUICK, steps=3))
    assert told == [(1, 3, True), (2, 3, True), (3, 3, True)]


def test_gradient_checkpointing_is_on_during_the_run_only() -> None:
    model, calls = tiny(), []
    model.activation_checkpointing_enable = lambda: calls.append("on")
    model.activation_checkpointing_disable = lambda: calls.append("off")
    train(model, TinyBatches(), replace(QUICK, gradient_checkpointing=True))
    assert calls == ["on", "off"]
    model.supports_gradient_checkpointing = False
    with pytest.raises(InputError, match="no gradient checkpointing"):
        train(model, TinyBatches(), replace(QUICK, gradient_checkpointing=True))


class Breaks(TinyBatches):
    """Batches that make the loss NaN from a step on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def batch(self, step: int) -> dict[str, Tensor]:
        return {**super().batch(step), "factor": torch.tensor(math.nan if step >= self.at else 1.0)}


class Breakable(TinyModel):
    def forward(self, x: Tensor, y: Tensor, factor: Tensor) -> ModelOutput:
        return ModelOutput(loss=super().forward(x, y).loss * factor)


def test_a_loss_that_is_no_number_stops_the_run_with_the_last_good_weights() -> None:
    seen: list[dict[str, Tensor]] = []
    model = Breakable(TinyConfig())
    with pytest.raises(TrainingError) as caught:
        train(model, Breaks(25), replace(QUICK, epochs=4), watch=lambda m: seen.append(learned(m)) or len(seen))
    text = str(caught.value)
    assert text.startswith("train, step 25 of 40: loss is nan (Breakable) at learning rate 0.02")
    assert "its weights of step 20" in text
    assert same(learned(model), seen[1])
    assert finite(model)
    assert not model.training


def test_a_loss_that_is_no_number_at_once_leaves_the_start() -> None:
    model = Breakable(TinyConfig())
    before = learned(model)
    with pytest.raises(TrainingError, match="step 0"):
        train(model, Breaks(0), QUICK)
    assert same(learned(model), before)


class Steep(TinyModel):
    """Its loss is finite, its gradient is not: the root of 0."""

    def forward(self, x: Tensor, y: Tensor) -> ModelOutput:
        return ModelOutput(loss=super().forward(x, y).loss + (self.top.bias * 0).sum().abs().sqrt())


def test_a_gradient_that_is_no_number_never_reaches_the_weights() -> None:
    model = Steep(TinyConfig())
    before = learned(model)
    for clip in (0.0, 1.0):
        with pytest.raises(TrainingError, match="gradient"):
            train(model, TinyBatches(), replace(QUICK, clip=clip))
        assert same(learned(model), before)


def test_a_metric_that_is_no_number_is_an_error() -> None:
    with pytest.raises(TrainingError, match="metric is nan"):
        train(tiny(), TinyBatches(), QUICK, watch=lambda _: math.nan)


def test_nothing_to_train_or_to_train_on_is_said() -> None:
    with pytest.raises(InputError, match="no batch"):
        train(tiny(), TinyBatches(0), QUICK)
    frozen = tiny().requires_grad_(False)
    with pytest.raises(InputError, match="no parameter wants a gradient"):
        train(frozen, TinyBatches(), QUICK)
    model = tiny()
    model.embeddings.requires_grad_(False)
    with pytest.raises(InputError, match="no embedding"):
        train(model, TinyBatches(), replace(QUICK, adversarial=1.0))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schedule", "lineal", "did you mean 'linear'"),
        ("precision", "fp16", "unknown precision 'fp16'"),
        ("track", ("tensorbord",), "did you mean 'tensorboard'"),
        ("learning_rate", 0.0, "more than 0"),
        ("learning_rate", math.nan, "more than 0"),
        ("steps", 0, "more than 0"),
        ("patience", -1, "0 or more"),
        ("warmup", 1.5, "share"),
    ],
)
def test_settings_that_make_no_sense_are_errors(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        LoopSettings(**{key: value})  # type: ignore[arg-type]
    assert f"train.{key}" in str(caught.value)


def test_the_log_is_typed_and_words_are_learned() -> None:
    model = tiny()
    log = train(model, TinyBatches(), LoopSettings(epochs=30, learning_rate=0.05), watch=goodness)
    assert isinstance(log, LoopLog)
    x = torch.arange(WORDS)
    assert torch.equal(model.scores(x).argmax(1), follows(x))


def test_the_example_of_the_page_runs() -> None:
    log = run_programs("training.md", 1)["log"]
    assert isinstance(log, LoopLog)
    assert log.best > -0.2, "the line's slope was found"


def test_the_page_tells_every_setting_and_its_default() -> None:
    page = text_of("training.md")
    rows = [
        line.split("|")[1:3]
        for line in page.split("## Settings")[1].split("##")[0].splitlines()
        if line.startswith("| `")
    ]
    told = {
        key: default
        for keys, defaults in rows
        for key, default in zip(re.findall(r"`(\w+)`", keys), defaults.split(","), strict=True)
    }
    names = {field.name: field.default for field in fields(LoopSettings)}
    assert told.keys() == names.keys()
    words = {"none": (None, ()), "off": (False,)}
    for key, default in told.items():
        text = default.strip().strip("`")
        assert names[key] in words.get(text, (text,)) or names[key] == float(text), key
