"""A torch whose GPU is a queue with a virtual clock: a product takes as long as ``latency`` says.

A call costs the host ``host_s``; the GPU starts it when it has finished the one before. So events
give what a real queue gives: the host's pace where the queue runs dry, the GPU's where it does not.
"""

from types import SimpleNamespace


class Tensor:
    def __init__(self, gpu, shape, dtype, sparse=False):
        self.gpu, self.shape, self.dtype, self.sparse = gpu, tuple(shape), dtype, sparse

    @property
    def packed(self):
        return self

    def to(self, dtype):
        return Tensor(self.gpu, self.shape, dtype, self.sparse)

    def t(self):
        return Tensor(self.gpu, self.shape[::-1], self.dtype, self.sparse)

    def contiguous(self):
        return self

    def reshape(self, *shape):
        return Tensor(self.gpu, shape, self.dtype, self.sparse)

    def __getitem__(self, index):
        return Tensor(self.gpu, (*index.shape, 4), self.dtype)

    def __mul__(self, other):
        assert self.shape == other.shape
        assert other.dtype == "bool"
        return self

    def zero_(self):
        self.gpu.flushed += 1
        self.gpu.queue(1e-5)


class Event:
    def __init__(self, gpu):
        self.gpu, self.at = gpu, None

    def record(self):
        self.at = max(self.gpu.free, self.gpu.now)

    def query(self):
        return self.at <= self.gpu.now

    def elapsed_time(self, other):
        return (other.at - self.at) * 1e3


class Gpu:
    """The queue: ``now`` is the host's clock, ``free`` when the GPU has nothing left to do."""

    def __init__(self, latency, host_s=5e-6, jitter=()):
        self.latency, self.host_s = latency, host_s
        self.now = self.free = 0.0
        self.flushed = self.calls = self.capturing = 0
        self.jitter = list(jitter)

    def clock(self):
        return self.now

    def queue(self, seconds, host_s=None):
        if self.capturing:
            self.captured += seconds
            return
        self.now += self.host_s if host_s is None else host_s
        self.free = max(self.free, self.now) + seconds

    def product(self, pattern, dtype, t, k, n):
        seconds = self.latency(pattern, dtype, t, k, n) * 1e-6
        if self.jitter:
            seconds *= self.jitter[self.calls % len(self.jitter)]
        self.calls += 1
        self.queue(seconds)

    def synchronize(self):
        self.now = max(self.now, self.free)


class Graph:
    def __init__(self, gpu):
        self.gpu = gpu

    def __enter__(self):
        self.gpu.capturing, self.gpu.captured = 1, 0.0

    def __exit__(self, *_):
        self.gpu.capturing = 0
        self.seconds = self.gpu.captured

    def replay(self):
        self.gpu.queue(self.seconds)


def multiplied(gpu, x, w):
    (t, k), (k2, n) = x.shape, w.shape
    assert k == k2
    assert x.dtype == w.dtype
    gpu.product("dense", x.dtype, t, k, n)


def scaled(gpu, x, w, **rest):
    assert set(rest) == {"scale_a", "scale_b", "out_dtype", "use_fast_accum"}
    multiplied(gpu, x, w)


def int_multiplied(gpu, x, w):
    if x.shape[0] <= 16:
        raise RuntimeError("self.size(0) needs to be greater than 16")
    multiplied(gpu, x, w)


def sparse_multiplied(gpu, packed, x, out_dtype=None):
    (n, k), (k2, t) = packed.shape, x.shape
    assert packed.sparse
    assert k == k2
    assert (out_dtype is None) == (packed.dtype in ("bfloat16", "float16"))
    if t % (16 if packed.dtype in ("int8", "float8_e4m3fn") else 8):
        raise RuntimeError("t is not padded")
    gpu.product("2:4", packed.dtype, t, k, n)


def sparse(gpu, w):
    if w.dtype == "float32":
        raise RuntimeError("Error original_tensor.dtype torch.float32 is not supported\nmore")
    return Tensor(gpu, w.shape, w.dtype, sparse=True)


def torch_with(gpu, name="Fake GPU, 80 GB", capability=(9, 0), cuda=True, **extra):
    """Return a stand-in for the torch module, of the parts that the script uses."""
    properties = SimpleNamespace(
        name=name, major=capability[0], minor=capability[1], multi_processor_count=100,
        total_memory=80 * 2**30, L2_cache_size=40 * 2**20, uuid="0-1",
    )  # fmt: skip
    types = {x: x for x in ("bfloat16", "float16", "float32", "int8", "int32", "float8_e4m3fn")}
    made = lambda *shape, dtype="float32", device=None: Tensor(gpu, shape, dtype)  # noqa: E731
    return SimpleNamespace(
        __version__="9.9", version=SimpleNamespace(cuda="99.1"), **types,
        cuda=SimpleNamespace(
            is_available=lambda: cuda, device_count=lambda: 1, set_device=lambda i: None,
            current_device=lambda: 0, get_device_properties=lambda i: properties,
            Event=lambda enable_timing: Event(gpu), synchronize=gpu.synchronize,
            _sleep=lambda cycles: gpu.queue(cycles / 2e9), CUDAGraph=lambda: Graph(gpu),
            graph=lambda graph: graph,
        ),
        backends=SimpleNamespace(
            cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)),
            cusparselt=SimpleNamespace(version=lambda: 602),
        ),
        sparse=SimpleNamespace(
            SparseSemiStructuredTensor=SimpleNamespace(_FORCE_CUTLASS=True),
            to_sparse_semi_structured=lambda w: sparse(gpu, w),
        ),
        manual_seed=lambda seed: None, randn=made, ones=made,
        randint=lambda low, high, shape, dtype="int64", device=None: Tensor(gpu, shape, dtype),
        empty=lambda size, dtype, device: Tensor(gpu, (size,), dtype),
        tensor=lambda table, device: Tensor(gpu, (len(table), 4), "bool"),
        matmul=lambda x, w: multiplied(gpu, x, w),
        _int_mm=lambda x, w: int_multiplied(gpu, x, w),
        _scaled_mm=lambda x, w, **rest: scaled(gpu, x, w, **rest),
        _cslt_sparse_mm=lambda packed, x, **rest: sparse_multiplied(gpu, packed, x, **rest),
        **extra,
    )  # fmt: skip
