"""The systolic device: layers → evaluation in closed form, or schedules for the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.devices import scalesim
from accsim.devices.systolic_adaptive import Adaptive, MaskedFolds, best_adaptive
from accsim.devices.systolic_compiled import evaluate_compiled
from accsim.devices.systolic_counts import count
from accsim.devices.systolic_modes import Mode, fixed, modes
from accsim.devices.systolic_ops import Ops, make_ops
from accsim.devices.systolic_search import NEVER, best
from accsim.devices.systolic_slots import SlotSums
from accsim.devices.systolic_tiles import spell_out, waits
from accsim.devices.systolic_tiling import Tilings, evaluate, misfit
from accsim.sparsity.masks import Masks
from accsim.sparsity.nm import NM
from accsim.spec.counts import Counts, stack
from accsim.spec.device import LEVELS, Family
from accsim.spec.dtype import DTYPES
from accsim.spec.energy import Price
from accsim.spec.hardware import Systolic
from accsim.spec.pattern import Dense, Pattern
from accsim.spec.schedule import COMPUTE_CAUSES, Evaluation, Schedule, all_causes
from accsim.spec.why import Counterfactuals
from accsim.spec.workload import Layer

Ints = npt.NDArray[np.int64]


class _Row(NamedTuple):
    """The plan of one layer: its mode and its column of each array."""

    mode: Mode
    ops: Ints
    tiling: Ints
    costs: Ints


_MEMORY: dict[Any, dict[Any, _Row]] = {}
_MOST_DEVICES, _MOST_LAYERS = 64, 100_000


def _remembered(device: Any) -> dict[Any, _Row]:
    """Return what is known of a device's layers; forgets all when it grows too large."""
    if device not in _MEMORY and len(_MEMORY) >= _MOST_DEVICES:
        _MEMORY.clear()
    known = _MEMORY.setdefault(device, {})
    if len(known) > _MOST_LAYERS:
        known.clear()
    return known


@dataclass(frozen=True, eq=False)
class _Plans:
    """Modes, operations, tilings and costs of layers, one entry each."""

    modes: tuple[Mode, ...]
    ops: Ops
    tiling: Tilings
    costs: SlotSums

    def rows(self) -> list[_Row]:
        """Return one row a layer, to be remembered."""
        tiling = np.array([getattr(self.tiling, f.name) for f in fields(Tilings)][1:]).T
        columns = zip(self.modes, self.ops.table.T, tiling, self.costs.table.T, strict=True)
        return [_Row(*column) for column in columns]

    @classmethod
    def of(cls, rows: list[_Row]) -> _Plans:
        """Return the plans of remembered rows."""
        ops = Ops(np.array([row.ops for row in rows], dtype=np.int64).T.copy())
        names = [f.name for f in fields(Tilings)][1:]
        columns = dict(zip(names, np.array([row.tiling for row in rows]).T, strict=True))
        for name in ("keep_x", "x_stays", "w_stays", "panel_stays"):
            columns[name] = columns[name].astype(np.bool_)
        tiling = Tilings(op=np.arange(len(rows)), **columns)
        costs = SlotSums(np.array([row.costs for row in rows], dtype=np.int64).T)
        return cls(tuple(row.mode for row in rows), ops, tiling, costs)

    def take(self, which: npt.NDArray[np.intp]) -> _Plans:
        tiling = replace(self.tiling.take(which), op=np.arange(len(which)))
        return _Plans(
            tuple(self.modes[i] for i in which),
            self.ops.take(which),
            tiling,
            self.costs.take(which),
        )


class SystolicDevice(Family):
    """The systolic family: registered under ``accsim.devices`` as ``systolic``."""

    spec: ClassVar[type[Any]] = Systolic
    levels: ClassVar[tuple[str, ...]] = LEVELS
    tables: ClassVar[Mapping[str, tuple[str, str]]] = {"energy": ("energy", "table")}

    def __init__(self, device: Systolic) -> None:
        super().__init__(device)
        self._modes: dict[Pattern, tuple[Mode, ...]] = {}

    @staticmethod
    def peak_macs_per_cycle(device: Systolic, layer: Layer) -> int:
        """Return the multipliers of all arrays, whatever the layer."""
        return device.peak_macs_per_cycle

    @staticmethod
    def check_level(device: Systolic, level: str) -> None:
        """Refuse to play a timing that spells out no tiles."""
        if level != "closed" and device.timing != "physical":
            raise InputError(
                f"timing {device.timing} is a closed form: level must be closed; got '{level}'"
            )

    def follows_mask(self, layer: Layer, mode: str) -> bool:
        """Say whether the passes of the layer's folds follow its real mask."""
        return mode == "adaptive"

    @staticmethod
    def counterfactuals() -> Counterfactuals:
        """Return the changes of array, buffers, memory and layer that ``why`` tries."""
        from accsim.devices.systolic_why import SYSTOLIC

        return SYSTOLIC

    @staticmethod
    def prices(device: Systolic, dtypes: Sequence[str]) -> dict[str, Price]:
        """Return what each action costs in pJ (see systolic_counts), and the part it belongs to.

        Raises:
            InputError: the energy table has no entry for a format or for the DRAM protocol.
        """
        table, memory = device.energy, device.memory
        dram = Price("dram", table.dram_pj_per_byte(memory.dram.protocol))
        prices = {
            "macs": Price("mac", table.mac_pj(dtypes)),
            "select_bits": Price("select", table.select_pj_per_bit),
            "register_bits": Price("register", table.register_pj_per_bit),
        }
        buffers = [(f"sram_{name}", "sram", getattr(memory.sram, name).bytes) for name in "xwy"]
        levels = [(level.name, level.name, level.bytes) for level in reversed(memory.onchip)]
        for name, part, size in (*buffers, *levels):
            read, write = table.sram_pj_per_byte(size)
            prices[f"{name}_read_bytes"] = Price(part, read)
            prices[f"{name}_write_bytes"] = Price(part, write)
        return prices | {"dram_read_bytes": dram, "dram_write_bytes": dram}

    @staticmethod
    def static_mw(device: Systolic) -> float:
        """Return the power burnt whether or not anything moves: PEs, memories, DRAM standby."""
        table = device.energy
        return (
            device.peak_macs_per_cycle * table.pe_static_uw * 1e-3
            + device.memory.sram_bytes / 2**20 * table.sram_static_mw_per_mb
            + table.dram_static_mw
        )

    def evaluate(self, layers: Sequence[Layer], masks: Masks) -> Evaluation:
        """Return cycles, their causes and action counts of every layer, in closed form.

        Layers of equal shape and pattern are computed once. Only a layer whose passes follow the
        real mask, or whose pattern keeps a number that depends on its weights, asks for its mask.
        """
        unique, where = self._distinct(layers)
        if self.device.timing == "scalesim_v3":
            return _scalesim(unique, masks, self.device).take(where)
        if self.device.timing == "compiled":
            return evaluate_compiled(unique, effective_macs(unique, masks), self.device).take(where)
        plans = self._plans(unique)
        adapted = [
            self._adapted(x, masks, int(plans.costs.cycles[i])) for i, x in enumerate(unique)
        ]
        plain = np.flatnonzero([a is None for a in adapted])
        uniform = self._uniform([unique[i] for i in plain], plans.take(plain), masks)
        return (uniform if len(plain) == len(unique) else _merge(uniform, adapted)).take(where)

    def schedule(self, layer: Layer, masks: Masks) -> Schedule:
        """Return the tiles of one layer, spelled out, under the tiling the closed form chose."""
        return self._planned(layer, masks)[1]

    def _planned(self, layer: Layer, masks: Masks) -> tuple[Mode, Schedule]:
        plan = self._plans([layer])
        adaptive = self._adaptive(layer, masks)
        if adaptive is not None and adaptive.cycles < int(plan.costs.cycles[0]):
            mode = self._choices(layer)[-1]
            return mode, adaptive.counted(make_ops([layer], [mode], self.device), self.device)
        if plan.costs.cycles[0] == NEVER:
            raise misfit(plan.ops, self.device)
        kept = int(effective_macs([layer], masks)[0]) // layer.runs
        return plan.modes[0], spell_out(plan.ops, plan.tiling, self.device, kept)

    def clock_tiles(self, layer: Layer, masks: Masks) -> tuple[Schedule, Ints]:
        """Return the schedule of a layer and the cycles of its tiles counted at register level."""
        from accsim.devices.systolic_clock import clock_tiles

        mode, schedule = self._planned(layer, masks)
        return schedule, clock_tiles(layer, mode, masks, schedule, self.device)

    def _distinct(self, layers: Sequence[Layer]) -> tuple[list[Layer], npt.NDArray[np.intp]]:
        """Return the layers that differ, and for each layer which of them it is."""
        index: dict[Any, int] = {}
        unique: list[Layer] = []
        where = np.empty(len(layers), dtype=np.intp)
        driven = {x: self._modes_of(x)[-1].driven for x in {layer.pattern for layer in layers}}
        for i, layer in enumerate(layers):
            pattern, gemm = layer.pattern, layer.gemm
            by_mask = driven[pattern] or pattern.kept(gemm.k, gemm.n) is None
            key = (layer.shape_key, pattern, layer.name if by_mask else None)
            if key not in index:
                index[key] = len(unique)
                unique.append(layer)
            where[i] = index[key]
        return unique, where

    def _choices(self, layer: Layer) -> tuple[Mode, ...]:
        return self._modes_of(layer.pattern)

    def _modes_of(self, pattern: Pattern) -> tuple[Mode, ...]:
        if pattern not in self._modes:
            self._modes[pattern] = modes(pattern, self.device.array)
        return self._modes[pattern]

    def _plans(self, layers: list[Layer]) -> _Plans:
        """Return the fastest mode and tiling of each layer, passes the same in every fold.

        Searches are remembered for the life of the process: what decides one is the device, the
        layer's shape and its pattern.
        """
        device = self.device
        known = _remembered((device.dataflow, device.clock_ghz, device.array, device.memory))
        keys = [(layer.shape_key, layer.pattern) for layer in layers]
        missing = {key: layer for key, layer in zip(keys, layers, strict=True) if key not in known}
        found = {}
        if missing:
            fresh = list(missing.values())
            plans = self._searched(fresh, [fixed(self._choices(x)) for x in fresh])
            found = dict(zip(missing, plans.rows(), strict=True))
        result = _Plans.of([found[key] if key in found else known[key] for key in keys])
        known.update(found)
        return result

    def _searched(self, layers: list[Layer], choices: list[list[Mode]]) -> _Plans:
        owner = np.repeat(np.arange(len(layers)), [len(found) for found in choices])
        found = [mode for modes_ in choices for mode in modes_]
        ops = make_ops([layers[i] for i in owner], found, self.device)
        tiling, costs = best(ops, self.device)
        plans = _Plans(tuple(found), ops, tiling, costs)
        if len(found) == len(layers):
            return plans
        order = np.lexsort((costs.load_bytes[0], costs.cycles, owner))
        return plans.take(order[np.unique(owner[order], return_index=True)[1]])

    def _uniform(self, layers: list[Layer], plans: _Plans, masks: Masks) -> Evaluation:
        device, ops, tiling, costs = self.device, plans.ops, plans.tiling, plans.costs
        never = np.flatnonzero(costs.cycles == NEVER)
        if len(never):
            raise misfit(ops.take(never[:1]), device)
        kept = effective_macs(layers, masks)
        bits = ops.runs * ops.stored(ops.k) * ops.n * ops.index_bits
        bare = evaluate(ops, tiling, device, metadata=False) if bits.any() else costs
        launch = device.launch_cycles * np.array([x.repeats for x in layers], dtype=np.int64)
        causes = {
            "work": costs.useful_cycles,
            "padding": costs.work_cycles - costs.useful_cycles,
            "fill_drain": costs.compute_cycles - costs.work_cycles,
            "metadata": costs.cycles - bare.cycles,
            "launch": launch,
            **dict(zip(self._channels, bare.waits, strict=True)),
        }
        cycles = costs.cycles + launch
        return Evaluation(
            cycles=cycles,
            causes=all_causes(causes, self._channels, cycles),
            counts=count(ops, tiling, costs, kept, device),
            metadata_bits=bits,
            effective_macs=kept,
            mode=tuple(mode.level for mode in plans.modes),
        )

    @property
    def _channels(self) -> list[str]:
        return [channel.name for channel in self.device.channels]

    def _adaptive(self, layer: Layer, masks: Masks) -> Adaptive | None:
        mode = self._choices(layer)[-1]
        if not mode.driven:
            return None
        ops = make_ops([layer], [mode], self.device)
        return best_adaptive(ops, MaskedFolds(masks.mask(layer), self.device), self.device)

    def _adapted(self, layer: Layer, masks: Masks, cycles: int) -> Evaluation | None:
        """Return the layer's evaluation under its real mask where that is faster."""
        found = self._adaptive(layer, masks)
        if found is None or found.cycles >= cycles:
            return None
        return _evaluation_of(found, layer, self._choices(layer)[-1], masks, self.device)


def effective_macs(layers: Sequence[Layer], masks: Masks) -> Ints:
    """Return the multiplications with a kept weight, all runs."""
    kept = [masks.kept(x) * x.gemm.t * x.runs for x in layers]
    return np.array(kept, dtype=np.int64)


def _evaluation_of(
    found: Adaptive, layer: Layer, mode: Mode, masks: Masks, device: Systolic
) -> Evaluation:
    """Add up the spelled-out tiles of one adaptive layer."""
    schedule = found.counted(make_ops([layer], [mode], device), device)
    launch = device.launch_cycles * layer.repeats
    causes = {
        cause: schedule.runs * int(schedule.tiles[f"{cause}_cycles"].sum())
        for cause in COMPUTE_CAUSES
    }
    bare = waits(schedule, metadata=False)
    causes["metadata"] += sum(waits(schedule)) - sum(bare)
    names = [channel.name for channel in device.channels]
    causes |= dict(zip(names, bare, strict=True)) | {"launch": launch}
    slots = schedule.runs * int(found.spent["slots"].sum())
    cycles = np.array([found.cycles + launch])
    one = {cause: np.array([spent]) for cause, spent in causes.items()}
    return Evaluation(
        cycles=cycles,
        causes=all_causes(one, names, cycles),
        counts=schedule.actions.total(schedule.runs),
        metadata_bits=np.array([slots * mode.index_bits]),
        effective_macs=effective_macs([layer], masks),
        mode=(mode.level,),
    )


def _merge(uniform: Evaluation, adapted: list[Evaluation | None]) -> Evaluation:
    """Return all layers in order: those adapted, and between them those of ``uniform``."""
    plain = iter(range(len(uniform.cycles)))
    parts = [uniform.take(np.array([next(plain)])) if a is None else a for a in adapted]
    return Evaluation(
        cycles=np.concatenate([p.cycles for p in parts]),
        causes={c: np.concatenate([p.causes[c] for p in parts]) for c in uniform.causes},
        counts=stack([p.counts for p in parts]),
        metadata_bits=np.concatenate([p.metadata_bits for p in parts]),
        effective_macs=np.concatenate([p.effective_macs for p in parts]),
        mode=tuple(p.mode[0] for p in parts),
    )


def _scalesim(layers: list[Layer], masks: Masks, device: Systolic) -> Evaluation:
    """SCALE-Sim v3's own numbers: no memory, no stalls; see :mod:`accsim.devices.scalesim`."""
    array = device.array
    runs = np.array([layer.runs for layer in layers], dtype=np.int64)
    t, k, n = (np.array([getattr(x.gemm, d) for x in layers], dtype=np.int64) for d in "tkn")
    for layer in layers:
        if not isinstance(layer.pattern, NM | Dense):
            raise InputError(
                f"timing scalesim_v3 knows dense and n:m patterns; got '{layer.pattern}' "
                f"for layer '{layer.name}'"
            )
    levels = [(x.pattern.n, x.pattern.m) if isinstance(x.pattern, NM) else (1, 1) for x in layers]
    pn, pm = np.array(levels, dtype=np.int64).T
    call = (t, k, n, array.rows, array.cols, device.dataflow, pn, pm)
    cycles = runs * scalesim.cycles(*call)
    counts, percent = scalesim.sram_counts(*call), scalesim.utilisations(*call)
    bits = np.array([DTYPES[layer.dtype].bits for layer in layers], dtype=np.int64)
    none = np.zeros_like(cycles)
    kept = effective_macs(layers, masks)
    x_reads = np.rint(counts.ifmap_reads).astype(np.int64)
    return Evaluation(
        cycles=cycles,
        causes=all_causes({"work": cycles}, [c.name for c in device.channels], cycles),
        counts=Counts({
            "macs": kept,
            "sram_x_read_bytes": -(-runs * x_reads * bits // 8),
            "sram_w_read_bytes": -(-runs * counts.filter_reads * bits // 8),
            "sram_y_write_bytes": -(-runs * counts.ofmap_writes * bits // 8),
        }),
        metadata_bits=none,
        effective_macs=kept,
        mode=("scalesim_v3",) * len(layers),
        extra={
            "overall_utilisation_percent": percent.overall,
            "mapping_efficiency_percent": percent.mapping_efficiency,
            "compute_utilisation_percent": percent.compute,
            "ifmap_reads": runs * counts.ifmap_reads,
            "filter_reads": np.asarray(runs * counts.filter_reads, dtype=np.float64),
            "ofmap_writes": np.asarray(runs * counts.ofmap_writes, dtype=np.float64),
        },
    )  # fmt: skip
