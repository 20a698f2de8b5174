"""Single figures of GPU libraries: helpers against plain loops over the table, honest statuses."""

import statistics

import pytest

import accsim
from accsim.validate.groups import gpu_decode as group
from accsim.validate.row import read


@pytest.fixture(scope="module")
def found():
    return {row.id.removeprefix("gpu_decode/"): row for row in group.rows()}


@pytest.mark.parametrize(("device", "dtype"), [x[:2] for x in group.MEDIANS])
@pytest.mark.parametrize("tokens", group.TOKENS)
def test_measured_medians_are_those_of_the_table(device, dtype, tokens):
    mine = [row for row in read("gpu_gemm.csv")
            if (row["device"], row["dtype"], int(row["t"])) == (device, dtype, tokens)
            and row["dense_us"] and row["sparse24_us"]]  # fmt: skip
    expected = statistics.median(float(x["dense_us"]) / float(x["sparse24_us"]) for x in mine)
    measured, ours, shapes = group.median_speedups(device, dtype, tokens)
    assert measured == pytest.approx(expected)
    assert shapes == len(mine) >= 10
    assert 0.5 < ours < 2


def test_best_rate_is_below_the_peak_and_above_that_of_a_small_product():
    gpu = accsim.load_hardware("a100_sxm4_80gb")
    best = group.best_tflops(gpu, "bf16")
    peak = 2e-3 * gpu.sms * gpu.tensor.rate("bf16") * gpu.clock_ghz
    small = 2e-6 * 512**3 / group.library_us(group.product(512, 512, 512, "bf16"), gpu)
    assert small < best <= peak


def test_library_time_is_that_of_a_run():
    for pattern, gpu in (("dense", "a100_pcie_80gb"), ("2:4", "rtx3090")):
        device = accsim.load_hardware(gpu)
        layer = group.product(96, 512, 1024, "fp16", pattern)
        network = accsim.gemm(96, 512, 1024, dtype="fp16").prune(pattern)
        run = accsim.simulate(network, device).cycles / device.clock_ghz * 1e-3
        assert group.library_us(layer, device) == pytest.approx(run, abs=1e-3)


def test_widths_of_as_many_tiles_take_the_same_time():
    gpu = accsim.load_hardware("rtx3090")
    assert group.width_ratio(gpu) == pytest.approx(1, abs=group.SAME)
    kernels = gpu.kernels["nm"]["fp16"].model_copy(update={"tiles": ((256, 128), (128, 128))})
    nm = {**gpu.kernels["nm"], "fp16": kernels}
    finer = gpu.model_copy(update={"kernels": {**gpu.kernels, "nm": nm}})
    assert group.width_ratio(finer) >= 1


def test_what_chose_a_number_of_ours_is_called_fitted(found):
    fitted = {name for name, row in found.items() if row.status == "fitted"}
    assert fitted == {"compression", "rtx3090/same_time", "best/b200/bf16"}
    assert found["compression"].ours_low == pytest.approx(20, rel=0.01)
    assert found["compression"].ours_high == pytest.approx(120, rel=0.01)


def test_pytorch_s_2_4_of_one_token_is_not_predicted(found):
    assert found["one_token/2:4"].verdict == "fail"
