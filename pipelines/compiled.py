"""The compiled pipeline of a model for this machine, compiled anew only when its sources change."""

from __future__ import annotations

import importlib.metadata
import os
import secrets
from pathlib import Path

import yaml

from pipelines.local import code
from pipelines.local.cache import FOLDER
from pipelines.local.digest import of_value

_MAKE_EXAMPLES = ("create-tfrecords", "preprocess")


def compiled_text(model: str, root: Path) -> str:
    """The text of a model's pipeline; KFP's compiler takes seconds to import, reading it does not.

    Args:
        model: name of the model.
        root: folder of the runs, whose cache keeps the text.

    Raises:
        UserError: there is no such model.
    """
    from pipelines import catalog

    catalog.check(model)
    sources = code.sources(f"pipelines.{model}", frozenset())
    version = importlib.metadata.version("paper2hub")
    key = of_value([model, dict(sources), code.environment(), version])
    file = root.absolute() / FOLDER / "pipelines" / f"{model}-{key[:16]}.yaml"
    if not file.is_file():
        from pipelines.compile import compile_model

        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.stem}-{os.getpid()}-{secrets.token_hex(3)}.yaml")
        os.replace(compile_model(model, draft), file)
    return file.read_text(encoding="utf-8")


def examples_text(model: str, root: Path) -> str:
    """The text of the part of a model's pipeline that makes its transformed examples.

    Settings are the run's alone: those of the first stage are left out.

    Args:
        model: name of the model.
        root: folder of the runs, whose cache keeps the text of the whole.

    Raises:
        UserError: there is no such model.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    spec = yaml.load(compiled_text(model, root).partition("\n---\n")[0], Loader=loader)  # noqa: S506
    spec["pipelineInfo"]["name"] = f"{model}-examples"
    dag = spec["root"]["dag"]
    dag["tasks"] = {name: dag["tasks"][name] for name in _MAKE_EXAMPLES}
    for task in dag["tasks"].values():
        task["inputs"]["parameters"].pop("stage_settings", None)
    return yaml.dump(spec, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
