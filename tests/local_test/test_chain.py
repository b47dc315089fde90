"""Train, export, serve, ask: the commands of README.md and docs/quickstart.md, as they are written, in a fresh clone.

Without a Docker engine the first of them runs as processes, and the tests of such a run look at its results. With one,
or where the clone is left out (make test-fast), they have a run of their own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from container_serve import artifact
from container_train.training import metrics
from local_test import server as local_server
from local_test.engine import LABEL
from tests import documents, trees
from tests.conftest import FULL
from tests.contract.serving import free_port
from tests.docker import engine
from tests.local_test.runs import ROOT, SECONDS, call, mentioning


@dataclass(frozen=True)
class Finished:
    """A run of run.sh that succeeded: its results, what it printed, and its summary.json."""

    out: Path
    log: str
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with this tree's files, committed or not, and nothing that git ignores."""
    folder = tmp_path_factory.mktemp("chain") / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    if not FULL:
        _link_environment(folder)
    return folder


def _link_environment(folder: Path) -> None:
    """Give the clone this checkout's packages, which setup.sh made: making them anew takes a minute of all cores.

    CI makes them in a fresh clone before it calls the tests. Where links cannot be made, setup.sh does it here too.
    """
    made = ROOT / ".venv" / ".complete"
    if made.exists() and subprocess.run(["cp", "-al", made.parent, folder / ".venv"], capture_output=True).returncode:
        shutil.rmtree(folder / ".venv", ignore_errors=True)


def shell(command: str, folder: Path, **environment: str) -> str:
    """Return what the command prints. Where it has to build images, it builds them as the tests of the images do."""
    options = engine.build_options() if engine.available() else []
    flags = dict(zip(options[::2], options[1::2], strict=True))
    names = {"--base-train": "BYOC_BASE_TRAIN", "--base-serve": "BYOC_BASE_SERVE", "--network": "BYOC_NETWORK"}
    machine = {
        variable: flags[flag] for flag, variable in {**names, "--ca-bundle": "BYOC_CA_BUNDLE"}.items() if flag in flags
    }
    # A `make test` in there is not to write its results where the one that runs this test writes its own.
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTEST_"))}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**outer, **machine, **environment}, text=True, timeout=1800,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def quick_start(clone: Path) -> Finished:
    """The first command of the README, in a fresh clone."""
    command, _ = documents.commands("test_run_it_here")
    assert command == "./local_test/run.sh"
    out = clone / "local_test" / "out"
    return Finished(out, shell(command, clone), json.loads((out / "summary.json").read_text()))


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """run.sh on the sample, as processes."""
    if not engine.available() and any(item.get_closest_marker("clone") for item in request.session.items):
        found: Finished = request.getfixturevalue("quick_start")
        return found
    out = tmp_path_factory.mktemp("run") / "out"
    done = call("--engine", "process", "--out", out, "--arch", "resnet18")
    assert done.returncode == 0, done.stdout[-3000:]
    return Finished(out, done.stdout, json.loads((out / "summary.json").read_text()))


@pytest.mark.clone
@pytest.mark.timeout(2400)
def test_run_it_here(quick_start: Finished) -> None:
    out, summary = quick_start.out, quick_start.summary
    assert summary["engine"] == ("docker" if engine.available() else "process")
    if engine.available():
        assert summary["image_tags"] == {name: engine.image(name) for name in ("train", "serve")}
        assert engine.docker("ps", "-aq", "--filter", f"label={LABEL}={out}").stdout == ""
    assert {path.stat().st_uid for path in out.rglob("*")} == {os.getuid()}
    assert summary["prediction"]["true"] in summary["classes"]
    # Twice chance: without a network the features are random.
    assert summary["test_accuracy"] > 2 / len(summary["classes"])
    low, high = summary["test_accuracy_interval"]
    assert 0 < low < summary["test_accuracy"] <= high
    told = metrics.with_interval(summary["test_accuracy"], summary["images"]["test"])
    assert f"test accuracy {told}, {summary['precision']}" in quick_start.log
    assert summary["chance"] == "", "the sample's classes are told apart"
    assert (out / "report.html").is_file()
    assert (out / "model" / "model.tar.gz").is_file()


@pytest.mark.timeout(2400)
def test_the_whole_path_leaves_its_results(finished: Finished) -> None:
    summary = finished.summary
    assert summary["engine"] == "process"
    assert summary["data"] == "sample"
    assert summary["images"] == {"train": 240, "valid": 60, "test": 60}
    assert summary["classes"] == [
        "astronaut", "brick", "cat", "coffee", "coins", "galaxies", "grass", "gravel", "motorcycle", "rocket",
    ]  # fmt: skip
    assert 0.2 < summary["test_accuracy"] <= 1, "ten classes: chance is 0.1"
    assert summary["precision"] == "fp32", "60 validation images are too few to choose int8"
    assert 0 < summary["cold_start_seconds"] < 120
    assert (finished.out / "report.html").stat().st_size > 1000
    assert (finished.out / "profiler-report.html").stat().st_size > 1000
    rules = json.loads((finished.out / "rules.json").read_text())
    assert rules["final"]
    fired = [rule for rule in rules["rules"] if rule["status"] == "fired"]
    assert [rule["rule"] for rule in fired if rule["severity"] != "information"] == [], (
        "the first run greets with faults"
    )
    assert f"{finished.out / 'profiler-report.html'}; rules: no problem found" in finished.log
    with tarfile.open(finished.out / "model" / "model.tar.gz") as tar:
        assert {"model.json", "model.pth", "model.xml", "model.bin"} <= set(tar.getnames())
    assert not (finished.out / "served").exists()
    is_random = summary["weights"] == "none"
    assert finished.log.count("NO IMAGENET WEIGHTS") == (2 if is_random else 0)
    assert bool(summary["note"]) == is_random
    assert mentioning(str(finished.out)) == [], "nothing is left running"
    # Paths in what the programs have said are those of the results.
    assert str(finished.out) in (finished.out / "logs" / "train.log").read_text()
    assert "out.new" not in finished.log


@pytest.mark.timeout(SECONDS)
def test_the_table_is_what_curl_got(finished: Finished) -> None:
    rows = finished.summary["predictions"]
    assert finished.summary["prediction"] == rows[0]
    assert [row["true"] for row in rows] == finished.summary["classes"]
    table = finished.log[finished.log.index("image  ") :]
    for row in rows:
        columns = [row["image"], row["true"], row["predicted"], f"{row['probability']:.3f}"]
        assert re.search(r"\s+".join(map(re.escape, columns)), table)
        assert (finished.out / "ml" / "input" / "data" / row["image"]).is_file()


@pytest.mark.timeout(SECONDS)
def test_the_model_is_served_again_and_asked_with_curl(finished: Finished) -> None:
    port = local_server.free_port()
    archive = finished.out / "model" / "model.tar.gz"
    server = subprocess.Popen(
        [ROOT / "local_test" / "serve_local.sh", "--engine", "process", "--model", archive, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        lines = []
        for line in server.stdout:
            lines.append(line)
            if line.startswith("serving "):
                break
        assert lines[-1].startswith("serving "), "".join(lines)
        picture = finished.out / "ml" / "input" / "data" / "test" / "002.brick" / "0001.jpg"
        done = call(
            picture, "--url", f"http://127.0.0.1:{port}", "--top-k", "2", program=ROOT / "local_test" / "predict.sh"
        )
        assert done.returncode == 0, done.stdout
        assert len(json.loads(done.stdout)["predictions"]) == 2
        server.send_signal(signal.SIGINT)
        assert "POST /invocations" in server.communicate(timeout=60)[0]
        assert server.returncode == 130
    finally:
        server.kill()
        server.wait()
    assert mentioning(f"--port {port}") == []


@pytest.mark.timeout(SECONDS)
def test_a_server_that_ends_is_shown_with_its_reason(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.out / "ml" / "model", tmp_path / "model")
    body = bytearray((tmp_path / "model" / "model.bin").read_bytes())
    body[len(body) // 2] ^= 1
    (tmp_path / "model" / "model.bin").write_bytes(body)
    started = time.monotonic()
    done = call(
        "--engine", "process", "--model", tmp_path / "model", "--port", local_server.free_port(),
        program=ROOT / "local_test" / "serve_local.sh",
    )  # fmt: skip
    assert done.returncode != 0
    assert "model.bin" in done.stdout
    assert time.monotonic() - started < local_server.READY_SECONDS / 2


@pytest.mark.timeout(SECONDS)
def test_a_failed_training_keeps_its_code_and_the_results_before(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    before = (finished.out / "summary.json").read_bytes()
    done = call("--engine", "process", "--out", finished.out, "--weights", tmp_path / "bad.pth")
    assert done.returncode == 1
    assert "training failed with exit code 1: " in done.stdout
    assert "bad.pth" in done.stdout
    # It got to no checkpoint: what it said is kept, and every file that is named is there.
    failed = finished.out.with_name("out.failed")
    named = re.findall(rf"{failed}/\S+", done.stdout)
    assert named == [
        str(failed / "logs" / "train.log"),
        str(failed / "ml" / "output" / "data" / "profiler-report.html"),
    ]
    assert all(Path(name).is_file() for name in named)
    assert f"{finished.out}/" not in done.stdout.partition("training (process)")[2]
    assert (finished.out / "summary.json").read_bytes() == before


@pytest.mark.timeout(SECONDS)
def test_reports_are_made_again(finished: Finished, tmp_path: Path) -> None:
    again, compared, listed = documents.commands("test_reports_are_made_again")
    page = finished.out / "profiler-report.html"
    page.write_text("")
    for command in (again, compared):
        filled = re.sub(r"FOLDER|local_test/out", str(finished.out), command)
        shell(f"{ROOT}/{filled}", tmp_path)
    assert page.stat().st_size > 1000
    assert (tmp_path / "compare.html").stat().st_size > 1000
    # The folder of this run is none below local_test.
    table = shell(f"{ROOT}/{listed} {finished.out.parent}", tmp_path)
    assert re.search(rf"{finished.out}\s+Completed", table)
    assert f">{finished.out}</b>" in (finished.out.parent / "runs.html").read_text()


@pytest.mark.clone
@pytest.mark.timeout(1200)
def test_run_the_tests(clone: Path) -> None:
    command = documents.commands("test_run_the_tests")[-1]
    assert command == "make test"
    # The command as it is, over one quick file of them: all of them are running already.
    quick = clone / "tests" / "container_train" / "test_hyperparameters.py"
    said = shell(command, clone, PYTEST_ADDOPTS=f"-p no:cacheprovider {quick}", LANES="-n 0")
    assert re.search(r"\d+ passed", said)


@pytest.mark.clone
@pytest.mark.timeout(2400)
def test_run_it_on_your_images(clone: Path) -> None:
    lines = documents.commands("test_run_it_on_your_images")
    trees.fill(clone / "DIR", {"train": 12, "valid": 3, "test": 3})
    # A small network: that of the commands was trained by `./local_test/run.sh`.
    small = " ".join(
        f"--{name} {value}" for name, value in trees.SMALL.items() if name not in ("weights", "batch-size")
    )
    torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), clone / "resnet50.pth")
    plain, with_weights, docker = [line for line in lines if line.startswith("./local_test/run.sh")]
    # Without a network the default weights are not to be had, which README and error say: these are one run.
    assert with_weights == f"{plain} --weights resnet50.pth"
    runs = [f"{with_weights} --engine process"]
    if engine.available():
        runs.append(f"{docker} --weights resnet50.pth")
    for line in runs:
        shell(f"{line} {small}", clone)
        assert json.loads((clone / "local_test/out/summary.json").read_text())["classes"] == list(trees.LABELS)
    export, serve, curl = [line for line in lines if line.startswith((".venv/bin/python -m", "curl"))]
    labels = "".join(f"class {index}\n" for index in range(1000))
    (clone / "classes.txt").write_text(labels)
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), clone / "model.pth")
    trees.picture(clone / "dog.jpg", (90, 60, 30), seed=1)
    shell(export, clone)
    assert len(artifact.read(clone / "model").classes) == 1000
    port = str(free_port())
    script = (
        f"{serve.replace('8080', port)} & server=$!; trap 'kill $server; wait $server || true' EXIT\n"
        f"curl --silent --fail --retry 120 --retry-delay 1 --retry-all-errors http://localhost:{port}/ping >&2\n"
        f"{curl.replace('8080', port)} --silent --fail >answer.json"
    )
    shell(script, clone)
    assert len(json.loads((clone / "answer.json").read_text())["predictions"]) == 5
