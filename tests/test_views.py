"""Views of histories: from which items they are made, and the same ones for the same step."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.carried import TINY, scene

from isthmus.data.augment import Augment, Operation
from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Places
from isthmus.train import views as module
from isthmus.train.batches import BatchSettings, SequenceBatches
from isthmus.train.sequences import Material
from isthmus.train.views import Views, similar_table
from isthmus.transfer.pretrain import SequencePretraining, Source

N = 12
PLACES = Places((np.arange(N) % 2).astype(np.int32), np.zeros(N, np.int32), ("a", "b"), ("p",))
VECTORS = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
EVERY = np.ones(N, bool)
ROWS = [np.random.default_rng(row).integers(0, N, 3 + row % 5).tolist() for row in range(30)]
#: Each item may be exchanged for the next but one.
NEXT = ((np.arange(N, dtype=np.int32) + 2) % N)[:, None]


def batches(views: Views, sampled: int = 0) -> SequenceBatches:
    plan = BatchSettings(events=30, length=6, sampled=sampled, views=views)
    return SequenceBatches(Histories.of(ROWS), PLACES, EVERY, plan, dated=False)


def seen(source: SequenceBatches, step: int) -> list[list[int]]:
    """Return the items of each view of a step, as items of the catalogue, first views first."""
    made = source.fields(step)
    rows = made["rows"].numpy() if "rows" in made else np.arange(N)
    items = rows[made["views"][0].numpy()]
    return [row[: last + 1].tolist() for row, last in zip(items, made["lasts"].tolist(), strict=True)]


def windows(source: SequenceBatches) -> Counter[tuple[int, ...]]:
    spans = zip(source.start.tolist(), source.stop.tolist(), strict=True)
    return Counter(tuple(source.items[start:stop].tolist()) for start, stop in spans)


@pytest.mark.parametrize("sampled", [0, 3])
def test_with_substitute_alone_all_items_come_from_the_table(sampled: int) -> None:
    source = batches(Views(Augment(("substitute",), substitute=1.0), NEXT), sampled)
    found: Counter[tuple[int, ...]] = Counter()
    for step in range(len(source)):
        rows = seen(source, step)
        first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        assert first == second, "there is one item to take"
        found.update(tuple((item - 2) % N for item in row) for row in first)
    assert found == windows(source)


@pytest.mark.parametrize("sampled", [0, 3])
def test_with_insert_alone_a_similar_item_stands_before_each(sampled: int) -> None:
    source = batches(Views(Augment(("insert",), insert=1.0), NEXT), sampled)
    for row in seen(source, 0):
        assert len(row) % 2 == 0
        assert [(item + 2) % N for item in row[1::2]] == row[::2]


SIZES = {
    "crop": lambda n: max(n * 6 // 10, 1),
    "mask": lambda n: n - n * 3 // 10,
    "reorder": lambda n: n,
}


@pytest.mark.parametrize("operation", SIZES)
def test_the_others_hold_only_what_was_there(operation: Operation) -> None:
    source = batches(Views(Augment((operation,))))
    whole = [Counter(row) for row in windows(source).elements()]
    kept = [row for step in range(len(source)) for row in seen(source, step)]
    for row in kept:
        assert any(Counter(row) <= other for other in whole)
    assert Counter(map(len, kept)) == Counter(SIZES[operation](other.total()) for other in whole for _ in range(2))


def test_a_step_has_the_same_views_whatever_was_asked_before() -> None:
    views = Views(Augment(("substitute", "insert", "crop")), similar_table(Histories.of(ROWS), PLACES, VECTORS))
    one, other = batches(views), batches(views)
    for step in (5, 0, len(one) + 1):
        assert seen(one, step) == seen(other, step)
    assert seen(one, 0) != seen(one, len(one))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, N - 1), max_size=4), min_size=1, max_size=4), st.integers(1, 3))
def test_company_comes_first_and_texts_of_the_domain_where_there_is_none(rows: list[list[int]], k: int) -> None:
    table = similar_table(Histories.of(rows), PLACES, VECTORS, k)
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    for item in range(N):
        company = {other for row in rows if item in row for other in row} - {item}
        found = [other for other in table[item].tolist() if other >= 0]
        if company:
            assert set(found) <= company
            assert len(found) == min(k, len(company))
            continue
        same = [other for other in range(N) if other % 2 == item % 2 and other != item]
        right = sorted(same, key=lambda other: -float(unit[item] @ unit[other]))
        assert found == [other for other in right if unit[item] @ unit[other] > 0][:k]


def test_without_vectors_who_has_no_company_has_nothing_similar() -> None:
    table = similar_table(Histories.of([[0, 1], [3]]), PLACES, None, 2)
    assert table[:4].tolist() == [[1, -1], [0, -1], [-1, -1], [-1, -1]]


def test_a_table_is_made_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def noted(*given: object) -> np.ndarray:
        made.append(given)
        return NEXT

    monkeypatch.setattr(module, "similar_table", noted)
    rows = np.arange(N, dtype=np.int32)
    material = Material(Histories.of(ROWS), PLACES, VECTORS, rows, EVERY, 0, False)
    for views in (None, Views(), Views(Augment(("substitute",)), NEXT)):
        material.batches(BatchSettings(views=views))
    assert not made
    found = material.batches(BatchSettings(views=Views(Augment(("crop", "insert"))))).settings.views
    assert found is not None
    assert found.similar is NEXT
    assert len(made) == 1


def test_pre_training_reads_the_operations_and_refuses_unknown_ones() -> None:
    with pytest.raises(InputError, match="no operation flip"):
        SequencePretraining(augment=("crop", "flip"))
    with pytest.raises(InputError, match="no operation given"):
        SequencePretraining(augment=())
    (source,) = Source.all_of(scene().split, TINY)
    known = source.material.rows.size
    wanted = Views(Augment(("substitute",), substitute=1.0))
    made = source.material.batches(replace(BatchSettings(), views=wanted))
    similar = made.settings.views.similar  # type: ignore[union-attr]
    assert similar is not None
    assert similar.shape == (known, module.SIMILAR)
    assert (similar[:, 0] >= 0).mean() > 0.9
    assert torch.isin(made.fields(0)["views"][0], torch.from_numpy(np.append(similar[similar >= 0], 0))).all()
