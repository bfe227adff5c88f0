"""preprocess beside plain loops, and reading for training beside decoding and beside Keras.

    python -m tests.bench.preprocess [preprocess] [training] [--rounds N] [--photos N]

The contestants are processes of their own, which take turns: see `tests.bench.data_contest`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.data_contest import Contestant, compete, ratio, say, tell, tell_processor
from tests.bench.data_photos import VALIDATION, write_photos
from tests.bench.data_work import Work, take_turns

MODELS = Path(__file__).parent / "models"
ROUNDS = 5
PHOTOS = 2000
BATCH_SIZE = 64
SIZE = 224  # of the pictures, in pixels, as RegNetY takes them
QUALITY = 95


def preprocess_speed(rounds: int = ROUNDS, photos: int = PHOTOS) -> None:
    """The whole step beside plain loops that decode, resize and encode, one process each.

    The loops read the same records and write the same examples; they know nothing of Beam.
    """
    with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as place:
        folder = Path(place)
        _write_examples(folder, photos, exchanged=True)
        for model, what in (
            ("reencoding", "resized, encoded as JPEG"),
            ("regnety", "RegNetY's centre crop, kept as pixels"),
        ):
            ours, both = "preprocess, one core", "preprocess, two cores"
            same = "  a plain loop on one core, TensorFlow"
            other = "  a plain loop on one core, simplejpeg and Pillow"
            entries = [
                _contestant(ours, "step", folder, model, cores=1),
                _contestant(same, "tensorflow_loop", folder, model, cores=1),
                _contestant(other, "simplejpeg_loop", folder, model, cores=1),
                _contestant(both, "step", folder, model),
            ]
            seconds = compete(entries, rounds)
            say("", what)
            tell(photos, seconds, {same: ours, other: ours})
            say("  two cores beside one", ratio(seconds[both], seconds[ours]))
            tell_processor(photos, entries, {same: ours, other: ours})
    say("wanted", "0.70 of a plain loop, per core")


def training_input_speed(rounds: int = ROUNDS, photos: int = PHOTOS) -> None:
    """An epoch of RegNetY's training input, beside decoding alone and beside Keras's reader."""
    with tempfile.TemporaryDirectory(prefix="paper2hub-bench-") as place:
        folder = Path(place)
        _write_examples(folder, photos, exchanged=False)
        step(folder, folder, "regnety")[1]()
        count = photos - -(-photos // VALIDATION)  # of the training split
        for cores in (1, 2):
            ours, decoded = "read, decode, augment, batch", "  decoding alone"
            keras = "  keras.utils.image_dataset_from_directory, same augmentation"
            entries = [
                _contestant(ours, "training", folder, "regnety", cores),
                _contestant(decoded, "decoding", folder, "regnety", cores),
                _contestant(keras, "keras_reader", folder, "regnety", cores),
            ]
            seconds = compete(entries, rounds)
            say("", f"{cores} core{'s' if cores > 1 else ''}")
            tell(count, seconds, {decoded: ours, keras: ours})
            if cores == 1:
                tell_processor(count, entries, {decoded: ours, keras: ours})
    say("wanted", "0.85 of decoding alone")


def _write_examples(folder: Path, photos: int, exchanged: bool) -> None:
    """Photos and examples of them; with their splits exchanged, the large one is for validation.

    What is not for training, every model has to decode.
    """
    from components.create_tfrecords.create_tfrecords import create_tfrecords
    from trainer.data.manifest import read_manifest, write_manifest

    say("", write_photos(folder / "photos", photos))
    examples = folder / "examples"
    create_tfrecords(str(examples), str(folder / "photos"), shards=8, duplicates="keep")
    if exchanged:
        manifest = read_manifest(examples)
        splits = {
            "train": manifest.splits["validation"],
            "validation": manifest.splits["train"],
        }
        write_manifest(examples, dataclasses.replace(manifest, splits=splits))


def _contestant(title: str, name: str, folder: Path, model: str, cores: int = 2) -> Contestant:
    command = [sys.executable, "-m", "tests.bench.preprocess", "--contestant", name]
    return Contestant(title, [*command, str(folder), model], cores)


def step(folder: Path, scratch: Path, model: str) -> tuple[str, Work]:
    """Ours, whole: from the manifest that is read to the one that is written."""
    from components.preprocess.preprocess import preprocess

    def work() -> None:
        outputs = [str(scratch / name) for name in ("transformed_examples", "transform_graph")]
        result = preprocess(model, str(folder / "examples"), *outputs)
        if result["transformed_examples"]["quarantined"]:
            raise RuntimeError(f"Nothing must be quarantined; got {result}.")

    return "preprocess", work


def tensorflow_loop(folder: Path, scratch: Path, model: str) -> tuple[str, Work]:
    """The model's own functions, compiled, picture by picture."""
    import tensorflow as tf

    from tests.bench.models.reencoding.config import Config
    from tests.bench.models.reencoding.data import reencode
    from trainer.augmentation.crops import centre_crop, decode
    from trainer.models.regnety.data import SHORTER_SIDE

    def crop(encoded: tf.Tensor) -> tf.Tensor:
        image = centre_crop(decode(encoded), round(SIZE * SHORTER_SIDE), SIZE)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)

    functions = {"regnety": crop, "reencoding": lambda e: reencode(e, Config(SIZE, QUALITY))}
    compiled = tf.function(
        functions[model], input_signature=[tf.TensorSpec([], tf.string)], autograph=False
    )
    return f"TensorFlow {tf.__version__}", _loop(
        folder, scratch, model, lambda encoded: compiled(encoded).numpy()
    )


def simplejpeg_loop(folder: Path, scratch: Path, model: str) -> tuple[str, Work]:
    """The fastest decoder, and Pillow's resizing, which smooths while it is at it."""
    import numpy as np
    import simplejpeg
    from PIL import Image

    def crop(encoded: bytes) -> np.ndarray:
        image = Image.fromarray(simplejpeg.decode_jpeg(encoded))
        short = round(SIZE * 256 / 224)
        scale = short / min(image.size)
        width, height = (int(side * scale + 1e-6) for side in image.size)
        left, top = (width - SIZE + 1) // 2, (height - SIZE + 1) // 2
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)))

    def reencode(encoded: bytes) -> bytes:
        image = Image.fromarray(simplejpeg.decode_jpeg(encoded))
        resized = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        return simplejpeg.encode_jpeg(resized, quality=QUALITY, colorsubsampling="420")

    made = {"regnety": crop, "reencoding": reencode}[model]
    return "simplejpeg", _loop(folder, scratch, model, made)


def _loop(folder: Path, scratch: Path, model: str, made: Callable[[bytes], object]) -> Work:
    from trainer.data.examples import decode_example, encode_example
    from trainer.data.manifest import read_manifest
    from trainer.data.records import RecordWriter, read_records
    from trainer.dataset import Feature

    manifest = read_manifest(folder / "examples")
    pixels = Feature("uint8", (SIZE, SIZE, 3), "raw")
    stored = dict(manifest.features) | ({"image": pixels} if model == "regnety" else {})

    def work() -> None:
        for split in manifest.splits:
            # RegNetY keeps the pictures that it trains on as they are.
            as_they_are = model == "regnety" and split == "train"
            features = manifest.features if as_they_are else stored
            for path in manifest.files(folder / "examples", split):
                with RecordWriter(scratch / path.name) as writer:
                    for record in read_records(path):
                        example = decode_example(manifest.features, record)
                        if not as_they_are:
                            example["image"] = made(example["image"])
                        writer.write(encode_example(features, example))

    return work


def training(folder: Path, scratch: Path, model: str) -> tuple[str, Work]:
    """Ours: an epoch, as train reads it."""
    import functools

    from trainer.engine.input import Split
    from trainer.models.regnety.config import Config
    from trainer.models.regnety.data import augment

    split = Split(folder / "transformed_examples", "train")
    config = Config(image_size=SIZE)

    def work() -> None:
        for _ in split.shuffled(BATCH_SIZE, 0, 0, functools.partial(augment, config=config)):
            pass

    return "trainer.engine.input", work


def decoding(folder: Path, scratch: Path, model: str) -> tuple[str, Work]:
    """The bound: the same records, decoded in full, in parallel; nothing else."""
    import tensorflow as tf

    from trainer.data.manifest import read_manifest

    files = read_manifest(folder / "transformed_examples").files(
        folder / "transformed_examples", "train"
    )
    column = {"image": tf.io.FixedLenFeature((), tf.string)}

    def decode(record: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.parse_single_example(record, column)["image"])

    records = tf.data.TFRecordDataset([str(file) for file in files]).cache()
    pictures = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE)

    def work() -> None:
        # Counted within tf.data: handing each picture over to Python takes longer than a crop.
        int(pictures.reduce(0, lambda count, _: count + 1))

    return "tf.data", work


def keras_reader(folder: Path, scratch: Path, model: str) -> tuple[str, Work]:
    """Keras's reader of folders, with RegNetY's augmentation behind it."""
    import keras
    import tensorflow as tf

    from trainer.augmentation.crops import random_crop
    from trainer.models.regnety import data

    pictures = keras.utils.image_dataset_from_directory(
        str(folder / "photos" / "train"),
        batch_size=None,
        image_size=(480, 640),
        shuffle=True,
        seed=0,
    )

    def augment(number: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        image, label = example
        seeds = tf.random.split(tf.stack([1, tf.cast(number, tf.int32)]), 3)
        image = random_crop(image, SIZE, seeds[0], data.SMALLEST_AREA, data.ASPECT_RATIOS)
        image = tf.image.stateless_random_flip_left_right(image, seeds[1])
        strength = tf.random.stateless_normal((3,), seeds[2], stddev=data.LIGHTING)
        values = tf.constant(data.EIGENVALUES) * strength
        image += 255.0 * tf.linalg.matvec(tf.constant(data.EIGENVECTORS), values)
        return {"image": image, "label": label}

    batches = (
        pictures.enumerate()
        .map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH_SIZE, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )

    def work() -> None:
        for _ in batches:
            pass

    return f"Keras {keras.__version__}", work


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", choices=["preprocess", "training", []])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each contestant")
    parser.add_argument("--photos", type=int, default=PHOTOS, help="photos of a turn")
    parser.add_argument("--contestant", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        name, folder, model = given.contestant
        _compete_as(name, Path(folder), model)
        return
    chapters = {"preprocess": preprocess_speed, "training": training_input_speed}
    for name in given.chapters or chapters:
        chapters[name](given.rounds, given.photos)


def _compete_as(name: str, folder: Path, model: str) -> None:
    from trainer import models

    models.__path__.append(str(MODELS))
    kinds = (step, tensorflow_loop, simplejpeg_loop, training, decoding, keras_reader)
    scratch = folder / f"of {name} {model}"
    with contextlib.redirect_stdout(io.StringIO()):  # Keras tells what it has found
        version, work = {kind.__name__: kind for kind in kinds}[name](folder, scratch, model)
    take_turns(version, work, scratch)


if __name__ == "__main__":
    main()
