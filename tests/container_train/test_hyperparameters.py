import pytest

from container_train.errors import TrainError
from container_train.hyperparameters import OPTIONS, parse


def test_defaults_are_the_classic_recipe() -> None:
    hp = parse([])
    assert (hp.arch, hp.weights, hp.freeze_until, hp.optimizer) == ("resnet50", "DEFAULT", "backbone", "adam")
    assert (hp.lr, hp.batch_size) == (0.001, 64)
    assert set(hp.to_dict()) == set(OPTIONS)


def test_values_as_the_toolkit_writes_them() -> None:
    hp = parse(["--batch_size", "32.0", "--lr", "1e-2", "--feature-cache", "True", "--amp", "False"])
    assert (hp.batch_size, hp.lr, hp.feature_cache, hp.amp) == (32, 0.01, "on", "off")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", "0", "a whole number from 1 to 10000"),
        ("epochs", "two", "a whole number"),
        ("batch-size", "1.5", "a whole number"),
        ("lr", "0", "a number above 0"),
        ("lr", "nan", "a number above 0"),
        ("lr", "1e999", "a number above 0"),
        ("optimizer", "rmsprop", "one of adam, adamw, sgd"),
        ("augment", "", "one of none, flip, crop"),
        ("arch", "resnet5", "did you mean resnet50"),
        ("workers", "-2", "from -1 to 256"),
    ],
)
def test_a_bad_value_names_key_value_and_expectation(name: str, value: str, expected: str) -> None:
    with pytest.raises(TrainError) as raised:
        parse([f"--{name}", value])
    assert name in str(raised.value)
    assert repr(value) in str(raised.value)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("name", "guess"),
    [("learning-rate", "lr"), ("batchsize", "batch-size"), ("epoch", "epochs"), ("wieghts", "weights")],
)
def test_an_unknown_name_is_refused_with_a_guess(name: str, guess: str) -> None:
    with pytest.raises(TrainError, match=rf"unknown hyperparameter {name} \(value '7'\): did you mean {guess}\?"):
        parse([f"--{name}", "7"])


def test_names_are_not_abbreviated() -> None:
    with pytest.raises(TrainError, match="unknown hyperparameter batch "):
        parse(["--batch", "7"])


def test_a_name_without_a_value_is_refused() -> None:
    with pytest.raises(TrainError, match="lr"):
        parse(["--lr"])
