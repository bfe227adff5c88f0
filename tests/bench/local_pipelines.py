"""Pipelines for the benchmark of the local runner, in KFP's DSL."""

from kfp import dsl

IMAGE = "paper2hub/data:0.1.0"
"""Any image with Python in it; used with --docker alone."""


@dsl.component(base_image="python:3.11")
def wait(seconds: float) -> float:
    import time

    time.sleep(seconds)
    return seconds


@dsl.component(base_image="python:3.11")
def echo(number: int) -> int:
    return number


@dsl.container_component
def leave(code: int) -> dsl.ContainerSpec:
    """A container that exits at once."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", 'exit "$0"'], args=[code])


@dsl.container_component
def make(
    number: int, numbers: dsl.Output[dsl.Dataset], total: dsl.OutputPath(int)
) -> dsl.ContainerSpec:
    """Writes a folder whose content follows from the number, a little at a time."""
    program = (
        "import random, sys, time; from pathlib import Path\n"
        "number, folder, total = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "values = random.Random(number)\n"
        "for part in range(4):\n"
        "    (folder / f'{part}.bin').write_bytes(values.randbytes(50_000)); time.sleep(0.04)\n"
        "total.write_text(str(number * 10))\n"
    )
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["python3", "-c", program],
        args=[number, numbers.path, total],
    )


@dsl.container_component
def join(
    first: int,
    left: dsl.Input[dsl.Dataset],
    right: dsl.Input[dsl.Dataset],
    joined: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> dsl.ContainerSpec:
    """Writes one file out of two folders, and a metric."""
    program = (
        "import hashlib, json, sys, time; from pathlib import Path\n"
        "first, left, right, joined, message = sys.argv[1:]\n"
        "files = [f for d in (left, right) for f in sorted(Path(d).iterdir())]\n"
        "data = b''.join(f.read_bytes() for f in files)\n"
        "time.sleep(0.15); Path(joined).parent.mkdir(parents=True, exist_ok=True)\n"
        "Path(joined).write_bytes(data); outputs = json.loads(message)['outputs']\n"
        "metrics = outputs['artifacts']['metrics']['artifacts'][0]\n"
        "metrics['metadata'] = {'bytes': len(data), 'first': int(first)}\n"
        "Path(outputs['outputFile']).write_text(json.dumps(\n"
        "    {'artifacts': {'metrics': {'artifacts': [metrics]}}}))\n"
    )
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["python3", "-c", program],
        args=[first, left.path, right.path, joined.path, "{{$}}"],
    )


@dsl.container_component
def ignore_signals() -> dsl.ContainerSpec:
    """A container that does not end when asked to."""
    script = 'trap "" TERM; echo started; while true; do sleep 1; done'
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", script])


@dsl.pipeline(name="stubborn")
def stubborn() -> None:
    ignore_signals()
    ignore_signals()


@dsl.pipeline(name="two-waits")
def two_waits(seconds: float = 3.0) -> None:
    wait(seconds=seconds).set_caching_options(False)
    wait(seconds=seconds).set_caching_options(False)


@dsl.pipeline(name="fan-out")
def fan_out(numbers: list = list(range(200))) -> None:  # noqa: B006
    with dsl.ParallelFor(numbers) as number:
        echo(number=number).set_caching_options(False)


@dsl.pipeline(name="exit-codes")
def exit_codes(codes: list = [0, 1]) -> None:  # noqa: B006
    with dsl.ParallelFor(codes) as code:
        leave(code=code).set_caching_options(False)


@dsl.pipeline(name="diamonds")
def diamonds(numbers: list = [1, 2, 3]) -> None:  # noqa: B006
    """Stages with data, a loop and a metric; the same whenever it runs."""
    with dsl.ParallelFor(numbers) as number:
        left = make(number=number)
        right = make(number=left.outputs["total"])
        join(
            first=right.outputs["total"],
            left=left.outputs["numbers"],
            right=right.outputs["numbers"],
        )


@dsl.pipeline(name="branches")
def branches(number: int = 7, text: str = "it's ok") -> None:
    """Conditions on a value and on a text with a quote."""
    first = make(number=number)
    with dsl.If(first.outputs["total"] > 50):
        second = make(number=1)
        with dsl.If(text == "it's ok"):
            join(
                first=second.outputs["total"],
                left=first.outputs["numbers"],
                right=second.outputs["numbers"],
            )
    with dsl.Else():
        make(number=2)
