from collections.abc import Callable

import pytest

from pipelines.local.report.conftest import Run


def test_outputs_lead_to_their_files(make: Callable[..., Run]) -> None:
    run = make(outputs={"n": 3})
    run.task("a", began=0, ended=1, parameters={"n": 3}, digests={"page": "0123456789abcdef"})
    run.artifact("a", "page", "HTML", "<h1>Of its own</h1>")
    page = run.page()
    assert 'href="tasks/a/outputs/page"' in page and "0123456789ab" in page


def test_the_values_of_variables_are_not_shown(
    make: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    run = make(options={"jobs": 1, "variables": ["TOKEN"]})
    run.task("a", began=0, ended=1, key={"environment": {"TOKEN": "hunter2hunter2"}})
    assert "hunter2" not in run.page()
