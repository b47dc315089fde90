import pytest

from container_train import labels


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("017.Beagle", "Beagle"),
        ("3-cat", "cat"),
        ("10", "10"),
        ("n02085620-Chihuahua", "n02085620-Chihuahua"),
        ("7up", "7up"),
    ],
)
def test_label(folder: str, label: str) -> None:
    assert labels.label(folder) == label


def test_natural_order() -> None:
    assert sorted(["10.a", "9.b", "2.c", "1.d"], key=labels.natural) == ["1.d", "2.c", "9.b", "10.a"]
    assert sorted(["x10", "x9", "5", "a"], key=labels.natural) == ["5", "a", "x9", "x10"]
    assert sorted(["²", "1", "x"], key=labels.natural) == ["1", "x", "²"]
