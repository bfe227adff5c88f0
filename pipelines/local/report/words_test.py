import json
from collections.abc import Callable

import pytest

from pipelines.local.report.conftest import DAY, Run, parsed
from pipelines.local.report.words import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.00 s"),
        (0.001, "< 0.01 s"),
        (0.064, "0.06 s"),
        (3.14, "3.1 s"),
        (59.6, "1 min 00 s"),
        (245.0, "4 min 05 s"),
        (3599.9, "1 h 00 min"),
        (2 * DAY + 4 * 3600, "2 d 4 h"),
    ],
)
def test_a_duration_is_read_at_a_glance(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_values_are_written_as_a_person_would(make: Callable[..., Run]) -> None:
    values = {"text": "a b", "empty": "", "whole": 3.0, "large": 10**400, "yes": True, "none": None}
    run = make(parameters={**values, "nan": float("nan"), "list": [1, {"a": "é"}]})
    text = parsed(run.page()).text
    for shown in ("a b", "empty", "1" + "0" * 400, "true", "none", "nan", '[1, {"a": "é"}]'):
        assert shown in text
    assert json.dumps("é") not in text
