"""Vertex AI: which request is for which collection."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.cloud.answers import Answer, Refused, Request
from tests.cloud.custom_jobs import CustomJobs
from tests.cloud.pipeline_jobs import PipelineJobs
from tests.cloud.schedules import Schedules

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud

_PARENT = "projects/[^/]+/locations/[^/]+"


class Vertex:
    """The collections of Vertex AI, which clients find under v1 and v1beta1.

    Attributes:
        pipeline_jobs, custom_jobs, schedules: the collections.
    """

    def __init__(self, cloud: Cloud):
        self.pipeline_jobs = PipelineJobs(cloud)
        self.custom_jobs = CustomJobs(cloud)
        self.schedules = Schedules(cloud)
        self._routes: list[tuple[str, str, Callable[..., Answer]]] = []
        jobs, customs, schedules = self.pipeline_jobs, self.custom_jobs, self.schedules
        for name, collection in (
            ("pipelineJobs", jobs),
            ("customJobs", customs),
            ("schedules", schedules),
        ):
            item = f"({_PARENT}/{name}/[^/:]+)"
            self._routes += [
                ("POST", f"({_PARENT})/{name}", collection.create),
                ("GET", f"({_PARENT})/{name}", collection.list),
                ("GET", item, collection.get),
                ("DELETE", item, collection.delete),
            ]
        self._routes += [
            ("POST", f"({_PARENT}/pipelineJobs/[^/:]+):cancel", jobs.cancel),
            ("POST", f"({_PARENT}/customJobs/[^/:]+):cancel", customs.cancel),
            ("PATCH", f"({_PARENT}/schedules/[^/:]+)", schedules.update),
            ("POST", f"({_PARENT}/schedules/[^/:]+):pause", schedules.pause),
            ("POST", f"({_PARENT}/schedules/[^/:]+):resume", schedules.resume),
        ]

    def answer(self, request: Request) -> Answer:
        """Answers a request.

        Raises:
            Refused: it cannot be done.
        """
        for method, pattern, function in self._routes:
            match = re.fullmatch(f"/v1(?:beta1)?/{pattern}", request.path)
            if match and method == request.method:
                return function(request, match[1])
        raise Refused(404, f"The stand-in does not know {request.method} {request.path}.")
