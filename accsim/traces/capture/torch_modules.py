"""A PyTorch model → trace: shapes as it runs, masks of its weights, densities of its inputs."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accsim.base.errors import AccsimError, InputError, near
from accsim.traces.capture.inputs import InputSpec, parse_input
from accsim.traces.capture.seen import DENSE_FROM, check_dense_from, needed, trace_of
from accsim.traces.capture.torch_watch import Recorder, unused_fact
from accsim.traces.trace import Trace


def capture_torch(
    target: str | Callable[[], Any] | Any,
    inputs: Sequence[str | InputSpec] = (),
    *,
    steps: int = 1,
    seed: int = 0,
    name: str | None = None,
    weights: bool = False,
    densities: bool = True,
    activations: bool = False,
    dense_from: float = DENSE_FROM,
    provenance: Mapping[str, Any] | None = None,
) -> Trace:
    """Return the trace of a PyTorch model: what it multiplied when it ran.

    Layers carry the paths of their modules; attention's products are ``….qk`` and ``….av``, other
    products of activations ``….matmul``; what runs again is ``name#2``. Embeddings stand in the
    facts. Transposed and 3-D convolutions are linear layers of their lowered GEMM.

    Args:
        target: ``"package.module:build"`` or ``"file.py:build"``, where ``build()`` returns an
            nn.Module, or (module, example inputs): a tensor, a tuple of positional, a mapping of
            keyword inputs, or a list of these, one a step. Also the function or the module itself.
        inputs: what to run it on (see :func:`parse_input`); needed unless there are examples.
        steps: how many inputs to draw.
        seed: of the drawn inputs, and of torch while the model is built and run.
        name: of the network; the target's word if None.
        weights: keep the weights, not only their masks.
        densities: keep the share of non-zero inputs of each product.
        activations: keep which inputs are not zero, bit by bit.
        dense_from: share of kept weights from which a layer counts as dense.
        provenance: license, source … of the model.

    Raises:
        InputError: torch is missing, the target cannot be built or run, or it runs what cannot be
            captured.
    """
    torch = needed("torch", "torch")
    check_dense_from(dense_from)
    specs = [parse_input(x) if isinstance(x, str) else x for x in inputs]
    if type(steps) is not int or steps < 1:
        raise InputError(f"steps must be a whole number from 1; got {steps!r}")
    word = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, examples = _built(torch, target, word)
        fed = _fed(torch, model, specs, examples, steps, seed, word)
        recorder = watch(
            torch, model, fed, word, densities=densities or activations, masks=activations
        )
    about = {"source": word, "versions": {"torch": str(torch.__version__)}, **(provenance or {})}
    return recorded(recorder, fed, name or word.rpartition(":")[2], weights, dense_from, about)


def watch(
    torch: Any, model: Any, fed: list[Any], word: str, *, densities: bool, masks: bool
) -> Recorder:
    """Run a model on each input under a recorder, in inference; its state is put back after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    recorder = Recorder(torch, model, batch=_batch(torch, fed[0]), densities=densities, masks=masks)
    try:
        for step, given in enumerate(fed):
            recorder.begin(step, given)
            args, kwargs = _arguments(given)
            with blamed(f"'{word}' cannot run on the inputs"), recorder.watching():
                model(*args, **kwargs)
            recorder.end()
    finally:
        for module in training:
            module.training = True
    recorder.finish()
    return recorder


def recorded(
    recorder: Recorder,
    fed: list[Any],
    name: str,
    weights: bool,
    dense_from: float,
    provenance: Mapping[str, Any],
) -> Trace:
    """Return the trace of what a recorder saw."""
    torch = recorder.torch
    args, kwargs = _arguments(fed[0])
    named = {**{f"input{i}": x for i, x in enumerate(args)}, **kwargs}
    shapes = {key: tuple(x.shape) for key, x in named.items() if isinstance(x, torch.Tensor)}
    facts: dict[str, Any] = unused_fact(recorder)
    if recorder.embeddings:
        facts["embeddings"] = recorder.embeddings
    return trace_of(
        name, recorder.seen, weights=weights, dense_from=dense_from, inputs=shapes, facts=facts,
        provenance=provenance,
    )  # fmt: skip


def _built(torch: Any, target: Any, word: str) -> tuple[Any, Any]:
    """Return the model and its example inputs (None without)."""
    made = target
    if isinstance(target, str):
        made = _function(target)
    if not isinstance(made, torch.nn.Module) and callable(made):
        with blamed(f"'{word}' cannot be built"):
            made = made()
    examples = None
    if isinstance(made, tuple) and len(made) == 2:
        made, examples = made
    if not isinstance(made, torch.nn.Module):
        raise InputError(
            f"'{word}' must give an nn.Module, or one and its inputs; got {type(made).__name__}"
        )
    return made, examples


def _function(target: str) -> Any:
    """Return what ``package.module:name`` or ``file.py:name`` stands for."""
    place, colon, word = target.rpartition(":")
    if not colon or not place or not word.isidentifier():
        raise InputError(f"target must be package.module:build or file.py:build; got '{target}'")
    with blamed(f"'{place}' cannot be imported"), _importable():
        module = _file(place) if place.endswith(".py") else importlib.import_module(place)
    if not hasattr(module, word):
        raise InputError(f"'{place}' has no '{word}'{near(word, vars(module))}")
    return getattr(module, word)


@contextmanager
def _importable() -> Iterator[None]:
    """Let modules of the current folder be imported, as ``python -m`` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _file(place: str) -> Any:
    path = Path(place)
    spec = importlib.util.spec_from_file_location(f"accsim_captured_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError("no such file", file=place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turn whatever a stranger's code raises into one line."""
    try:
        yield
    except AccsimError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f": {lines[0][:200]}" if lines else ""
        raise InputError(f"{what}: {type(error).__name__}{reason}") from error


def _fed(
    torch: Any, model: Any, specs: list[InputSpec], examples: Any, steps: int, seed: int, word: str
) -> list[Any]:
    """Return the inputs of each step: tuples, or mappings of keyword inputs."""
    if specs:
        one = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        return [drawn(torch, specs, seed, step, one.device, one.dtype) for step in range(steps)]
    if examples is None:
        raise InputError(f"'{word}' needs an input, such as 1x3x224x224 or int:1x128:30522")
    listed = examples if isinstance(examples, list) else [examples]
    if not listed:
        raise InputError(f"'{word}' gives an empty list of inputs")
    return [x if isinstance(x, tuple | Mapping) else (x,) for x in listed]


def drawn(
    torch: Any, specs: Sequence[InputSpec], seed: int, step: int, place: Any, number: Any = None
) -> dict[str, Any]:
    """Return a step's inputs on a device; ``number`` is the type of those that are not whole."""

    def tensor(i: int, spec: InputSpec) -> Any:
        kind = torch.int64 if spec.kind in ("int", "ones") else number or torch.float32
        if place.type == "meta":
            return torch.empty(spec.shape, dtype=kind, device=place)
        return torch.from_numpy(spec.draw(seed, i, step)).to(device=place, dtype=kind)

    made = [(spec.name, tensor(i, spec)) for i, spec in enumerate(specs)]
    return {"": tuple(x for name, x in made if not name), **{n: x for n, x in made if n}}


def _arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword inputs; the positional ones of a mapping stand under ''."""
    if isinstance(given, Mapping):
        return tuple(given.get("", ())), {str(k): v for k, v in given.items() if k != ""}
    return tuple(given), {}


def _batch(torch: Any, given: Any) -> int:
    """Return the first extent of the first tensor."""
    args, kwargs = _arguments(given)
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.dim():
            return int(value.shape[0])
    return 1
