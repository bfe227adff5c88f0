import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipelines.local.cache import differences
from pipelines.local.history import why
from pipelines.local.record import read_run
from pipelines.local.run import Options, run_pipeline

WRITE = (
    "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir();"
    "(p / 'a').write_text(sys.argv[2]); (p / 'b').symlink_to('a'); (p / 'empty').mkdir()"
)
READ = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2] + sys.argv[3])"


class Silence:
    def show(self, run):
        assert run.tasks is not None


@pytest.fixture
def text(compiled, container):
    spec = yaml.safe_load(
        compiled(
            {"word": "one", "other": "x"},
            write=container(
                WRITE,
                "{{$.outputs.artifacts['folder'].path}}",
                "{{$.inputs.parameters['word']}}",
                inputs={"word": "pipeline:word"},
                artifacts=["folder"],
            ),
            read=container(
                READ,
                "{{$.outputs.parameters['said'].output_file}}",
                "{{$.inputs.parameters['other']}}",
                "{{$.inputs.artifacts['folder'].metadata}}",
                inputs={"folder": "write/folder", "other": "pipeline:other"},
                outputs=["said"],
            ),
        )
    )
    for task in spec["root"]["dag"]["tasks"].values():
        task["cachingOptions"] = {"enableCache": True}
    return yaml.safe_dump(spec)


@pytest.fixture
def run(tmp_path, text):
    def start(parameters=None, text=text, **options):
        return run_pipeline(text, parameters or {}, tmp_path, Silence(), Options(**options))

    return start


def states(record):
    return {path: task.status for path, task in record.tasks.items()}


def told(record, task):
    return why(record.folder, task)


NEW = {"write": "succeeded", "read": "succeeded"}
KNOWN = {"write": "cached", "read": "cached"}


def test_what_has_not_changed_is_not_done_again(run):
    first, second = run(), run()
    assert (states(first), states(second)) == (NEW, KNOWN)
    folder = second.artifact("folder")
    assert folder == Path(second.folder) / "tasks" / "write" / "outputs" / "folder"
    assert (folder / "a").read_text() == "one"
    assert (folder / "b").readlink() == Path("a")
    assert (folder / "empty").is_dir()
    assert second.tasks["read"].parameters == first.tasks["read"].parameters
    assert (folder / "a").stat().st_ino == (first.artifact("folder") / "a").stat().st_ino
    assert told(second, "write")[1].startswith(f"Taken from {first.run}")


def test_a_run_that_is_deleted_leaves_its_results(run):
    shutil.rmtree(run().folder)
    record = run()
    assert states(record) == KNOWN
    assert (record.artifact("folder") / "a").read_text() == "one"


def test_a_changed_parameter_is_named(run):
    before = run()
    record = run({"word": "two"})
    assert states(record) == NEW
    assert told(record, "write")[-2:] == [f"Since {before.run}:", "- parameter word one → two"]
    assert told(record, "read")[-1] == "- input folder changed"


def test_what_is_made_anew_and_comes_out_equal_changes_nothing_further(run, text):
    run()
    record = run(text=text.replace("p.mkdir();", "p.mkdir(); p.stat();"))
    assert states(record) == {"write": "succeeded", "read": "cached"}
    assert told(record, "write")[-1] == "- the command changed"


def test_a_failed_task_is_never_a_hit(run, text):
    failing = text.replace("p.mkdir();", "p.mkdir(); raise SystemExit(1);")
    for _ in range(2):
        assert states(run(text=failing)) == {"write": "failed", "read": "cancelled"}


@pytest.mark.parametrize("damage", ["written over", "same size", "gone", "entry"])
def test_a_damaged_entry_is_noticed_and_made_again(run, tmp_path, damage):
    run()
    (entry,) = (
        e
        for e in tmp_path.glob(".cache/results/*/*/entry.json")
        if "folder" in json.loads(e.read_text())["digests"]
    )
    file = entry.parent / "outputs" / "folder" / "a"
    if damage == "written over":
        file.write_text("something else")
    elif damage == "same size":
        file.write_text("eno")
    elif damage == "gone":
        file.unlink()
    else:
        entry.write_text("{")
    record = run()
    assert states(record)["write"] == "succeeded"
    assert (record.artifact("folder") / "a").read_text() == "one"
    assert "damaged" in told(record, "write")[1]
    assert states(run()) == KNOWN


def test_the_cache_can_be_left_alone(run, text):
    run()
    record = run(cache=False)
    assert states(record) == NEW
    assert told(record, "write")[1] == "Cache: not looked for: --no-cache."
    without = text.replace("enableCache: true", "enableCache: false")
    assert states(run(text=without)) == NEW
    assert states(run(text=without, cache=True)) == KNOWN


def test_data_that_a_parameter_names_are_part_of_the_key(run, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "1").write_text("x")
    values = {"word": str(data)}
    run(values)
    assert states(run(values)) == KNOWN
    (data / "2").write_text("y")
    record = run(values)
    assert states(record)["write"] == "succeeded"
    assert told(record, "write")[-1] == f"- what is at {data} changed"


def test_facts_of_the_run_are_never_the_same(run, text):
    unique = text.replace("{{$.inputs.parameters['word']}}", "{{$.pipeline_job_uuid}}").replace(
        "{{$.inputs.parameters[''word'']}}", "{{$.pipeline_job_uuid}}"
    )
    assert unique != text
    for _ in range(2):
        assert states(run(text=unique))["write"] == "succeeded"


def test_differences_name_each_kind():
    before = {
        "code": {"label": "components/train", "files": {"a.py": "1"}, "environment": "1"},
        "parameters": {"settings": {"learning_rate": 0.1, "epochs": 2}},
        "inputs": {"examples": ["1"]},
    }
    now = {
        "code": {"label": "components/train", "files": {"a.py": "2"}, "environment": "2"},
        "parameters": {"settings": {"learning_rate": 0.05, "epochs": 2}, "seed": ""},
        "inputs": {"examples": ["2"]},
    }
    assert differences(before, now) == [
        "code of components/train changed (a.py)",
        "installed packages changed",
        'parameter seed nothing → ""',
        "parameter settings.learning_rate 0.1 → 0.05",
        "input examples changed",
    ]
    image = {"code": {"label": "i:1", "image": "sha256:1"}}
    rebuilt = {"code": {"label": "i:1", "image": "sha256:2"}}
    assert differences(image, rebuilt) == ["image i:1 changed"]
    assert differences(before, rebuilt)[0] == "it runs in Docker now"


def test_a_first_run_has_nothing_to_compare_with(run):
    record = run()
    assert told(record, "write") == [
        "write: succeeded",
        "Cache: no earlier result has the same code, parameters and inputs.",
        "No earlier run of this pipeline got as far as this task.",
    ]
    assert read_run(record.folder).tasks["write"].key["parameters"] == {"word": "one"}
