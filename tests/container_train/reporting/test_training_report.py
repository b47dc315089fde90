import json
import re
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from container_serve.preprocess import Preprocessing
from container_train.data import dataset
from container_train.data.duplicates import Leak
from container_train.data.files import Split
from container_train.export import evaluation
from container_train.export.evaluation import Answers
from container_train.paths import SageMakerPaths
from container_train.reporting import activation_map, drawing, mistakes, training_report
from container_train.reporting.learning_charts import curves
from container_train.reporting.mistakes import Tested
from container_train.training import classification
from tests import trees
from tests.browser import Browser
from tests.container_train.profiler import made_up

HYPERPARAMETERS = {"arch": "resnet50", "lr": 0.002, "epochs": 10, "weights": "DEFAULT"}
SPEC = Preprocessing(resize=40, crop=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), interpolation="bilinear")
SHOTS = Path(__file__).resolve().parents[3] / "tests" / "out"  # kept, to be looked at


def pooled(classes: int = 3, side: int = 1) -> nn.Sequential:
    """A network that ends in global pooling, or in pooling to `side` pixels, and a linear layer."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8 * side * side, classes)).eval()


def tried(test: Split, served: npt.NDArray[np.float32], model: nn.Module | None = None) -> Tested:
    """Return the results of a split with these probabilities (N, C)."""
    top = np.argsort(-served, axis=1, kind="stable")[:, : evaluation.TOP]
    own, finite = np.take_along_axis(served, test.targets[:, None], 1)[:, 0], np.ones(len(test), dtype=np.bool_)
    answers = Answers(top, np.take_along_axis(served, top, 1), own, finite)
    return Tested(classification.Confusion.of(test.targets, top[:, 0], served.shape[1]), test, answers, SPEC, model)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("report")
    trees.fill(base / "input" / "data")
    test = dataset.read(SageMakerPaths(base)).splits["test"]
    true = test.targets
    served = np.full((len(true), 3), 0.1, dtype=np.float32)
    called = true.copy()
    called[0] = 2  # one red picture is called blue
    served[np.arange(len(true)), called] = 0.8
    tested = tried(test, served, pooled())
    summary: dict[str, Any] = {
        "test_accuracy": 11 / 12, "valid_accuracy": 0.5, "precision": "int8",
        "accuracy": {"fp32": {"valid": 0.5, "test": 11 / 12}, "int8": {"valid": 0.496, "test": 11 / 12}},
        "quantization": {"reason": "int8 is -0.40 points from fp32 on validation"},
        "classes": ["red", "green", "<b>blue"],
        "images": {"train": 30, "valid": 12, "test": 12}, "skipped": 2, "weights": "none",
        "near_duplicates": [Leak("test", "train", 3, 12, (("test/red/<a>.jpg", "train/red/b.jpg"),)).to_dict()],
        "chance": "NOT BETTER THAN CHANCE: so it is",
        "calibration": classification.calibration(served.max(1), called == true),
        "job": {"job": "dogs-1", "image": "", "ended": 1_795_368_000.0, "data": "0123456789abcdef"},
        "hyperparameters": HYPERPARAMETERS, "best_epoch": 2,
        "per_class": classification.per_class(tested.confusion, trees.LABELS),
        "seconds": {"train": 3.0},
        "epochs": [
            {"epoch": 1, "train_loss": 1.0, "valid_loss": 1.1, "train_accuracy": 0.4, "valid_accuracy": 0.3},
            {"epoch": 2, "train_loss": 0.5, "valid_loss": 0.7, "train_accuracy": 0.8, "valid_accuracy": 0.6},
        ],
    }  # fmt: skip
    (base / "out").mkdir()
    (base / "out" / "rules.json").write_text(
        json.dumps({"final": False, "rules": [asdict(rule) for rule in made_up.SICK]})
    )
    training_report.write(base / "out", summary, tested)
    training_report.write_metrics(base / "out", summary)
    return base / "out"


def test_the_page_says_what_happened(written: Path) -> None:
    page = (written / "report.html").read_text()
    for words in (
        "91.7 %</b><span>test accuracy; 95&nbsp;% interval 65 to 99 %",
        "50.0 %</b><span>validation accuracy; 95&nbsp;% interval 25 to 75 %",
        "Training report: dogs-1",
        "2026-11-22 17:20:00 UTC",
        "data 0123456789ab",
        "NOT BETTER THAN CHANCE: so it is.",
        "<b>Overfit: Validation loss is 34 % above training loss since step 1200.</b>",
        "int8: valid 49.60 % test 91.67 %; int8 is served: int8 is -0.40 points",
        "1 of 4 <b>red</b> as <b>&lt;b&gt;blue</b>; 0 of 4 <b>&lt;b&gt;blue</b> as <b>red</b>",
        'Actual <b class="bad">red</b> (10.0 %)',
        "The model is well calibrated on the whole: its mean confidence is 80.0 %",
        "best epoch, 2",
        "2 skipped",
        "3 of 12 images of test are near-duplicates of images of train",
        "test/red/&lt;a&gt;.jpg and train/red/b.jpg",
        "random weights",
        "What it gets wrong",
        "01.red/000.jpg",
        "&lt;b&gt;blue",
    ):
        assert words in " ".join(page.split()), words
    assert "<td>weights</td><td>none</td>" in page  # what was taken, not what was asked for
    changed, _, folded = page.partition("<summary>2 more have their defaults")
    assert "<td>lr</td><td>0.002</td>" in changed
    assert "<td>epochs</td><td>10</td>" in folded
    assert "<b>blue" not in page.split("</style>")[1].split("<script")[0]
    assert len(page) < 3_000_000


def test_of_a_single_epoch_none_is_the_best_and_no_axis_goes_beyond_all_images(written: Path, tmp_path: Path) -> None:
    facts = json.loads((written / "metrics.json").read_text())
    training_report.write(tmp_path, {**facts, "epochs": facts["epochs"][:1], "best_epoch": 1})
    assert "best epoch" not in (tmp_path / "report.html").read_text()
    for share in (0.0, 0.97, 1.0):
        one = [{"epoch": 1, "train_accuracy": share, "valid_accuracy": share}]
        shown = curves(one, "accuracy").plot.y_range
        assert 0 <= shown.start <= share <= shown.end <= 1
        assert shown.end - shown.start > 0.04


@pytest.mark.parametrize("debug", ["on", "off"])
def test_a_page_that_was_written_before_the_rules_were_judged_says_where_they_are(
    written: Path, tmp_path: Path, debug: str
) -> None:
    facts = json.loads((written / "metrics.json").read_text())
    facts["hyperparameters"]["debug"] = debug
    training_report.write(tmp_path, facts)
    said = "no rule had found anything. Their last look is in profiler-report.html."
    assert (said in (tmp_path / "report.html").read_text()) == (debug == "on")


def test_what_it_says_of_its_probabilities_is_what_the_images_can_show() -> None:
    for right, said in ((54, "well calibrated on the whole"), (40, "overconfident"), (60, "underconfident")):
        found = classification.calibration(np.full(60, 0.9, dtype=np.float32), np.arange(60) < right)
        facts = {"calibration": found, "images": {"test": 60}, "test_accuracy": right / 60}
        assert training_report._trust(facts).startswith(f"The model is {said}: its mean confidence is 90.0 %")


@pytest.mark.parametrize("width", [64, 48])
def test_an_activation_map_is_bright_where_the_class_is(width: int) -> None:
    """A network that adds up red for class 0 and blue for class 1, on an image that is red left and blue right."""
    model = pooled(classes=2)
    convolution, linear = model[0], model[4]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(linear, nn.Linear)
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.bias.zero_()
        convolution.weight[0, 0], convolution.weight[1, 2] = 1.0, 1.0
        linear.weight.zero_()
        linear.weight[0, 0] = linear.weight[1, 1] = 1.0
    image = np.zeros((3, 32, width), np.float32)
    image[0, :, : width // 2], image[2, :, width // 2 :] = 1.0, 1.0
    maps = activation_map.of(model, np.stack([image, image]), [0, 1])
    assert maps is not None
    half = maps.shape[2] // 2
    assert maps[0, :, : half - 1].min() == maps[1, :, half + 1 :].min() == 1
    assert maps[0, :, half + 1 :].max() == maps[1, :, : half - 1].max() == 0
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v3_small", "convnext_tiny", "swin_t", "squeezenet1_1"]
)
def test_networks_that_end_in_global_pooling_have_activation_maps(name: str) -> None:
    model = models.get_model(name, num_classes=5).eval()
    maps = activation_map.of(model, np.random.default_rng(0).standard_normal((2, 3, 96, 96), dtype=np.float32), [1, 4])
    assert maps is not None
    assert maps.shape[0] == 2
    assert 0 <= maps.min() <= maps.max() <= 1


@pytest.mark.parametrize("kind", ["vit", "flat", "slow", "broken"])
def test_where_there_is_no_activation_map_the_report_goes_on(
    kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    images = np.ones((2, 1 if kind == "broken" else 3, 32, 32), np.float32)
    model: nn.Module = pooled(side=4 if kind == "flat" else 1)
    if kind == "vit":
        model = models.VisionTransformer(32, 8, 1, 2, 16, 16, num_classes=3)
        nn.init.normal_(list(model.parameters())[-2])
    elif kind == "slow":
        monkeypatch.setattr(activation_map, "MOST_SECONDS", 0.0)
    assert activation_map.of(model, images, [0, 1]) is None
    assert "activation maps" in caplog.text


def test_the_classes_taken_for_each_other_most_come_first(tmp_path: Path) -> None:
    trees.fill(tmp_path / "input" / "data")
    test = dataset.read(SageMakerPaths(tmp_path)).splits["test"]
    called = np.array([0, 1, 1, 1, 0, 1, 1, 1, 2, 2, 2, 0])  # true are 4 of each
    served = np.full((12, 3), 0.2, dtype=np.float32)
    served[np.arange(12), called] = 0.6
    pairs = mistakes.galleries(tried(test, served), ("red", "green", "blue"))["pairs"]
    assert [(pair["there"], pair["back"]) for pair in pairs] == [
        (("red", "green", 3, 4), ("green", "red", 1, 4)),
        (("blue", "red", 1, 4), ("red", "blue", 0, 4)),
    ]
    shown = [(image["true"][0], image["top"][0][0]) for image in pairs[0]["images"]]
    assert shown == [("red", "green"), ("green", "green")]
    for path in test.paths:  # since they were evaluated
        path.unlink()
    without = mistakes.galleries(tried(test, served), ("red", "green", "blue"))["pairs"]
    assert [pair["there"] for pair in without] == [pair["there"] for pair in pairs]
    assert without[0]["images"][0]["image"] != pairs[0]["images"][0]["image"]


def test_a_mistake_shows_the_probability_of_its_own_class_which_is_not_among_the_first(tmp_path: Path) -> None:
    trees.fill(tmp_path / "input" / "data")
    test = dataset.read(SageMakerPaths(tmp_path)).splits["test"]
    served = np.tile(np.array([0.05, 0.2, 0.1, 0.35, 0.3], dtype=np.float32), (12, 1))
    wrong = mistakes.galleries(tried(test, served), tuple("abcde"))["wrong"]
    assert wrong[0]["true"] == ("a", pytest.approx(0.05))
    assert wrong[0]["top"] == [("d", pytest.approx(0.35)), ("e", pytest.approx(0.3)), ("b", pytest.approx(0.2))]


def test_the_page_asks_for_nothing_from_elsewhere(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=[\"'](?!data:)", page)


def test_metrics_json_is_what_programs_read(written: Path) -> None:
    summary = json.loads((written / "metrics.json").read_text())
    assert summary["per_class"][0] == {"label": "red", "images": 4, "precision": 1.0, "recall": 0.75, "f1": 6 / 7}


def test_a_number_that_no_json_has_is_an_error_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        training_report.write_metrics(tmp_path, {"valid_accuracy": float("nan")})
    assert not list(tmp_path.iterdir())


def test_the_matrix_as_csv() -> None:
    confusion = classification.Confusion.of(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 1]), 2)
    text = training_report.matrix_csv(confusion, ("a", "b, c"))
    assert text == 'true \\ predicted,a,"b, c"\na,1,2\n"b, c",0,3\n'


def test_of_ten_thousand_classes_the_pairs_that_occur_are_written() -> None:
    classes = tuple(f"class {number}" for number in range(10_000))
    true, predicted = np.arange(50_000) % 10_000, (np.arange(50_000) * 7) % 10_000
    tracemalloc.start()
    confusion = classification.Confusion.of(true, predicted, 10_000)
    rows = classification.per_class(confusion, classes)
    lines = training_report.matrix_csv(confusion, classes).splitlines()
    chart = training_report.confusion_chart(confusion, classes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6, "bytes; as a matrix they are 800 million"
    assert lines[:3] == ["true,predicted,images", "class 0,class 0,5", "class 1,class 7,5"]
    assert len(lines) == 1 + 10_000
    assert (rows[0]["recall"], rows[1]["recall"], rows[1]["images"]) == (1.0, 0.0, 5)
    assert chart.plot


@pytest.mark.parametrize("width", [1100, 390])
def test_long_names_of_classes_do_not_widen_the_page(written: Path, tmp_path: Path, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_text((written / "report.html").read_text().replace("&lt;b&gt;blue", "soft-coated_wheaten_terrier_x"))
    with Browser(tmp_path / "profile") as browser:
        browser.open(page, width)
        assert browser.ask("document.documentElement.scrollWidth") == width, "the page scrolls sideways"


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, False), (390, True)])
def test_a_browser_draws_every_chart(written: Path, tmp_path: Path, width: int, dark: bool) -> None:
    with Browser(tmp_path / "profile") as browser:
        browser.open(written / "report.html", width, dark=dark)
        assert (browser.problems, browser.requests) == ([], [])
        assert browser.ask("document.documentElement.scrollWidth") == width, "the page scrolls sideways"
        table = "document.querySelector('.classes')"
        assert browser.ask(f"{table}.scrollWidth <= {table}.parentElement.clientWidth"), "F1 is cut"
        sizes = browser.ask("[...new Set([...document.images].map(i => `${i.naturalWidth}x${i.naturalHeight}`))]")
        assert sizes == ["160x160"]
        shot = browser.screenshot(SHOTS / f"report-{'dark-' * dark}{width}.png")
    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    # Both curves, and the confusion matrix's full cells.
    for colour in (drawing.TRAIN, drawing.VALID, training_report.BLUES[-1]):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels.astype(int) - wanted).max(1) < 8).sum() > 100, f"{colour} is not on the page"
