"""Which weights a run takes, with a real server and a port where there is none."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_test import weights
from local_test.errors import LocalError

NAME = "resnet50-11ad3fa6.pth"
NOWHERE = f"http://127.0.0.1:9/models/{NAME}"


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[str]:
    """A URL under which a file of this name is."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / NAME).write_bytes(b"weights")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "site"))  # type: ignore[arg-type]

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{NAME}"
    server.shutdown()
    thread.join()
    server.server_close()


def choose(
    asked: Path | str | None, url: str | None, *, is_sample: bool = True, in_container: bool = False
) -> weights.Weights:
    return weights.choose(asked, url, is_sample=is_sample, in_container=in_container)


def test_only_the_sample_falls_back_and_says_so(there: str) -> None:
    fallen = choose(None, NOWHERE)
    assert fallen.hyperparameter == "none"
    assert "127.0.0.1" in fallen.note
    assert "RANDOM" in fallen.note
    assert choose(None, there) == weights.Weights(None, None)


@pytest.mark.parametrize(("asked", "is_sample"), [(None, False), ("DEFAULT", True)])
def test_others_are_told_what_to_do(asked: str | None, is_sample: bool) -> None:
    with pytest.raises(LocalError, match=r"--weights FILE.*--weights none") as caught:
        choose(asked, NOWHERE, is_sample=is_sample)
    assert "\n" not in str(caught.value)


def test_a_file_that_the_hub_keeps_is_used(tmp_path: Path) -> None:
    kept = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    assert choose(None, NOWHERE) == weights.Weights(None, None)
    assert choose(None, NOWHERE, in_container=True) == weights.Weights(kept, None)


def test_a_file_is_a_channel_and_a_word_a_hyperparameter(tmp_path: Path) -> None:
    assert choose(tmp_path / "w.pth", None) == weights.Weights(tmp_path / "w.pth", None)
    assert choose("none", None) == weights.Weights(None, "none")


def test_a_missing_file_on_the_server_is_noticed(there: str) -> None:
    assert weights.unreachable(there) == ""
    assert "404" in weights.unreachable(there + "x")
