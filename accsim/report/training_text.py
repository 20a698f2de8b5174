"""A training in the terminal: the schedule, a step by part and by layer, the bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from accsim.report.text import human_bytes, percent, plain, shorten, si
from accsim.report.training import part_word

if TYPE_CHECKING:
    from accsim.training.over import Training
    from accsim.training.step import Step

MOST_LAYERS = 24  # beyond, only the slowest are printed
NAME_WIDTH = 28


def training_lines(found: Training) -> Iterator[str]:
    """Yield the answer."""
    step = found.sparsest
    yield (f"{plain(step.workload.name)} on {plain(step.device.name)}: {step.method.name}, "
           f"batch {step.batch}, {found.epochs} × {found.steps_per_epoch} steps")  # fmt: skip
    yield ""
    yield from _aligned(_spans(found), left=(0, 1))
    yield ""
    yield from _aligned(_parts(step), left=(0,))
    yield ""
    yield from _against_bound(step)
    yield ""
    yield from _layers(step)
    for note in found.notes:
        yield f"note: {plain(note)}"


def _spans(found: Training) -> list[list[str]]:
    cells = [["epochs", "step", "steps", "a step", "an epoch", "time", "energy"]]
    for span in found.spans:
        row = span.row
        cells.append([
            f"{span.first}-{span.end}", row["state"], str(span.steps), si(row["step_s"], "s"),
            _time(row["epoch_s"]), _time(row["seconds"]), _energy(row["joules"]),
        ])  # fmt: skip
    gain = found.dense_seconds / found.seconds
    whole = ["all", f"{gain:.2f}× dense", str(found.steps), "",
             _time(found.seconds / found.epochs), _time(found.seconds),
             _energy(found.joules)]  # fmt: skip
    return [*cells, whole]


def _parts(step: Step) -> list[list[str]]:
    cells = [[f"step, {step.state}", "cycles", "share", "dense step", "energy", "read", "written"]]
    dense = step.dense.by_pass
    for part, cycles in step.by_pass.items():
        load, store = step.bytes_by_pass[part]
        if cycles or dense[part]:
            cells.append([
                part.replace("_", " "), f"{cycles:,}", percent(cycles, step.cycles),
                f"{dense[part]:,}", si(step.energy_by_pass[part], "J"), human_bytes(load),
                human_bytes(store),
            ])  # fmt: skip
    cells.append(["all", f"{step.cycles:,}", "", f"{step.dense.cycles:,}", si(step.energy_j, "J"),
                  human_bytes(step.load_bytes), human_bytes(step.store_bytes)])  # fmt: skip
    return cells


def _against_bound(step: Step) -> Iterator[str]:
    yield (f"{step.speedup:.3f}× over a dense step, {100 * step.speedup / step.bound:.1f} % of the "
           f"bound {step.bound:.3f}× ({step.mac_bound:.3f}× by this network's MACs); "
           "of the dense step:")  # fmt: skip
    cells = []
    for part, cycles in step.decomposition.items():
        share = 100 * cycles / step.dense.cycles
        if part == "bound" or abs(share) >= 0.005:
            sign = "" if part == "bound" else "+"
            cells.append([f"  {part_word(part, step.bound)}", f"{share:{sign}.2f} %"])
    cells.append(["  this step", f"{100 * step.cycles / step.dense.cycles:.2f} %"])
    yield from _aligned(cells, left=(0,))


def _layers(step: Step) -> Iterator[str]:
    """Yield a line a layer and pass, the products only; the slowest where there are many."""
    rows = [row for row in step.rows if row["macs"]]
    least = 0
    if len(rows) > MOST_LAYERS:
        least = sorted((row["cycles"] for row in rows), reverse=True)[MOST_LAYERS - 1]
        yield f"the slowest {MOST_LAYERS} of {len(rows)} products of layers"
    cells = [["layer", "pass", "level", "flow", "cycles", "work", "padding", "fill", "memory",
              "cycles by dataflow"]]  # fmt: skip
    for row in rows:
        if row["cycles"] >= least:
            parts = ("work_cycles", "padding_cycles", "fill_drain_cycles", "dram_cycles")
            cells.append([
                shorten(plain(row["layer"]), NAME_WIDTH), row["pass"], row["level"], row["flow"],
                f"{row['cycles']:,}", *(percent(row[x], row["cycles"]) for x in parts), row["why"],
            ])  # fmt: skip
    yield from _aligned(cells, left=(0, 1, 2, 3, 9))


def _time(seconds: float) -> str:
    return f"{seconds / 3600:,.2f} h" if seconds >= 3600 else si(seconds, "s")


def _energy(joules: float) -> str:
    return f"{joules / 3.6e6:,.4g} kWh" if joules >= 3.6e5 else si(joules, "J")


def _aligned(cells: Sequence[Sequence[str]], left: Sequence[int]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        parts = [f"{x:<{w}}" if i in left else f"{x:>{w}}"
                 for i, (x, w) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join(parts).rstrip()
