"""Trace: recorded masks, weights and activations of a network, read when they are asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accsim.base.errors import InputError, near
from accsim.sparsity.nm import NM
from accsim.spec.pattern import DENSE, Pattern
from accsim.spec.workload import Layer, Workload
from accsim.traces.container import Store, open_container, write_container
from accsim.traces.header import BITS, Header, Provenance, digest, read_header
from accsim.traces.pattern import TRACED

if TYPE_CHECKING:
    import numpy.typing as npt

    BoolArray = npt.NDArray[np.bool_]
    Values = npt.NDArray[Any]

PIECE_ELEMENTS = 2**22


class Trace:
    """A network with what was recorded of it. Arrays are read when asked for, and checked then.

    Layers are named by their name or given as a :class:`Layer`. Made by :func:`read_trace`,
    :func:`accsim.traces.draft.make_trace` or :func:`accsim.traces.matrix.read_matrix`.
    """

    def __init__(self, header: Header, store: Store, file: str = "trace") -> None:
        self.header, self.file = header, file
        self._store = store
        self._layers = {layer.name: layer for layer in header.workload}
        self._sound: set[str] = set()  # names whose digest or pattern was checked

    @property
    def workload(self) -> Workload:
        """The network; a layer without a rule of its own has the pattern ``traced``."""
        return self.header.workload

    @property
    def facts(self) -> dict[str, Any]:
        """What else is known: accuracy, data set, thresholds; plain JSON."""
        return dict(self.header.facts)

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the network's inputs, by name."""
        return dict(self.header.inputs)

    @property
    def provenance(self) -> Provenance:
        """Who made the trace, when, from what, under which licence."""
        return self.header.provenance

    @property
    def steps(self) -> int:
        """How many steps (decoded tokens, denoising steps, inputs) activations were kept of."""
        return self.header.steps

    @cached_property
    def digest(self) -> str:
        """The sha256 that names the whole content."""
        return digest(self.header.text())

    def __repr__(self) -> str:
        return f"<Trace of {self.workload.name}: {len(self.header.arrays)} arrays, {self.file}>"

    def has(self, kind: str, layer: Layer | str) -> bool:
        """Return whether there is a ``mask``, ``weights`` or ``density`` of the layer."""
        return f"{kind}/{_name(layer)}" in self.header.arrays

    def weight_mask(self, layer: Layer | str) -> BoolArray | None:
        """Return which weights are kept: bool, (k, n) or (runs, k, n); None if nobody recorded it.

        Without a mask, but with weights, it is where these are not zero.

        Raises:
            InputError: no such layer, bytes that are not those written, or a mask that breaks the
                pattern its layer claims.
        """
        wanted = self._layer(layer)
        name = f"mask/{wanted.name}"
        if name in self.header.arrays:
            mask = self._bits(name)
        else:
            values = self.weights(wanted)
            if values is None:
                return None
            mask = np.asarray(values != 0, dtype=np.bool_)
        self._check_pattern(wanted, mask)
        return mask

    def weights(self, layer: Layer | str) -> Values | None:
        """Return the recorded weights in their own type, (k, n) or (runs, k, n); None if none.

        Raises:
            InputError: no such layer, bytes that are not those written, or values not finite.
        """
        name = f"weights/{self._layer(layer).name}"
        if name not in self.header.arrays:
            return None
        values = self._values(name)
        if values.dtype.kind not in "iu" and not np.isfinite(values).all():
            raise self._error(name, "must hold finite numbers")
        return values

    def activation_mask(self, layer: Layer | str, step: int) -> BoolArray | None:
        """Return which activations of a layer's input are not zero in one step; None if none.

        (batch, height, width, channels) for a convolution, (t, k) for other layers, with repeats
        in front where they differ.
        """
        name = f"activations/{step}/{self._layer(layer).name}"
        return self._bits(name) if name in self.header.arrays else None

    def activation_density(self, layer: Layer | str) -> npt.NDArray[np.float64] | None:
        """Return the share of non-zero inputs of a layer, one a step: recorded, or of its masks.

        None where neither the densities nor the masks of all steps are there.
        """
        name = f"density/{self._layer(layer).name}"
        if name in self.header.arrays:
            values = self._values(name)
            if not ((values >= 0) & (values <= 1)).all():
                raise self._error(name, "must hold densities from 0 to 1")
            return values
        found: list[float] = []
        for step in range(self.steps):
            mask = self.activation_mask(layer, step)
            if mask is None:
                return None
            found.append(float(mask.mean()))
        return np.array(found) if found else None

    def extra(self, name: str) -> Values:
        """Return an array ``extra/name``, which accsim itself gives no meaning."""
        known = [x.removeprefix("extra/") for x in self.header.arrays if x.startswith("extra/")]
        if name not in known:
            raise InputError(f"no extra array '{name}'{near(name, known)}", file=self.file)
        at = f"extra/{name}"
        return self._bits(at) if self.header.arrays[at].type == BITS else self._values(at)

    def check_patterns(self) -> None:
        """Refuse a mask that breaks the pattern its layer claims; reads those masks only."""
        for layer in self.workload:
            if layer.pattern not in (DENSE, TRACED) and layer.has_weights:
                self.weight_mask(layer)

    def verify(self) -> None:
        """Check every array: digests, patterns, values, and that what is pruned is zero.

        Raises:
            InputError: the first rule broken.
        """
        for name, array in self.header.arrays.items():
            if array.type == BITS:
                self._bits(name)
            else:
                for _ in self.chunks(name):
                    pass
        for layer in self.workload:
            if self.has("density", layer):
                self.activation_density(layer)
            if self.has("mask", layer) or self.has("weights", layer):
                self._check_weights(layer)

    def _check_weights(self, layer: Layer) -> None:
        """Refuse a weight that the mask prunes; runs that share a mask are checked one by one."""
        mask, values = self.weight_mask(layer), self.weights(layer)
        if mask is None or values is None:
            return
        apart = mask.ndim > values.ndim  # runs pruned apart cannot share weights
        if apart or ((values != 0) & ~mask).any():
            raise self._error(f"weights/{layer.name}", "must be zero where the mask prunes")

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an array as written; its digest is checked at the end."""
        expected = self.header.arrays[name].sha256
        found = hashlib.sha256()
        for piece in self._store.chunks(name):
            if name not in self._sound:
                found.update(piece)
            yield piece
        if name not in self._sound and found.hexdigest() != expected:
            raise self._error(name, "its bytes are not those written (sha256 differs)")
        self._sound.add(name)

    def _layer(self, layer: Layer | str) -> Layer:
        name = _name(layer)
        return self._layers.get(name) or self.workload.layer(name)

    def _read(self, name: str) -> bytes:
        return b"".join(self.chunks(name))

    def _bits(self, name: str) -> BoolArray:
        shape, raw = self.header.arrays[name].shape, self._read(name)
        count = math.prod(shape)
        if count % 8 and raw[-1] & (0xFF >> count % 8):
            raise self._error(name, "the bits after the last element must be 0")
        bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), count=count)
        return bits.view(np.bool_).reshape(shape)

    def _values(self, name: str) -> Values:
        array = self.header.arrays[name]
        return np.frombuffer(self._read(name), dtype=numpy_type(array.type)).reshape(array.shape)

    def _check_pattern(self, layer: Layer, mask: BoolArray) -> None:
        key = f"{layer.pattern} {layer.name}"
        if layer.pattern in (DENSE, TRACED) or key in self._sound:
            return
        for one in mask.reshape(-1, *mask.shape[-2:]):
            for start, part in _parts(layer.pattern, one):
                broken = layer.pattern.check(part)
                if broken:
                    place = f" (columns counted from {start})" if start else ""
                    raise InputError(
                        f"layer '{layer.name}': the mask is not {layer.pattern}: "
                        f"{broken[0]}{place}",
                        file=self.file,
                    )
        self._sound.add(key)

    def _error(self, name: str, rule: str) -> InputError:
        return InputError(f"array '{name}': {rule}", file=self.file)


def _name(layer: Layer | str) -> str:
    return layer if isinstance(layer, str) else layer.name


def _parts(pattern: Pattern, mask: BoolArray) -> Iterator[tuple[int, BoolArray]]:
    """Yield pieces to check: an n:m rule holds column by column, so few at a time will do."""
    k, n = mask.shape
    width = max(1, PIECE_ELEMENTS // k) if isinstance(pattern, NM) else n
    for start in range(0, n, width):
        yield start, mask[:, start : start + width]


def numpy_type(name: str) -> np.dtype[Any]:
    """Return the little-endian dtype of a type of the container."""
    if name in ("BF16", "F8_E4M3", "F8_E5M2"):
        import ml_dtypes

        word = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[name]
        small: np.dtype[Any] = np.dtype(getattr(ml_dtypes, word))
        return small
    if name == "BOOL":
        return np.dtype(np.bool_)
    return np.dtype(f"<{name[0].lower()}{int(name[1:]) // 8}")


def read_trace(path: str | Path) -> Trace:
    """Return the trace at ``path``; only its header is read.

    Raises:
        InputError: in one line, whatever is wrong with the file.
    """
    file = str(path)
    container = open_container(path)
    text = container.metadata.get("accsim")
    if text is None:
        raise InputError("header: __metadata__ must hold 'accsim' (not a trace)", file=file)
    if digest(_encodable(text, file)) != container.metadata.get("accsim_sha256"):
        raise InputError("header: accsim_sha256 is not the sha256 of its text", file=file)
    header = read_header(text, file)
    held = {name: array.held for name, array in header.arrays.items()}
    for name in sorted(held.keys() | container.spans.keys()):
        if name not in held or name not in container.spans:
            raise InputError(f"array {ascii(name)[:80]} must be in both headers", file=file)
        span = container.spans[name]
        if (span.type, span.shape) != held[name]:
            kind, shape = held[name]
            raise InputError(
                f"array '{name[:80]}' must be {kind} {[*shape]}; got {span.type} {[*span.shape]}",
                file=file,
            )
    return Trace(header, container, file)


def _encodable(text: str, file: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("header: strings must be UTF-8 text", file=file) from None
    return text


def write_trace(path: str | Path, trace: Trace) -> Path:
    """Write a trace, array by array; equal content gives equal bytes.

    Raises:
        InputError: the file cannot be written, or an array is not what the trace says.
    """
    header = trace.header
    text = header.text()
    arrays = {name: array.held for name, array in header.arrays.items()}
    metadata = {"accsim": text, "accsim_sha256": digest(text)}
    write_container(path, arrays, metadata, trace)
    return Path(path)
