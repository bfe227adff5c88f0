"""Loads an export as a stranger would, with TensorFlow Hub alone, and shows that it answers."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from trainer import imports


def answer(export: str) -> str:
    """One line on what the export's default signature says to a picture made for the purpose.

    Args:
        export: folder that export_hub wrote.
    """
    import numpy as np
    import tensorflow as tf
    import tensorflow_hub as hub
    from PIL import Image

    about = json.loads((Path(export) / "export.json").read_text(encoding="utf-8"))
    loaded = hub.load(str(Path(export) / "saved_model"))
    name = about["serving_default"]
    inputs = {}
    for key, text in about["signatures"][name]["inputs"].items():
        if text.startswith("string"):
            # A grey ramp: any picture will do to see that bytes go in and numbers come out.
            ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
            file = io.BytesIO()
            Image.fromarray(ramp).save(file, "PNG")
            inputs[key] = tf.constant([file.getvalue()])
        else:
            dtype, shape = text.split(" ", 1)
            sizes = [1 if s == "batch" else int(s) for s in shape.strip("[]").split(", ")]
            inputs[key] = tf.zeros(sizes, dtype)
    outputs = loaded.signatures["serving_default"](**inputs)
    parts = [f"{k} {list(v.shape)} mean {float(tf.reduce_mean(v)):.4g}" for k, v in outputs.items()]
    return f"{name} answers: {', '.join(sorted(parts))}"


if __name__ == "__main__":
    imports.begin()  # and no end: this process is over soon
    print(answer(sys.argv[1]))
