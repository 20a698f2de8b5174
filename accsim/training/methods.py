"""Methods of n:m sparse training: which products of a step read packed weights.

Sources: BDWP, arXiv 2309.13015; SR-STE, Bi-Mask and progressive gradient flow as their authors'
code does it. The weight gradient is dense in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from accsim.base.errors import InputError, near, one_of
from accsim.sparsity.bidirectional import Bidirectional
from accsim.sparsity.nm import NM
from accsim.sparsity.transposable import Transposable
from accsim.spec.pattern import DENSE, Dense, Pattern, parse_pattern


@dataclass(frozen=True)
class Method:
    """How a method trains.

    ``copies`` are packed copies of the weights in memory; ``searches`` how many groupings of the
    weights the selection engine goes through for them (a transposable mask looks at the rows and
    the columns of its tiles, and packs once). ``fades``: MdGf, dense products until β = 0.
    """

    name: str
    ff_sparse: bool
    bp_sparse: bool
    copies: int
    searches: int
    fades: bool
    summary: str

    @property
    def dense_copy(self) -> bool:
        """Whether some product reads weights that are not packed."""
        return not (self.ff_sparse and self.bp_sparse)

    def sparse(self, which: str) -> bool:
        """Say whether the pass ``ff``, ``bp`` or ``wu`` reads packed weights."""
        return {"ff": self.ff_sparse, "bp": self.bp_sparse}.get(which, False)


METHODS = {
    method.name: method
    for method in (
        Method("dense", False, False, 0, 0, False, "no sparsity"),
        Method("sr_ste", True, False, 1, 1, False, "forward n:m, both gradients dense"),
        Method("sdgf", True, False, 1, 1, False, "as sr_ste, a ladder of patterns over training"),
        Method("mdgf", True, False, 1, 1, True, "pruned weights fade: dense until β = 0"),
        Method("bdwp", True, True, 2, 2, False, "n:m along k forward, along n backward"),
        Method("bimask", True, True, 2, 2, False, "as bdwp: a mask of its own backward"),
        Method("transposable", True, True, 1, 2, False, "one mask, n:m along k and along n"),
    )
}


def method_of(word: str | Method) -> Method:
    """Return the method of a name.

    Raises:
        InputError: an unknown name; it says the near word.
    """
    if isinstance(word, Method):
        return word
    if word not in METHODS:
        raise InputError(
            f"method must be one of {one_of(METHODS)}; got '{word}'{near(word, METHODS)}"
        )
    return METHODS[word]


def group_of(pattern: str | Pattern, method: Method) -> NM | None:
    """Return the n:m of a pattern for a method; None for dense.

    ``bidirectional:n:m`` stands for n:m in bdwp and bimask, ``transposable:n:m`` in transposable.

    Raises:
        InputError: another pattern, or a sparse one for the method ``dense``.
    """
    found = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    if isinstance(found, Dense):
        return None
    if isinstance(found, Bidirectional) and method.copies == 2:
        found = NM(found.n, found.m)
    if isinstance(found, Transposable) and method.name == "transposable":
        found = NM(found.n, found.m)
    if not isinstance(found, NM):
        raise InputError(f"pattern must be n:m, such as 2:8, for {method.name}; got '{found}'")
    if method.name == "dense":
        raise InputError(f"pattern must be dense for the method dense; got '{found}'")
    return None if found.n == found.m else found


def speedup_bound(method: Method, group: NM | None) -> float:
    """Return what a step of three equal products can gain: 3/(2 + r), 3/(1 + 2r), r = n/m.

    >>> speedup_bound(METHODS["bdwp"], NM(2, 8)), speedup_bound(METHODS["bdwp"], None)
    (2.0, 1.0)
    """
    if group is None:
        return 1.0
    r = group.n / group.m
    return 3 / sum(r if method.sparse(which) else 1.0 for which in ("ff", "bp", "wu"))


def written(group: NM | None) -> str:
    """Return the level of a group: ``dense`` or ``n:m``."""
    return str(DENSE) if group is None else str(group)
