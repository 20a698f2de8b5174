"""A pattern of another package, found by its entry point alone: listed, run, written."""

import json
import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "data" / "third_party"


def accsim_with_the_package(*words):
    path = os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "accsim", *words], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_pattern_of_another_package_works_on_the_command_line(tmp_path):
    assert "stripes/step" in accsim_with_the_package("show", "patterns")
    words = ("run", "gemm:64x96x48", "--hw", "systolic_nm_32x32", "--quality", "--json")
    found = json.loads(accsim_with_the_package(*words, "--pattern", "stripes/2"))
    assert found["layers"]["pattern"] == ["stripes/2"]
    assert found["layers"]["mode"] == ["2:4"]  # every other row: it fits the 2:4 level
    assert found["layers"]["effective_macs"] == [64 * 48 * 48]
    assert 0.4 < found["totals"]["retained_magnitude"] < 0.6
    out = accsim_with_the_package(
        "run", "resnet18:layer4.*", "--hw", "systolic_nm_32x32", "--pattern", "stripes/4",
        "--out", str(tmp_path / "o"), "--no-plots",
    )  # fmt: skip
    assert "stripes/4" in out
    assert "stripes/4" in (tmp_path / "o" / "layers.csv").read_text(encoding="utf-8")
