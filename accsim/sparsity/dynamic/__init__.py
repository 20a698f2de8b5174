"""Dynamic sparsity: what is left out depends on the data, and is drawn from stated models.

``apply_dynamic(workload, text, seed)`` gives a :class:`Dynamic`, a sequence of Workloads, one a
step. Its ``drawn`` says what was drawn:

- :class:`ActivationMasks`: per layer and step, bool (tokens, channels); ``union`` over tokens
- :class:`Routing`: tokens (steps, experts) assigned, taken, dropped
- :class:`BlockMask`: blocks of attention scores, bool (heads, tq/block, tk/block)
- :class:`TokenCounts`: tokens (steps, items, blocks)
"""

from accsim.sparsity.dynamic.activity import (
    ActivationMasks,
    Activity,
    fit_channel,
    union_density,
)
from accsim.sparsity.dynamic.apply import apply_dynamic, dynamics, parse_dynamic
from accsim.sparsity.dynamic.masks import BlockMask
from accsim.sparsity.dynamic.nouns import Dynamic, DynamicScheme
from accsim.sparsity.dynamic.routing import Router, Routing
from accsim.sparsity.dynamic.tokens import TokenCounts

__all__ = [
    "ActivationMasks",
    "Activity",
    "BlockMask",
    "Dynamic",
    "DynamicScheme",
    "Router",
    "Routing",
    "TokenCounts",
    "apply_dynamic",
    "dynamics",
    "fit_channel",
    "parse_dynamic",
    "union_density",
]
