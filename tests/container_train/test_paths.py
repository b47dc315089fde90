"""The tree's folders."""

from pathlib import Path

import pytest

from container_train.paths import SageMakerPaths


def test_trials_of_a_search_have_checkpoints_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", "/opt/ml")
    monkeypatch.setenv("TRAINING_JOB_NAME", "byoc-search-003-0a1b2c3d")
    monkeypatch.delenv("BYOC_OWN_CHECKPOINTS", raising=False)
    assert SageMakerPaths.from_environment().checkpoints == Path("/opt/ml/checkpoints")
    monkeypatch.setenv("BYOC_OWN_CHECKPOINTS", "1")
    assert SageMakerPaths.from_environment().checkpoints == Path("/opt/ml/checkpoints/byoc-search-003-0a1b2c3d")
