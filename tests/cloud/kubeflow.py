"""Kubeflow Pipelines: the v2beta1 REST API as kfp's client uses it.

https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import kfp_server_api
from cronsim import CronSim, CronSimError

from pipelines.local.record import TaskRecord
from tests.cloud.answers import Answer, Refused, Request, page
from tests.cloud.clock import text_of
from tests.cloud.execution import ENDED, Observer, Work
from tests.cloud.pipeline_jobs import check_parameters
from tests.cloud.translation import filled_value, local_value, translate

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud

_STATES = {
    "pending": "PENDING",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "cancelling": "CANCELING",
    "cancelled": "CANCELED",
}
_TASK_STATES = {
    "waiting": "PENDING",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "cached": "SKIPPED",
    "skipped": "SKIPPED",
    "failed": "FAILED",
    "cancelled": "CANCELED",
}
_INTERNAL = 13
_NEVER = "1970-01-01T00:00:00Z"
"""What the API says of a time that has not come."""

_RUN_KEYS = {
    **{key: key for key in ("run_id", "display_name", "created_at", "scheduled_at", "state")},
    **{key: key for key in ("finished_at", "storage_state", "experiment_id", "description")},
    "recurring_run_id": "recurring_run_id",
    "id": "run_id",
    "name": "display_name",
    "status": "state",
}
_EXPERIMENT_KEYS = {
    **{key: key for key in ("experiment_id", "display_name", "created_at", "storage_state")},
    "id": "experiment_id",
    "name": "display_name",
    "namespace": "namespace",
}
_RECURRING_KEYS = {
    **{key: key for key in ("recurring_run_id", "display_name", "created_at", "status")},
    "id": "recurring_run_id",
    "name": "display_name",
    "experiment_id": "experiment_id",
}


@dataclasses.dataclass
class _Plan:
    """A recurring run, and what it still has to do."""

    resource: dict[str, Any]
    last: datetime.datetime
    next: datetime.datetime | None = None
    waiting: list[datetime.datetime] = dataclasses.field(default_factory=list)
    runs: list[str] = dataclasses.field(default_factory=list)
    started: int = 0


class Kubeflow(Observer):
    """Experiments, runs and recurring runs; a timetable for the clock.

    Attributes:
        works: run ID -> what is run for it.
        namespace: of everything, where none is given.
    """

    def __init__(self, cloud: Cloud):
        self.works: dict[str, Work] = {}
        self.namespace = "kubeflow"
        self._cloud = cloud
        self._experiments: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, dict[str, Any]] = {}
        self._plans: dict[str, _Plan] = {}
        self._of_work: dict[int, str] = {}
        self._lock = threading.RLock()

    def answer(self, request: Request) -> Answer:
        """Answers a request.

        Raises:
            Refused: it cannot be done.
        """
        path = "/apis/" + request.path.partition("/apis/")[2]
        for method, pattern, function in _ROUTES:
            match = re.fullmatch(f"/apis/v2beta1/{pattern}", path)
            if match and method == request.method:
                groups = [unquote(group) for group in match.groups()]
                with self._lock:
                    answer = function(self, request, *groups)
                self._start_waiting()
                return answer
        raise Refused(404, "Not Found")

    def resource(self, run: str) -> dict[str, Any]:
        """A run as it stands."""
        with self._lock:
            return self._with_details(run)

    def recurring(self) -> list[dict[str, Any]]:
        """All recurring runs, the oldest first."""
        with self._lock:
            return [dict(plan.resource) for plan in self._plans.values()]

    # Experiments

    def _healthz(self, request: Request) -> Answer:
        return Answer({"multi_user": False, "pipeline_store": "database"})

    def _create_experiment(self, request: Request) -> Answer:
        given = _checked(request.json(), kfp_server_api.V2beta1Experiment)
        name = given.get("display_name")
        if not name:
            raise Refused(400, "Invalid input error: Experiment name is empty.")
        if any(e["display_name"] == name for e in self._experiments.values()):
            raise Refused(
                409,
                f"Already exist error: Experiment {name} already exists. Please specify a new "
                "name.",
            )
        return Answer(self._add_experiment(name, given.get("description", "")))

    def _add_experiment(self, name: str, description: str = "") -> dict[str, Any]:
        identity = str(uuid.uuid4())
        made = {
            "experiment_id": identity,
            "display_name": name,
            "description": description,
            "created_at": self._stamp(),
            "namespace": "",
            "storage_state": "AVAILABLE",
        }
        self._experiments[identity] = made
        return made

    def _get_experiment(self, request: Request, identity: str) -> Answer:
        return Answer(_found(self._experiments, "Experiment", identity))

    def _list_experiments(self, request: Request) -> Answer:
        items = list(self._experiments.values())
        return _listing("experiments", items, request, _EXPERIMENT_KEYS)

    def _delete_experiment(self, request: Request, identity: str) -> Answer:
        _found(self._experiments, "Experiment", identity)
        del self._experiments[identity]
        return Answer({})

    # Runs

    def _create_run(self, request: Request) -> Answer:
        given = _checked(request.json(), kfp_server_api.V2beta1Run)
        return Answer(self._add_run(given, self._stamp()))

    def _add_run(
        self,
        given: Mapping[str, Any],
        scheduled: str,
        recurring: str = "",
        values: Callable[[Any], Any] = lambda value: value,
    ) -> dict[str, Any]:
        if not given.get("display_name"):
            raise Refused(400, "Invalid input error: The run name is empty. Please specify one.")
        if not given.get("pipeline_spec"):
            raise Refused(
                400,
                "Invalid input error: a run needs a pipeline_spec; the stand-in keeps no "
                "pipeline versions.",
            )
        experiment = given.get("experiment_id") or self._default_experiment()
        _found(self._experiments, "Experiment", experiment)
        spec, platform = _spec_and_platform(given["pipeline_spec"])
        runtime = _checked(given.get("runtime_config") or {}, kfp_server_api.V2beta1RuntimeConfig)
        identity, stamp = str(uuid.uuid4()), self._stamp()
        run: dict[str, Any] = {
            "experiment_id": experiment,
            "run_id": identity,
            "display_name": given["display_name"],
            "storage_state": "AVAILABLE",
            "description": given.get("description", ""),
            "pipeline_spec": given["pipeline_spec"],
            "runtime_config": {**runtime, "parameters": values(runtime.get("parameters") or {})},
            "service_account": given.get("service_account") or "pipeline-runner",
            "created_at": stamp,
            "scheduled_at": scheduled,
            "finished_at": _NEVER,
            "state": "PENDING",
            "state_history": [{"update_time": stamp, "state": "PENDING"}],
        }
        if recurring:
            run["recurring_run_id"] = recurring
        work = self._work(run, spec, platform)
        self._runs[identity], self.works[identity] = run, work
        self._of_work[id(work)] = identity
        shown = dict(run)
        self._cloud.execution.submit(work)
        return shown

    def _work(
        self, run: Mapping[str, Any], spec: Mapping[str, Any], platform: Mapping[str, Any] | None
    ) -> Work:
        cloud, runtime = self._cloud, run["runtime_config"]
        for key in ("pipelineInfo", "deploymentSpec", "root"):
            if key not in spec:
                raise Refused(400, f"Invalid input error: the pipeline spec has no {key}.")
        check_parameters(spec, runtime["parameters"])
        root = (runtime.get("pipeline_root") or "minio://mlpipeline/v2/artifacts").rstrip("/")
        facts = {
            "pipeline_job_name": f"{spec['pipelineInfo']['name']}-{run['run_id'][:5]}",
            "pipeline_job_resource_name": f"{spec['pipelineInfo']['name']}-{run['run_id'][:5]}",
            "pipeline_job_uuid": run["run_id"],
            "pipeline_job_create_time_utc": run["created_at"],
            "pipeline_job_schedule_time_utc": run["scheduled_at"],
            "pipeline_root": root,
        }
        buckets = cloud.storage.buckets if cloud.translate else None
        given = filled_value(runtime["parameters"], facts)
        translated = translate(spec, given, facts, buckets, cloud.images)
        place: Any = lambda task: None  # noqa: E731
        if root.startswith("gs://"):
            folder = cloud.storage.path(root) / spec["pipelineInfo"]["name"] / run["run_id"]
            place = lambda task: folder / task  # noqa: E731
        return Work(
            name=run["run_id"],
            spec=translated.spec,
            parameters={key: local_value(value, buckets) for key, value in given.items()},
            platform=platform,
            keeps=False,  # KFP's launcher uploads outputs only of what has ended well
            place=place,
            mode=cloud.execute,
            observer=self,
        )

    def _get_run(self, request: Request, identity: str) -> Answer:
        _found(self._runs, "Run", identity)
        return Answer(self._with_details(identity))

    def _list_runs(self, request: Request) -> Answer:
        experiment = request.query.get("experiment_id")
        items = [
            run
            for run in self._runs.values()
            if not experiment or run["experiment_id"] == experiment
        ]
        return _listing("runs", items, request, _RUN_KEYS)

    def _terminate(self, request: Request, identity: str) -> Answer:
        run = _found(self._runs, "Run", identity)
        if self.works[identity].state in ENDED:
            raise Refused(
                400, f"Failed to terminate a run: Run {identity} is in {run['state']} state."
            )
        self._cloud.execution.cancel(self.works[identity])
        return Answer({})

    def _delete_run(self, request: Request, identity: str) -> Answer:
        _found(self._runs, "Run", identity)
        self._cloud.execution.cancel(self.works[identity])
        del self._runs[identity]
        return Answer({})

    def _archive(self, request: Request, identity: str, verb: str) -> Answer:
        run = _found(self._runs, "Run", identity)
        run["storage_state"] = "ARCHIVED" if verb == "archive" else "AVAILABLE"
        return Answer({})

    def _default_experiment(self) -> str:
        for identity, experiment in self._experiments.items():
            if experiment["display_name"] == "Default":
                return identity
        return str(self._add_experiment("Default")["experiment_id"])

    def _with_details(self, identity: str) -> dict[str, Any]:
        run, work = self._runs[identity], self.works[identity]
        tasks = [self._detail(identity, "root", work, None)]
        tasks.append(self._detail(identity, "root-driver", work, None, driver=True))
        record = work.record
        names = record.tasks if record else work.spec["root"]["dag"]["tasks"]
        for path in list(names):
            task = record.tasks[path] if record else None
            tasks.append(self._detail(identity, path, work, task))
            if task is not None and task.status != "waiting":
                tasks.append(self._detail(identity, f"{path}-driver", work, task, driver=True))
        return {**run, "run_details": {"task_details": tasks}}

    def _detail(
        self, run: str, path: str, work: Work, task: TaskRecord | None, driver: bool = False
    ) -> dict[str, Any]:
        of_real, about = self._cloud.clock.of_real, self._runs[run]
        started, ended = about["created_at"], about["finished_at"]
        state = _STATES[work.state]
        if task is not None:
            began, over = of_real(task.started), of_real(task.ended)
            started = text_of(began) if began else _NEVER
            ended = text_of(over) if over else _NEVER
            state = _TASK_STATES[task.status]
            if work.state == "cancelled" and state in ("FAILED", "RUNNING", "PENDING"):
                state = "CANCELED"
        elif path not in ("root", "root-driver") and work.mode != "hold":
            state = state if work.state in ENDED else "PENDING"
        if driver and started != _NEVER:
            state, ended = "SUCCEEDED", started
        detail: dict[str, Any] = {
            "run_id": run,
            "task_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run}/{path}")),
            "display_name": path.rpartition("/")[2],
            "create_time": about["created_at"],
            "start_time": started,
            "end_time": ended,
            "state": state,
        }
        parent = path.rpartition("/")[0] or ("root" if path != "root" else "")
        if parent:
            identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{run}/{parent}")
            detail["parent_task_id"] = str(identity)
        if state == "FAILED" and task is not None:
            text = f"Error (exit code {task.exit_code}) {task.reason}".strip()
            detail["error"] = {"code": _INTERNAL, "message": text}
        return detail

    # What runs says how it goes.

    def changed(self, work: Work) -> None:
        with self._lock:
            run = self._runs.get(self._of_work.get(id(work), ""))
            if run is None:
                return
            state = _STATES[work.state]
            if run["state"] != state:
                run["state"] = state
                run["state_history"] = [
                    *run["state_history"],
                    {"update_time": self._stamp(), "state": state},
                ]
            if work.state in ENDED:
                run["finished_at"] = self._stamp()
            if work.state == "failed":
                run["error"] = {"code": _INTERNAL, "message": work.reason}
        if work.state in ENDED:
            self._start_waiting()

    # Recurring runs

    def _create_recurring(self, request: Request) -> Answer:
        given = _checked(request.json(), kfp_server_api.V2beta1RecurringRun)
        if not given.get("display_name"):
            raise Refused(400, "Invalid input error: The job name is empty.")
        most = int(given.get("max_concurrency") or 0)
        if not 1 <= most <= 10:
            raise Refused(
                400,
                "Invalid input error: The max concurrency of a recurring run must be at least "
                f"1 and at most 10. Received {most}.",
            )
        trigger = _checked(given.get("trigger") or {}, kfp_server_api.V2beta1Trigger)
        _check_trigger(trigger)
        if not given.get("pipeline_spec"):
            raise Refused(400, "Invalid input error: a recurring run needs a pipeline_spec.")
        spec, _ = _spec_and_platform(given["pipeline_spec"])
        runtime = given.get("runtime_config") or {}
        check_parameters(spec, runtime.get("parameters") or {})
        experiment = given.get("experiment_id") or self._default_experiment()
        _found(self._experiments, "Experiment", experiment)
        identity, stamp = str(uuid.uuid4()), self._stamp()
        enabled = given.get("mode") == "ENABLE"
        resource = {
            **given,
            "recurring_run_id": identity,
            "experiment_id": experiment,
            "max_concurrency": str(most),
            "created_at": stamp,
            "updated_at": stamp,
            "mode": "ENABLE" if enabled else "DISABLE",
            "status": "ENABLED" if enabled else "DISABLED",
            "namespace": self.namespace,
        }
        plan = self._plans[identity] = _Plan(resource, self._cloud.clock.now())
        self._plan_next(plan)
        return Answer(resource)

    def _get_recurring(self, request: Request, identity: str) -> Answer:
        return Answer(_found(self._plans, "Job", identity).resource)

    def _list_recurring(self, request: Request) -> Answer:
        experiment = request.query.get("experiment_id")
        items = [
            plan.resource
            for plan in self._plans.values()
            if not experiment or plan.resource["experiment_id"] == experiment
        ]
        return _listing("recurringRuns", items, request, _RECURRING_KEYS)

    def _delete_recurring(self, request: Request, identity: str) -> Answer:
        _found(self._plans, "Job", identity)
        del self._plans[identity]
        return Answer({})

    def _enable(self, request: Request, identity: str, verb: str) -> Answer:
        plan = _found(self._plans, "Job", identity)
        enabled = verb == "enable"
        plan.resource["status"] = "ENABLED" if enabled else "DISABLED"
        plan.resource["mode"] = "ENABLE" if enabled else "DISABLE"
        plan.resource["updated_at"] = self._stamp()
        now = self._cloud.clock.now()
        if enabled:
            for moment in _moments(plan.resource["trigger"], plan.last):
                if moment > now:
                    break
                self._wait_for(plan, moment)
        self._plan_next(plan)
        return Answer({})

    def next_due(self) -> datetime.datetime | None:
        """See `Timetable`."""
        with self._lock:
            return min((p.next for p in self._plans.values() if p.next), default=None)

    def do_due(self, moment: datetime.datetime) -> None:
        """See `Timetable`."""
        with self._lock:
            for plan in list(self._plans.values()):
                if plan.next is not None and plan.next <= moment:
                    self._wait_for(plan, plan.next)
                    self._plan_next(plan)
        self._start_waiting()

    def _plan_next(self, plan: _Plan) -> None:
        enabled = plan.resource["status"] == "ENABLED"
        moments = _moments(plan.resource["trigger"], plan.last)
        plan.next = next(moments, None) if enabled else None

    def _wait_for(self, plan: _Plan, moment: datetime.datetime) -> None:
        """Something is due; without catching up, only the latest of what is due counts."""
        plan.last = moment
        if plan.resource.get("no_catchup"):
            plan.waiting.clear()
        plan.waiting.append(moment)

    def _start_waiting(self) -> None:
        """Starts what is due, as far as there is room."""
        with self._lock:
            for plan in list(self._plans.values()):
                while plan.waiting and plan.resource["status"] == "ENABLED":
                    active = sum(self.works[run].state not in ENDED for run in plan.runs)
                    if active >= int(plan.resource["max_concurrency"]):
                        break
                    self._start(plan, plan.waiting.pop(0))

    def _start(self, plan: _Plan, moment: datetime.datetime) -> None:
        resource = plan.resource
        plan.started += 1
        number = plan.started
        text = {
            "ScheduledTime": f"{moment:%Y%m%d%H%M%S}",
            "CurrentTime": f"{self._cloud.clock.now():%Y%m%d%H%M%S}",
            "Index": str(number),
        }

        def values(given: Any) -> Any:
            filled = json.dumps(given)
            for key, value in text.items():
                filled = filled.replace(f"[[{key}]]", value)
            return json.loads(filled)

        kept = ("experiment_id", "pipeline_spec", "runtime_config", "service_account")
        given = {key: resource[key] for key in kept if resource.get(key)}
        name = re.sub(r"[^a-z0-9-]+", "-", resource["display_name"].lower())
        given["display_name"] = f"Run of {name}-{number}-{int(moment.timestamp())}"
        identity = resource["recurring_run_id"]
        made = self._add_run(given, text_of(moment), identity, values)
        plan.runs.append(made["run_id"])

    # Pipelines

    def _list_pipelines(self, request: Request) -> Answer:
        return Answer({"pipelines": [], "total_size": 0})

    def _stamp(self) -> str:
        return text_of(self._cloud.clock.stamp())


_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", "healthz", Kubeflow._healthz),
    ("POST", "experiments", Kubeflow._create_experiment),
    ("GET", "experiments", Kubeflow._list_experiments),
    ("GET", "experiments/([^/:]+)", Kubeflow._get_experiment),
    ("DELETE", "experiments/([^/:]+)", Kubeflow._delete_experiment),
    ("POST", "runs", Kubeflow._create_run),
    ("GET", "runs", Kubeflow._list_runs),
    ("GET", "runs/([^/:]+)", Kubeflow._get_run),
    ("DELETE", "runs/([^/:]+)", Kubeflow._delete_run),
    ("POST", "runs/([^/:]+):terminate", Kubeflow._terminate),
    ("POST", "runs/([^/:]+):(archive|unarchive)", Kubeflow._archive),
    ("POST", "recurringruns", Kubeflow._create_recurring),
    ("GET", "recurringruns", Kubeflow._list_recurring),
    ("GET", "recurringruns/([^/:]+)", Kubeflow._get_recurring),
    ("DELETE", "recurringruns/([^/:]+)", Kubeflow._delete_recurring),
    ("POST", "recurringruns/([^/:]+):(enable|disable)", Kubeflow._enable),
    ("GET", "pipelines", Kubeflow._list_pipelines),
]


def _checked(given: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """What is given, if it has only fields of the API's model."""
    known = set(model.attribute_map.values())
    for name in given:
        if name not in known:
            raise Refused(400, f'unknown field "{name}" in {model.__name__}')
    return {name: value for name, value in given.items() if value is not None}


def _found(items: Mapping[str, Any], kind: str, identity: str) -> Any:
    if identity not in items:
        raise Refused(404, f"ResourceNotFoundError: {kind} {identity} not found")
    return items[identity]


def _spec_and_platform(
    given: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The two documents that a compiled file can have."""
    if "pipeline_spec" in given:
        return dict(given["pipeline_spec"]), given.get("platform_spec") or None
    return dict(given), None


def _listing(
    key: str, items: list[dict[str, Any]], request: Request, keys: Mapping[str, str]
) -> Answer:
    query = request.query
    for predicate in _predicates(query.get("filter", "")):
        items = [item for item in items if _holds(item, predicate, keys)]
    name, _, direction = query.get("sort_by", "").partition(" ")
    if name:
        if name not in keys:
            raise Refused(400, f"Invalid input error: Invalid sorting field: {name}")
        items = sorted(
            items, key=lambda item: str(item.get(keys[name], "")), reverse=direction == "desc"
        )
    size = int(query.get("page_size") or 0) or 20
    chosen, following = page(items, size, query.get("page_token", ""), at_most=200)
    body: dict[str, Any] = {key: list(chosen), "total_size": len(items)}
    if following:
        body["next_page_token"] = following
    return Answer(body)


def _predicates(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    try:
        found = json.loads(unquote(text))["predicates"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, f"Invalid input error: failed to parse the filter {text!r}.") from error
    return list(found)


def _holds(item: Mapping[str, Any], predicate: Mapping[str, Any], keys: Mapping[str, str]) -> bool:
    key, operation = predicate.get("key", ""), str(predicate.get("operation", ""))
    if key not in keys:
        raise Refused(400, f"Invalid input error: unrecognized key {key} in the filter.")
    names = ("string_value", "stringValue", "timestamp_value", "timestampValue")
    value: Any = next((predicate[name] for name in names if name in predicate), None)
    values = predicate.get("string_values") or predicate.get("stringValues") or {}
    found = str(item.get(keys[key], ""))
    match operation:
        case "EQUALS" | "1":
            return found == value
        case "NOT_EQUALS" | "2":
            return found != value
        case "GREATER_THAN" | "3":
            return found > value
        case "GREATER_THAN_EQUALS" | "5":
            return found >= value
        case "LESS_THAN" | "4":
            return found < value
        case "LESS_THAN_EQUALS" | "6":
            return found <= value
        case "IN" | "7":
            return found in values.get("values", ())
        case "IS_SUBSTRING" | "8":
            return str(value) in found
    raise Refused(400, f"Invalid input error: unknown operation {operation!r} in the filter.")


def _check_trigger(trigger: Mapping[str, Any]) -> None:
    cron, periodic = trigger.get("cron_schedule"), trigger.get("periodic_schedule")
    if bool(cron) == bool(periodic):
        raise Refused(400, "Invalid input error: a trigger must be a cron or a periodic schedule.")
    if cron:
        given = _checked(cron, kfp_server_api.V2beta1CronSchedule)
        fields = given.get("cron", "").split()
        try:
            if len(fields) != 6:
                raise CronSimError("Expected 6 fields, seconds first")
            CronSim(_expression(given["cron"]), datetime.datetime.now(datetime.UTC))
        except CronSimError as error:
            raise Refused(
                400,
                f"Invalid input error: Schedule cron is not a supported format "
                f"{given.get('cron')!r}: {error}.",
            ) from error
    elif int(periodic.get("interval_second") or 0) < 1:
        raise Refused(400, "Invalid input error: interval_second must be at least 1.")


def _expression(cron: str) -> str:
    return cron.replace("?", "*")


def _moments(trigger: Mapping[str, Any], after: datetime.datetime) -> Iterator[datetime.datetime]:
    """The moments at which something is due, after another one."""
    about = trigger.get("cron_schedule") or trigger["periodic_schedule"]
    start, end = _time(about.get("start_time")), _time(about.get("end_time"))
    if start is not None:
        after = max(after, start - datetime.timedelta(microseconds=1))
    for moment in _all_moments(about, after):
        if end is not None and moment > end:
            return
        if moment > after:
            yield moment


def _all_moments(about: Mapping[str, Any], after: datetime.datetime) -> Iterator[datetime.datetime]:
    if "cron" in about:
        yield from CronSim(_expression(about["cron"]), after.astimezone(datetime.UTC))
        return
    step = datetime.timedelta(seconds=int(about["interval_second"]))
    while True:
        after = after + step
        yield after


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
