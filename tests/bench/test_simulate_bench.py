"""Speed of the main paths. Run with: pytest tests/bench --benchmark-enable"""

import subprocess
import sys
from pathlib import Path

import pytest

import accsim


def test_resnet50_closed_form(benchmark):
    """Target: 5 ms warm."""
    hardware = accsim.load_hardware("systolic_nm_32x32")
    network = accsim.load_workload("resnet50").prune("2:4")
    result = benchmark(accsim.simulate, network, hardware)
    assert result.cycles > 0


def test_resnet50_closed_form_searched_anew(benchmark):
    """The same with nothing remembered: every tiling of every layer is searched."""
    from accsim.devices import systolic

    hardware = accsim.load_hardware("systolic_nm_32x32")
    network = accsim.load_workload("resnet50").prune("2:4")

    def forget_and_run():
        systolic._MEMORY.clear()
        return accsim.simulate(network, hardware)

    assert benchmark(forget_and_run).cycles == accsim.simulate(network, hardware).cycles


def test_mixtral_closed_form(benchmark):
    hardware = accsim.load_hardware("systolic_nm_32x32")
    network = accsim.load_workload("mixtral-8x7b-prefill").prune("2:4")
    result = benchmark(accsim.simulate, network, hardware)
    assert len(result.columns["layer"]) == 321


def test_resnet50_events(benchmark):
    hardware = accsim.load_hardware("systolic_nm_32x32")
    network = accsim.load_workload("resnet50").prune("2:4")
    result = benchmark(accsim.simulate, network, hardware, level="events")
    assert result.cycles == accsim.simulate(network, hardware).cycles


COLD = """
import sys
from accsim.cli import main
try:
    main(["run", "resnet50", "--hw", "systolic_nm_32x32", "--pattern", "2:4", *sys.argv[1:]])
except SystemExit:
    pass
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
high = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(used.ru_utime + used.ru_stime, int(high.split()[1]) / 1024, file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("figures", [False, True], ids=["table", "table-and-figures"])
def test_cold_run_cpu_and_memory(benchmark, tmp_path, figures):
    """Targets: 2 s of CPU, 300 MB for the README's command in a new process."""
    words = ["--out", str(tmp_path)] if figures else []

    def cold():
        done = subprocess.run(
            [sys.executable, "-c", COLD, *words], check=True, capture_output=True, text=True
        )
        return [float(word) for word in done.stderr.split()]

    cpu_s, memory_mb = benchmark.pedantic(cold, rounds=3)
    benchmark.extra_info["cpu_s"] = round(cpu_s, 2)
    benchmark.extra_info["memory_mb"] = round(memory_mb)
    assert memory_mb < 300
