"""Makes files the same every time that libraries write with the time or a random number in them.

Equal work then gives equal artifacts: what depends on them is not done again, and two runs can be
compared byte by byte.
"""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from pathlib import Path

from tensorflow.core.protobuf import fingerprint_pb2

_FIRST_MOMENT = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a ZIP file can hold."""


def settle_saved_model(folder: str | Path) -> None:
    """Takes the random number out of a SavedModel's fingerprint.

    TensorFlow draws the fingerprint's UUID anew at each save; here it follows from the checksums of
    what is saved, which the fingerprint holds besides.
    """
    file = Path(folder) / "fingerprint.pb"
    if not file.is_file():
        return
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(file.read_bytes())
    fingerprint.uuid = ""
    checksums = fingerprint.SerializeToString(deterministic=True).hex()
    fingerprint.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, checksums))
    file.write_bytes(fingerprint.SerializeToString(deterministic=True))


def settle_keras_file(file: str | Path) -> None:
    """Takes the time of saving out of a `.keras` file, which is a ZIP file with metadata."""
    path = Path(file)
    draft = path.with_name(f".{path.name}.unfinished")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(draft, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename == "metadata.json":
                metadata = json.loads(data)
                metadata["date_saved"] = "1980-01-01@00:00:00"
                data = json.dumps(metadata).encode()
            settled = zipfile.ZipInfo(entry.filename, _FIRST_MOMENT)
            settled.compress_type = entry.compress_type
            settled.external_attr = entry.external_attr
            new.writestr(settled, data)
    os.replace(draft, path)
