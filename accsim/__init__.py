"""accsim: a cycle-approximate simulator of accelerators for sparse neural networks.

The data path in ten lines:

    hw = load_hardware("systolic_nm_32x32")      # hwconfigs/*.yaml → a device noun
    net = load_workload("resnet50", batch=8)     # workloads/*.yaml → layers
    net = net.prune("2:4")                       # each layer gets a pattern (masks come lazily)
    res = simulate(net, hw)                      # layers → schedule → timeline → energy
    res.cycles, res.latency_s, res.energy_j      # totals
    res.table                                    # one row a layer, a pandas DataFrame
    res.plot(), res.plot("roofline")             # matplotlib figures
    res.save("out/")                             # tables, configuration, provenance, figures
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accsim.base.errors import AccsimError, InputError
    from accsim.break_even.run import breakeven
    from accsim.break_even.table import Breakeven
    from accsim.files.hardware import load_hardware
    from accsim.network import end_to_end
    from accsim.result import Result
    from accsim.simulation import simulate
    from accsim.sparsity.weights import retained_magnitude, synthetic_weights
    from accsim.spec.pattern import parse_pattern as pattern
    from accsim.spec.workload import Gemm, Layer, Workload, gemm
    from accsim.traces.load import load_workload
    from accsim.traces.trace import read_trace, write_trace
    from accsim.training.over import Training, over_training
    from accsim.training.step import Step, training_step

__version__ = "0.1.0"

# Public name → module; imported on first use so that `accsim --help` stays quick.
_HOMES = {
    "AccsimError": "accsim.base.errors",
    "InputError": "accsim.base.errors",
    "Breakeven": "accsim.break_even.table",
    "breakeven": "accsim.break_even.run",
    "end_to_end": "accsim.network",
    "load_hardware": "accsim.files.hardware",
    "load_workload": "accsim.traces.load",
    "Result": "accsim.result",
    "simulate": "accsim.simulation",
    "retained_magnitude": "accsim.sparsity.weights",
    "synthetic_weights": "accsim.sparsity.weights",
    "pattern": "accsim.spec.pattern",
    "Gemm": "accsim.spec.workload",
    "Layer": "accsim.spec.workload",
    "Workload": "accsim.spec.workload",
    "gemm": "accsim.spec.workload",
    "read_trace": "accsim.traces.trace",
    "write_trace": "accsim.traces.trace",
    "Step": "accsim.training.step",
    "Training": "accsim.training.over",
    "over_training": "accsim.training.over",
    "training_step": "accsim.training.step",
}

__all__ = [
    "AccsimError", "Breakeven", "Gemm", "InputError", "Layer", "Result", "Step", "Training",
    "Workload", "breakeven", "end_to_end", "gemm", "load_hardware", "load_workload",
    "over_training", "pattern", "read_trace", "retained_magnitude", "simulate",
    "synthetic_weights", "training_step", "write_trace",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'accsim' has no attribute '{name}'")
    from importlib import import_module

    found = getattr(import_module(_HOMES[name]), "parse_pattern" if name == "pattern" else name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
