"""The command line as a user meets it: the first five minutes, and the likely mistakes."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import accsim
from accsim.cli import main
from accsim.traces.load import shipped

TOPOLOGIES = Path(__file__).parent.parent / "data" / "topologies" / "scalesim"


def call(*words, capsys, expect=0):
    """Run the command line in this process; return (stdout, stderr)."""
    code = 0
    try:
        main([str(w) for w in words])
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    assert code == expect, (code, out, err)
    return out, err


@pytest.fixture
def ok(capsys):
    return lambda *words: call(*words, capsys=capsys)[0]


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused; return its one line."""

    def run(*words):
        out, err = call(*words, expect=2, capsys=capsys)
        assert out == ""
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("accsim: error: ")
        return lines[0].removeprefix("accsim: error: ")

    return run


def test_first_command_prints_layers_and_totals_and_writes_everything(ok, tmp_path):
    out = ok("run", "resnet50", "--hw", "systolic_nm_32x32", "--pattern", "2:4", "--out", tmp_path,
             "--all-layers")  # fmt: skip
    net = accsim.load_workload("resnet50").prune("2:4")
    result = accsim.simulate(net, accsim.load_hardware("systolic_nm_32x32"))
    for layer in net.layers:
        assert layer.name in out
    assert f"{result.cycles:,}" in out
    for word in ("latency", "energy", "DRAM", "TOPS", "utilisation", "cmos_22nm"):
        assert word in out
    with (tmp_path / "layers.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["cycles"]) for row in rows] == result.columns["cycles"]
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["totals"]["cycles"] == result.cycles
    assert run["provenance"]["config_sha256"] == result.provenance["config_sha256"]
    assert run["configuration"]["hardware"]["array"]["rows"] == 32
    assert run["provenance"]["hardware_sources"]["array.rows"]["source"]
    for name in ("cycles.png", "cycles.svg", "roofline.png", "roofline.svg", "layers.json"):
        assert (tmp_path / name).stat().st_size > 1000


def test_same_command_writes_same_bytes(ok, tmp_path):
    for name in ("a", "b"):
        ok(
            "run",
            "alexnet",
            "--hw",
            "systolic_nm_32x32",
            "--pattern",
            "2:4",
            "--out",
            tmp_path / name,
        )
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) >= 7
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_json_is_json(ok):
    data = json.loads(ok("run", "gemm:256x256x128", "--hw", "systolic_ws_32x32", "--json"))
    direct = accsim.simulate(accsim.gemm(256, 256, 128), accsim.load_hardware("systolic_ws_32x32"))
    assert data["totals"]["cycles"] == direct.cycles
    assert data["layers"]["cycles"] == [direct.cycles]


def test_one_layer_at_register_level_equals_closed_form(ok):
    words = ("run", "resnet50:layer4.0.downsample.0", "--hw", "systolic_nm_16x16",
             "--pattern", "2:4", "--json")  # fmt: skip
    closed = json.loads(ok(*words))["totals"]["cycles"]
    assert json.loads(ok(*words, "--level", "register"))["totals"]["cycles"] == closed
    assert json.loads(ok(*words, "--level", "events"))["totals"]["cycles"] == closed


def test_topology_in_scalesim_timing(ok):
    data = json.loads(ok("run", TOPOLOGIES / "alexnet.csv", "--hw", "systolic_ws_32x32",
                         "--set", "timing=scalesim_v3", "--json"))  # fmt: skip
    assert data["layers"]["cycles"][0] == 112283


def test_quiet_prints_nothing(ok):
    assert ok("run", "alexnet", "--hw", "systolic_ws_32x32", "-q") == ""


def test_show_lists_have_one_line_each(ok):
    hardware = ok("show", "hw").splitlines()
    assert any(line.startswith("systolic_nm_32x32 ") for line in hardware)
    assert all(len(line.split(None, 1)) == 2 for line in hardware)
    assert len(ok("show", "workloads").splitlines()) == 14 + len(shipped())
    patterns = ok("show", "patterns")
    for grammar in ("n:m (2:4)", "unstructured[:format]@s", "V:n:m", "bsr:B@s", "hss:", "dense"):
        assert grammar in patterns


def test_show_hw_prints_every_number_with_unit_and_source(ok):
    name = "systolic_nm_32x32"
    numbers, levels = ok("show", "hw", name).split("\n\n")
    lines = {line.split()[0]: line for line in numbers.splitlines()}
    shown = [line.split()[0] for line in levels.splitlines()]
    assert shown == ["level", "register", "sram.x", "sram.w", "sram.y", "dram"]
    for path, source in accsim.load_hardware(name).sources.items():
        assert source.source in lines[path]
        assert f"[{source.status}]" in lines[path]
        assert source.unit in lines[path]


def test_show_area_prints_parts_and_what_a_checker_adds(ok):
    text = ok("show", "area", "systolic_ws_32x32", "--checker", "column")
    assert "adds 2.9" in text
    rows = {line.split("  ")[0]: line.split()[-5:] for line in text.splitlines() if "%" in line}
    parts = ("skew", "sram_x", "sram_w", "sram_y", "checker", "pe")
    total = float(rows["total"][1])
    assert total == pytest.approx(sum(float(rows[part][1]) for part in parts), abs=5e-4)


def test_show_workload_names_layers_and_sources(ok):
    out = ok("show", "workloads", "resnet50")
    assert "layer3.0.conv2" in out
    assert "1512.03385" in out


def test_help_everywhere_has_an_example():
    runner = CliRunner()
    from accsim.cli import app

    def walk(command, words):
        text = runner.invoke(app, [*words, "--help"]).output
        if not hasattr(command, "commands"):
            assert "accsim " in text.split("\n", 2)[2], words
            return 1
        return sum(walk(sub, [*words, name]) for name, sub in command.commands.items())

    assert walk(app, []) >= 5


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "dataflow=rs"], "dataflow: must be one of ws, os, is; got 'rs'"),
        (["--set", "dataflow=WS"], "got 'WS', did you mean 'ws'?"),
        (["--set", "array.colz=8"], "unknown key 'colz' in 'array', did you mean 'cols'?"),
        (["--set", "array.rows=-4"], "array.rows: must be greater than or equal to 1; got -4"),
        (["--set", "array.rows=many"], "array.rows"),
        (["--set", "array.rows"], "--set needs KEY=VALUE"),
        (["--set", "timing=exact"], "timing: must be one of physical, scalesim_v3, compiled"),
        (["--set", "clock_ghz=2 kg"], "clock_ghz: must be in MHz, GHz; got '2 kg'"),
        (
            ["--set", "memory.sram.w.bytes=64"],
            "memory.sram.w.bytes of 'systolic_ws_32x32' must hold",
        ),
        (["--pattern", "2:5x"], "pattern must be one of those `accsim show patterns` lists"),
        (["--pattern", "5:4"], "pattern n:m needs 1 <= n <= m"),
        (["--pattern", "unstructured@1.5"], "unstructured@s needs 0 <= s < 1"),
        (["--level", "exact"], "level must be one of closed, events, register"),
        (["--batch", "0"], "batch must be a whole number from 1"),
        (["--batch", "two"], "--batch"),
        (["--dtype", "int7"], "dtype must be one of int8"),
        (["--layers", "conv9"], "no layer of 'alexnet' matches 'conv9', did you mean"),
        (["--skip", "conv1"], "--skip needs --pattern"),
        (["--hww", "x"], "--hww"),
    ],
)
def test_options_that_are_wrong(refused, words, says):
    assert says in refused("run", "alexnet", "--hw", "systolic_ws_32x32", *words)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("resnet5", "no workload called 'resnet5', did you mean 'resnet50'?"),
        ("missing/net.yaml", "missing/net.yaml: no such file"),
        ("gemm:1000000000x1000000000x1000000000", "from 1 to 100000000; got 1000000000"),
        ("gemm:100000000x100000000x100000000", "operands of at most 1e+12 elements"),
        ("gemm:4x4", "a GEMM is written gemm:TxKxN"),
        ("gemm:0x4x4", "t must be a whole number from 1"),
        ("resnet50:layer9", "no layer of 'resnet50' matches 'layer9'"),
    ],
)
def test_workloads_that_are_not(refused, word, says):
    assert says in refused("run", word, "--hw", "systolic_ws_32x32")


FILES = {
    "empty.csv": (b"", "must not be empty"),
    "header.csv": (b"Layer, M, N, K,\n", "no layers"),
    "latin.csv": (b"Layer, M, N, K,\ncaf\xe9, 1, 1, 1,\n", "must be UTF-8 text; got byte 0xe9"),
    "negative.csv": (b"Layer, M, N, K,\na, -1, 4, 4,\n", ":2: M must be a whole number from 1"),
    "absurd.csv": (b"Layer, M, N, K,\na, 1000000000, 1000000000, 4,\n", "to 100000000; got"),
    "empty.yaml": (b"", "must not be empty"),
    "list.yaml": (b"- a\n", "must be a mapping"),
    "broken.yaml": (b"layers: [\n", "not valid YAML"),
    "tag.yaml": (b"layers: !!python/object/apply:os.system ['true']\n", "tags are not accepted"),
    "bomb.yaml": (
        b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b]\n",
        "bomb.yaml:1: anchors and aliases",
    ),
    "deep.yaml": (b"layers: " + b"[" * 100 + b"]" * 100, "must nest at most"),
    "none.yaml": (b"name: x\n", "layers must be a list of at least one layer"),
    "unknown.yaml": (
        b"layers:\n  - name: a\n    lineer: {in_features: 4, out_features: 4}\n",
        "unknown key 'lineer', did you mean 'linear'?",
    ),
    "key.yaml": (
        b"layers:\n  - name: a\n    linear:\n      in_features: 4\n      out_features: 4\n"
        b"      tokenz: 4\n",
        "key.yaml:6: linear: unknown key 'tokenz', did you mean 'tokens'?",
    ),
    "size.yaml": (
        b"layers:\n  - name: a\n    linear: {in_features: 4,\n      out_features: 0}\n",
        "size.yaml:4: linear: out_features: must be greater than or equal to 1; got 0",
    ),
    "twice.yaml": (
        b"layers:\n  - {name: a, matmul: {t: 1, k: 1, n: 1}}\n"
        b"  - {name: a, matmul: {t: 1, k: 1, n: 1}}\n",
        "layer names must be unique; 'a' stands twice",
    ),
    "kernel.yaml": (
        b"layers:\n  - name: a\n    conv2d: {in_channels: 1, out_channels: 1, size: 4, kernel: 7}"
        b"\n",
        "kernel.yaml:3: conv2d: the kernel (7 with dilation) must fit",
    ),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_that_are_wrong(refused, tmp_path, name):
    content, says = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    line = refused("run", path, "--hw", "systolic_ws_32x32")
    assert name in line
    assert says in line


def test_several_mistakes_in_one_file_are_all_named(tmp_path, capsys):
    path = tmp_path / "hw.yaml"
    path.write_text(
        "extends: systolic_ws_32x32\narray:\n  source: x\n  rowz: 3\n  cols: -1\ndataflow: rs\n"
    )
    _, err = call("run", "alexnet", "--hw", path, expect=2, capsys=capsys)
    assert f"{path}:4: unknown key 'rowz' in 'array', did you mean 'rows'?" in err
    assert f"{path}:5: array.cols: must be greater than or equal to 1; got -1" in err
    assert f"{path}:6: dataflow: must be one of ws, os, is; got 'rs'" in err
    assert "Traceback" not in err


def test_a_layer_named_endpoint_stays_one_layer(ok, tmp_path):
    path = tmp_path / "net.csv"
    header = (TOPOLOGIES / "alexnet.csv").read_text().splitlines()[0]
    path.write_text(f"{header}\nENDPOINT, 8, 8, 3, 3, 64, 4, 1,\n")
    data = json.loads(ok("run", path, "--hw", "systolic_ws_32x32", "--json"))
    assert data["layers"]["layer"] == ["ENDPOINT"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_folder_without_permission(refused, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    assert "cannot write results" in refused(
        "run", "alexnet", "--hw", "systolic_ws_32x32", "--out", folder
    )


def test_out_that_is_a_file_or_cannot_exist(refused, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert f"{file}: cannot write results" in refused(
        "run", "alexnet", "--hw", "systolic_ws_32x32", "--out", file
    )
    assert file.read_text() == "mine"
    assert "cannot write results" in refused(
        "run", "alexnet", "--hw", "systolic_ws_32x32", "--out", "/proc/nope"
    )


def test_import_of_accsim_and_help_load_nothing_heavy():
    code = (
        "import sys, accsim.cli\n"
        "accsim.cli.app(['--help'], standalone_mode=False)\n"
        "names = {'numpy', 'pandas', 'matplotlib', 'numba', 'simpy', 'pydantic', 'rich'}\n"
        "heavy = names & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_closed_form_run_needs_neither_numba_nor_pandas_nor_matplotlib():
    code = (
        "import sys, accsim.cli\n"
        "try: accsim.cli.main(['run','alexnet','--hw','systolic_nm_32x32','--pattern','2:4'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pandas','matplotlib','numba','simpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_timeline_of_a_run(ok, refused, tmp_path):
    words = ("run", "alexnet", "--hw", "systolic_nm_32x32", "--pattern", "2:4")
    assert "slices of 8 layers" in ok(*words, "--timeline", tmp_path / "run.json")
    trace = json.loads((tmp_path / "run.json").read_text())
    assert any(event.get("name") == "conv2" for event in trace["traceEvents"])
    ok(*words, "--timeline", tmp_path / "run.pftrace", "-q")
    assert (tmp_path / "run.pftrace").stat().st_size > 10_000
    assert "run.txt" in refused(*words, "--timeline", tmp_path / "run.txt")
