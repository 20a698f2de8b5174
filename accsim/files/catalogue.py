"""Where the shipped workloads and hardware configs lie, and how a name finds its file."""

from __future__ import annotations

from pathlib import Path

from accsim.base.errors import InputError, near, one_of

_PACKAGE = Path(__file__).resolve().parent.parent
_CALLED = {
    "workloads": "workload", "hwconfigs": "hardware", "energy": "energy table",
    "area": "area table", "boards": "board", "dram": "DRAM part",
}  # fmt: skip
_SHOWN = {"workloads": "workloads", "hwconfigs": "hw"}
SUFFIXES = (".yaml", ".yml", ".csv", ".cfg")


def folder(kind: str) -> Path:
    """Return the folder of "workloads" or "hwconfigs": in the wheel, else the checkout."""
    inside = _PACKAGE / "_data" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def names(kind: str, sub: str = "") -> list[str]:
    """Return the catalogue's names of ``kind``, sorted."""
    return sorted(path.stem for path in (folder(kind) / sub).glob("*.yaml"))


def find(kind: str, name: str | Path, sub: str = "") -> Path:
    """Return the file a name or path stands for.

    A word without a folder or a known suffix is a catalogue name; anything else is a path.

    Raises:
        InputError: a name the catalogue does not have (with the near word).
    """
    if not isinstance(name, str | Path) or not str(name).strip():
        raise InputError(f"a name or a path must be a word; got {name!r}")
    path = Path(name)
    if isinstance(name, Path) or path.suffix.lower() in SUFFIXES or len(path.parts) != 1:
        return path
    known = names(kind, sub)
    if str(name) not in known:
        what = _CALLED.get(sub or kind, f"file of {sub}")
        command = f"; there are {one_of(known)}" if sub else f"; see `accsim show {_SHOWN[kind]}`"
        raise InputError(f"no {what} called '{name}'{near(str(name), known) or command}")
    return folder(kind) / sub / f"{name}.yaml"
