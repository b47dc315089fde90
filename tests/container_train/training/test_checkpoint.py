import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import nn

from container_train.errors import TrainError
from container_train.training import checkpoint

IDENTITY = {"data": "abc", "lr": 0.1}


def test_round_trip(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, IDENTITY, {"epoch": 3, "step": 2, "model": {"w": torch.ones(2)}})
    state = checkpoint.load(tmp_path, IDENTITY)
    assert state is not None
    assert state["epoch"] == 3
    assert torch.equal(state["model"]["w"], torch.ones(2))
    assert checkpoint.load(tmp_path / "nothing", IDENTITY) is None


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_cut_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(tmp_path, IDENTITY, {"epoch": 1, "step": 0})
    checkpoint.save(tmp_path, IDENTITY, {"epoch": 2, "step": 0})
    current = tmp_path / checkpoint.CURRENT
    current.write_bytes(current.read_bytes()[:keep])
    state = checkpoint.load(tmp_path, IDENTITY)
    assert state is not None
    assert state["epoch"] == 1
    assert f"{checkpoint.CURRENT} is not readable ({keep} bytes, damaged or no checkpoint: " in caplog.text
    assert "weights_only" not in caplog.text  # torch's advice


def test_a_named_pipe_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, IDENTITY, {"epoch": epoch, "step": 0})
    (tmp_path / checkpoint.CURRENT).unlink()
    os.mkfifo(tmp_path / checkpoint.CURRENT)
    state = checkpoint.load(tmp_path, IDENTITY)
    assert state is not None
    assert state["epoch"] == 1


@pytest.mark.parametrize("content", [[1, 2], {}, {"identity": {}}, {"identity": [], "epoch": 2, "step": 0}])
def test_what_is_no_checkpoint_gives_way_to_the_one_before(tmp_path: Path, content: object) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, {"lr": 1}, {"epoch": epoch, "step": 0})
    torch.save(content, tmp_path / checkpoint.CURRENT)
    state = checkpoint.load(tmp_path, {"lr": 1})
    assert state is not None
    assert state["epoch"] == 1


def test_another_training_s_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, IDENTITY, {"epoch": 1, "step": 0})
    with pytest.raises(TrainError, match=r"made with lr 0.1, this job has 0.2: use an empty checkpoint folder"):
        checkpoint.load(tmp_path, {**IDENTITY, "lr": 0.2})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"data": "def"}, r"was made with other images: use an empty checkpoint folder, or the settings and data of"),
        # Of 10,000 classes the list would be the whole message.
        ({"classes": ["cat"] * 10_000}, "was made with other classes: use"),
        ({"frozen layers": "0a1b"}, "was made with other weights of the frozen layers: use"),
    ],
)
def test_what_a_value_would_not_tell_is_said_in_words(other: dict[str, Any], words: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"classes": ["dog"] * 10_000, **IDENTITY}, {"epoch": 1, "step": 0})
    with pytest.raises(TrainError, match=words) as error:
        checkpoint.load(tmp_path, {**IDENTITY, **other})
    assert len(str(error.value)) < 400


def test_a_failed_write_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, IDENTITY, {"epoch": 1, "step": 0})

    @contextlib.contextmanager
    def full(path: Path) -> Iterator[BinaryIO]:
        with Path("/dev/full").open("wb") as file:
            yield file

    monkeypatch.setattr(checkpoint, "replacing", full)
    for size in (1, 10**6):  # a write that fails at the end, and one that fails at once
        with pytest.raises(TrainError, match="No space left on device"):
            checkpoint.save(tmp_path, IDENTITY, {"epoch": 2, "step": 0, "model": {"a": torch.zeros(size)}})
    state = checkpoint.load(tmp_path, IDENTITY)
    assert state is not None
    assert state["epoch"] == 1


def test_a_disk_that_is_full_in_the_middle_of_a_write_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() + len(content) > 1_000_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    @contextlib.contextmanager
    def small(path: Path) -> Iterator[BinaryIO]:
        yield Small()

    monkeypatch.setattr(checkpoint, "replacing", small)
    with pytest.raises(TrainError, match="No space left on device; the one before it is kept"):
        checkpoint.save(
            tmp_path, IDENTITY, {"epoch": 2, "step": 0, "model": {"a": torch.zeros(200_000), "b": torch.zeros(200_000)}}
        )


def test_only_what_changes_is_kept() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    for parameter in model[0].parameters():
        parameter.requires_grad = False
    assert not any(name.startswith("0.") for name in checkpoint.changing(model))
    assert "1.running_mean" in checkpoint.changing(model)
    before = checkpoint.frozen_digest(model)
    with torch.no_grad():
        next(model[0].parameters()).add_(1)
    assert checkpoint.frozen_digest(model) != before
