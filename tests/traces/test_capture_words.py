"""What captures need of no extra: input words, missing packages, lowering of weights."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from accsim.base.errors import InputError
from accsim.spec.workload import Conv2d, Layer
from accsim.traces.capture.inputs import InputSpec, parse_input
from accsim.traces.capture.onnx_graph import read_onnx
from accsim.traces.capture.seen import Seen, conv_weight, needed, recognised, trace_of
from accsim.traces.capture.torch_modules import capture_torch


def test_inputs_are_words():
    assert parse_input("1x3x8x8") == InputSpec("normal", (1, 3, 8, 8))
    assert parse_input("mask=ones:1x4").draw(0).sum() == 4
    ids = parse_input("ids=int:2x50:7").draw(1, 0)
    assert ids.min() >= 0
    assert ids.max() == 6
    for word in ("", "3x", "1x0", "int:3", "3:4", "normal:3:4", "flaot:3", "9" * 9 + "x99999"):
        with pytest.raises(InputError, match="input "):
            parse_input(word)


def test_importing_a_capture_does_not_import_torch():
    code = (
        "import sys, accsim.traces.capture.torch_modules, accsim.traces.capture.hf_config, "
        "accsim.traces.capture.onnx_graph; print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_missing_extra_says_what_to_install():
    with pytest.raises(
        InputError, match=r"^nowhere_at_all is not installed: pip install 'accsim\[x"
    ):
        needed("nowhere_at_all.part", "x")
    for module, extra, call in (
        ("torch", "torch", lambda: capture_torch("a:b")),
        ("onnx", "onnx", lambda: read_onnx("a.onnx")),
    ):
        if importlib.util.find_spec(module) is None:
            with pytest.raises(InputError, match=rf"pip install 'accsim\[{extra}\]'"):
                call()


def test_a_lowered_convolution_is_the_convolution():
    """Against the sum over taps, written out."""
    rng = np.random.default_rng(0)
    x, w = rng.random((5, 6, 4)), rng.random((6, 2, 3, 2))  # height, width, channels; two groups
    op = Conv2d(in_channels=4, out_channels=6, size=(5, 6), kernel=(3, 2), groups=2)
    layer = Layer(name="c", op=op)
    lowered = conv_weight(w, 2)
    assert lowered.shape == (layer.runs, layer.gemm.k, layer.gemm.n)
    for i, j, out in ((0, 0, 0), (2, 4, 5), (1, 3, 2)):
        group = out // 3
        row = np.concatenate([x[i + r, j + s, 2 * group : 2 * group + 2]
                              for r in range(3) for s in range(2)])  # fmt: skip
        plain = sum(
            x[i + r, j + s, 2 * group + c] * w[out, c, r, s]
            for r in range(3) for s in range(2) for c in range(2)
        )  # fmt: skip
        assert row @ lowered[group][:, out % 3] == pytest.approx(plain)


def test_groups_are_judged_together():
    one, two = np.tile([[True], [False], [False], [True]], (2, 3)), np.ones((8, 3), np.bool_)
    assert str(recognised(np.stack([one, one]), 0.99)) == "2:4"
    assert str(recognised(np.stack([one, two]), 0.99)) == "traced"
    assert str(recognised(two, 0.99)) == "dense"


def test_a_trace_needs_products_and_a_share():
    with pytest.raises(InputError, match="'net' has no convolution"):
        trace_of("net", [])
    seen = Seen("a", Conv2d(in_channels=1, out_channels=1, size=3, kernel=3))
    with pytest.raises(InputError, match="dense_from must be above 0 and at most 1; got 0"):
        trace_of("net", [seen], dense_from=0)
