"""A folder results are written to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accsim.base.errors import InputError


@contextmanager
def folder_to_write(folder: str | Path) -> Iterator[Path]:
    """Make a folder and hand it over; what cannot be written in it is one clear error.

    Raises:
        InputError: not a name, or the folder cannot be made or written.
    """
    if not isinstance(folder, str | Path) or not str(folder).strip():
        raise InputError(f"save needs the name of a folder; got {folder!r}")
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write results: {reason}", file=path) from None
