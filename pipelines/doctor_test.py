import json
import subprocess

import pytest

from pipelines import doctor


def test_only_what_is_missing_has_something_to_mend():
    findings = doctor.examine()
    assert len({finding.name for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.detail
        assert bool(finding.mend) is not finding.ok


def finding(name):
    return next(f for f in doctor.examine() if f.name == name)


def test_a_daemon_that_does_not_answer_is_missing(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")

    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert not finding("Docker daemon").ok
    assert finding("docker").ok


def test_credentials_are_found_where_google_looks(monkeypatch, tmp_path):
    file = tmp_path / "application_default_credentials.json"
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    assert not finding("Google credentials").ok
    file.write_text(json.dumps({}))
    assert finding("Google credentials").ok
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "elsewhere.json"))
    assert not finding("Google credentials").ok


@pytest.mark.parametrize(
    ("glibc", "mend"), [("2.36", "paper2hub/data"), ("2.39", "pip install tfx")]
)
def test_tfx_needs_a_new_glibc(monkeypatch, glibc, mend):
    monkeypatch.setattr(doctor.platform, "libc_ver", lambda: ("glibc", glibc))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = finding("TFX")
    assert not found.ok
    assert mend in found.mend
