import gc
import subprocess
import sys

import pytest

from trainer import imports

PROGRAM = """
import os, sys
from trainer import imports
with imports.quietly():
    os.write(2, b"from C++ ")
    print("from Python", file=sys.stderr)
    {last}
print("after", file=sys.stderr)
"""


def run(last: str) -> str:
    program = [sys.executable, "-c", PROGRAM.format(last=last)]
    return subprocess.run(program, capture_output=True, text=True).stderr


def test_what_is_written_at_a_good_start_is_not_shown() -> None:
    assert run("pass") == "after\n"


def test_what_is_written_before_a_failure_is_shown() -> None:
    shown = run("raise ImportError('no such library')")
    assert shown.startswith("from C++ from Python\n")
    assert shown.endswith("ImportError: no such library\n")


def test_the_collector_rests_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    imports.begin()
    assert not gc.isenabled()
    imports.end()
    assert gc.isenabled()
