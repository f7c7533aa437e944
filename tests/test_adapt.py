"""Adaptation: every strategy and head on both carriers learns, is kept whole, and comes back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.tiny_language import tiny

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world
from isthmus.errors import ArtefactError, InputError, NotFoundError
from isthmus.model.base import Features
from isthmus.model.sequence import UNKNOWN, SequenceConfig, SequenceModel
from isthmus.model.strategies import STRATEGIES
from isthmus.split.temporal import VALID, Split
from isthmus.train.methods import make
from isthmus.transfer.adapt import AdaptSettings, adapt
from isthmus.transfer.adapt_heads import before_events
from isthmus.transfer.adapted import Adapted, build_head
from isthmus.transfer.adapted_files import start_folder
from isthmus.transfer.adapters import load_adapters
from isthmus.transfer.pretrained import load, write_pretrained
from isthmus.transfer.scene import rated

PEOPLE = Histories.of([[0, 1, 2], [5], [], [30, 41]])
WIDTH = 12


@cache
def split() -> Split:
    """Two domains of 30 items with categories; half of the events in the target carry a rating from 1 to 5."""
    rates = tuple(replace(place, habits=(("view", 1.0), ("rate", 0.5))) for place in WORLD.places)
    world = twin_world(0, replace(WORLD, places=rates, persons=60, items=30, themes=3, meetings=10.0))
    return Split.make(Corpus.from_tables(world.tables, name="twin"), valid_share=0.2)


@cache
def features() -> Features:
    """Vectors that tell the first category of an item."""
    names = split().corpus.items["categories"].list.first().to_list()
    known = {name: place for place, name in enumerate(dict.fromkeys(names))}
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(len(known), WIDTH))
    rows = centres[[known[name] for name in names]] + 0.3 * rng.normal(size=(len(names), WIDTH))
    return Features(vectors=rows.astype(np.float32))


def card(carrier: str) -> dict[str, object]:
    return {"carrier": carrier, "settings": {"shrink": 0.1}, "objectives": {}, "domains": [], "encoder": ""}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("starts")
    domains, sizes = [UNKNOWN, "source"], {"dim": 16, "layers": 2, "heads": 2, "experts": 2, "dropout": 0.0}
    config = SequenceConfig(width=WIDTH, domains=domains, platforms=[UNKNOWN, "north"], **sizes)
    write_pretrained(SequenceModel.seeded(config, 0), folder / "sequence", card("sequence"))
    write_pretrained(tiny("bert"), folder / "language", card("language"))
    return {name: folder / name for name in ("sequence", "language")}


def adapted(start: Path, out: Path, **how: object) -> Adapted:
    return adapt(
        start,
        split(),
        AdaptSettings(**{"target": "target", "epochs": 1.0, "persons": 40, **how}),
        out,
        features=features(),
    )


def said(found: Adapted) -> np.ndarray:
    return found.classes(np.arange(30, dtype=np.int32)) if found.labels else found.predict(PEOPLE)


def reopened(folder: Path, monkeypatch: pytest.MonkeyPatch, target: str | None = None) -> Adapted:
    from isthmus.transfer import scene

    whole = scene._vectors
    monkeypatch.setattr(scene, "_vectors", lambda items, card, _: whole(items, card, features()))
    return Adapted.open(folder, split(), target)


@pytest.fixture
def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lists get better with every look at them, so that what was trained is kept."""
    looks = count(1)
    monkeypatch.setattr("isthmus.transfer.exams.RankingExam.measure", lambda *_: next(looks) / 1000)


HEADS = [
    ("next-item", "", False), ("next-item", "", True), ("ranking", "bpr", False), ("ranking", "bce", True),
    ("rating", "mse", True), ("rating", "bce01", False), ("rating", "squared-log-ratio", False),
    ("classification", "", False),
]  # fmt: skip


@pytest.mark.usefixtures("rising")
@pytest.mark.parametrize("carrier", ["sequence", "language"])
@pytest.mark.parametrize(("head", "loss", "additive"), HEADS)
def test_every_head_learns_on_both_carriers_and_comes_back_the_same(
    carrier: str, head: str, loss: str, additive: bool, starts: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = adapted(starts[carrier], tmp_path / "a", head=head, loss=loss, additive=additive, strategy="lora")
    again = reopened(tmp_path / "a", monkeypatch)
    np.testing.assert_allclose(said(found), said(again), atol=2e-2 if carrier == "language" else 1e-5)
    assert again.metrics == found.metrics
    metrics = found.metrics
    names = {"next-item": "ndcg@10", "ranking": "ndcg@10", "rating": "rmse", "classification": "accuracy"}
    assert metrics["metric"] == names[head]
    assert metrics["loss"] == (loss or {"next-item": "softmax", "classification": "cross-entropy"}[head])
    assert 0 < metrics["trainable"] < metrics["total"]
    assert np.isfinite([metrics["before"], metrics["after"], metrics["seconds"]]).all()
    assert metrics["peak_memory"] > 0


@pytest.mark.usefixtures("rising")
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "lora"])
def test_every_strategy_is_kept_and_comes_back_the_same(
    strategy: str, starts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = adapted(starts["sequence"], tmp_path / "a", strategy=strategy)
    np.testing.assert_allclose(said(found), said(reopened(tmp_path / "a", monkeypatch)), atol=1e-5)
    for key, tensor in load_adapters(tmp_path / "a").backbone.state_dict().items():
        assert torch.equal(tensor, load(starts["sequence"]).state_dict()[key])


def test_adalora_learns_classes_though_the_blocks_have_no_part_in_them(starts: dict[str, Path], tmp_path: Path) -> None:
    found = adapted(starts["sequence"], tmp_path / "a", strategy="adalora", head="classification", epochs=30.0)
    assert 0 <= found.metrics["after"] <= 1


def test_what_can_be_learned_is_learned(starts: dict[str, Path], tmp_path: Path) -> None:
    how = {"epochs": 40.0, "learning_rate": 1e-2}
    classes = adapted(starts["sequence"], tmp_path / "c", head="classification", classes="domain", **how)
    items = adapted(starts["sequence"], tmp_path / "n", ids=False, **how)
    assert items.metrics["after"] > 1.2 * items.metrics["before"]
    assert classes.labels == ("source", "target")
    np.testing.assert_allclose(classes.classes(np.arange(9, dtype=np.int32)).sum(axis=1), 1, atol=1e-5)


def test_where_training_makes_it_worse_it_stays_as_it_was(
    starts: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"ids": False, "strategy": "full", "epochs": 2.0, "learning_rate": 1e-2}
    good = adapted(starts["sequence"], tmp_path / "good", **{**how, "epochs": 40.0})
    assert good.metrics["kept"] == "adapted"
    assert good.metrics["after"] == good.metrics["reached"] > good.metrics["before"]
    assert good.metrics["steps"] > 0
    asked: list[float] = []

    def worse(self: object, _: Adapted) -> float:
        asked.append(0.5 - 0.1 * len(asked))
        return asked[-1]

    monkeypatch.setattr("isthmus.transfer.exams.RankingExam.measure", worse)
    with caplog.at_level("WARNING"):
        kept = adapted(starts["sequence"], tmp_path / "kept", **how)
    assert len(asked) == 3
    told = {name: kept.metrics[name] for name in ("kept", "before", "after", "reached", "steps")}
    assert told == {"kept": "before", "before": 0.5, "after": 0.5, "reached": 0.4, "steps": 0}
    assert "training made it worse (ndcg@10 0.4000)" in caplog.text
    began = load(starts["sequence"]).grown(kept.scene.places, 0).state_dict()
    for key, tensor in kept.carrier.state_dict().items():
        assert torch.equal(tensor.cpu(), began[key]), key
    again = reopened(tmp_path / "kept", monkeypatch)
    np.testing.assert_allclose(said(again), said(kept), atol=1e-5)
    assert not np.allclose(said(good), said(kept), atol=1e-3)


def test_an_additive_head_begins_as_what_was_carried_over(starts: dict[str, Path], tmp_path: Path) -> None:
    plain = adapted(starts["sequence"], tmp_path / "a", ids=False, strategy="frozen")
    added = adapted(starts["sequence"], tmp_path / "b", ids=False, strategy="frozen", additive=True)
    old, new = (build_head("ranking", "bpr", 4, additive=additive) for additive in (False, True))
    states, table = torch.randn(3, 4), torch.randn(5, 4)
    twice = [torch.cat([part, torch.randn_like(part)], dim=1) for part in (states, table)]
    torch.testing.assert_close(new.score(*twice), old.score(states, table))
    assert abs(added.metrics["before"] - plain.metrics["before"]) < 0.1
    assert added.head.transferred.map.weight.equal(torch.eye(16))
    for key, tensor in added.old.state_dict().items():
        assert torch.equal(tensor.cpu(), load(starts["sequence"]).state_dict()[key])


def test_ratings_stay_on_the_scale_and_only_ratings_count(starts: dict[str, Path], tmp_path: Path) -> None:
    events = rated(split(), "target")
    kept = events.filter(pl.col("value").is_not_null())
    assert set(kept["event"]) == {split_event("rate")}
    learned = kept.filter(pl.col("part") < VALID)["value"]
    found = adapted(starts["sequence"], tmp_path / "a", head="rating", loss="bce01")
    predicted = found.predict(PEOPLE)
    assert learned.min() <= predicted.min() <= predicted.max() <= learned.max()
    one = found.predict(PEOPLE, [3, 1, 4, 1])
    np.testing.assert_allclose(one, predicted[np.arange(4), [3, 1, 4, 1]], rtol=1e-5)


def split_event(name: str) -> int:
    from isthmus.types import EVENTS

    return EVENTS.index(name)


@pytest.mark.usefixtures("rising")
def test_several_targets_share_one_backbone(
    starts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = adapted(starts["sequence"], tmp_path / "a", strategy="adapter")
    second = adapted(tmp_path / "a", tmp_path / "a", target="source", head="rating")
    third = adapted(starts["sequence"], tmp_path / "a", strategy="lora", head="ranking")
    assert len(list((tmp_path / "a").glob("*/model.safetensors"))) == 1
    np.testing.assert_allclose(said(second), said(reopened(tmp_path / "a", monkeypatch, "source")), atol=1e-5)
    again = reopened(tmp_path / "a", monkeypatch, "target")
    np.testing.assert_allclose(said(third), said(again), atol=1e-5)
    assert not np.allclose(said(first), said(again), atol=1e-5)
    with pytest.raises(NotFoundError, match="source, target"):
        reopened(tmp_path / "a", monkeypatch)
    with pytest.raises(InputError, match="another pre-trained model"):
        adapted(starts["language"], tmp_path / "a")


@pytest.mark.usefixtures("rising")
@pytest.mark.parametrize("strategy", ["lora", "adapter"])
def test_an_adapter_can_be_started_from_as_a_model(strategy: str, starts: dict[str, Path], tmp_path: Path) -> None:
    found = adapted(starts["sequence"], tmp_path / "a", strategy=strategy, ids=False)
    folder = start_folder(tmp_path / "a", "target")
    plain = Adapted(load(folder), found.head, found.scene)
    np.testing.assert_allclose(said(plain), said(found), atol=1e-4)
    assert start_folder(tmp_path / "a", "target") == folder
    assert start_folder(tmp_path / "a", "source") == tmp_path / "a" / "backbone"
    assert start_folder(starts["sequence"]) == starts["sequence"]
    before = (folder / "model.safetensors").read_bytes()
    adapted(starts["sequence"], tmp_path / "a", strategy="full", ids=False)
    assert (start_folder(tmp_path / "a", "target") / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(("strategy", "tried"), [("lora", ("full", "lora", "top")), ("adapter", ("full", "top"))])
def test_fit_tries_no_second_insert_on_an_adapter(
    strategy: str, tried: tuple[str, ...], starts: dict[str, Path], tmp_path: Path
) -> None:
    adapted(starts["sequence"], tmp_path / "a", strategy=strategy, ids=False)
    start = start_folder(tmp_path / "a", "target")
    assert make("sequence", {"start": str(start)}).axes()["strategy"] == tried


def test_nobody_known_is_scored_0_and_a_seed_gives_the_same_model(starts: dict[str, Path], tmp_path: Path) -> None:
    first, again = (adapted(starts["sequence"], tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(first.score(PEOPLE), again.score(PEOPLE))
    assert not first.score(PEOPLE)[2].any()
    assert first.score(PEOPLE)[[0, 1, 3]].any(axis=1).all()


def test_what_came_before_an_event() -> None:
    some = before_events(Histories.of([[4, 5, 6], [7, 8]]), np.array([2, 4, 0]), 1)
    assert (some.items.tolist(), some.lengths.tolist()) == ([5, 7], [1, 1, 0])


def test_damage_and_other_corpora_are_refused(
    starts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = adapted(starts["sequence"], tmp_path / "a")
    with pytest.raises(InputError, match="tells no classes"):
        found.classes(np.arange(2, dtype=np.int32))
    other = Corpus.from_tables(twin_world(1, replace(WORLD, persons=30, items=30)).tables, name="other")
    with pytest.raises(InputError, match="another corpus"):
        Adapted.open(tmp_path / "a", Split.make(other))
    file = tmp_path / "a" / "heads" / "target.json"
    about = json.loads(file.read_text())
    for key, value, word in (
        ("format", 9, "format 9"),
        ("adapter", "0", "belong together"),
        ("weights", "0", "damaged"),
    ):
        file.write_text(json.dumps({**about, key: value}))
        with pytest.raises(ArtefactError, match=word):
            reopened(tmp_path / "a", monkeypatch)
