"""Tasks from splits: who is asked, what is known, which slices; against a naive reading of the events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import Event, corpus, day

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, InputError, NotFoundError
from isthmus.split.cohorts import FEW, build_task, person_cohorts, target_items
from isthmus.split.task import Task
from isthmus.split.temporal import CONTEXT, TEST, TRAIN, VALID, HeldOut, Split

LOGS = st.lists(
    st.tuples(
        st.sampled_from(["shop", "cinema"]),
        st.sampled_from("abcd"),
        st.sampled_from(["i1", "i2", "i3"]),
        st.integers(0, 29),
    ),
    min_size=1,
    max_size=40,
)
CUTS = (day(10), day(20))


def split_of(log: list[Event]) -> Split:
    """Always with something to learn from, something valid and something in test."""
    more: list[Event] = [("shop", "z", "i9", n) for n in (0.5, 10.5, 20.5)]
    return Split.make(corpus([*log, *more]), cuts=CUTS)


@settings(max_examples=60, deadline=None)
@given(LOGS, st.sampled_from([VALID, TEST]))
def test_a_task_equals_a_naive_reading_of_the_log(log: list[Event], part: int) -> None:
    split = split_of(log)
    task = build_task(split, part, "books")
    start, stop = ((10, 20), (20, 99))[part - 1]
    whole = sorted({*log, *[("shop", "z", "i9", n) for n in (0.5, 10.5, 20.5)]}, key=lambda row: row[3])
    books = sorted({row[2] for row in whole if row[0] == "shop"})
    wanted: dict[str, set[str]] = {}
    for platform, user, item, when in whole:
        if platform == "shop" and start <= when < stop:
            wanted.setdefault(user, set()).add(item)
    names = split.corpus.items["item"]
    assert [names[int(item)] for item in task.items] == books
    assert [split.corpus.persons[int(person)] for person in task.persons] == sorted(wanted)
    for place, user in enumerate(sorted(wanted)):
        columns = task.targets[task.target_indptr[place] : task.target_indptr[place + 1]]
        assert {books[column] for column in columns} == wanted[user]
        history = task.histories.take(np.array([place])).items
        known = [(row[0], row[2]) for row in whole if row[1] == user and row[3] < start]
        keys = split.corpus.items.select("platform", "item")
        assert sorted(keys.row(int(item)) for item in history) == sorted(keys_of(log, known, user, start))
        own = sum(platform == "shop" for platform, _ in keys_of(log, known, user, start))
        assert task.cohorts["cold person"][place] == (own == 0)
        assert task.cohorts[f"1-{FEW} events"][place] == (0 < own <= FEW)
        assert task.cohorts["overlap"][place] == any(platform == "cinema" for platform, _ in known)
    met = [len({row[1] for row in whole if row[0] == "shop" and row[2] == book and row[3] < start}) for book in books]
    assert task.popularity.tolist() == met
    assert task.item_groups["new item"].tolist() == [count == 0 for count in met]
    assert task.train_persons == len({row[1] for row in whole if row[0] == "shop" and row[3] < start})


def keys_of(log: list[Event], known: list[tuple[str, str]], user: str, start: float) -> list[tuple[str, str]]:
    """Return the known events with the repetitions of the log."""
    more = [("shop", "z", "i9", n) for n in (0.5, 10.5, 20.5)]
    repeated = [(row[0], row[2]) for row in [*log, *more] if row[1] == user and row[3] < start]
    assert set(repeated) == set(known)
    return repeated


def test_cohorts_part_everybody_into_three_kinds() -> None:
    histories = Histories.of([[], [0], [5], [5, 0], [5, 6, 7], [5, 5, 5, 5], [5, 6, 7, 5, 0]])
    found = person_cohorts(histories, np.arange(5, 9, dtype=np.int32))
    kinds = np.stack([found["cold person"], found[f"1-{FEW} events"], found["warm person"]])
    assert kinds.sum(axis=0).tolist() == [1] * 7
    assert kinds.argmax(axis=0).tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert found["overlap"].tolist() == [False, True, False, True, False, False, True]
    assert found["no overlap"].tolist() == (~found["overlap"]).tolist()
    assert found["cold, overlap"].tolist() == [False, True, False, False, False, False, False]


def test_head_tail_new_and_platforms_of_items() -> None:
    log: list[Event] = [("shop", f"u{n}", f"i{k}", n / 10) for k in range(10) for n in range(k)]
    log += [("shop", "u1", "i0", 15), ("shop", "u1", "i3", 25)]
    task = build_task(Split.make(corpus(log), cuts=CUTS), VALID, "books")
    groups = task.item_groups
    assert np.flatnonzero(groups["head"]).tolist() == [8, 9]
    assert np.flatnonzero(groups["new item"]).tolist() == [0]
    assert (groups["head"].astype(int) + groups["tail"] + groups["new item"] == 1).all()
    assert groups["platform shop"].all()
    unmet = Split.make(corpus([("shop", "a", "x", 1), ("cinema", "a", "f", 15)]), cuts=CUTS)
    assert not build_task(unmet, VALID, "films").item_groups["head"].any(), "an item nobody met is no head item"


def test_at_most_so_many_persons_spread_evenly() -> None:
    log: list[Event] = [("shop", f"u{n:02}", f"i{n % 3}", when) for n in range(50) for when in (1, 15, 25)]
    split = Split.make(corpus(log), cuts=CUTS)
    task = build_task(split, TEST, "books", most=5)
    assert task.persons.tolist() == [0, 12, 24, 36, 49]
    assert task.targets.size == 5
    whole = build_task(split, TEST, "books")
    np.testing.assert_array_equal(task.targets, whole.targets[[0, 12, 24, 36, 49]])
    assert len(build_task(split, TEST, "books", most=500)) == 50


def test_context_is_history_and_teaches_nothing() -> None:
    log: list[Event] = [("shop", u, i, n) for n, u in enumerate("abc") for i in ("x", "y")]
    log += [("shop", "c", "only c", 5), ("shop", "c", "z", 9)]
    accounts = corpus(log).identities.select("platform", "user")
    held = HeldOut(accounts.filter(user="b"), accounts.filter(user="c"))
    split = Split.make(corpus(log), protocol="leave-last", held_out=held)
    task = build_task(split, TEST, "books")
    assert task.histories.items.size == 3
    names = split.corpus.items["item"]
    only_c = [names[int(item)] for item in task.items].index("only c")
    assert task.popularity[only_c] == 0
    assert task.item_groups["new item"][only_c]
    assert task.unreachable == 0
    assert (split.events["part"] == CONTEXT).any()


def test_targets_in_the_history_are_counted_as_unreachable() -> None:
    log: list[Event] = [("shop", "a", i, n) for i, n in [("x", 1), ("y", 2), ("x", 15), ("z", 16), ("z", 17)]]
    task = build_task(Split.make(corpus([*log, ("shop", "b", "x", 25)]), cuts=CUTS), VALID, "books")
    assert task.targets.size == 2
    assert task.unreachable == 1


def test_an_empty_question_says_what_to_do() -> None:
    split = Split.make(corpus([("shop", "a", "x", 1), ("shop", "a", "y", 15), ("cinema", "a", "f", 2)]), cuts=CUTS)
    with pytest.raises(InputError, match="valid has no event in domain 'films'"):
        build_task(split, VALID, "films")
    with pytest.raises(InputError, match="test share above 0"):
        build_task(split, TEST, "books")
    with pytest.raises(NotFoundError, match="did you mean 'books'"):
        build_task(split, VALID, "book")
    assert target_items(split, "films").dtype == np.int32
    assert (split.events["part"] == TRAIN).any()


BASE = Task(
    domain="books", part="test", items=np.array([4, 7, 9], np.int32), persons=np.array([0, 5]),
    histories=Histories.of([[4, 1], [2, 9, 9]]), target_indptr=np.array([0, 1, 3]),
    targets=np.array([1, 0, 1], np.int32), popularity=np.array([3, 1, 0]), train_persons=4, exclude_seen=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"persons": np.array([0])}, "one history a person"),
        ({"target_indptr": np.array([0, 3])}, "one set of targets"),
        ({"target_indptr": np.array([0, 1, 2])}, "ends at the last target"),
        ({"target_indptr": np.array([0, 0, 3])}, "at least one target"),
        ({"items": np.array([4, 9, 7], np.int32)}, "items rise"),
        ({"targets": np.array([1, 0, 3], np.int32)}, "columns of the catalogue"),
        ({"targets": np.array([1, 1, 1], np.int32)}, "no target twice"),
        ({"popularity": np.array([1])}, "one popularity an item"),
        ({"cohorts": {"x": np.array([True])}}, "one cohort flag a person"),
        ({"item_groups": {"x": np.array([True])}}, "one group flag an item"),
    ],
)
def test_a_task_that_does_not_fit_together_is_refused(change: dict[str, object], rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        replace(BASE, **change)  # type: ignore[arg-type]


def test_seen_of_some_persons() -> None:
    rows, columns = BASE.seen(1, 9)
    assert (rows.tolist(), columns.tolist()) == ([0, 0], [2, 2])
    empty = replace(BASE, histories=Histories.of([[], []]))
    assert empty.seen(0, 2)[0].size == 0
    assert empty.unreachable == 0
