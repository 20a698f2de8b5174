"""How often each action happens: what energy is computed from. Counts add; energies come last."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Actions of each layer, one entry a layer, all runs. Bytes and bits are what moves."""

    macs: Ints  # multiplications that switch, each with its addition
    select_bits: Ints  # bits through the activation multiplexers of n:m PEs
    register_bits: Ints  # bits clocked into PE registers
    sram_x_read_bytes: Ints
    sram_w_read_bytes: Ints
    sram_y_read_bytes: Ints
    sram_x_write_bytes: Ints
    sram_w_write_bytes: Ints
    sram_y_write_bytes: Ints
    dram_read_bytes: Ints
    dram_write_bytes: Ints

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def take(self, which: npt.NDArray[np.intp]) -> Counts:
        """Return the chosen entries, repeats allowed."""
        return Counts(*(getattr(self, f.name)[which] for f in fields(self)))

    @property
    def sram_read_bytes(self) -> Ints:
        """Bytes read from the three buffers."""
        return self.sram_x_read_bytes + self.sram_w_read_bytes + self.sram_y_read_bytes

    @property
    def sram_write_bytes(self) -> Ints:
        """Bytes written to the three buffers."""
        return self.sram_x_write_bytes + self.sram_w_write_bytes + self.sram_y_write_bytes


def stack(counts: list[Counts]) -> Counts:
    """Return one Counts with the entries of several, in order."""
    columns: dict[str, Any] = {
        f.name: np.concatenate([np.atleast_1d(getattr(c, f.name)) for c in counts])
        for f in fields(Counts)
    }
    return Counts(**columns)
