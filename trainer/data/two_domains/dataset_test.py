import pickle

import pytest

from trainer import catalog
from trainer.data.image_folder import sample as image_folder
from trainer.data.mnist.dataset import open_dataset as open_mnist
from trainer.data.svhn.dataset import open_dataset as open_svhn
from trainer.data.two_domains.dataset import open_dataset, recognises
from trainer.data.two_domains.sample import write_sample
from trainer.errors import UserError


def test_the_items_of_a_come_before_those_of_b(tmp_path):
    write_sample(tmp_path)
    dataset = open_dataset(tmp_path)
    mnist, svhn = open_mnist(tmp_path / "A"), open_svhn(tmp_path / "B")
    assert dataset.splits == {"train": 80, "test": 40}
    assert dataset.class_names[3] == "A/3" and dataset.class_names[13] == "B/3"
    assert dataset.key("train", 7) == f"A/{mnist.key('train', 7)}"
    assert dataset.read("train", 7) == mnist.read("train", 7)
    assert dataset.key("test", 21) == f"B/{svhn.key('test', 1)}"
    other = svhn.read("test", 1)
    assert dataset.read("test", 21) == {"image": other["image"], "label": other["label"] + 10}


def test_the_evaluation_split_of_each_is_the_test_of_both(tmp_path):
    for domain in "AB":
        image_folder.write_sample(tmp_path / domain)
    dataset = open_dataset(tmp_path)
    assert dataset.splits == {"train": 48, "test": 24}
    assert {dataset.key("test", i).split("/")[1] for i in range(24)} == {"val"}


def test_domains_with_other_classes_are_refused(tmp_path):
    write_sample(tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "A").symlink_to(tmp_path / "one" / "A")
    image_folder.write_sample(tmp_path / "two" / "B")
    assert recognises(tmp_path / "two")
    with pytest.raises(UserError, match=r"same classes.*'0' only in A, 'n01440764' only in B"):
        open_dataset(tmp_path / "two")


def test_two_domains_are_no_domain(tmp_path):
    write_sample(tmp_path / "A")
    write_sample(tmp_path / "B")
    with pytest.raises(UserError, match=r"whose pictures have a class.*is one of two_domains"):
        open_dataset(tmp_path)


def test_it_can_be_sent_to_another_process(tmp_path):
    write_sample(tmp_path)
    name, dataset = catalog.open_dataset(tmp_path)
    assert name == "two_domains"
    sent = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    assert [sent.read("train", i) for i in (0, 79)] == [dataset.read("train", i) for i in (0, 79)]
