import json
import re
import shutil
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container_train.data import dataset
from container_train.data.duplicates import Leak
from container_train.export.evaluation import Answers
from container_train.paths import SageMakerPaths
from container_train.reporting import drawing, training_report
from container_train.training import metrics
from tests import trees
from tests.conftest import need

HYPERPARAMETERS = {"arch": "resnet50", "lr": 0.001, "weights": "DEFAULT"}


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
    top = np.argsort(-served, axis=1, kind="stable")
    answers = Answers(top, np.take_along_axis(served, top, 1), np.ones(len(true), dtype=np.bool_))
    confusion = metrics.Confusion.of(true, called, 3)
    summary: dict[str, Any] = {
        "test_accuracy": 11 / 12, "valid_accuracy": 0.5, "precision": "int8",
        "accuracy": {"fp32": {"valid": 0.5, "test": 11 / 12}, "int8": {"valid": 0.496, "test": 11 / 12}},
        "quantization": {"reason": "int8 is -0.40 points from fp32 on validation"},
        "classes": ["red", "green", "<b>blue"],
        "images": {"train": 30, "valid": 12, "test": 12}, "skipped": 2, "weights": "none",
        "near_duplicates": [Leak("test", "train", 3, 12, (("test/red/<a>.jpg", "train/red/b.jpg"),)).to_dict()],
        "hyperparameters": HYPERPARAMETERS, "best_epoch": 2, "per_class": metrics.per_class(confusion, trees.LABELS),
        "seconds": {"train": 3.0},
        "epochs": [
            {"epoch": 1, "train_loss": 1.0, "valid_loss": 1.1, "train_accuracy": 0.4, "valid_accuracy": 0.3},
            {"epoch": 2, "train_loss": 0.5, "valid_loss": 0.7, "train_accuracy": 0.8, "valid_accuracy": 0.6},
        ],
    }  # fmt: skip
    training_report.write(base / "out", summary, training_report.Tested(confusion, test, answers))
    training_report.write_metrics(base / "out", summary)
    return base / "out"


def test_the_page_says_what_happened(written: Path) -> None:
    page = (written / "report.html").read_text()
    for words in (
        "91.7 %",
        "int8: valid 49.60 % test 91.67 %; int8 is served: int8 is -0.40 points",
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
    assert "<b>blue" not in page.split("</style>")[1].split("<script")[0]
    assert len(page) < 3_000_000


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
    confusion = metrics.Confusion.of(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 1]), 2)
    text = training_report.matrix_csv(confusion, ("a", "b, c"))
    assert text == 'true \\ predicted,a,"b, c"\na,1,2\n"b, c",0,3\n'


def test_of_ten_thousand_classes_the_pairs_that_occur_are_written() -> None:
    classes = tuple(f"class {number}" for number in range(10_000))
    true, predicted = np.arange(50_000) % 10_000, (np.arange(50_000) * 7) % 10_000
    tracemalloc.start()
    confusion = metrics.Confusion.of(true, predicted, 10_000)
    rows = metrics.per_class(confusion, classes)
    lines = training_report.matrix_csv(confusion, classes).splitlines()
    chart = training_report.confusion_chart(confusion, classes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6, "bytes; as a matrix they are 800 million"
    assert lines[:3] == ["true,predicted,images", "class 0,class 0,5", "class 1,class 7,5"]
    assert len(lines) == 1 + 10_000
    assert (rows[0]["recall"], rows[1]["recall"], rows[1]["images"]) == (1.0, 0.0, 5)
    assert chart.plot


@pytest.mark.parametrize("width", [1440, 390])
def test_a_browser_draws_every_chart(written: Path, tmp_path: Path, width: int) -> None:
    chromium = shutil.which("chromium")
    need(chromium, "chromium")
    shot = tmp_path / "report.png"
    command = [
        str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},3600", "--virtual-time-budget=20000",
        "--hide-scrollbars", f"--screenshot={shot}", f"file://{written / 'report.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert not [line for line in console if "rror" in line or "Uncaught" in line], console
    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    # Both curves, and the confusion matrix's full cells.
    for colour in (drawing.TRAIN, drawing.VALID, training_report.BLUES[-1]):
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels.astype(int) - wanted).max(1) < 8).sum() > 100, f"{colour} is not on the page"
