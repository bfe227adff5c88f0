"""What a run measured: tables of metrics, confusion matrices, ROC curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from pipelines.local.report.artifacts import Artifacts, metadata_of, type_of
from pipelines.local.report.tasks import Tasks
from pipelines.local.report.words import as_json

# What the page leaves out of large results (all ours).
_MOST_METRICS = 500
_MOST_CLASSES, _MOST_PAIRS = 30, 20


def metrics(found: Artifacts, tasks: Tasks) -> list[dict[str, Any]]:
    """Tables of metrics: one per task, or one for all iterations of a task."""
    groups: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for path, name, artifact in found.of_type("system.Metrics"):
        groups.setdefault((tasks.shapes[path], name), []).append((path, metadata_of(artifact)))
    tables = []
    for (shape, name), members in groups.items():
        columns = list(dict.fromkeys(key for _, values in members for key in values))
        tables.append(
            {
                "task": shape,
                "name": name,
                "columns": columns,
                "rows": [
                    (path, [values.get(c) for c in columns])
                    for path, values in members[:_MOST_METRICS]
                ],
                "left_out": max(len(members) - _MOST_METRICS, 0),
            }
        )
    return tables


def classifications(found: Artifacts) -> list[dict[str, Any]]:
    """Confusion matrices, ROC curves and what else there is of a classification."""
    views = []
    for path, name, artifact in found.all:
        if type_of(artifact) in (
            "system.ClassificationMetrics",
            "system.SlicedClassificationMetrics",
        ):
            rest = dict(metadata_of(artifact))
            matrix = _confusion(rest.get("confusionMatrix"))
            curve = _curve(rest.get("confidenceMetrics"))
            for key, view in (("confusionMatrix", matrix), ("confidenceMetrics", curve)):
                if view:
                    del rest[key]
            if matrix or curve or rest:
                views.append(
                    {
                        **found.source(path, name, artifact),
                        "confusion": matrix,
                        "curve": curve,
                        "rest": as_json(rest) if rest else "",
                    }
                )
    return views


def _confusion(matrix: Any) -> dict[str, Any] | None:
    """A small matrix as a table of counts with their shares of the row; the worst pairs of all."""
    try:
        matrix = matrix.get("struct", matrix)
        names = [str(spec["displayName"]) for spec in matrix["annotationSpecs"]]
        rows = [[float(count) for count in row["row"]] for row in matrix["rows"]]
        square = [len(row) for row in rows] == [len(names)] * len(names)
        if not names or not square or not all(math.isfinite(c) for row in rows for c in row):
            return None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    pairs = [
        (count, names[i], names[j])
        for i, row in enumerate(rows)
        for j, count in enumerate(row)
        if i != j and count > 0
    ]
    table = []
    for name, row in zip(names, rows, strict=True) if len(names) <= _MOST_CLASSES else ():
        total = sum(row) or 1.0
        table.append((name, [(count, round(80 * max(count, 0) / total)) for count in row]))
    worst = sorted(pairs, key=lambda pair: -pair[0])[:_MOST_PAIRS]
    return {"names": names, "table": table, "pairs": worst}


def _curve(points: Any) -> dict[str, Any] | None:
    """A ROC curve: its points on a square of 200, and the area below."""
    try:
        points = points.get("list", points) if isinstance(points, Mapping) else points
        pairs = sorted((float(p["falsePositiveRate"]), float(p["recall"])) for p in points)
        if len(pairs) < 2 or not all(0 <= value <= 1 for pair in pairs for value in pair):
            return None
    except (KeyError, TypeError, ValueError):
        return None
    area = sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in itertools.pairwise(pairs))
    text = " ".join(f"{200 * x:.1f},{200 - 200 * y:.1f}" for x, y in pairs)
    return {"points": text, "area": area, "count": len(pairs)}
