import pytest

from pipelines.training import Machine, training_pipeline
from trainer.errors import UserError


@pytest.mark.parametrize("choice", [{"accelerator": "NVIDIA_L4"}, {"accelerators": 1}])
def test_a_kind_of_accelerator_needs_a_number_of_them(choice):
    with pytest.raises(ValueError, match="or neither"):
        Machine(cpu="1", memory="1G", **choice)


def test_an_unknown_target_is_refused():
    with pytest.raises(UserError, match="local, kubeflow, vertex; got 'moon'"):
        training_pipeline("autoencoder", dataset="", description="", target="moon")
