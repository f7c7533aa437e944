"""The voice of new items: heard where people want them, paid for by known items only as far as is allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.test_blend import TARGET, T, Table, informed, naive_score, world

from isthmus.data.sequences import Histories
from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.ranks import Ranks
from isthmus.model import voice
from isthmus.model.base import TrainingData
from isthmus.model.blend import COHORTS, Blend
from isthmus.model.stacking import learn
from isthmus.model.voice import TOLERATED, Practice, give_voice
from isthmus.split.task import Task
from isthmus.types import Bools, Floats


class Reader(Table):
    """A table that reads, and says what it learned from."""

    inductive = True

    def __init__(self, settings: object = None, table: Floats | None = None) -> None:
        super().__init__("reader", Reader.shared if table is None else table)
        self.taught: TrainingData | None = None

    shared: Floats = np.zeros((1, T), np.float32)
    last: Reader | None = None

    def _fit(self, data: TrainingData, seed: int) -> None:
        self.taught = data
        Reader.last = self


def reader(table: Floats) -> Reader:
    Reader.shared = table
    return Reader(table=table)


def taught(task: Task) -> TrainingData:
    rows = [[int(item) for item in np.random.default_rng(n).choice(TARGET, 4)] for n in range(50)]
    return TrainingData(Histories.of(rows), TARGET, 45, 200)


def reached(blend: Blend, methods: list[Table], task: Task, new: Bools, targets: Bools) -> float:
    scores = blend.score(methods, task.histories, new)
    ranks = Ranks.of(scores, task.target_indptr, task.targets)
    return float(np.nanmean(ndcg(ranks.keep(targets), 10)))


@pytest.fixture(scope="module")
def heard() -> tuple[Task, list[Table], Blend]:
    task, wanted = world(900, new=8, seed=4)
    crowd = informed(wanted, 3.0, 1)
    crowd[:, :8] = np.random.default_rng(2).normal(size=(900, 8))
    methods = [Table("crowd", crowd), reader(informed(wanted, 3.0, 3))]
    blend = learn(methods, task)
    return task, methods, give_voice(blend, methods, task, Practice(taught(task), seed=1))


def test_new_items_are_heard_and_known_ones_lose_next_to_nothing(heard: tuple[Task, list[Table], Blend]) -> None:
    task, methods, blend = heard
    new = task.item_groups["new item"]
    wants_new = new[task.targets]
    silent = replace(blend, voice=(0.0, 0.0), level=-1e6)
    assert reached(silent, methods, task, new, wants_new) == 0
    assert reached(blend, methods, task, new, wants_new) > 0.3
    before, after = (reached(one, methods, task, new, ~wants_new) for one in (silent, blend))
    assert after >= (1 - 4 * TOLERATED) * before, "the hidden items of the rehearsal are not these"
    assert blend.voice is not None
    assert blend.voice[0] == 0, "who only knows who met what has no say"


@pytest.mark.parametrize("seed", [4, 5])
def test_what_one_reader_alone_says_of_new_items_is_not_given_away(seed: int) -> None:
    task, wanted = world(900, new=8, seed=seed)
    crowd = informed(wanted, 1.0, 1)
    crowd[:, :8] = np.random.default_rng(2).normal(size=(900, 8))
    methods = [Table("crowd", crowd), reader(informed(wanted, 2.0, 3))]
    new, every = task.item_groups["new item"], np.ones(900, dtype=bool)
    wants_new = new[task.targets]
    learned = learn(methods, task)
    blend = give_voice(learned, methods, task, Practice(taught(task), seed=1))
    alone = Blend(("crowd", "reader"), dict.fromkeys(COHORTS, (0.0, 1.0)))
    silent = replace(blend, voice=(0.0, 0.0), level=-1e6)
    fresh, known, total = (
        [reached(one, methods, task, new, some) for one in (blend, alone, silent)]
        for some in (wants_new, ~wants_new, every)
    )
    assert fresh[0] > 0.85 * fresh[1]
    assert total[0] > max(total[1:]), "all wishes together gain"
    assert known[0] >= (1 - 1.5 * voice.MOST) * known[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice, "MOST", TOLERATED)
        shy = give_voice(learned, methods, task, Practice(taught(task), seed=1))
    assert reached(shy, methods, task, new, wants_new) < 0.6 * fresh[1]


def test_where_nobody_wants_what_is_new_known_items_lose_next_to_nothing() -> None:
    task, wanted = world(900, seed=4)
    methods = [Table("crowd", informed(wanted, 3.0, 1)), reader(informed(wanted, 3.0, 3))]
    blend = give_voice(learn(methods, task), methods, task, Practice(taught(task), seed=1))
    assert voice._rehearse(blend, methods, task, (1,), Practice(taught(task), 1)).unhidden == 0
    hidden = np.zeros(T, dtype=bool)
    hidden[:4] = True
    wanted_known = ~hidden[task.targets]
    silent = replace(blend, voice=(0.0, 0.0), level=-1e6)
    before, after = (reached(one, methods, task, hidden, wanted_known) for one in (silent, blend))
    assert after >= (1 - 4 * TOLERATED) * before


def test_a_reader_that_knows_nothing_costs_next_to_nothing() -> None:
    task, wanted = world(900, new=8, seed=4)
    methods = [Table("crowd", informed(wanted, 3.0, 1)), reader(informed(wanted, 0.0, 3))]
    blend = give_voice(learn(methods, task), methods, task, Practice(taught(task)))
    new = task.item_groups["new item"]
    silent = replace(blend, voice=(0.0, 0.0), level=-1e6)
    before, after = (reached(one, methods, task, new, ~new[task.targets]) for one in (silent, blend))
    assert (1 - 4 * TOLERATED) * before <= after < before


def test_hidden_items_leave_events_and_histories(heard: tuple[Task, list[Table], Blend]) -> None:
    task = heard[0]
    practised = Reader.last
    data = taught(task)
    assert practised is not None
    assert practised.taught is not None
    gone = np.setdiff1d(data.histories.items, practised.taught.histories.items)
    assert 1 <= gone.size <= int(np.ceil(voice.HIDDEN * T))
    assert np.isin(gone, TARGET).all()


def test_the_score_with_a_voice_equals_a_loop() -> None:
    task, wanted = world(12, cold=4, new=6)
    few = task.histories.keep((task.histories.age < 3) | (task.histories.rows > 7))
    methods = [Table(str(n), informed(wanted, 1.0, n)) for n in range(3)]
    weights = dict(zip(COHORTS, [(0.2, 0.8, 0.0), (1.0, 0.0, 0.0), (0.1, 0.2, 0.7)], strict=True))
    blend = Blend(("0", "1", "2"), weights, voice=(0.0, 1.5, 0.2), level=-0.5)
    new = task.item_groups["new item"]
    np.testing.assert_allclose(
        blend.score(methods, few, new), naive_score(blend, methods, few, new), atol=1e-4
    )  # fmt: skip
    assert blend.among(["2", "x", "1", "0"]).voice == (0.2, 0.0, 1.5, 0.0)
    assert blend.without(["0"]).voice is None


def test_without_anybody_who_reads_new_items_stay_below() -> None:
    task, wanted = world(100, new=5)
    methods = [Table("crowd", informed(wanted, 1.0, 1))]
    blend = give_voice(learn(methods, task), methods, task, Practice(taught(task)))
    assert blend.voice == (0.0,)
    assert blend.level < -1


def test_where_nobody_wants_a_new_item_they_speak_as_loud_as_known_ones_bear() -> None:
    task, wanted = world(600, new=10)
    few = Task(**{**vars(task), "targets": (10 + wanted % 4).astype(np.int32)})
    methods = [Table("crowd", informed(few.targets, 2.0, 1)), reader(informed(few.targets, 0.0, 2))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice, "ENOUGH_NEW", 10_000)
        blend = give_voice(learn(methods, few), methods, few, Practice(taught(few)))
        patch.setattr(voice, "TOLERATED", 0.3)
        freer = give_voice(learn(methods, few), methods, few, Practice(taught(few)))
    assert blend.voice is not None
    assert freer.voice is not None
    assert 0.2 < blend.voice[1] <= freer.voice[1]
    assert blend.level <= freer.level <= 0
    assert (blend.voice, blend.level) != (freer.voice, freer.level)
    new = few.item_groups["new item"]
    silent = replace(blend, voice=(0.0, 0.0), level=-1e6)
    everything = np.ones(600, dtype=bool)
    before, after = (reached(one, methods, few, new, everything) for one in (silent, blend))
    assert after >= (1 - 4 * TOLERATED) * before


class Noise(Reader):
    """A reader that knows nothing."""

    table = np.random.default_rng(9).normal(size=(600, T)).astype(np.float32)

    def __init__(self, settings: object = None) -> None:
        super().__init__(settings, table=self.table)


def test_where_nobody_wants_a_new_item_those_who_know_the_known_ones_speak_for_them() -> None:
    task, wanted = world(600, new=10)
    few = Task(**{**vars(task), "targets": (10 + wanted % 4).astype(np.int32)})
    methods = [Table("crowd", informed(few.targets, 2.0, 1)), reader(informed(few.targets, 2.0, 2)), Noise()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice, "ENOUGH_NEW", 10_000)
        blend = give_voice(learn(methods, few), methods, few, Practice(taught(few)))
    assert blend.voice is not None
    assert blend.voice[1] > 4 * blend.voice[2]


def test_the_slow_do_not_practise_and_have_no_say_about_new_items() -> None:
    task, wanted = world(400, new=8, seed=2)
    slow = reader(informed(wanted, 2.0, 9))
    slow.name = "sequence"  # type: ignore[misc]
    methods = [Table("crowd", informed(wanted, 2.0, 1)), reader(informed(wanted, 2.0, 3)), slow]
    blend = Blend(("crowd", "reader", "sequence"), dict.fromkeys(COHORTS, (0.5, 0.25, 0.25)))
    heard = give_voice(blend, methods, task, Practice(taught(task), slow=("sequence",)))
    assert heard.voice is not None
    assert heard.voice[1] > 0
    assert heard.voice[2] == 0
    assert slow.taught is None
