import pytest

from container_train.data import labels


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["001.Affenpinscher", "017.Beagle", "133.Pug"], ["Affenpinscher", "Beagle", "Pug"]),
        (["0-cat", "1-dog"], ["cat", "dog"]),
        (["1 cat", "2 dog", "3 emu"], ["cat", "dog", "emu"]),
        (["01_cat", "03_dog"], ["cat", "dog"]),  # padded: one may be missing
        (["1-cat", "3-dog"], None),  # neither padded nor counting
        (["0-2", "3-9", "10-19", "20-29"], None),
        (["0.5mm", "1.6mm"], None),
        (["727-200", "737-200", "737-300"], None),
        (["10", "11"], None),
        (["1.cat", "2.dog", "emu"], None),  # not each has one
        (["01.red", "02.red"], None),  # what is left would be one class
        (["1.cat", "1.dog"], None),
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], None),
        (["7up", "8ball"], None),
        ([], []),
    ],
)
def test_only_a_running_number_is_left_out(folders: list[str], expected: list[str] | None) -> None:
    assert labels.labels(folders) == tuple(folders if expected is None else expected)


def test_the_class_of_a_folder_is_known_by_its_label() -> None:
    assert labels.class_of("02.cat", ["cat", "dog"]) == "cat"
    assert labels.class_of("0-2", ["0-2", "2"]) == "0-2"
    assert labels.class_of("02.emu", ["cat", "dog"]) is None


def test_natural_order() -> None:
    assert sorted(["10.a", "9.b", "2.c", "1.d"], key=labels.natural) == ["1.d", "2.c", "9.b", "10.a"]
    assert sorted(["x10", "x9", "5", "a"], key=labels.natural) == ["5", "a", "x9", "x10"]
    assert sorted(["²", "1", "x"], key=labels.natural) == ["1", "x", "²"]


def test_the_order_of_names_is_the_same_wherever_they_are_listed() -> None:
    for names in (["Cat", "cat"], ["01", "1"]):
        assert sorted(names, key=labels.natural) == sorted(reversed(names), key=labels.natural)


def test_folders_of_splits_have_several_names() -> None:
    assert labels.split_folders(["training", "validation", "other"]) == {"train": "training", "valid": "validation"}
    with pytest.raises(ValueError, match="valid and validation are both taken for valid"):
        labels.split_folders(["train", "valid", "validation"])
