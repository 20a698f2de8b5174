"""The Python names other code calls."""

import json

import pytest

import accsim
from accsim.result import COLUMNS


def test_contract_of_the_issue():
    hardware = accsim.load_hardware("systolic_ws_32x32")
    assert accsim.simulate(accsim.gemm(256, 256, 128), hardware).cycles > 0
    other = accsim.load_hardware(
        "systolic_ws_32x32", {"array.rows": 16, "dataflow": "os", "timing": "scalesim_v3"}
    )
    assert (other.array.rows, other.dataflow, other.timing) == (16, "os", "scalesim_v3")
    # os: ⌈256/16⌉⌈128/32⌉ folds of 16 + 32 + 256 − 2, less one
    assert accsim.simulate(accsim.gemm(256, 256, 128), other).cycles == 16 * 4 * 302 - 1


def test_table_has_every_documented_column_in_order():
    result = accsim.simulate(
        accsim.load_workload("alexnet").prune("2:4"), accsim.load_hardware("systolic_nm_32x32")
    )
    assert list(result.table.columns) == list(COLUMNS)
    assert len(result.table) == 8
    assert all(meaning for meaning in COLUMNS.values())


def test_scalesim_timing_adds_its_own_columns():
    hardware = accsim.load_hardware("systolic_ws_32x32", {"timing": "scalesim_v3"})
    table = accsim.simulate(accsim.gemm(100, 64, 32), hardware).table
    assert table.ifmap_reads[0] == 100 * 64
    assert 0 < table.compute_utilisation_percent[0] <= 100


def test_prune_selects_skips_and_leaves_activation_products_alone():
    net = accsim.load_workload("bert-base").prune("2:4", skip=["encoder.layer.0.*"])
    patterns = {layer.name: str(layer.pattern) for layer in net.layers}
    assert {patterns[name] for name in patterns if name.startswith("encoder.layer.0.")} == {"dense"}
    pruned = [x for x in net.layers if x.op.kind == "linear" and ".0." not in x.name]
    assert {str(x.pattern) for x in pruned} == {"2:4"}
    assert all(str(x.pattern) == "dense" for x in net.layers if x.op.kind == "matmul")


def test_batch_multiplies_rows_or_repeats():
    one, eight = (accsim.load_workload("bert-base", batch=b) for b in (1, 8))
    for a, b in zip(one.layers, eight.layers, strict=True):
        if a.op.kind == "matmul":
            assert (b.gemm, b.runs) == (a.gemm, 8 * a.runs)
        else:
            assert (b.gemm.t, b.runs) == (8 * a.gemm.t, a.runs)
    assert eight.macs == 8 * one.macs
    assert eight.params == one.params


def test_a_device_whose_timing_ignores_zeros_never_makes_a_mask(monkeypatch):
    from accsim.sparsity.masks import Masks

    def refuse(self, layer):
        raise AssertionError("a mask was made")

    monkeypatch.setattr(Masks, "mask", refuse)
    net = accsim.load_workload("alexnet")
    for hardware in ("systolic_nm_32x32", "systolic_ws_32x32"):
        accsim.simulate(net.prune("2:4"), accsim.load_hardware(hardware))
    accsim.simulate(net.prune("unstructured@0.9"), accsim.load_hardware("systolic_ws_32x32"))
    with pytest.raises(AssertionError, match="a mask was made"):
        accsim.simulate(net.prune("unstructured@0.9"), accsim.load_hardware("systolic_nm_32x32"))


def test_seed_decides_masks_and_nothing_else():
    net = accsim.gemm(64, 512, 256).prune("unstructured@0.95")
    hardware = accsim.load_hardware("systolic_nm_32x32", {"array.lanes": 8})
    runs = [accsim.simulate(net, hardware, seed=seed).columns for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0]["effective_macs"] == runs[2]["effective_macs"]


def test_provenance_hash_follows_configuration():
    net = accsim.gemm(64, 64, 64)
    hardware = accsim.load_hardware("systolic_ws_32x32")
    base = accsim.simulate(net, hardware).provenance["config_sha256"]
    assert accsim.simulate(net, hardware).provenance["config_sha256"] == base
    wider = accsim.load_hardware("systolic_ws_32x32", {"array.rows": 33})
    for other in (
        accsim.simulate(net, wider), accsim.simulate(net, hardware, seed=1),
        accsim.simulate(accsim.gemm(64, 64, 65), hardware),
        accsim.simulate(net, hardware, level="events"),
    ):  # fmt: skip
        assert other.provenance["config_sha256"] != base


def test_configuration_in_run_json_rebuilds_the_run(tmp_path):
    net = accsim.load_workload("alexnet").prune("2:4")
    result = accsim.simulate(net, accsim.load_hardware("systolic_nm_32x32"))
    result.save(tmp_path, plots=False)
    saved = json.loads((tmp_path / "run.json").read_text())["configuration"]
    again = accsim.simulate(
        accsim.Workload.model_validate(saved["workload"]),
        type(result.hardware).model_validate(saved["hardware"]),
        level=saved["level"], seed=saved["seed"],
    )  # fmt: skip
    assert again.columns == result.columns


def test_save_writes_parquet_where_pyarrow_is(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    result = accsim.simulate(accsim.gemm(8, 8, 8), accsim.load_hardware("systolic_ws_32x32"))
    files = result.save(tmp_path)
    assert tmp_path / "layers.parquet" in files
    pandas.testing.assert_frame_equal(
        pandas.read_parquet(tmp_path / "layers.parquet"), result.table
    )


def test_errors_are_input_errors():
    with pytest.raises(accsim.InputError, match="k must be a whole number from 1"):
        accsim.gemm(4, -1, 4)
    with pytest.raises(accsim.InputError, match="dtype must be"):
        accsim.gemm(4, 4, 4, dtype="int7")
    with pytest.raises(accsim.InputError, match="has no layer 'conv11', did you mean 'conv1'"):
        accsim.load_workload("alexnet").layer("conv11")
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        accsim.simulat  # noqa: B018


def test_plot_returns_a_figure():
    result = accsim.simulate(accsim.gemm(64, 64, 64), accsim.load_hardware("systolic_ws_32x32"))
    for figure in (result.plot(), result.plot("roofline")):
        assert type(figure).__name__ == "Figure"
        assert figure.axes
    with pytest.raises(
        accsim.InputError, match="plot must be one of cycles, roofline; got 'rofline'"
    ):
        result.plot("rofline")


def test_energy_range_and_comparison():
    hardware = accsim.load_hardware("systolic_nm_32x32")
    net = accsim.load_workload("alexnet")
    dense, sparse = (accsim.simulate(n, hardware) for n in (net, net.prune("2:4")))
    for result in (dense, sparse):
        assert result.energy_low_j < result.energy_j < result.energy_high_j
        assert result.totals["energy_low_j"] == result.energy_low_j
    assert sparse.compare_energy(dense).ranking == "a"
    assert sparse.compare_energy(sparse).ranking == "inside the range"


def test_why_says_what_bounds_each_layer():
    hardware = accsim.load_hardware("systolic_nm_32x32")
    lines = accsim.simulate(accsim.load_workload("alexnet").prune("2:4"), hardware).why()
    assert len(lines) == 8
    assert any(line.startswith("fc6") and "DRAM" in line for line in lines)
