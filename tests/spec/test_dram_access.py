"""The closed form against the replay, and both against laws and measured bandwidth."""

from itertools import pairwise

import numpy as np
import pytest
from numba import config

from accsim.base.errors import InputError
from accsim.files.dram import dram_parts, load_dram
from accsim.spec.dram import DramPart
from accsim.spec.dram_access import (
    burst_addresses,
    bursts_per_run,
    replayed_gb_per_s,
    sustained_gb_per_s,
)

KIB = 1024
PARTS = {name: load_dram(name) for name in dram_parts()}
BY_RANK = [name for name, part in PARTS.items() if part.timings.trfc_pb_ns is None]
BY_BANK = [name for name in PARTS if name not in BY_RANK]
compiled = pytest.mark.skipif(config.DISABLE_JIT, reason="a replay of 10 000 bursts is compiled")


def efficiency(part, *pattern, **options):
    return replayed_gb_per_s(part, *pattern, **options) / part.peak_gb_per_s


# --- bursts


@pytest.mark.parametrize("stride", [100, 150, 64, 1000, 4096, 333])
@pytest.mark.parametrize("run", [1, 40, 64, 100])
def test_bursts_of_a_run_are_those_counted(run, stride):
    if stride < run:
        return
    part = PARTS["ddr4_3200"]
    touched = []  # in order, but not twice in a row
    for start in range(0, 640 * stride, stride):
        touched += range(start // 64, (start + run - 1) // 64 + 1)
    once = [a for a, before in zip(touched, [-1, *touched], strict=False) if a != before]
    assert bursts_per_run(part, run, stride) == pytest.approx(len(once) / 640, abs=2 / 640)
    found, runs = burst_addresses(part, run, stride, len(once))
    assert found.tolist() == once[: len(found)]
    assert (np.diff(runs) >= 0).all()


def test_random_runs_are_whole_bursts_in_a_row():
    found, runs = burst_addresses(PARTS["hbm2e"], 100, None, 4000)
    steps = np.diff(found)[np.diff(runs) == 0]
    assert set(steps) == {1}
    assert set(np.bincount(runs)) == {4}


# --- laws of the closed form


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_never_above_what_refresh_leaves(part):
    rng = np.random.default_rng(3)
    least = part.refresh_share if part.timings.trfc_pb_ns is None else 0.0
    for _ in range(300):
        run = int(2 ** rng.uniform(0, 20))
        stride = [None, run, run + int(2 ** rng.uniform(0, 20))][rng.integers(3)]
        found = sustained_gb_per_s(part, run, stride, float(rng.choice([0, 1, rng.random()])))
        assert 0 < found <= part.peak_gb_per_s * (1 - least)


@pytest.mark.parametrize("writes", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_random_run_twice_as_long_is_never_slower(part, writes):
    runs = [part.burst_bytes << n for n in range(14)]
    found = [sustained_gb_per_s(part, run, None, writes) for run in runs]
    # To 0.1 %: joined limits near the data bus round off by that much.
    assert all(b >= a * 0.999 for a, b in pairwise(found))


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_streams_grow_with_channels_and_beat_strides(part):
    streams = [sustained_gb_per_s(part, 4096, 4096, channels=n) for n in (1, 2, 3, 8, 40)]
    assert np.allclose(streams, streams[0] * np.array([1, 2, 3, 8, 40]))
    for run in (64, 256, 4096):
        assert sustained_gb_per_s(part, run, 64 * KIB) <= sustained_gb_per_s(part, run, run) * 1.001


@pytest.mark.parametrize("key", ["trcd_ns", "trp_ns", "tras_ns", "tfaw_ns", "twr_ns", "trefi_ns"])
def test_slower_timings_are_never_faster(key):
    for part in PARTS.values():
        data = part.model_dump()
        data["timings"][key] *= 0.9 if key == "trefi_ns" else 1.3
        if data["timings"]["trfc_pb_ns"]:
            data["timings"]["trfc_pb_ns"] *= 0.9
            part = PARTS[part.name].model_copy(
                update={"timings": part.timings.model_copy(
                    update={"trfc_pb_ns": data["timings"]["trfc_pb_ns"]})}
            )  # fmt: skip
        slower = DramPart.model_validate(data)
        for pattern in ((64,), (KIB,), (256, 4096), (4096, 4096), (256, None, 0.5)):
            fast = sustained_gb_per_s(part, *pattern)
            assert sustained_gb_per_s(slower, *pattern) <= fast * (1 + 1e-9)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ((0,), "run_bytes must be at least 1"),
        ((64, 32), "stride_bytes no less than it; got 64, 32"),
        ((64, None, 1.5), "write_share must be from 0 to 1; got 1.5"),
        ((64, None, 0.0, 0), "channels must be at least 1; got 0"),
    ],
)
@pytest.mark.parametrize("of", [sustained_gb_per_s, replayed_gb_per_s])
def test_a_pattern_without_sense_is_refused(of, pattern, message):
    with pytest.raises(InputError, match=message):
        of(PARTS["ddr4_3200"], *pattern)


# --- the replay


@compiled
@pytest.mark.parametrize("name", BY_RANK)
def test_streaming_reaches_all_that_refresh_leaves(name):
    # DDR4 sustains over 90 % of peak when reading only.
    part = PARTS[name]
    found = efficiency(part, 64 * KIB, 64 * KIB, channels=part.channels)
    assert 0.975 * (1 - part.refresh_share) < found < 1 - part.refresh_share


@compiled
def test_random_bursts_are_limited_by_four_activates():
    part = PARTS["ddr4_3200"]
    limit = 4 * part.burst_bytes / part.timings.tfaw_ns  # GB/s
    assert 0.85 * limit < replayed_gb_per_s(part, 64) < limit


@compiled
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("hbm2_2gbps", 0.888, 0.994), ("hbm2e", 0.836, 0.989), ("gddr6_16", 0.891, 0.979)],
)
def test_measured_gpus_lie_between_copy_and_read(name, low, high):
    # Ranges measured on V100 and A100 40 GB; A100 80 GB and H100 PCIe; L40 (reports/dram).
    part = PARTS[name]
    few = {"bursts_per_channel": 10_000}
    read = efficiency(part, 64 * KIB, 64 * KIB, **few)
    copy = efficiency(part, 4 * KIB, 4 * KIB, 0.5, **few)
    assert read > high - 0.02
    assert copy < low + 0.02


@compiled
def test_a_wider_window_is_no_slower_on_random_runs():
    found = []
    for window in (8, 32, 128):
        part = load_dram("hbm2_2gbps", {"controller.window": window, "channels": 2})
        found.append(replayed_gb_per_s(part, 256))
    assert found == sorted(found)


# --- closed form against replay; reports/dram/errors.csv has 4000 random parts and patterns


def relative_errors(names, cases, **kinds):
    rng = np.random.default_rng(11)
    errors = []
    for _ in range(cases):
        part = PARTS[names[rng.integers(len(names))]]
        run = int(part.burst_bytes * 2 ** rng.integers(0, 8))
        stride = {"stream": run, "strided": int(run * 2 ** rng.uniform(0.2, 7)), "random": None}
        writes = float(rng.choice(kinds["writes"]))
        if kinds["kind"] == "stream":
            stride["stream"] = run = max(run, KIB)
        pattern = (run, stride[kinds["kind"]], writes, int(rng.integers(1, 4)))
        replayed = replayed_gb_per_s(part, *pattern, bursts_per_channel=8000)
        errors.append(abs(sustained_gb_per_s(part, *pattern) / replayed - 1))
    return np.array(errors)


@compiled
@pytest.mark.parametrize(
    ("names", "kind", "writes", "mean", "most"),
    [
        (BY_RANK, "stream", [0.0, 1.0], 0.02, 0.06),
        (BY_RANK, "stream", [0.5], 0.06, 0.2),
        (BY_RANK, "strided", [0.0, 1.0], 0.06, 0.30),
        (BY_RANK, "random", [0.0, 1.0, 0.5], 0.08, 0.30),
        (BY_BANK, "stream", [0.0, 1.0], 0.10, 0.30),
        (BY_BANK, "strided", [0.0, 1.0], 0.15, 0.50),
        (BY_BANK, "random", [0.0, 1.0, 0.5], 0.12, 0.40),
    ],
)
def test_closed_form_is_near_the_replay(names, kind, writes, mean, most):
    errors = relative_errors(names, 30, kind=kind, writes=writes)
    assert errors.mean() < mean
    assert errors.max() < most
