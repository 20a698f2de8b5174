"""Packing loses nothing, keeps order and fills no more passes than needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accsim.kernels.packing import block_activations, pack

sizes = st.integers(1, 9)


@given(k=sizes, n=sizes, slots=sizes, lanes=sizes, seed=st.integers(0, 999), keep=st.floats(0, 1))
def test_unpacking_gives_the_masked_matrix(k, n, slots, lanes, seed, keep):
    rng = np.random.default_rng(seed)
    weights, mask = rng.integers(1, 99, (k, n)), rng.random((k, n)) < keep
    packed = pack(weights, mask, slots=slots, lanes=lanes)
    blocks = -(-k // lanes)
    unpacked = np.zeros((blocks * lanes, n), int)
    for at in np.argwhere(packed.values):
        each, b, j, s = at.tolist()
        unpacked[b * lanes + packed.index[each, b, j, s], j] += packed.values[each, b, j, s]
    assert unpacked[:k].tolist() == np.where(mask, weights, 0).tolist()
    assert not unpacked[k:].any()


@given(k=sizes, n=sizes, slots=sizes, lanes=sizes, seed=st.integers(0, 999))
def test_slots_are_filled_in_k_order_without_gaps(k, n, slots, lanes, seed):
    mask = np.random.default_rng(seed).random((k, n)) < 0.5
    packed = pack(np.ones((k, n), np.float32), mask, slots=slots, lanes=lanes)
    for b in range(packed.passes.shape[0]):
        for j in range(n):
            count = int(mask[b * lanes : (b + 1) * lanes, j].sum())
            filled = packed.values[:, b, j].ravel()
            assert filled.tolist() == [1] * count + [0] * (filled.size - count)
            names = packed.index[:, b, j].ravel()[:count].tolist()
            assert names == np.flatnonzero(mask[b * lanes : (b + 1) * lanes, j]).tolist()
            assert packed.passes[b, j] == -(-count // slots)
    assert packed.values.shape[0] == max(1, packed.passes.max())


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_kept_zero_takes_a_slot_and_a_dropped_nan_does_not_matter(dtype):
    weights = np.array([[0], [7]], dtype)
    packed = pack(weights, np.array([[True], [True]]), slots=1, lanes=2)
    assert packed.values.dtype == dtype
    assert packed.passes.tolist() == [[2]]
    dropped = pack(np.array([[np.nan], [7]]), np.array([[False], [True]]), slots=1, lanes=2)
    assert dropped.values.tolist() == [[[[7]]]]
    assert dropped.index.tolist() == [[[[1]]]]


def test_activations_are_filled_up_with_zero_rows():
    blocked = block_activations(np.arange(6).reshape(2, 3), lanes=2, blocks=2)
    assert blocked.tolist() == [[[0, 1], [2, 0]], [[3, 4], [5, 0]]]
