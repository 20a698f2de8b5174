"""Products of a step against backward passes written as loops over single multiplications."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from accsim.base.errors import InputError
from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Workload
from accsim.training.methods import METHODS
from accsim.training.products import passes

CONVS = [
    {"in_channels": 3, "out_channels": 4, "size": 6, "kernel": 3, "padding": 1},
    {"in_channels": 2, "out_channels": 3, "size": 8, "kernel": 3, "padding": 1, "stride": 2},
    {"in_channels": 2, "out_channels": 3, "size": 8, "kernel": 1, "stride": 2},
    {
        "in_channels": 2,
        "out_channels": 5,
        "size": (9, 7),
        "kernel": (5, 3),
        "padding": (2, 1),
        "stride": (3, 2),
    },
    {"in_channels": 4, "out_channels": 6, "size": 7, "kernel": 3, "groups": 2},
    {"in_channels": 2, "out_channels": 2, "size": 9, "kernel": 3, "dilation": 2, "padding": 2},
]  # fmt: skip


def network(*ops, batch=1, **fields):
    layers = [Layer(name=f"l{i}", op=op, batch=batch, dtype="fp16") for i, op in enumerate(ops)]
    return Workload(name="net", layers=layers, **fields)


def multiplications(op, batch):
    """Every (item, input, tap, ci, output, co) that the forward pass of one group multiplies."""
    sides = [range(op.output(0)), range(op.output(1)), range(op.kernel[0]), range(op.kernel[1])]
    for item, y, x, i, j in itertools.product(range(batch), *sides):
        row = y * op.stride[0] + i * op.dilation[0] - op.padding[0]
        col = x * op.stride[1] + j * op.dilation[1] - op.padding[1]
        if 0 <= row < op.size[0] and 0 <= col < op.size[1]:
            yield item, (row, col), (i, j), (y, x)


@pytest.mark.parametrize("fields", CONVS)
def test_convolution_backward_is_what_the_loops_multiply(fields):
    op, batch = Conv2d(**fields), 2
    ci, co = op.in_channels // op.groups, op.out_channels // op.groups
    inputs, taps, reads = defaultdict(set), defaultdict(set), set()
    for item, at, tap, out in multiplications(op, batch):
        phase = (at[0] % op.stride[0], at[1] % op.stride[1])
        inputs[phase].add((item, at))
        taps[phase].add(tap)
        reads.add((item, out))
    found = [x for x in passes(network(Linear(in_features=1, out_features=1), op, batch=batch),
                               "dense", "dense") if x.name == "l1"]  # fmt: skip
    expected = Counter()
    for phase in inputs:
        expected[len(inputs[phase]), len(taps[phase]) * co, ci] += op.groups
    back = Counter()
    for x in found:
        if x.which == "bp":
            back[x.t, x.k, x.n] += x.count
    assert back == expected
    (gradient,) = (x for x in found if x.which == "wu")
    all_taps = set().union(*taps.values())
    assert (gradient.t, gradient.k, gradient.n) == (len(all_taps) * ci, len(reads), co)
    assert gradient.count == op.groups


@pytest.mark.parametrize("fields", CONVS)
def test_phases_compute_the_gradient_of_the_input(fields):
    """dX as one matrix product a phase, shapes as in ``passes``, equals dX by scattering."""
    op = Conv2d(**{**fields, "groups": 1})
    rng = np.random.default_rng(1)
    w = rng.integers(-3, 4, (*op.kernel, op.in_channels, op.out_channels))
    dy = rng.integers(-3, 4, (op.output(0), op.output(1), op.out_channels))
    want = np.zeros((*op.size, op.in_channels), int)
    reached = defaultdict(lambda: defaultdict(dict))
    for _, at, tap, out in multiplications(op, 1):
        want[at] += w[tap] @ dy[out]
        reached[at[0] % op.stride[0], at[1] % op.stride[1]][at][tap] = out
    got = np.zeros_like(want)
    shapes = Counter()
    for pixels in reached.values():
        taps = sorted({tap for found in pixels.values() for tap in found})
        zero = np.zeros(op.out_channels, int)
        x = np.array([[dy[found[tap]] if tap in found else zero for tap in taps]
                      for found in pixels.values()]).reshape(len(pixels), -1)  # fmt: skip
        y = x @ np.concatenate([w[tap].T for tap in taps])
        shapes[*x.shape, y.shape[1]] += 1
        for at, row in zip(pixels, y, strict=True):
            got[at] = row
    np.testing.assert_array_equal(got, want)
    found = passes(network(Linear(in_features=1, out_features=1), op), "dense", "dense")
    back = Counter()
    for product in found:
        if (product.name, product.which) == ("l1", "bp"):
            back[product.t, product.k, product.n] += product.count
    assert back == shapes


def test_linear_passes_are_the_three_matrix_products():
    rng = np.random.default_rng(0)
    x, w, dy = rng.random((6, 5)), rng.random((5, 4)), rng.random((6, 4))
    net = network(Linear(in_features=7, out_features=5), Linear(in_features=5, out_features=4),
                  batch=6)  # fmt: skip
    by_pass = {p.which: (p.t, p.k, p.n) for p in passes(net, "bdwp", "2:4") if p.name == "l1"}
    for which, a, b in (("ff", x, w), ("bp", dy, w.T), ("wu", x.T, dy)):
        assert by_pass[which] == (*a.shape, b.shape[1])


def test_same_padded_convolutions_have_three_equal_products():
    for stride, kernel in ((1, 3), (2, 3), (2, 1), (1, 5)):
        op = Conv2d(in_channels=8, out_channels=4, size=16, kernel=kernel, stride=stride,
                    padding=kernel // 2)  # fmt: skip
        found = passes(network(Linear(in_features=1, out_features=1), op), "dense", "dense")
        macs = Counter()
        for x in found:
            macs[x.name, x.which] += x.macs
        assert macs["l1", "ff"] == macs["l1", "bp"] == macs["l1", "wu"]


def test_products_of_activations_have_two_gradients_and_stay_dense():
    net = network(Linear(in_features=8, out_features=8), Matmul(t=3, k=8, n=5), batch=2)
    found = [(p.which, p.t, p.k, p.n, p.level) for p in passes(net, "bdwp", "2:8")
             if p.name == "l1"]  # fmt: skip
    assert found == [("ff", 3, 8, 5, "dense"), ("bp", 3, 5, 8, "dense"), ("bp", 8, 3, 5, "dense")]


SPARSE = {"dense": "", "sr_ste": "ff", "sdgf": "ff", "mdgf": "ff", "bdwp": "ff bp",
          "bimask": "ff bp", "transposable": "ff bp"}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_what_is_sparse(method):
    net = network(*[Linear(in_features=16, out_features=16)] * 3)
    found = passes(net, method, "dense" if method == "dense" else "2:8")
    assert {p.which for p in found if p.level == "2:8"} == set(SPARSE[method].split())
    assert [p.which for p in found if p.layer == 0] == ["ff", "wu"]
    assert all(p.level == "dense" for p in found if p.layer == 0)


@pytest.mark.parametrize(
    ("method", "pattern", "message"),
    [
        ("bdpw", "2:8", "method must be one of .*did you mean 'bdwp'"),
        ("bdwp", "unstructured@0.5", "pattern must be n:m, such as 2:8, for bdwp"),
        ("sr_ste", "bidirectional:2:8", "pattern must be n:m"),
        ("dense", "2:8", "pattern must be dense for the method dense"),
        ("bdwp", "8:2", "n:m needs"),
    ],
)
def test_bad_words_are_refused(method, pattern, message):
    with pytest.raises(InputError, match=message):
        passes(network(Linear(in_features=8, out_features=8)), method, pattern)
