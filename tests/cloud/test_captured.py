"""report.py --captured: what an endpoint was asked and answered, drift of its labels, a shadow beside it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from boto3 import Session
from PIL import Image

from container_serve.codec import answers
from container_serve.codec.media import CSV, JSON, JSON_LINES
from container_serve.errors import RequestError
from container_serve.predictor import Prediction
from container_train.training import classification
from scripts import cleanup, deploy, predict, report
from scripts.monitoring import captured, drift
from tests.browser import Browser
from tests.cloud.capturing import Endpoint, answer, part, place, record
from tests.cloud.conftest import BUCKET, CALL, REGION, Call
from tests.cloud.conftest import MODEL as ARTIFACT
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import keys, put
from tests.conftest import Patch

CAT, DOG = Prediction(0, "cat", 0.9), Prediction(1, "dog", 0.4)


def table(err: str) -> dict[str, str]:
    """The rows of the table that is printed, by their first cell."""
    return {
        cells[0]: cells[1] for line in err.splitlines() if len(cells := re.split(r"  +", line.strip(), maxsplit=1)) == 2
    }


def write(folder: Path, lines: list[str], variant: str = "AllTraffic", hour: int = 9) -> None:
    file = folder / place("byoc-dogs", variant, hour)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def job(folder: Path, counts: dict[str, int]) -> Path:
    """A job's output, whose model gave so many test images each label, all of them rightly."""
    folder.mkdir()
    rows = [{"label": label, "images": n, "precision": 1.0, "recall": 1.0, "f1": 1.0} for label, n in counts.items()]
    (folder / "metrics.json").write_text(json.dumps({"per_class": rows, "calibration": {"confidence": 0.8}}))
    return folder


def test_a_shadow_from_its_deployment_to_the_comparison(
    account: Session, flaky: FlakyAws, tmp_path: Path, call: Call
) -> None:
    """The same file names in two calls of predict.py are other requests."""
    assert call(deploy, *CALL, "--capture", "100", "--shadow", ARTIFACT).code == 0
    shadow = (DOG, CAT)
    models = {"AllTraffic": lambda body: CAT, "Shadow": lambda body: shadow[sum(body) % 2]}
    flaky.runtime = Endpoint(account, **models).invoke
    agree = 0
    for turn in range(2):
        for index in range(5):
            file = tmp_path / "images" / f"{index}.png"
            file.parent.mkdir(exist_ok=True)
            Image.new("RGB", (10 + index + 7 * turn, 10), (index, 20, 30)).save(file)
            agree += sum(file.read_bytes()) % 2
        assert call(predict, "byoc-dogs", tmp_path / "images").code == 0
    page = tmp_path / "page.html"
    said = call(report, "--captured", f"s3://{BUCKET}/byoc/captured/byoc-dogs", "--out", page, "--region", REGION)
    assert (said.code, said.out) == (0, f"{page}\n")
    rows = table(said.err)
    assert 0 < agree < 10
    assert rows["shadow agrees in"].startswith(f"{100 * agree / 10:.1f} % of 10 (")
    assert rows["cat / dog"] == f"{10 - agree} images"
    assert rows["image/png"].startswith("10 requests, median 80 B")
    text = page.read_text()
    assert f"It agrees in {100 * agree / 10:.1f} % of 10" in text
    assert not re.search(r"(?:src|href)=.(?!data:|#)", text.partition("</style>")[2])


def test_captured_requests_go_with_the_data(aws: Session, call: Call) -> None:
    files = [f"byoc/captured/{place('byoc-dogs', variant)}" for variant in ("AllTraffic", "Shadow")]
    for key in (*files, "byoc/captured/notes.txt"):
        put(aws, key)
    said = f"deleted 2 objects of s3://{BUCKET}/byoc/captured/byoc-dogs"
    assert said in call(cleanup, "--data", "--yes").err
    assert keys(aws) == ["byoc/captured/notes.txt"]


def test_ids_that_are_missing_or_not_unique_match_nothing(tmp_path: Path) -> None:
    for variant, said in (("AllTraffic", CAT), ("Shadow", DOG)):
        ids = ("a", "b", "b", None, None, f"only-{variant}")
        write(tmp_path / "in", [record("image/png", b"x", answer(said), inference=one) for one in ids], variant)
    found = captured.read(str(tmp_path / "in"), tmp_path, None)
    found.pair()
    assert found.ask("SELECT live, shadow, p, q FROM pairs") == [("cat", "dog", 0.9, 0.4)]
    assert found.variant == "AllTraffic"


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("kind", [JSON, CSV, JSON_LINES])
@pytest.mark.parametrize("batched", [True, False])
def test_every_form_of_an_answer_is_read(tmp_path: Path, kind: str, text: bool, batched: bool) -> None:
    broken = RequestError(400, "damaged", "the image is damaged")
    rows = [[CAT, DOG], broken, [DOG, CAT]] if batched else [[CAT, DOG]]
    body = answers.render(rows, kind, model={}, batched=batched)  # type: ignore[arg-type]
    line = json.loads(record("image/jpeg", b"1234567", body))
    line["captureData"]["endpointOutput"] = part(f"{kind}; charset=utf-8", "OUTPUT", body, text)
    write(tmp_path / "in", [json.dumps(line)])
    found = captured.read(str(tmp_path / "in"), tmp_path, None)
    expected = [("cat", 0.9), (None, None), ("dog", 0.4)] if batched else [("cat", 0.9)]
    assert found.ask("SELECT label, probability FROM answers ORDER BY position") == expected
    assert found.ask("SELECT kind, bytes, hour FROM requests") == [("image/jpeg", 7, "2026-11-27 09")]


def test_lines_that_are_no_records_are_counted(tmp_path: Path, call: Call) -> None:
    good = record("image/jpeg", b"x", answer(CAT))
    bad = ["{", "[]", "{}", '{"captureData": 1, "eventMetadata": {"inferenceTime": 1}}',
           record("image/jpeg", b"x", b"no JSON"), record("image/jpeg", b"x", b'{"predictions": 3}'),
           record("image/jpeg", b"x", b'{"predictions": [{"label": "cat", "probability": NaN}]}')]  # fmt: skip
    half = record("image/jpeg", b"x", b'{"predictions": [{"label": "\\ud83d", "probability": 1}]}')
    write(tmp_path / "in", [good, *bad, "", half, good])
    rows = table(call(report, "--captured", tmp_path / "in", "--out", tmp_path / "p.html").err)
    assert (rows["unreadable lines"], rows["images"]) == ("7", "3, 0 without an answer")


def test_an_error_of_the_server_is_an_image_without_an_answer(tmp_path: Path, call: Call) -> None:
    said = json.dumps({"code": 415, "type": "unsupported", "message": "no image"}).encode()
    write(tmp_path / "in", [record("text/html", b"<p>", said)])
    rows = table(call(report, "--captured", tmp_path / "in", "--out", tmp_path / "p.html").err)
    assert (rows["images"], rows["text/html"]) == ("1, 1 without an answer", "1 request, median 3 B, largest 3 B")


def test_labels_are_compared_with_the_test_images(tmp_path: Path, call: Call) -> None:
    cat, dog = (record("image/png", b"x", answer(said)) for said in (CAT, DOG))
    write(tmp_path / "in", [cat] * 90 + [dog] * 10)
    usual = job(tmp_path / "job", {"cat": 50, "dog": 50})
    page = tmp_path / "p.html"
    rows = table(call(report, "--captured", tmp_path / "in", usual, "--out", page).err)
    assert rows["labels"].startswith("a large drift (population stability index 0.8")
    assert rows["cat"] == "90.0 %, on the test images 50.0 %"
    assert rows["confidence"] == "85.0 %, on the test images 80.0 %; 10.0 % are below 50 %"
    text = page.read_text()
    assert 'class="verdict wrong"' in text
    assert "A large drift" in text
    same = job(tmp_path / "same", {"cat": 93, "dog": 7})
    said = call(report, "--captured", tmp_path / "in", same, "--out", page).err
    assert "no drift that 100 answers could show" in said


def test_the_page_is_drawn_on_a_desk_and_on_a_phone(tmp_path: Path, call: Call) -> None:
    for variant, said in (("AllTraffic", CAT), ("Shadow", DOG)):
        made = answer(said)
        lines = [record("image/png", b"x", made, hour=9 + index // 20, inference=str(index)) for index in range(60)]
        write(tmp_path / "in", lines, variant)
    page = tmp_path / "p.html"
    tested = job(tmp_path / "job", {"cat": 50, "dog": 50})
    assert call(report, "--captured", tmp_path / "in", tested, "--out", page).code == 0
    with Browser(tmp_path / "profile") as browser:
        for width, dark in ((1440, False), (390, True)):
            browser.open(page, width, dark=dark)
            assert (browser.problems, browser.requests) == ([], [])
            drawn = {name: share > 0.02 for name, share in browser.charts().items()}
            assert drawn == {"chart-hours": True, "chart-confidence": True}
            assert browser.ask("document.documentElement.scrollWidth") <= width
            assert browser.ask("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")


@pytest.mark.parametrize(("classes", "n"), [(2, 60), (10, 200), (133, 400), (133, 5000)])
def test_chance_is_rarely_taken_for_drift_and_a_real_one_is_seen(classes: int, n: int) -> None:
    random = np.random.default_rng(7)
    shares = random.dirichlet(np.full(classes, 3.0))
    labels = [str(index) for index in range(classes)]

    def draw(of: "np.typing.NDArray[np.float64]", count: int) -> dict[str, float]:
        return dict(zip(labels, random.multinomial(count, of).astype(float).tolist(), strict=True))

    found = [drift.compare(draw(shares, n), draw(shares, 836)).found for _ in range(300)]
    assert sum(found) <= 0.09 * 300
    other = np.roll(shares, 1) if classes > 2 else np.array([0.9, 0.1])
    base = shares if classes > 2 else np.array([0.5, 0.5])
    assert sum(drift.compare(draw(other, n), draw(base, 836)).found for _ in range(100)) >= 95


def test_few_answers_say_nothing() -> None:
    found = drift.compare({"cat": 20.0}, {"cat": 10.0, "dog": 90.0})
    assert not found.found
    assert found.words == "too few to compare: 20 answers, 100 test images"


def test_the_labels_of_the_test_images_are_those_that_the_model_gave() -> None:
    random = np.random.default_rng(3)
    true = random.integers(0, 6, 200)
    predicted = np.where(random.random(200) < 0.6, true, (true + 1) % 6)
    predicted[predicted == 5] = 0  # a class that is never predicted
    true[true == 2] = 1  # and one that is never right
    confusion = classification.Confusion.of(true, predicted, 6)
    found = drift.tested_labels(classification.per_class(confusion, tuple("abcdef")))
    expected = dict(zip("abcdef", np.bincount(predicted, minlength=6).astype(float).tolist(), strict=True))
    assert found == expected


def test_memory_does_not_grow_with_the_number_of_requests(tmp_path: Path) -> None:
    """Two files of 40 MB, a request of 2 MB in each line and 60,000 small ones."""
    large = record("image/jpeg", b"x" * 1_500_000, answer(CAT), inference="a")
    small = record("image/jpeg", b"x", answer(DOG), inference="b")
    write(tmp_path / "few", [large] * 2 + [small] * 100)
    for hour in (9, 10):
        write(tmp_path / "many", [large] * 20 + [small] * 30_000, hour=hour)
    code = (
        "import resource, sys, pathlib; sys.path.insert(0, '.');"
        "from scripts.monitoring import captured;"
        "captured.read(sys.argv[1], pathlib.Path(sys.argv[2]), None).ask('SELECT count(*) FROM answers');"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    kib = {}
    for name in ("few", "many"):
        (tmp_path / f"{name}.scratch").mkdir()
        command = [sys.executable, "-c", code, str(tmp_path / name), str(tmp_path / f"{name}.scratch")]
        kib[name] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kib["many"] < kib["few"] + 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--captured", "nowhere"), 2, "--captured nowhere: no such folder"),
        (("--captured", f"s3://{BUCKET}/byoc/captured"), 1, "no captured requests below it"),
        ((), 2, "0 jobs given: expected one, two to compare, --all, or --captured"),
        (("--captured", "in", "job", "job"), 2, "--captured is compared with the test images of one JOB"),
        (("--captured", "several"), 2, "requests to several endpoints: add one of byoc-cats, byoc-dogs"),
        (("--captured", "in", "empty"), 1, "its metrics.json has no test images"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    aws: Session, arguments: tuple[str, ...], code: int, said: str, tmp_path: Path,
    monkeypatch: Patch, call: Call,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in", [record("image/png", b"x", answer(CAT))])
    for name in ("byoc-dogs", "byoc-cats"):
        file = tmp_path / "several" / place(name, "AllTraffic")
        file.parent.mkdir(parents=True)
        file.write_text(record("image/png", b"x", answer(CAT)))
    job(tmp_path / "job", {"cat": 1})
    (job(tmp_path / "empty", {}) / "rules.json").write_text("[]")
    call(report, *arguments, "--out", "p.html").ends(code, said)
    assert not Path("p.html").exists()
