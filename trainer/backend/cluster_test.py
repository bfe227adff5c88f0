import json
import re

import pytest

from trainer.backend.cluster import Cluster, check_rows, choose_count, read_cluster
from trainer.errors import UserError


def environment(kind="worker", index=0, **cluster):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


@pytest.mark.parametrize("text", ["", "  ", "{}", '{"cluster": {}}', '{"environment": "cloud"}'])
def test_without_a_cluster_there_is_one_process(text):
    cluster = read_cluster({"TF_CONFIG": text})
    assert (cluster.processes, cluster.process) == (1, 0)
    assert read_cluster({}) == cluster


def test_workers_are_numbered_in_order():
    cluster = read_cluster(environment("worker", 1, worker=["a:1", "b:2", "c:3"]))
    assert cluster == Cluster(("a:1", "b:2", "c:3"), 1)
    assert cluster.processes == 3


@pytest.mark.parametrize(("kind", "index", "process"), [("chief", 0, 0), ("worker", 1, 2)])
def test_the_chief_comes_first(kind, index, process):
    described = environment(kind, index, worker=["b:2", "c:3"], chief=["a:1"], evaluator=["d:4"])
    assert read_cluster(described) == Cluster(("a:1", "b:2", "c:3"), process)


def test_one_machine_of_vertex_is_one_process():
    text = (
        '{"cluster": {"chief": ["127.0.0.1:2222"]}, "environment": "cloud", '
        '"task": {"cloud": "x", "type": "chief", "index": "0", "trial": ""}}'
    )
    assert read_cluster({"TF_CONFIG": text}) == Cluster(("127.0.0.1:2222",), 0)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"TF_CONFIG": "worker"}, "must be a JSON object .* got 'worker'"),
        ({"TF_CONFIG": "[1]"}, "must be a JSON object"),
        ({"TF_CONFIG": '{"cluster": 1}'}, "must be a JSON object"),
        ({"TF_CONFIG": '{"cluster": {"worker": 3}}'}, "must be a JSON object"),
        (environment(index=None, worker=["a:1"]), "must be a JSON object"),
        (environment(worker=["a:1"], ps=["b:2"]), "also names ps"),
        (environment(index=2, worker=["a:1", "b:2"]), "worker 0, worker 1; got worker 2"),
        (environment("evaluator", worker=["a:1"], evaluator=["b:2"]), "got evaluator 0"),
    ],
)
def test_what_is_wrong_is_told(described, message):
    with pytest.raises(UserError, match=message) as caught:
        read_cluster(described)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "accelerators", "processors", "count"),
    [(0, 0, 1, 1), (0, 0, 2, 1), (2, 0, 2, 2), (0, 4, 1, 4), (2, 4, 1, 2), (1, 4, 1, 1)],
)
def test_how_many_devices(asked, accelerators, processors, count):
    assert choose_count(asked, accelerators, processors) == count


@pytest.mark.parametrize(
    ("accelerators", "processors", "message"),
    [(4, 1, "at most 4, the number of accelerators"), (0, 1, "at most 1, the number of processor")],
)
def test_more_devices_than_there_are(accelerators, processors, message):
    with pytest.raises(UserError, match=message):
        choose_count(5, accelerators, processors)


def test_rows_are_dealt_out_evenly():
    check_rows(12, 3, 2)
    with pytest.raises(UserError, match=re.escape("10, must be a multiple")):
        check_rows(10, 3, 2)
