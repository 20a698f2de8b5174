"""SCALE-Sim 3.0.0 compatibility: its own output, a fold-by-fold twin, and a few laws."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accsim.devices import scalesim

HERE = Path(__file__).parent
TOPOLOGIES = HERE.parent / "data" / "topologies" / "scalesim"
FLOWS = ("ws", "os", "is")


def read_goldens() -> list[dict[str, str]]:
    lines = (HERE / "data" / "scalesim_v3_goldens.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


GOLDENS = read_goldens()


def inputs(row: dict[str, str]) -> tuple[Any, ...]:
    sizes = [int(row[key]) for key in ("t", "k", "n", "rows", "cols")]
    pattern = [int(row[key] or 1) for key in ("pattern_n", "pattern_m")]
    return (*sizes, row["dataflow"], *pattern)


def golden_id(row: dict[str, str]) -> str:
    return "-".join(str(value) for value in inputs(row))


def test_goldens_cover_what_they_should() -> None:
    assert len(GOLDENS) > 100
    for flow in FLOWS:
        rows = [row for row in GOLDENS if row["dataflow"] == flow]
        assert any(row["pattern_n"] for row in rows)
        assert any(row["rows"] > row["cols"] for row in rows)
        assert any(row["filter_height"] == "3" for row in rows)


@pytest.mark.parametrize("row", GOLDENS, ids=golden_id)
def test_cycles_are_its_own(row: dict[str, str]) -> None:
    assert int(scalesim.cycles(*inputs(row))) == int(row["total_cycles"])


@pytest.mark.parametrize("row", GOLDENS, ids=golden_id)
def test_utilisations_are_its_own_to_the_last_bit(row: dict[str, str]) -> None:
    ours = scalesim.utilisations(*inputs(row))
    assert float(ours.overall) == float(row["overall_util_pct"])
    assert float(ours.mapping_efficiency) == float(row["mapping_efficiency_pct"])
    assert float(ours.compute) == float(row["compute_util_pct"])


@pytest.mark.parametrize("row", GOLDENS, ids=golden_id)
def test_sram_counts_are_its_own(row: dict[str, str]) -> None:
    ours = scalesim.sram_counts(*inputs(row))
    assert float(ours.ifmap_reads) == float(row["ifmap_reads"])
    assert int(ours.filter_reads) == int(row["filter_reads"])
    assert int(ours.ofmap_writes) == int(row["ofmap_writes"])
    assert int(ours.psum_reads) == 0


@pytest.mark.parametrize("row", GOLDENS, ids=golden_id)
def test_its_convolution_rounds_the_output_up(row: dict[str, str]) -> None:
    """t, k and n of the goldens are SCALE-Sim's own lowering: ⌈(H − F + S)/S⌉ outputs a side."""
    get = {key: int(row[key]) for key in row if key in SHAPE}
    s = get["stride"]
    high = -(-(get["ifmap_height"] - get["filter_height"] + s) // s)
    wide = -(-(get["ifmap_width"] - get["filter_width"] + s) // s)
    assert int(row["t"]) == high * wide
    assert int(row["k"]) == get["filter_height"] * get["filter_width"] * get["channels"]


SHAPE = (
    *("ifmap_height", "ifmap_width", "filter_height", "filter_width"),
    *("channels", "filters", "stride"),
)


# Totals measured elsewhere (shared facts, systolic_abft.md), on 32 by 32.
@pytest.mark.parametrize(("flow", "total"), [("os", 352_781), ("ws", 397_875), ("is", 380_249)])
def test_vit_s_totals(flow: str, total: int) -> None:
    t, k, n = np.array(read_shapes(TOPOLOGIES / "vit_s.csv")).T
    assert int(scalesim.cycles(t, k, n, 32, 32, flow).sum()) == total


def test_alexnet_conv1() -> None:
    assert read_shapes(TOPOLOGIES / "alexnet.csv")[0] == (55 * 55, 363, 96)
    assert int(scalesim.cycles(55 * 55, 363, 96, 32, 32, "ws")) == 112_283


def read_shapes(path: Path) -> list[tuple[int, int, int]]:
    """Read (t, k, n) of each line SCALE-Sim would accept; a reader of its own, on purpose."""
    shapes = []
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.split(",")[1:]]
        numbers = [int(cell) for cell in cells if cell.isdigit()]
        if len(numbers) == 3:
            m, n, k = numbers
            shapes.append((m, k, n))
        elif len(numbers) >= 7 and all(cell.isdigit() for cell in cells[:7]):
            high, wide, fh, fw, channels, filters, s = numbers[:7]
            outputs = -(-(high - fh + s) // s) * -(-(wide - fw + s) // s)
            shapes.append((outputs, fh * fw * channels, filters))
    return shapes


def twin(t: int, k: int, n: int, rows: int, cols: int, flow: str) -> dict[str, float]:
    """Count one fold after the other, the slow obvious way."""
    down, across, stream = {"ws": (k, n, t), "is": (k, t, n), "os": (t, n, k)}[flow]
    total = row_operand = col_operand = stationary = outputs = 0
    mapping = compute = 0.0
    for c0 in range(0, across, cols):
        for r0 in range(0, down, rows):
            r, c = min(rows, down - r0), min(cols, across - c0)
            load = 0 if flow == "os" else rows
            # The last of `stream` values enters row `rows` and crosses `cols` columns.
            span = load + (stream - 1) + (rows - 1) + (cols - 1) + 1
            total += span
            row_operand += r * stream
            col_operand += c * stream
            stationary += r * c
            outputs += r * c + rows + cols if flow == "os" else c * stream
            mapping += r * c / (rows * cols)
            slack = 0 if flow == "os" else cols - 1
            compute += r * c * stream / (rows * cols * (span + slack))
    folds = -(-across // cols) * -(-down // rows)
    reads = {
        "ws": (row_operand, stationary),
        "is": (stationary, row_operand),
        "os": (row_operand, col_operand),
    }[flow]
    return {
        "cycles": total - 1,
        "ifmap_reads": reads[0],
        "filter_reads": reads[1],
        "ofmap_writes": outputs,
        "mapping": mapping / folds * 100,
        "compute": compute / folds * 100,
    }


def assert_same_as_twin(t: int, k: int, n: int, rows: int, cols: int, flow: str) -> None:
    slow = twin(t, k, n, rows, cols, flow)
    counts = scalesim.sram_counts(t, k, n, rows, cols, flow)
    used = scalesim.utilisations(t, k, n, rows, cols, flow)
    assert {
        "cycles": int(scalesim.cycles(t, k, n, rows, cols, flow)),
        "ifmap_reads": int(counts.ifmap_reads),
        "filter_reads": int(counts.filter_reads),
        "ofmap_writes": int(counts.ofmap_writes),
        "mapping": float(used.mapping_efficiency),
        "compute": float(used.compute),
    } == slow


ARRAYS = [(8, 8), (16, 32), (64, 16), (128, 128), (256, 256)]
# A fold costs the twin a microsecond: only the largest layers skip the smallest arrays.
MOST_FOLDS = 30_000


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.csv")), ids=lambda path: path.stem)
def test_every_topology_equals_the_twin(path: Path, flow: str) -> None:
    met = 0
    shapes = sorted(set(read_shapes(path)))
    for t, k, n in shapes:
        down, across = {"ws": (k, n), "is": (k, t), "os": (t, n)}[flow]
        for rows, cols in ARRAYS:
            if -(-down // rows) * -(-across // cols) <= MOST_FOLDS:
                assert_same_as_twin(t, k, n, rows, cols, flow)
                met += 1
    assert met >= len(shapes)


extents = st.integers(1, 60)
sizes = st.integers(1, 20)


@given(t=extents, k=extents, n=extents, rows=sizes, cols=sizes, flow=st.sampled_from(FLOWS))
def test_random_products_equal_the_twin(
    t: int, k: int, n: int, rows: int, cols: int, flow: str
) -> None:
    if (t, k, n, rows, cols, flow) != (1, 1, 1, 1, 1, "os"):  # 0 cycles: it divides by zero
        assert_same_as_twin(t, k, n, rows, cols, flow)


@given(k=st.integers(1, 200), m=st.integers(1, 16), n=st.integers(1, 16))
def test_sparse_k_counts_kept_rows(k: int, m: int, n: int) -> None:
    n = min(n, m)
    assert int(scalesim.sparse_k(k, n, m)) == sum(row % m < n for row in range(k))


@pytest.mark.parametrize("flow", FLOWS)
def test_arrays_give_what_scalars_give(flow: str) -> None:
    t, k, n = np.array([[3], [40]]), np.array([7, 64, 130]), 9
    rows, cols = np.array([4, 8, 16]), 8
    whole = (
        scalesim.cycles(t, k, n, rows, cols, flow, 2, 4),
        *scalesim.utilisations(t, k, n, rows, cols, flow, 2, 4),
        *scalesim.sram_counts(t, k, n, rows, cols, flow, 2, 4),
    )
    for i in (0, 1):
        for j in (0, 1, 2):
            one = (int(t[i, 0]), int(k[j]), n, int(rows[j]), cols, flow, 2, 4)
            single = (
                scalesim.cycles(*one),
                *scalesim.utilisations(*one),
                *scalesim.sram_counts(*one),
            )
            assert [array[i, j] for array in whole] == [array.item() for array in single]


def test_types() -> None:
    assert scalesim.cycles([4], 4, 4, 4, 4, "ws").dtype == np.int64
    counts = scalesim.sram_counts([4], 4, 4, 4, 4, "os")
    assert [array.dtype for array in counts] == [np.float64, np.int64, np.int64, np.int64]
    assert all(a.dtype == np.float64 for a in scalesim.utilisations([4], 4, 4, 4, 4, "is"))


@pytest.mark.parametrize("flow", FLOWS)
def test_beyond_what_it_can_sum_the_exact_mean(flow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways to average agree to rounding, so nothing jumps at the limit."""
    case = (100, 130, 77, 4, 6, flow, 3, 8)
    summed = [*scalesim.utilisations(*case), *scalesim.sram_counts(*case)]
    monkeypatch.setattr(scalesim, "MAX_SUMMED_FOLDS", 1)
    exact = [*scalesim.utilisations(*case), *scalesim.sram_counts(*case)]
    np.testing.assert_allclose(np.array(exact), np.array(summed), rtol=1e-12)


def test_huge_products_do_not_wrap() -> None:
    huge = scalesim.utilisations(10**8, 10**8, 10**4, 256, 256, "os")
    assert 0 < float(huge.overall) < 100
    assert 0 < float(huge.compute) < 100


def test_zero_cycles_is_infinite_where_it_stops() -> None:
    assert int(scalesim.cycles(1, 1, 1, 1, 1, "os")) == 0
    assert np.isinf(scalesim.utilisations(1, 1, 1, 1, 1, "os").overall)
