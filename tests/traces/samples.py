"""Small traces and matrix files for the tests, and the hand-written bytes of a trace."""

import hashlib
import json
import struct

import numpy as np

from accsim.spec.workload import Conv2d, Layer, Linear, Matmul, Workload
from accsim.traces.draft import make_trace
from accsim.traces.pattern import TRACED


def network(pattern=TRACED):
    return Workload(
        name="tiny",
        sources=("made for the tests",),
        layers=(
            Layer(
                name="block/conv",
                op=Conv2d(in_channels=3, out_channels=4, size=5, kernel=3),
                pattern=pattern,
                batch=2,
            ),
            Layer(name="fc", op=Linear(in_features=8, out_features=6, tokens=3), dtype="fp16"),
            Layer(
                name="heads", op=Linear(in_features=4, out_features=3), repeats=3, pattern=pattern
            ),
            Layer(name="scores", op=Matmul(t=3, k=4, n=3), repeats=2, batch=2),
        ),
    )


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((27, 4)) < 0.4
    return {
        "masks": {"block/conv": mask, "heads": rng.random((3, 4, 3)) < 0.5},
        "weights": {
            "block/conv": np.where(mask, rng.standard_normal((27, 4)), 0).astype(np.float32),
            "fc": rng.integers(-9, 9, (8, 6)).astype(np.int8),
        },
        "activations": {
            ("block/conv", 0): rng.random((2, 5, 5, 3)) < 0.5,
            ("block/conv", 1): rng.random((2, 5, 5, 3)) < 0.5,
            ("scores", 1): rng.random((4, 3, 4)) < 0.5,
        },
        "densities": {"fc": [0.25, 1.0]},
    }


def trace(seed=0):
    return make_trace(
        network(),
        **arrays(seed),
        inputs={"image": (2, 3, 5, 5)},
        facts={"accuracy": {"top1": 0.761}, "note": "a fact, of any JSON"},
        provenance={"made_by": "tests", "license": "Apache-2.0", "versions": {"numpy": "2"}},
    )


def split(raw):
    """(container's table, trace header, data) of a trace's bytes."""
    (length,) = struct.unpack("<Q", raw[:8])
    table = json.loads(raw[8 : 8 + length])
    return table, json.loads(table["__metadata__"]["accsim"]), raw[8 + length :]


def signed(table, header, data):
    """Bytes of a trace whose digest fits its header, whatever that says."""
    text = header if isinstance(header, str) else json.dumps(header)
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    table = table | {"__metadata__": {"accsim": text, "accsim_sha256": found}}
    top = json.dumps(table).encode()
    return struct.pack("<Q", len(top)) + top + data
