"""SCALE-Sim's topology and configuration files: each loads, or is refused in one clear line."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.files.scalesim import CONV, GEMM, ignored_keys, read_cfg, read_topology
from accsim.spec.hardware import Systolic
from accsim.spec.workload import Conv2d, Linear, Workload

TOPOLOGIES = Path(__file__).parent.parent / "data" / "topologies" / "scalesim"
CONV_HEADER = ", ".join(CONV)
GEMM_HEADER = ",".join(GEMM)

# What SCALE-Sim 3.0.0's own reader (topology_utils.topologies) makes of each file it can read, run
# here on 2026-11-21: layers, Σ output pixels (t), Σ window (k), Σ filters (n).
ITS_READING = [
    ("DeepBench_DenseMatrixMultiplication.csv", 84, 244236, 3142540, 152068),
    ("Googlenet.csv", 58, 32625, 36503, 8280),
    ("NCF.csv", 12, 17152, 9409, 1666),
    ("Resnet18.csv", 21, 28459, 31635, 5800),
    ("alexnet.csv", 5, 3917, 11979, 1376),
    ("gnmt.csv", 17, 16384, 64484, 112008),
    ("gpt2.csv", 6, 6144, 8960, 12160),
    ("ispass25_vit_b.csv", 5, 980, 5848, 5272),
    ("ispass25_vit_bg.csv", 4, 1024, 5376, 5608),
    ("ispass25_vit_h.csv", 5, 2816, 8784, 7744),
    ("mlperf_Resnet50.csv", 54, 56593, 54931, 27560),
    ("mobilenet.csv", 27, 54788, 49627, 5997),
    ("mobilnet_paper.csv", 28, 54789, 6128, 6997),
    ("transformer_partial.csv", 6, 768, 6400, 3712),
    ("vit_l.csv", 5, 2156, 6992, 6160),
    ("vit_s.csv", 5, 980, 3544, 3352),
    ("yolo_tiny.csv", 9, 227612, 19339, 3169),
]
# The three it stops at with an IndexError: a line of commas, headings, a cell left empty.
IT_CANNOT = {"MLPERF.csv", "Resnet50.csv", "mlperf_Transformer.csv"}


@pytest.fixture
def read(tmp_path: Path):
    def write_and_read(content: str | bytes) -> Workload:
        path = tmp_path / "net.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_topology(path)

    return write_and_read


def conv(*rows: str, header: str = CONV_HEADER) -> str:
    return "\n".join([header, *rows])


def gemm(*rows: str, header: str = GEMM_HEADER) -> str:
    return "\n".join([header, *rows])


def shapes(workload: Workload) -> list[tuple[int, int, int]]:
    return [(layer.gemm.t, layer.gemm.k, layer.gemm.n) for layer in workload.layers]


# --- the files SCALE-Sim ships -------------------------------------------------------------------


def test_the_tables_name_every_file() -> None:
    named = {row[0] for row in ITS_READING} | IT_CANNOT
    assert named == {path.name for path in TOPOLOGIES.glob("*.csv")}


@pytest.mark.parametrize(("file", "layers", "t", "k", "n"), ITS_READING)
def test_reads_what_it_reads(file: str, layers: int, t: int, k: int, n: int) -> None:
    ours = shapes(read_topology(TOPOLOGIES / file))
    assert (len(ours), *(sum(column) for column in zip(*ours, strict=True))) == (layers, t, k, n)


def test_resnet50_is_the_same_net_twice() -> None:
    """Resnet50.csv (a line of commas, columns Eh, Ew, e2) holds what the mlperf one does."""
    ours, other = (
        read_topology(TOPOLOGIES / file) for file in ("Resnet50.csv", "mlperf_Resnet50.csv")
    )
    assert shapes(ours) == shapes(other)


def test_headings_go_in_front_of_names() -> None:
    net = read_topology(TOPOLOGIES / "mlperf_Transformer.csv")
    assert len(net.layers) == 891
    names = [layer.name for layer in net.layers]
    assert names[:2] == ["Transformer.Embedding", "Transformer.Attn_Xmap"]
    assert "Transformer.Attn_Xmap#2" in names


def test_mlperf_has_a_slip_and_says_where() -> None:
    path = TOPOLOGIES / "MLPERF.csv"
    with pytest.raises(InputError) as caught:
        read_topology(path)
    assert str(caught.value) == (
        f"{path}:219: Filter Width must be a whole number from 1 to 100000000; got nothing"
    )


def test_mobilenet_rows_stay_as_written() -> None:
    """Neither file says depthwise: one sums 32 channels in one filter, the other has 1 channel."""
    summed = read_topology(TOPOLOGIES / "mobilenet.csv").layers[1]
    single = read_topology(TOPOLOGIES / "mobilnet_paper.csv").layer("Conv2_dw")
    assert (summed.gemm.k, summed.gemm.n, summed.runs) == (9 * 32, 1, 1)
    assert (single.gemm.k, single.gemm.n, single.runs) == (9, 1, 1)


# --- how a row is read ---------------------------------------------------------------------------


def test_a_convolution(read) -> None:
    net = read(conv("Conv1, 224, 227, 11, 7, 3, 96, 4,"))
    op = net.layers[0].op
    assert op == Conv2d(
        in_channels=3, out_channels=96, size=(224, 227), kernel=(11, 7), stride=(4, 4),
        ceil_mode=True,
    )  # fmt: skip
    assert shapes(net) == [(55 * 56, 231, 96)]
    assert (net.name, net.layers[0].name, net.layers[0].dtype) == ("net", "Conv1", "int8")


def test_a_gemm_row_is_m_n_k(read) -> None:
    net = read(gemm("QKT,196,1176,64,"))
    assert net.layers[0].op == Linear(tokens=196, in_features=64, out_features=1176)


@pytest.mark.parametrize(
    "text",
    [
        "Layer,M,N,K\na,5,6,7",
        "Layer,M,N,K,\na,5,6,7,\n",
        "\ufeffLayer,M,N,K,\r\na,5,6,7,\r\n\r\n",
        "\n\nlayer name , m, n, k\n\n\ta , 5 ,6,\t7 ,,,\n,,,,\n",
        "L,M,N,K\ra,5,6,7\r",
        '# a comment, 1, 2\nLayer,M,N,K # not one\n"a",5,6,7,# old,8\n'.replace(" # not one", ""),
    ],
    ids=["bare", "commas", "bom-crlf", "blanks", "cr", "comments"],
)
def test_spellings_of_one_file(read, text: str) -> None:
    net = read(text)
    assert [layer.name for layer in net.layers] == ["a"]
    assert shapes(net) == [(5, 7, 6)]


def test_other_spellings_of_titles(read) -> None:
    header = "name,IFMAP_h,ifmapwidth,Filter-H,FILTER WIDTH,Num Channels,Filters,Stride Height"
    net = read(conv("a,9,8,3,2,5,7,2,1", header=f"{header},Stride Width"))
    assert net.layers[0].op == Conv2d(
        in_channels=5, out_channels=7, size=(9, 8), kernel=(3, 2), stride=(2, 1), ceil_mode=True
    )


@pytest.mark.parametrize("tail", ["2:4", "2:4,", " 2 : 4 ,"])
@pytest.mark.parametrize("header", [",Sparsity", ",Sparsity Ratio,", ",", ""])
def test_sparsity_with_and_without_a_title(read, header: str, tail: str) -> None:
    net = read(gemm(f"a,5,6,7,{tail}", "b,5,6,7,", header=GEMM_HEADER + header))
    assert [str(layer.pattern) for layer in net.layers] == ["2:4", "dense"]
    net = read(conv(f"a,5,5,3,3,8,8,1,{tail}", header=CONV_HEADER + header))
    assert str(net.layers[0].pattern) == "2:4"


def test_one_to_one_is_dense(read) -> None:
    assert str(read(gemm("a,5,6,7,1:1,")).layers[0].pattern) == "dense"


def test_repeated_names(read) -> None:
    net = read(gemm("a,1,1,1", "a,1,1,2", "a#2,1,1,3", "a,1,1,4", "S,", "a,1,1,5"))
    assert [layer.name for layer in net.layers] == ["a", "a#3", "a#2", "a#4", "S.a"]


@pytest.mark.parametrize("name", ["Conv2_DP", "DP", "DP_1", "block 3 DP"])
def test_dp_alone_is_depthwise(read, name: str) -> None:
    layer = read(conv(f"{name}, 8, 8, 3, 3, 32, 1, 1,")).layers[0]
    assert (layer.gemm.t, layer.gemm.k, layer.gemm.n, layer.runs) == (36, 9, 1, 32)


@pytest.mark.parametrize("name", ["ENDPOINT", "conv2DP", "DPX", "conv_dp", "Conv2_dw"])
def test_dp_inside_a_word_is_not(read, name: str) -> None:
    """SCALE-Sim makes 64 layers of one channel of each of the first three."""
    layer = read(conv(f"{name}, 8, 8, 3, 3, 64, 2, 1,")).layers[0]
    assert (layer.gemm.t, layer.gemm.k, layer.gemm.n, layer.runs) == (36, 576, 2, 1)


names = st.text("abcXYZ_'-.() é", min_size=1, max_size=12).map(str.strip).filter(bool)
numbers = st.integers(1, 10**5)


@given(rows=st.lists(st.tuples(names, numbers, numbers, numbers), min_size=1, max_size=8))
def test_what_is_written_is_read(tmp_path_factory, rows: list[tuple[str, int, int, int]]) -> None:
    path = tmp_path_factory.mktemp("t") / "x.csv"
    lines = [f"{name},{m},{n},{k}," for name, m, n, k in rows]
    path.write_text(gemm(*lines), encoding="utf-8")
    net = read_topology(path)
    assert shapes(net) == [(m, k, n) for _, m, n, k in rows]
    assert [layer.name.split("#")[0] for layer in net.layers] == [row[0] for row in rows]


@given(junk=st.binary(max_size=200))
def test_junk_is_an_input_error_or_a_workload(tmp_path_factory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("t") / "x.csv"
    for start in (b"", GEMM_HEADER.encode() + b"\n", b"[architecture_presets]\n"):
        path.write_bytes(start + junk)
        for reader, kind in ((read_topology, Workload), (read_cfg, dict)):
            found = None
            with suppress(InputError):
                found = reader(path)
            assert found is None or isinstance(found, kind)


# --- what is refused -----------------------------------------------------------------------------

BAD_TOPOLOGIES = {
    "": "net.csv: must not be empty; a topology has a header and one line a layer",
    "\n ,,\n": "net.csv: must not be empty",
    GEMM_HEADER + ",\n\n": "net.csv: a header and no layers: give at least one layer",
    gemm("Heading,"): "net.csv: a header and no layers",
    b"Layer,M,N,K\na,1,2,3\n\xff,1,2,3": "net.csv:3: must be UTF-8 text; got byte 0xff",
    gemm("a,5,x,7"): "net.csv:2: N must be a whole number from 1 to 100000000; got 'x'",
    gemm("", "a,5,6.0,7"): "net.csv:3: N must be a whole number from 1 to 100000000; got '6.0'",
    gemm("a,0,6,7"): "net.csv:2: M must be a whole number from 1 to 100000000; got '0'",
    gemm("a,5,6,-7"): "net.csv:2: K must be a whole number from 1 to 100000000; got '-7'",
    gemm("a,5,6,100000001"): "net.csv:2: K must be a whole number from 1 to 100000000; got '1000",
    gemm("a,5,6,٣"): "net.csv:2: K must be a whole number from 1 to 100000000; got '٣'",
    gemm("a," + "9" * 5000 + ",6,7"): "net.csv:2: M must be a whole number",
    gemm("a,5,6"): "net.csv:2: K must be a whole number from 1 to 100000000; got nothing",
    gemm(",5,6,7"): "net.csv:2: a layer needs a name in the first column",
    gemm("a,5,6,7,8"): "net.csv:2: column 5 has no title in the header; got '8'",
    gemm("a,5,6,7,,2:4"): "net.csv:2: column 6 has no title in the header; got '2:4'",
    gemm("x" * 201 + ",5,6,7"): "net.csv:2: layer 'x",
    gemm('"a,5,6,7'): "net.csv:2: not valid CSV: unexpected end of data",
    conv("a, 5, 5, 7, 3, 8, 8, 1,"): "net.csv:2: Filter Height must not exceed IFMAP Height (5); "
    "got 7",
    conv("a, 5, 5, 3, 6, 8, 8, 1,"): "net.csv:2: Filter Width must not exceed IFMAP Width (5)",
    conv("a, 5, 5, 3, 3, 8, 8"): "net.csv:2: Strides must be a whole number from 1",
    conv("a_DP, 5, 5, 3, 3, 99999, 99999, 1"): "net.csv:2: layer 'a_DP': op.conv2d.out_channels",
    gemm("a,5,6,7,2-4", header=GEMM_HEADER + ",Sparsity"): "net.csv:2: Sparsity must be n:m, such "
    "as 2:4; got '2-4'",
    gemm("a,5,6,7,4:2"): "net.csv:2: pattern n:m needs 1 <= n <= m <= 1024; got '4:2'",
    gemm("a,5,6,7,0:4"): "net.csv:2: pattern n:m needs 1 <= n <= m <= 1024; got '0:4'",
    "Conv1,224,224,7,7,3,64,2": "net.csv:1: the first line must be a header: Layer name, IFMAP "
    "Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides or Layer, M, "
    "N, K; column 1 must be 'Layer name'; got 'Conv1'",
    "Layer,M,K,N\na,1,2,3": "column 3 must be 'N'; got 'K'",
    "Layer,M,N\na,1,2": "column 4 must be 'K'; got nothing",
    conv("a", header=CONV_HEADER.replace("Width", "Widht", 1)): "column 3 must be 'IFMAP Width'; "
    "got 'IFMAP Widht', did you mean 'IFMAP Width'?",
    gemm("a,5,6,7", header=GEMM_HEADER + ",Sparsty"): "net.csv:1: unknown column 'Sparsty', did "
    "you mean 'Sparsity'?",
    gemm("a,5,6,7", header=GEMM_HEADER + ",Sparsity,Sparsity"): "column 'Sparsity' stands twice",
    "Layer;M;N;K\na;1;2;3": "net.csv:1: columns must be separated by commas",
}


@pytest.mark.parametrize("content", BAD_TOPOLOGIES, ids=range(len(BAD_TOPOLOGIES)))
def test_refusals(read, content: str | bytes) -> None:
    with pytest.raises(InputError, match=re.escape(BAD_TOPOLOGIES[content])) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: no such file"):
        read_topology(tmp_path / "gone.csv")
    with pytest.raises(InputError, match=r"gone\.cfg: no such file"):
        read_cfg(tmp_path / "gone.cfg")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_topology(tmp_path)


def test_too_many_layers(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accsim.files.scalesim.MAX_LAYERS", 2)
    with pytest.raises(InputError, match=r"net\.csv:4: at most 2 layers"):
        read(gemm("a,1,1,1", "b,1,1,1", "c,1,1,1"))


# --- .cfg ----------------------------------------------------------------------------------------


def test_the_shipped_configuration() -> None:
    path = TOPOLOGIES / "sparsity.cfg"
    assert read_cfg(path) == {
        "array.rows": 128,
        "array.cols": 128,
        "memory.sram.x.bytes": 256 * 1024,
        "memory.sram.w.bytes": 256 * 1024,
        "memory.sram.y.bytes": 256 * 1024,
        "dataflow": "ws",
    }
    ignored = ignored_keys(path)
    assert "output writes only" in ignored["Bandwidth"]
    written = [line for line in path.read_text().splitlines() if re.search("[:=]", line)]
    assert len(ignored) + len(read_cfg(path)) == len(written)


def test_overrides_name_fields_of_the_device() -> None:
    for key in read_cfg(TOPOLOGIES / "sparsity.cfg"):
        model = Systolic
        *path, last = key.split(".")
        for step in path:
            model = model.model_fields[step].annotation
        assert last in model.model_fields


PRESETS = (
    "ArrayHeight: 16\nArrayWidth = 8\nIfmapSramSzkB: 1\nFilterSramSzkB: 2\nofmapsramszkb: 3\n"
    "Dataflow : os\n"
)
CFG = f"[architecture_presets]\n{PRESETS}"


@pytest.fixture
def read_config(tmp_path: Path):
    def write_and_read(text: str) -> dict[str, int | str]:
        path = tmp_path / "a.cfg"
        path.write_text(text, encoding="utf-8")
        return read_cfg(path)

    return write_and_read


def test_a_small_configuration(read_config) -> None:
    ours = read_config(f"; comment\n[general]\nrun_name = x\n\n{CFG}# end\n")
    assert list(ours.values()) == [16, 8, 1024, 2048, 3072, "os"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.cfg: must not be empty"),
        ("[general]\n", "a.cfg: must not be empty"),
        ("[general]\nrun_name = x\n", "a.cfg: missing key 'ArrayHeight' in [architecture_presets]"),
        (CFG.replace("os", "WS"), "a.cfg:7: Dataflow must be one of ws, os, is; got 'WS', did you"),
        (CFG.replace("os", "rs"), "a.cfg:7: Dataflow must be one of ws, os, is; got 'rs'"),
        (CFG.replace("16", "0"), "a.cfg:2: ArrayHeight must be a whole number from 1 to 65536; "),
        (CFG.replace("= 8", "="), "a.cfg:3: ArrayWidth must be a whole number from 1 to 65536; "),
        (CFG.replace(": 1\n", ": 1 # kB\n"), "a.cfg:4: IfmapSramSzkB must be a whole number from"),
        (CFG.replace("Width", "Widht"), "a.cfg:3: unknown key 'ArrayWidht' in [architecture_presets"
         "], did you mean 'ArrayWidth'?"),
        (CFG + "arrayheight: 4\n", "a.cfg:8: key 'ArrayHeight' stands twice"),
        (CFG.replace("presets", "preset"), "a.cfg:1: unknown section '[architecture_preset]', did "
         "you mean 'architecture_presets'?"),
        (PRESETS, "a.cfg:1: must be 'key : value' below a [section]; got 'ArrayHeight: 16'"),
        (CFG + "Bandwidth\n", "a.cfg:8: must be 'key : value' below a [section]; got 'Bandwidth'"),
    ],
)  # fmt: skip
def test_configuration_refusals(read_config, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_config(text)


def test_a_cfg_is_a_device_in_scalesim_timing():
    import accsim

    hardware = accsim.load_hardware(TOPOLOGIES / "sparsity.cfg")
    assert (hardware.array.rows, hardware.array.cols, hardware.dataflow) == (128, 128, "ws")
    assert hardware.memory.sram.w.bytes == 256 * 1024
    assert hardware.timing == "scalesim_v3"
    wider = accsim.load_hardware(str(TOPOLOGIES / "sparsity.cfg"), {"array.cols": 256})
    assert wider.array.cols == 256
    # ws: ⌈300/128⌉⌈500/128⌉ folds of 2·128 + 128 + 100 − 2, less one
    assert accsim.simulate(accsim.gemm(100, 300, 500), hardware).cycles == 3 * 4 * 482 - 1
