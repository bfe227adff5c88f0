"""Results of earlier tasks, found by what they depend on.

A result depends on the command, the code behind it (sources here, the image in Docker), the values
of the parameters, what lies at paths among them, and the content of the input artifacts. Entries
hold further names (hard links) of the outputs, so they take no room beside the runs and outlive
them. Each is checked against its digests before it is used.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.local import digest, placeholders
from pipelines.local.digest import Digests
from pipelines.local.executor import Artifact, Outputs
from pipelines.local.graph import Container, Task
from pipelines.local.placeholders import Scope
from trainer.artifact import read_json, write_json

FOLDER = ".cache"
"""The cache's folder, below the root of the runs."""

_FORMAT = 1
_MOST_FILES = 3_000_000
"""Folders of more files than this are not watched, and what uses them is not cached (ours)."""


@dataclass(frozen=True)
class Entry:
    """A result in the cache: where its artifacts are, and what was found out about them."""

    folder: Path
    outputs: Outputs
    digests: Mapping[str, str]
    run: str


class Cache:
    """The cache of a root folder of runs.

    Args:
        root: the folder that holds the runs.
    """

    def __init__(self, root: Path):
        self.folder = root / FOLDER
        self.digests = Digests(self.folder / "digests.sqlite")

    def close(self) -> None:
        """Closes what is open."""
        self.digests.close()

    def find(self, key: str) -> tuple[Entry | None, str]:
        """The result of a key, or None and why there is none; a damaged one is removed."""
        folder = self._folder(key)
        if not folder.is_dir():
            return None, ""
        problem = ""
        try:
            content = read_json(folder / "entry.json")
            entry = Entry(
                folder=folder,
                outputs=Outputs(content["parameters"], content["artifacts"]),
                digests=content["digests"],
                run=content["run"],
            )
            if content["format"] != _FORMAT or content["key"] != key:
                problem = "the cache's entry was of another kind"
            for name, expected in () if problem else entry.digests.items():
                if self.digests.of(self._place(entry, name)) != expected:
                    problem = f"the cache's copy of {name} was damaged"
        except (OSError, ValueError, KeyError, TypeError):
            problem = "the cache's entry was damaged"
        if not problem:
            return entry, ""
        shutil.rmtree(folder, ignore_errors=True)
        return None, problem

    def take(self, entry: Entry, outputs: Path) -> Outputs:
        """Links a result into a task's folder of outputs, and says what it is there."""
        artifacts = {}
        for name, artifact in entry.outputs.artifacts.items():
            place = self._place(entry, name)
            if place.parent == entry.folder / "outputs":
                if place.exists():
                    self.digests.link(place, outputs / name)
                artifact = {**artifact, "uri": str(outputs / name)}
            artifacts[name] = artifact
        return Outputs(entry.outputs.parameters, artifacts)

    def digests_of(self, outputs: Outputs) -> dict[str, str]:
        """The digest of every artifact."""
        return {name: self.of_artifact(a) for name, a in outputs.artifacts.items()}

    def of_artifact(self, artifact: Artifact) -> str:
        """The digest of an artifact's content; of one elsewhere, its address."""
        uri = str(artifact["uri"])
        return self.digests.of(uri) if uri.startswith("/") else f"at {uri}"

    def store(
        self, key: str, run: str, outputs: Outputs, digests: Mapping[str, str], folder: Path
    ) -> None:
        """Keeps a result; whoever is first is kept.

        Args:
            key: what it depends on.
            run: the run that did the work.
            outputs: what the task gave.
            digests: of its artifacts.
            folder: the task's folder of outputs; what lies elsewhere is noted, not kept.
        """
        target = self._folder(key)
        draft = target.with_name(f".{key}-{secrets.token_hex(4)}")
        (draft / "outputs").mkdir(parents=True)
        try:
            artifacts = {}
            for name, artifact in outputs.artifacts.items():
                place = Path(artifact["uri"])
                if place == folder / name:
                    if place.exists():
                        self.digests.link(place, draft / "outputs" / name)
                    artifact = {**artifact, "uri": ""}
                artifacts[name] = artifact
            content = {
                "format": _FORMAT,
                "key": key,
                "run": run,
                "parameters": outputs.parameters,
                "artifacts": artifacts,
                "digests": digests,
            }
            write_json(draft / "entry.json", content)
            with contextlib.suppress(OSError):
                draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _folder(self, key: str) -> Path:
        return self.folder / "results" / key[:2] / key

    def _place(self, entry: Entry, name: str) -> Path:
        uri = entry.outputs.artifacts[name]["uri"]
        return Path(uri) if uri else entry.folder / "outputs" / name


def key_of(
    task: Task,
    scope: Scope,
    identity: Mapping[str, Any],
    digests: Mapping[str, Sequence[str]],
) -> dict[str, Any] | None:
    """All that the result of a task depends on, by kind; None where that cannot be known.

    Args:
        task: a task that is a container.
        scope: what its placeholders stand for.
        identity: what the launcher knows of the code: `label`, and digests.
        digests: input artifact -> digests of its content.
    """
    if not isinstance(task.work, Container):
        return None
    if task.cache_key:
        return {"cache_key": task.cache_key, "task": task.name, "outputs": _outputs(task)}
    values = scope.executor_input["inputs"]["parameterValues"]
    paths = {}
    for place in _paths([*values.values(), *task.work.command]):
        seen = digest.look(place, _MOST_FILES)
        if seen is None:
            return None
        paths[str(place)] = seen
    inputs = {
        name: [
            {"digest": content, "metadata": digest.of_value([a.get("type"), a.get("metadata")])}
            for content, a in zip(digests[name], artifact["artifacts"], strict=True)
        ]
        for name, artifact in scope.executor_input["inputs"]["artifacts"].items()
    }
    facts = placeholders.facts_used([*task.work.command, *placeholders.texts(dict(values))])
    return {
        "command": list(task.work.command),
        "code": dict(identity),
        "environment": dict(task.work.environment),
        "secrets": sorted(task.work.secrets),
        "parameters": dict(values),
        "paths": paths,
        "inputs": inputs,
        "outputs": _outputs(task),
        "facts": {name: scope.facts[name] for name in sorted(facts)},
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed between two keys, in words."""
    found: list[str] = []
    if "cache_key" in before or "cache_key" in now:
        old, new = before.get("cache_key"), now.get("cache_key")
        return [f"cache key {old} → {new}"] if old != new else []
    found += _changed_code(before.get("code", {}), now.get("code", {}))
    found += _changed("parameter", before.get("parameters", {}), now.get("parameters", {}))
    found += _changed("variable", before.get("environment", {}), now.get("environment", {}))
    for name, kind in (("inputs", "input {}"), ("paths", "what is at {}")):
        old, new = before.get(name, {}), now.get(name, {})
        found += [
            f"{kind.format(key)} changed"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
    if not found and before.get("command") != now.get("command"):
        found.append("the command changed")
    for name, words in (
        ("secrets", "the secrets that it takes changed"),
        ("outputs", "what it gives changed"),
        ("facts", "it uses facts of its run, which are never the same"),
    ):
        if before.get(name) != now.get(name):
            found.append(words)
    return found


def _changed_code(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if before.get("image") != now.get("image"):
        if "image" in before and "image" in now:
            return [f"image {now['label']} changed"]
        return ["it ran in Docker before" if "image" in before else "it runs in Docker now"]
    found = []
    old, new = before.get("files", {}), now.get("files", {})
    changed = sorted(f for f in {*old, *new} if old.get(f) != new.get(f))
    if changed or before.get("label") != now.get("label"):
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if changed[3:] else "")
        found.append(f"code of {now.get('label')} changed" + (f" ({shown})" if shown else ""))
    if before.get("environment") != now.get("environment"):
        found.append("installed packages changed")
    return found


def _changed(kind: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(now)
    return [
        f"{kind} {name} {_shown(old, name)} → {_shown(new, name)}"
        for name in sorted({*old, *new})
        if old.get(name, _MISSING) != new.get(name, _MISSING)
    ]


_MISSING = object()


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "nothing"
    value = values[name]
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of objects within objects by names with dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found.update(_flat(value, f"{prefix}{name}."))
        elif value != {}:
            found[f"{prefix}{name}"] = value
    return found


def _outputs(task: Task) -> dict[str, Any]:
    return {
        "parameters": dict(task.output_parameters),
        "artifacts": {name: dict(kind) for name, kind in task.output_artifacts.items()},
    }


def _paths(values: Sequence[Any]) -> list[Path]:
    """Files and folders of this machine that are named by a text of their own."""
    found = []
    for text in placeholders.texts(list(values)):
        if text.startswith("/") and "\n" not in text and len(text) < 4096:
            with contextlib.suppress(OSError, ValueError):
                path = Path(text)
                if path.exists() and path != Path("/"):
                    found.append(path)
    return sorted(set(found))
