import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.create_tfrecords.create_tfrecords import create_tfrecords
from pipelines import catalog, cli, examples
from trainer.data.image_folder.sample import write_sample
from trainer.data.manifest import CHANGES, MANIFEST, QUARANTINE, read_manifest
from trainer.errors import UserError

SHARD = "train-00000-of-00004.tfrecord"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Examples of the image folder's sample, and of the same with a file that is no picture."""
    root = tmp_path_factory.mktemp("examples")
    write_sample(root / "data")
    create_tfrecords(str(root / "a"), str(root / "data"))
    folder = next(path for path in (root / "data" / "train").iterdir() if path.is_dir())
    (folder / "[red]note.png").write_bytes(b"a note")
    create_tfrecords(str(root / "b"), str(root / "data"), shards=1, max_bad_fraction=0.5)
    return root


def run(*arguments):
    """Exit code, standard output and standard error of the command, as a person sees them."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "examples", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return done.returncode, done.stdout, done.stderr


def invoke(*arguments):
    result = CliRunner().invoke(cli.app, ["examples", *map(str, arguments)])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout


def damaged(made, tmp_path):
    """A copy of the examples with one flipped bit."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in (made / "a").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = bytearray((folder / SHARD).read_bytes())
    content[200] ^= 8
    (folder / SHARD).write_bytes(content)
    return folder


def test_these_commands_are_no_model():
    assert "examples" not in catalog.names()


def test_whole_examples_are_told_in_one_line(made):
    code, out, err = run("verify", made / "a")
    records = sum(split.records for split in read_manifest(made / "a").splits.values())
    assert (code, err) == (0, "")
    assert re.fullmatch(
        rf"\S+a: {records} records whole \(train \d+(, \w+ \d+)+\), [\d,]+ bytes in \d+\.\d s\n",
        out,
    )


def test_a_flipped_bit_is_told_on_a_line_of_its_own_with_exit_code_2(made, tmp_path):
    folder = damaged(made, tmp_path)
    code, out, err = run("verify", folder)
    assert (code, out) == (2, "")
    finding, summary = err.splitlines()
    assert re.fullmatch(
        rf"{SHARD}, record 0, at byte 0, key '.+': one bit of its data has changed, at byte 200 of "
        r"the file",
        finding,
    )
    assert summary.startswith(f"error: Examples must be as their manifest says; {folder} is not: 1")


def test_findings_as_json(made, tmp_path):
    folder = damaged(made, tmp_path)
    (folder / "left over").write_text("")
    code, out, err = run("verify", folder, "--json", "-n", 1)
    assert code == 2
    assert len(err.splitlines()) == 1
    found = json.loads(out)
    assert found["more"] == 1
    (finding,) = found["findings"]
    assert (finding["file"], finding["record"], finding["wrong_byte"]) == (SHARD, 0, 200)
    code, out = invoke("verify", made / "a", "--json")
    assert code == 0
    assert json.loads(out)["findings"] == []


def test_an_unreadable_manifest_is_a_finding(made, tmp_path):
    folder = damaged(made, tmp_path)
    (folder / MANIFEST).write_text("{")
    code, _, err = run("verify", folder)
    assert code == 2
    assert err.startswith(f"{MANIFEST}: ")
    assert len(err.splitlines()) == 2
    code, _, err = run("verify", tmp_path)
    assert code == 2
    assert err.startswith("error: Examples must be a folder with a manifest.json")


def test_the_terminal_shows_what_there_is(made):
    code, out = invoke("show", made / "b", "-n", 4)
    manifest = read_manifest(made / "b")
    assert code == 0
    for words in (manifest.title, manifest.licence, "decoded in full", "evaluated on"):
        assert words in out
    assert re.search(r"train +1 +\d+ +[\d,]+ +1 +0", out)
    assert re.search(
        r"not an image; the file begins with .* +1 +train 1 +train/.*\[red\]note\.png", out
    )
    assert len(re.findall(r"\d+ × \d+ (?:JPEG|PNG)", out)) == 4
    assert all(f"\n{name} " in out for name in ("key", "image", "label", *manifest.splits))
    assert "boxes" not in out


def test_what_a_key_has_of_control_characters_does_not_reach_the_terminal():
    assert examples._text("a\x1b[31mb\nc\u202ed[bold]").plain == "a�[31mb�c�d[bold]"


def test_a_page_is_written(made, tmp_path):
    code, out = invoke("show", made / "b", "-n", 3, "--split", "train", "--html", tmp_path / "p")
    assert code == 0
    assert out == f"{tmp_path / 'p'}: 3 examples of {read_manifest(made / 'b').title}\n"
    page = (tmp_path / "p").read_text(encoding="utf-8")
    assert page.count("<figure") == 3
    assert "[red]note.png" in page


def test_a_split_that_there_is_not_is_refused(made):
    with pytest.raises(UserError, match="The split must be one of train, "):
        invoke("show", made / "a", "--split", "other")


def test_differences_are_told_and_are_no_failure(made):
    code, out = invoke("diff", made / "a", made / "b", "--exit-code")
    # The same examples in other shards; but one more item was refused.
    assert code == 1
    assert re.search(r"quarantine added: 1\n  \+ train/.*\[red\]note\.png \(not an image", out)
    assert "\nexamples " not in out
    assert invoke("diff", made / "a", made / "b")[0] == 0
    code, out = invoke("diff", made / "a", made / "a", "--exit-code")
    assert code == 0
    assert re.search(r"No difference in \d+ records\.", out)


def test_what_differs_is_named(made, tmp_path):
    folder = tmp_path / "less"
    write_sample(tmp_path / "data")
    train = tmp_path / "data" / "train"
    gone, relabelled = sorted(path for path in train.rglob("*") if path.is_file())[:2]
    gone.unlink()
    other = max(path for path in train.iterdir() if path.is_dir())
    relabelled.rename(other / relabelled.name)
    create_tfrecords(str(folder), str(tmp_path / "data"))
    _, out = invoke("diff", made / "a", folder)
    assert "examples removed: 2" in out
    assert f"  - train/{gone.relative_to(train)} (train)" in out
    assert "examples added: 1" in out
    _, out = invoke("diff", made / "a", folder, "--json", "-n", 1)
    found = json.loads(out)
    assert found["equal"] is False
    assert found["examples"]["removed"]["count"] == 2
    assert len(found["examples"]["removed"]["named"]) == 1


def test_progress_is_told_where_there_is_much_to_read(capsys):
    advance = examples._lines(examples._QUIET - 1)
    advance(10**6)
    assert capsys.readouterr().err == ""
    advance = examples._lines(250_500_000)
    for _ in range(250):
        advance(10**6)
    advance(500_000)
    assert capsys.readouterr().err.splitlines()[-1].startswith("251/251 MB, ")


def test_the_help_names_what_is_read(made):
    assert {QUARANTINE, CHANGES, MANIFEST} <= {path.name for path in (made / "a").iterdir()}
    for command in ("verify", "show", "diff"):
        code, out = invoke(command, "--help")
        assert code == 0
        assert f"paper2hub examples {command} " in out
