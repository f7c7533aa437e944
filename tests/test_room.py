"""Arrays that grow at their end: always what a copy would be, and nobody's rows ever change."""

from __future__ import annotations

import gc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from isthmus import room
from isthmus.room import appended, roomy, stacked


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 90)), max_size=12), st.sampled_from([(), (3,)]))
def test_whoever_appends_to_whatever_came_before_gets_what_a_copy_would_be(
    steps: list[tuple[int, int]], width: tuple[int, ...]
) -> None:
    made, copies, number = [roomy((2, *width), np.dtype(np.float32))], [], 0
    made[0][:] = -1
    copies.append(made[0].copy())
    for at, rows in steps:
        more = np.arange(number, number + rows * int(np.prod(width)), dtype=np.float64).reshape(rows, *width)
        number += rows
        longer = appended(made[at % len(made)], more.astype(np.float32))
        copies.append(np.concatenate([copies[at % len(made)], more.astype(np.float32)]))
        made.append(longer)
    for array, copy in zip(made, copies, strict=True):
        assert array.dtype == np.float32
        assert np.array_equal(array, copy)


def test_rows_are_copied_once_and_not_again_while_there_is_room() -> None:
    first = np.arange(1000.0)
    second = appended(first, np.ones(10))
    third = appended(second, np.ones(10))
    assert not np.shares_memory(first, second)
    assert np.shares_memory(second, third)
    assert not np.shares_memory(third, appended(second, np.zeros(1))), "somebody else went on from the second already"
    assert not np.shares_memory(third, appended(third[:-1], np.zeros(1)))
    assert not np.shares_memory(third, appended(third[1:], np.zeros(1)))
    assert third.base is not None
    assert not np.shares_memory(third, appended(third.base[1:1021], np.zeros(1))), "it does not begin where they do"


def test_what_nobody_holds_is_forgotten() -> None:
    kept = len(room._used)
    longer = appended(np.arange(3.0), np.ones(1))
    assert len(room._used) == kept + 1
    del longer
    gc.collect()
    assert len(room._used) == kept


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(0, 99))
def test_sparse_rows_stack_as_scipy_stacks_them(heights: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [sparse.csr_array(rng.random((height, 7)) * (rng.random((height, 7)) > 0.6)) for height in heights]
    found = parts[0]
    for part in parts[1:]:
        found = stacked(found, part)
    wanted = sparse.vstack(parts, format="csr")
    assert found.shape == wanted.shape
    assert (found.toarray() == wanted.toarray()).all()
    assert found.indices.dtype == found.indptr.dtype == wanted.indices.dtype
