"""The GPU tensor-core family: layers → Evaluation. Equations: docs/tensorcore.md.

Which kernel runs a layer is decided by its pattern (``KERNELS``); each kernel family says in closed
form what one call costs, by cause (:class:`~accsim.devices.tensorcore_costs.Costs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices import (
    tensorcore_block,
    tensorcore_ctas,
    tensorcore_spmm,
    tensorcore_tilewise,
    tensorcore_vnm,
)
from accsim.devices.tensorcore_costs import Costs, join
from accsim.devices.tensorcore_domain import interval
from accsim.devices.tensorcore_elementwise import costs as elementwise_costs
from accsim.devices.tensorcore_energy import PARTS, energy_by_part, energy_ends
from accsim.devices.tensorcore_gemm import Gemms, costs
from accsim.devices.tensorcore_generator import generator_us
from accsim.devices.tensorcore_operands import operands_of
from accsim.devices.tensorcore_route import GEMMS, route, unit_rate
from accsim.devices.tensorcore_tilewise_schedule import tilewise_schedule
from accsim.sparsity.masks import Masks
from accsim.spec.counts import Counts
from accsim.spec.device import Family, Parts
from accsim.spec.elementwise import Elementwise, ElementwiseCosts
from accsim.spec.gpu import Gpu
from accsim.spec.pattern import DENSE
from accsim.spec.schedule import COMPUTE_CAUSES, Evaluation, Schedule, all_causes
from accsim.spec.why import Counterfactuals
from accsim.spec.workload import Layer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
KernelFamily = Callable[[Sequence[Layer], Masks, Gpu, float], Costs]

MEANINGS = {
    "clock_ghz": "clock the layer settles at under the board's power cap",
    "latency_low_s": "low end of the interval of the latency (90 %; docs/tensorcore.md)",
    "latency_high_s": "high end of the interval of the latency (90 %)",
    "extrapolated": "1 outside the calibrated domain, or where nothing was calibrated",
    "tile_n": "columns of W in one CTA's tile",
    "tile_t": "tokens in one CTA's tile",
    "splits": "CTAs that share the k of one tile (split-k)",
    "ctas": "CTAs of one call",
    "resident_ctas": "CTAs one SM holds at once",
    "memory_bound": "1 where L2 or DRAM alone takes longer than the SMs",
    "last_round": "share of the on-chip time the last round of CTAs takes",
    "mode": "the kernel that runs it",
    "work_cycles": "multiplications asked for, at the sustained rate of all SMs",
    "padding_cycles": "multiplications by tiles' edges",
    "imbalance_cycles": "SMs that wait for the fullest one: waves, and tiles of unequal k",
    "fill_drain_cycles": "prologues and epilogues of tiles, latency of their pipelines",
    "shared_cycles": "waiting for the shared-memory port",
    "launch_cycles": "fixed time of calls, as a user's timer sees it",
    **{f"energy_{part}_j": f"energy: {words}" for part, words in PARTS.items()},
}


def gemm_costs(
    layers: Sequence[Layer], masks: Masks, gpu: Gpu, between_bytes: float = 0.0
) -> Costs:
    """Return the costs of layers that run as plain or 2:4 GEMMs, in the libraries' kernels."""
    keys = [(layer.dtype, route(layer, gpu)) for layer in layers]
    parts, where = [], []
    for dtype, name in dict.fromkeys(keys):
        at = [i for i, key in enumerate(keys) if key == (dtype, name)]
        operands = operands_of(dtype, name, gpu)
        gemms = gemms_of([layers[i] for i in at], operands.x_bytes, between_bytes)
        kernel = gpu.kernel("nm" if name == "nm" else "dense", dtype)
        found = costs(gemms, gpu, kernel, operands, _mode(name))
        parts.append(_on_cuda_cores(found) if name == "simt" else found)
        where += at
    return join(parts).take(np.argsort(where))


def _mode(name: str) -> str:
    return {"nm": "2:4", "simt": "CUDA cores"}.get(name, "dense")


def _on_cuda_cores(found: Costs) -> Costs:
    counts = {"mma_macs": found.counts["mma_macs"] * 0, "fma_macs": found.counts["mma_macs"]}
    return Costs(
        found.times_us, {**found.counts, **counts}, found.clock_ghz, found.mode, found.extra
    )


def tilewise_costs(
    layers: Sequence[Layer], masks: Masks, gpu: Gpu, between_bytes: float = 0.0
) -> Costs:
    """Return the costs of tile-wise layers; elements beside tiles (tew) run as unstructured."""
    return tensorcore_tilewise.tilewise_costs(
        layers, masks, gpu, between_bytes, residue_costs=tensorcore_spmm.spmm_costs
    )


# route → what a call costs, and its CTAs. Bytes pass through L2 between two uses of a layer's W.
KERNELS: dict[str, KernelFamily] = {
    **dict.fromkeys(GEMMS, gemm_costs),
    **dict.fromkeys(("tw", "tvw", "tew"), tilewise_costs),
    "vnm": tensorcore_vnm.vnm_costs,
    "block": tensorcore_block.block_costs,
    "column_vector": tensorcore_spmm.spmm_costs,
    "unstructured": tensorcore_spmm.spmm_costs,
}
SCHEDULES: dict[str, Callable[[Layer, Masks, Gpu], Schedule]] = {
    **dict.fromkeys(("tw", "tvw"), tilewise_schedule),
    **tensorcore_ctas.SCHEDULES,
}


def gemms_of(layers: Sequence[Layer], x_bytes: float, between_bytes: float = 0.0) -> Gemms:
    """Return layers as GEMMs of one call each: groups and items of a batch run in one launch."""
    shapes = [
        (x.gemm.t, x.gemm.k, x.gemm.n, x.runs // calls_of(x), x.input_elements) for x in layers
    ]
    t, k, n, count, read = np.array(shapes, dtype=np.float64).reshape(-1, 5).T
    return Gemms(t, k, n, count, read * x_bytes, np.full_like(t, between_bytes), np.ones_like(t))


def calls_of(layer: Layer) -> int:
    """Return how many launches a layer takes: products of activations run batched, in one."""
    return layer.repeats if layer.has_weights else 1


class TensorCoreDevice(Family):
    """GPUs: registered under ``accsim.devices`` as ``tensorcore``."""

    spec: ClassVar[type[Gpu]] = Gpu
    levels: ClassVar[tuple[str, ...]] = ("closed", "events")
    tables: ClassVar[dict[str, tuple[str, str]]] = {"board": ("boards", "name")}
    device: Gpu
    between_bytes: float = 0.0

    def in_network(self, layers: Sequence[Layer]) -> TensorCoreDevice:
        """Return the GPU running these layers one after the other: L2 holds no layer's weights
        when they are needed again, unless it holds the whole network.

        A layer by itself finds what its last call left, as in a benchmark.
        """
        family = type(self)(self.device)
        if len(layers) > 1 or calls_of(layers[0]) > 1:
            family.between_bytes = sum(calls_of(x) * self._touched_bytes(x) for x in layers)
        return family

    def _touched_bytes(self, layer: Layer) -> float:
        name, gemm, count = route(layer, self.device), layer.gemm, layer.runs // calls_of(layer)
        known = name if name in ("nm", "simt") else "dense"
        operands = operands_of(layer.dtype, known, self.device)
        y = gemm.t * gemm.n * operands.y_bytes
        w = gemm.k * gemm.n * operands.packed_bytes
        return count * (w + layer.input_elements * operands.x_bytes + y)

    def evaluate(self, layers: Sequence[Layer], masks: Masks) -> Evaluation:
        """Return cycles of the boost clock by cause, counts and modes of layers.

        Raises:
            InputError: a number format the GPU cannot multiply.
        """
        calls = self.calls(layers, masks)
        repeats = np.array([calls_of(layer) for layer in layers], dtype=np.int64)
        causes, cycles = _whole_cycles(calls, repeats, self.device)
        counts = {name: np.rint(calls.counts[name] * repeats).astype(np.int64)
                  for name in calls.counts}  # fmt: skip
        low, high, outside = interval(calls, layers, self.device)
        extra = {
            "clock_ghz": calls.clock_ghz,
            "latency_low_s": low * repeats * 1e-6,
            "latency_high_s": high * repeats * 1e-6,
            "extrapolated": outside.astype(np.float64),
        }
        names = [channel.name for channel in self.device.channels]
        return Evaluation(
            cycles=cycles,
            causes=all_causes(causes, names, cycles),
            counts=Counts(counts),
            metadata_bits=np.array([self._metadata_bits(x, masks) for x in layers], np.int64),
            effective_macs=np.array([masks.kept(x) * x.gemm.t * x.runs for x in layers], np.int64),
            mode=calls.mode,
            extra=extra | dict(calls.extra),
        )

    def calls(self, layers: Sequence[Layer], masks: Masks) -> Costs:
        """Return what one call of each layer costs."""
        routes = [route(layer, self.device) for layer in layers]
        parts, where = [], []
        for name in dict.fromkeys(routes):
            at = [i for i, found in enumerate(routes) if found == name]
            chosen = [layers[i] for i in at]
            parts.append(KERNELS[name](chosen, masks, self.device, self.between_bytes))
            where += at
        return join(parts).take(np.argsort(where))

    def _metadata_bits(self, layer: Layer, masks: Masks) -> int:
        name = route(layer, self.device)
        if layer.pattern == DENSE or name in ("dense", "simt"):
            return 0
        gemm = layer.gemm
        if name == "nm":
            return layer.runs * gemm.k * gemm.n
        return layer.runs * layer.pattern.metadata_bits(masks.mask(layer))

    @staticmethod
    def peak_macs_per_cycle(device: Gpu, layer: Layer) -> float:
        """Return MACs with a kept weight of one clock, all SMs, on the units the layer runs on."""
        return device.sms * unit_rate(layer, device)

    def schedule(self, layer: Layer, masks: Masks) -> Schedule:
        """Return the CTAs of one layer for the engine."""
        from accsim.devices.tensorcore_schedule import gemm_schedule

        name = route(layer, self.device)
        if name == "tew":
            raise InputError(
                f"layer '{layer.name}': {layer.pattern} runs as two kernels, one after the other; "
                "level must be closed"
            )
        if name in SCHEDULES:
            return SCHEDULES[name](layer, masks, self.device)
        calls = self.calls([layer], masks)
        return gemm_schedule(layer, calls, self.device, calls_of(layer))

    def launches(self, layer: Layer) -> int:
        """Return the calls of a layer."""
        return calls_of(layer)

    def follows_mask(self, layer: Layer, mode: str) -> bool:
        """Say whether equal layers may differ by their masks: not as plain or 2:4 GEMMs."""
        return route(layer, self.device) not in GEMMS

    @staticmethod
    def generator_us(
        device: Gpu, layers: Sequence[Layer], *, compress: bool, setup: bool
    ) -> tuple[Any, Any, Any] | None:
        """Return (value, low, high) of the time to make each layer's 2:4 operand, µs."""
        return generator_us(layers, device, compress=compress, setup=setup)

    @staticmethod
    def elementwise(
        device: Gpu, kernels: Sequence[Elementwise], *, fused: bool
    ) -> ElementwiseCosts:
        """Return what kernels between GEMMs cost: a launch each, and their bytes."""
        return elementwise_costs(kernels, device, fused=fused)

    @staticmethod
    def energy_pj(found: Evaluation, layers: Sequence[Layer], device: Any) -> Parts:
        """Return the board's energy by part, its voltage following each layer's clock."""
        return energy_by_part(found, layers, device)

    @staticmethod
    def energy_range_pj(
        found: Evaluation, layers: Sequence[Layer], device: Any
    ) -> dict[str, tuple[Any, Any]]:
        """Return (low, high) of each part: every cost of the board at its low, at its high."""
        return energy_ends(found, layers, device)

    @staticmethod
    def energy_words(device: Gpu) -> str:
        """Return which board the energies are of."""
        return f"board {device.board.name}"

    @staticmethod
    def counterfactuals() -> Counterfactuals:
        """Return how bounds of a GPU are worded and what is tried against them."""
        from accsim.devices.tensorcore_why import COUNTERFACTUALS

        return COUNTERFACTUALS

    @staticmethod
    def meanings(device: Gpu) -> dict[str, str]:
        """Return what the family's columns mean."""
        return MEANINGS


def _whole_cycles(calls: Costs, repeats: Ints, gpu: Gpu) -> tuple[dict[str, Ints], Ints]:
    """Return causes in whole cycles of the boost clock, all repeats, and their sum.

    The running sum over causes is rounded, so that the total is the rounded total.
    """
    known = (*COMPUTE_CAUSES, *(channel.name for channel in gpu.channels), "launch")
    strange = set(calls.times_us) - set(known)
    if strange:
        raise AssertionError(f"causes {strange} are none of {known}")
    names = [name for name in known if name in calls.times_us]
    spent = np.stack([calls.times_us[name] for name in names]) * repeats * gpu.clock_ghz * 1e3
    ends = np.rint(np.cumsum(spent, axis=0)).astype(np.int64)
    whole = np.diff(ends, axis=0, prepend=np.zeros((1, len(repeats)), dtype=np.int64))
    return dict(zip(names, whole, strict=True)), ends[-1]
