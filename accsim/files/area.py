"""hwconfigs/area/*.yaml → an area table. Written, extended and overridden as hardware files are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accsim.files.sourced import load_tree, taken_apart
from accsim.files.validate import build
from accsim.spec.area import AreaTable


def load_area(name: str | Path, overrides: Mapping[str, Any] | None = None) -> AreaTable:
    """Return the area table of a catalogue name or a YAML path.

    Args:
        name: ``"cmos_22nm"`` or ``"my/area.yaml"``. Devices name their energy table; the area
            table of the same name is for the same node.
        overrides: dotted keys to values, e.g. ``{"placed_per_cell": 1.25}``.

    Raises:
        InputError: no such name, or a file or override that breaks a rule.

    >>> load_area("cmos_45nm").multiplier_um2(8, 8)
    282.0
    """
    tree = load_tree(name, overrides, "area", "table")
    return build(AreaTable, taken_apart(tree), tree)
