"""A traced network to simulate: its masks are the recorded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import PrivateAttr

from accsim.base.errors import InputError
from accsim.sparsity.masks import Masks
from accsim.spec.pattern import DENSE
from accsim.spec.workload import Layer, Workload
from accsim.traces.pattern import TRACED
from accsim.traces.trace import Trace

if TYPE_CHECKING:
    import numpy.typing as npt


class TraceMasks(Masks):
    """Masks that replay a trace; what it does not hold is synthetic, as in :class:`Masks`.

    A layer keeps its recorded mask while it has the pattern it was traced with; pruned anew, the
    new pattern chooses among the recorded weights. Of runs with masks of their own the one with
    the median number kept stands for all.
    """

    def __init__(self, trace: Trace, seed: int = 0, *, iid: bool = False) -> None:
        super().__init__(seed, iid=iid)
        self.trace = trace
        self._traced = {layer.name: layer for layer in trace.workload}
        self._median: dict[str, int] = {}

    def weights(self, layer: Layer) -> npt.NDArray[np.float32]:
        """Return the layer's recorded weights, else synthetic ones: (k, n) float32."""
        if not self._holds(layer, "weights"):
            return super().weights(layer)
        values = self.trace.weights(layer)
        assert values is not None
        return np.ascontiguousarray(self._one(values, layer), dtype=np.float32)

    def mask(self, layer: Layer) -> npt.NDArray[np.bool_]:
        """Return which weights of the layer are kept: bool, (k, n).

        Raises:
            InputError: a layer of another shape than the trace's, one that is ``traced`` but not
                in the trace, or whatever is wrong with the recorded mask.
        """
        if self._replays(layer):
            mask = self.trace.weight_mask(layer)
            assert mask is not None
            return self._one(mask, layer)
        if layer.pattern == TRACED:
            raise InputError(
                f"layer '{layer.name}' is traced, but {self.trace!r} has no mask of it"
            )
        return super().mask(layer)

    def before_pruning(self, layer: Layer) -> bool:
        """Say whether the trace tells what was pruned: a recorded mask with weights outside it."""
        if not self._replays(layer):
            return True
        if not self._holds(layer, "weights"):
            return False
        return bool(self.weights(layer)[~self.mask(layer)].any())

    def _replays(self, layer: Layer) -> bool:
        """Return whether the layer runs with its recorded mask (a dense one keeps everything)."""
        traced = self._traced.get(layer.name)
        if traced is None or layer.pattern != traced.pattern or layer.pattern == DENSE:
            return False
        of_weights = layer.pattern == TRACED and self._holds(layer, "weights")
        return of_weights or self._holds(layer, "mask")

    def _holds(self, layer: Layer, kind: str) -> bool:
        """Return whether the trace holds this layer's arrays; refuse one of another shape."""
        traced = self._traced.get(layer.name)
        if traced is None or not self.trace.has(kind, layer):
            return False
        here, there = (layer.gemm.k, layer.gemm.n), (traced.gemm.k, traced.gemm.n)
        if here != there:
            raise InputError(
                f"layer '{layer.name}' must have the trace's k × n of {there[0]} × {there[1]}; "
                f"got {here[0]} × {here[1]}",
                file=self.trace.file,
            )
        return True

    def _one(self, values: npt.NDArray[Any], layer: Layer) -> npt.NDArray[Any]:
        """Return the (k, n) that stands for all runs."""
        if values.ndim == 2:
            return values
        if layer.name not in self._median:
            mask = self.trace.weight_mask(layer)
            kept = (
                np.count_nonzero(mask, axis=(1, 2)) if mask is not None and mask.ndim == 3 else [0]
            )
            order = np.argsort(kept, kind="stable")
            self._median[layer.name] = int(order[(len(order) - 1) // 2])
        chosen: npt.NDArray[Any] = values[self._median[layer.name]]
        return chosen


class TracedWorkload(Workload):
    """A network whose masks were recorded; pruned, cut or batched it still knows them."""

    _trace: Trace = PrivateAttr()

    @property
    def trace(self) -> Trace:
        """The trace it came from."""
        return self._trace


def replayed(trace: Trace) -> TracedWorkload:
    """Return the network of a trace, to simulate; its sources name the trace's digest.

    Raises:
        InputError: a recorded mask breaks the pattern its layer claims.
    """
    trace.check_patterns()
    network = trace.workload
    fields = {name: getattr(network, name) for name in Workload.model_fields}
    fields["sources"] = (*network.sources, f"trace sha256:{trace.digest}")
    made = TracedWorkload(**fields)
    made._trace = trace
    return made


def masks_of(workload: Workload, seed: int = 0, *, iid: bool = False) -> Masks:
    """Return the masks to simulate ``workload`` with: the recorded ones if it has a trace."""
    if isinstance(workload, TracedWorkload):
        return TraceMasks(workload.trace, seed, iid=iid)
    return Masks(seed, iid=iid)
