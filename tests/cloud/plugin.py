"""Fixtures of pytest: a cloud of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth.credentials
import pytest

from tests.cloud.cloud import Cloud
from tests.cloud.faults import NUMBER


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud that the test's own process has as its own; it runs what is submitted."""
    # Beside each first call, google-auth asks Google itself where the account may work.
    kind = google.auth.credentials.CredentialsWithRegionalAccessBoundary
    monkeypatch.setattr(kind, "_is_regional_access_boundary_lookup_required", lambda _: False)
    with Cloud(tmp_path / "cloud") as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def vertex(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module `google.cloud.aiplatform`, which talks to the cloud with its credentials."""
    from google.cloud import aiplatform
    from google.cloud.aiplatform.utils import resource_manager_utils

    # It would ask Google for the number, over gRPC, at an address that cannot be set.
    monkeypatch.setattr(resource_manager_utils, "get_project_number", lambda _: NUMBER)
    settings = vars(aiplatform.initializer.global_config)
    before = dict(settings)
    aiplatform.init(
        project=cloud.project,
        location=cloud.location,
        staging_bucket="gs://bucket",
        api_endpoint=cloud.url,
        api_transport="rest",
    )
    yield aiplatform
    settings.clear()
    settings.update(before)
