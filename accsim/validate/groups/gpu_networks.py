"""Whole networks on GPUs against published shares and end-to-end speed-ups. Nothing is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from accsim.files.hardware import load_hardware
from accsim.network import EndToEnd, end_to_end
from accsim.simulation import simulate
from accsim.traces.load import load_workload
from accsim.validate.row import Row

TW = "SC'20 tile-wise paper (arXiv 2008.13006), as in shared/facts/tensor_core.md"
VIT = "shared/facts/tensor_core.md; the GPU, model size and batch are not named there"
SHARE = 10.0  # points of the time a share may be off
SPEEDUP = 0.15  # relative, of an end-to-end speed-up
V100, A100 = "v100_pcie_32gb", "a100_pcie_80gb"
BERT = ("bert-base", V100, 100, "fp16")  # the artefact's GEMMs have t = 12800: 100 of 128 tokens
VGG = ("vgg16", V100, 32, "fp16")
NOT_RUN = ("dense", "CUDA cores", "2:4")


@cache
def _run(
    name: str, gpu: str, batch: int, dtype: str, pattern: str = "dense", fused: bool = False
) -> EndToEnd:
    network = load_workload(name, batch=batch, dtype=dtype).prune(pattern)
    return end_to_end(simulate(network, load_hardware(gpu)), fused)


def rows() -> Iterator[Row]:
    """Yield shares of time that is no GEMM, then end-to-end speed-ups of pruned networks."""
    yield _share("bert_other", BERT, fused=False, published=39.0)
    yield _share("bert_other_fused", BERT, fused=True, published=29.0)
    yield _share("vgg16_other", VGG, fused=False, published=5.0)
    yield _speedup("bert_tw_75", BERT, "tw:128@0.75", 1.61, TW)
    vit = ("vit-b-16", A100, 256)
    yield _speedup("vit_block_90_fp32", (*vit, "fp32"), "bsr:64@0.9", 1.54, VIT)
    yield _speedup("vit_block_90_bf16", (*vit, "bf16"), "bsr:64@0.9", 1.05, VIT)


def _share(name: str, run: tuple[str, str, int, str], fused: bool, published: float) -> Row:
    network, gpu, batch, dtype = run
    how = "fused" if fused else "not fused"
    return Row(
        id=f"gpu_networks/{name}", unit="%", source=TW, low=published, high=published,
        quantity=f"time of {network} that is no GEMM, {gpu}, batch {batch}, {dtype}, {how}",
        ours=100 * _run(*run, fused=fused).share_other, tolerance=SHARE / published,
        remark=f"tolerance {SHARE:g} points; "
        + ("batch from the artefact's t = 12800" if run is BERT else "batch is not published"),
    )  # fmt: skip


def _speedup(
    name: str, run: tuple[str, str, int, str], pattern: str, published: float, source: str
) -> Row:
    """Return a speed-up of the fused network; out of scope where no kernel runs the pattern."""
    network, gpu, batch, dtype = run
    sparse = _run(*run, pattern, fused=True)
    runs = any(mode not in NOT_RUN for mode in sparse.modes)
    modes = ", ".join(sparse.modes)
    return Row(
        id=f"gpu_networks/{name}", unit="x", source=source, low=published, high=published,
        quantity=f"end-to-end speed-up of {network} by {pattern}, {gpu}, batch {batch}, {dtype}",
        ours=_run(*run, fused=True).total_s / sparse.total_s, tolerance=SPEEDUP,
        status="predicted" if runs else "out_of_scope",
        remark=f"fused; runs as {modes}" + ("" if runs else f": no kernel for {pattern} here"),
    )  # fmt: skip
