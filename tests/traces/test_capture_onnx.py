"""ONNX graphs → traces: shapes, products and masks; files made here, and what torch exports."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.files.workload import load_workload as load_named
from accsim.spec.workload import Conv2d, Linear, Matmul
from accsim.traces.load import load_workload

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from accsim.traces.capture.onnx_graph import read_onnx  # noqa: E402

ZIGZAG = Path("/work/shared/data/topologies/zigzag")


def tensor(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def model(path, nodes, inputs, held=(), sparse=(), outputs=("y",)):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph(nodes, "g", values, ends, held, sparse_initializer=list(sparse))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(made, str(path))
    return path


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def draw(rng, *shape, keep=0.5):
    values = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < keep, values, np.float32(0))


def test_convolutions(tmp_path, rng):
    w1, w2, w3 = draw(rng, 8, 3, 3, 3), draw(rng, 8, 1, 5, 5), draw(rng, 8, 4, 2, 2)
    nodes = [
        helper.make_node("Conv", ["x", "c1.weight", "b"], ["h"], strides=[2, 2],
                         pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["d"], name="depth", group=8,
                         auto_pad="SAME_UPPER"),
        helper.make_node("Conv", ["d", "w3"], ["y"], name="/net/uneven", group=2,
                         pads=[0, 1, 1, 3], dilations=[2, 1]),
    ]  # fmt: skip
    held = [tensor("c1.weight", w1), tensor("b", draw(rng, 8)), tensor("w2", w2), tensor("w3", w3)]
    path = model(tmp_path / "net.onnx", nodes, {"x": [2, 3, 20, 24]}, held)
    trace = read_onnx(path, weights=True)
    trace.verify()
    a, b, c = trace.workload
    assert [x.name for x in (a, b, c)] == ["c1", "depth", "net/uneven"]
    assert a.op == Conv2d(in_channels=3, out_channels=8, size=(20, 24), kernel=3, stride=2,
                          padding=1, bias=True)  # fmt: skip
    assert b.op == Conv2d(in_channels=8, out_channels=8, size=(10, 12), kernel=5, padding=2,
                          groups=8)  # fmt: skip
    assert (c.op.size, c.op.padding, c.op.dilation, c.op.groups) == ((11, 14), (0, 1), (2, 1), 2)
    assert [c.op.output(axis) for axis in (0, 1)] == [9, 15]
    assert {x.batch for x in (a, b, c)} == {2}
    assert trace.weights("c1")[(1 * 3 + 2) * 3 + 1, 5] == w1[5, 1, 1, 2]
    assert trace.weights("net/uneven")[1, (1 * 2 + 0) * 4 + 3, 2] == w3[4 + 2, 3, 1, 0]
    assert np.array_equal(trace.weight_mask("c1"), trace.weights("c1") != 0)
    assert trace.inputs == {"x": (2, 3, 20, 24)}


def test_output_sizes_are_those_onnx_infers(tmp_path):
    @settings(max_examples=60)
    @given(
        size=st.integers(8, 20), kernel=st.integers(1, 4), stride=st.integers(1, 3),
        dilation=st.integers(1, 2),
        pad=st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", (0, 2), (3, 1), (1, 1)]),
    )  # fmt: skip
    def check(size, kernel, stride, dilation, pad):
        how = {"auto_pad": pad} if isinstance(pad, str) else {"pads": pad}
        node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride],
                                dilations=[dilation], **how)  # fmt: skip
        held = [tensor("w", np.ones((2, 3, kernel), np.float32))]
        path = model(tmp_path / "one.onnx", [node], {"x": [1, 3, size]}, held)
        inferred = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
        wide = inferred.graph.output[0].type.tensor_type.shape.dim[2].dim_value
        layer = read_onnx(path).workload.layers[0]
        assert (layer.op.output(0), layer.op.output(1)) == (1, wide)

    check()


def test_products(tmp_path, rng):
    wa, wb, left = draw(rng, 6, 4), draw(rng, 4, 5), draw(rng, 7, 3)
    experts = draw(rng, 2, 5, 5)
    nodes = [
        helper.make_node("MatMul", ["x", "wa"], ["a"], name="first"),  # (2, 3, 6) (6, 4)
        helper.make_node("Transpose", ["wb"], ["wbT"], perm=[1, 0]),
        helper.make_node("Transpose", ["wbT"], ["wbTT"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "wbTT"], ["b"]),  # (2, 3, 5)
        helper.make_node("MatMul", ["left", "b"], ["c"], name="left"),  # (2, 7, 5)
        helper.make_node("MatMul", ["c", "experts"], ["d"], name="experts"),
        helper.make_node("Transpose", ["c"], ["cT"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["d", "cT"], ["y"], name="scores"),  # (2, 7, 7)
    ]
    held = [tensor("wa", wa), tensor("wb", wb), tensor("left", left), tensor("experts", experts)]
    path = model(tmp_path / "net.onnx", nodes, {"x": [2, 3, 6]}, held)
    trace = read_onnx(path, weights=True)
    trace.verify()
    layers = {layer.name: layer for layer in trace.workload}
    assert list(layers) == ["first", "b", "left", "experts", "scores"]
    assert (layers["first"].op, layers["first"].batch) == (
        Linear(in_features=6, out_features=4, tokens=3), 2,
    )  # fmt: skip
    assert np.array_equal(trace.weights("b"), wb)
    assert layers["left"].gemm.macs == 7 * 3 * 5 * 2
    assert np.array_equal(trace.weights("left"), left.T)
    assert (layers["experts"].runs, layers["experts"].gemm.t) == (2, 7)
    assert layers["scores"].op == Matmul(t=7, k=5, n=7)
    assert layers["scores"].runs == 2


def test_gemm_transposed_and_sparse_initializers(tmp_path, rng):
    w = draw(rng, 5, 8, keep=0.3)
    w[0] = [1, 2, 3, 4, 5, 6, 0, 0]
    at = np.argwhere(w)
    flat = np.ravel_multi_index(at.T, w.shape).astype(np.int64)
    for name, indices in (("flat", flat), ("rows", at.astype(np.int64))):
        sparse = helper.make_sparse_tensor(
            tensor("fc.weight", w[w != 0]), tensor("fc.weight_i", indices), w.shape
        )
        node = helper.make_node("Gemm", ["x", "fc.weight"], ["y"], transB=1)
        path = model(tmp_path / f"{name}.onnx", [node], {"x": [3, 8]}, sparse=[sparse])
        trace = read_onnx(path, weights=True)
        assert np.array_equal(trace.weights("fc"), w.T)
        assert str(trace.workload.layers[0].pattern) == "traced"
    bad = helper.make_sparse_tensor(tensor("fc.weight", w[w != 0]), tensor("i", flat + 99), w.shape)
    with pytest.raises(InputError, match=r"indices must lie within \[5, 8\]"):
        read_onnx(model(tmp_path / "bad.onnx", [node], {"x": [3, 8]}, sparse=[bad]))
    turned = helper.make_node("Gemm", ["fc.weight", "x"], ["y"], transA=1)  # wᵀ (8, 5) · x (5, 3)
    path = model(tmp_path / "a.onnx", [turned], {"x": [5, 3]}, [tensor("fc.weight", w)])
    assert np.array_equal(read_onnx(path, weights=True).weights("fc"), w)


def test_quantized_weights_are_zero_at_their_zero_point(tmp_path, rng):
    w = rng.integers(0, 4, (8, 6)).astype(np.uint8)
    held = [tensor("q", w), tensor("s", np.float32(0.1)), tensor("z", np.uint8(2))]
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
             helper.make_node("MatMul", ["x", "w"], ["y"])]  # fmt: skip
    trace = read_onnx(model(tmp_path / "q.onnx", nodes, {"x": [3, 8]}, held), dense_from=1)
    assert np.array_equal(trace.weight_mask("y"), w != 2)


def test_two_of_four_is_recognised_through_load_workload(tmp_path, rng):
    w = np.ones((8, 6), np.float32)
    w[1::4] = w[2::4] = 0
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = model(tmp_path / "net.onnx", [node], {"x": ["batch", 8]}, [tensor("w", w)])
    network = load_workload(path, dtype="int8")
    assert str(network.layers[0].pattern) == "2:4"
    assert network.layers[0].dtype == "int8"
    assert read_onnx(path, batch=5).workload.macs == 5 * 48
    assert read_onnx(path, shapes={"x": (7, 8)}).workload.macs == 7 * 48


def test_what_cannot_be_captured_is_one_line(tmp_path):
    w = [tensor("w", np.ones((8, 6), np.float32))]
    matmul = helper.make_node("MatMul", ["x", "w"], ["y"])
    open_ = model(tmp_path / "open.onnx", [matmul], {"x": [1, "tokens", 8]}, w)
    lstm = model(
        tmp_path / "lstm.onnx", [helper.make_node("LSTM", ["x", "w", "w"], ["y"], name="l")],
        {"x": [1, 1, 8]}, w,
    )  # fmt: skip
    relu = model(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 8]})
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"\x08\x07not a model")
    cases = [
        (open_, {}, "give the shapes of the inputs"),
        (open_, {"shapes": {"q": (1,)}}, "has no input 'q'; there are x"),
        (open_, {"shapes": {"x": (1, 8)}}, "has 3 extents; got 2"),
        (lstm, {}, "node 'l': LSTM hides products"),
        (relu, {}, "has no convolution, linear layer or matrix product"),
        (junk, {}, "is no ONNX model that can be read"),
        (tmp_path / "none.onnx", {}, "no such file"),
    ]
    for path, more, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            read_onnx(path, **more)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(path))


@settings(max_examples=60)
@given(data=st.data())
def test_hostile_bytes_never_escape(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "m.onnx"
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model(path, [node], {"x": [2, 8]}, [tensor("w", np.ones((8, 6), np.float32))])
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    path.write_bytes(raw)
    message = ""
    try:
        read_onnx(path, weights=True)
    except InputError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.skipif(not ZIGZAG.is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    ("name", "macs"), [("resnet18", 1.814e9), ("alexnet", 0.714e9), ("mobilenetv2", 0.301e9)]
)
def test_published_networks(name, macs):
    found = [path for path in ZIGZAG.glob("*.onnx") if name in path.stem.lower().replace("_", "")]
    for path in found:
        assert read_onnx(path).workload.macs == pytest.approx(macs, rel=0.2)


@pytest.mark.parametrize(
    ("name", "macs"),
    [  # of torchvision's weights, "_ops", cited from memory; the first is the catalogue's too
        ("resnet50", 4.089e9), ("vgg19", 19.632e9), ("densenet121", 2.834e9),
        ("squeezenet", 0.349e9),
    ],
)  # fmt: skip
def test_networks_that_come_with_onnx(name, macs):
    """Their weights were left out (ConstantOfShape), their shapes are real."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    if not (folder / f"light_{name}.onnx").is_file():
        pytest.skip("onnx came without its light models")
    network = read_onnx(folder / f"light_{name}.onnx").workload
    assert network.macs == pytest.approx(macs, abs=0.5e6)
    assert all(layer.has_weights for layer in network)
    if name == "vgg19":
        assert network.params == 143_667_240
    if name == "resnet50":
        assert network.macs == load_named("resnet50").macs


def resnet18(torch):
    """The network of He et al., written out."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, wide, out, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(wide, out, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.down = nn.Conv2d(wide, out, 1, stride, bias=False) if wide != out else None

        def forward(self, x):
            y = self.conv2(torch.relu(self.conv1(x)))
            return torch.relu(y + (x if self.down is None else self.down(x)))

    sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1),
             (256, 512, 2), (512, 512, 1)]  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        *(Block(*size) for size in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(512, 1000),
    )  # fmt: skip


def test_torchs_export_is_the_catalogues_resnet18(tmp_path):
    torch = pytest.importorskip("torch")
    net, path = resnet18(torch).eval(), tmp_path / "resnet18.onnx"
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), str(path), dynamo=False)
    trace, known = read_onnx(path), load_named("resnet18")
    assert trace.workload.macs == known.macs
    assert sorted(x.op.model_dump_json() for x in trace.workload) == sorted(
        x.op.model_dump_json() for x in known
    )
    from accsim.traces.capture.torch_modules import capture_torch

    seen = capture_torch(net, ["1x3x224x224"], densities=False)
    assert [x.op for x in seen.workload] == [x.op for x in trace.workload]
