"""README.md and docs/ against the code: commands, tables, links and names. tests/local_test/test_chain.py runs the long
commands.
"""

import calendar
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from container_serve import __main__ as serving
from container_serve.settings import Settings
from container_train import command_line, hyperparameters
from container_train.debugger import KNOWN
from container_train.export import __main__ as exporting
from container_train.hyperparameters import OPTIONS
from container_train.profiler.rules import DEFAULTS
from container_train.training.metrics import NAMES
from local_test import options, serve_local
from scripts.aws import instances
from scripts.aws.requests import Request, check
from tests import documents, trees
from tests.documents import FILES, FOR_USERS, ROOT, name

DOCS = ROOT / "docs"
DRY_RUN = "dry run"
ACCOUNT, REGION = "123456789012", "eu-central-1"
HOME = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
# What a user puts in place of the words in capitals.
VALUES = {
    "TRAIN_URI": f"{HOME}/byoc-train@sha256:{'1' * 64}",
    "SERVE_URI": f"{HOME}/byoc-serve@sha256:{'2' * 64}",
    "BUCKET": f"sagemaker-{REGION}-{ACCOUNT}",
    "JOB": "byoc-train-1",
}
# The first request of each script that sends some.
FIRST = {
    "make_role.py": ("CreateRole", "DeleteRolePolicy"),
    "push.sh": ("CreateRepository",),
    "prepare_data.py": ("CreateBucket", "PutObject"),
    "train.py": ("CreateTrainingJob", "CreateBucket", "PutObject"),
    "tune.py": ("CreateHyperParameterTuningJob",),
    "deploy.py": (
        "CreateModel", "PutMetricAlarm", "CopyObject", "DeleteObject", "CreateModelPackageGroup", "UpdateModelPackage",
    ),
    "transform.py": ("PutObject",),
    "cleanup.py": ("DeleteEndpoint",),
}  # fmt: skip


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 140
    assert len(text.split()) <= 1170
    start = text.partition("## What it looks like")[0]
    rows = ("For you if", "Not for you if", "Costs", "How good", "How fast", "Not proved", "Licence")
    for said in ("Status", "Quick start", *rows):
        assert said in start, said


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_link_leads_somewhere(file: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    kept = {ROOT / line for line in listed.stdout.splitlines()}
    for link in documents.links(file):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target in kept or any(target in other.parents for other in kept), f"{name(file)}: {link}"
        if anchor:
            assert anchor in documents.anchors(target), f"{name(file)}: {link}"


def test_every_page_is_in_the_index() -> None:
    index = {link.partition("#")[0] for link in documents.links(DOCS / "README.md")}
    assert {page.name for page in DOCS.glob("*.md")} - index == {"README.md"}


def test_every_block_of_commands_is_run_or_checked_or_says_why_not() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)\(", sources, re.MULTILINE))
    for block in documents.blocks():
        at = f"{name(block.file)}: {block.text}"
        assert block.language in documents.LANGUAGES, at
        if block.language == "sh":
            assert re.fullmatch(rf"run: \w+( \w+)*|{DRY_RUN}|not run: .{{10,}}", block.mark), at
            for test in block.tests:
                assert test in tests, at
                assert f'commands("{test}")' in sources, f"{test} does not run what {name(block.file)} says"
            for file in re.findall(r"tests/[\w/]+\.py", block.mark):
                assert (ROOT / file).is_file(), at


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's images, and with the settings that docs/aws.md shows; AWS is nowhere."""
    trees.fill(tmp_path / "DIR", {"train": 2, "valid": 1, "test": 1})
    (toml,) = [block.text for block in documents.blocks(DOCS / "aws.md") if block.language == "toml"]
    (tmp_path / "byoc.toml").write_text(toml)
    monkeypatch.chdir(tmp_path)
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "BYOC_ROLE", "BYOC_BUCKET"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(variable, value)
    return tmp_path


def module(script: str) -> Any:
    """The module of scripts/NAME.py or scripts/NAME.sh."""
    stem = Path(script).stem
    return importlib.import_module("scripts.images.push" if stem == "push" else f"scripts.{stem}")


def filled(command: str) -> list[str]:
    """A command's words, with what a user puts in place of the words in capitals."""
    return documents.words(re.sub(r"\b[A-Z_]{3,}\b", lambda word: VALUES.get(word[0], word[0]), command))


def of_modes() -> list[str]:
    """The commands in the table of ways to deploy, but the one for this machine."""
    cells = [row[3].strip("`") for row in documents.rows(DOCS / "deployment.md", "Deployment")]
    return [command for command in cells if "--local" not in command]


@pytest.mark.parametrize("command", [*documents.marked(DRY_RUN), *of_modes()])
def test_dry_runs_print_requests_and_need_no_account(
    command: str, nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, *arguments = filled(command)
    program = Path(script).name
    if program not in FIRST:
        assert program == "predict.py"  # creates nothing; its flags are checked below
        return
    if program == "prepare_data.py" or "--data" in arguments:
        arguments = [*arguments, "--bucket", VALUES["BUCKET"]]
    assert module(script).main([*arguments, "--config", str(nowhere / "byoc.toml"), "--dry-run"]) == 0
    requests = [request["operation"] for request in json.loads(capsys.readouterr().out)]
    assert requests[0] in FIRST[program]
    assert sorted(nowhere.iterdir()) == [nowhere / "DIR", nowhere / "byoc.toml"]


def test_requests_to_be_sent_by_hand_are_ones_that_the_service_takes() -> None:
    operations = {
        "Containers": "CreateModel",
        "ProductionVariants": "CreateEndpointConfig",
        "Specification": "CreateInferenceComponent",
    }
    found = [json.loads(block.text) for block in documents.blocks(DOCS / "deployment.md") if block.language == "json"]
    assert len(found) == len(operations)
    for request in found:
        (operation,) = [operations[key] for key in request if key in operations]
        check(Request("sagemaker", operation, request))


def help_of(call: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The flags that a program's --help names."""
    with pytest.raises(SystemExit):
        call()
    return set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))


def flags_of(
    found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[set[str], bool] | None:
    """The flags that a command's program takes, and whether hyperparameters are among them; None if it is not ours."""
    program, *arguments = found
    if program == ".venv/bin/python":
        if arguments[0] == "-m":
            if arguments[1] == "container_train":
                return set(), True
            if arguments[1] == "container_serve":
                return help_of(lambda: serving.main(["--help"]), capsys), False
            monkeypatch.setattr(sys, "argv", ["export", "--help"])
            return help_of(exporting.main, capsys), False
        program = arguments[0]
    elif program in ("curl", "make"):
        return None
    assert (ROOT / program).is_file(), program
    stem = Path(program).name
    if program.startswith("scripts/") and stem != "build.sh":
        taken = help_of(lambda: module(program).main(["--help"]), capsys)
        return taken, stem in ("train.py", "tune.py")
    if stem in ("run.sh", "train_local.sh"):
        return help_of(lambda: options.parse(["--help"]), capsys), True
    if stem == "serve_local.sh":
        return help_of(lambda: serve_local.serve(["--help"]), capsys), False
    interpreter = [sys.executable] if program.endswith(".py") else []
    said = subprocess.run([*interpreter, ROOT / program, "--help"], capture_output=True, text=True)
    return set(re.findall(r"--[a-z][\w-]*", said.stdout)), False


def every_command() -> list[str]:
    return list(
        dict.fromkeys(line for block in documents.blocks() if block.language == "sh" for line in block.commands)
    )


@pytest.mark.parametrize("command", every_command())
def test_every_flag_is_one_that_the_program_takes(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = documents.words(command)
    if found[0] == "make":
        assert re.search(rf"^{found[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    taken = flags_of(found, monkeypatch, capsys)
    if taken is None:
        return
    flags, trains = taken
    given = dict.fromkeys(word.partition("=")[0] for word in found if word.startswith("--"))
    of_training = [flag for flag in given if flag not in flags]
    assert not of_training or trains, f"{command}: no flag {of_training[0]}"
    pairs = [word for flag in of_training for word in (flag, found[found.index(flag) + 1])]
    command_line.parse(pairs)


def test_every_recipe_has_hyperparameters_that_the_training_takes() -> None:
    recipes = [
        code for row in documents.rows(DOCS / "recipes.md", "Recipes") for code in re.findall(r"`(--[^`]+)`", row[1])
    ]
    assert len(recipes) > 5
    for recipe in recipes:
        command_line.parse(recipe.split())


def test_the_table_of_hyperparameters_is_that_of_the_code() -> None:
    """A new one, or another text: put the row that the failure shows into docs/training.md."""
    expected = [[f"`{name}`", hyperparameters.default_words(name), option.help] for name, option in OPTIONS.items()]
    assert documents.rows(DOCS / "training.md", "Hyperparameters") == expected


def test_the_table_of_rules_is_that_of_the_code() -> None:
    def parameters(defaults: Mapping[str, object]) -> str:
        return ", ".join(f"`{key}={value}`" for key, value in defaults.items())

    expected = {f"`{rule}`": parameters(defaults) for rule, defaults in {**KNOWN, **DEFAULTS}.items()}
    found = documents.rows(DOCS / "debugger.md", "Rules")
    assert {row[0]: row[2] for row in found} == expected
    assert all(row[1] for row in found)


def test_prices_are_those_of_the_code() -> None:
    training, endpoint = instances.PRICES["ml.g4dn.xlarge"], instances.PRICES["ml.m5.large"]
    year, month = instances.PRICE_MONTH.split("-")
    for file in (ROOT / "README.md", DOCS / "aws.md"):
        text = file.read_text()
        assert f"{training:.2f} USD per hour" in text
        assert f"{endpoint:.2f} USD per hour" in text
        assert f"{endpoint * 24 * 30:.0f} USD" in text
        assert f"{instances.PRICE_REGION}, {calendar.month_name[int(month)]} {year}" in text
        assert instances.PRICE_PAGE in (DOCS / "aws.md").read_text()


def test_every_variable_of_the_server_is_in_the_table() -> None:
    source = (ROOT / "container_serve" / "settings.py").read_text()
    names = set(re.findall(r'"((?:SAGEMAKER|BYOC)_[A-Z_]+)"', source)) - {"BYOC_TARGET"}  # set by the images
    assert len(names) >= len(fields(Settings)) - 2
    cells = [row[0] for row in documents.rows(DOCS / "serving.md", "Settings")]
    assert set(re.findall(r"`([A-Z_]+)`", " ".join(cells))) == names


def test_every_variable_that_is_named_is_read_somewhere() -> None:
    product = [ROOT / name for name in ("container_serve", "container_train", "local_test", "scripts", "docker")]
    source = "".join(
        path.read_text() for folder in product for path in folder.rglob("*") if path.suffix in (".py", ".sh", ".java")
    )
    for file in FOR_USERS:
        for variable in re.findall(r"\b(?:SAGEMAKER|BYOC)_[A-Z_]+\b", file.read_text()):
            assert variable in source, f"{name(file)}: {variable}"


def test_every_metric_line_is_named() -> None:
    text = (DOCS / "training.md").read_text()
    assert all(f"`{metric}`" in text for metric in NAMES)


@pytest.mark.parametrize("file", FOR_USERS, ids=name)
def test_every_path_that_is_named_exists(file: Path) -> None:
    for path in re.findall(r"`((?:scripts|local_test|docker|docs|tests|container_\w+)/[\w./]*)`", file.read_text()):
        if not path.startswith(("local_test/out", "local_test/tuning", "tests/bench/results")):  # made by runs
            assert (ROOT / path).exists(), path


def test_every_message_of_troubleshooting_is_one_of_the_programs() -> None:
    suffixes = (".py", ".sh", ".java")
    product = [ROOT / name for name in ("container_serve", "container_train", "local_test", "scripts")]
    sources = [path.read_text() for folder in product for path in folder.rglob("*") if path.suffix in suffixes]
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 15
    for message in quoted:
        assert any(message in source for source in sources), message
