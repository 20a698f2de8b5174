"""A DRAM channel once more, slow and obvious: clock by clock, legality read from the history.

There is no state but the list of commands issued so far: a bank's open row is found by looking
back, and whether a command is legal by holding it against every earlier one, rule by rule.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Request(NamedTuple):
    rank: int
    group: int
    bank: int  # through the whole channel
    row: int
    write: int


@dataclass(frozen=True)
class Command:
    cycle: int
    kind: str  # ACT, PRE, RD, WR, REF
    rank: int
    group: int
    banks: tuple[int, ...]
    row: int = -1


@dataclass(frozen=True)
class Times:
    rcd: int
    rp: int
    cl: int
    cwl: int
    ras: int
    ccd_s: int
    ccd_l: int
    rrd_s: int
    rrd_l: int
    faw: int
    wr: int
    wtr_s: int
    wtr_l: int
    rtp: int
    rfc: int
    refi: int
    turn: int
    burst: int
    act_clocks: int
    pre_clocks: int
    col_clocks: int
    row_bus: int
    ranks: int
    groups: int
    banks: int
    per_bank: int
    window: int


def open_row(history, bank):
    for command in reversed(history):
        if bank in command.banks:
            if command.kind == "ACT":
                return command.row
            if command.kind in ("PRE", "REF"):
                return None
    return None


def gap(p, old, new):
    """Least clocks from the old command to the new one; None: no rule."""
    rank, group = old.rank == new.rank, old.rank == new.rank and old.group == new.group
    bank = bool(set(old.banks) & set(new.banks))
    lag = {"RD": p.cl, "WR": p.cwl}
    rules = []
    if old.kind in lag and new.kind in lag:
        if old.kind == new.kind:
            rules.append((p.ccd_l if group else p.ccd_s) if rank else p.burst + p.turn)
        elif old.kind == "WR" and rank:
            rules.append(p.cwl + p.burst + (p.wtr_l if group else p.wtr_s))
        else:
            rules.append(lag[old.kind] + p.burst + p.turn - lag[new.kind])
    if old.kind == new.kind == "ACT" and rank:
        rules.append(p.rrd_l if group else p.rrd_s)
    if bank:
        rules += {
            ("ACT", "RD"): [p.rcd], ("ACT", "WR"): [p.rcd], ("ACT", "PRE"): [p.ras],
            ("RD", "PRE"): [p.rtp], ("WR", "PRE"): [p.cwl + p.burst + p.wr],
            ("PRE", "ACT"): [p.rp], ("PRE", "REF"): [p.rp],
            ("REF", "ACT"): [p.rfc], ("REF", "REF"): [p.rfc],
        }.get((old.kind, new.kind), [])  # fmt: skip
    return max(rules, default=None)


def bus_clocks(p, kind):
    return {"ACT": p.act_clocks, "RD": p.col_clocks, "WR": p.col_clocks}.get(kind, p.pre_clocks)


def bus_of(p, kind):
    return "column" if kind in ("RD", "WR") or not p.row_bus else "row"


def legal(p, history, new):
    """Whether the new command breaks no rule against any earlier one."""
    for old in history:
        least = gap(p, old, new)
        if least is not None and new.cycle < old.cycle + least:
            return False
        same_bus = bus_of(p, old.kind) == bus_of(p, new.kind)
        if same_bus and new.cycle < old.cycle + bus_clocks(p, old.kind):
            return False
    activates = [c.cycle for c in history if c.kind == "ACT" and c.rank == new.rank]
    four = new.kind == "ACT" and len(activates) >= 4
    return not four or new.cycle >= activates[-4] + p.faw


def target_of(p, history, rank, waiting):
    """Banks of the rank's next refresh: all, or the one not yet refreshed that disturbs least."""
    each = p.groups * p.banks
    banks = range(rank * each, rank * each + each)
    if not p.per_bank:
        return tuple(banks)
    past = [c.banks[0] for c in history if c.kind == "REF" and c.rank == rank]
    left = set(banks) - set(past[len(past) // each * each :])
    asked = {r.bank for _, r in waiting}

    def preference(bank):
        used = [c.cycle for c in history if c.kind in ("RD", "WR") and bank in c.banks]
        return bank not in asked, max(used, default=-1), -bank

    return (max(left, key=preference),)


def refresh_choice(p, history, cycle, targets):
    """The first refresh command that may go in this cycle, or None."""
    for rank, banks in sorted(targets.items()):
        opened = tuple(b for b in banks if open_row(history, b) is not None)
        command = Command(cycle, "PRE" if opened else "REF", rank, -1, opened or banks)
        if legal(p, history, command):
            return command
    return None


def choice(p, history, cycle, waiting, direction, held):
    """First legal column, else first legal row command, of the (place, request) in the window."""
    for place, r in waiting:
        kind = "WR" if r.write else "RD"
        command = Command(cycle, kind, r.rank, r.group, (r.bank,), r.row)
        fits = r.write == direction and r.bank not in held
        if fits and open_row(history, r.bank) == r.row and legal(p, history, command):
            return command, place
    mine = [r for _, r in waiting if r.write == direction]
    others = [r for _, r in waiting if r.write != direction]
    seen = {r.bank for r in mine if open_row(history, r.bank) == r.row}
    for r in mine + others:
        if r.bank in seen or r.bank in held:
            continue
        seen.add(r.bank)
        row = open_row(history, r.bank)
        kind = "ACT" if row is None else "PRE"
        command = Command(cycle, kind, r.rank, r.group, (r.bank,), r.row)
        if row != r.row and legal(p, history, command):
            return command, None
    return None, None


def replay(p, requests):
    """Return the cycle each request's last data has moved, and the history."""
    history, ends, targets, direction, cycle = [], [None] * len(requests), {}, 0, 0
    while None in ends:
        head = ends.index(None)
        waiting = [(i, r) for i, r in list(enumerate(requests))[head : head + p.window]]
        waiting = [(i, r) for i, r in waiting if ends[i] is None]
        for rank in range(p.ranks):
            past = sum(c.kind == "REF" and c.rank == rank for c in history)
            due = p.refi * (rank + 1) // p.ranks + past * p.refi
            if cycle >= due and rank not in targets:
                targets[rank] = target_of(p, history, rank, waiting)
        if all(r.write != direction for _, r in waiting):
            direction = 1 - direction
        held = {bank for banks in targets.values() for bank in banks}
        command, place = refresh_choice(p, history, cycle, targets), None
        if command is None:
            command, place = choice(p, history, cycle, waiting, direction, held)
        if command is None:
            cycle += 1
            continue
        history.append(command)
        if command.kind == "REF":
            del targets[command.rank]
        if place is not None:
            lag = p.cwl if requests[place].write else p.cl
            ends[place] = cycle + lag + p.burst
    return ends, history
