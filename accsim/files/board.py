"""hwconfigs/boards/*.yaml → the power model of a GPU or FPGA board, a source at every number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from accsim.base.errors import InputError, near, one_of
from accsim.files.sourced import load_tree, taken_apart
from accsim.files.validate import build
from accsim.files.yaml import Node
from accsim.spec.board import GpuBoard
from accsim.spec.fpga_power import FpgaBoard

Board = GpuBoard | FpgaBoard
B = TypeVar("B", GpuBoard, FpgaBoard)

KINDS: dict[str, type[GpuBoard] | type[FpgaBoard]] = {
    "gpu_board": GpuBoard,
    "fpga_board": FpgaBoard,
}
# Endings of field names and the units they state, beside those of base/units.py; longest first.


def load_board(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Board:
    """Return the board of a catalogue name or a YAML path.

    Args:
        name: ``"a100_sxm4_40gb"`` or ``"my/board.yaml"``.
        overrides: dotted keys to values, e.g. ``{"cap_w": 300, "energy.mma_pj.bf16": 2}``.

    Raises:
        InputError: no such name, or a file or override that breaks a rule.
    """
    tree = load_tree(name, overrides, "boards", "name")
    board: Board = build(_noun(tree), taken_apart(tree), tree)
    return board


def load_board_of(noun: type[B], name: str | Path, overrides: Mapping[str, Any] | None = None) -> B:
    """Return a board that is a ``GpuBoard``, or an ``FpgaBoard``; refuse one of the other kind."""
    board = load_board(name, overrides)
    if not isinstance(board, noun):
        wanted = next(kind for kind, known in KINDS.items() if known is noun)
        raise InputError(f"board '{board.name}': kind must be {wanted}; got '{board.kind}'")
    return board


def _noun(tree: Node) -> type[GpuBoard] | type[FpgaBoard]:
    kind = tree.value.get("kind", Node("", tree.file, tree.line))
    if kind.value not in KINDS:
        raise kind.error(
            f"kind must be one of {one_of(KINDS)}; got '{kind.value}'{near(str(kind.value), KINDS)}"
        )
    return KINDS[kind.value]
