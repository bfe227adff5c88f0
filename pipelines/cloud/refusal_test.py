import pytest
import requests
from google.api_core import exceptions
from google.auth import exceptions as auth
from kfp_server_api.exceptions import ApiException

from pipelines.cloud import refusal
from pipelines.cloud.account import Account
from pipelines.cloud.refusal import persistently
from trainer.errors import TryAgain, UserError

VERTEX = Account("vertex", "vertex", "gs://b", project="p", region="r", service_account="runner@p")
KUBEFLOW = Account("cluster", "kubeflow", "gs://b", host="https://k")


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(refusal, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(refusal, "LONGEST_WAIT", 0.001)


def failing(*errors: Exception):
    """A call that fails with each of the errors, and then succeeds."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


@pytest.mark.parametrize(
    "error",
    [
        exceptions.TooManyRequests("slow down"),
        exceptions.ServiceUnavailable("later"),
        exceptions.GatewayTimeout("later"),
        requests.ConnectionError("lost"),
        requests.Timeout("slow"),
        ConnectionResetError(),
        auth.TransportError("no token yet"),
        ApiException(status=503, reason="later"),
        ApiException(status=429, reason="later"),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert persistently(failing(error, error, error), VERTEX) == "done"
    with pytest.raises(TryAgain, match=r"vertex|quota"):
        persistently(failing(*[error] * 10_000), VERTEX, patience=0.02)


SERVICE_DISABLED = (
    "SERVICE_DISABLED: Vertex AI API has not been used in project 1 before or it is disabled. "
    "Enable it by visiting aiplatform.googleapis.com"
)


@pytest.mark.parametrize(
    ("error", "account", "message"),
    [
        (
            exceptions.Forbidden("Permission 'aiplatform.pipelineJobs.create' denied on resource"),
            VERTEX,
            "aiplatform.pipelineJobs.create in p: .*add-iam-policy-binding p .*aiplatform.user",
        ),
        (
            exceptions.Forbidden("Permission 'storage.objects.get' denied"),
            VERTEX,
            "roles/storage.objectUser",
        ),
        (
            exceptions.Forbidden("You do not have permission iam.serviceAccounts.actAs"),
            VERTEX,
            "run jobs as runner@p: .*service-accounts add-iam-policy-binding runner@p",
        ),
        (
            exceptions.Forbidden(SERVICE_DISABLED),
            VERTEX,
            "gcloud services enable aiplatform.googleapis.com --project=p",
        ),
        (exceptions.Unauthorized("expired"), VERTEX, "gcloud auth application-default login"),
        (auth.DefaultCredentialsError("none"), VERTEX, "gcloud auth application-default login"),
        (exceptions.NotFound("no project p"), VERTEX, "no project p .404 of p."),
        (exceptions.BadRequest("wrong field"), VERTEX, "refuses this with 400: wrong field"),
        (ApiException(status=403, reason="not yours"), KUBEFLOW, "https://k must let you"),
        (ApiException(status=404, reason="gone"), KUBEFLOW, "gone .404 of https://k."),
    ],
)
def test_what_the_caller_can_mend_is_one_line(
    error: Exception, account: Account, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        persistently(failing(error), account)
    assert "\n" not in str(caught.value)


def test_a_quota_names_the_command_that_asks_for_more() -> None:
    error = exceptions.TooManyRequests(
        "Quota exceeded: aiplatform.googleapis.com/custom_model_training_tpu_v5e in region r"
    )
    with pytest.raises(
        TryAgain, match=r"quotas preferences create .*custom_model_training_tpu_v5e"
    ):
        persistently(failing(*[error] * 10_000), VERTEX, patience=0.02)


def test_a_mistake_of_our_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        persistently(failing(ZeroDivisionError()), VERTEX)
