"""Secrets of a step, by their names in Secret Manager: no value is in a pipeline or in a log."""

from __future__ import annotations

import base64
import json
import os
import re

from trainer.errors import TryAgain, UserError

SECRETS = "PAPER2HUB_SECRETS"
"""Environment variable with a JSON object: variable -> the secret whose value it gets."""

ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
"""Environment variable by which gcloud, too, is told of another endpoint."""

_NAME = re.compile(r"projects/[^/]+/secrets/[A-Za-z0-9_-]+/versions/(latest|[0-9]+)")


def reveal() -> None:
    """Puts the values of the secrets that `SECRETS` names into the environment of this process.

    Raises:
        UserError: a name is none, or this identity may not read it.
        TryAgain: Secret Manager did not answer.
    """
    named = json.loads(os.environ.pop(SECRETS, "{}"))
    if not named:
        return
    # What few steps need is not imported by all.
    import google.auth
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    endpoint = os.environ.get(ENDPOINT, "https://secretmanager.googleapis.com").rstrip("/")
    try:
        credentials, _ = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
        session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        for variable, name in named.items():
            if not _NAME.fullmatch(name):
                raise UserError(
                    "A secret must be named projects/PROJECT/secrets/NAME/versions/VERSION; got "
                    f"{name!r} for {variable}."
                )
            answer = session.get(f"{endpoint}/v1/{name}:access", timeout=60)
            if answer.status_code in (403, 404):
                raise UserError(
                    f"The secret {name} must be there and be readable (roles/secretmanager."
                    f"secretAccessor) for {variable}; Secret Manager answers {answer.status_code}."
                )
            answer.raise_for_status()
            value = base64.b64decode(answer.json()["payload"]["data"])
            os.environ[variable] = value.decode("utf-8")
    except (GoogleAuthError, OSError) as error:
        raise TryAgain(f"Secret Manager could not be asked: {type(error).__name__}.") from error
