import pytest

from pipelines import catalog
from trainer.catalog import model_names
from trainer.errors import UserError


def test_every_model_has_a_pipeline():
    assert catalog.names() == model_names()


def test_another_name_is_refused():
    with pytest.raises(UserError, match=r"autoencoder.*got 'training'"):
        catalog.load("training")
