"""Leaves out tests that would begin too late, by name: for machines that are lent for a time.

    TESTS_UNTIL=1795312800 python -m pytest -p tests.deadline -m slow

TESTS_UNTIL is in seconds since 1970; without it no test is left out.
"""

from __future__ import annotations

import os
import time

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test whose turn comes after the time is up, before anything is prepared for it."""
    if time.time() > float(os.environ.get("TESTS_UNTIL", "inf")):
        pytest.skip("left out: the time that tests have on this machine (TESTS_UNTIL) is up")
