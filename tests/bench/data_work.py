"""What is measured, each in a process of its own: create_tfrecords, its bounds, its peers.

    python -m tests.bench.data_work NAME DATA SCRATCH [SETTING=VALUE...]

Prints a line when it is ready; then reads a line for each turn and prints the seconds that it took,
and those of the processor.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

Work = Callable[[], None]


def create_tfrecords(data: Path, scratch: Path, settings: dict[str, str]) -> tuple[str, Work]:
    """Ours, whole: from listing the folder to the manifest."""
    from components.create_tfrecords import create_tfrecords as step

    arguments = {**settings, "workers": int(settings.get("workers", "1"))}

    def work() -> None:
        result = step.create_tfrecords(str(scratch / "examples"), str(data), **arguments)
        if result["examples"]["quarantined"]:
            raise RuntimeError(f"Nothing must be quarantined; got {result}.")

    return "create_tfrecords", work


def copy(data: Path, scratch: Path, settings: dict[str, str]) -> tuple[str, Work]:
    """The bound: each file is read, its CRC-32C computed, and written to one file.

    With sha256=yes also the SHA-256 of what is written, which the manifest holds.
    """
    import google_crc32c

    paths = _files(data)
    with_sha256 = bool(settings.get("sha256"))

    def work() -> None:
        total = hashlib.sha256()
        with open(scratch / "copy", "wb") as target:
            for path in paths:
                with open(path, "rb", buffering=0) as source:
                    content = source.read()
                google_crc32c.value(content)
                if with_sha256:
                    total.update(content)
                target.write(content)

    return f"google-crc32c {google_crc32c.implementation}", work


def simplejpeg(data: Path, scratch: Path, settings: dict[str, str]) -> tuple[str, Work]:
    """The bound of decoding: the fastest decoder, file by file, and nothing kept.

    With size=eighth as create_tfrecords does it: every bit is read, few pixels are computed.
    """
    import simplejpeg as decoder

    paths, options = _files(data), {}
    if settings.get("size") == "eighth":
        options = {"colorspace": "GRAY", "min_height": 1, "min_width": 1, "min_factor": 8}

    def work() -> None:
        for path in paths:
            decoder.decode_jpeg(_content(path), **options)

    return "simplejpeg", work


def pillow(data: Path, scratch: Path, settings: dict[str, str]) -> tuple[str, Work]:
    """Pillow, file by file."""
    import PIL
    from PIL import Image

    paths = _files(data)

    def work() -> None:
        for path in paths:
            Image.open(io.BytesIO(_content(path))).load()

    return f"Pillow {PIL.__version__}", work


def tensorflow(data: Path, scratch: Path, settings: dict[str, str]) -> tuple[str, Work]:
    """TensorFlow's decoder, file by file."""
    import tensorflow as tf

    paths = _files(data)

    def work() -> None:
        for path in paths:
            tf.io.decode_jpeg(_content(path))

    return f"TensorFlow {tf.__version__}", work


def beam(data: Path, scratch: Path, settings: dict[str, str]) -> tuple[str, Work]:
    """A plain Beam pipeline: paths, examples, TFRecords."""
    import apache_beam
    import tensorflow as tf
    from apache_beam.io.tfrecordio import WriteToTFRecord
    from apache_beam.options.pipeline_options import PipelineOptions

    paths = _files(data)

    def example(path: str) -> bytes:
        folder = path.rsplit("/", 2)[1]
        values = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[_content(path)])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(folder[-1])])),
        }
        features = tf.train.Features(feature=values)
        return tf.train.Example(features=features).SerializeToString()

    def work() -> None:
        with apache_beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            _ = (
                pipeline
                | apache_beam.Create(paths)
                | apache_beam.Map(example)
                | WriteToTFRecord(str(scratch / "records"), file_name_suffix=".tfrecord")
            )

    return f"Beam {apache_beam.__version__}", work


def _files(data: Path) -> list[str]:
    """All files, in the order of the folder: reading them in another order takes no longer."""
    return sorted(str(path) for path in data.rglob("*.jpg"))


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def main() -> None:
    """Takes turns until there are no more."""
    name, data, scratch, *pairs = sys.argv[1:]
    kinds = (create_tfrecords, copy, simplejpeg, pillow, tensorflow, beam)
    made = {kind.__name__: kind for kind in kinds}[name]
    place = Path(scratch)
    version, work = made(Path(data), place, dict(pair.split("=") for pair in pairs))
    take_turns(version, work, place)


def take_turns(version: str, work: Work, scratch: Path) -> None:
    """Does the work for each line that is read, in an empty folder, and prints the seconds."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # whatever a library may have to say
    answers.write(f"{version}\n")
    answers.flush()
    for _ in sys.stdin:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        began, used = time.perf_counter(), time.process_time()
        work()
        seconds, of_processor = time.perf_counter() - began, time.process_time() - used
        shutil.rmtree(scratch)  # what is removed need not be written to the disk behind our back
        answers.write(f"{seconds} {of_processor}\n")
        answers.flush()


if __name__ == "__main__":
    main()
