"""Filters, channels and filter positions against plain loops, and their laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparsity import laws

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.group import Group

kinds = st.sampled_from([("filter", 1), ("channel", 1), ("channel", 9), ("shape", 1)])
patterns = st.builds(lambda kind, s: Group(kind[0], s, kind[1]), kinds, laws.shares)


def members(pattern, k, n):
    """The weights of each group."""
    if pattern.kind == "filter":
        return [[(row, col) for row in range(k)] for col in range(n)]
    step = k // pattern.positions
    return [
        [(row, col) for row in range(k) if row % step == group for col in range(n)]
        for group in range(step)
    ]


def slow(w, pattern):
    mask = np.zeros(w.shape, bool)
    groups = members(pattern, *w.shape)
    means = [sum(abs(float(w[at])) for at in group) for group in groups]
    for chosen in laws.best(means, round((1 - pattern.sparsity) * len(groups))):
        for at in groups[chosen]:
            mask[at] = True
    return mask


@given(patterns, st.integers(1, 4), laws.sides, laws.seeds, st.sampled_from([1, 1 / 64]))
@settings(max_examples=60, deadline=None)
def test_mask_equals_the_loops(pattern, k, n, seed, step):
    w = laws.weights(9 * k, n, seed, step)
    assert np.array_equal(pattern.mask(w), slow(w, pattern))


@given(patterns, st.integers(1, 5), laws.sides, laws.seeds)
@settings(max_examples=60, deadline=None)
def test_laws(pattern, k, n, seed):
    laws.follows_the_laws(pattern, 9 * k, n, seed)
    groups = len(members(pattern, 9 * k, n))
    keep = round((1 - pattern.sparsity) * groups)
    assert pattern.kept(9 * k, n) == keep * 9 * k * n // groups
    assert pattern.metadata_bits(np.zeros((9 * k, n), bool)) == groups


@given(patterns, st.integers(1, 4), laws.sides, laws.seeds, st.floats(0, 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_checker_equals_the_loops(pattern, k, n, seed, share, whole):
    rng = np.random.default_rng(seed)
    mask, groups = rng.random((9 * k, n)) < share, members(pattern, 9 * k, n)
    if whole:
        for group in groups:
            mask[tuple(np.transpose(group))] = rng.random() < share
    counts = [sum(bool(mask[at]) for at in group) for group in groups]
    partly = sum(0 < count < len(groups[0]) for count in counts)
    over = sum(count > 0 for count in counts) > round((1 - pattern.sparsity) * len(groups))
    assert len(pattern.check(mask)) == min(partly + over, 20)


def test_checker_names_the_place():
    mask = np.zeros((18, 4), bool)
    mask[1::2] = True
    assert Group("channel", 0.5, 9).check(mask) == []
    mask[5, 3] = False
    assert Group("channel", 0.5, 9).check(mask) == ["channel 1 is kept in part"]
    mask[:] = True
    assert Group("filter", 0.5).check(mask) == ["keeps 4 > 2 filters"]
    assert Group("shape", 0.5).check(mask) == ["keeps 18 > 9 shapes"]


def test_a_channel_is_every_kernel_position_of_it():
    """As in a lowered convolution: k is (kernel row, kernel column, channel), channel fastest."""
    kernel = np.ones((3, 3, 4, 5), np.float32)
    kernel[:, :, 2] = 2
    mask = Group("channel", 0.75, 9).mask(kernel.reshape(36, 5)).reshape(kernel.shape)
    assert mask[:, :, 2].all()
    assert mask.sum() == 9 * 5


@given(patterns, laws.seeds)
@settings(max_examples=20, deadline=None)
def test_groups_may_be_permuted(pattern, seed):
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((36, 8)).astype(np.float32)
    channels = 36 // pattern.positions
    order = rng.permutation(channels)
    rows = (np.arange(pattern.positions)[:, None] * channels + order).ravel()
    assert np.array_equal(pattern.mask(w[rows]), pattern.mask(w)[rows])
    columns = rng.permutation(8)
    assert np.array_equal(pattern.mask(w[:, columns]), pattern.mask(w)[:, columns])


def test_a_channel_of_one_position_is_a_shape():
    w = laws.weights(30, 7, step=1)
    assert np.array_equal(Group("channel", 0.5).mask(w), Group("shape", 0.5).mask(w))


def test_filters_are_the_shapes_of_the_transpose():
    w = laws.weights(30, 7, step=1)
    assert np.array_equal(Group("filter", 0.4).mask(w), Group("shape", 0.4).mask(w.T).T)


def test_the_kernel_must_divide_k():
    for use in (
        lambda: Group("channel", 0.5, 9).mask(laws.weights(10, 4)),
        lambda: Group("channel", 0.5, 9).kept(10, 4),
        lambda: Group("channel", 0.5, 9).check(np.ones((10, 4), bool)),
    ):
        with pytest.raises(InputError, match=r"'group:channel:9@0.5' needs k .* of 9; got 10"):
            use()


def test_only_the_mask_bounds_a_column():
    assert Group("filter", 0.5).block_bound(8) is None
    assert Group("shape", 0.0).block_bound(8) == 8


@pytest.mark.parametrize(
    "text", ["group:filter@0.5", "group:channel@0.5", "group:channel:9@0.5", "group:shape@0"]
)
def test_strings(text):
    laws.prints_and_parses(Group, text)


def test_one_kernel_position_is_not_written():
    assert str(Group.parse("group:channel:1@0.5")) == "group:channel@0.5"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("group:layer@0.5", "one of filter, channel, shape; got 'layer'"),
        ("group:filtr@0.5", "got 'filtr', did you mean 'filter'?"),
        ("group:channel:0@0.5", "1 <= kernel positions <= 65536; got '0'"),
        ("group:filter:9@0.5", "1 <= kernel positions <= 1; got '9'"),
        ("group:filter@1", "0 <= s < 1; got '1.0'"),
        ("group:filter@", "0 <= s < 1; got 'group:filter@'"),
        ("group:filter", "group:kind@s or group:channel:p@s; got 'group:filter'"),
        ("group", "group:kind@s"),
    ],
)
def test_refusals(text, complaint):
    laws.refuses(Group, text, complaint)


def test_groups_hardly_choose_on_noise_and_do_with_scales():
    """Facts: structure in the weights decides; on i.i.d. weights a group keeps its share."""
    for kind in ("filter", "channel"):
        plain, scaled = (
            accsim.retained_magnitude(w, Group(kind, 0.75).mask(w))
            for w in (accsim.synthetic_weights(1024, 1024, iid=iid) for iid in (True, False))
        )
        assert plain == pytest.approx(0.25, abs=0.01)
        assert scaled > 0.4
