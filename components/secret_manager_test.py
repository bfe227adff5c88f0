import base64
import http.server
import json
import os
import threading
from collections.abc import Iterator

import google.auth
import pytest
from google.auth.credentials import AnonymousCredentials

from components.secret_manager import ENDPOINT, SECRETS, reveal
from trainer.errors import TryAgain, UserError

NAME = "projects/p/secrets/hub/versions/latest"


class Manager(http.server.BaseHTTPRequestHandler):
    """A Secret Manager with one secret."""

    def do_GET(self) -> None:
        there = self.path == f"/v1/{NAME}:access"
        payload = {"payload": {"data": base64.b64encode(b"hf_value").decode()}}
        body = json.dumps(payload if there else {}).encode()
        self.send_response(200 if there else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def manager(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(google.auth, "default", lambda scopes: (AnonymousCredentials(), "p"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Manager) as server:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_a_secret_comes_into_the_environment_of_the_step(manager, monkeypatch, capfd) -> None:
    monkeypatch.setenv("HUB_VALUE", "")
    monkeypatch.setenv(SECRETS, json.dumps({"HUB_VALUE": NAME}))
    reveal()
    assert os.environ["HUB_VALUE"] == "hf_value"
    assert SECRETS not in os.environ
    assert "hf_value" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (NAME.replace("hub", "other"), "must be there and be readable .* answers 403"),
        ("hf_value", "must be named projects/PROJECT/secrets"),
    ],
)
def test_what_cannot_be_read_is_told(manager, monkeypatch, name: str, message: str) -> None:
    monkeypatch.setenv(SECRETS, json.dumps({"HUB_TOKEN": name}))
    with pytest.raises(UserError, match=message):
        reveal()


def test_a_manager_out_of_reach_is_worth_another_attempt(manager, monkeypatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv(SECRETS, json.dumps({"HUB_TOKEN": NAME}))
    with pytest.raises(TryAgain, match="could not be asked"):
        reveal()


def test_without_secrets_nobody_is_asked(monkeypatch) -> None:
    monkeypatch.delenv(SECRETS, raising=False)
    monkeypatch.setattr(google.auth, "default", lambda scopes: pytest.fail("asked"))
    reveal()
