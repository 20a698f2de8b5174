"""Result: what a run says, as totals, as a table with one row a layer, as files, as figures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accsim.base.output import folder_to_write
from accsim.base.provenance import config_hash
from accsim.cost.ranges import Comparison, Priced, compare, energy_range_pj
from accsim.files.hardware import device_of
from accsim.sparsity.masks import Masks
from accsim.sparsity.weights import retained_energy, retained_magnitude
from accsim.spec.device import Device, Family, dram_of, table_of
from accsim.spec.pattern import DENSE
from accsim.spec.schedule import COMPUTE_CAUSES, Evaluation
from accsim.spec.workload import Layer, Workload

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas as pd

# Every column of the table, whatever the device: name → meaning. A device with memories beyond its
# buffers has more: waiting, accesses and energy by their name, each behind those of DRAM. Other
# parts of its energy stand before the static one, other columns of its own at the end.
COLUMNS = {
    "layer": "name of the layer",
    "op": "what it is: conv2d, linear, matmul",
    "t": "rows of one GEMM: tokens, or output pixels × batch",
    "k": "reduction of one GEMM (of one group)",
    "n": "columns of one GEMM: output features (of one group)",
    "repeats": "GEMMs of this shape: repeats × groups (× batch for activation products)",
    "pattern": "sparsity pattern of the weights",
    "mode": "how the device runs it: its n:m level, dense, or adaptive",
    "dtype": "number format of operands",
    "cycles": "total cycles, all repeats: work_cycles + stall_cycles",
    "work_cycles": "cycles the multiplications would take with all PEs taking part",
    "stall_cycles": "cycles of every other cause: the sum of the columns up to launch_cycles",
    "padding_cycles": "streaming while PEs beside ragged folds have nothing to do",
    "fill_drain_cycles": "preload, skew of the wavefront and draining, where not overlapped",
    "imbalance_cycles": "passes the fullest PE makes the others wait for (adaptive mode)",
    "metadata_cycles": "waiting for memory that would vanish if positions of non-zeros were free",
    "gather_cycles": "bringing scattered operands together, scattering results",
    "generator_cycles": "making masks or compressing operands on the fly",
    "checker_cycles": "checksums and comparisons that computing waits for",
    "throttle_cycles": "clock below the reference one, under a power cap",
    "dram_cycles": "waiting for DRAM otherwise",
    "launch_cycles": "fixed overhead of starting the layer",
    "utilisation": "effective MACs / (cycles × multipliers); never above 1",
    "macs": "multiply-accumulates of the dense layer, all repeats",
    "effective_macs": "of these, with a kept weight",
    "dram_read_bytes": "bytes from DRAM: inputs, packed weights, metadata",
    "dram_write_bytes": "bytes to DRAM: outputs in the operands' format",
    "sram_read_bytes": "bytes read from the buffers by the array and by stores",
    "sram_write_bytes": "bytes written to the buffers by loads and by the array",
    "metadata_bits": "bits that say where the stored weights are, all repeats",
    "energy_j": "energy of the layer: the sum of its parts",
    "energy_mac_j": "multiplications and additions",
    "energy_select_j": "activation multiplexers of n:m PEs",
    "energy_register_j": "PE registers",
    "energy_sram_j": "buffers",
    "energy_dram_j": "DRAM transfers",
    "energy_static_j": "leakage and standby over the layer's time",
    "latency_s": "cycles / clock",
}
# What a mask leaves of the weights, beside what it costs: only when asked for, as it makes them.
QUALITY = {
    "retained_magnitude": "sum of |w| kept over all: 1 for a layer that is not pruned",
    "retained_energy": "sum of w² kept over all",
}


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of :func:`accsim.simulate`. Rates and totals are computed from exact counts."""

    workload: Workload
    hardware: Any  # the noun of a family: accsim.spec.device.Device
    level: str
    seed: int
    evaluation: Evaluation
    energy_parts_pj: dict[str, npt.NDArray[np.floating[Any]]]
    version: str
    masks: Masks | None = field(default=None, repr=False)

    @property
    def _device(self) -> Device:
        """The hardware, as far as shared code knows it."""
        found: Device = self.hardware
        return found

    @property
    def cycles(self) -> int:
        """Cycles of the whole workload, layer after layer."""
        return _sum(self.evaluation.cycles)

    @property
    def latency_s(self) -> float:
        """Seconds of the whole workload."""
        return self.cycles / (self._device.clock_ghz * 1e9)

    @property
    def latency_range_s(self) -> tuple[float, float] | None:
        """Ends of the latency: those of all layers added, as if all erred the same way.

        None for a device that states none (columns ``latency_low_s``, ``latency_high_s``).
        """
        extra = self.evaluation.extra
        if "latency_low_s" not in extra:
            return None
        return float(extra["latency_low_s"].sum()), float(extra["latency_high_s"].sum())

    @property
    def extrapolated(self) -> list[str]:
        """Names of the layers outside what the device was calibrated on."""
        flags = self.evaluation.extra.get("extrapolated", np.zeros(0))
        return [x.name for x, flag in zip(self.workload.layers, flags, strict=False) if flag]

    @property
    def energy_j(self) -> float:
        """Joules of the whole workload: the sum over layers and parts."""
        return sum(self.energy_parts_j.values())

    @property
    def energy_parts_j(self) -> dict[str, float]:
        """Joules by part: mac, select, register, sram, memories by name, dram, static."""
        return {part: float(pj.sum()) * 1e-12 for part, pj in self.energy_parts_pj.items()}

    @cached_property
    def energy_range_pj(self) -> dict[str, tuple[Any, Any]]:
        """(low, high) energy of each layer in pJ by part: the energy table's corners.

        Empty for a device no range is known of.
        """
        return energy_range_pj(self.evaluation, self.workload.layers, self.hardware)

    @property
    def energy_low_j(self) -> float | None:
        """Joules with every number of the energy table at its low; None if no range is known."""
        return self._energy_end_j(0)

    @property
    def energy_high_j(self) -> float | None:
        """Joules with every number of the energy table at its high; None if no range is known."""
        return self._energy_end_j(1)

    def _energy_end_j(self, end: int) -> float | None:
        ranges = self.energy_range_pj.values()
        return 1e-12 * sum(float(ends[end].sum()) for ends in ranges) if ranges else None

    @property
    def _priced(self) -> Priced:
        return Priced(self.evaluation, self.workload.layers, self.hardware)

    def compare_energy(self, other: Result) -> Comparison:
        """Energy less that of ``other`` with its range, and whether its sign is sure.

        Numbers that both designs take from the same source move together.

        Raises:
            InputError: no range is known of one of the two.
        """
        return compare(self._priced, other._priced)

    def why(self) -> list[str]:
        """One line for every kind of layer: what bounds it and what would help, in cycles."""
        from accsim.cost.why import why

        return why(self.evaluation, self.workload.layers, self.hardware, self.masks)

    @cached_property
    def quality(self) -> dict[str, list[float]]:
        """What each layer's mask leaves of its weights (columns of QUALITY), layer by layer.

        Weights are those of the masks the run used: real ones of a trace, else synthetic ones with
        the scale structure of trained networks. Equal sparsity is not equal quality. Not-a-number
        for a layer whose mask is replayed from a trace that does not hold what was pruned.
        """
        masks = self.masks or Masks(self.seed)
        pairs = [_retained(layer, masks) for layer in self.workload.layers]
        return {name: [pair[i] for pair in pairs] for i, name in enumerate(QUALITY)}

    @property
    def retained(self) -> dict[str, float]:
        """The same over all pruned layers, weighted by their weights; 1 if there are none."""
        layers = self.workload.layers
        sizes = [x.gemm.k * x.gemm.n * (x.pattern != DENSE) for x in layers]
        whole = sum(sizes)
        return {
            name: sum(s * v for s, v in zip(sizes, values, strict=True) if s) / whole
            if whole
            else 1.0
            for name, values in self.quality.items()
        }

    @property
    def causes(self) -> dict[str, int]:
        """Cycles by cause; they sum to ``cycles``."""
        return {cause: _sum(c) for cause, c in self.evaluation.causes.items()}

    @property
    def dram_bytes(self) -> int:
        """Bytes to and from DRAM."""
        counts = self.evaluation.counts
        return _sum(counts.of("dram_", "_bytes"))

    @property
    def family(self) -> type[Family]:
        """The device family of the hardware: see :mod:`accsim.spec.device`."""
        return device_of(self.hardware.kind)

    @property
    def channels(self) -> list[str]:
        """The memories that are waited for by name, the farthest first."""
        return [x for x in self.evaluation.causes if x not in (*COMPUTE_CAUSES, "launch")]

    @property
    def dram_gb_per_s(self) -> float | None:
        """Bandwidth of the off-chip memory; None for a device that has none."""
        level = dram_of(self.hardware)
        if level is None or level.bytes_per_cycle is None:
            return None
        return level.bytes_per_cycle * self._device.clock_ghz

    @cached_property
    def peaks(self) -> list[float]:
        """Effective MACs a clock of each layer at most: it may depend on dtype and pattern."""
        peak, hardware = self.family.peak_macs_per_cycle, self.hardware
        return [peak(hardware, layer) for layer in self.workload.layers]

    @cached_property
    def room_macs(self) -> list[float]:
        """Effective MACs each layer's cycles had room for."""
        cycles = self.evaluation.cycles.tolist()
        return [spent * peak for spent, peak in zip(cycles, self.peaks, strict=True)]

    @property
    def peak_macs_per_cycle(self) -> float:
        """The layers' peak; where they differ, its mean over the cycles."""
        if len(set(self.peaks)) == 1 or not self.cycles:
            return max(self.peaks)
        return sum(self.room_macs) / self.cycles

    @property
    def utilisation(self) -> float:
        """Effective MACs over what the multipliers could have done in the time."""
        room = sum(self.room_macs)
        return _sum(self.evaluation.effective_macs) / room if room else 0.0

    @property
    def effective_tops(self) -> float:
        """Tera-operations a second, 2 for each MAC with a kept weight."""
        seconds = self.latency_s
        return 2 * _sum(self.evaluation.effective_macs) / seconds / 1e12 if seconds else 0.0

    @property
    def meanings(self) -> dict[str, str]:
        """Columns of this result's table → what they mean, as far as the device says it."""
        own = dict(self.family.meanings(self.hardware))
        extra = {name: own[name] for name in self.evaluation.extra if name in own}
        return {name: own.get(name, meaning) for name, meaning in self._schema.items()} | extra

    @property
    def _schema(self) -> dict[str, str]:
        """Columns → meanings: COLUMNS, and those of more memories and more parts of energy."""
        levels = [name for name in self.channels if name != "dram"]
        meanings = {}
        for name, meaning in COLUMNS.items():
            meanings[name] = meaning
            for level in levels if "dram" in name else ():
                meanings[name.replace("dram", level)] = meaning.replace("DRAM", level)
        more = [part for part in self.energy_parts_pj if f"energy_{part}_j" not in meanings]
        tail = {name: meanings.pop(name) for name in ("energy_static_j", "latency_s")}
        return meanings | {f"energy_{part}_j": f"energy: {part}" for part in more} | tail

    @property
    def _moved(self) -> list[str]:
        return [name for name in self._schema if name.endswith(("_read_bytes", "_write_bytes"))]

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """The table as plain lists, in the order of COLUMNS, extra columns behind."""
        found, layers = self.evaluation, self.workload.layers
        own: dict[str, Any] = {
            "layer": [x.name for x in layers], "op": [x.op.kind for x in layers],
            "t": [x.gemm.t for x in layers], "k": [x.gemm.k for x in layers],
            "n": [x.gemm.n for x in layers], "repeats": [x.runs for x in layers],
            "pattern": [str(x.pattern) for x in layers], "mode": list(found.mode),
            "dtype": [x.dtype for x in layers],
            "cycles": found.cycles, "work_cycles": found.causes["work"],
            "stall_cycles": found.cycles - found.causes["work"],
        }  # fmt: skip
        own |= {f"{cause}_cycles": cycles for cause, cycles in found.causes.items()}
        room = np.maximum(found.cycles, 1) * np.array(self.peaks, dtype=np.float64)
        own |= {
            "utilisation": found.effective_macs / room,
            "macs": [x.macs for x in layers],
            "effective_macs": found.effective_macs,
            "metadata_bits": found.metadata_bits,
        }
        none = np.zeros_like(found.cycles)
        for name in self._moved:
            own[name] = none + found.counts.of(*_ends(name))
        parts = {f"energy_{part}_j": pj * 1e-12 for part, pj in self.energy_parts_pj.items()}
        own |= parts | {"energy_j": sum(parts.values(), start=np.zeros(len(layers)))}
        own["latency_s"] = found.cycles / (self.hardware.clock_ghz * 1e9)
        # A device without DRAM waits none for it; one that prices other parts has none of these.
        ordered = {name: _plain(own.get(name, none)) for name in self._schema}
        return ordered | {name: _plain(values) for name, values in found.extra.items()}

    @property
    def table(self) -> pd.DataFrame:
        """One row a layer, a pandas DataFrame; columns as in ``accsim.result.COLUMNS``."""
        import pandas as pd

        return pd.DataFrame(self.columns)

    @property
    def _latency_ends(self) -> dict[str, float]:
        ends = self.latency_range_s
        return {} if ends is None else {"latency_low_s": ends[0], "latency_high_s": ends[1]}

    @property
    def totals(self) -> dict[str, Any]:
        """The totals of the run as plain numbers."""
        counts = self.evaluation.counts
        return {
            "cycles": self.cycles,
            "latency_s": self.latency_s,
            **self._latency_ends,
            "energy_j": self.energy_j,
            "energy_low_j": self.energy_low_j,
            "energy_high_j": self.energy_high_j,
            "energy_parts_j": self.energy_parts_j,
            "cycles_by_cause": self.causes,
            "macs": self.workload.macs,
            "effective_macs": _sum(self.evaluation.effective_macs),
            "effective_tops": self.effective_tops,
            "utilisation": self.utilisation,
            **{name: _sum(counts.of(*_ends(name))) for name in self._moved},
            "metadata_bits": _sum(self.evaluation.metadata_bits),
        }

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """Everything that decided the result: hardware, workload, level, seed. JSON-ready."""
        hardware = self.hardware.model_dump(mode="json", exclude={"sources"})
        return {
            "level": self.level,
            "seed": self.seed,
            "hardware": hardware,
            "workload": self.workload.model_dump(mode="json", exclude={"elementwise"}),
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """Version, configuration hash, seed, energy table, and the source of every number."""
        table = table_of(self.hardware)
        return {
            "accsim": self.version,
            "config_sha256": config_hash(self.configuration),
            "seed": self.seed,
            "level": self.level,
            "energy_table": table.table if table else self.family.energy_words(self.hardware),
            "hardware_sources": {
                path: source.model_dump(mode="json", exclude_none=True)
                for path, source in self.hardware.sources.items()
            },
            "workload_sources": list(self.workload.sources),
        }

    def plot(self, kind: str = "cycles") -> matplotlib.figure.Figure:
        """Return a matplotlib figure: ``cycles`` (a bar a layer, by cause) or ``roofline``.

        Raises:
            InputError: another kind.
        """
        from accsim.report.figures import figure

        return figure(self, kind)

    def save(self, folder: str | Path, *, plots: bool = True) -> list[Path]:
        """Write tables, configuration, provenance and figures to a folder; return the files.

        ``layers.csv``, ``layers.json`` (and ``layers.parquet`` where pyarrow is installed),
        ``run.json`` (totals, configuration, provenance), and each figure as PNG and SVG.

        Raises:
            InputError: the folder cannot be made or written.
        """
        with folder_to_write(folder) as path:
            files = list(self._write_tables(path))
            if plots:
                from accsim.report.figures import save_figures

                files += save_figures(self, path)
        return files

    def _write_tables(self, folder: Path) -> Iterator[Path]:
        columns = self.columns
        rows = list(zip(*columns.values(), strict=True))
        path = folder / "layers.csv"
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(columns)
            writer.writerows(rows)
        yield path
        path = folder / "layers.json"
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        path.write_text(json_text({"columns": self.meanings, "rows": records}), encoding="utf-8")
        yield path
        path = folder / "run.json"
        run = {
            "totals": self.totals,
            "provenance": self.provenance,
            "configuration": self.configuration,
        }
        path.write_text(json_text(run), encoding="utf-8")
        yield path
        if _has_pyarrow():
            import pyarrow
            import pyarrow.parquet

            path = folder / "layers.parquet"
            pyarrow.parquet.write_table(pyarrow.table(columns), path)
            yield path


def _retained(layer: Layer, masks: Masks) -> tuple[float, float]:
    if layer.pattern == DENSE:
        return 1.0, 1.0
    if not masks.before_pruning(layer):
        return math.nan, math.nan
    weights, mask = masks.weights(layer), masks.mask(layer)
    return retained_magnitude(weights, mask), retained_energy(weights, mask)


def _sum(values: npt.NDArray[np.int64] | int) -> int:
    """Add in Python integers: a network's total may pass 2**63 where no layer does."""
    return sum(np.atleast_1d(values).tolist())


def _ends(name: str) -> tuple[str, str]:
    """Return prefix and suffix of the actions a column sums: sram_…_read_bytes."""
    level, way, unit = name.rsplit("_", 2)
    return f"{level}_", f"{way}_{unit}"


def _plain(values: Any) -> list[Any]:
    listed: list[Any] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return listed


def json_text(data: Any) -> str:
    """Return JSON; numbers it does not have (infinity, not-a-number) become words like "inf"."""
    return json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data


def _has_pyarrow() -> bool:
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None
