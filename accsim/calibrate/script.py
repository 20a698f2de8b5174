"""The stand-alone script that measures a user's GPU, as text to be written out."""

from __future__ import annotations

from importlib.resources import files

NAME = "measure_gpu.py"


def text() -> str:
    """Return the script's source: it needs Python 3.10 and PyTorch, and accsim nowhere.

    >>> text().splitlines()[0]
    '#!/usr/bin/env python3'
    """
    return (files("accsim.calibrate") / NAME).read_text(encoding="utf-8")
