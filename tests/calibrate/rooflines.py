"""A small latency model whose parameters are known, for the tests of fitting."""

import numpy as np

from accsim.base.rng import stream
from accsim.calibrate.fit import Parameter

TRUE = {"launch_us": 5.0, "peak_tflops": 250.0, "bandwidth_gbs": 1500.0, "drain": 0.2}
PARAMETERS = (
    Parameter("launch_us", 3.0, 0.5, 50.0, "us"),
    Parameter("peak_tflops", 100.0, 20.0, 2000.0, "TFLOPS"),
    Parameter("bandwidth_gbs", 800.0, 100.0, 10000.0, "GB/s"),
    Parameter("drain", 0.5, 0.0, 1.0, "", log=False),
)


def products(seed, count):
    draws = stream(seed, "products")
    t = 2 ** draws.integers(4, 14, count)
    k, n = (128 * draws.integers(4, 80, count) for _ in range(2))
    return t.astype(float), k.astype(float), n.astype(float)


def roofline(t, k, n):
    """µs: launch + max(compute, memory) + a share of the smaller of the two."""

    def model(values):
        compute = 2 * t * k * n / values["peak_tflops"] / 1e6
        memory = 2 * (t * k + k * n + t * n) / values["bandwidth_gbs"] / 1e3
        low, high = np.minimum(compute, memory), np.maximum(compute, memory)
        return values["launch_us"] + high + values["drain"] * low

    return model


def noisy(model, seed, noise=0.05, outliers=0.0):
    draws = stream(seed, "noise")
    exact = model(TRUE)
    error = noise * draws.standard_normal(len(exact))
    far = draws.random(len(exact)) < outliers
    return exact * np.exp(error + far * draws.uniform(0.5, 2.0, len(exact)))
