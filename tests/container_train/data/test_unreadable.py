"""Images that turn out to be unreadable during the training: left out by all processes when an epoch ends."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container_train.data.files import Files, Split
from container_train.data.unreadable import Unreadable
from container_train.distributed.process_group import SINGLE, ProcessGroup
from container_train.errors import TrainError
from tests.container_train.ranks import in_processes


def splits(root: Path, **counts: int) -> dict[str, Split]:
    """None of their images is there."""
    return {
        name: Split(name, Files(root / name, [f"a/{n}.jpg" for n in range(count)]), np.zeros(count, dtype=np.int64))
        for name, count in counts.items()
    }


def test_an_image_keeps_its_place_until_the_epoch_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = Unreadable(splits(tmp_path, train=100, valid=20), {"train/b/1.jpg": "broken"}, checked=50)
    found.use("train", 60, [7, 3])
    assert len(found.remaining("train")) == 100
    assert list(found.files) == ["train/b/1.jpg"]
    found.share(SINGLE)
    kept = copy.deepcopy(found.state())
    found.use("train", 40)
    assert found.agree(SINGLE)
    assert found.remaining("train").tolist() == [i for i in range(100) if i not in (3, 7)]
    assert len(found.readable("train")) == 98
    assert "train/a/3.jpg" in found.files
    assert "No such file" in found.files["train/a/7.jpg"]
    assert [record.message.split(": ")[0] for record in caplog.records] == [
        "skipped train/a/7.jpg", "skipped train/a/3.jpg", "left out from now on",
    ]  # fmt: skip
    assert not found.agree(SINGLE), "said once"
    # A job that was interrupted within the epoch leaves the same out at the epoch's end, though it sees the rest only.
    again = Unreadable(splits(tmp_path, train=100, valid=20), {"train/b/1.jpg": "broken"}, checked=50)
    again.resume(kept)
    assert len(again.remaining("train")) == 100
    again.use("train", 40)
    assert again.agree(SINGLE)
    assert again.remaining("train").tolist() == found.remaining("train").tolist()
    assert again.state() == found.state()


def test_more_than_a_twentieth_of_what_was_seen_ends_the_job(tmp_path: Path) -> None:
    found = Unreadable(splits(tmp_path, train=1000, valid=20), {"train/b/1.jpg": "broken"}, checked=10)
    found.use("train", 99, range(5))
    with pytest.raises(
        TrainError, match=r"6 of 99 files are not readable images, more than 5%: train/b/1.jpg: broken; "
    ):
        found.agree(SINGLE)
    found = Unreadable(splits(tmp_path, train=1000, valid=20), {}, checked=500)
    found.use("train", 99, range(5))
    assert found.agree(SINGLE), "with those that were checked before"
    for _ in range(50):  # the same ones in other epochs are not seen anew
        found.use("train", 1000)
        found.agree(SINGLE)
    found.use("valid", 20, range(20))
    found.use("train", 0, range(100, 140))
    with pytest.raises(TrainError, match=r"65 of 1020 files are not readable"):
        found.agree(SINGLE)


def test_very_many_end_the_job_within_the_epoch(tmp_path: Path) -> None:
    found = Unreadable(splits(tmp_path, train=100_000), {}, checked=0)
    found.use("train", 200, range(100))
    with pytest.raises(TrainError, match=r"101 of 300 files are not readable images"):
        found.use("train", 100, range(100, 101))


def test_a_split_without_any_readable_image_ends_the_job(tmp_path: Path) -> None:
    found = Unreadable(splits(tmp_path, train=1000, valid=2), {}, checked=0)
    found.use("train", 1000)
    found.use("valid", 2, range(2))
    with pytest.raises(TrainError, match="channel valid: none of its images can be read"):
        found.agree(SINGLE)


def epoch(group: ProcessGroup, root: Path) -> tuple[list[int], dict[str, Any], bool]:
    """One of the processes: each notes an image of its own."""
    rank = group.rank
    found = Unreadable(splits(root, train=100), {}, checked=0)
    found.use("train", 25, [10 + rank])
    found.share(group)
    state = found.state()
    if rank:  # only the first one's is in the checkpoint
        found = Unreadable(splits(root, train=100), {}, checked=0)
        found.resume(state)
    found.use("train", 25, [90] if rank else [])
    left_out = found.agree(group)
    return found.remaining("train").tolist(), state, left_out


def test_all_processes_leave_the_same_out(tmp_path: Path) -> None:
    first, second = in_processes(2, epoch, tmp_path)
    assert first == second
    assert first[0] == [index for index in range(100) if index not in (10, 11, 90)]
    assert sorted(first[1]["noted"]["train"]) == [10, 11]
    assert first[1]["seen"] == {"train": 50}
