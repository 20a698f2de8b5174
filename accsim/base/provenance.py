"""Where a result comes from: version, machine-independent configuration hash, seed, sources."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def config_hash(configuration: Any) -> str:
    """Return the sha256 of a configuration's canonical JSON, the same on any machine."""
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
