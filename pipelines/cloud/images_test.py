import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from components.images import DATA, TRAINER, VERSION
from pipelines.cloud.images import digest_in_registry, pin, unpinned, write_lock
from pipelines.compile import compile_model
from trainer.errors import TryAgain, UserError

DIGEST = "sha256:" + "0123456789abcdef" * 4


class Registry(http.server.BaseHTTPRequestHandler):
    """A registry that asks for a token, which it gives to everybody."""

    status = 200
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self._answer(200, json.dumps({"token": "open"}).encode())

    def do_HEAD(self) -> None:
        type(self).asked.append(self.path)
        if self.headers.get("Authorization") != "Bearer open":
            realm = f'Bearer realm="http://127.0.0.1:{self.server.server_port}/token",scope="pull"'
            self._answer(401, b"", {"WWW-Authenticate": realm})
        elif "/gone/" in self.path:
            self._answer(404)
        else:
            assert "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
            self._answer(self.status, b"", {"Docker-Content-Digest": DIGEST})

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[str]:
    Registry.status, Registry.asked = 200, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}/models"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("target", ["vertex", "kubeflow"])
def test_every_image_of_ours_is_pinned_by_what_the_registry_has(
    tmp_path: Path, registry: str, target: str
) -> None:
    text = compile_model("regnety", tmp_path / "p.yaml", target).read_text()
    before = unpinned(text)
    assert len(before) == 3  # data, trainer, trainer-gpu
    pinned = pin(text, registry)
    assert unpinned(pinned) == []
    for image in ("data", "trainer", "trainer-gpu"):
        assert f"{registry}/{image}@{DIGEST}" in pinned
    assert len([path for path in Registry.asked if path.endswith(VERSION)]) == 6  # twice: the token
    # Nothing else has changed, further documents neither.
    for old, new in zip(yaml.safe_load_all(text), yaml.safe_load_all(pinned), strict=True):
        back = json.dumps(new).replace(f"@{DIGEST}", f":{VERSION}").replace(registry, "paper2hub")
        assert json.loads(back) == old


def test_a_lock_file_pins_without_a_registry(tmp_path: Path, registry: str) -> None:
    lock = write_lock(tmp_path / "images.json", registry)
    assert set(lock) == {"data", "trainer", "trainer-gpu", "trainer-tpu"}
    text = yaml.safe_dump(
        {"executors": [{"image": TRAINER}, {"image": DATA}, {"image": "other:1"}]}
    )
    asked = len(Registry.asked)
    pinned = yaml.safe_load(pin(text, str(tmp_path / "images.json")))
    assert len(Registry.asked) == asked
    assert [entry["image"] for entry in pinned["executors"]] == [
        *(f"{registry}/trainer@{DIGEST}", f"{registry}/data@{DIGEST}", "other:1"),
    ]


def test_a_pipeline_that_cannot_be_pinned_is_not_there(tmp_path: Path, registry: str) -> None:
    with pytest.raises(UserError, match="must be there"):
        compile_model("autoencoder", tmp_path / "p.yaml", "vertex", f"{registry}/gone")
    assert list(tmp_path.iterdir()) == []
    file = compile_model("autoencoder", tmp_path / "p.yaml", "vertex", registry)
    assert unpinned(file.read_text()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is no JSON"),
        ('{"trainer": "repository/trainer:1.0"}', "NAME@sha256:DIGEST"),
        (json.dumps({"data": f"r/data@{DIGEST}"}), "must have the image trainer; it has data"),
    ],
)
def test_a_wrong_lock_file_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(UserError, match=message):
        pin(yaml.safe_dump({"image": TRAINER}), str(tmp_path / "images.json"))
    with pytest.raises(UserError, match="No such file"):
        pin(yaml.safe_dump({"image": TRAINER}), str(tmp_path / "none.json"))


def test_what_a_registry_does_not_have_or_say_is_told(registry: str) -> None:
    assert digest_in_registry(f"{registry}/trainer", "1") == DIGEST
    with pytest.raises(UserError, match=r"gone/trainer:1 must be there"):
        digest_in_registry(f"{registry}/gone/trainer", "1")
    Registry.status = 503
    with pytest.raises(TryAgain, match="answers 503"):
        digest_in_registry(f"{registry}/trainer", "1")
    with pytest.raises(TryAgain, match="does not answer"):
        digest_in_registry("127.0.0.1:9/models/trainer", "1")
    with pytest.raises(UserError, match="name of a registry"):
        digest_in_registry("models/trainer", "1")
