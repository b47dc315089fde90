"""Facts about a job's hosts and GPUs before anything is started."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from container_train import command_line
from container_train.distributed import cluster
from container_train.distributed.cluster import PORT, TIMEOUT, Cluster, usable
from container_train.errors import TrainError
from container_train.paths import SageMakerPaths


@pytest.mark.parametrize(
    ("name", "read", "values"),
    [
        (PORT, lambda: cluster.variable(PORT, 29400, 65535), ["abc", "0", "65536", "-1", "29400.5", "٣"]),
        (TIMEOUT, cluster.collective_timeout, ["soon", "0", "-1", "nan", "inf"]),
    ],
)
def test_a_number_that_is_none_is_refused(
    name: str, read: Callable[[], int], values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in values:
        monkeypatch.setenv(name, value)
        with pytest.raises(TrainError, match=f"{name} has value '{value}': expected an integer from 1 to "):
            read()


def test_an_interface_that_is_not_there_gives_way_to_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """SDK v3's local mode names one, ethwe, that no container has."""
    assert usable("lo") == "lo"
    assert capsys.readouterr().err == ""
    assert usable("ethwe") == ""
    assert re.match(
        r"warning: resourceconfig.json: network_interface_name 'ethwe' is not an interface of this host \(it has .*lo",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--device cpu", "cpu"),
        ("--epochs 3 --device=cpu", "cpu"),
        ("--device=cuda --device CPU", "cpu"),  # the last one counts, as where all are read
        ("--batch_size=4 --device=cpu", "cpu"),
        ("--unknown 3 --device=cpu --lr x", "cpu"),  # told later, in a process that has a failure file
        ("--device", "auto"),
        ("--help", "auto"),
        ("", "auto"),
    ],
)
def test_the_device_is_read_however_it_is_written(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command_line.device(words.split()) == expected
    monkeypatch.setattr(cluster, "gpus", lambda: 4)
    assert Cluster.of(SageMakerPaths(tmp_path), words.split()).size == (1 if expected == "cpu" else 4)
