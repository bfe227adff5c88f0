"""Who may talk to the cloud: a service account, a user, and tokens that expire."""

from __future__ import annotations

import functools
import json
import secrets
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs

import google.auth.exceptions
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from tests.cloud.answers import Answer, Refused, Request
from tests.cloud.faults import unauthenticated

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SERVICES = {
    "aiplatform": "aiplatform.googleapis.com",
    "dataflow": "dataflow.googleapis.com",
    "storage": "storage.googleapis.com",
}


class Credentials:
    """A service account and a user, whose files are written, and the tokens given out to them.

    Attributes:
        account: the service account's address.
        key_file: the service account's key, for GOOGLE_APPLICATION_CREDENTIALS.
        user_file: what `gcloud auth application-default login` writes for a user.
        lifetime: seconds that tokens given out from now on are valid.
        granted: how many tokens were given out, by kind of grant.

    Args:
        folder: takes the files.
        url: address of the cloud.
        project: name of the project.
    """

    def __init__(self, folder: Path, url: str, project: str):
        self.account = f"paper2hub@{project}.iam.gserviceaccount.com"
        self.lifetime = 3600.0
        self.granted: Counter[str] = Counter()
        self._url = f"{url}/token"
        self._private, self._public = _key_pair()
        self._tokens: dict[str, float] = {}
        self._refused: set[str] = set()
        self._refresh = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.key_file = folder / "service_account.json"
        self.user_file = folder / "application_default_credentials.json"
        key = {
            "type": "service_account",
            "project_id": project,
            "private_key_id": "stand-in",
            "private_key": self._private,
            "client_email": self.account,
            "client_id": "1",
            "auth_uri": f"{url}/auth",
            "token_uri": self._url,
        }
        user = {
            "type": "authorized_user",
            "client_id": "client",
            "client_secret": "secret",
            "refresh_token": self._refresh,
            "quota_project_id": project,
            "token_uri": self._url,
        }
        for file, content in ((self.key_file, key), (self.user_file, user)):
            file.touch(mode=0o600)
            file.write_text(json.dumps(content), encoding="utf-8")

    def expire_all(self) -> None:
        """No token that was given out is valid any more."""
        with self._lock:
            self._tokens.clear()

    def grant(self, request: Request) -> Answer:
        """Gives out a token: `POST /token`.

        Raises:
            Refused: whoever asks is not known.
        """
        form = {name: values[-1] for name, values in parse_qs(request.body.decode()).items()}
        kind = form.get("grant_type", "")
        if kind == _GRANT:
            self._check_assertion(form.get("assertion", ""))
        elif kind == "refresh_token":
            known = ("client", "secret", self._refresh)
            if known != tuple(form.get(n) for n in ("client_id", "client_secret", "refresh_token")):
                raise Refused(400, "Token has been expired or revoked.")
        else:
            raise Refused(400, f"Invalid grant_type: {kind}", reason="unsupported_grant_type")
        token = f"ya29.{secrets.token_urlsafe(24)}"
        with self._lock:
            self._tokens[token] = time.monotonic() + self.lifetime
            self.granted["assertion" if kind == _GRANT else kind] += 1
        life = int(self.lifetime)
        return Answer({"access_token": token, "expires_in": life, "token_type": "Bearer"})

    def check(self, request: Request) -> None:
        """Lets nobody in but those with a valid token.

        Raises:
            Refused: there is none.
        """
        service = _SERVICES.get(request.service, "googleapis.com")
        header = request.headers.get("authorization", "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthenticated("CREDENTIALS_MISSING", service)
        with self._lock:
            until = self._tokens.get(token)
            refused = token in self._refused
        if until is not None and until > time.monotonic() and not refused:
            return
        if token.count(".") == 2 and not refused and self._signed_by_account(token):
            return  # a client may sign for itself instead of asking for a token
        raise unauthenticated("ACCESS_TOKEN_EXPIRED", service)

    def revoke(self, request: Request) -> None:
        """The token of a request is not valid any more."""
        token = request.headers.get("authorization", "").partition(" ")[2]
        with self._lock:
            if self._tokens.pop(token, None) is not None:
                self._refused.add(token)

    def _signed_by_account(self, token: str) -> bool:
        try:
            claims = jwt.decode(token, certs=self._public)
        except (ValueError, google.auth.exceptions.GoogleAuthError):
            return False
        return claims.get("iss") == self.account == claims.get("sub")

    def _check_assertion(self, assertion: str) -> None:
        try:
            claims = jwt.decode(assertion, certs=self._public)
        except (ValueError, google.auth.exceptions.GoogleAuthError) as error:
            raise Refused(400, f"Invalid JWT Signature. {error}") from error
        if claims.get("iss") != self.account:
            raise Refused(400, f"Invalid grant: account not found: {claims.get('iss')}")
        if not claims.get("scope") and not claims.get("target_audience"):
            raise Refused(400, "Empty or missing scope not allowed.", reason="invalid_scope")


@functools.cache
def _key_pair() -> tuple[str, str]:
    """A private and a public key; making one takes a while, so all clouds of a process share it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()
