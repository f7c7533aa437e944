"""Strategies of transfer for both carriers: what is trained and what stays, and that models go there and back."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="the extra 'transfer' is not installed")

import torch
from tests.pages import run_programs, text_of
from tests.tiny_carriers import CARRIERS, Pairs, batches, carrier, clone, outputs, reload, save
from tests.tiny_language import padded
from torch import Tensor, nn
from transformers import DistilBertConfig, PreTrainedModel

from isthmus.errors import InputError
from isthmus.model.inserts import Bottleneck, ResidualLinear
from isthmus.model.language import LanguageModel
from isthmus.model.language_config import LanguageConfig
from isthmus.model.lora import FIRST, LAST, ORTHOGONAL, orthogonality
from isthmus.train.loop import LoopSettings, train
from isthmus.train.weights import learned
from isthmus.transfer.strategies import STRATEGIES, StrategySettings, plain, prepare, rebuild, trained

QUICK = LoopSettings(steps=12, learning_rate=0.01, schedule="constant", warmup=0.0, weight_decay=0.0)
BOTH = pytest.mark.parametrize("kind", CARRIERS)
ALL = pytest.mark.parametrize("strategy", STRATEGIES)
#: What may learn, by carrier and strategy; the head is added.
HEAD = {"sequence": r"(ids|domain|platform|end)\.", "bert": r"head\.", "gpt2": r"head\."}
BLOCK = {"sequence": "blocks", "bert": "backbone.encoder.layer", "gpt2": "backbone.h"}
INSIDE = {
    "frozen": "$^",
    "adapter": r"BLOCK\.\d\..*(bottleneck|[Nn]orm|ln_\d)",
    "lora": r"(BLOCK\.\d|adaptor)\..*lora_[AB]",
    "adalora": r"(BLOCK\.\d|adaptor)\..*lora_[ABE]",
    "prefix": r"prefix$|BLOCK\.\d\.attention\.prefix",
    "top": r"BLOCK\.2\.|backbone\.ln_f",
    "full": ".",
}


def may_learn(kind: str, strategy: str, name: str) -> bool:
    inside = INSIDE[strategy].replace("BLOCK", re.escape(BLOCK[kind]))
    return bool(re.match(HEAD[kind], name) or re.match(inside, name))


def ready(kind: str, strategy: str, **options: object) -> PreTrainedModel:
    model = clone(carrier(kind))
    prepare(model, StrategySettings(strategy, **options))  # type: ignore[arg-type]
    return model


@ALL
@BOTH
def test_a_strategy_starts_from_the_outputs_of_the_pretrained_model(kind: str, strategy: str) -> None:
    base, model = carrier(kind), ready(kind, strategy)
    if strategy == "prefix":
        near = nn.functional.cosine_similarity(outputs(base), outputs(model))
        assert 0.9 < near.min() < 1
    else:
        assert torch.equal(outputs(base), outputs(model))


@ALL
@BOTH
def test_loss_falls_and_what_is_not_asked_for_stays_to_the_bit(kind: str, strategy: str, tmp_path: Path) -> None:
    model = clone(carrier(kind))
    prepared = prepare(model, StrategySettings(strategy), name="Food")
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    wants = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert wants == {name for name in before if may_learn(kind, strategy, name)}
    log = train(model, batches(kind), QUICK)
    assert log.losses[-1] < log.losses[0]
    moved = {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved <= wants
    assert {name for name in wants if re.search(r"lora_B|bottleneck.*up|prefix|^head|^ids|blocks.2.up", name)} <= moved
    row = trained(prepared, log)
    assert row["trainable"] == log.trainable == sum(before[name].numel() for name in wants)
    assert row["total"] == sum(tensor.numel() for tensor in before.values())
    assert row["share"] == row["trainable"] / row["total"]  # type: ignore[operator]
    assert (row["strategy"], row["target"], row["seconds"]) == (strategy, "Food", log.seconds)

    after = outputs(model)
    assert plain(model) is model
    assert all(tensor.requires_grad for tensor in model.parameters())
    if strategy in ("lora", "adalora"):
        torch.testing.assert_close(outputs(model), after, rtol=1e-5, atol=2e-6)
        assert not [name for name in model.state_dict() if "lora" in name or "base_layer" in name]
        assert model.state_dict().keys() - {"head.weight"} == carrier(kind).state_dict().keys()
        assert not hasattr(model, "after_update")
        assert not hasattr(model, "peft_config")
        assert not model._forward_hooks
    else:
        assert torch.equal(outputs(model), after)
    merged = outputs(model)
    save(model, tmp_path / "model")
    assert torch.equal(outputs(reload(model, tmp_path / "model")), merged)
    twin = rebuild(model.config)
    assert twin.state_dict().keys() == model.state_dict().keys()


def test_counts_are_those_of_the_papers() -> None:
    """Three blocks of 16 wide with maps 16 x 16 (four), 16 x 64 and 64 x 16, and the adaptor's 12 x 32."""
    shapes = [(16, 16)] * 4 * 3 + [(16, 64), (64, 16)] * 3 + [(12, 32)]
    expected = {
        "lora": sum(4 * (a + b) for a, b in shapes),
        "adalora": sum(6 * (a + b + 1) for a, b in shapes),
        "adapter": 3 * 2 * (2 * 16 * 5 + 5 + 16) + 3 * 2 * 2 * 16,
        "prefix": 3 * 2 * 7 * 16,
    }
    for strategy, count in expected.items():
        settings = StrategySettings(strategy, rank=4, bottleneck=5, prefix=7, head=False)
        assert prepare(clone(carrier("sequence")), settings).trainable == count


def test_top_trains_as_many_blocks_as_asked() -> None:
    model = ready("gpt2", "top", top=2, head=False)
    on = {name.split(".")[2] for name, t in model.named_parameters() if t.requires_grad and ".h." in name}
    assert on == {"1", "2"}
    assert not any(t.requires_grad for name, t in model.named_parameters() if "wte" in name or "wpe" in name)
    with pytest.raises(InputError, match="3 blocks, not 4"):
        ready("gpt2", "top", top=4)


def test_class_heads_belong_to_the_target() -> None:
    model = clone(carrier("bert")).prepare(["classify"], {"domain": ["a", "b"]})
    prepare(model, StrategySettings("lora"))
    assert all(tensor.requires_grad for tensor in model.classes.parameters())
    assert not any(tensor.requires_grad for tensor in model.words.parameters())


@pytest.mark.parametrize("strategy", ["adapter", "lora", "adalora", "prefix"])
def test_the_same_seed_gives_the_same_start_and_leaves_the_generator_alone(strategy: str) -> None:
    models = [clone(carrier("sequence")) for _ in range(3)]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    for model, seed in zip(models, (0, 0, 1), strict=True):
        prepare(model, StrategySettings(strategy, seed=seed))
    assert torch.equal(torch.rand(1), expected)
    one, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_an_unknown_strategy_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'adalora'"):
        StrategySettings("adalor")


@pytest.mark.parametrize(
    ("key", "value"), [("top", 0), ("rank", 0), ("alpha", 0.0), ("bottleneck", -1), ("prefix", 0), ("dropout", 1.0)]
)
def test_sizes_that_make_no_sense_are_errors(key: str, value: float) -> None:
    with pytest.raises(InputError, match=f"strategy.{key}"):
        StrategySettings("lora", **{key: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="nothing would be trained"):
        StrategySettings("frozen", head=False)


def test_a_second_insert_is_refused_and_a_merged_model_takes_another() -> None:
    model = ready("sequence", "lora")
    with pytest.raises(InputError, match="plain"):
        prepare(model, StrategySettings("adapter"))
    prepare(plain(model), StrategySettings("adapter"))
    for strategy in ("adapter", "lora", "prefix"):
        with pytest.raises(InputError, match="inserted adapter"):
            prepare(model, StrategySettings(strategy))
    prepare(model, StrategySettings("full"))


def test_backbones_without_a_place_for_a_part_are_refused() -> None:
    small = DistilBertConfig(vocab_size=2100, dim=8, hidden_dim=16, n_layers=1, n_heads=2)
    model = LanguageModel(LanguageConfig(backbone=small.to_dict())).eval()
    with pytest.raises(InputError, match=r"DistilBertModel: its attention takes no prefix.*adapter or lora"):
        prepare(model, StrategySettings("prefix"))
    model = LanguageModel(LanguageConfig(backbone=small.to_dict())).eval()
    before = outputs(model)
    prepare(model, StrategySettings("adapter"))
    assert torch.equal(outputs(model), before)


def test_inserts_read_as_their_formulas_say() -> None:
    torch.manual_seed(0)
    x, bottleneck, head = torch.randn(4, 6), Bottleneck(6, 3), ResidualLinear(6)
    for tensor in (*bottleneck.parameters(), *head.parameters()):
        nn.init.normal_(tensor)
    down, up = bottleneck.down, bottleneck.up
    hidden = x @ down.weight.T + down.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(bottleneck(x), x + hidden @ up.weight.T + up.bias)
    torch.testing.assert_close(head(x), x @ (torch.eye(6) + head.weight).T)


def test_the_prefix_of_the_sequence_model_stands_before_all_events() -> None:
    """Against a sum over keys one by one."""
    model = ready("sequence", "prefix", prefix=3)
    attention = model.blocks[1].attention
    nn.init.normal_(attention.prefix)
    x = torch.randn(1, 4, 16)
    still = (torch.ones(4, 4), torch.zeros(4, 4))  # positions do not turn
    keys, values = (part(x).view(4, 2, 8) for part in (attention.key, attention.value))
    query = attention.query(x).view(4, 2, 8)
    expected = torch.zeros(4, 2, 8)
    for place in range(4):
        for head in range(2):
            k = [*attention.prefix[0, head], *keys[: place + 1, head]]
            v = [*attention.prefix[1, head], *values[: place + 1, head]]
            shares = torch.stack([query[place, head] @ key / 8**0.5 for key in k]).softmax(0)
            expected[place, head] = sum(share * value for share, value in zip(shares, v, strict=True))
    torch.testing.assert_close(attention(x, still)[0], attention.out(expected.reshape(4, 16)))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_a_prefix_is_seen_by_all_words_whatever_the_padding_and_the_attention(kind: str) -> None:
    model = ready(kind, "prefix")
    ids, mask = padded("right")
    together = model.embed(ids, mask)
    for row, text in enumerate(ids):
        n = int(mask[row].sum())
        torch.testing.assert_close(model.embed(text[None, :n], mask[row : row + 1, :n])[0], together[row])
    left = model.embed(*padded("left"))
    torch.testing.assert_close(left, together)
    eager = clone(model)
    eager.backbone.set_attn_implementation("eager")
    torch.testing.assert_close(eager.embed(ids, mask), together, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        model.prefix.normal_()
    assert (nn.functional.cosine_similarity(model.embed(ids, mask), together) < 0.999).all()
    if kind != "bert":  # what follows is not seen
        other = ids.clone()
        other[:, -1] = 7
        whole = torch.ones_like(mask)
        torch.testing.assert_close(model._states(other, whole)[:, :-1], model._states(ids, whole)[:, :-1])


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_prefix_takes_no_places_from_the_longest_text(kind: str) -> None:
    ids = torch.full((1, 128), 1000)
    assert ready(kind, "prefix").embed(ids, torch.ones_like(ids)).isfinite().all()


def test_a_prefix_of_words_goes_without_gradient_checkpointing() -> None:
    with pytest.raises(InputError, match="no gradient checkpointing"):
        train(ready("gpt2", "prefix"), Pairs(), replace(QUICK, gradient_checkpointing=True))


@pytest.mark.parametrize("strategy", ["adapter", "adalora", "prefix"])
@pytest.mark.parametrize("kind", ["sequence", "gpt2"])
def test_bfloat16_trains_and_reads(kind: str, strategy: str) -> None:
    model = ready(kind, strategy)
    log = train(model, batches(kind), replace(QUICK, precision="bf16"))
    assert log.losses[-1] < log.losses[0]
    if kind != "sequence":
        half = clone(model).to(torch.bfloat16)
        assert nn.functional.cosine_similarity(outputs(half), outputs(model)).min() > 0.99


def test_inserted_weights_learn_at_the_rate_of_their_layer() -> None:
    model = carrier("bert")
    assert model.layer_of("backbone.encoder.layer.2.output.dense.weight") == 1  # cached before anything is put in
    prepare(model, StrategySettings("lora"))
    layers = {name: model.layer_of(name) for name, t in model.named_parameters() if t.requires_grad}
    assert {layer for name, layer in layers.items() if ".layer.0." in name} == {3}
    assert layers["head.weight"] == 0


def ranks(model: PreTrainedModel) -> int:
    return sum(int(t.count_nonzero()) for name, t in model.named_parameters() if "lora_E" in name)


def test_adalora_ends_with_its_budget_of_ranks_where_they_matter_most() -> None:
    model = ready("sequence", "adalora", rank=2)
    maps = sum("lora_E" in name for name, _ in model.named_parameters())
    seen = []
    after = model.after_update
    model.after_update = lambda step, steps: (after(step, steps), seen.append(ranks(model)))
    train(model, batches("sequence"), replace(QUICK, steps=20))
    assert max(seen[: int(20 * FIRST)]) == 3 * maps
    assert seen == sorted(seen, reverse=True)
    assert set(seen[20 - int(20 * LAST) :]) == {2 * maps}
    left = {int(t.count_nonzero()) for name, t in model.named_parameters() if "lora_E" in name}
    assert len(left) > 1


@pytest.mark.parametrize(("steps", "left"), [(1, 3), (2, 2), (4, 2)])
def test_adalora_with_a_single_step_keeps_all_ranks(steps: int, left: int) -> None:
    model = ready("sequence", "adalora", rank=2)
    train(model, batches("sequence"), replace(QUICK, steps=steps))
    maps = sum("lora_E" in name for name, _ in model.named_parameters())
    assert ranks(model) == left * maps


def test_adalora_keeps_its_factors_near_orthogonal_while_training_only() -> None:
    model = ready("bert", "adalora")
    total = [
        (w @ w.T if "lora_A" in name else w.T @ w).sub(torch.eye(min(w.shape))).pow(2).sum().sqrt()
        for name, w in model.named_parameters()
        if re.search("lora_[AB]", name)
    ]
    torch.testing.assert_close(orthogonality(model), torch.stack(total).mean())
    batch = Pairs().batch(0)
    without = model(**batch).loss
    model.train()
    torch.testing.assert_close(model(**batch).loss, without + ORTHOGONAL * orthogonality(model), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).loss, without, rtol=1e-4, atol=1e-5)


class StoppedError(Exception):
    """As if the machine had gone."""


class Fails:
    def __init__(self, at: int) -> None:
        self.at, self.whole = at, batches("sequence")

    def __len__(self) -> int:
        return len(self.whole)

    def batch(self, step: int) -> dict[str, Tensor]:
        if step == self.at:
            raise StoppedError
        return self.whole.batch(step)


@pytest.mark.parametrize(("strategy", "at"), [("adalora", 6), ("adalora", 17), ("adapter", 9)])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(strategy: str, at: int, tmp_path: Path) -> None:
    settings = replace(QUICK, steps=20, save_every=0.0)
    whole = ready("sequence", strategy)
    train(whole, batches("sequence"), settings)
    with pytest.raises(StoppedError):
        train(ready("sequence", strategy), Fails(at), settings, folder=tmp_path)
    again = ready("sequence", strategy)
    train(again, batches("sequence"), settings, folder=tmp_path)
    one, other = learned(whole), learned(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_page_names_every_strategy_and_its_example_runs() -> None:
    page = text_of("strategies.md")
    assert all(f"| `{strategy}` |" in page for strategy in STRATEGIES)
    run_programs("strategies.md", 1)
