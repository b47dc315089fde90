import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from container_train.features.location import CHECKPOINT_BYTES, Store
from container_train.paths import SageMakerPaths


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BYOC_FEATURE_CACHE", raising=False)


def test_small_features_lie_in_the_checkpoint_folder_and_large_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**11))
    store = Store.of(SageMakerPaths(tmp_path))
    assert store.place(10**6) == (tmp_path / "checkpoints" / "features", "")
    assert store.place(CHECKPOINT_BYTES + 1) == (tmp_path / "features", "")
    assert store.readable[0] == tmp_path / "input" / "data" / "features"


def test_a_named_folder_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYOC_FEATURE_CACHE", str(tmp_path / "shared"))
    store = Store.of(SageMakerPaths(tmp_path))
    assert store.readable == (tmp_path / "shared",)
    assert store.place(1)[0] == tmp_path / "shared"


def test_what_is_wrong_with_each_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 10**8))
    (tmp_path / "features").write_text("a file in the way")
    folder, reason = Store.of(SageMakerPaths(tmp_path)).place(10**8)
    assert folder is None
    assert "checkpoints/features has room for 0.0 GB" in reason
    assert "cannot be written (File exists)" in reason
    assert Store().place(1) == (None, "no folder was given")
