from pathlib import Path
from typing import Any

import numpy as np
import pytest
from smdebug.core.modes import ModeKeys
from smdebug.core.tfrecord.tensor_reader import TensorReader

from container_train.debugger import events

TENSORS: list[tuple[str, Any]] = [
    ("a/b_c.weight", np.arange(300, dtype="<f4").reshape(3, 100)),
    ("scalar", np.array(float("nan"), dtype="<f4")),
    ("labels", np.array([1, 2, 133], dtype="<f4")),
]


def test_smdebug_reads_what_was_written(tmp_path: Path) -> None:
    written = events.write(tmp_path, 12345, ModeKeys.EVAL, 7, TENSORS)
    file = tmp_path / "events/000000012345/000000012345_worker_0.tfevents"
    index = tmp_path / "index/000000012/000000012345_worker_0.json"
    assert written == file.stat().st_size + index.stat().st_size
    read = list(TensorReader(file.read_bytes()).read_tensors(check="minimal"))
    assert [(name, step, mode, mode_step) for name, step, _, mode, mode_step in read] == [
        (name, 12345, ModeKeys.EVAL, 7) for name, _ in TENSORS
    ]
    for (_, wanted), (_, _, got, _, _) in zip(TENSORS, read, strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype
    assert not list(tmp_path.rglob("*.tmp"))


def test_nothing_half_written_is_left_where_the_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="index"):
        events.write(tmp_path, 0, ModeKeys.TRAIN, 0, TENSORS)
    assert not list(tmp_path.rglob("*.tmp"))
