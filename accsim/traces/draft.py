"""Making a trace: arrays are checked and spooled one by one, so that none must stay in memory."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from accsim.base.errors import InputError, one_of
from accsim.spec.workload import Layer, Workload
from accsim.traces import strict_json
from accsim.traces.container import CHUNK_BYTES, TYPES, unwritable
from accsim.traces.header import BITS, VALUES, Array, Provenance, read_header, wanted
from accsim.traces.trace import Trace, numpy_type, write_trace

if TYPE_CHECKING:
    import numpy.typing as npt


class Spool:
    """Arrays one after the other in a temporary file or in memory."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._at: dict[str, tuple[int, int]] = {}

    def put(self, name: str, values: npt.NDArray[Any]) -> str:
        """Append an array's bytes and return their sha256."""
        found = hashlib.sha256()
        start = self._handle.seek(0, io.SEEK_END)
        flat = values.reshape(-1).view(np.uint8)
        for at in range(0, flat.size, CHUNK_BYTES):
            piece = flat[at : at + CHUNK_BYTES].tobytes()
            found.update(piece)
            try:
                self._handle.write(piece)
            except OSError as error:
                raise unwritable(error, name) from None
        self._at[name] = (start, flat.size)
        return found.hexdigest()

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an array."""
        start, size = self._at[name]
        for at in range(start, start + size, CHUNK_BYTES):
            self._handle.seek(at)
            yield self._handle.read(min(CHUNK_BYTES, start + size - at))


class Draft:
    """A trace in the making.

    Args:
        workload: the network; give every layer whose mask follows no rule the pattern ``traced``.
        inputs: shapes of the network's inputs, by name.
        facts: accuracy and whatever else is worth keeping, as plain JSON.
        provenance: made_by, date, source, license, versions.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        inputs: Mapping[str, tuple[int, ...]] | None = None,
        facts: Mapping[str, Any] | None = None,
        provenance: Provenance | Mapping[str, Any] | None = None,
        spool: IO[bytes] | None = None,
    ) -> None:
        self.workload = workload
        self._layers = {layer.name: layer for layer in workload}
        self._about = {"inputs": dict(inputs or {}), "facts": dict(facts or {})}
        made = provenance.model_dump() if isinstance(provenance, Provenance) else provenance
        self._about["provenance"] = dict(made or {})
        self._arrays: dict[str, Array] = {}
        self._steps = 0
        self._spool = Spool(spool if spool is not None else io.BytesIO())

    def mask(self, layer: Layer | str, mask: npt.ArrayLike) -> None:
        """Record which weights are kept: bool, (k, n), or (runs, k, n) where runs differ."""
        self._put_bits("mask", layer, mask)

    def weights(self, layer: Layer | str, values: npt.ArrayLike) -> None:
        """Record the weights: (k, n) or (runs, k, n), int8 … float32."""
        self._put("weights", layer, np.asarray(values))

    def activation_mask(self, layer: Layer | str, step: int, mask: npt.ArrayLike) -> None:
        """Record which inputs of a layer are not zero in a step (shapes: docs/traces.md)."""
        self._steps = max(self._steps, step + 1)
        self._put_bits(f"activations/{step}", layer, mask)

    def densities(self, layer: Layer | str, densities: npt.ArrayLike) -> None:
        """Record the share of non-zero inputs of a layer, one number a step."""
        values = np.asarray(densities, dtype=np.float64)
        self._steps = max(self._steps, values.size)
        self._put("density", layer, values)

    def extra(self, name: str, values: npt.ArrayLike) -> None:
        """Record an array that accsim gives no meaning."""
        array = np.asarray(values)
        self._record(f"extra/{name}", _type_of(array, tuple(TYPES), f"extra '{name}'"), array)

    def finish(self) -> Trace:
        """Return the trace; its arrays are read from the spool.

        Raises:
            InputError: a fact that is not JSON, a traced layer without a mask, steps that differ.
        """
        header = {
            "format": "accsim-trace", "version": 1, "steps": self._steps,
            "workload": self.workload.model_dump(mode="json"), **self._about,
            "arrays": {name: array.model_dump() for name, array in self._arrays.items()},
        }  # fmt: skip
        made = read_header(strict_json.dump(header), f"trace of {self.workload.name}")
        return Trace(made, self._spool)

    def _put_bits(self, kind: str, layer: Layer | str, mask: npt.ArrayLike) -> None:
        values = np.asarray(mask)
        if values.dtype != np.bool_:
            name = layer if isinstance(layer, str) else layer.name
            raise InputError(f"{kind} of '{name}' must be of type bool; got {values.dtype}")
        self._put(kind, layer, values)

    def _put(self, kind: str, layer: Layer | str, values: npt.NDArray[Any]) -> None:
        """Check an array against its layer and spool it."""
        name = layer if isinstance(layer, str) else layer.name
        found = self._layers.get(name) or self.workload.layer(name)
        prefix = kind.partition("/")[0]
        _, shapes = wanted(prefix, found, values.size)
        if values.shape not in shapes:
            known = " or ".join(str(list(shape)) for shape in shapes)
            raise InputError(
                f"{prefix} of '{found.name}' must have shape {known}; got {list(values.shape)}"
            )
        self._record(f"{kind}/{found.name}", _type_of(values, _types(prefix), found.name), values)

    def _record(self, name: str, kind: str, values: npt.NDArray[Any]) -> None:
        if name in self._arrays:
            raise InputError(f"array '{name}' was given twice")
        plain = np.ascontiguousarray(values)
        held = np.packbits(plain) if kind == BITS else plain.astype(numpy_type(kind), copy=False)
        self._arrays[name] = Array(
            type=kind, shape=values.shape, sha256=self._spool.put(name, held)
        )


def _types(prefix: str) -> tuple[str, ...]:
    return {"weights": VALUES, "density": ("F64",)}.get(prefix, (BITS,))


def _type_of(values: npt.NDArray[Any], allowed: tuple[str, ...], what: str) -> str:
    """Return the container's name of an array's type."""
    if values.dtype == np.bool_:
        return BITS
    names = {numpy_type(name): name for name in allowed if name not in (BITS, "BOOL")}
    kind = values.dtype.newbyteorder("<") if values.dtype.kind in "iuf" else values.dtype
    if kind not in names:
        raise InputError(
            f"'{what}' must be of type {one_of(str(x) for x in names)}; got {values.dtype}"
        )
    return names[kind]


def make_trace(
    workload: Workload,
    *,
    masks: Mapping[str, npt.ArrayLike] | None = None,
    weights: Mapping[str, npt.ArrayLike] | None = None,
    activations: Mapping[tuple[str, int], npt.ArrayLike] | None = None,
    densities: Mapping[str, npt.ArrayLike] | None = None,
    **about: Any,
) -> Trace:
    """Return a trace of arrays in memory, by layer name (activations: by layer and step).

    ``about``: the ``inputs``, ``facts`` and ``provenance`` of :class:`Draft`.

    Raises:
        InputError: a layer that is not there, or an array of the wrong shape or type.
    """
    draft = Draft(workload, **about)
    for name, mask in (masks or {}).items():
        draft.mask(name, mask)
    for name, values in (weights or {}).items():
        draft.weights(name, values)
    for (name, step), mask in (activations or {}).items():
        draft.activation_mask(name, step, mask)
    for name, shares in (densities or {}).items():
        draft.densities(name, shares)
    return draft.finish()


@contextmanager
def recording(path: str | Path, workload: Workload, **about: Any) -> Iterator[Draft]:
    """Write a trace array by array, in constant memory; the file appears at the end, whole.

    ``with recording("net.trace", net) as draft: draft.mask("conv1", mask)``. Arrays wait in a
    temporary file beside it. ``about``: as for :class:`Draft`.
    """
    with _temporary(path) as spool:
        draft = Draft(workload, spool=spool, **about)
        yield draft
        write_trace(path, draft.finish())


def _temporary(path: str | Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=Path(path).parent)
    except OSError as error:
        raise unwritable(error, path) from None
