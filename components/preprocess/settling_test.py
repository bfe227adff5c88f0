from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from components.preprocess.settling import settle


class Words(tf.Module):
    """A vocabulary, looked up in a loop: has a table, and functions that are numbered."""

    def __init__(self, file: Path):
        self.file = tf.saved_model.Asset(str(file))
        rows = tf.lookup.TextFileInitializer(
            self.file,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(rows, -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def numbers(self, words: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(self.table.lookup, words, fn_output_signature=tf.int64)


def save(folder: Path, words: str) -> Path:
    folder.mkdir()
    (folder / "vocabulary").write_text(words, encoding="utf-8")
    module = Words(folder / "vocabulary")
    tf.saved_model.save(module, str(folder / "model"))
    settle(folder / "model")
    return folder / "model"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_bytes_depend_neither_on_the_folder_nor_on_what_was_done_before(
    tmp_path: Path,
) -> None:
    one = save(tmp_path / "one", "a\nbird")
    for number in range(7):  # functions that have nothing to do with it
        tf.function(lambda x, n=number: x + n).get_concrete_function(tf.constant(0))
    other = save(tmp_path / "other", "a\nbird")
    assert contents(one) == contents(other)
    assert str(tmp_path).encode() not in (one / "saved_model.pb").read_bytes()
    names = [
        function.signature.name
        for function in saved_model_pb2.SavedModel.FromString((one / "saved_model.pb").read_bytes())
        .meta_graphs[0]
        .graph_def.library.function
    ]
    assert names == sorted(names)


def test_a_settled_model_computes_what_it_did(tmp_path: Path) -> None:
    loaded = tf.saved_model.load(str(save(tmp_path / "one", "a\nbird")))
    assert loaded.numbers(tf.constant(["bird", "a", "fish"])).numpy().tolist() == [1, 0, -1]


def test_two_vocabularies_in_one_process_stay_two(tmp_path: Path) -> None:
    """Tables of one name would be one table."""
    words = tf.constant(["bird"])
    models = [
        tf.saved_model.load(str(save(tmp_path / name, text)))
        for name, text in (("one", "a\nbird"), ("other", "fish\nwater\nbird"))
    ]
    assert [int(model.numbers(words)[0]) for model in models] == [1, 2]


def test_other_content_has_another_fingerprint(tmp_path: Path) -> None:
    one, other = save(tmp_path / "one", "a"), save(tmp_path / "other", "b")
    assert (one / "fingerprint.pb").read_bytes() != (other / "fingerprint.pb").read_bytes()


def test_there_must_be_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        settle(tmp_path)
