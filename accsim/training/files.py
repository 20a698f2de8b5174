"""A training as files: tables, JSON with configuration and provenance, the figure."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from accsim import __version__
from accsim.base.output import folder_to_write
from accsim.base.provenance import config_hash
from accsim.result import json_text
from accsim.training.over import SPANS, Training
from accsim.training.step import ROWS


def data(found: Training) -> dict[str, Any]:
    """Return all of it, JSON-ready."""
    step = found.sparsest
    return {
        "totals": found.totals,
        "spans": [span.row for span in found.spans],
        "step": {
            "by_pass": step.by_pass, "causes": step.causes, "dense_causes": step.dense.causes,
            "decomposition": step.decomposition, "energy_j": step.energy_parts,
            "rows": step.rows,
        },
        "notes": list(found.notes),
    }  # fmt: skip


def configuration(found: Training) -> dict[str, Any]:
    """Return everything that decided the answer."""
    step = found.sparsest
    return {
        "workload": step.workload.model_dump(mode="json", exclude={"layers": {"__all__": {
            "pattern"}}}),
        "hardware": step.device.model_dump(mode="json", exclude={"sources"}),
        "method": step.method.name, "schedule": str(found.schedule), "churn": found.churn,
        "steps_per_epoch": found.steps_per_epoch,
    }  # fmt: skip


def provenance(found: Training) -> dict[str, Any]:
    """Return version, configuration hash and the source of every number of the device."""
    device = found.sparsest.device
    return {
        "accsim": __version__,
        "config_sha256": config_hash(configuration(found)),
        "hardware_sources": {
            path: source.model_dump(mode="json", exclude_none=True)
            for path, source in device.sources.items()
        },
    }


def save(found: Training, folder: str | Path, *, plots: bool) -> list[Path]:
    """Write every file; return them."""
    with folder_to_write(folder) as path:
        files = list(_write(found, path))
        if plots:
            from accsim.report.training import save_figure

            files += save_figure(found, path)
    return files


def _write(found: Training, folder: Path) -> Iterator[Path]:
    step = found.sparsest
    yield _csv(folder / "training.csv", SPANS, (x.row.values() for x in found.spans))
    yield _csv(folder / "step.csv", ROWS, (row.values() for row in step.rows))
    shares = ((part, cycles, cycles / step.dense.cycles)
              for part, cycles in step.decomposition.items())  # fmt: skip
    yield _csv(folder / "decomposition.csv", ("part", "cycles", "of_dense_step"), shares)
    path = folder / "training.json"
    whole = {"columns": {"spans": SPANS, "rows": ROWS}, **data(found),
             "provenance": provenance(found), "configuration": configuration(found)}  # fmt: skip
    path.write_text(json_text(whole), encoding="utf-8")
    yield path


def _csv(path: Path, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(head)
        writer.writerows(rows)
    return path
