"""The language carrier: vectors and losses against naive readings, files there and back, layers, and that it learns."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="the extra 'text' is not installed")

import torch
from tests.tiny_language import TEXTS, padded, some_tokens, tiny

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.language import LanguageModel, right_padded
from isthmus.model.language_config import LanguageConfig
from isthmus.model.language_encoder import LanguageEncoder, person_vectors
from isthmus.model.objectives import pair_loss
from isthmus.model.reading import Reader, tokenise
from isthmus.train.loop import LoopSettings, train
from isthmus.train.pairs import ContrastivePairs, PairSettings
from isthmus.train.schedule import TextSettings as BatchSettings
from isthmus.train.texts import CausalTexts, LabelledTexts, MaskedTexts, Masking, Mixed


def alone(model: LanguageModel, pooling: str) -> np.ndarray:
    """One text at a time, without padding."""
    rows = []
    for n in range(len(TEXTS)):
        ids = torch.from_numpy(some_tokens().take(np.array([n])).ids)[None]
        with torch.no_grad():
            states = model.backbone(input_ids=ids).last_hidden_state[0].double().numpy()
        row = {"mean": states.mean(0), "last": states[-1], "cls": states[0]}[pooling]
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("kind", "pooling"), [("bert", None), ("bert", "cls"), ("gpt2", None), ("gpt2", "mean"), ("llama", None)]
)
def test_vectors_do_not_depend_on_padding(kind: str, pooling: str | None, side: str) -> None:
    model = tiny(kind, pooling=pooling)
    with torch.no_grad():
        vectors = model.embed(*padded(side))
    expected = alone(model, pooling or ("mean" if kind == "bert" else "last"))
    assert vectors.dtype == torch.float32
    np.testing.assert_allclose(vectors.numpy(), expected, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=5))
def test_padding_moves_to_the_right_and_the_order_stays(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows).long()
    ids, moved = right_padded(torch.arange(1, 6).expand(len(rows), 5), mask)
    for row, real, kept in zip(rows, moved.tolist(), ids.tolist(), strict=True):
        assert real == sorted(real, reverse=True)
        assert kept[: sum(row)] == [n for n, here in enumerate(row, 1) if here]


def log_softmax(scores: np.ndarray) -> np.ndarray:
    top = scores.max(axis=-1, keepdims=True)
    return scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 4), st.floats(0.02, 2), st.integers(0, 1000), st.booleans())
def test_the_pair_loss_is_that_of_the_formula(B: int, more: int, temperature: float, seed: int, hide: bool) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(B, 4)), rng.normal(size=(B + more, 4))
    ignored = rng.random((B, B + more)) < 0.4
    total = 0.0
    for b in range(B):
        there = [c for c in range(B + more) if c == b or not (hide and ignored[b, c])]
        back = [c for c in range(B) if c == b or not (hide and ignored[c, b])]
        total -= log_softmax(right[there] @ left[b] / temperature)[there.index(b)]
        total -= log_softmax(left[back] @ right[b] / temperature)[back.index(b)]
    mask = torch.from_numpy(ignored) if hide else None
    found = pair_loss(torch.from_numpy(left).float(), torch.from_numpy(right).float(), temperature, mask)
    assert float(found) == pytest.approx(total / (2 * B), rel=1e-3, abs=1e-4)


def test_masked_words_are_told_from_the_embeddings_of_the_input() -> None:
    model = tiny("bert")
    ids, mask = padded("right")
    labels = torch.full_like(ids, -100)
    labels[0, 1], labels[1, 4], labels[3, 2] = 7, 2000, 5
    part = {"objective": "mlm", "input_ids": ids, "attention_mask": mask, "labels": labels}
    with torch.no_grad():
        model.words["mlm"].bias.normal_()
        states = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = model.words["mlm"](states) @ model.get_input_embeddings().weight.T + model.words["mlm"].bias
        found = float(model([part]).loss)
    chances = log_softmax(logits.double().numpy())
    expected = -np.mean([chances[0, 1, 7], chances[1, 4, 2000], chances[3, 2, 5]])
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_following_words_are_told_from_those_before(kind: str, side: str) -> None:
    model = tiny(kind)
    ids, mask = padded(side)
    surprises = []
    for n in range(len(TEXTS)):
        row = some_tokens().take(np.array([n])).ids
        with torch.no_grad():
            states = model.backbone(input_ids=torch.from_numpy(row)[None]).last_hidden_state[0]
            chances = log_softmax((states @ model.get_input_embeddings().weight.T).double().numpy())
        surprises += [-chances[place, row[place + 1]] for place in range(row.size - 1)]
    with torch.no_grad():
        found = model([{"objective": "clm", "input_ids": ids, "attention_mask": mask}]).loss
    assert float(found) == pytest.approx(np.mean(surprises), rel=1e-4)


def test_classes_are_told_by_one_head_a_field() -> None:
    model = tiny("bert", labels={"domain": ["a", "b", "c"], "kind": ["x", "y"]})
    ids, mask = padded("right")
    labels = {"domain": torch.tensor([0, 2, -100, 1]), "kind": torch.tensor([-100, 1, -100, -100])}
    expected = []
    for field, numbers in labels.items():
        head = model.classes[field]
        with torch.no_grad():
            ids_mean = model.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
            rows = (ids_mean * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            chances = log_softmax(head(rows).double().numpy())
        expected.append(-np.mean([chances[n, k] for n, k in enumerate(numbers.tolist()) if k >= 0]))
    with torch.no_grad():
        found = model([{"objective": "classify", "input_ids": ids, "attention_mask": mask, **labels}]).loss
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-4)


def test_several_objectives_are_a_weighted_sum() -> None:
    model = tiny("bert", labels={"domain": ["a", "b"]})
    ids, mask = padded("right")
    text = {"input_ids": ids, "attention_mask": mask}
    parts = [
        {"objective": "mlm", **text, "labels": ids.where(ids == 102, -100)},
        {"objective": "classify", **text, "domain": torch.tensor([0, 1, 1, 0])},
        {"objective": "contrastive", "left_ids": ids, "left_mask": mask, "right_ids": ids, "right_mask": mask},
    ]
    with torch.no_grad():
        single = [float(model([part]).loss) for part in parts]
        weighted = [{**part, "weight": weight} for part, weight in zip(parts, (1.0, 0.5, 2.0), strict=True)]
        output = model(weighted)
    assert float(output.loss) == pytest.approx(single[0] + 0.5 * single[1] + 2 * single[2], rel=1e-5)
    assert output.parts.tolist() == pytest.approx(single)


def test_a_batch_without_any_label_costs_nothing() -> None:
    model = tiny("bert", labels={"domain": ["a", "b"]})
    ids, mask = padded("right")
    none = torch.full_like(ids, -100)
    parts = [
        {"objective": "mlm", "input_ids": ids, "attention_mask": mask, "labels": none},
        {"objective": "classify", "input_ids": ids, "attention_mask": mask, "domain": none[:, 0]},
    ]
    output = model(parts)
    output.loss.backward()
    assert output.parts.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "objective", "said"),
    [
        ("gpt2", "mlm", "cannot learn masked words"),
        ("bert", "clm", "sees the words that follow"),
        ("bert", "classify", "nothing to classify by"),
        ("bert", "contrastiv", "did you mean 'contrastive'"),
    ],
)
def test_an_objective_must_fit(kind: str, objective: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny(kind).prepare([objective])


def test_heads_are_added_and_kept() -> None:
    model = tiny("bert", labels={"domain": ["a", "b"], "kind": ["x", "y"]})
    kept, changed = model.classes["domain"], model.classes["kind"]
    model.prepare(["classify"], {"kind": ["x", "y", "z"], "brand": ["p", "q"]})
    assert model.classes["domain"] is kept
    assert model.classes["kind"] is not changed
    assert {field: head.out_features for field, head in model.classes.items()} == {"domain": 2, "kind": 3, "brand": 2}
    assert model.config.objectives == ["classify", "contrastive", "mlm"]
    with pytest.raises(InputError, match="needs an encoder or a decoder"):
        LanguageModel(LanguageConfig())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_layers_are_counted_from_the_top(kind: str) -> None:
    model = tiny(kind, labels={"domain": ["a", "b"]})
    layers = model.layers()
    assert len(layers) == 3
    found = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    for place, block in enumerate(layers):
        inside = {id(weight) for weight in block.parameters()}
        assert {found[name] for name, weight in model.named_parameters() if id(weight) in inside} == {3 - place}
    assert {found["classes.domain.weight"]} == {0}
    embedding = next(name for name, weight in model.named_parameters() if weight is model.adversarial_parameters()[0])
    assert found[embedding] == 4
    assert all(layer == 0 for name, layer in found.items() if name in ("backbone.ln_f.weight", "backbone.norm.weight"))
    with torch.no_grad():
        before = model.embed(*padded("right"))
        for weight in layers[-1].parameters():
            weight.mul_(1.5)

        assert not before.allclose(model.embed(*padded("right")), atol=1e-4)


def test_attention_is_plain_in_training_and_fused_in_reading() -> None:
    model = tiny("bert")
    assert model.train().backbone.config._attn_implementation == "eager"
    slow = model.embed(*padded("right"))
    assert model.eval().backbone.config._attn_implementation == "sdpa"
    torch.testing.assert_close(slow, model.embed(*padded("right")), atol=1e-5, rtol=1e-4)


TOWN = [
    ("green tea", "black tea", "tea pot", "oolong tea leaves", "tea strainer"),
    ("steel hammer", "claw hammer", "wood nails", "tool box", "screwdriver set"),
    ("jazz trumpet record", "blues guitar album", "swing band live", "saxophone solos", "piano trio"),
]


def town() -> tuple[pl.DataFrame, Histories]:
    """Three kinds of things; each person wants one kind."""
    titles = [title for kind in TOWN for title in kind]
    frame = pl.DataFrame({"item": [str(n) for n in range(15)], "title": titles}).with_columns(
        platform=pl.lit("shop"), domain=pl.lit("all")
    )
    rng = np.random.default_rng(0)
    return frame, Histories.of([(5 * (b % 3) + rng.permutation(5)[:4]).tolist() for b in range(48)])


def test_the_bundled_model_learns_from_people_and_texts_at_once() -> None:
    frame, histories = town()
    model = LanguageModel.from_encoder().prepare(
        ["contrastive", "mlm", "classify"], {"kind": ["tea", "tools", "music"]}
    )
    reader = Reader(model.tokenizer, frame)
    plan = BatchSettings(batch_size=15)
    kinds = np.repeat([0, 1, 2], 5)
    sources = [
        (ContrastivePairs("next", reader, histories, PairSettings(batch_size=8)), 1.0),
        (MaskedTexts(reader.items, Masking.of(model.tokenizer), plan), 0.1),
        (LabelledTexts(reader.items, {"kind": kinds}, plan), 0.5),
    ]
    losses: list[list[float]] = []
    mixed = Mixed(sources)
    probe = [mixed.batch(step) for step in (100,)]

    def watch(current: LanguageModel) -> float:
        losses.append(np.mean([current(**batch).parts.tolist() for batch in probe], axis=0).tolist())
        return float(len(losses))

    settings = LoopSettings(steps=6, learning_rate=2e-4, precision="bf16", seed=1)
    with torch.no_grad():
        watch(model)
    train(model, mixed, settings, watch=watch)
    start, end = losses[0], losses[-1]
    assert end[0] < 0.95 * start[0]
    assert end[1] < 0.95 * start[1]
    assert end[2] < 0.8 * start[2]
    scores = person_vectors(model, reader, histories) @ LanguageEncoder(model).encode(frame).T
    own = kinds[None, :] == (np.arange(48) % 3)[:, None]
    assert scores[own].mean() > scores[~own].mean() + 0.1


def test_a_decoder_learns_the_following_words_with_checkpointing() -> None:
    losses = []
    for checkpointing in (False, True):
        model = tiny("llama")
        tokens = tokenise(model.tokenizer, [title for kind in TOWN for title in kind], 32)
        batches = CausalTexts(tokens, BatchSettings(batch_size=15))
        settings = LoopSettings(steps=20, learning_rate=1e-2, gradient_checkpointing=checkpointing, seed=1)
        with torch.no_grad():
            start = float(model(**batches.batch(0)).loss)
        train(model, batches, settings)
        with torch.no_grad():
            losses.append(float(model(**batches.batch(0)).loss))
        assert losses[-1] < 0.8 * start
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
