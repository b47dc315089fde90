"""predict.sh against a server that keeps what it was sent."""

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSWER = {"predictions": [{"index": 0, "label": "cat", "probability": 0.9}], "model": {}}


class Server(http.server.ThreadingHTTPServer):
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started = Server()
    thread = threading.Thread(target=started.serve_forever, args=(0.01,))
    thread.start()
    yield started
    started.shutdown()
    thread.join()
    started.server_close()


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "local_test" / "predict.sh", *arguments], cwd=folder, capture_output=True, text=True)


def test_an_image_is_posted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a dog.JPG").write_bytes(b"\0picture\n")
    done = predict(tmp_path, "a dog.JPG", "--url", server.url, "--top-k", "3")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ANSWER
    ((path, headers, body),) = server.asked
    assert (path, body) == ("/invocations", b"\0picture\n")
    assert headers["Content-Type"] == "application/x-image"
    assert headers["X-Amzn-SageMaker-Custom-Attributes"] == "top_k=3"


def test_any_other_status_is_a_failure(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    server.status = 415
    done = predict(tmp_path, "a.jpg", "--url", f"{server.url}/invocations")
    assert done.returncode == 1
    assert "415" in done.stderr
    assert json.loads(done.stdout) == ANSWER


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "no image"),
        (["nowhere.jpg"], "nowhere.jpg"),
        (["a.jpg", "b.jpg"], "one image"),
        (["a.jpg", "--top-k", "0"], "--top-k"),
        (["a.jpg", "--url"], "--url"),
        (["a.jpg", "--fast"], "--fast"),
    ],
)
def test_a_wrong_flag_is_named(tmp_path: Path, arguments: list[str], word: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    done = predict(tmp_path, *arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_server_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    done = predict(tmp_path, "a.jpg", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "serve_local.sh" in done.stderr
