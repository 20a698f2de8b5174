"""Schemes that are an operation graph, not a mask: a layer is replaced by what is computed.

``apply_scheme(workload, "lowrank:64+sparse@0.95")`` rewrites; ``parse_scheme(text).cost(layer)``
counts MACs, additions, parameters and stored bits; ``spanning_chain`` is the exact minimum
spanning tree of a binary matrix's columns.
"""

from accsim.sparsity.schemes.apply import apply_scheme, parse_scheme, schemes
from accsim.sparsity.schemes.chains import Chain, chained, spanning_chain
from accsim.sparsity.schemes.dictionary import ColumnSparse
from accsim.sparsity.schemes.scheme import Cost, Scheme, cost

__all__ = [
    "Chain",
    "ColumnSparse",
    "Cost",
    "Scheme",
    "apply_scheme",
    "chained",
    "cost",
    "parse_scheme",
    "schemes",
    "spanning_chain",
]
