"""The bridge carries a taste over to a platform somebody never used, and nothing where there is nothing to carry."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.carried import PLAN, Scene
from tests.test_methods import DATA

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import twin_world, unrelated_world
from isthmus.errors import InputError
from isthmus.model.base import Features, Settings, TrainingData
from isthmus.model.blend import standardise
from isthmus.model.bridge import Bridge
from isthmus.model.bridge_net import BridgeNet
from isthmus.model.popularity import Popularity
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.testing import check_method
from isthmus.train.fit import FitSettings, fit_target, training_data
from isthmus.train.methods import GROUND, make
from isthmus.train.tune import validate
from isthmus.types import Floats

SOURCES, TARGETS = 8, 8


def xor_world(persons: int = 400) -> TrainingData:
    """Return people who met one of two books and one of two films; which song they want is the exclusive or of both.

    Items 0-3 and 4-7 are two kinds of book and of film, two items each; 8-11 and 12-15 are two kinds of song.
    """
    rng = np.random.default_rng(0)
    book, film = rng.integers(2, size=(2, persons))
    rows = [
        [2 * b + rng.integers(2), 4 + 2 * f + rng.integers(2), *(8 + 4 * (b ^ f) + rng.permutation(4)[:2])]
        for b, f in zip(book, film, strict=True)
    ]
    target = np.arange(SOURCES, SOURCES + TARGETS, dtype=np.int32)
    return TrainingData(Histories.of([[int(i) for i in row] for row in rows]), target, 16, 4 * persons)


def right_kind(scores: Floats, wanted: np.ndarray) -> float:
    """Return the share of people whose best song is of the kind they want."""
    return float(((scores.argmax(axis=1) >= 4) == wanted).mean())


XOR = xor_world()
ASKED = Histories.of([[0, 4], [2, 6], [0, 6], [2, 4], [1, 5], [3, 5]])
WANTED = np.array([0, 0, 1, 1, 0, 1], dtype=bool)
SMALL: Settings = {"loud": 10.0, "dim": 4, "text": 0.0, "decay": 1.0, "l2": 1.0}


@pytest.mark.parametrize("kind", ["ridge", "meta"])
def test_both_kinds_keep_the_contract(kind: str) -> None:
    check_method(lambda chosen: make("bridge", {"kind": kind, "dim": 3, "epochs": 2, **chosen}), DATA)


def test_a_map_of_ones_own_finds_what_one_map_for_all_cannot() -> None:
    ridge = Bridge({**SMALL, "kind": "ridge"}).fit(XOR)
    meta = Bridge({**SMALL, "kind": "meta", "epochs": 100}).fit(XOR)
    assert right_kind(meta.score(ASKED), WANTED) == 1.0
    assert right_kind(ridge.score(ASKED), WANTED) < 0.9


def test_where_the_network_gains_nothing_it_says_nothing() -> None:
    rng = np.random.default_rng(1)
    rows = [[*rng.integers(0, 8, 2).tolist(), *rng.integers(8, 16, 2).tolist()] for _ in range(60)]
    noise = replace(XOR, histories=Histories.of(rows))
    meta = Bridge({**SMALL, "kind": "meta", "epochs": 1}).fit(noise)
    ridge = Bridge({**SMALL, "kind": "ridge"}).fit(noise)
    assert isinstance(meta, Bridge)
    assert isinstance(ridge, Bridge)
    difference = np.abs(meta.target_states(ASKED) - ridge.target_states(ASKED)).max()
    assert difference < 0.5 * np.abs(ridge.target_states(ASKED)).max()


def test_ridge_equals_the_normal_equations_written_out() -> None:
    bridge = Bridge({**SMALL, "kind": "ridge", "l2": 2.0, "fame": 0.5})
    bridge.fit(XOR)
    people = XOR.histories.matrix(16).toarray()
    source, target = people[:, :8].astype(np.float64), people[:, 8:].astype(np.float64)
    source_axes = np.linalg.svd(source / np.sqrt(1 + source.sum(0)))[2][:4]
    target_axes = np.linalg.svd(target / np.sqrt(1 + target.sum(0)))[2][:4]
    said = source @ source_axes.T
    said /= np.linalg.norm(said, axis=1, keepdims=True)
    mean = said.mean(axis=0)
    wanted = (target / np.sqrt(1 + target.sum(0))) @ target_axes.T
    left, right = 2.0 * np.eye(4), np.zeros((4, 4))
    for row, answer in zip(said - mean, wanted - wanted.mean(axis=0), strict=True):
        left += np.outer(row, row)
        right += np.outer(row, answer)
    asked = ASKED.matrix(16).toarray()[:, :8] @ source_axes.T
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True) - mean
    expected = asked @ np.linalg.inv(left) @ right @ target_axes
    np.testing.assert_allclose(bridge.target_states(ASKED) @ bridge.targets.T, expected, atol=1e-5)
    told = bridge.score(ASKED) - bridge.prior
    np.testing.assert_allclose(told, 10 * expected / np.sqrt((expected**2).mean(axis=1, keepdims=True)), atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(8, 15), max_size=5), st.lists(st.integers(0, 7), max_size=4))
def test_target_events_play_no_part(target: list[int], source: list[int]) -> None:
    bridge = trained()
    both, one = bridge.score(Histories.of([target + source])), bridge.score(Histories.of([source]))
    np.testing.assert_allclose(both, one, atol=1e-6)
    assert source or np.array_equal(both[0], bridge.prior)


@cache
def trained() -> Bridge:
    bridge = Bridge({**SMALL, "kind": "meta", "epochs": 3})
    bridge.fit(XOR)
    return bridge


def test_attention_is_a_softmax_over_the_persons_own_events() -> None:
    import torch

    torch.manual_seed(0)
    net = BridgeNet(3, 2)
    torch.nn.init.normal_(net.upper.weight)
    items, states = torch.randn(5, 3), torch.randn(3, 3)
    rows = torch.tensor([0, 0, 0, 2, 2])
    said = net(items, rows, states)
    for person in range(3):
        own = items[rows == person]
        share = torch.softmax(net.look(own).squeeze(1), dim=0)
        about = share @ own
        full = net.upper(torch.relu(net.lower(about))).view(3, 2)
        torch.testing.assert_close(said[person], states[person] @ full)


def test_a_new_source_item_speaks_by_its_text() -> None:
    bridge = Bridge({"dim": 3, "text": 1.0}).fit(DATA)
    assert isinstance(bridge, Bridge)
    text = DATA.features.text
    assert text is not None
    vectors = DATA.features.vectors
    assert vectors is not None
    longer = Features(sparse.csr_array(sparse.vstack([text, text[[2]], text[[14]]])), vectors[[*range(15), 2, 14]])
    grown = bridge.extended(longer, DATA.target, 17)
    same, old, none = (grown.score(Histories.of([[item]])) for item in (15, 2, 16))
    np.testing.assert_allclose(same, old, atol=1e-5)
    assert np.ptp(old - grown.prior) > 0
    np.testing.assert_array_equal(none[0], grown.prior)


def test_nobody_on_both_sides_leaves_what_is_popular() -> None:
    alone = replace(XOR, histories=Histories.of([[0, 4], [2, 6], [8, 9], [12, 13]]))
    for kind in ("ridge", "meta"):
        said = Bridge({**SMALL, "kind": kind, "half_life": 0.0}).fit(alone).score(ASKED)
        popular = standardise(Popularity().fit(alone).score(ASKED))
        np.testing.assert_allclose(said, popular, atol=1e-6)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no bridge of kind 'rope'"):
        Bridge({"kind": "rope"}).fit(XOR)


def test_it_takes_part_only_if_named() -> None:
    assert "bridge" not in GROUND


@cache
def scene(kind: str) -> Scene:
    """Return a world, split by time and read by words alone."""
    world = (twin_world if kind == "twin" else unrelated_world)(0, PLAN)
    split = Split.make(Corpus.from_tables(world.tables, name=kind))
    return Scene(world, split, Readers(vocabulary(split), None, vectors=False).read(split.corpus.items))


@pytest.mark.parametrize("kind", ["twin", "unrelated"])
def test_a_planted_taste_is_found_on_a_platform_never_used(kind: str) -> None:
    world = scene(kind)
    cut = world.split.few_shot("target", keep=0, share=0.4, seed=0)
    data, task = training_data(cut, VALID, "target", world.features), build_task(cut, TEST, "target")
    cold = np.flatnonzero(task.cohorts["cold, overlap"])
    bridge = Bridge({"l2": 3.0, "dim": 16, "fame": 0.5, "loud": 10.0}).fit(data)
    scores = bridge.score(task.histories.take(cold))
    share, chance = planted(kind, task.persons[cold], task.items, scores)
    if kind == "twin":
        assert share > 1.5 * chance
    else:
        assert 0.6 * chance < share < 1.35 * chance


def planted(kind: str, persons: np.ndarray, items: np.ndarray, scores: Floats) -> tuple[float, float]:
    """Return the share of the first ten places with a theme that the person likes, and that of all items."""
    world = scene(kind)
    corpus = world.split.corpus
    keys = corpus.items.select("platform", "item")
    theme = keys.join(world.world.themes, on=["platform", "item"], how="left", maintain_order="left")["theme"]
    tastes = world.world.tastes.filter(world.world.tastes["domain"] == "target")
    liked = set(tastes.select("person", "theme").iter_rows())
    flags = np.array([[(corpus.persons[int(p)], theme[int(i)]) in liked for i in items] for p in persons])
    best = np.argsort(-scores, axis=1)[:, :10]
    return float(np.take_along_axis(flags, best, axis=1).mean()), float(flags.mean())


def test_it_joins_a_blend_where_it_helps() -> None:
    world = scene("twin")
    cut = world.split.few_shot("target", keep=0, share=0.4, seed=0)
    found = fit_target(cut, "target", world.features, FitSettings(methods=("popularity", "bridge"), budget=2.0))
    assert found.blend.weighs("bridge")
    assert found.valid["bridge"] > 0
    assert validate(found.methods[1], build_task(cut, VALID, "target")) > 0
