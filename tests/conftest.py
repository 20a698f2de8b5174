"""Kernels compile into a folder named by their sources, so that an edited one is never stale."""

import hashlib
import os
import tempfile
from pathlib import Path

KERNELS = Path(__file__).parent.parent / "accsim" / "kernels"


def _cache_folder() -> str:
    digest = hashlib.sha256()
    for source in sorted(KERNELS.glob("*.py")):
        digest.update(source.read_bytes())
    return str(Path(tempfile.gettempdir()) / f"accsim-kernels-{digest.hexdigest()[:16]}")


os.environ.setdefault("NUMBA_CACHE_DIR", _cache_folder())
