import shutil
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

from trainer.artifact import sha256
from trainer.reproducible import settle_keras_file, settle_saved_model


def test_a_saved_model_is_the_same_every_time(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    tf.saved_model.save(_scaling(), str(one))
    # As another process saves the same: within one, TensorFlow numbers its functions on.
    shutil.copytree(one, other)
    fingerprint = FingerprintDef.FromString((one / "fingerprint.pb").read_bytes())
    fingerprint.uuid = "another"
    (other / "fingerprint.pb").write_bytes(fingerprint.SerializeToString())
    for folder in (one, other):
        settle_saved_model(folder)
    assert sha256(one / "fingerprint.pb") == sha256(other / "fingerprint.pb")
    settled = FingerprintDef.FromString((one / "fingerprint.pb").read_bytes())
    assert settled.saved_model_checksum == fingerprint.saved_model_checksum != 0
    assert np.allclose(tf.saved_model.load(str(one)).call(tf.ones([2])), [1.0, 2.0])
    settle_saved_model(tmp_path)  # one without a fingerprint is left as it is


def test_a_keras_file_is_the_same_every_time(tmp_path: Path) -> None:
    network = keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(2)])
    network.save(tmp_path / "one.keras")
    time.sleep(2.1)  # a ZIP file tells times to two seconds
    network.save(tmp_path / "other.keras")
    assert sha256(tmp_path / "one.keras") != sha256(tmp_path / "other.keras")
    for name in ("one", "other"):
        settle_keras_file(tmp_path / f"{name}.keras")
    assert sha256(tmp_path / "one.keras") == sha256(tmp_path / "other.keras")
    loaded = keras.saving.load_model(tmp_path / "one.keras")
    inputs = np.ones([1, 3], np.float32)
    assert np.array_equal(loaded(inputs), network(inputs))
    with zipfile.ZipFile(tmp_path / "one.keras") as file:
        assert file.testzip() is None


def _scaling() -> tf.Module:
    module = tf.Module()
    module.weight = tf.Variable([1.0, 2.0])
    signature = [tf.TensorSpec([2], tf.float32)]
    module.call = tf.function(
        lambda x: x * module.weight, input_signature=signature, autograph=False
    )
    return module
