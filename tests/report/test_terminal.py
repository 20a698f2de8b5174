"""The terminal report: every number is there, no line too wide, names are taken literally."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

import accsim
from accsim.report.terminal import print_result
from accsim.report.text import each_layer, equal_layers, few_bars, merged_name, percent, si
from accsim.spec.workload import Layer, Workload

HARDWARE = "systolic_nm_32x32"
ONE = accsim.gemm(256, 256, 128)


MIXTRAL = "mixtral-8x7b-prefill"


def run(workload, **overrides):
    if isinstance(workload, str):
        workload = accsim.load_workload(workload).with_dtype("int8")
    return accsim.simulate(workload, accsim.load_hardware(HARDWARE, overrides))


def linear(name, tokens=1, features=8):
    op = {"kind": "linear", "tokens": tokens, "in_features": features, "out_features": features}
    return Layer.model_validate({"name": name, "op": op})


def printed(found, width=120, *, all_layers=False, stream=None):
    stream = stream or io.StringIO()
    print_result(found, Console(file=stream, width=width), all_layers=all_layers)
    return stream.getvalue() if isinstance(stream, io.StringIO) else ""


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("case", [ONE, "alexnet", "resnet50", MIXTRAL], ids=str)
def test_no_line_is_wider_than_the_console(case, width):
    for line in printed(run(case), width).splitlines():
        assert cell_len(line) <= width


def test_table_rows_are_one_line_each():
    lines = printed(run("resnet50"), 80, all_layers=True).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("layer "))
    table = lines[start : lines.index("", start)]
    assert len(table) == 1 + 54 + 1 + 1  # head, layers, total, what is not shown


@pytest.mark.parametrize("width", [40, 80, 200])
def test_cycles_of_all_layers_appear(width):
    found = run("resnet50")
    text = printed(found, width, all_layers=True)
    for cycles in found.columns["cycles"]:
        assert f"{cycles:,}" in text


@pytest.mark.parametrize("width", [80, 120, 200])
def test_totals_appear(width):
    found = run("alexnet")
    text = printed(found, width)
    assert f"{found.cycles:,} cycles" in text
    assert si(found.latency_s, "s") in text
    assert si(found.energy_j, "J") in text
    assert f"{found.effective_tops:.4g} of" in text
    assert percent(found.utilisation, 1) in text
    assert found.hardware.energy.table in text
    assert "cycles by cause" in text
    fc6 = found.columns["cycles"][found.columns["layer"].index("fc6")]
    assert f"fc6 {percent(fc6, found.cycles)}" in text
    for part, joules in found.energy_parts_j.items():
        assert not joules or re.search(rf"{part}s? \S+%", text, re.IGNORECASE)


def test_only_causes_that_occur_have_a_column():
    text = printed(run("alexnet"), 200)
    head = next(line for line in text.splitlines() if line.startswith("layer"))
    assert {"fill", "pad"} <= set(head.split())
    assert not {"imbal", "meta", "launch"} & set(head.split())


def test_equal_layers_share_a_line_and_add_up():
    found = run(MIXTRAL)
    text = printed(found, 200)
    row = next(
        line for line in text.splitlines() if line.startswith("model.layers.0…31.self_attn.q_proj ")
    )
    assert "×32" in row
    assert f"{32 * found.columns['cycles'][0]:,}" in row
    assert "×N: N equal layers" in text
    assert "model.layers.17.self_attn.q_proj" in printed(found, 200, all_layers=True)


def test_groups_hold_every_layer_once():
    columns = run(MIXTRAL).columns
    for groups in (each_layer(columns), equal_layers(columns), few_bars(columns, 20)[0]):
        rows = sorted(row for group in groups for row in group.rows)
        assert rows == list(range(len(columns["layer"])))


def test_different_cycles_are_never_merged():
    columns = dict(run(MIXTRAL).columns)
    columns["cycles"] = [*columns["cycles"][:-1], columns["cycles"][-1]]
    columns["cycles"][10] += 1
    names = [group.name for group in equal_layers(columns)]
    assert "model.layers.1.self_attn.q_proj" in names
    assert "model.layers.0,2…31.self_attn.q_proj" in names


def test_names_that_are_no_product_of_ranges_keep_both_ends():
    assert merged_name(["a.0.b.0", "a.0.b.1", "a.1.b.0"]) == "a.0.b.0 … a.1.b.0"
    assert merged_name(["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1"]) == "a.0,1.b.0,1"


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[link=http://x]y", ":smile:", "层[bold]"])
def test_names_are_printed_literally(name):
    layer = linear(name)
    found = run(Workload(name=name, layers=(layer,)))
    assert printed(found).count(name) == 2
    stream = io.StringIO()
    print_result(found, Console(file=stream, width=100, force_terminal=True))
    assert name in stream.getvalue()


def test_control_characters_do_not_reach_the_terminal():
    layer = linear("a\x1b[31m\rb\n")
    text = printed(run(Workload(name="w\x1b]0;t\x07", layers=(layer,))))
    assert not {"\x1b", "\r", "\x07"} & set(text)


def test_colours_only_on_a_terminal():
    assert "\x1b" not in printed(run("resnet50"))
    stream = io.StringIO()
    print_result(run("resnet50"), Console(file=stream, width=100, force_terminal=True))
    assert "\x1b" in stream.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_streams_of_old_encodings(encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    printed(run(MIXTRAL), 80, stream=stream)
    stream.flush()
    assert b"total" in raw.getvalue()


def test_scalesim_timing_without_stalls_or_dram():
    text = printed(run("alexnet", timing="scalesim_v3"))
    assert "scalesim_v3" in text
    assert "work 100%" in text


def test_import_is_light():
    code = (
        "import sys, io; from rich.console import Console; import accsim as a\n"
        "from accsim.report.terminal import print_result\n"
        "found = a.simulate(a.gemm(8, 8, 8), a.load_hardware(sys.argv[1]))\n"
        "print_result(found, Console(file=io.StringIO()))\n"
        "print(sorted({'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, HARDWARE], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
