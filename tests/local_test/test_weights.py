"""The weights that a run takes, with a real server and a port where there is none."""

import functools
import http.server
from collections.abc import Iterator
from pathlib import Path

import pytest

from container_train.errors import TrainError
from local_test import weights
from local_test.errors import LocalError
from local_test.weights import Weights
from tests import web
from tests.conftest import Patch

NAME = "resnet50-11ad3fa6.pth"
NOWHERE = f"http://127.0.0.1:9/models/{NAME}"


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def there(tmp_path: Path) -> Iterator[str]:
    """A URL under which a file of this name is."""
    (tmp_path / NAME).write_bytes(b"weights")
    with web.serving(functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))) as url:  # type: ignore[arg-type]
        yield f"{url}/{NAME}"


choose = functools.partial(weights.choose, is_sample=True, in_container=False)


def test_only_the_sample_falls_back_and_says_so(there: str) -> None:
    fallen = choose(None, NOWHERE)
    assert fallen.hyperparameter == "none"
    assert "127.0.0.1" in fallen.note
    assert "RANDOM" in fallen.note
    assert choose(None, there) == Weights(None, None)
    assert weights.unreachable(there) == ""
    assert "404" in weights.unreachable(there + "x")


@pytest.mark.parametrize(("asked", "is_sample"), [(None, False), ("DEFAULT", True)])
def test_others_are_told_what_to_do(asked: str | None, is_sample: bool) -> None:
    with pytest.raises(LocalError, match=r"--weights FILE.*--weights none"):
        choose(asked, NOWHERE, is_sample=is_sample)


def test_a_file_that_the_hub_keeps_is_used(tmp_path: Path) -> None:
    kept = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert choose(None, NOWHERE) == Weights(None, None)
    assert choose(None, NOWHERE, in_container=True) == Weights(kept, None)


def test_a_file_that_timm_s_hub_keeps_is_used(tmp_path: Path, monkeypatch: Patch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    url = weights.url_of({"arch": "timm/resnet10t"})
    assert url == "https://huggingface.co/timm/resnet10t.c3_in1k/resolve/main/model.safetensors"
    assert not weights.hub_file(url).is_file()
    hub = tmp_path / "models--timm--resnet10t.c3_in1k"
    kept = hub / "snapshots" / ("0" * 40) / "model.safetensors"
    for file, content in ((kept, "weights"), (hub / "refs" / "main", "0" * 40)):
        file.parent.mkdir(parents=True)
        file.write_text(content)
    assert choose(None, url, is_sample=False) == Weights(None, None)
    assert choose(None, url, is_sample=False, in_container=True) == Weights(kept, None)


def test_a_model_that_timm_does_not_have_is_told_at_once() -> None:
    with pytest.raises(TrainError, match=r"'timm/convnext_tini': .*did you mean timm/convnext_tiny"):
        weights.url_of({"arch": "timm/convnext_tini"})
    assert weights.url_of({"arch": "timm/resnet10t", "weights": "none"}) is None


def test_a_file_is_a_channel_and_a_word_a_hyperparameter(tmp_path: Path) -> None:
    assert choose(tmp_path / "w.pth", None) == Weights(tmp_path / "w.pth", None)
    assert choose("none", None) == Weights(None, "none")
