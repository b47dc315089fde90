"""The search space's file: what it says, and what is wrong with it in one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from container_train.errors import TrainError
from container_train.hyperparameters import OPTIONS
from container_train.training.metrics import NAMES
from container_train.training.recipes import RECIPES
from scripts.aws.errors import CloudError
from scripts.jobs import inputs
from scripts.tuning import space
from scripts.tuning.space import Choice, Range

HEAD = 'objective = "valid_accuracy"\ndirection = "maximise"\n[hyperparameters]\n'
LR = 'lr = { kind = "continuous", low = 0.001, high = 0.1, scaling = "logarithmic" }\n'


def load(tmp_path: Path, text: str) -> space.Space:
    file = tmp_path / "space.toml"
    file.write_text(text)
    return space.load(file)


def test_the_space_of_this_repository() -> None:
    found = space.load()
    assert found.searched == {"lr": Range(0.001, 0.1, logarithmic=True, whole=False), "batch-size": Choice((32, 64))}
    assert found.fixed == {"epochs": 2}
    assert (found.objective, found.direction) == ("valid_accuracy", "maximise")
    assert found.default() == {"lr": OPTIONS["lr"][1], "batch-size": OPTIONS["batch-size"][1]}


def test_the_space_of_the_recipe_finetune() -> None:
    found = space.load(space.FILE.with_name("search_space_finetune.toml"))
    assert set(found.searched) == {"lr", "layer-decay", "weight-decay", "label-smoothing"}
    assert found.fixed["recipe"] == "finetune"
    recipe = RECIPES["finetune"]
    assert found.default() == {name: recipe[name] for name in found.searched}
    assert replace(found, fixed={"recipe": "finetune"}).most_epochs() == recipe["epochs"]


def test_every_metric_of_a_setting_is_an_objective() -> None:
    assert set(space.OBJECTIVES) == set(NAMES) - {"test_accuracy", "epoch", "best_epoch", "images_per_second"}


def test_a_grid_has_both_ends_and_the_scale_between() -> None:
    assert Range(0.001, 0.1, logarithmic=True, whole=False, points=3).grid() == (0.001, 0.01, 0.1)
    assert Range(1, 4, logarithmic=False, whole=True, points=30).grid() == (1, 2, 3, 4)
    assert len(space.load().grid()) == 5 * 2


def test_what_is_given_stands_for_what_is_fixed(tmp_path: Path) -> None:
    found = load(tmp_path, HEAD + LR + 'epochs = { kind = "fixed", value = 2 }')
    assert found.with_fixed({"epochs": "5", "seed": "1"}).fixed == {"epochs": "5", "seed": "1"}
    with pytest.raises(CloudError, match="--lr is in the search space"):
        found.with_fixed({"lr": "0.1"})


def test_files_from_elsewhere(tmp_path: Path) -> None:
    # A default outside of the space is none.
    assert load(tmp_path, HEAD + 'lr = { kind = "continuous", low = 0.01, high = 0.1 }').default() is None
    # As Windows writes it.
    (tmp_path / "s.toml").write_bytes(("\ufeff" + HEAD + LR).replace("\n", "\r\n").encode())
    assert set(space.load(tmp_path / "s.toml").searched) == {"lr"}
    with pytest.raises(CloudError, match="no such file"):
        space.load(tmp_path / "none.toml")


def test_the_digest_knows_what_makes_trials_incomparable(tmp_path: Path) -> None:
    plain = load(tmp_path, HEAD + LR)
    assert load(tmp_path, HEAD + LR.replace(" }", ", points = 9 }")).digest == plain.digest
    assert load(tmp_path, HEAD + LR.replace("0.1", "0.2")).digest != plain.digest
    assert plain.with_fixed({"epochs": "3"}).digest != plain.digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + LR.replace("lr", "learning-rte", 1), "unknown hyperparameter 'learning-rte': docs/training.md lists"),
        (HEAD + LR.replace("lr", "epohcs", 1), "unknown hyperparameter 'epohcs': did you mean epochs"),
        (HEAD + LR.replace("0.1", "0.001"), "lr: the range from 0.001 to 0.001 is empty"),
        (HEAD + LR.replace("0.1", "0.0001"), "lr: the range from 0.001 to 0.0001 is empty"),
        (HEAD + LR.replace("0.001", "0.0"), "lr: low is 0.0, which has no logarithm"),
        (HEAD + LR.replace("0.001", "-1"), "lr: low is -1, which has no logarithm"),
        (HEAD + LR.replace("0.1", "11"), "lr: high is 11: expected a number above 0 and at most 10"),
        (HEAD + LR.replace("0.1", '"much"'), "lr: high is 'much': expected a number"),
        (HEAD + LR.replace("0.1", "inf"), "lr: high is inf: expected a number"),
        (HEAD + LR.replace("continuous", "continous"), "lr: kind has value 'continous': did you mean continuous?"),
        (HEAD + LR.replace("logarithmic", "exp"), "lr: scaling has value 'exp': "),
        (HEAD + LR.replace("high", "hight"), "lr has an unknown key 'hight': did you mean high"),
        (HEAD + 'lr = { kind = "continuous", low = 0.1 }', "lr has no high: expected low and high"),
        (HEAD + LR.replace(" }", ", points = 1 }"), "lr: points is 1: expected an integer from 2 to 30"),
        (HEAD + "lr = 0.1", "lr has value 0.1: expected a table"),
        (HEAD + LR.replace("lr", "batch-size", 1), "batch-size takes whole numbers: kind integer"),
        (HEAD + LR.replace("lr", "optimizer", 1), "optimizer takes words, not numbers: kind categorical"),
        (HEAD + 'epochs = { kind = "integer", low = 1.5, high = 3 }', "epochs: low is 1.5: kind integer takes whole"),
        (HEAD + 'optimizer = { kind = "categorical", values = ["adam", "adamm"] }', "optimizer: values is 'adamm': "),
        (HEAD + 'optimizer = { kind = "categorical", values = ["adam"] }', "expected a list of 2 to 30"),
        (HEAD + 'optimizer = { kind = "categorical", values = ["adam", "adam"] }', "values has 'adam' twice"),
        (HEAD + 'epochs = { kind = "fixed", value = 2 }', "every hyperparameter is fixed"),
        (HEAD + LR + 'epochs = { kind = "fixed", value = 0 }', "epochs: value is 0: expected an integer from 1"),
        (HEAD, "there is no table [hyperparameters]"),
        (HEAD.replace("valid_accuracy", "valid_acuracy") + LR, "objective has value 'valid_acuracy': did you mean"),
        (HEAD.replace("valid_accuracy", "test_accuracy") + LR, "objective has value 'test_accuracy': did you mean"),
        (HEAD.replace("valid_accuracy", "epoch") + LR, "objective has value 'epoch': expected one of valid_accuracy"),
        (HEAD.replace("valid_accuracy", "valid_loss") + LR, "valid_loss is better the other way"),
        (HEAD.replace('direction = "maximise"\n', "") + LR, "the file has no direction"),
        (HEAD.replace('objective = "valid_accuracy"\n', "") + LR, "the file has no objective"),
        (HEAD.replace("maximise", "up") + LR, "direction has value 'up': expected one of maximise, minimise"),
        ("objectiv = 1\n" + HEAD + LR, "the file has an unknown key 'objectiv': did you mean objective?"),
        ("objective = [\n", "cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(CloudError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "space.toml" in str(caught.value)
    assert caught.value.code == 2


def test_words_are_combined_with_what_is_fixed(tmp_path: Path) -> None:
    """An architecture that is searched has to have the module that all trials freeze."""
    words = (
        HEAD
        + LR
        + (
            'arch = { kind = "categorical", values = ["resnet18", "vgg11"] }\n'
            'augment = { kind = "categorical", values = ["none", "flip"] }\n'
            'batch-size = { kind = "categorical", values = [32, 64] }\n'
        )
    )
    found = load(tmp_path, words).with_fixed({"freeze-until": "layer3"}).combinations()
    assert found == [
        {"freeze-until": "layer3", "arch": arch, "augment": augment}
        for arch in ("resnet18", "vgg11")
        for augment in ("none", "flip")
    ]
    inputs.check_together(found[0])
    with pytest.raises(TrainError, match=r"freeze-until has value 'layer3': .* a module of vgg11 before its last"):
        inputs.check_together(found[-1])
