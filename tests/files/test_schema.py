"""JSON Schemas accept what the loaders accept and refuse what they refuse."""

from pathlib import Path

import jsonschema
import pytest

from accsim.files.schema import schema_of
from accsim.files.yaml import read_yaml

ROOT = Path(__file__).parent.parent.parent
FILES = [
    *(("hw", p) for p in sorted((ROOT / "hwconfigs").glob("*.yaml"))),
    *(("energy", p) for p in sorted((ROOT / "hwconfigs/energy").glob("*.yaml"))),
    *(("workload", p) for p in sorted((ROOT / "workloads").glob("*.yaml"))),
]


@pytest.mark.parametrize(("what", "path"), FILES, ids=lambda x: getattr(x, "stem", x))
def test_every_shipped_file_is_valid(what, path):
    schema = schema_of(what)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read_yaml(path).plain(), schema)


def test_a_small_overlay_is_valid():
    rows = {"value": "64", "low": 1, "source": "chosen", "status": "chosen"}
    overlay = {"extends": "systolic_ws_32x32", "array": {"rows": rows}}
    assert jsonschema.Draft202012Validator(schema_of("hw")).is_valid(overlay)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("hw", {"array": {"rowz": {"value": 3, "source": "x"}}}),
        ("hw", {"dataflow": "rs"}),
        ("hw", {"array": {"rows": {"value": -3, "source": "x"}}}),
        ("hw", {"array": {"rows": {"value": 70000, "source": "x"}}}),
        ("hw", {"clock_ghz": {"value": 0, "source": "x"}}),
        ("hw", {"array": {"adaptive": 3}}),
        ("hw", {"kind": "tensorcore", "tensor": {"fma_per_clock": {"fp7": 3}}}),
        ("hw", {"kernels": {"vnm": {}}}),
        ("hw", {"board": 3}),
        ("workload", {"layers": []}),
        ("workload", {"layers": [{"name": "a"}]}),
        ("workload", {"layers": [{"name": "a", "linear": {"in_features": 3}}]}),
        ("workload", {"layers": [{"blocks": {"count": 3, "name": "x"}, "layers": []}]}),
        ("energy", {"node_nm": "x", "mac": {}}),
    ],
)
def test_mistakes_are_refused(what, data):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema_of(what))
