"""The sequence model: what it may look at, what it must not depend on, and what survives growing and the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_carriers import KNOWN, PLACES, VECTORS, N, carrier, histories, reload, save
from torch import Tensor

from isthmus.data.sequences import Histories
from isthmus.model.catalogue import Events, gap_buckets
from isthmus.model.layers import rotated, turning
from isthmus.model.sequence import UNKNOWN, SequenceConfig, SequenceModel
from isthmus.train.aids import groups
from isthmus.train.batches import BatchSettings, SequenceBatches
from isthmus.train.settings import LoopSettings
from isthmus.train.views import Views
from isthmus.transfer.adapt_heads import Headed
from isthmus.transfer.adapted import build_head

DAY = 86_400_000_000


def model(*, ids: bool = True) -> SequenceModel:
    found = carrier("sequence", ids=ids)
    assert isinstance(found, SequenceModel)
    return found


def drawn(seed: int, rows: int = 3, length: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    parts = [rng.integers(0, high, (rows, length)) for high in (N, 5, 8)]
    return tuple(torch.from_numpy(part) for part in parts)  # type: ignore[return-value]


@torch.no_grad()
def states(some: SequenceModel, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return some.persons(Events(*parts), some.items())


def batches(rows: Histories | None = None, **chosen: object) -> SequenceBatches:
    plan = replace(BatchSettings(events=60), **chosen)  # type: ignore[arg-type]
    return SequenceBatches(rows or histories(), PLACES, np.ones(N, bool), plan, dated=False)


def loss(some: SequenceModel, source: SequenceBatches, steps: int = 1) -> float:
    with torch.no_grad():
        return float(np.mean([some(**source.batch(step)).loss.item() for step in range(steps)]))


MODEL = model()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(0, 2))
def test_what_comes_later_never_changes_what_stood_before(seed: int, place: int, part: int) -> None:
    before = drawn(seed)
    after = tuple(tensor.clone() for tensor in before)
    after[part][:, place:] = (after[part][:, place:] + 1) % 5
    old, new = states(MODEL, before), states(MODEL, after)  # type: ignore[arg-type]
    torch.testing.assert_close(old[:, :place], new[:, :place], rtol=0, atol=1e-6)
    assert (old[:, place:] - new[:, place:]).abs().max() > 1e-4


def test_with_a_prefix_it_still_sees_nothing_later() -> None:
    some = model()
    for block in some.blocks:
        block.attention.prefix = torch.randn(2, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    before = drawn(1)
    after = tuple(tensor.clone() for tensor in before)
    after[0][:, 4:] = (after[0][:, 4:] + 3) % N
    old, new = states(some, before), states(some, after)  # type: ignore[arg-type]
    torch.testing.assert_close(old[:, :4], new[:, :4], rtol=0, atol=1e-6)
    assert not torch.allclose(old, states(MODEL, before), atol=1e-3), "the prefix is looked at"


def test_fillers_and_neighbours_do_not_matter() -> None:
    known = Histories.of([[3, 4, 5], [1], [9, 2, 2, 8, 7, 6, 0, 20, 21]])
    table = MODEL.items().detach().numpy()
    together = MODEL.states(table, known)
    alone = np.concatenate([MODEL.states(table, known.take(np.array([row]))) for row in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    items, events, gaps = drawn(2)
    wide = tuple(torch.nn.functional.pad(part, (0, 4)) for part in (items, events, gaps))
    torch.testing.assert_close(states(MODEL, wide)[:, :7], states(MODEL, (items, events, gaps)), rtol=0, atol=1e-6)  # type: ignore[arg-type]


def test_only_the_newest_events_count() -> None:
    some = model()
    some.config.length = 4
    table = some.items().detach().numpy()
    long, short = (some.states(table, Histories.of([row]), dated=False) for row in ([9, 1, 2, 3, 4], [1, 2, 3, 4]))
    np.testing.assert_allclose(long, short, atol=1e-6)
    some.config.length = 5
    assert np.abs(some.states(table, Histories.of([[9, 1, 2, 3, 4]]), dated=False) - short).max() > 1e-4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(0, 5), st.integers(0, 5), st.integers(0, 20))
def test_rotary_products_depend_on_the_distance_alone(seed: int, first: int, second: int, shift: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(8, generator=draw, dtype=torch.float64) for _ in range(2))
    cos, sin = (part.double() for part in turning(30, 8, torch.device("cpu")))

    def product(i: int, j: int) -> float:
        turned = (rotated(x[None], (cos[at : at + 1].to(x), sin[at : at + 1].to(x))) for x, at in ((q, i), (k, j)))
        one, other = turned
        return float((one * other).sum())

    assert product(first + shift, second + shift) == pytest.approx(product(first, second), abs=1e-4)
    assert product(first, first) == pytest.approx(float(q @ k), abs=1e-5)


def test_order_and_kind_and_gap_are_seen() -> None:
    base = states(MODEL, drawn(3))[:, -1]
    items, events, gaps = drawn(3)
    for changed in (
        (items[:, [1, 0, *range(2, 7)]], events, gaps),
        (items, (events + 1) % 5, gaps),
        (items, events, gaps + 1),
    ):
        assert (states(MODEL, changed)[:, -1] - base).abs().max() > 1e-3


def test_a_new_item_with_an_old_text_is_scored_as_the_old_one_without_id() -> None:
    some = model(ids=False)
    places = replace(PLACES, domain=np.append(PLACES.domain, PLACES.domain[4]), platform=np.append(PLACES.platform, 0))
    table = some.whole(np.vstack([VECTORS, VECTORS[4]]), places, KNOWN[:0])
    np.testing.assert_allclose(table[N], table[4], atol=1e-6)
    told = some.states(table, Histories.of([[1, 4, 2], [1, N, 2]]), dated=False)
    np.testing.assert_allclose(told[0], told[1], atol=1e-5)


def test_an_id_tells_two_items_of_one_text_apart() -> None:
    same = VECTORS.copy()
    same[6] = same[4]
    table = model().whole(same, PLACES, KNOWN)
    assert np.abs(table[6] - table[4]).max() > 1e-3
    unknown = model().attend(same, PLACES, KNOWN)
    unknown.catalogue.id_of[[4, 6]] = N
    found = unknown.items(torch.tensor([4, 6])).detach()
    torch.testing.assert_close(found[0], found[1])


def test_unknown_names_have_the_embedding_of_the_unknown() -> None:
    some = model(ids=False)
    other = replace(PLACES, domains=("Mars", "Venus"), platforms=("kiosk",))
    some.attend(VECTORS, other, KNOWN[:0])
    assert not some.catalogue.domain.any()
    assert not some.catalogue.platform.any()
    unknown = states(some, drawn(4))
    some.attend(VECTORS, PLACES, KNOWN[:0])
    assert sorted(set(some.catalogue.domain.tolist())) == [1, 2]
    assert (states(some, drawn(4)) - unknown).abs().max() > 1e-3


def test_growing_keeps_old_weights_and_starts_new_names_as_the_unknown() -> None:
    longer = replace(PLACES, domains=("Kitchen", "Mars"), platforms=("kiosk",))
    grown = MODEL.grown(longer, 7)
    assert grown.config.domains == [UNKNOWN, "Food", "Kitchen", "Mars"]
    assert grown.config.platforms == [UNKNOWN, "shop", "kiosk"]
    assert grown.ids.weight.shape == (7, 16)
    torch.testing.assert_close(grown.domain.weight[:3], MODEL.domain.weight)
    torch.testing.assert_close(grown.domain.weight[3], MODEL.domain.weight[0])
    torch.testing.assert_close(grown.platform.weight[2], MODEL.platform.weight[0])
    for name, tensor in MODEL.state_dict().items():
        if name.split(".")[0] not in ("domain", "platform", "ids"):
            torch.testing.assert_close(grown.state_dict()[name], tensor)
    assert MODEL.grown(PLACES, 0).ids is None


@pytest.mark.parametrize("ids", [True, False])
def test_the_disk_changes_nothing(tmp_path: Path, ids: bool) -> None:
    some = model(ids=ids)
    save(some, tmp_path)
    again = reload(some, tmp_path)
    assert again.config.to_dict().items() >= {"n_items": N if ids else 0, "domains": ["", "Food", "Kitchen"]}.items()
    assert set(some.state_dict()) == set(again.state_dict())
    for name, tensor in some.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert torch.equal(states(some, drawn(5)), states(again, drawn(5)))  # type: ignore[arg-type]
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in (".safetensors", ".json")]


def test_a_seed_gives_the_same_model_and_leaves_the_generator_alone() -> None:
    config = SequenceConfig(width=4, dim=8, n_items=3)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (SequenceModel.seeded(config, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(first.gap.weight, other.gap.weight)


def test_the_loss_is_the_mean_cross_entropy_over_the_items_of_the_own_domain() -> None:
    source = batches()
    batch = source.fields(1)
    with torch.no_grad():
        table = MODEL.items()
        said = MODEL.persons(Events(batch["items"], batch["events"], batch["gaps"]), table).flatten(0, 1)
    total = 0.0
    for number, (place, target) in enumerate(zip(batch["places"], batch["targets"], strict=True)):
        weight = batch["weights"][number]
        rows = np.flatnonzero(PLACES.domain == PLACES.domain[int(target)])
        scores = (table[rows] @ said[int(place)]).double()
        seen = set(batch["seen_items"][batch["seen_rows"] == number].tolist()) - {int(target)}
        scores[torch.from_numpy(np.isin(rows, list(seen)))] = -torch.inf
        total -= float(weight) * float(scores.log_softmax(0)[np.searchsorted(rows, int(target))])
    assert loss(MODEL, _only(source, 1)) == pytest.approx(total / float(batch["weights"].sum()), rel=1e-4)


class _only:  # noqa: N801
    """One batch of a source, at every step."""

    def __init__(self, source: SequenceBatches, step: int) -> None:
        self.source, self.step = source, step

    def batch(self, step: int) -> dict[str, dict[str, Tensor]]:
        return self.source.batch(self.step)


@pytest.mark.parametrize("repeats", [True, False])
def test_sampled_losses_come_near_the_full_one_as_more_is_drawn(repeats: bool) -> None:
    some = model()
    with torch.no_grad():
        some.ids.weight.mul_(8)
    full = loss(some, batches(repeats=repeats))
    few, many = (abs(loss(some, batches(sampled=count, repeats=repeats)) - full) for count in (3, 20_000))
    assert many < 0.02
    assert few > 5 * many


def test_a_cosine_model_scores_by_its_scale() -> None:
    config = SequenceConfig(width=12, dim=16, domains=[UNKNOWN], platforms=[UNKNOWN], scale=7.0, dropout=0.0)
    some = SequenceModel.seeded(config, 0).eval().attend(VECTORS, PLACES, KNOWN[:0])
    items, told = some.items(), states(some, drawn(6))
    torch.testing.assert_close(items.norm(dim=1), torch.ones(N))
    torch.testing.assert_close(told.norm(dim=2), torch.full((3, 7), 7.0))


def test_views_have_a_finite_loss_that_falls() -> None:
    some = model()
    some.config.views = 1.0
    with_views, without = batches(views=Views()), batches()
    optimiser = torch.optim.AdamW(some.parameters(), lr=3e-3)

    def contrast() -> float:
        return loss(some, with_views) - loss(some, without)

    before = contrast()
    assert np.isfinite(before)
    assert before > 0.1
    for step in range(25):
        optimiser.zero_grad()
        some(**with_views.batch(step)).loss.backward()
        optimiser.step()
    assert contrast() < 0.7 * before


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    found = []
    for saving in (False, True):
        some = model().train()
        if saving:
            some.activation_checkpointing_enable({"use_reentrant": False})
            assert some.gradient_checkpointing
        some(**batches().batch(0)).loss.backward()
        found.append({name: p.grad for name, p in some.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name], rtol=1e-4, atol=1e-6)


def test_layers_are_counted_from_the_top_and_embeddings_can_be_pushed() -> None:
    some = model()
    layers = {name: some.layer_of(name) for name, _ in some.named_parameters()}
    top = len(some.blocks)
    assert {layers[name] for name in layers if name.startswith("blocks.0.")} == {top}
    assert {layers[name] for name in layers if name.startswith(f"blocks.{top - 1}.")} == {1}
    assert layers["ids.weight"] == layers["end.weight"] == layers["domain.weight"] == 0
    assert layers["gap.weight"] == layers["event.weight"] == top + 1
    rates = {row["lr"] for row in groups(some, LoopSettings(learning_rate=1.0, layer_decay=0.5))}
    assert rates == {0.5**layer for layer in range(top + 2)}
    pushed = {id(weight) for weight in some.adversarial_parameters()}
    assert pushed == {id(getattr(some, name).weight) for name in ("ids", "event", "platform", "domain", "gap")}
    headed = Headed(some, build_head("next-item", "", some.config.dim))
    assert headed.layer_of(f"carrier.blocks.{top - 1}.anything") == 1
    assert headed.layer_of("head.anything") == 0
    assert {id(weight) for weight in headed.adversarial_parameters()} == pushed


def test_gaps_grow_by_powers_of_four_of_a_minute() -> None:
    minute = 60_000_000
    waits = np.array([0, minute, 4 * minute - 1, 4 * minute, 16 * minute, DAY, 400 * DAY, 10**6 * DAY])
    ts = np.cumsum(waits)
    first = np.zeros(8, bool)
    found = gap_buckets(ts, first, dated=True).tolist()
    assert found == [1, 1, 2, 3, 4, 7, 11, 13]
    assert not gap_buckets(ts, first, dated=False).any()


def test_it_begins_as_a_content_method() -> None:
    config = SequenceConfig(width=12, dim=12, domains=[UNKNOWN], platforms=[UNKNOWN], dropout=0.0)
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0].astype(np.float32)
    alike = Histories.of([[row] for row in range(N)])
    found = []
    for start in (np.zeros_like(axes), 20 * axes):
        some = SequenceModel.seeded(config, 0).begin_with(start)
        table = some.whole(VECTORS, PLACES, KNOWN[:0])
        told = some.states(table, alike, dated=False)
        found.append(np.diag(np.corrcoef(told, table)[:N, N:]).mean())
    assert found[1] > 0.95, "a person is about where the last item lies"
    assert found[1] > found[0] + 0.02
    cosines = [np.corrcoef(part) for part in (table, VECTORS)]
    assert np.corrcoef(cosines[0].ravel(), cosines[1].ravel())[0, 1] > 0.8
