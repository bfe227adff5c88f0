"""The command line of a step, built from the signature and the docstring of its function."""

from __future__ import annotations

import argparse
import inspect
import json
import signal
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

import docstring_parser

from components import secret_manager
from trainer import imports
from trainer.artifact import write_json
from trainer.errors import TryAgain, UserError

imports.begin()  # a step's `__main__` imports this module first

Metadata = Mapping[str, Mapping[str, Any]]
"""Output artifact -> what to note beside it, such as the numbers of a Metrics artifact."""

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as a shell has it."""


def run(
    function: Callable[..., Metadata | None], arguments: Sequence[str] | None = None
) -> NoReturn:
    """Calls a step with the arguments of the command line and leaves with its exit code.

    Every parameter of the function is a flag of the same name; a mapping is given as a JSON object.
    `--executor_input` takes what KFP writes for `{{$}}`; with it, the metadata that the function
    returns go to the file named there, where KFP and Vertex AI read them, and parameters that no
    flag gives have the values that are in it.

    The exit code is 0 when the step is done, 2 for what the caller can mend, 75 for what may work
    when tried again, 130 after Ctrl-C, and 1 with a traceback for anything else. SIGTERM, with
    which machines are taken away, means 75 as well, unless the step is done and about to leave.

    Args:
        function: the step: strings, numbers and mappings in, metadata of its outputs back.
        arguments: the command line; that of the process where it is None.
    """
    imports.end()
    signal.signal(signal.SIGTERM, _terminate)
    values, executor_input = _read(function, arguments)
    try:
        secret_manager.reveal()
        metadata = function(**values)
    except (UserError, TryAgain) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except _Terminated:
        print("error: SIGTERM came before the step was done; do it again.", file=sys.stderr)
        sys.exit(TryAgain.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if executor_input is not None:
        _write_executor_output(executor_input["outputs"], metadata or {})
    sys.exit(0)


class _Terminated(BaseException):
    """The process was asked to end."""


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # once is enough: what ends now is not to be cut short
    raise _Terminated


def _read(
    function: Callable[..., Any], arguments: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The values of a step's parameters, and the executor input where there is one."""
    parser = _parser(function)
    given = vars(parser.parse_args(arguments))
    executor_input = given.pop("executor_input", None)
    announced = (executor_input or {}).get("inputs", {}).get("parameterValues", {})
    values = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in given or name in announced:
            values[name] = given.get(name, announced.get(name))
        elif parameter.default is parameter.empty:
            parser.error(f"the following arguments are required: --{name}")
    return values, executor_input


def _parser(function: Callable[..., Any]) -> argparse.ArgumentParser:
    """The flags of a step, with the help that its docstring gives; only what is given is set."""
    documentation = docstring_parser.parse(
        inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE
    )
    help_texts = {p.arg_name: " ".join((p.description or "").split()) for p in documentation.params}
    parser = argparse.ArgumentParser(
        prog=f"python -m {function.__module__.rpartition('.')[0]}",
        description=documentation.short_description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    types = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        convert, placeholder = _reading(types[name])
        required = parameter.default is parameter.empty
        shown = "" if required else f" (default: {json.dumps(parameter.default)})"
        parser.add_argument(
            f"--{name}",
            type=convert,
            metavar=placeholder,
            help=(help_texts.get(name, "") + shown).replace("%", "%%"),
        )
    parser.add_argument(
        "--executor_input",
        type=_json_object,
        metavar="JSON",
        help="what KFP writes for {{$}}; names the file that takes the outputs' metadata",
    )
    return parser


def _reading(kind: Any) -> tuple[Callable[[str], Any], str]:
    """How a flag of a type is read, and what stands for its value in the help."""
    if kind in (str, int, float):
        return kind, {str: "TEXT", int: "INTEGER", float: "NUMBER"}[kind]
    if dict in (typing.get_origin(k) for k in (kind, *typing.get_args(kind))):
        return _json_object, "JSON"
    raise TypeError(f"A step takes str, int, float and dict; got the annotation {kind}.")


def _json_object(text: str) -> dict[str, Any]:
    """A JSON object; argparse reports anything else."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f'must be a JSON object, as in {{"epochs": 2}}; got {text!r}'
        )
    return value


def _write_executor_output(outputs: Mapping[str, Any], metadata: Metadata) -> None:
    """Writes the artifacts as they were announced, with the metadata that the step returned."""
    artifacts = {}
    for name, announced in outputs.get("artifacts", {}).items():
        artifact = announced["artifacts"][0]
        noted = {**artifact.get("metadata", {}), **metadata.get(name, {})}
        artifacts[name] = {"artifacts": [{**artifact, "metadata": noted}]}
    write_json(outputs["outputFile"], {"artifacts": artifacts})
