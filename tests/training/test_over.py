"""Schedules: the integral is the sum of its steps."""

import json

import numpy as np
import pandas as pd
import pytest

import accsim
from accsim.base.errors import InputError
from accsim.sparsity.nm import NM
from accsim.sparsity.schedule import TrainingSchedule, mdgf
from accsim.training.over import over_training
from accsim.training.step import training_step

DEVICE = accsim.load_hardware("vcu1525_sat")
NET = accsim.load_workload("resnet18", batch=16)


def step_of(plan, method, epoch):
    if plan.fade and plan.fade[0] <= epoch < plan.fade[1]:
        return training_step(NET, DEVICE, method, plan.phases[-1].pattern, fading=True)
    return training_step(NET, DEVICE, method, plan.pattern_at(epoch))


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("0-10:dense,10-30:2:8", "bdwp"),
        ("0-3:dense,3-5:4:8,5-8:2:8,8-9:1:8", "sdgf"),
        ("0-50:dense,50-60:2:8;fade=10-50", "mdgf"),
        ("0-4:2:8;decay=0.0002", "sr_ste"),
        ("0-4:dense", "dense"),
    ],
)
def test_the_integral_is_the_sum_of_its_steps(text, method):
    found = over_training(NET, DEVICE, text, method, steps_per_epoch=7)
    plan = TrainingSchedule.parse(text)
    steps = [step_of(plan, method, epoch) for epoch in range(plan.end)]
    assert found.steps == 7 * plan.end
    assert found.seconds == pytest.approx(7 * sum(x.seconds for x in steps))
    assert found.joules == pytest.approx(7 * sum(x.energy_j for x in steps))
    assert found.metadata_bytes == 7 * sum(x.metadata_bytes for x in steps)
    assert sum(found.seconds_by_pass.values()) == pytest.approx(found.seconds)
    assert sum(found.joules_by_pass.values()) == pytest.approx(found.joules)
    assert found.dense_seconds == pytest.approx(7 * plan.end * steps[0].dense.seconds)
    assert [(x.first, x.end) for x in found.spans][-1][1] == plan.end


def test_mdgf_fades_then_prunes():
    plan = mdgf(NM(2, 8), steps=90, fade=(10, 50))
    found = over_training(NET, DEVICE, plan, "mdgf", steps_per_epoch=1)
    assert [(x.first, x.end, x.step.state) for x in found.spans] == [
        (0, 10, "dense"), (10, 50, "fading"), (50, 90, "2:8"),
    ]  # fmt: skip


def test_samples_make_steps_rounded_up():
    assert over_training(NET, DEVICE, "0-2:dense", "dense", samples=33).steps == 6


def test_churn_rewrites_less_metadata():
    def run(churn):
        return over_training(NET, DEVICE, "0-1:2:8", "bdwp", steps_per_epoch=1, churn=churn)

    whole, none, some = run(None), run(0.0), run(0.01)
    assert none.metadata_bytes == 0
    # a bit pair of 1 % of all is a slot of 2 % of the kept quarter
    assert some.metadata_bytes == pytest.approx(0.02 * whole.metadata_bytes, rel=1e-3)
    assert none.seconds <= some.seconds <= whole.seconds


def test_files_hold_the_answer(tmp_path):
    found = over_training(NET, DEVICE, "0-10:dense,10-30:2:8", "bdwp", steps_per_epoch=7)
    names = [path.name for path in found.save(tmp_path)]
    assert names == ["training.csv", "step.csv", "decomposition.csv", "training.json",
                     "training.png", "training.svg"]  # fmt: skip
    assert pd.read_csv(tmp_path / "training.csv")["seconds"].sum() == pytest.approx(found.seconds)
    assert pd.read_csv(tmp_path / "step.csv")["cycles"].sum() == found.sparsest.cycles
    shares = pd.read_csv(tmp_path / "decomposition.csv")
    assert np.isclose(shares["of_dense_step"].sum(), 1 / found.sparsest.speedup)
    whole = json.loads((tmp_path / "training.json").read_text())
    assert whole["totals"]["seconds"] == pytest.approx(found.seconds)
    first = (tmp_path / "training.svg").read_bytes()
    found.save(tmp_path)
    assert (tmp_path / "training.svg").read_bytes() == first


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("0-10:dense,11-30:2:8", {}, "leaves a gap before '11-30:2:8'"),
        ("0-10:3:8", {}, "level of the array"),
        ("0-10:dense;fade=2-5", {}, "fade belongs to the method mdgf"),
        ("0-10:dense;fade=2-5", {"method": "mdgf"}, "a fade must end in a phase n:m"),
        ("0-1:2:8", {"steps_per_epoch": 0}, "steps must be a whole number"),
        ("0-1:2:8", {"samples": 5}, "one of steps_per_epoch and samples"),
        ("0-1:2:8", {"steps_per_epoch": None}, "one of steps_per_epoch and samples"),
        ("0-1:2:8", {"churn": 1.5}, "churn must be in"),
        ("0-1:2:8", {"churn": float("nan")}, "churn must be in"),
    ],
)
def test_bad_input_is_refused(text, fields, message):
    asked = {"method": "bdwp", "steps_per_epoch": 1} | fields
    with pytest.raises(InputError, match=message):
        over_training(NET, DEVICE, text, **asked)
