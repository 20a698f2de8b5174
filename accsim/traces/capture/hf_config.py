"""A Hugging Face config → trace of shapes: the model is built without weights and never stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accsim.base.errors import InputError, near
from accsim.traces import strict_json
from accsim.traces.capture.inputs import InputSpec, parse_input
from accsim.traces.capture.seen import needed
from accsim.traces.capture.torch_modules import blamed, drawn, recorded, watch
from accsim.traces.matrix import read_bytes
from accsim.traces.trace import Trace

DEFAULT_TOKENS = 128
DEFAULT_PIXELS = 224


def capture_config(
    config: str | Path | Mapping[str, Any],
    inputs: Sequence[str | InputSpec] = (),
    *,
    model_type: str | None = None,
    head: str = "AutoModel",
    name: str | None = None,
    dtype: str = "float32",
    provenance: Mapping[str, Any] | None = None,
) -> Trace:
    """Return the trace, of shapes only, of the model that a ``config.json`` describes.

    The model is built on the meta device (no memory, no download, no code of the checkpoint) and
    run there. Models whose control flow looks at values, such as experts chosen by a router,
    cannot run so.

    Args:
        config: path of a config.json, or its content.
        inputs: what to run it on; else 128 tokens, or one image of the config's size.
        model_type: such as ``"bert"``; the config's own if None.
        head: class of transformers to build: AutoModel, AutoModelForCausalLM …
        name: of the network; the model type if None.
        dtype: what the model computes in: float32, float16, bfloat16.
        provenance: license, source … of the config.

    Raises:
        InputError: transformers is missing, an unknown model type or head, or a model that cannot
            run without values.
    """
    torch = needed("torch", "transformers")
    transformers = needed("transformers", "transformers")
    source = "a config" if isinstance(config, Mapping) else Path(config).name
    data = dict(config) if isinstance(config, Mapping) else _read(config)
    data.pop("auto_map", None)  # names code of the checkpoint: never run
    word = str(model_type or data.pop("model_type", ""))
    data.pop("model_type", None)
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING.keys()
    if word not in known:
        raise InputError(f"model_type must be one that transformers knows{near(word, known)}; "
                         f"got '{word}'")  # fmt: skip
    number = getattr(torch, dtype, None)
    if not isinstance(number, torch.dtype):
        raise InputError(f"dtype must be float32, float16 or bfloat16; got '{dtype}'")
    maker = getattr(transformers, head, None) if head.startswith("AutoModel") else None
    if maker is None:
        raise InputError(f"head must be a class such as AutoModelForCausalLM; got '{head}'")
    with blamed(f"{source} cannot be built"), torch.device("meta"):
        made = transformers.AutoConfig.for_model(word, **data)
        made.use_cache = False
        model = maker.from_config(made, trust_remote_code=False).to(number)
    specs = [parse_input(x) if isinstance(x, str) else x for x in inputs] or _default(model)
    fed = [drawn(torch, _masked(specs), 0, 0, torch.device("meta"), number)]
    with torch.device("meta"):
        recorder = watch(torch, model, fed, source, densities=False, masks=False)
    versions = {"torch": str(torch.__version__), "transformers": str(transformers.__version__)}
    about = {"source": source, "versions": versions, **(provenance or {})}
    return recorded(recorder, fed, name or word, False, 1.0, about)


def _read(path: str | Path) -> dict[str, Any]:
    data = strict_json.parse(read_bytes(path), "config", str(path), one_line=False)
    if not isinstance(data, dict):
        raise InputError("config must be a mapping", file=path)
    return data


def _default(model: Any) -> list[InputSpec]:
    """Return an image of the config's size where the model takes one, else tokens."""
    config = model.config
    if model.main_input_name != "pixel_values":
        high = int(getattr(config, "vocab_size", 2))
        return [InputSpec("int", (1, DEFAULT_TOKENS), high, model.main_input_name)]
    size = getattr(config, "image_size", DEFAULT_PIXELS)
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    channels = int(getattr(config, "num_channels", 3))
    return [InputSpec("normal", (1, channels, *sides), name="pixel_values")]


def _masked(specs: list[InputSpec]) -> list[InputSpec]:
    """Add the whole attention mask to lone tokens: to make it, models look at values."""
    if [spec.name for spec in specs] != ["input_ids"] or len(specs[0].shape) != 2:
        return specs
    batch, tokens = specs[0].shape
    return [*specs, InputSpec("normal", (batch, 1, tokens, tokens), name="attention_mask")]
