"""Every step's function, KFP interface and command line agree."""

import importlib
import inspect
from pathlib import Path

import pytest

import components

FOLDER = Path(components.__path__[0])
STEPS = sorted(p.parent.name for p in FOLDER.glob("*/component.py"))


@pytest.fixture(params=STEPS)
def step(request):
    return request.param


def signature(step):
    function = getattr(importlib.import_module(f"components.{step}.{step}"), step)
    return inspect.signature(function).parameters


def interface(step):
    return getattr(importlib.import_module(f"components.{step}.component"), step).component_spec


def test_every_folder_is_a_step():
    folders = {p.name for p in FOLDER.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert set(STEPS) == folders


def test_the_four_files_are_there(step):
    for file in (f"{step}.py", "component.py", "__main__.py", f"{step}_test.py"):
        assert (FOLDER / step / file).is_file(), file


def test_the_interface_has_the_names_of_the_function(step):
    spec = interface(step)
    assert {*(spec.inputs or {}), *spec.outputs} == set(signature(step))
    assert spec.implementation.container.command == ["python", "-m", f"components.{step}"]


def test_the_interface_has_the_defaults_of_the_function(step):
    declared = signature(step)
    for name, spec in interface(step).inputs.items():
        default = declared[name].default
        if default is inspect.Parameter.empty:
            assert not spec.optional, name
        else:
            # KFP has no None: a mapping that is not given is an empty one.
            assert spec.default == ({} if default is None else default), name


def test_every_parameter_is_a_flag(step):
    *flags, executor_input, placeholder = interface(step).implementation.container.args
    assert [flag.split("=")[0] for flag in flags] == [f"--{name}" for name in signature(step)]
    assert all("=" in flag for flag in flags)
    assert [executor_input, placeholder] == ["--executor_input", "{{$}}"]


def test_the_command_line_is_that_of_the_function(step):
    lines = (FOLDER / step / "__main__.py").read_text().splitlines()
    assert [line for line in lines[1:] if line] == [
        "from components import command",
        f"from components.{step}.{step} import {step}",
        f"command.run({step})",
    ]
