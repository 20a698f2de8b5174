"""Captured PyTorch models: products, MACs and parameters as torch itself counts them."""

import sys

import numpy as np
import pytest

from accsim.base.errors import InputError
from accsim.spec.workload import Conv2d, Linear, Matmul
from accsim.traces.trace import read_trace, write_trace

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from accsim.traces.capture.torch_modules import capture_torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:TF32", "ignore:.*nested tensor.*")


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Residual(nn.Module):
    def __init__(self, wide, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(wide, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=2, dilation=2, groups=2)
        self.down = nn.Conv2d(wide, out, 1, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.conv2(y) + self.down(x))


class Resnet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 2, 3)
        self.layer1 = Residual(8, 16, 2)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2, groups=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.up(self.layer1(F.relu(self.stem(x)))).mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.place = nn.Parameter(torch.randn(1, 7, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)  # returns its weights
        self.head = nn.Parameter(torch.randn(16, 5))

    def forward(self, ids):
        x = self.blocks(self.embed(ids) + self.place)
        x, _ = self.attend(x, x, x)
        return torch.einsum("bsk,kn->bsn", x, self.head)


def counted(model, x):
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with FlopCounterMode(display=False) as counter, math, torch.no_grad():
        model.eval()(x)
    torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("batch", [1, 3])
def test_resnet_has_torchs_macs_and_parameters(batch):
    model = Resnet()
    network = capture_torch(model, [f"{batch}x3x32x40"]).workload
    assert network.macs == counted(model, torch.randn(batch, 3, 32, 40))
    assert network.params == sum(p.numel() for p in model.parameters())
    names = ["stem", "layer1.conv1", "layer1.conv2", "layer1.down", "up", "fc"]
    assert [layer.name for layer in network] == names
    assert network.layer("layer1.conv2").op == Conv2d(
        in_channels=16, out_channels=16, size=(8, 10), kernel=3, padding=2, dilation=2, groups=2,
        bias=True,
    )  # fmt: skip
    assert {layer.batch for layer in network} == {batch}


@pytest.mark.parametrize("batch", [1, 3])
def test_transformer_has_torchs_macs_and_parameters(batch):
    model = Transformer()
    trace = capture_torch(model, [f"int:{batch}x7:50"])
    network = trace.workload
    assert network.macs == counted(model, torch.zeros(batch, 7, dtype=torch.int64))
    assert network.params == sum(p.numel() for p in model.parameters())
    assert trace.facts["embeddings"]["embed"] == {"rows": 50, "width": 16, "lookups": 7 * batch}
    words = ["in_proj", "qk", "av", "out_proj"]
    mine = [f"blocks.layers.0.self_attn.{word}" for word in words]
    assert [layer.name for layer in network][:4] == mine
    assert [layer.name for layer in network][-5:] == [*(f"attend.{x}" for x in words), "head"]
    scores = network.layer("attend.qk")
    assert (scores.op, scores.repeats, scores.batch) == (Matmul(t=7, k=4, n=7), 4, batch)


def test_the_lowered_weights_compute_what_torch_computes():
    model = Resnet()
    with torch.no_grad():
        model.stem.weight[torch.rand_like(model.stem.weight) < 0.5] = 0
    trace = capture_torch(model, ["2x3x32x32"], weights=True)
    trace.verify()
    x = torch.randn(2, 3, 32, 32)
    columns = F.unfold(x, 7, padding=3, stride=2)  # channel slowest; ours: channel fastest
    ours = columns.reshape(2, 3, 49, -1).permute(0, 3, 2, 1).reshape(-1, 147).numpy()
    found = ours @ trace.weights("stem")
    expected = F.conv2d(x, model.stem.weight, None, 2, 3).permute(0, 2, 3, 1).reshape(-1, 8)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-4)
    assert np.array_equal(trace.weight_mask("stem"), trace.weights("stem") != 0)
    assert str(trace.workload.layer("stem").pattern) == "traced"
    w = model.layer1.conv2.weight.detach().numpy()  # (16, 8, 3, 3) in two groups
    assert trace.weights("layer1.conv2")[1, (1 * 3 + 2) * 8 + 5, 3] == w[8 + 3, 5, 1, 2]
    up = model.up.weight.detach().numpy()  # (in, out / groups, 2, 2)
    assert trace.weights("up")[1, 3, 2 * 4 + 1] == up[8 + 3, 2, 0, 1]
    assert np.array_equal(trace.weights("fc"), model.fc.weight.detach().numpy().T)


def test_pruned_weights_are_recognised_and_pruned_modules_keep_their_names(tmp_path):
    from torch.nn.utils import prune

    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.Linear(8, 8))
    mask = torch.tensor([1.0, 1, 0, 0]).repeat(12, 4)
    prune.custom_from_mask(model[0], "weight", mask)
    prune.custom_from_mask(model[2], "weight", (torch.arange(12) < 7).float().repeat(8, 1))
    trace = capture_torch(model, ["4x16"])
    found = {layer.name: str(layer.pattern) for layer in trace.workload}
    assert found == {"0": "2:4", "2": "traced", "3": "dense"}
    assert np.array_equal(trace.weight_mask("0"), mask.bool().T)
    assert trace.workload.params == 16 * 12 + 12 + 12 * 8 + 8 + 64 + 8
    again = read_trace(write_trace(tmp_path / "net.trace", trace))
    assert again.digest == trace.digest


def test_activations_are_what_hooks_see():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.Flatten(),
                          nn.ReLU(), nn.Linear(72, 5))  # fmt: skip
    met = []
    model[2].register_forward_hook(lambda _, given, __: met.append(given[0].numpy() != 0))
    trace = capture_torch(model, ["2x3x10x10"], steps=2, activations=True)
    assert trace.steps == len(met) == 2
    for step in (0, 1):
        mask = trace.activation_mask("2", step)
        assert np.array_equal(mask, met[step].transpose(0, 2, 3, 1))
        assert trace.activation_density("2")[step] == mask.mean()
    assert 0 < trace.activation_density("5")[0] < 1
    trace.verify()


def test_causal_attention_shows_its_empty_half():
    class Causal(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x, is_causal=True)

    trace = capture_torch(Causal(), ["1x2x8x4"])
    assert [layer.name for layer in trace.workload] == ["qk", "av"]
    assert trace.activation_density("av")[0] == 36 / 64


def test_products_of_every_spelling():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 4))
            self.experts = nn.Parameter(torch.randn(3, 4, 5))
            self.line = nn.Conv1d(4, 8, 3, padding=1, groups=2)
            self.deep = nn.Conv3d(1, 2, 2)

        def forward(self, x):  # (2, 4, 7)
            y = self.w @ x  # weights on the left
            z = torch.bmm(x.transpose(1, 2).reshape(1, -1, 4).expand(3, -1, -1), self.experts)
            self.line(x), self.deep(x[:, None, :, :, None].expand(-1, -1, -1, -1, 2))
            return y @ y.transpose(1, 2), z, torch.mv(x[0].T, self.w[0]), self.line(x)

    model = Odd()
    trace = capture_torch(model, ["2x4x7"], weights=True)
    layers = {layer.name: layer for layer in trace.workload}
    assert list(layers) == ["w", "experts", "line", "deep", "matmul", "w#2", "line#2"]
    assert (layers["w"].op, layers["w"].batch) == (
        Linear(in_features=4, out_features=6, tokens=7), 2,
    )  # fmt: skip
    assert np.array_equal(trace.weights("w"), model.w.detach().numpy().T)
    assert (layers["experts"].gemm.t, layers["experts"].runs) == (14, 3)
    assert np.array_equal(trace.weights("experts"), model.experts.detach().numpy())
    assert layers["line"].op == Conv2d(
        in_channels=4, out_channels=8, size=(1, 7), kernel=(1, 3), padding=(0, 1), groups=2,
        bias=True,
    )  # fmt: skip
    assert layers["deep"].macs == 2 * 2 * 8 * 3 * 6 * 1
    assert layers["matmul"].op == Matmul(t=6, k=7, n=6)


def test_recurrent_layers_show_each_step():
    trace = capture_torch(nn.LSTM(6, 5, batch_first=True), ["2x3x6"])
    names = [layer.name for layer in trace.workload]
    assert names == ["weight_ih_l0", *("weight_hh_l0", "weight_hh_l0#2", "weight_hh_l0#3")]
    assert trace.workload.macs == 2 * 3 * (6 + 5) * 20


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attention, state = F.scaled_dot_product_attention, torch.random.get_rng_state()
    model[1].eval()
    capture_torch(model, ["3x4"])
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert F.scaled_dot_product_attention is attention
    assert torch.equal(torch.random.get_rng_state(), state)


SOURCE = """
import torch
def build():
    return torch.nn.Linear(6, 3), [torch.zeros(2, 6), torch.ones(2, 6)]
def bare():
    return torch.nn.Linear(6, 3)
def broken():
    raise ValueError("no\\nsuch data set")
def number():
    return 3
"""


def test_a_target_is_imported_from_a_module_or_file(tmp_path, monkeypatch):
    (tmp_path / "mine_to_capture.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    trace = capture_torch("mine_to_capture:build")
    assert sys.path == before
    assert trace.workload.name == "build"
    assert list(trace.activation_density("linear")) == [0, 1]
    drawn = capture_torch(f"{tmp_path}/mine_to_capture.py:bare", ["2x6"], name="net", weights=True)
    assert drawn.workload.name == "net"
    again = capture_torch("mine_to_capture:bare", ["2x6"], name="net", weights=True)
    assert np.array_equal(drawn.weights("linear"), again.weights("linear"))


@pytest.mark.parametrize(
    ("target", "inputs", "message"),
    [
        ("mine_to_capture:broken", [], "cannot be built: ValueError: no$"),
        ("mine_to_capture:number", [], "must give an nn.Module, or one and its inputs; got int"),
        ("mine_to_capture:bild", [], "has no 'bild', did you mean 'build'?"),
        ("mine_to_capture", [], "target must be package.module:build"),
        ("no_such_module_anywhere:x", [], "cannot be imported: ModuleNotFoundError"),
        ("nowhere.py:x", [], "nowhere.py: no such file"),
        ("mine_to_capture:bare", [], "needs an input, such as 1x3x224x224"),
        ("mine_to_capture:bare", ["2x5"], "cannot run on the inputs: RuntimeError: mat1"),
        ("mine_to_capture:bare", ["int:2x6:9"], "cannot run on the inputs: RuntimeError"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, target, inputs, message):
    (tmp_path / "mine_to_capture.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as caught:
        capture_torch(target, inputs)
    assert "\n" not in str(caught.value)


def test_steps_that_run_other_products_are_refused():
    class Twice(nn.Linear):
        calls = 0

        def forward(self, x):
            Twice.calls += 1
            return super().forward(x) if Twice.calls < 2 else super().forward(x[:1])

    with pytest.raises(InputError, match="step 1 must run the products of step 0"):
        capture_torch(Twice(4, 4), ["2x4"], steps=2)
    with pytest.raises(InputError, match="has no convolution, linear layer or matrix product"):
        capture_torch(nn.ReLU(), ["2x4"])
    with pytest.raises(InputError, match=r"'linear' must compute in float32, .*; got float64"):
        capture_torch(nn.Linear(2, 2).double(), ["2x2"])


def test_what_is_written_into_constants_is_no_weight():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.zeros(1, 8, 4))

        def forward(self, x):
            self.cache[:, :3] = x
            other = torch.zeros(1, 3, 4)
            torch._foreach_copy_([other], [x])  # returns nothing
            made = torch.ones(4, 4).mul_(2)  # a constant, whatever is done to it
            return x @ self.cache.transpose(1, 2), x @ made, x @ other.transpose(1, 2)

    layers = capture_torch(Cached(), ["1x3x4"]).workload.layers
    assert [layer.op for layer in layers] == [
        Matmul(t=3, k=4, n=8), Linear(in_features=4, out_features=4, tokens=3),
        Matmul(t=3, k=4, n=3),
    ]  # fmt: skip


def test_weights_made_in_the_forward_pass_and_shared_ones():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)
            self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.head = nn.Linear(4, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.norm(self.norm(self.embed(ids))))

    trace = capture_torch(Tied(), ["int:1x3:9"], weights=True)
    assert [layer.name for layer in trace.workload] == ["norm", "norm#2", "head"]
    assert np.array_equal(trace.weights("norm"), trace.weights("norm#2"))
    assert trace.workload.layer("head").params == 36


def test_operations_that_hide_products_are_refused():
    class Hidden(nn.Module):
        def forward(self, x):
            return torch._int_mm(x.to(torch.int8), x.to(torch.int8).T)

    with pytest.raises(InputError, match=r"operation aten._int_mm.default hides matrix products"):
        capture_torch(Hidden(), ["32x32"])
