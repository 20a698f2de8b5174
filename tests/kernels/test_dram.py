"""The DRAM channel against its clock-by-clock twin, and addresses against a count of rows."""

import dataclasses

import numpy as np
import pytest
from kernels import twin_dram as twin
from numba import config

from accsim.kernels import dram

CASES = 40 if config.DISABLE_JIT else 90


def random_times(rng):
    def some(low, high):
        return int(rng.integers(low, high))

    burst, rrd, wtr = some(1, 5), some(1, 5), some(1, 5)
    ccd = burst + some(0, 2)
    return twin.Times(
        rcd=some(1, 12), rp=some(1, 12), cl=some(1, 12), cwl=some(1, 10), ras=some(3, 25),
        ccd_s=ccd, ccd_l=ccd + some(0, 4), rrd_s=rrd, rrd_l=rrd + some(0, 4), faw=some(rrd, 30),
        wr=some(1, 12), wtr_s=wtr, wtr_l=wtr + some(0, 5), rtp=some(1, 8), rfc=some(5, 60),
        refi=some(80, 300), turn=some(0, 3), burst=burst, act_clocks=some(1, 4),
        pre_clocks=some(1, 3), col_clocks=some(1, 3), row_bus=some(0, 2), ranks=some(1, 3),
        groups=some(1, 4), banks=some(1, 4), per_bank=some(0, 2), window=some(1, 12),
    )  # fmt: skip


def random_requests(rng, times):
    found, writes = [], rng.random()
    for _ in range(rng.integers(5, 40)):
        write = int(rng.random() < writes)
        if found and rng.random() < 0.5:
            found.append(found[-1]._replace(write=write))
            continue
        rank, group = int(rng.integers(times.ranks)), int(rng.integers(times.groups))
        bank = (rank * times.groups + group) * times.banks + int(rng.integers(times.banks))
        found.append(twin.Request(rank, group, bank, int(rng.integers(3)), write))
    return found


def run(times, requests):
    table = np.array(dataclasses.astuple(times), np.int64)
    assert len(table) == dram.PARAMETERS
    done = np.zeros(len(requests), np.int64)
    counts = dram.replay(table, np.array(requests, np.int64), done)
    return done.tolist(), counts


def test_replay_is_its_slow_twin():
    refreshes = 0
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        times = random_times(rng)
        requests = random_requests(rng, times)
        ends, history = twin.replay(times, requests)
        done, counts = run(times, requests)
        kinds = [command.kind for command in history]
        assert done == ends, seed
        assert counts == (kinds.count("ACT"), kinds.count("REF")), seed
        refreshes += counts[1]
    assert refreshes > CASES / 2  # else refresh was hardly met


QUIET = {
    "rcd": 5, "rp": 6, "cl": 7, "cwl": 4, "ras": 12, "ccd_s": 2, "ccd_l": 3, "rrd_s": 2,
    "rrd_l": 4, "faw": 11, "wr": 5, "wtr_s": 3, "wtr_l": 4, "rtp": 2, "rfc": 50, "refi": 10**6,
    "turn": 1, "burst": 2, "act_clocks": 1, "pre_clocks": 1, "col_clocks": 1, "row_bus": 1,
    "ranks": 1, "groups": 2, "banks": 2, "per_bank": 0, "window": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("requests", "ends"),
    [
        ([(0, 0, 0, 0, 0)], [14]),  # activate at 0, read at 5, data 12 … 14
        ([(0, 0, 0, 0, 0), (0, 0, 0, 0, 0)], [14, 17]),  # tCCD_L
        ([(0, 0, 0, 0, 0), (0, 1, 2, 0, 0)], [14, 16]),  # tRRD_S, tCCD_S
        ([(0, 0, 0, 0, 0), (0, 0, 1, 0, 0)], [14, 18]),  # tRRD_L
        ([(0, 0, 0, 0, 0), (0, 0, 0, 1, 0)], [14, 32]),  # precharge at tRAS: 12 + 6 + 5 + 7 + 2
        ([(0, 0, 0, 0, 0), (0, 0, 0, 0, 1)], [14, 17]),  # bus free at 14, idle 1, write data 2
        ([(0, 0, 0, 0, 1), (0, 0, 0, 0, 0)], [17, 14]),  # reads go first, whoever came first
        ([(0, 0, 0, 0, 1), (0, 0, 0, 1, 1)], [11, 33]),  # end 11 + tWR 5 + 6 + 5 + 4 + 2
    ],
)
def test_two_requests_by_hand(requests, ends):
    assert run(twin.Times(**QUIET), [twin.Request(*r) for r in requests])[0] == ends


def test_a_read_waits_for_written_data():
    times = twin.Times(**QUIET | {"window": 1})
    done, _ = run(times, [twin.Request(0, 0, 0, 0, 1), twin.Request(0, 0, 0, 0, 0)])
    assert done == [11, 24]  # write at 5, data to 11, tWTR_L 4, read 7 + 2


def test_a_refresh_stops_the_rank():
    times = twin.Times(**QUIET | {"refi": 100})
    # Reads at 5, 8, … 98; refresh due: precharge 100, refresh 106, activate 156, read 161.
    done, counts = run(times, [twin.Request(0, 0, 0, 0, 0)] * 33)
    assert done == [*range(14, 108, 3), 170]
    assert counts == (2, 1)


GEOMETRIES = [
    {"channels": 3, "unit": 4, "lanes": 2, "row_bursts": 8, "ranks": 2, "groups": 4, "banks": 2},
    {"channels": 1, "unit": 1, "lanes": 1, "row_bursts": 4, "ranks": 1, "groups": 1, "banks": 8},
    {"channels": 16, "unit": 8, "lanes": 4, "row_bursts": 32, "ranks": 1, "groups": 4, "banks": 4},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_row_of_every_bank_is_filled_once(geometry):
    each = geometry["ranks"] * geometry["groups"] * geometry["banks"]
    rows = 5
    count = rows * each * geometry["row_bursts"] * geometry["channels"]
    channel, requests = dram.locate(np.arange(count), **geometry)
    bank, row = requests[:, dram.BANK], requests[:, dram.ROW]
    places, filled = np.unique(np.stack([channel, bank, row]), axis=1, return_counts=True)
    assert places.shape[1] == rows * each * geometry["channels"]
    assert set(filled) == {geometry["row_bursts"]}
    group = requests[:, dram.GROUP] + geometry["groups"] * requests[:, dram.RANK]
    assert (bank // geometry["banks"] == group).all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_neighbours_go_round_channels_and_lanes(geometry):
    channel, requests = dram.locate(np.arange(960), **geometry)
    units = channel.reshape(-1, geometry["unit"])
    assert (units == units[:, :1]).all()
    rounds = units[: len(units) // geometry["channels"] * geometry["channels"], 0]
    rounds = np.sort(rounds.reshape(-1, geometry["channels"]), axis=1)
    assert (rounds == np.arange(geometry["channels"])).all()
    for c in range(geometry["channels"]):
        group = requests[channel == c, dram.GROUP]
        group = group[: len(group) // geometry["lanes"] * geometry["lanes"]]
        for turn in group.reshape(-1, geometry["lanes"]):
            assert len(set(turn.tolist())) == geometry["lanes"]


def test_no_stride_of_a_power_of_two_meets_one_channel_or_bank():
    for power in range(3, 20):
        channel, requests = dram.locate(np.arange(2000) << power, **GEOMETRIES[2])
        assert np.bincount(channel, minlength=16).max() < 2 * 2000 / 16, power
        assert np.bincount(requests[:, dram.BANK], minlength=16).max() < 3 * 2000 / 16, power
