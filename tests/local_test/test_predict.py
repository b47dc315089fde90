"""predict.sh against a server that keeps what it was sent."""

import json
import subprocess
from pathlib import Path

import pytest

from tests import web
from tests.local_test.runs import ROOT

ANSWER = {"predictions": [{"index": 0, "label": "cat", "probability": 0.9}], "model": {}}


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "a dog.JPG").write_bytes(b"\0image\n")
    return subprocess.run([ROOT / "local_test" / "predict.sh", *arguments], cwd=folder, capture_output=True, text=True)


def test_an_image_is_posted_and_any_other_status_is_a_failure(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, str], bytes]] = []
    statuses = [200, 415]

    class Handler(web.Handler):
        def do_POST(self) -> None:
            asked.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(statuses.pop(0))
            self.end_headers()
            self.wfile.write(json.dumps(ANSWER).encode())

    with web.serving(Handler) as url:
        done = predict(tmp_path, "a dog.JPG", "--url", url, "--top-k", "3")
        failed = predict(tmp_path, "a dog.JPG", "--url", f"{url}/invocations")
    assert (done.returncode, json.loads(done.stdout)) == (0, ANSWER), done.stderr
    (path, headers, body), _ = asked
    assert (path, body) == ("/invocations", b"\0image\n")
    assert headers["Content-Type"] == "application/x-image"
    assert headers["X-Amzn-SageMaker-Custom-Attributes"] == "top_k=3"
    assert (failed.returncode, json.loads(failed.stdout)) == (1, ANSWER)
    assert "415" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "word", "code"),
    [
        ([], "no image", 2),
        (["nowhere.jpg"], "nowhere.jpg", 2),
        (["a dog.JPG", "b.jpg"], "one image", 2),
        (["a dog.JPG", "--top-k", "0"], "--top-k 0: must be", 2),
        (["a dog.JPG", "--url"], "--url", 2),
        (["a dog.JPG", "--fast"], "--fast", 2),
        (["a dog.JPG", "--url", "http://127.0.0.1:9"], "serve_local.sh", 1),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, arguments: list[str], word: str, code: int) -> None:
    done = predict(tmp_path, *arguments)
    assert done.returncode == code
    assert word in done.stderr.splitlines()[-1]
