"""A step as a timeline: the same cycles, in an order that could run."""

import pytest

import accsim
from accsim.training.step import training_step
from accsim.training.timeline import parts_of, write_step_timeline

DEVICE = accsim.load_hardware("vcu1525_sat")
CRITICAL = DEVICE.model_copy(
    update={"selection": DEVICE.selection.model_copy(update={"when": "critical"})}
)


@pytest.mark.parametrize("device", [DEVICE, CRITICAL])
@pytest.mark.parametrize("method", ["dense", "sr_ste", "bdwp", "transposable"])
def test_the_timeline_lasts_as_long_as_the_step(tmp_path, device, method):
    pattern = "dense" if method == "dense" else "2:8"
    step = training_step(accsim.load_workload("resnet18", batch=4), device, method, pattern)
    made = write_step_timeline(step, tmp_path / "step.json")
    assert made.cycles == step.cycles
    assert (tmp_path / "step.json").stat().st_size == made.file_bytes


def test_forward_comes_before_backward_and_the_update_last():
    step = training_step(accsim.load_workload("resnet18", batch=4), DEVICE, "bdwp", "2:8")
    ways = [part.texts["pass"] for part in parts_of(step)]
    forward, backward = [i for i, x in enumerate(ways) if x == "ff"], ways.index("bp")
    assert max(forward) < backward < ways.index("optimiser")
    assert ways.index("optimiser") > max(i for i, x in enumerate(ways) if x == "wu")
