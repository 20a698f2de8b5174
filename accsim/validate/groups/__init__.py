"""Groups of rows, by name: a module a group, each with a function that yields its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from accsim.validate.groups import (
    area,
    boards,
    energy,
    energy_tables,
    gpu_decode,
    gpu_gemm,
    gpu_networks,
    gpu_spmm,
    gpu_tilewise,
    gpu_vnm,
    patterns,
    rtl,
    scalesim,
    tpu,
    workloads,
)
from accsim.validate.row import Row


class Group(NamedTuple):
    """What a group is held against, and what makes its rows."""

    title: str
    rows: Callable[[], Iterable[Row]]


GROUPS: dict[str, Group] = {
    "scalesim": Group(
        "139 runs of SCALE-Sim 3.0.0, which this timing is built to reproduce", scalesim.rows
    ),
    "rtl": Group("RTL of output-stationary arrays", rtl.rows),
    "tpu": Group("602 measured Cloud-TPU matmuls", tpu.rows),
    "workloads": Group("published MACs and weights", workloads.rows),
    "patterns": Group("metadata and retained weights", patterns.rows),
    "energy": Group("0.2-2 pJ/MAC of int8 designs, Sparseloop", energy.rows),
    "energy_tables": Group("the library hwcomponents, with CACTI and NeuroSim", energy_tables.rows),
    "area": Group("published areas and overheads", area.rows),
    "gpu_gemm": Group("dense and 2:4 products measured on four GPUs", gpu_gemm.rows),
    "boards": Group("measured power and rates of A100 boards", boards.rows),
    "gpu_networks": Group("published shares and speed-ups of whole networks", gpu_networks.rows),
    "gpu_vnm": Group("V:N:M, 2:4 and others measured on an RTX 3090", gpu_vnm.rows),
    "gpu_spmm": Group("sparse kernels measured on an A100 under real masks", gpu_spmm.rows),
    "gpu_tilewise": Group("tile-wise kernels on a V100, published speed-ups", gpu_tilewise.rows),
    "gpu_decode": Group("single figures of GPU libraries: one token, best rates", gpu_decode.rows),
}
