"""What products cost on an FPGA design: dataflow and tiles searched, searches remembered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accsim.devices.fpga_array import FLOWS
from accsim.devices.fpga_ops import Ops, PassOps, make_ops
from accsim.devices.fpga_slots import Tilings, slot_sums
from accsim.devices.fpga_tiling import best
from accsim.spec.fpga import Fpga

Ints = npt.NDArray[np.int64]
CAUSES = ("work", "padding", "fill_drain", "metadata", "dram", "launch")
PLANS = ("flow", "t", "k", "n", "keep_x", "a_stays", "b_stays")
TOTALS = ("load_bytes", "store_bytes", "metadata_bits", "macs")
COLUMNS = ("cycles", *CAUSES, *PLANS, *TOTALS, *(f"{flow}_cycles" for flow in FLOWS))
ABSENT = -1  # cycles of a dataflow the array does not have
_MOST_DEVICES, _MOST_OPERATIONS = 64, 1_000_000


@dataclass(frozen=True, eq=False)
class PassCosts:
    """Costs of operations, all of their GEMMs together: rows of one table, named ``COLUMNS``.

    ``t``, ``k``, ``n``: the tile. ``load_bytes``, ``store_bytes``: to and from memory.
    ``metadata_bits``: of the packed operands, each once. ``macs``: multiplications of stored
    values with whatever they meet.
    """

    table: Ints

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def __getitem__(self, name: str) -> Ints:
        row: Ints = self.table[COLUMNS.index(name)]
        return row

    @property
    def cycles(self) -> Ints:
        """Cycles, launch included."""
        return self["cycles"]

    @cached_property
    def causes(self) -> dict[str, Ints]:
        """Cycles by cause; they add up to ``cycles``."""
        return {name: self[name] for name in CAUSES}

    @cached_property
    def flow(self) -> tuple[str, ...]:
        """The dataflow of each operation."""
        names = list(FLOWS)
        return tuple(names[i] for i in self["flow"])

    @cached_property
    def flow_cycles(self) -> dict[str, Ints]:
        """Cycles each dataflow would take with its best tiles; −1 where the array lacks it."""
        return {flow: self[f"{flow}_cycles"] for flow in FLOWS}

    @property
    def tile(self) -> tuple[Ints, Ints, Ints]:
        """t, k and n of the tiles."""
        return self["t"], self["k"], self["n"]

    @property
    def load_bytes(self) -> Ints:
        """Bytes read from memory."""
        return self["load_bytes"]

    @property
    def store_bytes(self) -> Ints:
        """Bytes written to memory."""
        return self["store_bytes"]

    @property
    def metadata_bits(self) -> Ints:
        """Bits that say where the packed operands' values stand."""
        return self["metadata_bits"]

    @property
    def macs(self) -> Ints:
        """Multiplications executed with stored values."""
        return self["macs"]


class _Memory:
    """Costs of operations a device has run: place of each in a growing table."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.places: dict[Any, int] = {}
        self.table = np.zeros((len(COLUMNS), 0), dtype=np.int64)

    def add(self, keys: list[Any], table: Ints) -> None:
        self.places.update(zip(keys, range(self.table.shape[1], 2**62), strict=False))
        self.table = np.concatenate([self.table, table], axis=1)


_MEMORIES: dict[Any, _Memory] = {}
_BY_ID: dict[int, tuple[Fpga, _Memory]] = {}  # hashing a noun takes longer than all look-ups


def _memory_of(device: Fpga) -> _Memory:
    """Return what is remembered for devices that time alike; forgets all when there are many."""
    known = _BY_ID.get(id(device))
    if known is not None:
        return known[1]
    if len(_BY_ID) >= _MOST_DEVICES:
        _BY_ID.clear()
    if len(_MEMORIES) >= _MOST_DEVICES:
        _MEMORIES.clear()
        _BY_ID.clear()
    what = (device.clock_ghz, device.format, device.array, device.buffers, device.ddr)
    memory = _MEMORIES.setdefault((*what, device.launch_cycles), _Memory())
    _BY_ID[id(device)] = (device, memory)
    return memory


def pass_costs(ops: PassOps, device: Fpga) -> PassCosts:
    """Return what operations cost, each in its fastest dataflow and tiles (docs/fpga.md).

    Raises:
        InputError: a level the array does not have, or an operation its buffers cannot hold.
    """
    memory = _memory_of(device)
    keys = list(zip(*ops.table.tolist(), ops.levels, strict=True))
    places = memory.places
    missing = [i for i, key in enumerate(keys) if key not in places]
    if missing:
        if len(places) > _MOST_OPERATIONS:
            memory.forget()
            return pass_costs(ops, device)
        new = list({keys[i]: i for i in missing}.values())
        fresh = PassOps(
            ops.t[new], ops.k[new], ops.n[new], ops.count[new], ops.x_unique[new],
            tuple(ops.levels[i] for i in new),
        )  # fmt: skip
        memory.add([keys[i] for i in new], _searched(make_ops(fresh, device), device))
    return PassCosts(memory.table[:, [memory.places[key] for key in keys]])


def plan_of(costs: PassCosts) -> Tilings:
    """Return the tilings of operations with known costs."""
    flow, t, k, n, keep_x, a, b = (costs[name] for name in PLANS)
    yes = (keep_x.astype(np.bool_), a.astype(np.bool_), b.astype(np.bool_))
    return Tilings(np.arange(len(costs)), flow, t, k, n, *yes)


def _searched(ops: Ops, device: Fpga) -> Ints:
    """Return the columns of every operation's fastest tiling, dataflows compared."""
    tilings, sums = best(ops, device)
    launch = device.launch_cycles
    by_flow = np.full((len(FLOWS), len(ops)), ABSENT)
    by_flow[tilings.flow, tilings.op] = sums.cycles + launch
    rank = np.lexsort((sums.load_bytes + sums.store_bytes, sums.cycles, tilings.op))
    pick = rank[np.unique(tilings.op[rank], return_index=True)[1]]
    plan, chosen = tilings.take(pick), sums.take(pick)
    bare = slot_sums(ops, plan, device, metadata=False)
    stored = ops.count * ops.stored(ops.k) * ops.n
    columns = {
        "cycles": chosen.cycles + launch,
        "work": chosen.useful,
        "padding": chosen.streaming - chosen.useful,
        "fill_drain": chosen.compute_cycles - chosen.streaming,
        "metadata": chosen.cycles - bare.cycles,
        "dram": bare.cycles - chosen.compute_cycles,
        "launch": np.full(len(ops), launch),
        **{name: getattr(plan, name) for name in PLANS},
        "load_bytes": chosen.load_bytes,
        "store_bytes": chosen.store_bytes,
        "metadata_bits": stored * ops.index_bits,
        "macs": stored * ops.t,
        **{f"{flow}_cycles": by_flow[i] for i, flow in enumerate(FLOWS)},
    }
    return np.stack([columns[name].astype(np.int64) for name in COLUMNS])
