"""The steps that the pipelines are made of, most of them as cheap as a shell is."""

from typing import NamedTuple, Optional

from kfp import dsl

IMAGE = "python:3.11"
_WRITE = 'printf %s "$0" > "$1"'


@dsl.container_component
def say(text: str, said: dsl.OutputPath(str)):
    """Gives the text that it takes."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[text, said])


@dsl.container_component
def join(one: str, other: str, said: dsl.OutputPath(str)):
    """Says two texts."""
    script = 'printf %s-%s "$0" "$1" > "$2"'
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", script], args=[one, other, said])


@dsl.container_component
def give_integer(value: int, given: dsl.OutputPath(int)):
    """Gives the number that it takes."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[value, given])


@dsl.container_component
def give_number(value: float, given: dsl.OutputPath(float)):
    """Gives the number that it takes."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[value, given])


@dsl.container_component
def give_flag(value: bool, given: dsl.OutputPath(bool)):
    """Gives the truth value that it takes."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[value, given])


@dsl.container_component
def give_list(value: list, given: dsl.OutputPath(list)):
    """Gives the list that it takes."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[value, given])


@dsl.container_component
def give_object(value: dict, given: dsl.OutputPath(dict)):
    """Gives the object that it takes."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[value, given])


@dsl.container_component
def say_or_default(said: dsl.OutputPath(str), text: str = "default"):
    """Says the text, or what it has instead."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[text, said])


@dsl.container_component
def say_wrongly(text: str, given: dsl.OutputPath(int)):
    """Gives a text, whatever it is, as its integer."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[text, given])


@dsl.container_component
def say_a_number_wrongly(text: str, given: dsl.OutputPath(float)):
    """Gives a text, whatever it is, as its number."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[text, given])


@dsl.container_component
def write_page(text: str, page: dsl.Output[dsl.Artifact]):
    """Writes the text to an artifact."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[text, page.path])


@dsl.container_component
def read_page(page: dsl.Input[dsl.Artifact], said: dsl.OutputPath(str)):
    """Says what an artifact holds."""
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-c", 'cat "$0" > "$1"'], args=[page.path, said]
    )


@dsl.container_component
def leave(text: str, said: dsl.OutputPath(str), code: int = 0):
    """Says the text and leaves with an exit code."""
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-c", _WRITE + '; exit "$2"'], args=[text, said, code]
    )


@dsl.container_component
def say_nothing(said: dsl.OutputPath(str)):
    """Ends well without its output."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", "exit 0"], args=[said])


@dsl.container_component
def be_killed():
    """Is ended by a signal."""
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", "kill -TERM $$; sleep 10"])


@dsl.container_component
def sleep(seconds: float, name: str = ""):
    """Takes a while."""
    return dsl.ContainerSpec(image=IMAGE, command=["sleep", seconds])


@dsl.container_component
def bare():
    """Has a command and no arguments."""
    return dsl.ContainerSpec(image=IMAGE, command=["true"])


@dsl.container_component
def options(
    said: dsl.OutputPath(str),
    word: Optional[str] = None,  # noqa: UP045  KFP knows no other way to write it
    page: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
    always: str = "default",
):
    """Says its arguments, one to a line, of which some depend on what it was given."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-c", 'target="$0"; printf "%s\\n" "$@" > "$target"'],
        args=[
            said,
            dsl.IfPresentPlaceholder("word", then=["--word", word], else_=["--without"]),
            dsl.IfPresentPlaceholder("page", then="--page"),
            dsl.ConcatPlaceholder(["<", always, ">"]),
        ],
    )


@dsl.container_component
def fail_twice(count: str, said: dsl.OutputPath(str)):
    """Notes the time of each attempt, fails at the first two, and says all times at the third."""
    script = 'date +%s.%N >> "$0"; test $(wc -l < "$0") -gt 2 && cat "$0" > "$1"'
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", script], args=[count, said])


@dsl.container_component
def variables(said: dsl.OutputPath(str)):
    """Says what two environment variables hold."""
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["sh", "-c", 'printf "%s %s" "$GREETING" "$PASSWORD" > "$0"'],
        args=[said],
    )


@dsl.container_component
def say_where(said: dsl.OutputPath(str)):
    """Says the names of the task and of the run."""
    where = f"{dsl.PIPELINE_TASK_NAME_PLACEHOLDER} of {dsl.PIPELINE_JOB_NAME_PLACEHOLDER}"
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c", _WRITE], args=[where, said])


@dsl.container_component
def leave_in_workspace(folder: str):
    """Leaves a file where other tasks of the run find it."""
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-c", 'printf shared > "$0/file"'], args=[folder]
    )


@dsl.container_component
def find_in_workspace(folder: str, said: dsl.OutputPath(str)):
    """Says what another task has left."""
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-c", 'cat "$0/file" > "$1"'], args=[folder, said]
    )


@dsl.component(base_image=IMAGE, packages_to_install=[])
def pass_all(
    integer: int, number: float, flag: bool, text: str, items: list, table: dict
) -> NamedTuple(
    "Values",
    [
        ("integer", int),
        ("number", float),
        ("flag", bool),
        ("text", str),
        ("items", list),
        ("table", dict),
    ],
):
    """Gives what it takes, after a look at the types."""
    given = (integer, number, flag, text, items, table)
    wanted = (int, (int, float), bool, str, list, dict)
    for value, kind in zip(given, wanted, strict=True):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is no {kind}")
    return given


@dsl.component(base_image=IMAGE)
def total(numbers: list) -> int:
    """The sum of whole numbers, which have to be whole numbers."""
    if not all(type(number) is int for number in numbers):
        raise TypeError(f"whole numbers are wanted; got {numbers!r}")
    return sum(numbers)


@dsl.component(base_image=IMAGE)
def shown(value: list) -> str:
    """A list as Python writes it."""
    return repr(value)


@dsl.component(base_image=IMAGE)
def join_pages(pages: dsl.Input[list[dsl.Artifact]]) -> str:
    """The content of artifacts in their order."""
    texts = []
    for page in pages:
        with open(page.path, encoding="utf-8") as file:
            texts.append(file.read())
    return " ".join(texts)


@dsl.component(base_image=IMAGE)
def say_how_it_ended(status: dsl.PipelineTaskFinalStatus, word: str = "") -> str:
    """What an exit task is told, as JSON."""
    import json

    return json.dumps(
        {
            "state": status.state,
            "task": status.pipeline_task_name,
            "job": status.pipeline_job_resource_name,
            "code": status.error_code,
            "message": status.error_message,
            "word": word,
        }
    )


@dsl.component(base_image=IMAGE)
def measure(
    metrics: dsl.Output[dsl.Metrics],
    classes: dsl.Output[dsl.ClassificationMetrics],
    page: dsl.Output[dsl.HTML],
    notes: dsl.Output[dsl.Markdown],
    model: dsl.Output[dsl.Model],
    table: dsl.OutputPath("Dataset"),
    word: dsl.OutputPath(str),
):
    """Gives one artifact of each kind."""
    metrics.log_metric("accuracy", 0.75)
    metrics.log_metric("records", 12)
    classes.log_confusion_matrix(["cat", "dog"], [[3, 1], [0, 4]])
    for artifact, text in ((page, "<p>Ünï</p>"), (notes, "# A 'title'")):
        with open(artifact.path, "w", encoding="utf-8") as file:
            file.write(text)
    model.metadata["framework"] = "keras"
    model.metadata["layers"] = [1, {"units": 2.5}]
    with open(model.path, "w", encoding="utf-8") as file:
        file.write("weights")
    with open(table, "w", encoding="utf-8") as file:
        file.write("a,b")
    with open(word, "w", encoding="utf-8") as file:
        file.write("a word")


@dsl.component(base_image=IMAGE)
def inspect_artifacts(
    metrics: dsl.Input[dsl.Metrics],
    model: dsl.Input[dsl.Model],
    table: dsl.InputPath("Dataset"),
    word: str,
) -> str:
    """What came with artifacts, as JSON."""
    import json

    with open(table, encoding="utf-8") as file:
        content = file.read()
    return json.dumps(
        {
            "accuracy": metrics.metadata["accuracy"],
            "model": model.metadata,
            "type": type(model).__name__,
            "table": content,
            "word": word,
        }
    )


@dsl.component(base_image=IMAGE)
def optional_values(
    word: Optional[str] = None,  # noqa: UP045
    number: Optional[int] = None,  # noqa: UP045
    items: list = [1, 2],  # noqa: B006  KFP makes it JSON; nothing mutates it
    page: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
) -> str:
    """Its inputs as Python writes them."""
    return repr((word, number, items, page))


@dsl.component(base_image=IMAGE)
def measure_nothing(metrics: dsl.Output[dsl.Metrics]):
    """Divides nothing by nothing."""
    metrics.log_metric("loss", float("nan"))


@dsl.component(base_image=IMAGE)
def show_metadata(data: dsl.Input[dsl.Dataset]) -> str:
    """What is known of an artifact, as JSON."""
    import json

    return json.dumps(data.metadata)


@dsl.container_component
def show_framework(model: dsl.Input[dsl.Model], said: dsl.OutputPath(str)):
    """Says an entry of an artifact's metadata."""
    return dsl.ContainerSpec(
        image=IMAGE, command=["sh", "-c", _WRITE], args=[model.metadata["framework"], said]
    )


@dsl.component(base_image=IMAGE)
def return_data() -> dsl.Dataset:
    """Gives an artifact that it has put into a place of its own choice."""
    from pathlib import Path

    data = dsl.Dataset(uri=dsl.get_uri("own"), metadata={"rows": 1})
    Path(data.path).parent.mkdir(parents=True, exist_ok=True)
    Path(data.path).write_text("chosen", encoding="utf-8")
    return data


@dsl.component(base_image=IMAGE)
def return_text() -> dsl.Dataset:
    """Gives an artifact by its content."""
    return "content"
