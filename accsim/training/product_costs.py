"""What the device says of products: its chosen dataflow, and each other one it could have taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accsim.devices.fpga_ops import PassOps
from accsim.devices.fpga_passes import pass_costs
from accsim.spec.fpga import Fpga
from accsim.training.products import Product

SHOWN = ("work", "padding", "fill_drain", "dram")


@dataclass(frozen=True)
class ProductCost:
    """A product's cycles, causes and bytes, all runs; ``flows``: cycles under each dataflow."""

    product: Product
    cycles: int
    causes: dict[str, int]
    flow: str
    flows: dict[str, int]
    load_bytes: int
    store_bytes: int
    metadata_bits: int
    macs: int  # multiplied: kept weights only
    accesses: dict[str, int]  # bytes of buffer accesses, where the device counts them

    @property
    def why(self) -> str:
        """The dataflows' cycles, the chosen one first."""
        order = sorted(self.flows, key=lambda flow: (flow != self.flow, flow))
        return " ".join(f"{flow} {self.flows[flow]}" for flow in order)

    @property
    def row(self) -> dict[str, Any]:
        """One row of a step's table."""
        product = self.product
        shown = {f"{cause}_cycles": self.causes.get(cause, 0) for cause in SHOWN}
        return {
            "layer": product.name, "pass": product.which, "level": product.level,
            "flow": self.flow, "why": self.why, "macs": product.macs, "cycles": self.cycles,
            **shown, "other_cycles": self.cycles - sum(shown.values()),
            "load_bytes": self.load_bytes, "store_bytes": self.store_bytes,
            "metadata_bits": self.metadata_bits,
        }  # fmt: skip


def product_costs(
    products: Sequence[Product], device: Fpga, costs: Callable[..., Any] | None = None
) -> list[ProductCost]:
    """Return what each product costs; ``costs`` stands in for the device's ``pass_costs``."""
    found = (costs or pass_costs)(ops_of(products), device)
    flows = {name: found.flow_cycles[name] for name in dict.fromkeys(device.array.flows)}
    accesses: dict[str, Any] = getattr(found, "accesses", {})
    return [
        ProductCost(
            product, int(found.cycles[at]),
            {cause: int(values[at]) for cause, values in found.causes.items()},
            str(found.flow[at]), {flow: int(cycles[at]) for flow, cycles in flows.items()},
            int(found.load_bytes[at]), int(found.store_bytes[at]), int(found.metadata_bits[at]),
            int(found.macs[at]), {name: int(values[at]) for name, values in accesses.items()},
        )
        for at, product in enumerate(products)
    ]  # fmt: skip


def ops_of(products: Sequence[Product]) -> PassOps:
    """Return products as the device wants them."""
    columns = {
        name: np.array([getattr(product, name) for product in products], dtype=np.int64)
        for name in ("t", "k", "n", "count", "x_unique")
    }
    return PassOps(**columns, levels=tuple(product.level for product in products))
