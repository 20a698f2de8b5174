"""hwconfigs/dram/*.yaml → a DRAM part, written as hardware files are; and parts out of LiteDRAM."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accsim.base.errors import InputError, near, one_of
from accsim.files import catalogue
from accsim.files.sourced import load_tree, taken_apart
from accsim.files.validate import build
from accsim.spec.dram import DramPart


def dram_parts() -> list[str]:
    """Return the names of the shipped parts."""
    return catalogue.names("hwconfigs", "dram")


def load_dram(name: str | Path, overrides: Mapping[str, Any] | None = None) -> DramPart:
    """Return the DRAM part of a catalogue name or a YAML path.

    Args:
        name: ``"ddr4_3200"`` or ``"my/dram.yaml"``.
        overrides: dotted keys to values, e.g. ``{"channels": 2, "timings.trfc_ns": 550}``.

    Raises:
        InputError: no such name, or a file or override that breaks a rule.

    >>> load_dram("ddr4_3200").peak_gb_per_s
    25.6
    """
    tree = load_tree(name, overrides, "dram", "name")
    return build(DramPart, taken_apart(tree), tree)


def litedram_modules() -> list[str]:
    """Return the names of LiteDRAM's DDR4 chips and DIMMs; InputError if it is not installed."""
    modules = _litedram()
    return sorted(
        name
        for name, cls in vars(modules).items()
        if isinstance(cls, type)
        and issubclass(cls, modules.SDRAMModule)
        and cls.__dict__.get("nbanks", getattr(cls, "nbanks", None))
        and getattr(cls, "memtype", "") == "DDR4"
    )


def from_litedram(
    module: str, mt_per_s: int | None = None, *, base: str | Path | None = None
) -> DramPart:
    """Return a 64-bit DDR4 channel with the geometry and timings of a LiteDRAM module.

    What its tables lack (tCL, tCWL, tRTP, the short tWTR, the command bus, the controller) comes
    from ``base``, by default the shipped part of the nearest rate; every number says which.

    Args:
        module: a DDR4 class of ``litedram.modules``, e.g. ``"MT40A1G8"``.
        mt_per_s: one of its speed grades; None for its default.
        base: name or path of the part to take the rest from.

    Raises:
        InputError: LiteDRAM is not installed, or has no such module or speed grade.
    """
    names = litedram_modules()
    if module not in names:
        hint = near(module, names) or f"; there are {one_of(names)}"
        raise InputError(f"litedram: no DDR4 module called '{module}'{hint}")
    cls = getattr(_litedram(), module)
    grades = sorted(int(grade) for grade in cls.speedgrade_timings if grade != "default")
    if mt_per_s is None:
        default = cls.speedgrade_timings["default"]
        mt_per_s = next(g for g in grades if cls.speedgrade_timings[str(g)] is default)
    if mt_per_s not in grades:
        raise InputError(
            f"litedram: mt_per_s of {module} must be one of {one_of(map(str, grades))}; "
            f"got {mt_per_s}"
        )
    source = {
        "source": f"litedram {version('litedram')}, {module}, {mt_per_s}",
        "status": "published",
    }
    clock_ns = 2e3 / mt_per_s
    speed, technology = cls.speedgrade_timings[str(mt_per_s)], cls.technology_timings
    ccd_l = max(_least_ns(technology.tCCD, clock_ns), 5.0)
    given: dict[str, Any] = {
        "mt_per_s": mt_per_s,
        "bank_groups": cls.ngroups,
        "banks_per_group": cls.ngroupbanks,
        "row_bytes": cls.ncols * 8,
        "timings.trcd_ns": _least_ns(speed.tRCD, clock_ns),
        "timings.trp_ns": _least_ns(speed.tRP, clock_ns),
        "timings.tras_ns": _least_ns(speed.tRAS, clock_ns),
        "timings.twr_ns": _least_ns(speed.tWR, clock_ns),
        "timings.tfaw_ns": _least_ns(speed.tFAW, clock_ns),
        "timings.trfc_ns": _least_ns(speed.tRFC["1x"], clock_ns),
        "timings.trefi_ns": _least_ns(technology.tREFI["1x"], clock_ns),
        "timings.tccd_s_ns": 4 * clock_ns,
        "timings.tccd_l_ns": ccd_l,
        "timings.trrd_s_ns": 4 * clock_ns,
        "timings.trrd_l_ns": _least_ns(technology.tRRD, clock_ns),
        "timings.twtr_l_ns": _least_ns(technology.tWTR, clock_ns),
    }
    start = base or ("ddr4_3200" if mt_per_s >= 2800 else "ddr4_2400")
    own = {"name": f"{module.lower()}_{mt_per_s}", "title": f"DDR4-{mt_per_s}, LiteDRAM {module}"}
    overrides = {key: {"value": value, **source} for key, value in given.items()}
    return load_dram(start, {**own, **overrides})


def _litedram() -> Any:
    """Import LiteDRAM's tables, here so that nothing else depends on it."""
    try:
        from litedram import modules  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise InputError("litedram is not installed: pip install 'accsim[dram]'") from None
    return modules


def _least_ns(timing: Any, clock_ns: float) -> float:
    """Return the larger of LiteDRAM's (clocks, ns); a plain number is ns."""
    clocks, ns = timing if isinstance(timing, tuple) else (0, timing)
    return float(max((clocks or 0) * clock_ns, ns or 0))
