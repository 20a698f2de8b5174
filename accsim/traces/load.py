"""load_workload: a name, or a file of any format, by its suffix.

Formats register under the entry-point group ``accsim.formats``: the suffix without its dot, and a
function of a path that returns a Workload or a Trace. The built-in ones stand in ``READERS``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from accsim.base.errors import InputError, near
from accsim.files import catalogue
from accsim.files import workload as files
from accsim.spec.workload import Workload

GROUP = "accsim.formats"
READERS = {
    ".trace": "accsim.traces.trace:read_trace",
    ".smtx": "accsim.traces.matrix:read_matrix",
    ".mtx": "accsim.traces.matrix:read_matrix",
    ".npy": "accsim.traces.matrix:read_matrix",
    ".npz": "accsim.traces.matrix:read_matrix",
    ".onnx": "accsim.traces.capture.onnx_graph:read_onnx",
}


# Files that need to be told more than their path.
COMMANDS = {
    ".safetensors": "weights do not say what is computed with them",
    ".json": "a config describes a model that must be built and run",
    ".py": "a model must be built and run",
}


def load_workload(name: str | Path, batch: int | None = None, dtype: str | None = None) -> Workload:
    """Return the workload of a catalogue name or of a file.

    Args:
        name: ``"resnet50"``, ``"digits-cnn-2of4"``, ``"my/net.yaml"``, a SCALE-Sim
            ``"topology.csv"``, ``"net.trace"``, ``"net.onnx"``, or a matrix (``.smtx``, ``.mtx``,
            ``.npy``, ``.npz``): one linear layer of 256 tokens.
        batch: items processed together; the file's own value if None.
        dtype: number format of every layer; the file's own if None.

    Raises:
        InputError: no such name, or a file that breaks a rule.
    """
    traces = shipped()
    name = traces.get(str(name), name)
    bare = isinstance(name, str) and not Path(name).suffix
    unknown = bare and name not in catalogue.names("workloads")
    if unknown and (hint := near(str(name), traces)):
        raise InputError(f"no workload called '{name}'{hint}")
    reader = _reader(name)
    if reader is None:
        return files.load_workload(name, batch=batch, dtype=dtype)
    found: Any = reader(Path(name))
    if not isinstance(found, Workload):
        from accsim.traces.replay import replayed

        found = replayed(found)
    if dtype is not None:
        found = found.with_dtype(dtype)
    workload: Workload = found if batch is None else found.with_batch(batch)
    return workload


def shipped() -> dict[str, Path]:
    """Return the traces of the catalogue by name, sorted."""
    folder = catalogue.folder("workloads") / "traces"
    return {path.stem: path for path in sorted(folder.glob("*.trace"))}


def suffixes() -> list[str]:
    """Return the suffixes of all formats, those of ``files`` included."""
    others = {f".{point.name}" for point in entry_points(group=GROUP)}
    return sorted({".yaml", ".yml", ".csv", *READERS, *others})


def _reader(name: Any) -> Any:
    """Return the function that reads a file with this suffix; None for those of ``files``."""
    if not isinstance(name, str | Path):
        return None
    suffix = Path(name).suffix.lower()
    if not suffix or suffix in catalogue.SUFFIXES:
        return None
    if suffix in READERS:
        module, function = READERS[suffix].split(":")
        return getattr(import_module(module), function)
    for point in entry_points(group=GROUP):
        if f".{point.name}" == suffix:
            return point.load()
    if suffix in COMMANDS:
        raise InputError(
            f"{COMMANDS[suffix]}: make a trace of it, `accsim trace --help`", file=name
        )
    if Path(name).is_file():
        raise InputError(
            f"suffix must be one of {', '.join(suffixes())}; got '{suffix}'", file=name
        )
    return None
