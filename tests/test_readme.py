"""The README's commands, run as they are written in a fresh clone, and its tables against the code."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torchvision

from container_serve import artifact
from container_serve.settings import Settings
from container_train.hyperparameters import OPTIONS
from container_train.metrics import NAMES
from local_test.engine import LABEL
from tests import trees
from tests.contract.serving import free_port
from tests.docker import engine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(section: str) -> list[str]:
    """The lines of the section's code blocks, without their comments."""
    text = README.split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = [block for kind, block in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL) if not kind]
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with this tree's files, committed or not, and nothing that git ignores."""
    folder = tmp_path_factory.mktemp("readme") / "clone"
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
    return folder


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Where images have to be built, they are built for this machine, as the tests of the images do it.
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
    return done


@pytest.mark.clone
@pytest.mark.timeout(2400)
def test_run_it_here(clone: Path) -> None:
    assert commands("Run it here") == ["./local_test/run.sh"]
    done = shell("./local_test/run.sh", clone)
    out = clone / "local_test" / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["engine"] == ("docker" if engine.available() else "process")
    if engine.available():
        assert summary["image_tags"] == {name: engine.image(name) for name in ("train", "serve")}
        assert engine.docker("ps", "-aq", "--filter", f"label={LABEL}={out}").stdout == ""
    assert {path.stat().st_uid for path in out.rglob("*")} == {os.getuid()}
    assert summary["prediction"]["true"] in summary["classes"]
    assert summary["test_accuracy"] > 2 / len(
        summary["classes"]
    )  # twice chance: the features are random without network
    assert f"test accuracy {summary['test_accuracy']:.1%}" in done.stdout
    assert (out / "report.html").is_file()
    assert (out / "model" / "model.tar.gz").is_file()


@pytest.mark.clone
@pytest.mark.timeout(1200)
def test_run_the_tests(clone: Path) -> None:
    assert commands("Run the tests") == ["make test"]
    # The command as it is, over one quick file of them: all of them are running already.
    quick = clone / "tests" / "container_train" / "test_hyperparameters.py"
    done = shell("make test", clone, PYTEST_ADDOPTS=f"-p no:cacheprovider {quick}", LANES="-n 0")
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.clone
@pytest.mark.timeout(2400)
def test_run_it_on_your_pictures(clone: Path) -> None:
    lines = commands("Run it on your pictures")
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


class Aws:
    """A clone's README chapter with its placeholders filled; the account is either nowhere or at moto's server."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        toml, *_ = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
        (clone / "byoc.toml").write_text(toml)
        region, account = "eu-central-1", "123456789012"
        home = f"{account}.dkr.ecr.{region}.amazonaws.com"
        self.values = {
            "TRAIN_URI": f"{home}/byoc-train@sha256:{'1' * 64}",
            "SERVE_URI": f"{home}/byoc-serve@sha256:{'2' * 64}",
            "BUCKET": f"sagemaker-{region}-{account}",
            "JOB": "byoc-train-1",
        }

    def run(self, command: str, **environment: str) -> str:
        """What the command prints, its placeholders filled."""
        words = re.sub(r"\b[A-Z_]{3,}\b", lambda word: self.values.get(word[0], word[0]), command)
        # Nothing of this machine's account: what is needed stands in byoc.toml, and AWS is nowhere.
        aws = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true",
               "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}  # fmt: skip
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        done = shell(f"{words} 2>messages", self.clone, PATH=path, **aws, **environment)
        return done.stdout

    def requests(self, command: str) -> list[str]:
        return [request["operation"] for request in json.loads(self.run(f"{command} --dry-run"))]


@pytest.mark.clone
@pytest.mark.timeout(1200)
def test_run_it_on_aws(clone: Path) -> None:
    lines = commands("Run it on AWS")
    programs = [line.split()[0].removeprefix("scripts/") for line in lines]
    assert programs == [
        "make_role.py", "push.sh", "prepare_data.py", "train.py", "deploy.py", "predict.py", "deploy.py", "cleanup.py",
        "cleanup.py", "make_role.py", "train.py", "deploy.py", "predict.py",
    ]  # fmt: skip
    shutil.rmtree(clone / "DIR", ignore_errors=True)
    trees.fill(clone / "DIR", {"train": 3, "valid": 2, "test": 2})
    aws = Aws(clone)
    role, push, prepare, train, deploy, _, update, cleanup, *_ = lines
    assert aws.requests(role) == ["CreateRole", "PutRolePolicy"]
    assert aws.requests(push)[0] == "CreateRepository"
    assert aws.requests(prepare).count("PutObject") == 3 * 7 + 1
    assert aws.requests(train) == ["CreateTrainingJob"]
    assert aws.requests(deploy) == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    assert aws.requests(update) == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]
    assert aws.requests(cleanup)[0] == "DeleteEndpoint"


def test_every_hyperparameter_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (\S+) \| ", README, re.MULTILINE))
    assert {name: str(default) for name, (_, default, _) in OPTIONS.items()} == {n: rows.get(n) for n in OPTIONS}


def test_every_variable_of_the_server_is_in_the_table() -> None:
    source = (ROOT / "container_serve" / "settings.py").read_text()
    names = set(re.findall(r'"((?:SAGEMAKER|BYOC)_[A-Z_]+)"', source)) - {"BYOC_TARGET"}  # set by the images
    assert len(names) >= len(fields(Settings)) - 2
    assert names == set(re.findall(r"`((?:SAGEMAKER|BYOC)_[A-Z_]+)`", README)) - {
        "SAGEMAKER_BASE_DIR",
        "BYOC_FEATURE_CACHE",
        "BYOC_STILL_SECONDS",
        "BYOC_PORT",
    }


def test_every_metric_line_is_named() -> None:
    assert all(f"`{name}`" in README for name in NAMES)


def test_every_path_that_is_named_exists() -> None:
    for name in re.findall(r"`((?:scripts|local_test|docker|tests|container_\w+)/[\w./]*)`", README):
        if not name.startswith(("local_test/out", "local_test/tuning")):  # made by runs
            assert (ROOT / name).exists(), name
