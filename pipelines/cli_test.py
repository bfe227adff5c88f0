import json
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from pipelines import cli
from trainer.errors import UserError

HEAVY = ("tensorflow", "keras", "jax", "apache_beam", "google.cloud.aiplatform")
SPEC = {
    "pipelineInfo": {"name": "tiny"},
    "components": {
        "comp-say": {
            "executorLabel": "exec-say",
            "inputDefinitions": {
                "parameters": {
                    name: {"parameterType": kind}
                    for name, kind in (
                        ("data", "STRING"),
                        ("dataset", "STRING"),
                        ("n", "NUMBER_INTEGER"),
                    )
                }
            },
            "outputDefinitions": {
                "artifacts": {"report": {"artifactType": {"schemaTitle": "system.HTML"}}}
            },
        }
    },
    "deploymentSpec": {
        "executors": {
            "exec-say": {
                "container": {
                    "command": [
                        "python",
                        "-c",
                        "import pathlib, sys; print(sys.argv); sys.argv[3] == '13' and exit(2);"
                        "pathlib.Path(sys.argv[4]).write_text('<p>')",
                        "{{$.inputs.parameters['data']}}",
                        "{{$.inputs.parameters['dataset']}}",
                        "{{$.inputs.parameters['n']}}",
                        "{{$.outputs.artifacts['report'].path}}",
                    ]
                }
            }
        }
    },
    "root": {
        "dag": {
            "tasks": {
                "say": {
                    "componentRef": {"name": "comp-say"},
                    "inputs": {
                        "parameters": {
                            n: {"componentInputParameter": n} for n in ("data", "dataset", "n")
                        }
                    },
                }
            }
        },
        "inputDefinitions": {
            "parameters": {
                "data": {"parameterType": "STRING", "isOptional": True, "defaultValue": ""},
                "dataset": {"parameterType": "STRING", "isOptional": True, "defaultValue": "mnist"},
                "n": {"parameterType": "NUMBER_INTEGER", "isOptional": True, "defaultValue": 2.0},
            }
        },
    },
}


@pytest.fixture
def tiny(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(SPEC))
    return file


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def printed(tmp_path):
    (log,) = (tmp_path / "runs").glob("tiny-*/tasks/say/log.txt")
    return log.read_text()


def test_a_file_runs_and_the_end_names_what_is_there(tiny, tmp_path):
    result = call("run", tiny, "--root", tmp_path / "runs", "--param", "n=7")
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "runs").glob("tiny-*")
    assert f"Run: {folder}\nReport: {folder}/report.html\n" in result.output
    assert (folder / "pipeline.yaml").read_text() == tiny.read_text()
    assert "'', 'mnist', '7'" in printed(tmp_path)


def test_data_given_by_hand_are_absolute_and_tell_their_dataset(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert call("run", "tiny.yaml", "--data", "digits").exit_code == 0
    assert f"'{tmp_path}/digits', '', '2'" in printed(tmp_path)


def test_a_dataset_given_by_hand_is_used(tiny, tmp_path):
    call("run", tiny, "--root", tmp_path / "runs", "--dataset", "cifar10")
    assert "'', 'cifar10', '2'" in printed(tmp_path)


def test_a_failing_step_decides_the_exit_code_and_its_log_is_shown(tiny, tmp_path):
    result = call("run", tiny, "--root", tmp_path / "runs", "--param", "n=13")
    assert result.exit_code == 2
    assert "failed after" in result.output
    assert "'13'" in result.output
    assert "To go on: paper2hub resume" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "The model must be one of"),
        (["run", "nothing.yaml"], "must be a file to read"),
        (["run", "autoencoder", "--set", "epoch=2"], "Did you mean 'epochs'"),
        (["run", "autoencoder", "--set", "epochs=two"], "epochs must be of type int"),
        (["run", "autoencoder", "--set", "epochs"], "must look like key=value"),
        (["run", "autoencoder", "--data", "/no/such/place"], "'/no/such/place' does not exist"),
        (["run", "tiny.yaml", "--param", "n"], "must look like name=value"),
        (["run", "tiny.yaml", "--param", "n=x"], "n must be of type NUMBER_INTEGER"),
        (["run", "tiny.yaml", "--param", "m=1"], "among data, dataset, n; got 'm'"),
        (["run", "tiny.yaml", "--timeout", "soon"], "must be a time such as 90s"),
        (["run", "tiny.yaml", "--timeout", "sya=3s"], "must name a task; got 'sya'"),
        (["run", "tiny.yaml", "--memory", "much"], "--memory must be a number with a unit"),
        (["run", "tiny.yaml", "--env-file", "none"], "must be a file to read"),
        (["run", "tiny.yaml", "--env-file", "tiny.yaml"], "must be KEY=VALUE"),
        (["run", "tiny.yaml", "--network", "host"], "there is no --docker"),
        (["resume", "last"], "A run must be one of runs"),
        (["logs", "last"], "A run must be one of runs"),
        (["why", "nothing", "say"], "A run must be one of runs"),
        (["compile"], "a model or --all"),
        (["compile", "autoencoder", "--all"], "a model or --all"),
        (["compile", "nothing"], "The model must be one of"),
        (["compile", "autoencoder", "--target", "moon"], "local, kubeflow, vertex; got 'moon'"),
        (["train", "nothing", "-o", "x"], "The model must be one of"),
        (["train", "autoencoder", "-o", "x", "--set", "epoch=2"], "Did you mean 'epochs'"),
        (["train", "autoencoder", "-o", "x", "--training", "precision=half"], "must be one of fl"),
        (["train", "autoencoder", "-o", "x", "--training", "precison=x"], "mean 'precision'"),
        (["train", "autoencoder", "-o", "x", "--backend", "torch"], "got 'torch'"),
        (["train", "autoencoder", "-o", "x", "--data", "/no/such/place"], "does not exist"),
        (["train", "autoencoder", "-o", "x", "--data", ".", "--examples", "."], "got both"),
        (["train", "autoencoder", "-o", "x", "--examples", "/no/such/place"], "facts.json"),
        (["train", "autoencoder", "-o", "tiny.yaml"], "tiny.yaml: File exists"),
        (["run", "autoencoder", "--training", "accumulation=0"], "must be at least 1; got 0"),
        (["import-weights", "regnety", "x", "--from", "pycls", "-o", "y", "--set", "a=1"], "'a'"),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_starts(
    arguments, message, tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert list(tmp_path.glob("*/*.json")) == []  # no run was begun


def test_a_run_is_looked_at_and_gone_on_with_from_the_command_line(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("run", tiny, "--param", "n=13").exit_code == 2
    assert call("run", tiny, "--param", "n=7").exit_code == 0
    table = call("runs").output
    assert "failed" in table and "succeeded" in table
    failed, done = json.loads(call("runs", "--json").output)
    assert (failed["status"], failed["tasks"]) == ("failed", {"failed": 1})
    assert call("why", "last", "say").output.splitlines()[-1] == "- parameter n 13 → 7"
    assert call("logs", "last", "say").output == call("logs", done["run"]).output.partition("\n")[2]
    assert call("logs", "last", "-f").output.startswith("==> say <==\n")
    again = call("resume", failed["run"])
    assert again.exit_code == 2  # it fails again, as it must
    result = call("resume", "last")
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match="got 'sya', and it has none such: say"):
        raise call("why", "last", "sya").exception


def test_variables_come_from_a_file(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HERE", "5")
    file = tmp_path / "variables"
    file.write_text("# a comment\n\nTOKEN=a=b c\nHERE\n")
    assert cli._variables(file) == {"TOKEN": "a=b c", "HERE": "5"}


def test_a_pipeline_that_has_not_changed_is_not_compiled_again(tmp_path):
    loaded = modules_after("run", "autoencoder", "--root", tmp_path, "--data", "/no/such/folder")
    assert "kfp" in loaded
    loaded = modules_after("run", "autoencoder", "--root", tmp_path, "--data", "/no/such/folder")
    assert not loaded & {"kfp", *HEAVY}


def test_the_users_fault_is_one_line_and_exit_code_2(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", "run", "nothing.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: The pipeline must be a file to read")


def test_models_tell_papers_number_and_ours():
    entries = json.loads(call("models", "--json").output)
    autoencoder = next(entry for entry in entries if entry["model"] == "autoencoder")
    assert autoencoder["results"][0]["published"]["value"] == 3.0
    table = call("models").output
    for entry in entries:
        assert entry["model"] in table


def test_doctor_ends_well_whatever_it_finds():
    result = call("doctor", "--json")
    assert result.exit_code == 0
    assert {finding["name"] for finding in json.loads(result.output)} >= {"glibc", "TFX"}
    assert "glibc" in call("doctor").output


@pytest.mark.parametrize(
    "command",
    ["models", "compile", "run", "train", "resume", "runs", "logs", "why", "parity", "doctor"],
)
def test_the_help_of_every_command_has_an_example(command):
    assert f"Example: paper2hub {command}" in " ".join(call(command, "--help").output.split())


def modules_after(*arguments):
    """Names of all modules loaded once the command is through."""
    code = (
        "import sys\nfrom pipelines import cli\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())


def test_help_loads_nothing_heavy():
    assert not modules_after("--help") & {*HEAVY, "kfp", "yaml", "numpy"}


def test_compiling_loads_neither_tensorflow_nor_a_cloud_sdk(tmp_path):
    loaded = modules_after("compile", "--all", "-o", tmp_path)
    assert "kfp" in loaded
    assert not loaded & set(HEAVY)
    assert {file.name for file in tmp_path.iterdir()} >= {"autoencoder.yaml", "regnety.yaml"}
