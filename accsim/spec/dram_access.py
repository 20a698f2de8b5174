"""The bandwidth an access pattern sustains on a DRAM part: in closed form, and replayed.

`sustained_gb_per_s` is arithmetic; `replayed_gb_per_s` runs the same accesses through the banks of
kernels/dram.py. docs/dram.md has the equations and how far the two are apart. All times in here
are clocks of the command bus for one burst of one channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError
from accsim.spec.dram import DramPart

Ints = npt.NDArray[np.int64]

# Fitted to 2000 random replays and held to 2000 others (reports/dram/fit.py).
_CROWDING = 0.36  # how far the fullest bank of a window is above the mean, in balls-in-bins units
_SHARPNESS = 6.0  # exponent that joins limits: high is their maximum, 1 their sum
_TURNS = 1.3  # turnarounds per two windows, relative to one there and one back
_CHURN = 0.09  # row misses that reads and writes cause each other, per visit and share
_WANDERING = 0.6  # bursts until random traffic meets a refreshing bank, relative to banks × hits
_BYSTANDERS = 0.5  # of another rank's refresh, the share that random traffic still waits for

_WRITES_START = 2**40 + 2**23  # bursts between what a pattern reads and what it writes


def _checked(
    part: DramPart, run: int, stride: int | None, write_share: float, channels: int | None
) -> int:
    """Refuse an access pattern that makes no sense; return the number of channels."""
    if run < 1 or (stride is not None and stride < run):
        raise InputError(
            f"run_bytes must be at least 1 and stride_bytes no less than it; got {run}, {stride}"
        )
    if not 0 <= write_share <= 1:
        raise InputError(f"write_share must be from 0 to 1; got {write_share}")
    if channels is not None and channels < 1:
        raise InputError(f"channels must be at least 1; got {channels}")
    return part.channels if channels is None else channels


def bursts_per_run(part: DramPart, run_bytes: int, stride_bytes: int | None) -> float:
    """Return the mean bursts a run takes; one that two neighbouring runs share is fetched once.

    A random run starts on a burst. Runs of a stride start wherever their multiple of it lies.
    """
    size = part.burst_bytes
    if stride_bytes is None:
        return float(-(-run_bytes // size))
    start = np.arange(size // math.gcd(stride_bytes, size) + 1) * stride_bytes
    first, last = start // size, (start + run_bytes - 1) // size
    fetched = last[1:] - first[1:] + (first[1:] != last[:-1])
    return float(fetched.mean())


def burst_addresses(
    part: DramPart, run_bytes: int, stride_bytes: int | None, count: int, seed: int = 0
) -> tuple[Ints, Ints]:
    """Return about ``count`` burst addresses in order, and the run each belongs to."""
    size = part.burst_bytes
    runs = round(count / bursts_per_run(part, run_bytes, stride_bytes))
    if stride_bytes is None:
        first = np.random.Generator(np.random.PCG64(seed)).integers(0, 2**30, runs)
        last = first + -(-run_bytes // size) - 1
    else:
        start = np.arange(runs, dtype=np.int64) * stride_bytes
        first, last = start // size, (start + run_bytes - 1) // size
        first[1:] += first[1:] == last[:-1]
    lengths = last - first + 1
    run = np.repeat(np.arange(runs), lengths)
    within = np.arange(len(run)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return first[run] + within, run


def _traffic(
    part: DramPart, run: int, stride: int | None, write_share: float, count: int
) -> tuple[Ints, Ints]:
    """Return burst addresses and their writes: two patterns apart, taking turns run by run."""
    read, read_run = burst_addresses(part, run, stride, round(count * (1 - write_share)))
    write, write_run = burst_addresses(part, run, stride, round(count * write_share), seed=1)
    due = np.concatenate(
        [read_run / max(1 - write_share, 1e-9), (write_run + 0.5) / max(write_share, 1e-9)]
    )
    order = np.argsort(due, kind="stable")
    bursts = np.concatenate([read, write + _WRITES_START])[order]
    return bursts, np.repeat([0, 1], [len(read), len(write)])[order]


def replayed_gb_per_s(
    part: DramPart,
    run_bytes: int,
    stride_bytes: int | None = None,
    write_share: float = 0.0,
    channels: int | None = None,
    *,
    bursts_per_channel: int = 20_000,
) -> float:
    """Return the useful bandwidth of an access pattern from the clockwork of the banks.

    Arguments as of `sustained_gb_per_s`. Every channel's window is kept full; time counts
    over whole refresh intervals, from the first refresh on, while all channels are busy.
    """
    from accsim.kernels import dram  # numba: here, so that the noun stays light

    used = _checked(part, run_bytes, stride_bytes, write_share, channels)
    count = bursts_per_channel * used
    bursts, is_write = _traffic(part, run_bytes, stride_bytes, write_share, count)
    channel, requests = dram.locate(
        bursts,
        channels=used,
        unit=part.controller.interleave_bytes // part.burst_bytes,
        lanes=part.lanes,
        row_bursts=part.row_bytes // part.burst_bytes,
        ranks=part.ranks,
        groups=part.bank_groups,
        banks=part.banks_per_group,
    )
    requests[:, dram.WRITE] = is_write
    table, ends = part.parameters(), []
    for c in range(used):
        mine = np.ascontiguousarray(requests[channel == c])
        ends.append(np.zeros(len(mine), np.int64))
        dram.replay(table, mine, ends[-1])
    until = min(int(end.max(initial=0)) for end in ends)
    interval = part.clocks(part.timings.trefi_ns)
    since, until = (interval, until // interval * interval) if until > 2 * interval else (0, until)
    moved = sum(int(((end > since) & (end <= until)).sum()) for end in ends)
    useful = run_bytes / bursts_per_run(part, run_bytes, stride_bytes)
    return float(moved * useful * part.clock_ghz / max(until - since, 1))


@dataclass(frozen=True)
class _Pattern:
    """An access pattern as one channel sees it."""

    bursts: float
    chunk: float  # bursts of a run that lie together in a channel
    visits: float  # activates per burst, if no row is opened twice
    write_share: float
    sequential: bool


def _pattern(
    part: DramPart, run: int, stride: int | None, write_share: float, channels: int
) -> _Pattern:
    bursts = bursts_per_run(part, run, stride)
    unit = part.controller.interleave_bytes // part.burst_bytes
    row = part.row_bytes // part.burst_bytes
    chunk = max(bursts / channels, min(bursts, unit))
    if stride == run:
        return _Pattern(bursts, chunk, 1 / row, write_share, True)
    open_rows = channels * part.lanes  # that neighbouring addresses fill together
    first = np.minimum(bursts, unit - np.arange(unit))  # of a run that starts anywhere in a unit
    whole, last = np.divmod(bursts - first, unit)
    pieces = [np.minimum(part.lanes, piece) for piece in (first, last)]
    rows = float((sum(pieces) + whole * min(part.lanes, unit)).mean())
    rows = min(rows, open_rows * (1 + (bursts - 1) / (open_rows * row)))
    if stride is not None and stride < open_rows * part.row_bytes:
        turn = stride / (open_rows * part.row_bytes)  # of these rows, what a stride advances
        rows = turn * open_rows * -math.expm1(-rows / (turn * open_rows))
    return _Pattern(bursts, chunk, rows / bursts, write_share, False)


def _bank_clocks(part: DramPart, pattern: _Pattern, column: float) -> float:
    """Clocks a burst, if only the banks limit: the fullest one of a window, or of two in a mix."""
    c, t, window = part.clocks, part.timings, part.controller.window
    banks = part.ranks * part.bank_groups * part.banks_per_group
    hits = min(1 / pattern.visits, window) - 1
    burst, writes = part.burst_clocks, pattern.write_share
    after = {0: c(t.trtp_ns), 1: c(t.tcwl_ns) + burst + c(t.twr_ns)}
    busy = {
        w: max(c(t.tras_ns), c(t.trcd_ns) + hits * column + after[w]) + c(t.trp_ns) for w in after
    }

    def fullest(visits: float) -> float:
        mean = visits / banks
        if pattern.sequential:
            return mean
        return min(visits, mean + _CROWDING * math.sqrt(2 * mean * math.log(max(banks, 2))))

    shares = {0: 1 - writes, 1: writes}
    mean_busy = sum(shares[w] * busy[w] for w in busy)
    if writes in (0, 1):
        return fullest(window * pattern.visits) * mean_busy / window
    return sum(fullest(2 * window * s * pattern.visits) * busy[w] for w, s in shares.items()) / (
        2 * window
    )


def _turn_clocks(part: DramPart, pattern: _Pattern, column: float) -> float:
    """Clocks a burst that the data bus spends on changing direction, once in two windows."""
    c, t, burst = part.clocks, part.timings, part.burst_clocks
    mixed = min(pattern.write_share, 1 - pattern.write_share)
    if not mixed:
        return 0.0
    to_write = c(t.tcl_ns) + burst + c(t.turn_ns) - c(t.tcwl_ns) - column
    to_read = c(t.tcwl_ns) + burst + c(t.twtr_l_ns) - column
    pair = max(2 * part.controller.window, pattern.chunk / mixed)
    misses = _CHURN * pattern.visits * mixed * (c(t.trp_ns) + c(t.trcd_ns))
    return _TURNS * (max(0, to_write) + max(0, to_read)) / pair + misses


def _refresh_loss(part: DramPart, pattern: _Pattern, clocks: float) -> float:
    """Share of time lost to refresh, where a burst otherwise takes ``clocks``."""
    c, t = part.clocks, part.timings
    reopen = c(t.trp_ns) + c(t.trcd_ns)
    others = part.ranks - 1
    if t.trfc_pb_ns is None:
        loss = (c(t.trtp_ns) + c(t.trfc_ns) + reopen) / c(t.trefi_ns)
        return min(0.9, loss if pattern.sequential else loss * (1 + _BYSTANDERS * others))
    banks = part.bank_groups * part.banks_per_group
    blocked = max(0.0, c(t.trfc_pb_ns) + reopen - part.controller.window * clocks)
    around = banks * clocks / pattern.visits
    if pattern.sequential:  # it comes by once a turn around the banks
        stall = blocked**2 / (2 * around) if blocked < around else blocked - around / 2
    else:
        mean = _WANDERING * part.ranks * around
        stall = blocked + mean * math.expm1(-blocked / mean)
    stall *= part.ranks
    return stall / (c(t.trefi_ns / banks) + stall)


def sustained_gb_per_s(
    part: DramPart,
    run_bytes: int,
    stride_bytes: int | None = None,
    write_share: float = 0.0,
    channels: int | None = None,
) -> float:
    """Return the useful bandwidth of an access pattern in closed form.

    Args:
        part: the DRAM and its controller.
        run_bytes: neighbouring bytes accessed together.
        stride_bytes: from one run to the next; equal to run_bytes: streaming; None: random runs.
        write_share: share of runs that write, elsewhere than the others read; 0.5 is a copy.
        channels: instead of the part's own number, e.g. of several stacks.

    Raises:
        InputError: a run without bytes, a stride below it, a share outside 0 … 1.
    """
    used = _checked(part, run_bytes, stride_bytes, write_share, channels)
    pattern = _pattern(part, run_bytes, stride_bytes, write_share, used)
    c, t, command, visits = part.clocks, part.timings, part.commands, pattern.visits
    column = max(c(t.tccd_s_ns), c(t.tccd_l_ns) / part.bank_groups)
    # A window that does not reach far enough ahead lets a row miss show.
    shown = max(0.0, c(t.trp_ns) + c(t.trcd_ns) - part.controller.window * column)
    bus = column + shown * min(visits / part.lanes, 1 / part.controller.window)
    rows = max(c(t.trrd_s_ns), c(t.tfaw_ns) / 4, c(t.trrd_l_ns) / part.bank_groups) / part.ranks
    row_commands = visits * (command.activate_clocks + command.precharge_clocks)
    columns = command.column_clocks
    commands = max(columns, row_commands) if command.row_bus else columns + row_commands
    limits = (bus, visits * rows, _bank_clocks(part, pattern, column), commands)
    clocks = math.fsum(limit**_SHARPNESS for limit in limits) ** (1 / _SHARPNESS)
    clocks += _turn_clocks(part, pattern, column)
    share = 1 - _refresh_loss(part, pattern, clocks)
    return float(used * run_bytes / pattern.bursts * part.clock_ghz * share / clocks)
