from trainer.data.imagenet.synsets import WNID, class_names

WORDS = {
    "n02012849": "crane",
    "n03126707": "crane",
    "n01440764": "tench, Tinca tinca",
    "n03710637": "maillot",
    "n03710721": "maillot, tank suit",
    "n02113186": "Cardigan, Cardigan Welsh corgi",
    "n02963159": "cardigan",
    "n00000001": " , nothing",
}


def test_the_first_synonym_is_the_name():
    assert class_names(["n01440764", "n02012849"], WORDS) == ("tench", "crane")


def test_names_that_classes_share_get_the_id():
    names = class_names(sorted(WORDS), WORDS)
    assert len(set(names)) == len(WORDS)
    assert names == (
        "n00000001",
        "tench",
        "crane (n02012849)",
        "Cardigan",
        "cardigan",
        "crane (n03126707)",
        "maillot (n03710637)",
        "maillot (n03710721)",
    )


def test_classes_without_words_are_named_by_their_id():
    assert class_names(["n01440764", "n00000002"], {}) == ("n01440764", "n00000002")


def test_ids_have_eight_digits():
    assert WNID.fullmatch("n01440764")
    for other in ("n1440764", "v01440764", "n01440764x", "n01440764.tar", "train"):
        assert not WNID.fullmatch(other)
