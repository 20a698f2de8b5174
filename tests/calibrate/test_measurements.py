"""Reading measured latencies: both forms, header comments, and every refusal with its place."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accsim.base.errors import InputError
from accsim.calibrate.measure_gpu import COLUMNS
from accsim.calibrate.measurements import DTYPES, LONG, OPTIONAL, PATTERNS, read

HEAD = "device,dtype,pattern,t,k,n,latency_us\n"
WIDE = "device,dtype,t,k,n,dense_us,sparse24_us,flags\n"
ROW = "gpu,bf16,dense,64,1024,2048,12.5\n"


def written(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_script_writes_what_is_read():
    assert set(COLUMNS) <= {*LONG, *OPTIONAL}


def test_long_form(tmp_path):
    path = written(
        tmp_path,
        "# gpu: H100\n# note: one\n# no key\n" + HEAD.strip() + ",p5_us,p95_us,weight,flags,mood\n"
        '"gpu, 80 GB",bf16,dense,64,1024,2048,12.5,12,13,2,odd,fine\n\n'
        "# note: two\n# gpu: H100\n"
        "gpu,int8,2:4,1,4,1,.5,,,,,\n"
        "gpu,int8,2:4,1,4,1,5e-1,,,,,\n",
    )
    found = read(path)
    assert len(found) == 3
    assert found.about == {"gpu": "H100", "note": "one; two"}
    assert found.notices == (f"{path}: left out the columns 'mood'",)
    assert found.device.tolist() == ["gpu, 80 GB", "gpu", "gpu"]
    assert found.pattern.tolist() == ["dense", "2:4", "2:4"]
    assert found.latency_us.tolist() == [12.5, 0.5, 0.5]
    assert found.weight.tolist() == [2, 1, 1]
    assert found.flags.tolist() == ["odd", "", ""]
    assert np.isnan(found.repeats).all()
    assert found.spread[0] == pytest.approx(np.log(13 / 12) / (2 * 1.644854), rel=1e-4)
    assert np.isnan(found.spread[1:]).all()
    assert found.groups.tolist() == [[2048, 1024], [1, 4], [1, 4]]


def test_wide_form(tmp_path):
    found = read(written(tmp_path, WIDE + "a,bf16,64,64,32,2,1.5,odd\na,fp4,8,8,8,,3,\n"))
    assert found.pattern.tolist() == ["dense", "2:4", "2:4"]
    assert found.latency_us.tolist() == [2, 1.5, 3]
    assert found.flags.tolist() == ["odd", "odd", ""]
    assert found.k.tolist() == [64, 64, 8]
    assert found.weight.tolist() == [1, 1, 1]


def test_dense_has_no_groups_of_four(tmp_path):
    assert read(written(tmp_path, HEAD + "g,bf16,dense,3,5,7,1\n")).k.tolist() == [5]


def test_take(tmp_path):
    found = read(written(tmp_path, "# a: b\n" + HEAD + ROW + ROW.replace("64", "128")))
    chosen = found.take(found.t == 128)
    assert chosen.t.tolist() == [128]
    assert chosen.about == found.about
    assert found.take(np.array([1, 0])).t.tolist() == [128, 64]


def test_spaces_bom_and_crlf(tmp_path):
    text = "\ufeff" + (HEAD + ROW).replace(",", " , ").replace("\n", "\r\n")
    assert read(written(tmp_path, text)).latency_us.tolist() == [12.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.csv: must hold measurements; it has no line of column names"),
        ("# only: this\n", "m.csv: must hold measurements; it has no line of column names"),
        (HEAD, "m.csv: must hold measurements; it has column names only"),
        (HEAD.replace("latency_us", "latencyus") + ROW,
         "m.csv:1: column 'latency_us' is missing (is 'latencyus' it?); must have device, dtype, "
         "pattern, t, k, n, latency_us"),
        (HEAD.replace(",n,", ",") + ROW, "m.csv:1: column 'n' is missing; must have"),
        (HEAD.replace(",n,", ",k,") + ROW, "m.csv:1: column 'k' stands twice"),
        (WIDE.replace("flags", "pattern") + "a,bf16,1,1,1,1,1,dense\n",
         "m.csv:1: column 'pattern' must not stand beside dense_us, sparse24_us"),
        (WIDE.replace(",sparse24_us", "") + "a,bf16,1,1,1,1,\n",
         "m.csv:1: column 'sparse24_us' is missing"),
        (WIDE + "a,bf16,1,4,1,,,\n", "m.csv:2: dense_us or sparse24_us must be told; got ''"),
        (WIDE + "a,bf16,1,6,1,1,1,\n", "m.csv:2: k must be a multiple of 4 under 2:4; got '6'"),
        (HEAD + ROW + "gpu,bf16,dense,64\n",
         "m.csv:3: must have 7 cells as the header; got 4"),
        (HEAD + ROW.replace("bf16", "bf61"),
         "m.csv:2: dtype must be one of bf16, fp16, tf32, fp32, int8, fp8, fp4, int4, did you mean "
         "'bf16'?; got 'bf61'"),
        (HEAD + ROW.replace("dense", "2;4"),
         "m.csv:2: pattern must be one of dense, 2:4, did you mean '2:4'?; got '2;4'"),
        (HEAD + ROW.replace("gpu", ""), "m.csv:2: device must be a name of 1 to 200 characters"),
        (HEAD + ROW.replace("gpu", "g\x1b[1m"), r"got 'g\x1b[1m'"),
        (HEAD + "\n# x\n" + ROW.replace("12.5", "-1"),
         "m.csv:4: latency_us must be above 0 and at most 1e+09 us; got '-1'"),
        (HEAD + ROW.replace("12.5", "0"), "latency_us must be above 0"),
        (HEAD + ROW.replace("12.5", "nan"), "latency_us must be above 0"),
        (HEAD + ROW.replace("12.5", "inf"), "latency_us must be above 0"),
        (HEAD + ROW.replace("12.5", "1e999"), "got '1e999'"),
        (HEAD + ROW.replace("12.5", "1_0"), "got '1_0'"),
        (HEAD + ROW.replace("12.5", "١"), r"got '\u0661'"),
        (HEAD + ROW.replace("12.5", ""), "latency_us must be above 0 and at most 1e+09 us; got ''"),
        (HEAD + ROW.replace("64", "0"), "m.csv:2: t must be a whole number from 1 to 16777216"),
        (HEAD + ROW.replace("64", "64.0"), "m.csv:2: t must be a whole number"),
        (HEAD + ROW.replace("1024", "99999999"), "m.csv:2: k must be a whole number"),
        (HEAD + "g,bf16,dense,9999999,9999999,9999999,1\n",
         "m.csv:2: t times k times n must be at most"),
        (HEAD + ROW.replace("dense,64,1024", "2:4,64,1022"), "m.csv:2: k must be a multiple of 4"),
        (HEAD + '"gpu,bf16\n', "m.csv:2: is no CSV: unexpected end of data"),
        (HEAD.strip() + ",p5_us\n" + ROW.strip() + ",13\n",
         "m.csv:2: latency_us must lie between p5_us and p95_us; got '12.5'"),
        (HEAD.strip() + ",weight\n" + ROW.strip() + ",0\n",
         "m.csv:2: weight must be above 0 and at most 1e+09; got '0'"),
        (HEAD.strip() + ",flags\n" + ROW.strip() + "," + "x" * 300 + "\n",
         "m.csv:2: flags must have at most 200 characters; got 'xxx"),
        (HEAD.encode() + b"\xff\n", "m.csv:2: must be UTF-8 text"),
    ],
)  # fmt: skip
def test_refused(tmp_path, text, message):
    with pytest.raises(InputError) as error:
        read(written(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"x\.csv: no such file"):
        read(tmp_path / "x.csv")


rows = st.tuples(
    st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), min_size=1,
            max_size=12).map(str.strip).filter(bool),
    st.sampled_from(DTYPES), st.sampled_from(PATTERNS), st.integers(1, 9999),
    st.integers(1, 999).map(lambda x: 4 * x), st.integers(1, 9999),
    st.floats(1e-3, 1e8).map(lambda x: float(f"{x:.6g}")),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(rows, min_size=1, max_size=8))
def test_round_trip(tmp_path_factory, written_rows):
    written_rows = [row for row in written_rows if not row[0].startswith("#")]
    if not written_rows:
        return
    text = io.StringIO()
    csv.writer(text).writerows([LONG, *written_rows])
    path = tmp_path_factory.mktemp("m") / "m.csv"
    path.write_text(text.getvalue(), newline="")
    found = read(path)
    arrays = [getattr(found, name).tolist() for name in LONG]
    assert list(zip(*arrays, strict=True)) == written_rows


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 200), st.booleans())
def test_damaged_files_are_read_or_refused(tmp_path_factory, junk, at, wide):
    text = (WIDE + "a,bf16,64,64,32,2,1.5,odd\n" if wide else HEAD + ROW + ROW).encode()
    path = tmp_path_factory.mktemp("m") / "m.csv"
    path.write_bytes(text[:at] + junk + text[at + len(junk) // 2 :])
    try:
        assert (read(path).latency_us > 0).all()
    except InputError as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said
