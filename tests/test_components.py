"""Every step's function, KFP interface and command line agree."""

import importlib
import inspect
from pathlib import Path

import pytest
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.types import type_utils

import components

FOLDER = Path(components.__path__[0])
STEPS = sorted(p.parent.name for p in FOLDER.glob("*/component.py"))
LEFT_OUT = {"train": {"initial"}}
"""Interface -> optional artifacts of its step that it does not take; another interface does."""


@pytest.fixture(params=STEPS)
def step(request):
    return request.param


def signature(step):
    function = getattr(importlib.import_module(f"components.{step}.{step}"), step)
    return inspect.signature(function).parameters


def interfaces(step):
    """The KFP interfaces of a step: the one of its name, and others for further artifacts."""
    module = importlib.import_module(f"components.{step}.component")
    found = {
        name: thing.component_spec
        for name, thing in vars(module).items()
        if isinstance(thing, BaseComponent)
    }
    assert step in found
    return found


def test_every_folder_is_a_step():
    folders = {p.name for p in FOLDER.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert set(STEPS) == folders


def test_the_four_files_are_there(step):
    for file in (f"{step}.py", "component.py", "__main__.py", f"{step}_test.py"):
        assert (FOLDER / step / file).is_file(), file


def test_the_interfaces_have_the_names_of_the_function(step):
    for name, spec in interfaces(step).items():
        left_out = LEFT_OUT.get(name, set())
        assert {*(spec.inputs or {}), *spec.outputs} == set(signature(step)) - left_out
        assert spec.implementation.container.command == ["python", "-m", f"components.{step}"]
        assert all(signature(step)[optional].default == "" for optional in left_out)
    taken = [{*(spec.inputs or {}), *spec.outputs} for spec in interfaces(step).values()]
    assert set().union(*taken) == set(signature(step))


def test_the_interfaces_have_the_defaults_of_the_function(step):
    declared = signature(step)
    for interface in interfaces(step).values():
        for name, spec in interface.inputs.items():
            default = declared[name].default
            if default is inspect.Parameter.empty:
                assert not spec.optional, name
            elif type_utils.is_parameter_type(spec.type):
                # KFP has no None: a mapping that is not given is an empty one.
                assert spec.default == ({} if default is None else default), name
            else:  # KFP's launcher cannot tell whether an optional artifact has been given
                assert (spec.optional, default) == (False, ""), name


def test_every_parameter_is_a_flag(step):
    for name, interface in interfaces(step).items():
        *flags, executor_input, placeholder = interface.implementation.container.args
        expected = [p for p in signature(step) if p not in LEFT_OUT.get(name, set())]
        assert [flag.split("=")[0] for flag in flags] == [f"--{each}" for each in expected]
        assert all("=" in flag for flag in flags)
        assert [executor_input, placeholder] == ["--executor_input", "{{$}}"]


def test_the_command_line_is_that_of_the_function(step):
    lines = (FOLDER / step / "__main__.py").read_text().splitlines()
    assert [line for line in lines[1:] if line] == [
        "from components import command",
        f"from components.{step}.{step} import {step}",
        f"command.run({step})",
    ]
