import dataclasses
from typing import Literal

import pytest

from trainer.config import DatasetFacts, parse_settings, suited_to, with_settings
from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Config:
    variant: Literal["small", "large"] = "small"
    epochs: int = 3
    rate: float = 0.1
    flip: bool = True
    widths: tuple[int, ...] = (4, 2)
    clip: float | None = None
    sides: tuple[Literal["left", "right"], ...] = ("left",)
    num_classes: int = 10

    def suited_to(self, facts: DatasetFacts) -> dict[str, object]:
        return {"num_classes": len(facts.class_names)}


def test_text_becomes_the_type_of_its_field() -> None:
    text = {
        "variant": "large",
        "epochs": "1_000",
        "rate": "1e-3",
        "flip": "false",
        "widths": "8,4,2",
        "clip": "0.5",
        "sides": "right, left",
    }
    wanted = Config("large", 1000, 1e-3, False, (8, 4, 2), 0.5, ("right", "left"))
    assert with_settings(Config(), text) == wanted


def test_tuples_may_be_written_in_several_ways() -> None:
    for text in ("right", "('right',)", "['right']", ["right"], ("right",)):
        assert with_settings(Config(), {"sides": text}).sides == ("right",)
    assert with_settings(Config(), {"widths": "()"}).widths == ()
    with pytest.raises(UserError, match="sides must be one of left, right; got 'top'"):
        with_settings(Config(), {"sides": "left,top"})


def test_what_json_gives_back_is_the_same_config() -> None:
    config = Config(widths=(1,), clip=2.0)
    values = {**dataclasses.asdict(config), "widths": [1], "epochs": 3.0}
    assert with_settings(Config(), values) == config
    assert with_settings(Config(clip=1.0), {"clip": "none"}).clip is None
    assert with_settings(Config(), {"widths": "7"}).widths == (7,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": "2"}, "got 'epoch'. Did you mean 'epochs'?"),
        ({"epochs": "two"}, "epochs must be of type int; got 'two'"),
        ({"epochs": "2.5"}, "epochs must be of type int; got '2.5'"),
        ({"epochs": True}, "epochs must be of type int; got True"),
        ({"epochs": "0"}, "epochs must be at least 1; got 0"),
        ({"flip": "perhaps"}, "flip must be of type bool; got 'perhaps'"),
        ({"variant": "huge"}, "variant must be one of small, large; got 'huge'"),
        ({"widths": "a,b"}, "widths must be of type"),
        ({"widths": "1,x"}, "widths must be of type"),
    ],
)
def test_a_setting_that_does_not_fit_is_the_users_to_mend(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as error:
        with_settings(Config(), settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_dataset_decides_what_is_not_set_by_hand() -> None:
    facts = DatasetFacts(("a", "b"), 100, 32)
    assert suited_to(Config(), facts, {}).num_classes == 2
    assert suited_to(Config(num_classes=7), facts, {"num_classes": "7"}).num_classes == 7


@pytest.mark.parametrize(
    ("examples", "size"), [(0, 1), (16, 1), (47, 2), (64, 4), (2047, 64), (2048, 128), (10**6, 128)]
)
def test_batches_are_powers_of_two_that_leave_16_steps_an_epoch(examples: int, size: int) -> None:
    assert DatasetFacts((), examples, 32).batch_size_up_to(128) == size


def test_pairs_must_have_a_key_and_a_value() -> None:
    assert parse_settings(["epochs=2", "note = a=b"]) == {"epochs": "2", "note": "a=b"}
    for wrong in ("epochs", "=2"):
        with pytest.raises(UserError, match="must look like key=value"):
            parse_settings([wrong])
