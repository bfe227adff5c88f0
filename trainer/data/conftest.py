"""A small folder of examples for tests, written without a dataset."""

import json

import pytest

from trainer.data.examples import encode_example
from trainer.data.manifest import CHANGES, QUARANTINE, Manifest, Split, write_manifest
from trainer.data.records import RecordWriter
from trainer.dataset import Feature

FEATURES = {
    "key": Feature("bytes", description="name"),
    "image": Feature("bytes", description="picture", content="image"),
    "label": Feature("int64", description="class", content="label"),
}


@pytest.fixture
def write_examples():
    """Writes split -> examples as a folder: `write_examples(folder, splits, features, shards)`."""

    def write(folder, splits, features=FEATURES, shards=2, refused=(), changed=(), **facts):
        folder.mkdir()
        written = {}
        for split, examples in splits.items():
            parts = []
            for number in range(shards):
                name = f"{split}-{number:05d}-of-{shards:05d}.tfrecord"
                with RecordWriter(folder / name) as writer:
                    for example in examples[number::shards]:
                        writer.write(encode_example(features, example))
                parts.append(writer.shard(name))
            written[split] = Split(
                tuple(parts),
                sum(item["split"] == split for item in refused),
                sum(item["split"] == split for item in changed),
            )
        for file, items in ((QUARANTINE, refused), (CHANGES, changed)):
            text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
            (folder / file).write_text(text, encoding="utf-8")
        manifest = {
            "dataset": "tiny",
            "title": "Tiny",
            "homepage": "https://example.com/tiny",
            "licence": "none stated",
            "source_digest": "0" * 64,
            "class_names": ("cat", "dog"),
            "evaluation_split": "test",
            "features": features,
            "splits": written,
        }
        write_manifest(folder, Manifest(**{**manifest, **facts}))
        return folder

    return write
