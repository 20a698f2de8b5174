"""Cell-cycles per second of the clocked array: PEs times cycles over the time of `run`."""

import numpy as np
import pytest

from accsim.devices.systolic_register import run


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize(("slots", "lanes"), [(1, 1), (2, 4)])
@pytest.mark.parametrize("size", [32, 128])
@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
def test_cell_cycles_per_second(benchmark, dataflow, size, slots, lanes, dtype):
    steps = 4000
    t, n = {"ws": (steps, size), "is": (size, steps), "os": (size, size)}[dataflow]
    k = lanes * (steps if dataflow == "os" else size)
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-99, 99, shape).astype(dtype) for shape in ((t, k), (k, n)))
    mask = np.broadcast_to((np.arange(k) % lanes < slots)[:, None], (k, n))
    array = {"rows": size, "cols": size, "slots": slots, "lanes": lanes, "dataflow": dataflow}
    result = benchmark(run, x, w, mask, **array, double_buffered=True)
    benchmark.extra_info["cycles"] = result.cycles
    if benchmark.stats:
        rate = size * size * result.cycles / benchmark.stats.stats.min
        benchmark.extra_info["cell_cycles_per_s"] = rate
