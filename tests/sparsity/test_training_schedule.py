"""Schedules cover training without gaps; recipes as published; churn by law."""

import numpy as np
import pytest
from sparsity import pattern_laws as laws

from accsim.base.errors import InputError
from accsim.sparsity.bidirectional import Bidirectional
from accsim.sparsity.nm import NM
from accsim.sparsity.schedule import (
    LADDER,
    Phase,
    TrainingSchedule,
    churn,
    mask_churn,
    mdgf,
    sdgf,
    sr_ste,
)
from accsim.spec.pattern import DENSE


@pytest.mark.parametrize(
    "text",
    ["0-90:2:8", "0-10:dense,10-90:2:8", "0-1:15:16,1-2:8:16,2-3:unstructured@0.9",
     "0-90:2:8;decay=0.0002", "0-50:dense,50-90:2:8;fade=10-50",
     "0-50:dense,50-90:2:8;decay=0.5;fade=0-50"],
)  # fmt: skip
def test_print_and_parse(text):
    schedule = TrainingSchedule.parse(text)
    assert str(schedule) == text
    assert TrainingSchedule.parse(str(schedule)) == schedule
    spaced = text.replace(",", " , ").replace(";", " ; ").replace(":", ": ", 1)
    assert TrainingSchedule.parse(spaced) == schedule


def test_every_step_has_the_pattern_of_its_span():
    schedule = TrainingSchedule.parse("0-10:dense,10-12:1:4,12-90:2:8")
    by_hand = [DENSE] * 10 + [NM(1, 4)] * 2 + [NM(2, 8)] * 78
    assert [schedule.pattern_at(step) for step in range(schedule.end)] == by_hand
    for step in (-1, 90):
        with pytest.raises(InputError, match=f"step must be in 0…89; got {step}"):
            schedule.pattern_at(step)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be written 0-10:dense,10-90:2:8; got ''"),
        ("2:8", "must be written"),
        ("0-10", "must be written"),
        ("0-10:dense,12-90:2:8", "a gap before '12-90:2:8': the phase must start at 10; got 12"),
        ("0-10:dense,9-90:2:8", "overlaps before '9-90:2:8': the phase must start at 10; got 9"),
        ("1-10:dense", "a gap before '1-10:dense': the phase must start at 0; got 1"),
        ("0-0:dense", "0 <= first < end; got '0-0'"),
        ("9-3:dense", "0 <= first < end; got '9-3'"),
        ("0-10:desne", "got 'desne'"),
        ("0-10:dense,oops", "got 'dense,oops'"),
        ("0-10:2:8;decay=x", "decay must be a number; got 'x'"),
        ("0-10:2:8;decay=-1", "decay must be at least 0; got '-1.0'"),
        ("0-10:2:8;decay=nan", "decay must be at least 0; got 'nan'"),
        ("0-10:2:8;dekay=1", "did you mean 'decay'?"),
        ("0-10:2:8;decay=1;decay=1", "each once"),
        ("0-10:dense;fade=3", "fade must be like 10-50; got '3'"),
        ("0-10:dense;fade=3-12", "fade must lie in 0-10; got '3-12'"),
        ("0-10:dense,10-20:2:8;fade=5-12", "fade 5-12 is dense until β = 0; got '10-20:2:8'"),
    ],
)
def test_bad_schedules(text, complaint):
    with pytest.raises(InputError) as error:
        TrainingSchedule.parse(text)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_no_phase_at_all():
    with pytest.raises(InputError, match="at least one phase"):
        TrainingSchedule(())


# --- recipes of facts/fpga_training.md


def test_sr_ste_is_one_pattern_with_decay():
    schedule = sr_ste(NM(2, 8), steps=90)
    assert (schedule.phases, schedule.decay) == ((Phase(0, 90, NM(2, 8)),), 2e-4)
    assert str(sr_ste(Bidirectional(2, 8), steps=9, dense=3)).startswith("0-3:dense,3-9:bidir")


def test_sdgf_steps_down_the_ladder_in_equal_frames():
    assert LADDER == ("15:16", "8:16", "4:16", "2:16", "1:16")
    schedule = sdgf(steps=110, dense=10)
    assert str(schedule) == "0-10:dense,10-30:15:16,30-50:8:16,50-70:4:16,70-90:2:16,90-110:1:16"
    assert sdgf(steps=5, dense=0).phases[0] == Phase(0, 1, NM(15, 16))
    for steps, dense in ((97, 4), (13, 3)):
        frames = [phase.end - phase.first for phase in sdgf(steps=steps, dense=dense).phases[1:]]
        assert sum(frames) == steps - dense
        assert max(frames) - min(frames) <= 1
    with pytest.raises(InputError, match="a step for each of 5 rungs"):
        sdgf(steps=10, dense=6)


def test_mdgf_fades_from_one_to_zero_and_is_dense_until_then():
    schedule = mdgf(NM(2, 8), steps=90, fade=(10, 50))
    betas = [schedule.beta(step) for step in range(90)]
    assert betas[:11] == [1.0] * 11
    assert betas[50:] == [0.0] * 40
    assert betas[30] == 0.5
    assert np.all(np.diff(betas) <= 0)
    for step in range(90):
        assert (schedule.pattern_at(step) == DENSE) == (betas[step] > 0)
    assert sr_ste(NM(2, 8), steps=9).beta(3) == 0.0


# --- churn


def test_mask_churn_counts_bits():
    one = np.array([[True, False, False, True]])
    assert mask_churn(one, one) == 0
    assert mask_churn(one, ~one) == 1
    assert mask_churn(one, np.array([[True, True, False, False]])) == 0.5
    assert mask_churn(np.zeros((0, 3), bool), np.zeros((0, 3), bool)) == 0


def test_without_drift_only_the_pattern_changes_the_mask():
    w = laws.weights(32, 16)
    changed = churn(TrainingSchedule.parse("0-3:dense,3-6:2:4,6-9:1:4"), w, drift=0)
    assert changed.tolist() == [0, 0, 0, 0.5, 0, 0, 0.25, 0, 0]


def test_full_drift_draws_new_masks():
    """Independent masks of density d differ in 2·d·(1 − d) of their bits."""
    schedule = TrainingSchedule.parse("0-12:2:8")
    changed = churn(schedule, laws.weights(128, 128), drift=1)
    assert changed[1:].mean() == pytest.approx(2 * 0.25 * 0.75, abs=0.005)


def test_more_drift_more_churn_and_decay_settles_it():
    w = laws.weights(64, 64)
    plain, decayed = (TrainingSchedule.parse(f"0-30:2:4{x}") for x in ("", ";decay=0.1"))
    rates = [churn(plain, w, drift=drift)[1:].mean() for drift in (0.01, 0.05, 0.2)]
    assert rates == sorted(rates)
    assert rates[0] > 0
    settled = churn(decayed, w, drift=0.05, learning_rate=1.0)[10:].mean()
    assert settled < 0.5 * churn(plain, w, drift=0.05)[10:].mean()


def test_churn_keeps_the_scales_of_the_network():
    """Columns of very different size keep their size: a drifting column does not outgrow others."""
    scale = np.geomspace(1, 1000, 32, dtype=np.float32)
    w = laws.weights(64, 32) * scale
    changed = churn(TrainingSchedule.parse("0-40:unstructured@0.9"), w, drift=0.5)
    assert changed[-5:].mean() == pytest.approx(changed[1:6].mean(), rel=0.25)


def test_churn_is_repeatable_and_leaves_the_weights_alone():
    w = laws.weights(16, 16)
    before = w.copy()
    schedule = TrainingSchedule.parse("0-9:2:4")
    one = churn(schedule, w, drift=0.3, seed=1)
    assert np.array_equal(one, churn(schedule, w, drift=0.3, seed=1))
    assert not np.array_equal(one, churn(schedule, w, drift=0.3, seed=2))
    assert np.array_equal(w, before)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [({"drift": 2}, "drift 0 <= d <= 1; got '2'"),
     ({"drift": 0.1, "learning_rate": 9e9}, "learning rate")],
)  # fmt: skip
def test_bad_churn(more, complaint):
    with pytest.raises(InputError, match=complaint):
        churn(TrainingSchedule.parse("0-9:2:4;decay=0.1"), laws.weights(4, 4), **more)
