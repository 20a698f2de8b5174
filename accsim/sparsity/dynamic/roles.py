"""Which part of a transformer a layer is, from its name: the catalogue's naming families."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from accsim.spec.workload import Layer

# Tail of the name (what follows the block number) → role; the first that matches counts.
TAILS = (
    ("*.qk", "qk"), ("*.av", "av"),
    ("*q_proj", "q"), ("*.query", "q"), ("*k_proj", "k"), ("*.key", "k"), ("*v_proj", "v"),
    ("*.value", "v"), ("*c_attn", "qkv"),
    ("*o_proj", "o"), ("*attention.output.dense", "o"), ("*attn.c_proj", "o"),
    ("*gate_proj", "gate"), ("*experts*.w1*", "gate"),
    ("*up_proj", "up"), ("*experts*.w3*", "up"), ("*intermediate.dense", "up"), ("*mlp.c_fc", "up"),
    ("*down_proj", "down"), ("*experts*.w2*", "down"), ("*output.dense", "down"),
    ("*mlp.c_proj", "down"),
)  # fmt: skip
# Layers of one block that read the same input.
SITES = {"q": "attention", "k": "attention", "v": "attention", "qkv": "attention",
         "gate": "ffn", "up": "ffn"}  # fmt: skip


def block(layer: Layer) -> tuple[str, int] | None:
    """Return (prefix, number) of the block a layer lies in, None outside of blocks.

    >>> from accsim.spec.workload import gemm
    >>> block(gemm(1, 1, 1, name="model.layers.3.mlp.up_proj").layers[0])
    ('model.layers', 3)
    """
    match = re.match(r"(.*?)\.(\d+)\.", layer.name)
    return (match[1], int(match[2])) if match else None


def role(layer: Layer) -> str | None:
    """Return what the layer is in its block, None if its name tells nothing.

    >>> from accsim.spec.workload import gemm
    >>> role(gemm(1, 1, 1, name="h.0.attn.c_proj").layers[0])
    'o'
    """
    return next((role for tail, role in TAILS if fnmatchcase(layer.name, tail)), None)


def place(layer: Layer) -> str:
    """Return the block as one word (``model.layers.3``), the layer's name outside of blocks."""
    found = block(layer)
    return layer.name if found is None else f"{found[0]}.{found[1]}"


def site(layer: Layer) -> str:
    """Return the name of the layer's input: layers that share it have the same site."""
    shared = SITES.get(role(layer) or "")
    return layer.name if shared is None else f"{place(layer)}.{shared}"
