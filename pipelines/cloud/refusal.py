"""What a cloud answers when it does not do as asked: tried again, or one line that mends it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import requests
import urllib3
from google.api_core import exceptions, retry
from google.auth import exceptions as auth
from kfp_server_api.exceptions import ApiException

from pipelines.cloud.account import Account
from trainer.errors import TryAgain, UserError

T = TypeVar("T")

BUSY = (408, 429, 500, 502, 503, 504)
"""Answers after which the same request may well succeed."""

FIRST_WAIT, LONGEST_WAIT, PATIENCE = 0.5, 30.0, 300.0
"""Seconds: before the second attempt, between attempts at most, and altogether (ours)."""

_LOST = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)


def may_succeed_later(error: BaseException) -> bool:
    """Whether the same request may succeed if it is sent again."""
    if isinstance(error, exceptions.GoogleAPICallError):
        return error.code in BUSY
    if isinstance(error, ApiException):
        return error.status in BUSY
    if isinstance(error, auth.RefreshError):
        return bool(error.retryable)
    return isinstance(error, (*_LOST, auth.TransportError, exceptions.RetryError))


def persistently(call: Callable[[], T], account: Account, patience: float = PATIENCE) -> T:
    """What a call to a cloud gives, tried again with longer and longer waits while it is busy.

    The call must be safe to repeat: an answer that was lost is no sign that nothing was done.

    Raises:
        UserError: the cloud refuses, with the command that mends it.
        TryAgain: the cloud was busy, or out of reach, until patience ran out.
    """
    again = retry.Retry(
        may_succeed_later,
        initial=FIRST_WAIT,
        maximum=LONGEST_WAIT,
        multiplier=2.0,
        timeout=patience,
    )
    try:
        return again(call)()
    except exceptions.RetryError as error:
        raise_as_ours(error.cause or error, account)
    except Exception as error:
        raise_as_ours(error, account)


def once(make: Callable[[], T], made: Callable[[], T | None], account: Account) -> T:
    """What making something gives; it is made once, whatever answer is lost.

    Args:
        make: makes it.
        made: looks for what an attempt has made whose answer was lost; None where none has.
        account: whose cloud it is.

    Raises:
        UserError: the cloud refuses, with the command that mends it.
        TryAgain: the cloud was busy, or out of reach, until patience ran out.
    """
    tried = False

    def attempt() -> T:
        nonlocal tried
        if tried and (found := made()) is not None:
            return found
        tried = True
        return make()

    return persistently(attempt, account)


def raise_as_ours(error: BaseException, account: Account) -> NoReturn:
    """Raises what a command can show of an answer.

    Raises:
        UserError: the caller can mend it.
        TryAgain: it may work later.
        BaseException: the error itself, where nothing is known of it.
    """
    if isinstance(error, auth.DefaultCredentialsError | auth.RefreshError):
        raise UserError(
            "There must be credentials for Google Cloud, and live ones; "
            "`gcloud auth application-default login` makes them."
        ) from error
    code, message = _told(error)
    if code == 403 and "SERVICE_DISABLED" in _reasons(error, message):
        api = (re.search(r"[a-z]+\.googleapis\.com", message) or ["the API"])[0]
        raise UserError(
            f"{api} must be enabled in {account.project}: `gcloud services enable {api} "
            f"--project={account.project}`."
        ) from error
    if code == 403:
        raise UserError(_permission(message, account)) from error
    if code == 401:
        raise UserError(
            f"The credentials must be live ones for {account.name}; it answers 401. "
            "`gcloud auth application-default login` renews them."
        ) from error
    if code == 429:
        raise TryAgain(_quota(message, account)) from error
    if code in BUSY or may_succeed_later(error):
        what = f"answers {code}" if code else f"is out of reach ({type(error).__name__})"
        raise TryAgain(f"The cloud of target {account.name} {what}; try again later.") from error
    if code == 404:
        where = account.project or account.host
        raise UserError(
            f"{_first_line(message)} (404 of {where}): look at targets.yaml."
        ) from error
    if code and 400 <= code < 500:
        raise UserError(
            f"The cloud of target {account.name} refuses this with {code}: {_first_line(message)}"
        ) from error
    raise error


def code_of(error: BaseException) -> int:
    """The HTTP status of an answer; 0 where there was none."""
    return _told(error)[0]


def _told(error: BaseException) -> tuple[int, str]:
    if isinstance(error, exceptions.GoogleAPICallError):
        return int(error.code or 0), str(error.message)
    if isinstance(error, ApiException):
        return int(error.status or 0), str(error.body or error.reason or "")
    return 0, str(error)


def _reasons(error: BaseException, message: str) -> str:
    return f"{getattr(error, 'reason', '')} {message} {getattr(error, 'details', '')}"


def _permission(message: str, account: Account) -> str:
    missing = re.search(r"[a-zA-Z]+(?:\.[a-zA-Z]+){2}", message)
    permission = missing[0] if missing else "a permission"
    if "actAs" in message:
        return (
            f"You must be allowed to run jobs as {account.service_account}: `gcloud iam "
            f"service-accounts add-iam-policy-binding {account.service_account} --member=user:YOU "
            f"--role=roles/iam.serviceAccountUser --project={account.project}`."
        )
    roles = {"storage": "roles/storage.objectUser", "dataflow": "roles/dataflow.developer"}
    role = roles.get(permission.partition(".")[0], "roles/aiplatform.user")
    if account.kind == "kubeflow":
        return f"{account.host} must let you do this: {_first_line(message)}"
    return (
        f"You must have {permission} in {account.project}: `gcloud projects add-iam-policy-binding "
        f"{account.project} --member=user:YOU --role={role}`."
    )


def _quota(message: str, account: Account) -> str:
    quota = re.search(r"[a-z]+\.googleapis\.com/[a-z0-9_]+", message)
    if not quota or account.kind == "kubeflow":
        return f"The cloud of target {account.name} is busy (429): {_first_line(message)}"
    service, _, name = quota[0].partition("/")
    return (
        f"The quota {quota[0]} of {account.project} in {account.region} is used up; ask for more: "
        f"`gcloud beta quotas preferences create --service={service} --quota-id={name} "
        f"--preferred-value=NUMBER --dimensions=region={account.region} "
        f"--project={account.project}`."
    )


def _first_line(message: Any) -> str:
    return " ".join(str(message).split())[:300] or "no reason given"
