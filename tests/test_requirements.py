"""The lock files: exact versions and hashes, in agreement with one another and their sources."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))
PINNED = re.compile(
    r"(?P<name>[a-z0-9.-]+)(\[[a-z0-9,-]+\])?==(?P<version>[^\s;]+)(?P<marker> ; .+?)?"
    r"(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)"
)


def lines(lock: Path) -> list[str]:
    """The requirements of a lock file, one each, without comments."""
    joined = lock.read_text(encoding="utf-8").replace("\\\n", "")
    bare = (re.sub(r"\s+", " ", line.partition("#")[0]).strip() for line in joined.splitlines())
    return [line for line in bare if line]


def pins(lock: Path) -> dict[str, str]:
    """Package -> version."""
    matches = [PINNED.fullmatch(line) for line in lines(lock)]
    return {match["name"]: match["version"] for match in matches if match}


def asked(source: Path) -> list[str]:
    """The packages that a .in file asks for, by their normalised names."""
    entries = source.read_text(encoding="utf-8").splitlines()
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in entries if not line.startswith("-")]
    return [re.sub(r"[._-]+", "-", name[0]).lower() for name in names if name]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_and_hashed(lock: Path) -> None:
    assert lines(lock), "an empty lock pins nothing"
    assert [line[:60] for line in lines(lock) if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_index_is_named(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8") + lock.with_suffix(".in").read_text(encoding="utf-8")
    assert re.findall(r"--index|--extra-index|--find-links|--trusted|://", text) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_the_lock_holds_what_its_source_asks_for(lock: Path) -> None:
    assert set(asked(lock.with_suffix(".in"))) - set(pins(lock)) == set()


def test_every_source_is_locked() -> None:
    assert [s.name for s in REQUIREMENTS.glob("*.in") if s.with_suffix(".txt") not in LOCKS] == []


def test_a_package_has_one_version_everywhere() -> None:
    versions = defaultdict(set)
    for lock in LOCKS:
        for name, version in pins(lock).items():
            versions[name].add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
