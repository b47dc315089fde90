"""Options that are refused before anything is started."""

import sys
from pathlib import Path

import pytest

from local_test import engine
from local_test.errors import LocalError
from local_test.options import OUT, parse
from tests.conftest import Patch


def test_defaults_are_the_sample_and_other_flags_hyperparameters() -> None:
    options = parse([])
    assert (options.engine, options.data, options.weights, options.port) == ("auto", "sample", None, None)
    assert (options.out, options.hyperparameters) == (OUT, {})
    options = parse(["--epochs", "2", "--port", "20500", "--lr=0.001", "--weight-decay", "-1", "--batch_size", "64"])
    assert options.hyperparameters == {"epochs": "2", "lr": "0.001", "weight-decay": "-1", "batch_size": "64"}
    assert options.port == 20500


def test_weights_are_a_file_or_a_word(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for given, taken in (("mine.pth", tmp_path / "mine.pth"), ("none", "none"), ("IMAGENET1K_V1", "IMAGENET1K_V1")):
        assert parse(["--weights", given]).weights == taken


def test_without_linux_there_is_no_engine_of_processes(monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LocalError, match="'process' runs on Linux only, and this is darwin: take docker"):
        parse(["--engine", "process"])
    assert parse(["--engine", "docker"]).engine == "docker"
    monkeypatch.setattr(engine, "daemon", lambda: ("", "no Docker daemon answers"))
    with pytest.raises(LocalError, match="no Docker daemon answers: start the daemon"):
        engine.choose("auto", Path())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "podman"], ["--engine", "podman", "docker"]),
        (["--port", "80"], ["--port", "'80'", "32766"]),
        (["--port", "32767"], ["32767"]),
        (["--port", "many"], ["'many'"]),
        (["--data", "nowhere"], ["--data", "nowhere", "no such folder"]),
        (["--data", ""], ["--data is empty"]),
        (["--out", ""], ["--out is empty"]),
        (["--weights="], ["--weights is empty"]),
        (["--weights", "nowhere.pth"], ["nowhere.pth", "none"]),
        (["--epochs"], ["--epochs", "no value"]),
        (["--epochs", "--lr", "1"], ["--epochs", "no value"]),
        (["--epochs", "1", "--epochs=2"], ["--epochs", "twice"]),
        (["--data", "sample", "--data=sample"], ["--data", "more than once"]),
        (["stray"], ["'stray'"]),
        (["--lr", "x" * 2501], ["--lr", "2500"]),
        ([f"--h{n}=1" for n in range(101)], ["101", "100"]),
    ],
)
def test_a_wrong_flag_is_named_in_one_line(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(LocalError) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_data_inside_the_folder_that_is_replaced_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "ml").mkdir(parents=True)
    for data in (tmp_path / "out" / "ml", tmp_path):
        with pytest.raises(LocalError, match="overlap"):
            parse(["--out", str(tmp_path / "out"), "--data", str(data)])
