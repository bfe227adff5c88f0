"""What comes too late is left out, and told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("until", "outcome"), [("0", "1 skipped"), ("inf", "1 passed")])
def test_tests_after_the_deadline_are_left_out(until: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "tests.deadline", str(tmp_path)],
        env={**os.environ, "TESTS_UNTIL": until, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert outcome in done.stdout
    assert ("left out: the time" in done.stdout) == (until == "0")
