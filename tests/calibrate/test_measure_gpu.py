"""The stand-alone script against a torch whose GPU is a virtual queue, and on a CPU's torch."""

import ast
import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from calibrate.fake_torch import Gpu, torch_with

from accsim.calibrate import measure_gpu, script
from accsim.calibrate.measurements import read


def latency(pattern, dtype, t, k, n):
    """A roofline with a launch; µs."""
    return 3 + t * k * n * (0.6 if pattern == "2:4" else 1) / 2e8 + (t * k + k * n + t * n) / 1e6


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    told = {"clocks.sm": "1410", "power.draw": "250.5", "driver_version": "550.1"}
    monkeypatch.setattr(
        measure_gpu, "nvidia_smi", lambda fields, uuid: [told.get(x, "") for x in fields]
    )


def run(out, *words, gpu=None, **rest):
    gpu = gpu or Gpu(latency)
    return measure_gpu.main(
        ["--out", str(out), *words], torch=torch_with(gpu, **rest), clock=gpu.clock
    )


def shapes(tmp_path, *rows):
    path = tmp_path / "shapes.csv"
    path.write_text("t,k,n\n" + "".join(f"{row}\n" for row in rows))
    return str(path)


def test_stands_alone():
    tree = ast.parse(script.text(), feature_version=(3, 10))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import)
            else [node.module] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert imported <= set(sys.stdlib_module_names)


def test_every_latency_is_what_the_gpu_took(tmp_path):
    out = tmp_path / "mine.csv"
    assert run(out, "--quick") == 0
    found = read(out)
    assert len(found) == 24 * 2 * 4
    assert found.notices == ()
    names = {"bf16": "bfloat16", "fp16": "float16", "fp8": "float8_e4m3fn"}
    for i in range(len(found)):
        dtype, pattern = str(found.dtype[i]), str(found.pattern[i])
        t = measure_gpu.run_t(dtype, pattern, int(found.t[i]))
        expected = latency(pattern, names.get(dtype, dtype), t, int(found.k[i]), int(found.n[i]))
        assert found.latency_us[i] == pytest.approx(expected, rel=1e-5)
        assert found.host_us[i] == pytest.approx(5, rel=1e-3)
    assert set(found.sm_clock_mhz[found.sm_clock_mhz > 0]) <= {1410}
    assert found.about["gpu"] == "Fake GPU, 80 GB"
    assert found.about["driver"] == "550.1"
    assert found.about["cusparselt"] == "602"
    assert found.about["l2"] == "warm"
    assert "int8 dense padded by this script: t = 16 as 24" in found.about["note"]


@pytest.mark.parametrize("host_s", [1e-6, 2e-4, 3e-3])
def test_a_slow_host_does_not_count(tmp_path, host_s):
    """The queue fills while a kernel spins; without that a launch would cost the host's time."""
    gpu = Gpu(lambda *_: 4.0, host_s=host_s)
    where = shapes(tmp_path, "64,64,64")
    assert run(tmp_path / "a.csv", "--shapes", where, "--dtypes", "bf16", gpu=gpu) == 0
    found = read(tmp_path / "a.csv")
    assert found.latency_us == pytest.approx(4.0, rel=1e-5)
    assert found.host_us == pytest.approx(host_s * 1e6, rel=1e-3)


def test_a_queue_that_runs_dry_is_noticed():
    """The host slows down fifteenfold after the first look: the spin grows until it suffices."""
    gpu = Gpu(lambda *_: 4.0, host_s=2e-6)

    def call():
        gpu.host_s = 2e-6 if gpu.calls < 20 else 3e-5
        gpu.product("dense", "bf16", 64, 64, 64)

    found = measure_gpu.timed(torch_with(gpu), call, measure_gpu.Settings(), gpu.clock)
    assert found.median_us == pytest.approx(4.0, rel=1e-5)
    assert found.p95_us == pytest.approx(4.0, rel=1e-5)


def test_percentiles_flush_and_graphs(tmp_path):
    words = ("--shapes", shapes(tmp_path, "64,64,64"), "--dtypes", "bf16")
    gpu = Gpu(lambda *_: 10.0, jitter=[1.0] * 18 + [3.0, 3.0])
    assert run(tmp_path / "f.csv", "--flush-l2", *words, gpu=gpu) == 0
    flushed = read(tmp_path / "f.csv")
    assert gpu.flushed > 100
    assert flushed.latency_us == pytest.approx(10, rel=1e-5)
    assert flushed.p95_us == pytest.approx(30, rel=1e-5)
    assert flushed.about["l2"].startswith("flushed")
    assert run(tmp_path / "g.csv", "--graphs", *words, gpu=Gpu(lambda *_: 10.0)) == 0
    assert read(tmp_path / "g.csv").latency_us == pytest.approx(10, rel=1e-5)


def test_goes_on_where_it_stopped(tmp_path, capsys):
    out, where = tmp_path / "mine.csv", shapes(tmp_path, "64,64,64", "128,64,64")
    words = ("--shapes", where, "--dtypes", "bf16")
    stops = Gpu(latency)
    product = stops.product

    def interrupted(pattern, dtype, t, k, n):
        if pattern == "2:4" and t == 128:
            raise KeyboardInterrupt
        product(pattern, dtype, t, k, n)

    stops.product = interrupted
    assert run(out, *words, gpu=stops) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(read(out)) == 3
    kept = out.read_text()
    out.write_text(kept + "Fake GPU, 80")  # killed in the middle of a row
    assert run(out, *words) == 0
    assert out.read_text().startswith(kept)
    assert len(read(out)) == 4
    assert run(out, *words) == 0
    assert len(read(out)) == 4
    assert run(out, *words, name="Another GPU") == 0
    assert len(read(out)) == 8
    assert run(out, *words, "--flush-l2") == 2
    assert "was measured with l2: warm, not flushed" in capsys.readouterr().err


def test_what_is_not_measured_is_said(tmp_path, capsys):
    out, where = tmp_path / "mine.csv", shapes(tmp_path, "64,80,64", "64,64,64")
    words = ("--shapes", where, "--dtypes", "int8,fp8,tf32")
    assert run(out, *words, capability=(8, 0)) == 0
    skipped = read(out).about["skipped"].split("; ")
    assert skipped == [
        "int8 2:4 t=64 k=80 n=64: k must be a multiple of 32",
        "fp8 dense: needs compute capability 8.9",
        "fp8 2:4: needs compute capability 8.9",
        "tf32 2:4: RuntimeError: Error original_tensor.dtype torch.float32 is not supported",
    ]
    told = capsys.readouterr().err
    assert all(line in told for line in skipped)


def test_a_point_that_fails_does_not_stop_the_others(tmp_path):
    gpu = Gpu(latency)
    product = gpu.product

    def failing(pattern, dtype, t, k, n):
        if t == 128:
            raise RuntimeError("CUDA out of memory.\nTried to allocate")
        product(pattern, dtype, t, k, n)

    gpu.product = failing
    where = shapes(tmp_path, "128,64,64", "64,64,64")
    assert run(tmp_path / "a.csv", "--shapes", where, "--dtypes", "bf16", gpu=gpu) == 0
    found = read(tmp_path / "a.csv")
    assert list(found.t) == [64, 64]
    assert "bf16 dense t=128 k=64 n=64: RuntimeError: CUDA out of memory." in found.about["skipped"]


@pytest.mark.parametrize(
    ("dtype", "pattern", "padded"),
    [
        ("bf16", "dense", (1, 17, 64)), ("int8", "dense", (24, 24, 64)),
        ("bf16", "2:4", (8, 24, 64)), ("int8", "2:4", (16, 32, 64)), ("fp8", "2:4", (16, 32, 64)),
    ],
)  # fmt: skip
def test_padding(dtype, pattern, padded):
    """torch's limits: t above 16 for _int_mm, multiples of 8 or 16 for cuSPARSELt."""
    assert tuple(measure_gpu.run_t(dtype, pattern, t) for t in (1, 17, 64)) == padded


def test_nothing_measured_is_no_success(tmp_path):
    where = shapes(tmp_path, "64,64,64")
    words = ("--shapes", where, "--dtypes", "fp8")
    assert run(tmp_path / "a.csv", *words, capability=(8, 0)) == 1


@pytest.mark.parametrize(
    ("words", "rest", "message"),
    [
        (["--dtypes", "bf61"], {}, "must be some of bf16, fp16, tf32, int8, fp8; got 'bf61'"),
        (["--dtypes", ","], {}, "got ''"),
        (["--device", "3"], {}, "--device must be 0 to 0; got 3"),
        ([], {"cuda": False}, "torch 9.9 sees no CUDA GPU"),
        (["--flush-l2", "--graphs"], {}, "exclude each other"),
        (["--shapes", "nowhere.csv"], {}, "nowhere.csv: cannot be read"),
    ],
)  # fmt: skip
def test_refused_in_one_line(tmp_path, capsys, words, rest, message):
    assert run(tmp_path / "a.csv", *words, **rest) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a header"),
        ("t,k\n1,2\n", ":1: must have columns t, k, n; 'n' is missing"),
        ("t,k,n\n\n1,2\n", ":3: n must be 1 to 1048576; got ''"),
        ("t,k,n\n# x\n1,0,2\n", ":3: k must be 1 to 1048576; got '0'"),
        ("t,k,n\n1e3,1,2\n", "got '1e3'"),
    ],
)
def test_bad_shapes(tmp_path, text, message):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(measure_gpu.Refused, match=r"s\.csv") as error:
        measure_gpu.read_points(str(path))
    assert message in str(error.value)


def test_another_file_is_not_written_over(tmp_path, capsys):
    out = tmp_path / "notes.csv"
    out.write_text("my,own\n1,2\n")
    assert run(out, "--quick") == 2
    assert "is no file of this script" in capsys.readouterr().err
    assert out.read_text() == "my,own\n1,2\n"


def test_no_torch(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert measure_gpu.main(["--out", str(tmp_path / "a.csv")]) == 2
    assert "needs PyTorch with CUDA" in capsys.readouterr().err


@pytest.mark.parametrize(("plan", "count"), [("--quick", 24), (None, 40), ("--full", 126)])
def test_plans_as_a_file_of_their_own(tmp_path, plan, count):
    path = tmp_path / "elsewhere.py"
    path.write_text(script.text())
    words = [sys.executable, "-I", str(path), "--dry-run", *([plan] if plan else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == count * 2 * 4
    assert len({tuple(row.items()) for row in rows}) == len(rows)
    assert not [row for row in rows if "multiple" in row["note"]]
    assert {row["note"] for row in rows if row["t"] == "64"} <= {""}


def test_plans_reach_every_regime():
    """On a GPU of 300 TFLOPS, 2 TB/s and 5 µs a launch each regime bounds some points."""
    for plan in measure_gpu.PLANS:
        bounds = set()
        for t, k, n in measure_gpu.points(plan):
            times = {
                "launch": 5e-6, "compute": 2 * t * k * n / 3e14,
                "memory": 2 * (t * k + k * n + t * n) / 2e12,
            }  # fmt: skip
            bounds.add(max(times, key=times.get))
        assert bounds == {"launch", "memory", "compute"}


def test_masks_and_products_on_a_real_torch():
    """On the CPU: dense calls are x @ W, masks keep exactly two of every four."""
    torch = pytest.importorskip("torch")
    kept = measure_gpu.kept_two_of_four(torch, 64, 256, "cpu")
    assert (kept.reshape(64, 64, 4).sum(-1) == 2).all()
    assert len(torch.unique(kept.reshape(-1, 4), dim=0)) == 6
    for dtype in ("bf16", "fp16", "tf32", "int8"):
        x = measure_gpu.drawn(torch, 32, 64, dtype, "cpu")
        w = measure_gpu.drawn(torch, 48, 64, dtype, "cpu")
        found = measure_gpu.dense_call(torch, dtype, x, w, "cpu")().double()
        right = x.double() @ w.double().t()
        assert torch.allclose(found, right, rtol=0.02, atol=0.3 if dtype != "int8" else 0)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8", "fp8"])
def test_the_sparse_product_on_a_real_torch(dtype):
    """On the CPU, cuSPARSELt's two calls replaced: W sparse is first, the result is (X W)ᵀ."""
    torch = pytest.importorskip("torch")
    seen = []

    class Patched:
        sparse = SimpleNamespace(
            SparseSemiStructuredTensor=SimpleNamespace(_FORCE_CUTLASS=True),
            to_sparse_semi_structured=lambda w: seen.append(w) or SimpleNamespace(packed=w),
        )

        def __getattr__(self, name):
            return getattr(torch, name)

        def _cslt_sparse_mm(self, packed, x, out_dtype=None):
            return packed.double() @ x.double()

    x = measure_gpu.drawn(torch, 32, 64, dtype, "cpu")
    w = measure_gpu.drawn(torch, 48, 64, dtype, "cpu")
    found = measure_gpu.sparse_call(Patched(), dtype, x, w, "cpu")()
    kept = seen[0]
    assert not Patched.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS
    assert kept.dtype == x.dtype
    assert kept.is_contiguous()
    assert ((kept.double() != 0).reshape(48, 16, 4).sum(-1) <= 2).all()
    zeroed = kept.double() == 0
    assert torch.equal(torch.where(zeroed, 0, w.double()), kept.double())
    assert torch.equal(found, (x.double() @ kept.double().t()).t())


def test_versions_that_nobody_tells():
    assert measure_gpu.cublas_version(torch_with(Gpu(latency))) == "unknown"
    assert measure_gpu.cublas_version(object()) == "unknown"
    assert measure_gpu.cusparselt_version(object()) == "unknown"
    assert Path(measure_gpu.__file__).name == script.NAME
