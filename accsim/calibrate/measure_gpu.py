#!/usr/bin/env python3
"""Measure dense and 2:4 sparse matrix products on an NVIDIA GPU, for ``accsim calibrate``.

Y = X W with X (t, k) and W (k, n) as a linear layer has them: X row-major, W stored as (n, k).

    python measure_gpu.py --out mine.csv --quick

Needs Python 3.10, PyTorch 2.4 with CUDA, nothing else; it is its own file, so copy it anywhere.

dense  torch.matmul (bf16, fp16, tf32), torch._int_mm (int8 → int32), torch._scaled_mm (fp8 → bf16)
2:4    cuSPARSELt's default algorithm through torch; W is the sparse, first operand: Yᵀ = Wᵀ Xᵀ

What is timed is the GPU: a spinning kernel holds it while calls are queued, then they run back to
back between two CUDA events. A launch's gap on the GPU counts; the host's time to queue a call does
not (that is ``host_us``). Rows are written as they come; the same command again does the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import importlib
import io
import itertools
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = "accsim gpu measurements, 1"
COLUMNS = (
    "device", "dtype", "pattern", "t", "k", "n", "latency_us", "p5_us", "p95_us", "repeats",
    "sm_clock_mhz", "power_w", "host_us",
)  # fmt: skip
DTYPES = ("bf16", "fp16", "tf32", "int8", "fp8")
PATTERNS = ("dense", "2:4")
EIGHT_BIT = ("int8", "fp8")
MAX_EXTENT = 2**20
MAX_CALLS = 200  # queued at a time: the driver holds about a thousand launches
SPIN_HZ = 2e9  # at or above any GPU's clock: the spinning kernel is never shorter than asked
MAX_SPIN_S = 0.25
SMI = ("driver_version", "clocks.max.sm", "clocks.applications.graphics", "power.limit",
       "persistence_mode")  # fmt: skip

Call = Callable[[], Any]


class Refused(Exception):
    """What a user can put right; shown as one line."""


class Point(NamedTuple):
    """One product: Y (t, n) = X (t, k) W (k, n)."""

    t: int
    k: int
    n: int


# (k, n) by t: launch-bound (small, small), memory-bound (large, small t), compute-bound (large t).
# Every plan is the products of its parts; sizes off the powers of two show the tiles' edges.
_SMALL = ((768, 768), (1024, 4096), (2560, 1536))
_LARGE = ((4096, 4096), (5120, 13824), (8192, 8192), (14336, 4096))
PLANS: dict[str, tuple[tuple[tuple[tuple[int, int], ...], tuple[int, ...]], ...]] = {
    "quick": (
        (((768, 768), (1024, 4096), (2560, 1536)), (64, 512, 2080, 8192)),
        (((4096, 4096), (5120, 13824), (8192, 8192)), (16, 128, 1024, 4096)),
    ),
    "standard": (
        (_SMALL, (16, 128, 320, 1024, 4096)),
        (_LARGE, (16, 64, 256, 768, 2080)),
        (((8192, 8192), (4096, 4096), (3072, 768), (768, 3072), (2048, 32000)), (8192,)),
    ),
    "full": (
        (
            (*_SMALL, (768, 3072), (3072, 768), (2048, 2048), (4096, 1024), *_LARGE, (4096, 11008),
             (11008, 4096), (2048, 32000)),
            (1, 16, 64, 128, 256, 512, 1024, 4096, 8192),
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How long and how a point is timed."""

    flush_l2: bool = False
    graphs: bool = False
    warm_s: float = 0.2
    least_s: float = 0.4
    blocks: int = 20
    block_us: float = 2000.0


class Timing(NamedTuple):
    """One point as measured; ``calls`` is how many the percentiles stand for."""

    median_us: float
    p5_us: float
    p95_us: float
    calls: int
    host_us: float


def points(plan: str) -> list[Point]:
    """Return the products of a plan, W by W."""
    return [Point(t, k, n) for pairs, ts in PLANS[plan] for k, n in pairs for t in ts]


def read_points(path: str) -> list[Point]:
    """Return the products of a CSV file with columns t, k, n."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: cannot be read: {error}") from None
    lines = [(i, x) for i, x in enumerate(text.splitlines(), 1) if x.strip() and x[0] != "#"]
    if not lines:
        raise Refused(f"{path}: must hold a header t,k,n and a line for each product")
    header = [name.strip() for name in lines[0][1].split(",")]
    if missing := [name for name in Point._fields if name not in header]:
        raise Refused(f"{path}:{lines[0][0]}: must have columns t, k, n; '{missing[0]}' is missing")
    found = []
    for line, words in lines[1:]:
        cells = dict(zip(header, (x.strip() for x in words.split(",")), strict=False))
        for name in Point._fields:
            cell = cells.get(name, "")
            good = cell.isascii() and cell.isdigit() and len(cell) < 9
            if not good or not 1 <= int(cell) <= MAX_EXTENT:
                raise Refused(f"{path}:{line}: {name} must be 1 to {MAX_EXTENT}; got '{cell}'")
        found.append(Point(*(int(cells[name]) for name in Point._fields)))
    return list(dict.fromkeys(found))


def refusal(dtype: str, pattern: str, point: Point) -> str:
    """Return why the libraries cannot run a product, or an empty string."""
    if pattern == "2:4":
        multiple = 32 if dtype in EIGHT_BIT else 16
    else:
        multiple = {"int8": 8, "fp8": 16}.get(dtype, 1)
    for name in ("k", "n"):
        if getattr(point, name) % multiple:
            return f"{name} must be a multiple of {multiple}"
    return ""


def run_t(dtype: str, pattern: str, t: int) -> int:
    """Return the t that is run for a product of ``t``: what the libraries cannot take is padded."""
    if pattern == "2:4":
        multiple = 16 if dtype in EIGHT_BIT else 8
        return math.ceil(t / multiple) * multiple
    return max(t, 24) if dtype == "int8" else t


def number_format(torch: Any, dtype: str) -> Any:
    """Return torch's name of a number format; Refused where this torch has none."""
    names = {"bf16": "bfloat16", "fp16": "float16", "tf32": "float32", "fp8": "float8_e4m3fn"}
    found = getattr(torch, names.get(dtype, dtype), None)
    if found is None:
        raise Refused(f"this torch has no {names.get(dtype, dtype)}")
    return found


def drawn(torch: Any, rows: int, cols: int, dtype: str, where: str) -> Any:
    """Return a random (rows, cols) tensor: normal, or whole numbers from -127 to 127."""
    if dtype == "int8":
        return torch.randint(-127, 128, (rows, cols), dtype=torch.int8, device=where)
    base = torch.float32 if dtype == "tf32" else torch.float16
    return torch.randn(rows, cols, dtype=base, device=where).to(number_format(torch, dtype))


def kept_two_of_four(torch: Any, rows: int, cols: int, where: str) -> Any:
    """Return a random (rows, cols) mask with two of every four neighbours of a row kept."""
    pairs = list(itertools.combinations(range(4), 2))
    table = torch.tensor([[i in pair for i in range(4)] for pair in pairs], device=where)
    draws = torch.randint(0, len(pairs), (rows, cols // 4), device=where)
    return table[draws].reshape(rows, cols)


def dense_call(torch: Any, dtype: str, x: Any, w: Any, where: str) -> Call:
    """Return the dense product of x (t, k) and w, stored (n, k)."""
    if dtype == "int8":
        return lambda: torch._int_mm(x, w.t())
    if dtype == "fp8":
        one = torch.ones((), dtype=torch.float32, device=where)
        return lambda: torch._scaled_mm(
            x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    return lambda: torch.matmul(x, w.t())


def sparse_call(torch: Any, dtype: str, x: Any, w: Any, where: str) -> Call:
    """Return the product of x (t, k) and w, stored (n, k), of which 2:4 is kept."""
    if dtype == "fp8":  # no product of masks in this format
        w = w.to(torch.float16)
    w = (w * kept_two_of_four(torch, w.shape[0], w.shape[1], where)).to(x.dtype).contiguous()
    torch.sparse.SparseSemiStructuredTensor._FORCE_CUTLASS = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.sparse.to_sparse_semi_structured(w).packed
    out = {"int8": torch.int32, "fp8": torch.bfloat16}.get(dtype)
    wide = {} if out is None else {"out_dtype": out}
    return lambda: torch._cslt_sparse_mm(packed, x.t(), **wide)


def prepared(torch: Any, dtype: str, pattern: str, point: Point, where: str) -> Call:
    """Return a product ready to be called again and again, on data of its own."""
    torch.manual_seed(0)
    x = drawn(torch, run_t(dtype, pattern, point.t), point.k, dtype, where)
    w = drawn(torch, point.n, point.k, dtype, where)
    maker = dense_call if pattern == "dense" else sparse_call
    return maker(torch, dtype, x, w, where)


def held(torch: Any, issue: Call, host_s: float) -> tuple[Any, Any, bool]:
    """Queue ``issue`` behind a spinning kernel; return its events and whether the GPU ran dry."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(int(min(1.5 * host_s + 3e-5, MAX_SPIN_S) * SPIN_HZ))
    start.record()
    issue()
    end.record()
    dry = bool(start.query())
    torch.cuda.synchronize()
    return start, end, dry


def issued(torch: Any, call: Call, calls: int, graphs: bool) -> Call:
    """Return what queues ``calls`` calls: a loop, or one CUDA graph."""

    def loop() -> None:
        for _ in range(calls):
            call()

    if not graphs:
        return loop
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loop()
    return lambda: graph.replay()


@dataclass
class Pace:
    """How long the host takes to queue a block, in seconds; raised where it was too little."""

    host_s: float


def block(torch: Any, issue: Call, calls: int, pace: Pace) -> list[float]:
    """Return the mean latency of a block of calls that ran back to back, in µs."""
    start, end, dry = held(torch, issue, pace.host_s)
    while dry and pace.host_s < MAX_SPIN_S:
        pace.host_s *= 1.5
        start, end, dry = held(torch, issue, pace.host_s)
    return [start.elapsed_time(end) * 1e3 / calls]


def flushed_block(torch: Any, call: Call, calls: int, pace: Pace, flush: Call) -> list[float]:
    """Return the latency of each of the calls, L2 overwritten in front of it, in µs."""
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]

    def issue() -> None:
        for start, end in pairs:
            flush()
            start.record()
            call()
            end.record()

    held(torch, issue, 4 * pace.host_s)
    return [start.elapsed_time(end) * 1e3 for start, end in pairs]


def first_look(torch: Any, call: Call, clock: Callable[[], float]) -> tuple[float, float]:
    """Return about how long a call takes the host and the GPU, in seconds."""
    call()
    torch.cuda.synchronize()
    hosts, gpus = [], []
    for _ in range(3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        began = clock()
        for _ in range(5):
            call()
        hosts.append((clock() - began) / 5)
        end.record()
        torch.cuda.synchronize()
        gpus.append(start.elapsed_time(end) / 5e3)
    return min(hosts), min(gpus)


def flusher(torch: Any) -> Call:
    """Return what overwrites twice the L2 cache."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    size = 2 * int(getattr(properties, "L2_cache_size", 128 * 2**20))
    junk = torch.empty(size, dtype=torch.int8, device="cuda")
    return lambda: junk.zero_()


def percentile(ordered: list[float], share: float) -> float:
    """Return a quantile of sorted values, interpolated."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def timed(torch: Any, call: Call, settings: Settings, clock: Callable[[], float]) -> Timing:
    """Measure one prepared product: warm up, then blocks of calls until there are enough."""
    host_s, gpu_s = first_look(torch, call, clock)
    calls = max(1, min(MAX_CALLS, math.ceil(settings.block_us * 1e-6 / max(gpu_s, 1e-7))))
    pace = Pace(calls * host_s)
    if settings.flush_l2:
        run = partial(flushed_block, torch, call, calls, pace, flusher(torch))
    else:
        run = partial(block, torch, issued(torch, call, calls, settings.graphs), calls, pace)
    began = clock()
    while clock() - began < settings.warm_s:
        run()
    samples, rounds, began = [], 0, clock()
    while rounds < settings.blocks or clock() - began < settings.least_s:
        samples += run()
        rounds += 1
    samples.sort()
    median, p5, p95 = (percentile(samples, share) for share in (0.5, 0.05, 0.95))
    return Timing(median, p5, p95, rounds * calls, host_s * 1e6)


def nvidia_smi(fields: tuple[str, ...], uuid: str) -> list[str]:
    """Return what nvidia-smi says of a GPU, blank where it says nothing."""
    blank = [""] * len(fields)
    if not uuid or shutil.which("nvidia-smi") is None:
        return blank
    words = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [*words, f"--id={uuid}"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return blank
    cells = [cell.strip() for cell in done.stdout.strip().split(",")]
    if len(cells) != len(fields):
        return blank
    return ["" if cell.startswith("[") or cell == "N/A" else cell for cell in cells]


def gauge(uuid: str) -> Callable[[], list[str]]:
    """Return what reads the SM clock (MHz) and the power (W) of a GPU: NVML, else nvidia-smi."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        nvml.nvmlDeviceGetPowerUsage(handle)
    except Exception:  # not installed, no driver, too old a one: nvidia-smi is next
        return lambda: nvidia_smi(("clocks.sm", "power.draw"), uuid)

    def read() -> list[str]:
        try:
            mhz = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            return [str(mhz), str(nvml.nvmlDeviceGetPowerUsage(handle) / 1e3)]
        except Exception:  # a GPU that does not tell its power
            return ["", ""]

    return read


@contextlib.contextmanager
def watched(read: Callable[[], list[str]]) -> Iterator[list[list[str]]]:
    """Read the gauge on a thread while the block runs; the readings are in the list given."""
    readings: list[list[str]] = []
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(0.05):
            readings.append(read())

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()


def middle(readings: list[list[str]], column: int) -> str:
    """Return the median of a column of readings, the first third (warm-up) left out."""
    values = []
    for reading in readings[len(readings) // 3 :]:
        with contextlib.suppress(ValueError):
            values.append(float(reading[column]))
    return f"{statistics.median(values):g}" if values else ""


class Output:
    """The CSV file: what it holds already is kept, every row is on disk when ``row`` returns."""

    def __init__(self, path: str, conditions: dict[str, str]) -> None:
        self.path = path
        self.done: set[tuple[str, ...]] = set()
        try:
            text = Path(path).read_text(encoding="utf-8") if os.path.exists(path) else ""
            whole = text[: text.rfind("\n") + 1]
            self._take(whole, conditions)
            if whole != text:  # a row that a killed run left half written
                Path(path).write_text(whole, encoding="utf-8")
            self.file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"{path}: cannot be written: {error}") from None
        self.empty = not self.done and ",".join(COLUMNS) not in whole.splitlines()

    def _take(self, text: str, conditions: dict[str, str]) -> None:
        lines = text.splitlines()
        for line in lines:
            key, _, value = line.lstrip("# ").partition(": ")
            if line.startswith("#") and conditions.get(key, value) != value:
                raise Refused(
                    f"{self.path}: was measured with {key}: {value}, not {conditions[key]}; "
                    "give another --out"
                )
        rows = list(csv.reader(x for x in lines if x.strip() and x[0] != "#"))
        if rows and rows[0] != list(COLUMNS):
            raise Refused(f"{self.path}: is no file of this script; give another --out")
        self.done = {tuple(row[:6]) for row in rows[1:]}

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def comment(self, key: str, value: object) -> None:
        """Write a line ``# key: value``."""
        self.file.write(f"# {key}: {' '.join(str(value).split())}\n")
        self.file.flush()

    def header(self) -> None:
        """Write the names of the columns, unless they stand there."""
        if self.empty:
            self.row(COLUMNS)

    def row(self, cells: tuple[object, ...]) -> None:
        """Write one row."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self.file.write(line.getvalue())
        self.file.flush()
        os.fsync(self.file.fileno())


def cublas_version(torch: Any) -> str:
    """Return the version of the cuBLASLt that torch loaded: the one of its CUDA's major number."""
    try:
        major = str(torch.version.cuda).partition(".")[0]
        get = ctypes.CDLL(f"libcublasLt.so.{major}").cublasLtGetVersion
        get.restype = ctypes.c_size_t
        return str(get())
    except (OSError, AttributeError):  # another system's name of it, or too old a one
        return "unknown"


def cusparselt_version(torch: Any) -> str:
    """Return the version of torch's cuSPARSELt."""
    try:
        return str(torch.backends.cusparselt.version())
    except Exception:  # an older torch, or one built without it
        return "unknown"


def about(torch: Any, index: int, uuid: str) -> dict[str, str]:
    """Return the header: GPU, clocks and versions."""
    properties = torch.cuda.get_device_properties(index)
    told = dict(zip(SMI, nvidia_smi(SMI, uuid), strict=True))
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "sms": str(properties.multi_processor_count),
        "memory_gib": f"{properties.total_memory / 2**30:.1f}",
        "l2_mib": f"{getattr(properties, 'L2_cache_size', 0) / 2**20:g}",
        "driver": told["driver_version"] or "unknown",
        "cuda": str(torch.version.cuda),
        "torch": str(torch.__version__),
        "cublas": cublas_version(torch),
        "cusparselt": cusparselt_version(torch),
        "max_sm_clock_mhz": told["clocks.max.sm"] or "unknown",
        "application_clock_mhz": told["clocks.applications.graphics"] or "unknown",
        "power_cap_w": told["power.limit"] or "unknown",
        "persistence_mode": told["persistence_mode"] or "unknown",
    }


def say(text: str) -> None:
    """Tell the user, beside the data."""
    print(text, file=sys.stderr, flush=True)


def reason(error: Exception) -> str:
    """Return an error as one short line."""
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else "no reason given"
    return (said if isinstance(error, Refused) else f"{type(error).__name__}: {said}")[:200]


def usable(torch: Any, dtype: str, pattern: str, capability: tuple[int, int]) -> str:
    """Return why a number format cannot be measured here, or an empty string; tries it once."""
    least = (8, 9) if dtype == "fp8" else (8, 0) if pattern == "2:4" or dtype == "tf32" else (7, 0)
    if capability < least:
        return f"needs compute capability {least[0]}.{least[1]}"
    try:
        prepared(torch, dtype, pattern, Point(64, 1024, 1024), "cuda")()
        torch.cuda.synchronize()
    except Exception as error:  # whatever torch says is what the user is told
        return reason(error)
    return ""


def gpu(torch: Any, index: int) -> tuple[Any, str]:
    """Return the properties and the UUID of the GPU to measure, and make it the current one."""
    if not torch.cuda.is_available():
        raise Refused(f"torch {torch.__version__} sees no CUDA GPU")
    count = torch.cuda.device_count()
    if not 0 <= index < count:
        raise Refused(f"--device must be 0 to {count - 1}; got {index}")
    torch.cuda.set_device(index)
    properties = torch.cuda.get_device_properties(index)
    uuid = str(getattr(properties, "uuid", ""))
    return properties, uuid if not uuid or uuid.startswith("GPU-") else f"GPU-{uuid}"


def chosen_dtypes(words: str) -> list[str]:
    """Return the number formats asked for."""
    names = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names or [""]:
        if name not in DTYPES:
            raise Refused(f"--dtypes must be some of {', '.join(DTYPES)}; got '{name}'")
    return names


def dry_run(dtypes: list[str], wanted: list[Point]) -> None:
    """Print what would be measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS[1:6], "note"))
    for dtype, pattern, point in itertools.product(dtypes, PATTERNS, wanted):
        note = refusal(dtype, pattern, point)
        if not note and run_t(dtype, pattern, point.t) != point.t:
            note = f"run with t = {run_t(dtype, pattern, point.t)}"
        writer.writerow((dtype, pattern, *point, note))
    with contextlib.suppress(BrokenPipeError):
        print(text.getvalue(), end="", flush=True)


@dataclass
class Campaign:
    """What every point of a run shares."""

    torch: Any
    out: Output
    device: str
    settings: Settings
    clock: Callable[[], float]
    read: Callable[[], list[str]]
    rows: int = 0

    def skip(self, what: str, why: str) -> None:
        """Note in the file, and tell, that something is not measured."""
        self.out.comment("skipped", f"{what}: {why}")
        say(f"skipped {what}: {why}")

    def run(self, dtypes: list[str], wanted: list[Point], capability: tuple[int, int]) -> None:
        """Measure every number format and pattern that the GPU and its libraries have."""
        for dtype, pattern in itertools.product(dtypes, PATTERNS):
            if why := usable(self.torch, dtype, pattern, capability):
                self.skip(f"{dtype} {pattern}", why)
            else:
                self.pattern(dtype, pattern, wanted)

    def pattern(self, dtype: str, pattern: str, wanted: list[Point]) -> None:
        """Measure what is missing of one number format and pattern."""
        todo = []
        for point in wanted:
            if (self.device, dtype, pattern, *map(str, point)) in self.out.done:
                continue
            if why := refusal(dtype, pattern, point):
                self.skip(named(dtype, pattern, point), why)
                continue
            todo.append(point)
        if padded := sorted({p.t for p in todo if run_t(dtype, pattern, p.t) != p.t}):
            runs = ", ".join(f"t = {t} as {run_t(dtype, pattern, t)}" for t in padded)
            self.out.comment("note", f"{dtype} {pattern} padded by this script: {runs}")
        for at, point in enumerate(todo, 1):
            self.point(dtype, pattern, point, f"{at}/{len(todo)}")

    def point(self, dtype: str, pattern: str, point: Point, progress: str) -> None:
        """Measure one product and write its row."""
        what = named(dtype, pattern, point)
        try:
            call = prepared(self.torch, dtype, pattern, point, "cuda")
            with watched(self.read) as readings:
                timing = timed(self.torch, call, self.settings, self.clock)
        except Exception as error:  # out of memory, a size the library refuses: the next point
            self.skip(what, reason(error))
            return
        figures = [f"{x:.6g}" for x in timing[:3]]
        self.out.row((
            self.device, dtype, pattern, *point, *figures, timing.calls, middle(readings, 0),
            middle(readings, 1), f"{timing.host_us:.4g}",
        ))  # fmt: skip
        self.rows += 1
        say(f"{progress} {what}: {figures[0]} us ({figures[1]} to {figures[2]})")


def named(dtype: str, pattern: str, point: Point) -> str:
    """Return a point in words."""
    return f"{dtype} {pattern} t={point.t} k={point.k} n={point.n}"


ADVICE = """\
For figures that repeat, lock the clocks first (and undo it after with: sudo nvidia-smi -rgc):
  sudo nvidia-smi -pm 1; sudo nvidia-smi -lgc CLOCK,CLOCK    a CLOCK that the power cap sustains
Leave them free to measure the GPU as it is used. Nothing else should run on it meanwhile."""


def measure(torch: Any, options: Any, wanted: list[Point], clock: Callable[[], float]) -> int:
    """Run the campaign; return the exit code."""
    properties, uuid = gpu(torch, options.device)
    conditions = {
        "l2": "flushed before every call" if options.flush_l2 else "warm",
        "launches": "one CUDA graph a block" if options.graphs else "queued one by one",
    }
    torch.backends.cuda.matmul.allow_tf32 = True
    settings = Settings(options.flush_l2, options.graphs)
    with contextlib.closing(Output(options.out, conditions)) as out:
        if out.done:
            say(f"{options.out}: {len(out.done)} rows are kept")
        say(ADVICE)
        out.comment("format", FORMAT)
        for key, value in {**about(torch, options.device, uuid), **conditions}.items():
            out.comment(key, value)
        read = gauge(uuid)
        if not any(read()):
            out.comment("note", "no clock and power: neither pynvml nor nvidia-smi tells them")
        out.header()
        campaign = Campaign(torch, out, properties.name, settings, clock, read)
        campaign.run(chosen_dtypes(options.dtypes), wanted, (properties.major, properties.minor))
        total = campaign.rows + len(out.done)
        say(f"{options.out}: {campaign.rows} rows written, {total} in all")
    return 0 if total else 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        description="Measure dense and 2:4 sparse matrix products on an NVIDIA GPU."
    )
    made.add_argument("--out", default="measured.csv", help="CSV file to write or go on with")
    made.add_argument("--dtypes", default="bf16,fp16,int8,fp8", help="some of " + ",".join(DTYPES))
    group = made.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="24 products instead of 40")
    group.add_argument("--full", action="store_true", help="126 products instead of 40")
    group.add_argument("--shapes", metavar="CSV", help="products of a file with columns t,k,n")
    made.add_argument("--flush-l2", action="store_true", help="overwrite L2 before every call")
    made.add_argument("--graphs", action="store_true", help="queue calls as a CUDA graph")
    made.add_argument("--device", type=int, default=0, help="which GPU of torch's")
    made.add_argument("--dry-run", action="store_true", help="print what would be measured")
    return made


def main(
    argv: list[str] | None = None,
    torch: Any = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Run the command line; ``torch`` and ``clock`` may be stand-ins. Returns the exit code."""
    options = parser().parse_args(argv)
    try:
        plan = "quick" if options.quick else "full" if options.full else "standard"
        wanted = read_points(options.shapes) if options.shapes else points(plan)
        dtypes = chosen_dtypes(options.dtypes)
        if options.flush_l2 and options.graphs:
            raise Refused("--flush-l2 and --graphs exclude each other")
        if options.dry_run:
            dry_run(dtypes, wanted)
            return 0
        if torch is None:
            try:
                torch = importlib.import_module("torch")
            except (ImportError, OSError):
                raise Refused("needs PyTorch with CUDA: https://pytorch.org") from None
        return measure(torch, options, wanted, clock)
    except Refused as error:
        say(f"measure_gpu: {error}")
        return 2
    except KeyboardInterrupt:
        say(f"stopped; what was measured is in {options.out}; the same command goes on from there")
        return 130


if __name__ == "__main__":
    sys.exit(main())
