"""Shipped GPUs: rates hold vendors' TFLOPS and what was measured; sources say what is memory."""

from pathlib import Path

import pytest

import accsim
from accsim.base.errors import InputError
from accsim.cli import main
from accsim.files import catalogue
from accsim.files.hardware import device_of

FOLDER = Path(__file__).parents[2] / "hwconfigs"
GPUS = (
    "v100_pcie_32gb", "rtx3090", "a100_pcie_80gb", "a100_sxm4_80gb", "a100_sxm4_40gb",
    "h100_pcie_80gb", "h100_sxm5_80gb", "h200_sxm", "rtx4090", "rtx5080", "gb10", "b200",
)  # fmt: skip
CHIP = {"sms", "clock_ghz", "tensor", "sm", "l2", "dram", "launch", "board"}
FIRST_MMA_SP = {"rtx3090", "a100_pcie_80gb", "a100_sxm4_80gb", "a100_sxm4_40gb", "rtx4090",
                "rtx5080", "gb10"}  # fmt: skip

# shared/data/gpu_datasheet.csv (written from memory there): SMs, boost GHz, dense TFLOPS by format,
# fp32 TFLOPS, sparse fp16 TFLOPS, L2 MB, shared KB, GB/s, GB, W. fp16 with fp32 accumulation.
# The first number is the clock the tensor TFLOPS are stated at: not the table's boost clock on
# H100, H200 (its note says so for SXM5), B200, where the fp32 TFLOPS are the ones at boost.
A100 = (1.41, 108, 1.41, {"fp16": 312, "int8": 624, "tf32": 156}, 19.5, 624, 40, 164)
H100 = (1.83, 132, 1.98, {"fp16": 989, "int8": 1979, "fp8": 1979, "tf32": 495}, 66.9, 1979, 50, 228)
TABLE = {
    "a100_pcie_80gb": (*A100, 1935, 80, 300),
    "a100_sxm4_40gb": (*A100, 1555, 40, 400),
    "a100_sxm4_80gb": (*A100, 2039, 80, 400),
    "h100_pcie_80gb": (
        1.62, 114, 1.755, {"fp16": 756, "int8": 1513, "fp8": 1513, "tf32": 378}, 51.2, 1513, 50,
        228, 2039, 80, 350,
    ),
    "h100_sxm5_80gb": (*H100, 3350, 80, 700),
    "h200_sxm": (*H100, 4800, 141, 700),
    "rtx3090": (
        1.695, 82, 1.695, {"fp16": 71, "int8": 284, "tf32": 35.6}, 35.6, 142, 6, 100, 936, 24, 350,
    ),
    "rtx4090": (
        2.52, 128, 2.52, {"fp16": 165, "int8": 661, "fp8": 330, "tf32": 82.6}, 82.6, 330, 72, 100,
        1008, 24, 450,
    ),
    "b200": (
        1.856, 148, 1.965, {"fp16": 2250, "int8": 4500, "fp8": 4500, "tf32": 1125}, 75, 4500, 126,
        228, 8000, 180, 1000,
    ),
}  # fmt: skip

# Best TFLOPS over shared/data/gpu_gemm_dense_vs_24.csv (vllmbench at 92a8ca49): dense, 2:4.
MEASURED = {
    "a100_pcie_80gb": {"bf16": (234.7, 394.9), "fp16": (242.3, 400.3), "int8": (389.7, 869.5)},
    "h100_pcie_80gb": {"bf16": (527.5, 752.9), "fp8": (915.5, 1433.2), "int8": (1096.5, 1512.0)},
    "rtx5080": {"bf16": (121.6, 230.7), "fp16": (121.6, 232.5), "fp8": (242.6, 423.2),
                "int8": (430.9, 678.7), "fp4": (346.6, 349.1)},
    "gb10": {"bf16": (97.8, 139.5), "fp16": (95.3, 138.9), "fp8": (202.5, 245.2),
             "int8": (203.2, 293.2), "fp4": (646.1, 478.7)},
}  # fmt: skip


def tflops(gpu, fma, ghz):
    return gpu.sms * fma * 2 * ghz * 1e-3


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_loads_with_its_board_at_its_clock(name):
    gpu = accsim.load_hardware(name)
    assert isinstance(gpu, device_of("tensorcore").spec)
    assert (gpu.name, gpu.board.name) == (name, name)
    assert gpu.board.boost_ghz == gpu.clock_ghz


def boost_ghz(gpu):
    """Return the stated boost clock: GeForce cards run above it, as their rates show."""
    source = gpu.sources["clock_ghz"]
    return source.low if "measured" in source.source else gpu.clock_ghz


@pytest.mark.parametrize("name", TABLE)
def test_the_parameters_are_those_of_the_table(name):
    gpu = accsim.load_hardware(name)
    _, sms, ghz, _, _, _, l2, shared, gb_per_s, gb, watts = TABLE[name]
    assert (gpu.sms, boost_ghz(gpu), gpu.l2.mb, gpu.sm.shared_kb) == (sms, ghz, l2, shared)
    assert (gpu.dram.gb_per_s, gpu.dram.gb, gpu.board.cap_w) == (gb_per_s, gb, watts)


@pytest.mark.parametrize("name", TABLE)
def test_rates_and_clocks_give_the_vendors_tflops(name):
    gpu = accsim.load_hardware(name)
    stated_ghz, _, _, dense, fp32, sparse, *_ = TABLE[name]
    rates = gpu.tensor.fma_per_clock
    for dtype, expected in dense.items():
        assert tflops(gpu, rates[dtype], stated_ghz) == pytest.approx(expected, rel=0.03), dtype
    assert rates["bf16"] == rates["fp16"]
    gained = rates["fp16"] * gpu.tensor.sparse_gain["fp16"]
    assert tflops(gpu, gained, stated_ghz) == pytest.approx(sparse, rel=0.03)
    assert tflops(gpu, gpu.sm.fp32_fma_per_clock, boost_ghz(gpu)) == pytest.approx(fp32, rel=0.03)


def test_v100_gives_the_tflops_of_the_sxm2_at_its_clock():
    gpu = accsim.load_hardware("v100_pcie_32gb")
    assert tflops(gpu, gpu.tensor.fma_per_clock["fp16"], 1.53) == pytest.approx(125, rel=0.03)
    assert tflops(gpu, gpu.sm.fp32_fma_per_clock, 1.53) == pytest.approx(15.7, rel=0.03)
    assert (set(gpu.tensor.fma_per_clock), gpu.tensor.sparse_gain) == ({"fp16"}, {})
    assert set(gpu.kernels) == {"dense"}


@pytest.mark.parametrize("name", MEASURED)
def test_no_measured_gemm_beats_a_nominal_rate_at_the_highest_clock(name):
    gpu = accsim.load_hardware(name)
    ghz = max(gpu.clock_ghz, gpu.sources["clock_ghz"].high or 0)
    for dtype, (dense, sparse) in MEASURED[name].items():
        rate = gpu.tensor.fma_per_clock[dtype]
        assert dense <= tflops(gpu, rate, ghz), dtype
        assert sparse <= tflops(gpu, rate * gpu.tensor.sparse_gain[dtype], ghz), dtype


@pytest.mark.parametrize("name", GPUS)
def test_every_rate_has_an_energy_and_a_24_rate(name):
    gpu = accsim.load_hardware(name)
    rates = set(gpu.tensor.fma_per_clock)
    assert rates <= set(gpu.board.energy.mma_pj)
    assert set(gpu.tensor.sparse_gain) in (set(), rates)


@pytest.mark.parametrize("name", GPUS)
def test_sources_say_what_nobody_checked(name):
    for path, sourced in accsim.load_hardware(name).sources.items():
        assert sourced.source.strip(), path
        if sourced.source.startswith("assumed") or "not checked" in sourced.source:
            assert sourced.status == "assumed", path
        chip = path.split(".")[0] in CHIP
        if chip and sourced.status == "published":
            known = ("shared/data/gpu_datasheet.csv", "O'Connor, MICRO 2017")
            assert any(word in sourced.source for word in known), path
        if "white paper" in sourced.source:
            assert "from memory" in sourced.source, path


@pytest.mark.parametrize("name", GPUS)
def test_16_bit_24_kernels_of_the_first_generation_take_small_tiles(name):
    gpu = accsim.load_hardware(name)
    nm = gpu.kernels.get("nm", {})
    own = {dtype for dtype in nm if dtype != "default"}
    first = {dtype for dtype in own if nm[dtype].raster == "along_n"}
    measured = {"fp16"} if name == "rtx3090" else set()  # its cuSPARSELt has one tile, 256 × 128
    assert first == ({"bf16", "fp16"} - measured if name in FIRST_MMA_SP else set())
    assert all(nm[dtype].largest_tile == 128 for dtype in first)


@pytest.mark.parametrize("name", GPUS)
def test_memory_levels_grow_and_cost_more_outwards(name):
    gpu = accsim.load_hardware(name)
    levels = gpu.memory_levels
    assert [level.name for level in levels] == ["registers", "shared", "l2", "dram"]
    assert levels[0].bytes == gpu.sms * gpu.sm.register_kb * 1024
    shared, l2, dram = levels[1:]
    assert shared.bytes_per_cycle > l2.bytes_per_cycle > dram.bytes_per_cycle
    assert shared.read_pj_per_byte < l2.read_pj_per_byte < dram.read_pj_per_byte
    assert dram.bytes_per_cycle * gpu.clock_ghz == pytest.approx(gpu.dram.gb_per_s)
    assert dram.latency_cycles > l2.latency_cycles
    assert levels[0].read_pj_per_byte is None


def test_units_under_the_kernels_of_nm_are_not_nanometres():
    sources = accsim.load_hardware("h200_sxm").sources
    assert sources["kernels.nm.default.issue_share"].unit == ""
    assert sources["kernels.nm.default.launch_us"].unit == "us"
    assert sources["kernels.nm.default.step_ns"].unit == "ns"


# --- files that extend each other


def test_kernels_are_no_devices():
    folder = sorted(path.stem for path in (FOLDER / "kernels").glob("*.yaml"))
    assert folder == sorted(catalogue.names("hwconfigs", "kernels"))
    assert folder
    assert not set(folder) & set(catalogue.names("hwconfigs"))
    with pytest.raises(InputError, match="no hardware called 'nm_along_n'"):
        accsim.load_hardware("nm_along_n")


def test_all_gpus_of_one_kernels_file_share_its_numbers():
    default = accsim.load_hardware("h100_sxm5_80gb").kernels["dense"]["default"]
    found = accsim.load_hardware("h200_sxm").sources["kernels.dense.default.step_ns"]
    assert found.value == default.step_ns
    assert accsim.load_hardware("h200_sxm").kernels["dense"]["default"] == default


def test_a_file_elsewhere_extends_a_gpu_and_lays_over_its_kernels_and_board(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: h200_sxm\n"
        "dram: {gb: {value: 96, source: 'chosen: a smaller one', status: chosen}}\n"
        "kernels: {nm: {default: {step_ns: {value: 99, source: 'measured here', "
        "status: measured}}}}\n"
        "board: {extends: h200_sxm, cap_w: {value: 500, source: 'measured: -pl', "
        "status: measured}}\n",
        encoding="utf-8",
    )
    mine, base = accsim.load_hardware(path), accsim.load_hardware("h200_sxm")
    assert (mine.name, mine.dram.gb, mine.board.cap_w) == ("mine", 96, 500)
    assert mine.dram.gb_per_s == base.dram.gb_per_s
    assert mine.board.energy == base.board.energy
    assert mine.kernels["dense"] == base.kernels["dense"]
    assert mine.kernels["nm"]["default"].step_ns == 99
    assert mine.kernels["nm"]["default"].launch_us == base.kernels["nm"]["default"].launch_us
    assert mine.sources["kernels.nm.default.step_ns"].source == "measured here"


def test_a_folder_beside_the_file_is_reached_and_a_missing_file_named(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "slow.yaml").write_text(
        "extends: gb10\nlaunch: {kernel_us: {value: 9, source: chosen, status: chosen}}\n",
        encoding="utf-8",
    )
    for word in ("slow", "fast"):
        (tmp_path / f"{word}_one.yaml").write_text(f"extends: parts/{word}\n", encoding="utf-8")
    assert accsim.load_hardware(tmp_path / "slow_one.yaml").launch.kernel_us == 9
    with pytest.raises(InputError, match="parts/fast"):
        accsim.load_hardware(tmp_path / "fast_one.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tensor.fma_per_clock.fp7", 512, "fp7"),
        ("tensor.sparse_gain.fp4", 2, "sparse_gain.fp4 needs fma_per_clock.fp4"),
        ("kernels.nm.bf15.launch_us", 3, "bf15"),
        ("kernels.vnm.default.launch_us", 3, "vnm"),
        ("tensor.fetch", "cache", "cache"),
        ("board", "a100_sxm", "no board called 'a100_sxm'"),
        ("board.energy.mma_pj.fp7", 1, "fp7"),
    ],
)
def test_what_a_gpu_does_not_know_is_refused_in_one_line(key, value, message):
    with pytest.raises(InputError) as error:
        accsim.load_hardware("a100_pcie_80gb", {key: value})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_show_lists_gpus_and_every_number_of_one(capsys):
    main(["show", "hw"])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert set(GPUS) <= listed
    main(["show", "hw", "h200_sxm"])
    shown = capsys.readouterr().out
    for word in ("tensor.fma_per_clock.fp8", "kernels.nm.default.step_ns", "board.cap_w", "dram"):
        assert word in shown
