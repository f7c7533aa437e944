"""The sequence model as a method: it learns order where there is one, keeps its promises, and refuses bad input."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pages import run_programs, text_of
from tests.test_worlds_order import Judged

from isthmus.data.augment import shuffle_histories
from isthmus.data.sequences import Histories
from isthmus.data.simulate import ORDER, order_world, shuffled_world
from isthmus.errors import InputError, TrainingError
from isthmus.model.base import DAY, Features, Hooks, Method, Places, Setting, TrainingData
from isthmus.model.sequence import SequenceModel
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.methods import make
from isthmus.train.tune import validate

#: Items 0-7 are the source, 8-19 the target.
N, TARGET = 20, np.arange(8, 20, dtype=np.int32)
PLACES = Places((np.arange(N) >= 8).astype(np.int32), np.zeros(N, np.int32), ("food", "tools"), ("shop",))
VECTORS = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
QUICK: dict[str, Setting] = {"dim": 8, "layers": 1, "epochs": 3, "batch": 128, "dropout": 0.0}
ASKED = Histories.of([[0, 9, 10], [8], [3, 2], []])


def data(rows: list[list[int]] | None = None, features: Features | None = None) -> TrainingData:
    known = rows if rows is not None else [[(3 * row + step) % N for step in range(6)] for row in range(30)]
    histories = Histories.of(known)
    histories = replace(histories, ts=histories.ts * DAY)
    now = int(histories.ts.max(initial=0))
    return TrainingData(histories, TARGET, N, now, features or Features(None, VECTORS, PLACES))


def fitted(given: TrainingData | None = None, seed: int = 0, **chosen: Setting) -> SequenceCarrier:
    method = SequenceCarrier({**QUICK, **chosen}).fit(given or data(), seed=seed)
    assert isinstance(method, SequenceCarrier)
    return method


def learned_of(judged: Judged) -> tuple[float, float]:
    """Return NDCG@10, and with the events of each asked history in any order."""
    chosen: dict[str, Setting] = {"dim": 32, "epochs": 14, "dropout": 0.1, "sources": False, "learning_rate": 4e-3}
    method, asked = make("sequence", chosen).fit(judged.data), judged.task
    mixed = replace(asked, histories=shuffle_histories(asked.histories, np.random.default_rng(0)))
    return validate(method, asked), validate(method, mixed)


@pytest.mark.slow
def test_where_only_order_tells_it_wins_and_is_near_the_oracle() -> None:
    judged = Judged.of(order_world(0))
    found, mixed = learned_of(judged)
    assert found >= 0.9 * judged.oracle()
    assert found > 2 * max(judged.sets().values())
    assert mixed < 0.6 * found


@pytest.mark.slow
def test_where_order_is_noise_it_does_not_win() -> None:
    judged = Judged.of(shuffled_world(0))
    (found, mixed), sets = learned_of(judged), judged.sets()
    noise = 0.02  # two standard errors over some 800 persons
    assert found < max(sets["knn"], sets["ease"]) + noise
    assert found > 1.3 * judged.chance(), "it does learn who likes what"
    assert abs(mixed - found) < 0.04


def test_a_small_world_of_order_is_learned_in_seconds() -> None:
    judged = Judged.of(order_world(1, plan=replace(ORDER, persons=500, items=36, follows=0.95)))
    assert learned_of(judged)[0] > 1.5 * max(judged.sets().values())


@pytest.mark.parametrize("ids", [True, False])
def test_the_state_gives_the_same_scores(ids: bool) -> None:
    method = fitted(ids=ids, members=2)
    again = SequenceCarrier(method.settings)
    again.target, again.n_items = TARGET, N
    again.restore(method.state(), data().features)
    np.testing.assert_array_equal(again.score(ASKED), method.score(ASKED))


def test_members_are_averaged_and_differ() -> None:
    one, two = fitted(), fitted(seed=1000)
    both = fitted(members=2)
    np.testing.assert_allclose(both.score(ASKED), (one.score(ASKED) + two.score(ASKED)) / 2, atol=1e-5)
    assert np.abs(one.score(ASKED) - two.score(ASKED)).max() > 1e-3


def test_a_person_without_events_has_no_scores_and_sources_may_be_left_out() -> None:
    assert not fitted().score(ASKED)[3].any()
    alone = fitted(sources=False)
    assert not alone.score(ASKED)[2].any(), "nothing but the source"
    np.testing.assert_allclose(alone.score(ASKED)[0], alone.score(Histories.of([[9, 10]]))[0], atol=1e-5)
    assert np.abs(fitted().score(ASKED)[2]).max() > 0


def test_items_that_come_later_are_read() -> None:
    method = fitted(ids=False)
    rows = np.append(np.arange(N), 9)
    features = Features(
        None, VECTORS[rows], replace(PLACES, domain=PLACES.domain[rows], platform=PLACES.platform[rows])
    )
    longer = method.extended(features, np.append(TARGET, N).astype(np.int32), N + 1)
    before, after = method.score(ASKED), longer.score(ASKED)
    np.testing.assert_allclose(after[:, :-1], before, atol=1e-6)
    np.testing.assert_allclose(after[:, -1], before[:, 1], atol=1e-5)
    told = longer.score(Histories.of([[8, N], [8, 9]]))
    np.testing.assert_allclose(told[0], told[1], atol=1e-5)


def test_without_vectors_it_learns_from_ids_alone() -> None:
    rows = [[8 + (start + step) % 12 for step in range(5)] for start in range(12)] * 8
    given = data(rows, Features(places=PLACES))
    method = fitted(given, epochs=30, learning_rate=1e-2)
    assert method.models[0].adaptor is None
    assert method.models[0].config.n_items == 12
    told = method.score(Histories.of([[8, 9, 10], [13, 14, 15]]))
    told[0, :3] = told[1, 5:8] = -np.inf  # what they had
    assert told.argmax(axis=1).tolist() == [3, 8]


def test_only_items_with_events_have_ids() -> None:
    method = fitted(data([[8, 9, 10], [9, 8, 10]] * 4))
    assert method.known.tolist() == [8, 9, 10]
    assert method.models[0].config.n_items == 3


def test_watching_keeps_the_best_epoch_and_notes_it() -> None:
    scores: list[np.ndarray] = []
    marks = iter([0.1, 0.5, 0.2, 0.3])

    def watch(method: Method) -> float:
        scores.append(method.score(ASKED))
        return next(marks)

    method = SequenceCarrier({**QUICK, "epochs": 9})
    method.hooks = Hooks(watch=watch)
    method.fit(data())
    assert len(scores) == 4, "two epochs without a better one are enough"
    assert method.settings["epochs"] == 3, "learned again, half as many more"
    np.testing.assert_allclose(method.score(ASKED), scores[1], atol=1e-6)
    assert np.abs(scores[1] - scores[3]).max() > 1e-3
    last = SequenceCarrier({**QUICK, "epochs": 2})
    rising = iter([0.1, 0.2])
    last.hooks = Hooks(watch=lambda _: next(rising))
    assert last.fit(data()).settings["epochs"] == 2, "never more than were planned"


def test_few_events_are_gone_through_more_often_unless_epochs_are_named() -> None:
    small: dict[str, Setting] = {"dim": 8, "layers": 1, "batch": 128}
    done: list[int] = []
    for chosen in ({"steps": 7}, {"steps": 999}, {"steps": 2}, {"epochs": 3}):
        method = SequenceCarrier({**small, **chosen})
        method.fit(data())
        assert method.log is not None
        assert method.log.steps == len(method.log.at), "one batch holds them all"
        done.append(method.log.steps)
    assert done == [7, 20, 5, 3], "at least the usual five, at most four times as many"


def test_no_epoch_scores_with_the_model_as_it_starts() -> None:
    empty = data([])
    method = fitted(empty, epochs=0, ids=False)
    assert np.isfinite(method.score(ASKED)).all()
    assert method.log is None


@pytest.mark.parametrize("rows", [[[8]], [[8, 9]], [[0, 9], [9, 0]], [[8, 8, 8]], [[0, 1], [1, 8]]])
@pytest.mark.parametrize("sources", [True, False])
def test_next_to_no_events_are_no_reason_to_fall(rows: list[list[int]], sources: bool) -> None:
    method = fitted(data(rows), sources=sources)
    scores = method.score(ASKED)
    assert scores.shape == (4, 12)
    assert np.isfinite(scores).all()


def test_a_target_of_one_item_can_be_learned() -> None:
    given = replace(data(), target=np.array([8], np.int32))
    assert np.isfinite(fitted(given).score(ASKED)).all()


def test_texts_that_are_all_the_same_say_nothing_and_break_nothing() -> None:
    same = Features(None, np.tile(VECTORS[:1], (N, 1)), PLACES)
    method = fitted(data(features=same), ids=False)
    scores = method.score(ASKED)
    assert np.isfinite(scores).all()
    assert np.ptp(scores, axis=1).max() < 1e-4
    rare = Features(None, VECTORS * (np.arange(N) == 9)[:, None], PLACES)
    assert np.isfinite(fitted(data(features=rare)).score(ASKED)).all(), "one text alone cannot be whitened"


def test_a_loss_that_is_no_number_stops_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = SequenceModel.forward, []

    def poisoned(self: SequenceModel, **batch: torch.Tensor) -> object:
        out = real(self, **batch)
        calls.append(0)
        if len(calls) > 4:
            out.loss = out.loss * float("nan")
        return out

    monkeypatch.setattr(SequenceModel, "forward", poisoned)
    with pytest.raises(TrainingError, match="loss is nan"):
        fitted(epochs=9)


def test_a_pre_trained_model_of_other_vectors_is_refused(tmp_path: Path) -> None:
    fitted().models[0].save_pretrained(tmp_path)
    other = data(features=Features(None, VECTORS[:, :4], PLACES))
    with pytest.raises(InputError, match="vectors of length 6, the items have 4"):
        fitted(other, start=str(tmp_path))
    assert fitted(start=str(tmp_path)).models[0].config.dim == 8


PAGE = text_of("sequence.md")


def test_the_example_of_the_page_runs() -> None:
    run_programs("sequence.md", 1)


def test_the_page_tells_every_setting_and_its_default() -> None:
    told: dict[str, str] = {}
    for names, values in re.findall(r"^\| (`.*?`) \| ([^|]*) \|", PAGE, re.MULTILINE):
        said = [value.strip() for value in values.split(", ")]
        told |= dict(zip(re.findall(r"`(\w+)`", names), said, strict=False))
    for name, value in SequenceCarrier.defaults.items():
        expected = "none" if value == "" else str(value).lower() if isinstance(value, bool) else str(value)
        assert told[name].strip("`") in (expected, f"{value:g}" if isinstance(value, float) else expected), name
