import subprocess
import sys

import pytest

from container_serve import __version__
from container_train.command_line import parse
from container_train.errors import TrainError
from container_train.hyperparameters import NOT_IN_FINGERPRINT, OPTIONS
from container_train.training.recipes import RECIPES


def test_defaults_are_the_classic_recipe() -> None:
    hp = parse([])
    assert (hp.arch, hp.weights, hp.freeze_until, hp.optimizer) == ("resnet50", "DEFAULT", "backbone", "adam")
    assert (hp.lr, hp.batch_size) == (0.001, 64)
    assert set(hp.to_dict()) == set(OPTIONS)


def test_a_recipe_is_other_defaults_and_what_is_given_takes_precedence() -> None:
    recipe = RECIPES["finetune"]
    found = parse(["--recipe", "finetune"]).to_dict()
    assert {name: found[name] for name in recipe} == recipe
    plain = parse([]).to_dict()
    assert {name: found[name] for name in found if name not in {*recipe, "recipe"}} == {
        name: plain[name] for name in plain if name not in {*recipe, "recipe"}
    }
    words = [word for name in recipe for word in (f"--{name}", str(plain[name]))]  # given, and equal to the default
    assert parse(["--recipe", "finetune", *words]).to_dict() == {**plain, "recipe": "finetune"}
    assert parse(["--recipe", "finetune", "--mixup", "0.5"]).mixup == 0.5


def test_every_value_of_a_recipe_is_one_that_can_be_given() -> None:
    for recipe, values in RECIPES.items():
        words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
        assert parse(["--recipe", recipe]) == parse(["--recipe", recipe, *words])


def test_a_schedule_makes_the_epochs_part_of_a_checkpoint() -> None:
    assert "epochs" not in parse([]).identity()
    assert parse(["--recipe", "finetune"]).identity()["epochs"] == 25
    assert parse(["--lr-schedule", "cosine"]).identity()["epochs"] == 10


def test_a_frozen_backbone_leaves_no_images_to_cut() -> None:
    with pytest.raises(TrainError, match="cutmix has value 1: a frozen backbone leaves no images to cut; use mixup"):
        parse(["--cutmix", "1"])
    assert parse(["--recipe", "finetune", "--freeze-until", "backbone"]).cutmix == 0


def test_values_as_the_toolkit_writes_them() -> None:
    hp = parse(["--batch_size", "32.0", "--lr", "1e-2", "--feature-cache", "True", "--amp", "False"])
    assert (hp.batch_size, hp.lr, hp.feature_cache, hp.amp) == (32, 0.01, "on", "off")
    names = ("weights", "freeze-until", "rule", "torch-profile", "track", "class-weights", "augment")
    hp = parse([word for name in names for word in (f"--{name}", "None")])  # an SDK's str() of Python's None
    assert {hp.to_dict()[name] for name in names} == {"none"}
    assert parse(["--batch_size=32", "--weights=IMAGENET1K_V1"]) == parse(
        ["--batch-size", "32", "--weights", "IMAGENET1K_V1"]
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", "0", "an integer from 1 to 10000"),
        ("epochs", "two", "an integer"),
        ("batch-size", "1.5", "an integer"),
        ("lr", "0", "a number above 0"),
        ("lr", "nan", "a number above 0"),
        ("lr", "1e999", "a number above 0"),
        *((name, value, "a") for name in ("epochs", "lr") for value in ("\u0661", "\uff11", "1_0", "+1", "0x1", "1,5")),
        ("epochs", "1e3", "an integer"),
        ("torch-profile", "\u0661:\u0662", "such as 10:20"),
        ("optimizer", "rmsprop", "one of adam, adamw, sgd"),
        ("augment", "", "one of none, flip, crop, trivial"),
        ("recipe", "best", "one of head, views, finetune"),
        ("layer-decay", "0", "a number above 0 and at most 1"),
        ("label-smoothing", "1", "a number from 0 to 0.99"),
        ("select-by", "f1", "one of accuracy, macro-f1"),
        ("arch", "resnet5", "did you mean resnet50"),
        ("workers", "-2", "from -1 to 256"),
        ("debug", "yes", "one of on, off"),
        ("debug-interval", "-1", "an integer from 0"),
        ("on-rule", "end", "one of warn, stop"),
        ("profile-interval", "300", "one of 0, 100, 200, 500, 1000, 5000, 60000"),
        ("profile-interval", "often", "one of 0, 100"),
        ("torch-profile", "20:10", "first and end step such as 10:20, at most 100"),
        ("torch-profile", "0:101", "at most 100"),
        ("torch-profile", "yes", "such as 10:20"),
    ],
)
def test_a_bad_value_names_key_value_and_expectation(name: str, value: str, expected: str) -> None:
    with pytest.raises(TrainError) as raised:
        parse([f"--{name}", value])
    assert name in str(raised.value)
    assert repr(value) in str(raised.value)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("overfitting", r"unknown rule 'overfitting': did you mean overfit\?$"),
        ("loss", "unknown rule 'loss': docs/debugger.md lists all rules$"),
        ("overfit:patient=3", "overfit has no parameter 'patient': it has ratio_threshold, patience"),
        ("step_outlier:stddev=many", "step_outlier:stddev has value 'many': expected a number, such as 3.0"),
        ("overfit:patience=-3", "overfit:patience has value '-3': expected an integer of at least 0, such as"),
        ("overfit:patience", "overfit:patience has value '': expected an integer of at least 0, such as 1"),
        ("batch_size:window=0", "batch_size:window has value '0': expected an integer of at least 1, such as 500"),
        ("gpu_memory_increase:scan_interval_us=0", "gpu_memory_increase:scan_interval_us has value '0': expected an"),
        ("loss_not_decreasing:mode=VALID", "loss_not_decreasing:mode has value 'VALID': expected TRAIN or EVAL$"),
        (
            "overfit:patience=\u0663",
            "overfit:patience has value '\u0663': expected an integer of at least 0, such as 1",
        ),
        ("step_outlier:stddev=nan", "step_outlier:stddev has value 'nan': expected a number, such as 3.0"),
    ],
)
def test_a_bad_rule_names_those_that_exist(value: str, words: str) -> None:
    with pytest.raises(TrainError, match=f"^hyperparameter rule: {words}"):
        parse(["--rule", value])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--weights IMAGENET1K_V9", "weights has value 'IMAGENET1K_V9': .* IMAGENET1K_V2, IMAGENET1K_V1 for resnet50"),
        ("--arch vgg11 --weights IMAGENET1K_V2", "weights has value 'IMAGENET1K_V2': .* IMAGENET1K_V1 for vgg11"),
        ("--freeze-until layer9", "freeze-until has value 'layer9': .* conv1, bn1, layer1, layer2, layer3, layer4"),
        ("--arch vgg11 --freeze-until layer3", "freeze-until has value 'layer3': .* of vgg11"),
        ("--accumulate 9 --batch-size 8", "accumulate has value 9: expected at most the batch-size, 8"),
        ("--resize-size 100 --image-size 224", "resize-size has value 100: expected at least the image-size, 224"),
        ("--image-size 1", "image-size has value 1: expected at least 32 pixels, or 0, which is the size that"),
        ("--resize-size 10", "resize-size has value 10: expected at least the image-size, 224"),
    ],
)
def test_values_that_do_not_go_together_are_named(words: str, expected: str) -> None:
    with pytest.raises(TrainError, match=f"^hyperparameter {expected}"):
        parse(words.split())


def test_values_that_go_together() -> None:
    for words in (
        "--weights None", "--weights DEFAULT --arch vit_b_16", "--freeze-until layer4.2", "--freeze-until none",
        "--resize-size 300", "--image-size 500", "--weights IMAGENET1K_V1 --freeze-until layer4",
    ):  # fmt: skip
        assert parse(words.split())


def test_hyperparameters_are_checked_without_torch() -> None:
    code = (
        "import sys; from container_train.command_line import parse;"
        " parse(['--arch', 'resnet18', '--weights', 'IMAGENET1K_V1', '--rule', 'overfit:patience=3']);"
        " sys.exit(sorted({'torch', 'torchvision', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_debugger_and_profiler() -> None:
    hp = parse([])
    assert (hp.debug, hp.debug_interval, hp.rule, hp.on_rule) == ("on", 0, "none", "warn")
    assert (hp.profile_interval, hp.torch_profile) == (500, "none")
    rule = "vanishing_gradient:threshold=1e-6;low_gpu_utilization:patience=100,window=50"
    words = ["--rule", rule, "--profile_interval", "100.0", "--torch-profile", "10:20", "--debug", "False"]
    hp = parse(words)
    assert (hp.rule, hp.profile_interval, hp.torch_profile, hp.debug) == (rule, 100, "10:20", "off")


def test_what_is_incidental_to_a_checkpoint_are_hyperparameters() -> None:
    assert set(OPTIONS) > NOT_IN_FINGERPRINT
    assert {"lr", "batch-size", "seed", "arch", "freeze-until"}.isdisjoint(NOT_IN_FINGERPRINT)


@pytest.mark.parametrize(
    ("name", "guess"),
    [("learning-rate", "lr"), ("batchsize", "batch-size"), ("epoch", "epochs"), ("wieghts", "weights")],
)
def test_an_unknown_name_is_refused_with_a_guess(name: str, guess: str) -> None:
    with pytest.raises(TrainError, match=rf"^unknown hyperparameter {name} \(value '7'\): did you mean {guess}\?$"):
        parse([f"--{name}", "7"])


def test_an_unknown_name_without_a_close_one_is_refused_with_the_page_that_lists_them() -> None:
    with pytest.raises(TrainError) as raised:
        parse(["--foo", "7"])
    assert str(raised.value) == "unknown hyperparameter foo (value '7'): docs/training.md lists all hyperparameters"


@pytest.mark.parametrize(
    "words", [["--help", ""], ["--h", "x"], ["-h", "2"], ["--lr", "1", "--help", "x"], ["--version", "2"]]
)
def test_a_job_s_hyperparameter_that_asks_for_help_is_unknown(words: list[str]) -> None:
    """It would end well, without a model."""
    with pytest.raises(TrainError, match=r"unknown hyperparameter (h|version)"):
        parse(words)


def test_help_is_there_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    assert "--batch-size" in capsys.readouterr().out


def test_the_version_is_there_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--version"])
    assert capsys.readouterr().out == f"python -m container_train {__version__}\n"


def test_names_are_not_abbreviated() -> None:
    with pytest.raises(TrainError, match="unknown hyperparameter batch "):
        parse(["--batch", "7"])


@pytest.mark.parametrize("word", ["epochs", "-epochs"])
def test_a_name_without_its_dashes_is_told(word: str) -> None:
    with pytest.raises(TrainError, match=rf"^unknown word '{word}': a hyperparameter is given as --epochs VALUE$"):
        parse([word, "5"])


def test_a_hyperparameter_in_two_spellings_is_refused() -> None:
    with pytest.raises(TrainError, match="batch-size is given twice"):
        parse(["--batch-size", "8", "--batch_size", "9"])


def test_a_name_without_a_value_is_refused() -> None:
    with pytest.raises(TrainError, match="lr"):
        parse(["--lr"])


def test_a_warm_up_ends_within_the_training() -> None:
    assert parse(["--recipe", "views", "--epochs", "1"]).warmup_epochs == 0.5
    assert parse(["--recipe", "finetune"]).warmup_epochs == 1.0
    with pytest.raises(TrainError, match=r"warmup-epochs has value 3: expected less than the epochs, 3"):
        parse(["--warmup-epochs", "3", "--epochs", "3"])
