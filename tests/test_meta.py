"""Learning to adapt: a few steps on a few events fit a new person, and nobody else."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_carriers import KNOWN, PLACES, VECTORS, N, carrier

from isthmus.data.sequences import Histories
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Features, TrainingData
from isthmus.train.carriers import SequenceCarrier
from isthmus.transfer.meta import WAYS, MetaLearner, MetaSettings
from isthmus.transfer.meta_rivals import SimilarPeople
from isthmus.transfer.meta_tasks import Shape, domain_tasks, person_tasks, serving_tasks

TARGET = np.arange(1, N, 2, dtype=np.int32)  # the odd items; the even ones are the source
SMALL = MetaSettings(epochs=2, rate=0.3, steps=3, batch=16, candidates=15, rank=2)


def world(people: int = 80, seed: int = 0) -> Histories:
    """Return people of two kinds that no source event tells apart: one meets low targets, the other high ones."""
    rng = np.random.default_rng(seed)
    rows = []
    for person in range(people):
        low = person % 2 == 0
        pool = TARGET[:7] if low else TARGET[8:]
        rows.append([2 * int(rng.integers(15)), *rng.permutation(pool)[:6].tolist()])
    return Histories.of(rows)


@cache
def data() -> TrainingData:
    histories = world()
    features = Features(vectors=VECTORS, places=PLACES)
    return TrainingData(histories, TARGET, N, int(histories.ts.max()), features, dated=False)


def method() -> SequenceCarrier:
    """Return a carrier that was never taught about the people of this world."""
    found = SequenceCarrier({"ids": True})
    found.target, found.n_items, found.has_dates = TARGET, N, False
    model = carrier("sequence")
    found.models, found.known = [model], KNOWN
    table = model.whole(VECTORS, PLACES, KNOWN)
    kind = np.random.default_rng(1).normal(size=table.shape[1]).astype(np.float32)
    kind *= 0.4 * np.linalg.norm(table, axis=1).mean() / np.linalg.norm(kind)
    table[TARGET[:7]] += kind
    table[TARGET[8:]] -= kind
    found.tables = [table]
    return found


@cache
def learned(way: str) -> MetaLearner:
    return MetaLearner(method(), replace(SMALL, way=way)).learn(data())


def own_share(learner: MetaLearner, shots: int) -> float:
    """Return the share of the first places that are of the kind of a new person with ``shots`` events.

    As many places as there are items of the kind left. By chance it is 0.47 with no event, and 0.33 with three.
    """
    asked = world(40, seed=9)
    cut = asked.keep(np.arange(asked.items.size) - asked.indptr[:-1][asked.rows] <= shots)
    scores = learner.score(cut)
    place = np.searchsorted(TARGET, cut.items)
    seen = TARGET[np.minimum(place, TARGET.size - 1)] == cut.items
    scores[cut.rows[seen], place[seen]] = -np.inf
    best = TARGET[np.argsort(-scores, axis=1)[:, : 7 - shots]]
    low = (np.arange(40) % 2 == 0)[:, None]
    return float(np.where(low, best <= TARGET[6], best >= TARGET[8]).mean())


@pytest.mark.parametrize("way", ["anil", "maml", "reptile"])
def test_few_events_tell_what_a_person_is(way: str) -> None:
    learner = learned(way)
    assert own_share(learner, 3) > own_share(learner.stepping(0.3, 0), 3) + 0.05
    assert 0.35 < own_share(learner, 0) < 0.6


def test_steps_help_and_learning_where_to_start_helps_more() -> None:
    start = MetaLearner(method(), SMALL)
    none, steps = own_share(start.stepping(0.3, 0), 3), own_share(start, 3)
    assert steps > none + 0.02
    assert own_share(learned("anil"), 3) > steps


def test_a_start_that_learned_nothing_says_what_the_carrier_says() -> None:
    plain, asked = method(), world(7, seed=3)
    learner = MetaLearner(plain, replace(SMALL, steps=0))
    np.testing.assert_allclose(learner.score(asked), plain.score(asked), atol=1e-4)


def test_adapting_follows_the_gradient_person_by_person() -> None:
    learner = MetaLearner(method(), replace(SMALL, way="anil", steps=1, rate=0.3))
    asked = world(3, seed=4)
    adapted = learner.adapt(asked)
    for person in range(3):
        tasks = serving_tasks(asked.take(np.array([person])), TARGET, SMALL.shape, dated=False)
        head = learner.asker.head
        head.requires_grad_(True)
        asks = learner.asker(torch.from_numpy(tasks.events[:, 0]), learner.table)[0]
        losses = []
        for place in np.flatnonzero(tasks.support[0, 0]):
            logits = asks[place] @ learner.table[learner.pool].T
            right = int(np.searchsorted(learner.pool.numpy(), tasks.nexts[0, 0, place]))
            losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(right)))
        slope = torch.autograd.grad(torch.stack(losses).mean(), head.weight)[0]
        torch.testing.assert_close(adapted["head.weight"][person], -0.3 * slope, atol=1e-5, rtol=1e-3)
        head.requires_grad_(False)


@pytest.mark.parametrize("way", ["anil", "maml"])
def test_only_the_named_weights_are_adapted_and_nobody_else_is(way: str) -> None:
    learner = MetaLearner(method(), replace(SMALL, way=way))
    before = {name: tensor.clone() for name, tensor in learner.asker.state_dict().items()}
    asked = world(6, seed=2)
    adapted, scores = learner.adapt(asked), learner.score(asked)
    assert any("lora_" in name for name in adapted) == (way == "maml")
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.asker.state_dict().items())
    for person in range(6):
        np.testing.assert_allclose(learner.score(asked.take(np.array([person])))[0], scores[person], atol=1e-4)


def test_people_without_target_events_get_the_start_and_those_without_any_get_zeros() -> None:
    learner = learned("anil")
    asked = Histories.of([[0, 2], [], [4]])
    np.testing.assert_allclose(learner.score(asked), learner.stepping(9.0, 5).score(asked), atol=1e-6)
    assert not learner.score(asked)[1].any()
    assert learner.score(asked)[0].any()


def test_the_base_weights_of_the_carrier_stay() -> None:
    plain = method()
    before = {name: tensor.clone() for name, tensor in plain.models[0].state_dict().items()}
    MetaLearner(plain, replace(SMALL, way="maml", epochs=1)).learn(data())
    assert all(torch.equal(before[name], tensor) for name, tensor in plain.models[0].state_dict().items())


def test_what_was_learned_is_kept(tmp_path: Path) -> None:
    learner, asked = learned("maml"), world(5, seed=6)
    learner.save(tmp_path / "start")
    again = MetaLearner.open(tmp_path / "start", method())
    np.testing.assert_allclose(again.score(asked), learner.score(asked), atol=1e-6)
    assert again.settings == learner.settings
    (tmp_path / "start" / "start.safetensors").write_bytes(b"no")
    with pytest.raises(ArtefactError, match="damaged"):
        MetaLearner.open(tmp_path / "start", method())
    with pytest.raises(ArtefactError, match="is not a start"):
        MetaLearner.open(tmp_path, method())


def test_the_same_seed_learns_the_same() -> None:
    settings = replace(SMALL, way="anil", epochs=1)
    first, second = (MetaLearner(method(), settings).learn(data()) for _ in range(2))
    np.testing.assert_array_equal(first.score(world(4)), second.score(world(4)))


def test_validation_chooses_the_steps() -> None:
    learner = learned("anil")
    likes = {(0.3, 3): 1.0}
    chosen = learner.chosen(None, lambda some, _: likes.get((some.settings.rate, some.settings.steps), 0.0))  # type: ignore[arg-type]
    assert (chosen.settings.rate, chosen.settings.steps) == (0.3, 3)
    still = learner.chosen(None, lambda some, _: -some.settings.steps)  # type: ignore[arg-type]
    assert still.settings.steps == 0


def test_a_person_is_adapted_in_fifty_milliseconds() -> None:
    learner, one = learned("anil"), world(1)
    learner.score(one)
    spent = []
    for _ in range(10):
        start = time.process_time()
        learner.score(one)
        spent.append(time.process_time() - start)
    assert sorted(spent)[5] < 0.05


def test_domains_are_tasks_too() -> None:
    rows = [[(2 * k + d) % N for k in range(person, person + 4)] for person in range(12) for d in (0, 1)]
    tasks = domain_tasks(Histories.of(rows), PLACES, Shape(2, 2), np.random.default_rng(0), dated=False)
    assert tasks.nexts.shape == (6, 4, 4)
    assert sorted(tasks.domain.tolist()) == [0, 0, 0, 1, 1, 1]
    for task, domain in enumerate(tasks.domain):
        assert set((tasks.events[0, task] % 2).ravel()) == {domain}
    assert tasks.support[:, :2, :3].all()
    assert not tasks.support[:, 2:].any()
    assert tasks.query[:, 2:, :3].all()
    learner = MetaLearner(method(), replace(SMALL, way="anil", epochs=1)).learn(data(), tasks)
    assert np.isfinite(learner.score(world(3))).all()


def test_person_tasks_hide_what_comes_later() -> None:
    histories = world(50, seed=7)
    tasks = person_tasks(histories, TARGET, Shape(3, 2), np.random.default_rng(1), dated=False)
    assert len(tasks) == 50
    for person in range(50):
        own = histories.items[histories.indptr[person] : histories.indptr[person + 1]]
        width = int(tasks.last[person, 0]) + 1
        np.testing.assert_array_equal(tasks.events[0, person, 0, :width], own[:width])
        shots, asked = np.flatnonzero(tasks.support[person, 0]), np.flatnonzero(tasks.query[person, 0])
        assert 1 <= shots.size <= 3
        assert 1 <= asked.size <= 2
        assert shots.max() < asked.min()
        assert asked.max() + 1 == width - 1
        assert np.isin(tasks.nexts[person, 0][[*shots, *asked]], TARGET).all()


def test_similar_people_vouch_for_what_they_met() -> None:
    plain = method()
    system = SimilarPeople(plain, data(), neighbours=3)
    asked = data().histories.take(np.array([0, 1]))
    states = plain.models[0].states(plain.tables[0], data().histories, dated=False)
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    met = (data().histories.matrix(N).toarray() > 0)[:, TARGET]
    for person, scores in enumerate(system.score(asked)):
        near = unit @ unit[person]
        best = np.argsort(-near, kind="stable")[:3]
        np.testing.assert_allclose(scores, near[best] @ met[best] / 3, atol=1e-4)
    assert not system.score(Histories.of([[]])).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"way": "magic"}, "no way 'magic'"), ({"rate": 0.0}, "impossible"), ({"steps": -1}, "impossible")],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MetaSettings(**settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="take 1, 1 and 2"):
        Shape(0, 1)
    assert set(WAYS) == {"maml", "anil", "reptile", "plain"}


def test_nobody_to_learn_from_is_said() -> None:
    alone = replace(data(), histories=Histories.of([[0, 1], [2, 3]]))
    with pytest.raises(InputError, match="two training events"):
        MetaLearner(method(), SMALL).learn(alone)
