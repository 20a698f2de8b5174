"""The whole way: script on a GPU of known numbers → its file → fit, domain, intervals."""

import numpy as np
import pytest
from calibrate.fake_torch import Gpu, torch_with
from calibrate.rooflines import PARAMETERS, TRUE, roofline

from accsim.calibrate import measure_gpu
from accsim.calibrate.fit import fit
from accsim.calibrate.held_out import cross_validated, error_table
from accsim.calibrate.measurements import read
from accsim.spec.domain import Domain, Intervals


def test_the_gpus_numbers_are_found_again(tmp_path):
    pytest.importorskip("scipy")
    gpu = Gpu(lambda pattern, dtype, *extents: float(roofline(*extents)(TRUE)))
    words = ["--out", str(tmp_path / "m.csv"), "--quick", "--dtypes", "bf16"]
    assert measure_gpu.main(words, torch=torch_with(gpu), clock=gpu.clock) == 0
    every = read(tmp_path / "m.csv")
    dense = every.take(every.pattern == "dense")
    assert len(dense) == 24

    def fitter(train):
        known = dense.take(train)
        found = fit(roofline(known.t, known.k, known.n), known.latency_us, PARAMETERS, starts=2)
        return lambda held: roofline(dense.t[held], dense.k[held], dense.n[held])(found.values)

    found = fit(roofline(dense.t, dense.k, dense.n), dense.latency_us, PARAMETERS)
    assert found.values == pytest.approx(TRUE, rel=1e-3)
    predicted = cross_validated(fitter, dense.groups, folds=3)
    regime = np.where(dense.latency_us < 10, "launch", "compute")
    assert error_table(dense.latency_us, predicted, regime)[-1].worst == pytest.approx(0, abs=0.01)
    domain = Domain.of(dense.dtype, dense.pattern, dense.t, dense.k, dense.n)
    assert domain.inside("bf16", "dense", dense.t, dense.k, dense.n).all()
    low, high = Intervals.of(dense.latency_us, predicted, regime).bounds(predicted, regime)
    assert np.mean((low <= dense.latency_us) & (dense.latency_us <= high)) >= 0.9
