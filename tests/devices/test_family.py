"""Families of devices from elsewhere: no ``memory``, no energy table, and everything works."""

import csv
import json
import math
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
from pydantic import Field

import accsim
from accsim.base.errors import AccsimError, InputError
from accsim.cli import main
from accsim.cost.why import findings
from accsim.files import hardware as registry
from accsim.files.board import load_board
from accsim.files.schema import schema_of
from accsim.result import COLUMNS
from accsim.simulation import _waiting_as_played
from accsim.spec.base import PositiveFloat, PositiveInt, Spec
from accsim.spec.counts import Counts
from accsim.spec.device import Family
from accsim.spec.memory import MemoryLevel
from accsim.spec.schedule import (
    Channel,
    Evaluation,
    Machine,
    Pool,
    Schedule,
    all_causes,
    tile_dtype,
)
from accsim.spec.sourced import Sourced
from accsim.spec.why import Counterfactuals, Rule, WhatIf

TILE = 64  # rows of X a bead frame takes
SPLIT = (1000, 600)  # bytes a tile loads from DRAM and from L2


class Frame(Spec):
    label: str = ""
    beads: PositiveInt


class Abacus(Spec):
    """``units`` frames of beads behind an L2; its clock sinks under load."""

    name: str
    title: str = ""
    kind: Literal["abacus"] = "abacus"
    clock_ghz: PositiveFloat
    units: PositiveInt = 4
    frame: Frame
    watts: PositiveFloat = 2.0
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @property
    def memory_levels(self):
        return (
            MemoryLevel("l2", 2**20, 40.0, 3, None, None, True),
            MemoryLevel("dram", None, 20.0, 5, None, None, False),
        )


class AbacusDevice(Family):
    """Beads move twice as fast for fp8; a tenth of the work is lost to a low clock."""

    spec = Abacus
    levels = ("closed", "events")
    tables = {"frame": ("frames", "label")}  # noqa: RUF012

    @staticmethod
    def peak_macs_per_cycle(device, layer):
        return device.units * device.frame.beads * (2 if layer.dtype == "fp8" else 1)

    def _work(self, layer):
        return -(-layer.macs // self.peak_macs_per_cycle(self.device, layer))

    def evaluate(self, layers, masks):
        work = np.array([self._work(layer) for layer in layers])
        causes = {"work": work, "throttle": work // 10, "dram": work // 4, "l2": work // 8}
        cycles = sum(causes.values())
        return Evaluation(
            cycles=cycles,
            causes=all_causes(causes, ["dram", "l2"], cycles),
            counts=Counts({"beads": work, "dram_read_bytes": 3 * work, "l2_read_bytes": 5 * work}),
            metadata_bits=np.zeros_like(work),
            effective_macs=np.array([masks.kept(x) * x.gemm.t * x.runs for x in layers]),
            mode=("beads",) * len(layers),
            extra={"clock_mhz": np.full(len(layers), 900.0), "unsaid": np.zeros(len(layers))},
        )

    def schedule(self, layer, masks):
        channels = (Channel("dram", 20.0, 5), Channel("l2", 40.0, 3))
        machine = Machine(channels, (Pool("frame", self.device.units),), "elastic")
        tiles = np.zeros(-(-layer.gemm.t // TILE), dtype=tile_dtype(2))
        tiles["work_cycles"] = tiles["compute_cycles"] = layer.gemm.k
        tiles["load_bytes"] = SPLIT
        return Schedule(tiles, machine, runs=layer.runs)

    @staticmethod
    def energy_pj(found, layers, device):
        whole = device.watts * 1e3 * found.cycles / device.clock_ghz
        return {"core": 0.75 * whole, "l2": 0.25 * whole}

    @staticmethod
    def energy_words(device):
        return f"{device.watts:g} W whatever it does"

    @staticmethod
    def meanings(device):
        return {
            "clock_mhz": "clock it came down to",
            "energy_core_j": "beads and fingers",
            "padding_cycles": "fingers that touch no bead",
        }

    @staticmethod
    def counterfactuals():
        faster = WhatIf("at twice the clock", lambda d: d.model_copy(
            update={"clock_ghz": 2 * d.clock_ghz}))  # fmt: skip
        more = WhatIf("{device.units} frames", lambda d: d.model_copy(
            update={"units": 2 * d.units}))  # fmt: skip
        rules = {"work": Rule("calculating ({work} work)", "units", ("clock",))}
        return Counterfactuals(rules, {"units": more, "clock": faster})


class RangedDevice(AbacusDevice):
    """The same with a range of its own."""

    @staticmethod
    def energy_range_pj(found, layers, device):
        parts = AbacusDevice.energy_pj(found, layers, device)
        return {part: (0.9 * pj, 1.2 * pj) for part, pj in parts.items()}


class Plain(Spec):
    """The least a noun can be."""

    name: str
    title: str = "as little as possible"
    kind: Literal["plain"] = "plain"
    clock_ghz: float
    sources: dict[str, Sourced] = Field(default_factory=dict, repr=False)

    @property
    def memory_levels(self):
        return ()


class PlainDevice(Family):
    """The least a family can be: a MAC a cycle, no memory, no energy."""

    spec = Plain

    @staticmethod
    def peak_macs_per_cycle(device, layer):
        return 1

    def evaluate(self, layers, masks):
        cycles = np.array([layer.macs for layer in layers])
        none = np.zeros_like(cycles)
        causes = all_causes({"work": cycles}, [], cycles)
        return Evaluation(cycles, causes, Counts({}), none, cycles, ("plain",) * len(layers))


class Stranger:
    spec = Plain


KINDS = {"abacus": AbacusDevice, "plain": PlainDevice}
ABACUS = """
kind: abacus
title: a frame of beads
source: chosen
status: chosen
clock_ghz: 1.0
frame:
  beads: 8
"""


@pytest.fixture
def register(monkeypatch):
    """Stand in for the entry points of other packages, beside the built-in ones."""
    builtin = registry._entry_points()

    def registered(**kinds):
        points = [(kind, SimpleNamespace(load=lambda f=f: f)) for kind, f in kinds.items()]
        monkeypatch.setattr(registry, "_entry_points", lambda: (*builtin, *points))

    registered(**KINDS)
    return registered


@pytest.fixture
def files(register, tmp_path):
    (tmp_path / "abacus.yaml").write_text(ABACUS, encoding="utf-8")
    plain = "kind: plain\nclock_ghz: {value: 2.0, source: chosen}\n"
    (tmp_path / "plain.yaml").write_text(plain, encoding="utf-8")
    return tmp_path


def call(capsys, *words, expect=0):
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    assert code == expect, (code, out, err)
    return out, err


def two_layers():
    first, second = (accsim.gemm(256, 64, 32, dtype=d, name=d).layers[0] for d in ("fp8", "fp4"))
    return accsim.Workload(name="two", layers=(first, second))


# --- loading -------------------------------------------------------------------------------------


def test_a_file_of_the_kind_becomes_its_noun(files):
    device = accsim.load_hardware(files / "abacus.yaml", {"frame.beads": 16, "units": 2})
    assert isinstance(device, Abacus)
    assert (device.name, device.frame.beads, device.units) == ("abacus", 16, 2)
    assert device.sources["clock_ghz"].source == "chosen"
    assert device.sources["frame.beads"].source == "override of this run"


def test_a_word_names_a_file_where_the_family_says_so(files):
    (files / "big.yaml").write_text("beads: {value: 99, source: chosen}\n", encoding="utf-8")
    text = ABACUS.replace("frame:\n  beads: 8\n", "frame: big.yaml\n")
    (files / "named.yaml").write_text(text, encoding="utf-8")
    device = accsim.load_hardware(files / "named.yaml")
    assert (device.frame.label, device.frame.beads) == ("big", 99)
    more = accsim.load_hardware(files / "abacus.yaml", {"frame": "big.yaml", "frame.beads": 7})
    assert (more.frame.label, more.frame.beads) == ("big", 7)
    (files / "same.yaml").write_text("extends: big\n", encoding="utf-8")
    same = accsim.load_hardware(files / "abacus.yaml", {"frame": "same.yaml"})
    assert (same.frame.label, same.frame.beads) == ("same", 99)
    text = text.replace("frame: big.yaml", "frame: nowhere")
    (files / "named.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="frame: no file of frames called 'nowhere'"):
        accsim.load_hardware(files / "named.yaml")


def test_mistakes_in_its_file_are_refused_with_their_line(files):
    with pytest.raises(InputError, match="unknown key 'unitz', did you mean 'units'"):
        accsim.load_hardware(files / "abacus.yaml", {"unitz": 3})
    with pytest.raises(InputError, match="unknown key 'energy'"):
        accsim.load_hardware(files / "abacus.yaml", {"energy": "cmos_22nm"})
    with pytest.raises(InputError, match=r"kind must be one of abacus, .*; got 'abac'"):
        accsim.load_hardware(files / "abacus.yaml", {"kind": "abac"})


def test_the_schema_has_all_kinds(register):
    kinds = {x["properties"]["kind"]["const"]: x["properties"] for x in schema_of("hw")["anyOf"]}
    assert set(kinds) >= {"systolic", "tensorcore", "abacus", "plain"}
    assert kinds["abacus"]["frame"]["anyOf"][0]["type"] == "string"
    assert "energy" not in kinds["abacus"]


def test_a_family_that_does_not_inherit_is_named(register):
    register(stranger=Stranger)
    with pytest.raises(AccsimError, match="device family 'stranger' must inherit accsim"):
        registry.device_of("stranger")


# --- simulating ----------------------------------------------------------------------------------


def test_totals_and_table_come_from_the_family(files):
    result = accsim.simulate(two_layers(), accsim.load_hardware(files / "abacus.yaml"))
    macs = 256 * 64 * 32
    work = [macs // 64, macs // 32]  # 4 frames of 8 beads, twice as fast in fp8
    assert result.columns["work_cycles"] == work
    assert result.cycles == sum(w + w // 10 + w // 4 + w // 8 for w in work)
    assert result.columns["throttle_cycles"] == [w // 10 for w in work]
    assert result.columns["l2_cycles"] == [w // 8 for w in work]
    assert result.columns["l2_read_bytes"] == [5 * w for w in work]
    share = macs / (result.columns["cycles"][0] * 64)
    assert result.columns["utilisation"] == pytest.approx([share, share], rel=1e-3)
    assert result.utilisation == pytest.approx(share, rel=1e-3)
    mean = result.peak_macs_per_cycle
    assert mean == pytest.approx((64 + 2 * 32) / 3, rel=1e-3)
    assert result.effective_tops == pytest.approx(result.utilisation * 2 * mean / 1e3)
    assert result.energy_j == pytest.approx(2 * result.latency_s)
    assert result.columns["energy_mac_j"] == [0, 0]
    assert sum(result.columns["energy_core_j"]) == pytest.approx(0.75 * result.energy_j)
    assert sum(result.columns["energy_l2_j"]) == pytest.approx(0.25 * result.energy_j)


def test_every_documented_column_is_there_and_its_own_behind(files):
    result = accsim.simulate(two_layers(), accsim.load_hardware(files / "abacus.yaml"))
    names = list(result.columns)
    assert [name for name in names if name in COLUMNS] == list(COLUMNS)
    assert names[-2:] == ["clock_mhz", "unsaid"]
    assert names.index("energy_core_j") == names.index("energy_static_j") - 1
    assert result.meanings["clock_mhz"] == "clock it came down to"
    assert result.meanings["padding_cycles"] == "fingers that touch no bead"
    assert result.meanings["energy_core_j"] == "beads and fingers"
    assert result.meanings["l2_cycles"] == "waiting for l2 otherwise"
    assert "unsaid" not in result.meanings


def test_events_play_its_schedule_and_the_rest_is_waiting(files):
    device = accsim.load_hardware(files / "abacus.yaml")
    net = accsim.gemm(256, 640, 32)
    closed = accsim.simulate(net, device)
    played = accsim.simulate(net, device, level="events")
    # by hand: four tiles on four frames; their loads queue 50 cycles each on DRAM, the last is
    # complete 5 cycles later, and then takes 640 cycles
    assert played.cycles == 4 * 50 + 5 + 640
    assert sum(played.causes.values()) == played.cycles != closed.cycles
    assert min(played.causes.values()) >= 0
    assert played.causes["work"] <= closed.causes["work"]


def test_of_equal_layers_dense_ones_are_played_once_and_pruned_ones_each(files):
    device = accsim.load_hardware(files / "abacus.yaml")
    layer = accsim.gemm(64, 64, 32).layers[0]
    layers = tuple(layer.model_copy(update={"name": name}) for name in "abc")
    played = []
    net = accsim.Workload(name="net", layers=layers)
    accsim.simulate(net, device, level="events", progress=played.append)
    assert played == ["a"]
    accsim.simulate(net.prune("2:4"), device, level="events", progress=played.append)
    assert played == ["a", *"abc"]


@pytest.mark.parametrize("change", [0, 7, -3, -30, -90])
def test_cycles_of_the_engine_keep_the_sum_of_causes(change):
    cycles = np.array([100, 100])
    causes = {"work": [70, 100], "padding": [10, 0], "dram": [5, 0], "l2": [15, 0]}
    causes = all_causes({k: np.array(v) for k, v in causes.items()}, ["dram", "l2"], cycles)
    none = np.zeros_like(cycles)
    found = Evaluation(cycles, causes, Counts({}), none, none, ("", ""))
    played = _waiting_as_played(found, cycles + change)
    spent = {cause: each.tolist() for cause, each in played.causes.items()}
    assert [sum(each[i] for each in spent.values()) for i in (0, 1)] == [100 + change] * 2
    assert min(map(min, spent.values())) >= 0
    by_hand = {0: (70, 10, 5, 15), 7: (70, 10, 5, 22), -3: (70, 10, 5, 12), -30: (60, 10, 0, 0),
               -90: (0, 10, 0, 0)}[change]  # fmt: skip
    assert tuple(spent[c][0] for c in ("work", "padding", "dram", "l2")) == by_hand
    assert spent["dram"][1] == max(change, 0)
    assert found.causes["l2"][0] == 15  # the closed form's own is left alone


def test_levels_it_does_not_have_are_refused_by_name(files):
    device = accsim.load_hardware(files / "abacus.yaml")
    wanted = "abacus 'abacus': level must be one of closed, events; got 'register'"
    with pytest.raises(InputError, match=wanted):
        accsim.simulate(accsim.gemm(8, 8, 8), device, level="register")
    plain = accsim.load_hardware(files / "plain.yaml")
    with pytest.raises(InputError, match="plain 'plain': level must be one of closed; got 'ev"):
        accsim.simulate(accsim.gemm(8, 8, 8), plain, level="events")


@pytest.mark.parametrize("wrong", ["abacus", None, SimpleNamespace(kind="abacus"), [1]])
def test_what_is_no_device_is_refused(register, wrong):
    with pytest.raises(InputError, match="hardware must be what load_hardware returns"):
        accsim.simulate(accsim.gemm(8, 8, 8), wrong)


def test_a_board_is_no_device(register):
    with pytest.raises(InputError, match="hardware must be what load_hardware returns"):
        accsim.simulate(accsim.gemm(8, 8, 8), load_board("a100_sxm4_40gb"))


# --- energy --------------------------------------------------------------------------------------


def test_an_energy_without_a_table_has_no_range_and_says_so(files):
    result = accsim.simulate(two_layers(), accsim.load_hardware(files / "abacus.yaml"))
    assert result.energy_range_pj == {}
    assert result.energy_low_j is None
    assert result.totals["energy_high_j"] is None
    assert result.provenance["energy_table"] == "2 W whatever it does"
    with pytest.raises(InputError, match="no range is known of the energy of 'abacus'"):
        result.compare_energy(result)


def test_a_range_of_its_own_is_carried_and_moves_alone(files, register):
    register(abacus=RangedDevice)
    device = accsim.load_hardware(files / "abacus.yaml")
    small, large = (accsim.simulate(accsim.gemm(t, 64, 32), device) for t in (256, 300))
    assert small.energy_low_j == pytest.approx(0.9 * small.energy_j)
    assert small.energy_high_j == pytest.approx(1.2 * small.energy_j)
    found = small.compare_energy(large)
    assert found.low_j == pytest.approx(0.9 * small.energy_j - 1.2 * large.energy_j)
    assert found.high_j == pytest.approx(1.2 * small.energy_j - 0.9 * large.energy_j)
    assert found.ranking == found.independent == "inside the range"
    assert large.compare_energy(accsim.simulate(accsim.gemm(64, 64, 32), device)).ranking == "b"
    table = accsim.simulate(accsim.gemm(64, 64, 32), accsim.load_hardware("systolic_ws_32x32"))
    assert math.isfinite(large.compare_energy(table).low_j)


# --- what is shown -------------------------------------------------------------------------------


def test_why_tries_the_familys_own_changes(files):
    device = accsim.load_hardware(files / "abacus.yaml")
    result = accsim.simulate(two_layers(), device)
    (slow, fast) = findings(result.evaluation, result.workload.layers, device)
    assert slow.layers == ("fp4",)
    assert slow.bound == "work"
    assert "calculating (68 % work), 17 % DRAM; 8 frames → " in slow.sentence
    wider = accsim.load_hardware(files / "abacus.yaml", {"units": 8})
    changed = accsim.simulate(two_layers(), wider).columns["cycles"]
    assert [x.tried[0].cycles for x in (fast, slow)] == changed
    # as many cycles of half the length are half the cycles of the clock asked about
    assert slow.tried[1].cycles == round(slow.cycles / 2)
    assert result.why() == [slow.sentence, fast.sentence]


def test_why_without_any_change_says_the_bound_alone(files):
    result = accsim.simulate(accsim.gemm(8, 8, 8), accsim.load_hardware(files / "plain.yaml"))
    assert result.why() == [
        "gemm (100 % of all): 512 cycles, compute-bound (100 % work, 100 % of peak)"
    ]


@pytest.mark.parametrize("kind", ["abacus", "plain"])
def test_results_are_saved_with_figures(files, kind):
    result = accsim.simulate(two_layers(), accsim.load_hardware(files / f"{kind}.yaml"))
    written = result.save(files / "out")
    assert {"layers.csv", "run.json", "cycles.png", "roofline.svg"} <= {f.name for f in written}
    with (files / "out" / "layers.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["cycles"]) for row in rows] == result.columns["cycles"]
    run = json.loads((files / "out" / "run.json").read_text(encoding="utf-8"))
    assert run["totals"]["cycles"] == result.cycles
    assert run["configuration"]["hardware"]["kind"] == kind
    notes = [text.get_text() for text in result.plot("roofline").texts]
    assert any("Peaks of layers differ" in note for note in notes) == (kind == "abacus")


def test_it_runs_on_the_command_line(files, capsys):
    path = files / "abacus.yaml"
    words = ("run", "gemm:256x64x32", "--hw", path, "--dtype", "fp8")
    out, _ = call(capsys, *words, "--why", "--out", files / "out", "--no-plots")
    assert "energy table     2 W whatever it does   range not known" in out
    assert "throttle" in out
    assert "L2               40 KiB read   0 B written" in out
    assert "SRAM" not in out
    assert "8 frames → " in out
    out, _ = call(capsys, *words, "--json")
    assert json.loads(out)["totals"]["energy_low_j"] is None
    _, err = call(capsys, *words, "--level", "register", expect=2)
    assert err.count("\n") == 1
    assert "level must be one of closed, events; got 'register'" in err
    call(capsys, *words, "--timeline", files / "t.json", "-q")
    assert json.loads((files / "t.json").read_text(encoding="utf-8"))


def test_the_least_a_family_can_be_runs_and_shows(files, capsys):
    path = files / "plain.yaml"
    out, _ = call(capsys, "run", "gemm:8x8x8", "--hw", path, "--why")
    assert "512 cycles" in out
    assert "DRAM" not in out
    assert "energy table     none   range not known" in out
    out, _ = call(capsys, "show", "hw", path)
    assert out.splitlines()[0] == "plain: as little as possible"
    assert "level" not in out
    _, err = call(capsys, "run", "gemm:8x8x8", "--hw", path, "--timeline", files / "t.json",
                  expect=2)  # fmt: skip
    assert "a timeline needs a device that spells out tiles; plain 'plain' has levels closed" in err


def test_show_prints_parameters_and_memories_without_prices(files, capsys):
    out, _ = call(capsys, "show", "hw", files / "abacus.yaml")
    assert "frame.beads" in out
    (dram,) = [line for line in out.splitlines() if line.startswith("dram")]
    assert dram.split() == ["dram", "–", "20", "5", "–", "–", "single"]
    _, err = call(capsys, "show", "area", files / "abacus.yaml", expect=2)
    assert "area is known of kind systolic only; 'abacus' is of kind abacus" in err


def test_fp4_is_refused_by_systolic_tables_and_never_moves_nothing():
    device = accsim.load_hardware("systolic_ws_32x32")
    with pytest.raises(InputError, match=r"has no mac\.fp4"):
        accsim.simulate(accsim.gemm(7, 9, 5, dtype="fp4"), device)
    table = device.energy.model_copy(update={"mac": device.energy.mac | {
        "fp4": device.energy.mac["fp8"]}})  # fmt: skip
    priced = device.model_copy(update={"energy": table})
    small, large = (accsim.simulate(accsim.gemm(7, 9, 5, dtype=d), priced) for d in ("fp4", "fp8"))
    # 63 inputs, 45 weights, 35 outputs of half a byte, each operand rounded up to whole bytes
    assert small.columns["dram_read_bytes"] == [32 + 23]
    assert small.columns["dram_write_bytes"] == [18]
    assert large.columns["dram_read_bytes"] == [63 + 45]
    for level in ("events", "register"):
        again = accsim.simulate(accsim.gemm(7, 9, 5, dtype="fp4"), priced, level=level)
        assert again.cycles == small.cycles
    own = accsim.load_hardware("systolic_ws_32x32", {"timing": "scalesim_v3"})
    own = own.model_copy(update={"energy": table})
    read = [accsim.simulate(accsim.gemm(7, 9, 5, dtype=d), own).columns["sram_read_bytes"][0]
            for d in ("fp4", "fp8")]  # fmt: skip
    assert read[1] <= 2 * read[0] <= read[1] + 2
