"""predict.py against moto's endpoint, and against the real server on this machine."""

import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from container_serve.codec import requests as codec
from scripts import predict
from scripts.console.command import run
from scripts.endpoints import images
from scripts.endpoints.invocations import EndpointTarget
from tests.cloud.answers import error, give
from tests.cloud.conftest import REGION
from tests.contract.models import picture, write_model
from tests.contract.serving import Server, free_port, serving, until

ANSWER = {
    "predictions": [
        {"index": 1, "label": "Beagle", "probability": 0.75},
        {"index": 0, "label": "Affenpinscher", "probability": 0.2},
    ],
    "model": {"architecture": "resnet50", "precision": "fp32", "sha256": "0f3c6a52b1de"},
}


def call(*arguments: object) -> int:
    return run("predict.py", predict.main, [str(argument) for argument in arguments])


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.splitlines()[-1]


@pytest.fixture
def dog(tmp_path: Path) -> Path:
    path = tmp_path / "dog.jpg"
    path.write_bytes(picture("red"))
    return path


# At an endpoint


class Body:
    """An answer's body, which may be read for every request."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self) -> bytes:
        return self.content


GOOD = {"Body": Body(json.dumps(ANSWER).encode()), "ContentType": "application/json"}


@pytest.fixture
def sent(aws: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests as they leave; each is answered as this project's server would (moto takes no pictures)."""
    requests: list[dict[str, Any]] = []
    original = EndpointTarget.__init__

    def init(target: EndpointTarget, *arguments: Any) -> None:
        original(target, *arguments)
        event = "provide-client-params.sagemaker-runtime.InvokeEndpoint"
        target.client.meta.events.register(event, lambda params, **_: requests.append(params))

    monkeypatch.setattr(EndpointTarget, "__init__", init)
    give(monkeypatch, "InvokeEndpoint", GOOD)
    return requests


def test_the_golden_request(sent: list[dict[str, Any]], dog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("byoc-dogs", dog, "--top-k", 2) == 0
    assert re.fullmatch(r"[0-9a-f]{8}-1-dog\.jpg", identifier := sent[0]["InferenceId"])
    assert sent == [
        {
            "EndpointName": "byoc-dogs",
            "ContentType": "image/jpeg",
            "Accept": "application/json",
            "CustomAttributes": "top_k=2",
            "InferenceId": identifier,
            "Body": dog.read_bytes(),
        }
    ]
    heads, _, first, second = capsys.readouterr().out.splitlines()
    assert heads.split() == ["image", "ms", "probability", "label"]
    assert (first.split()[0], first.split()[2:]) == (str(dog), ["0.750", "Beagle"])
    assert second.split() == ["0.200", "Affenpinscher"]


def test_json_of_a_folder_with_latency(
    sent: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(picture(f"#{number}00000", "PNG"))
    (folder / "notes.txt").write_text("not a picture")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    assert call("byoc-dogs", tmp_path / "pictures", "--json") == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == f"not used: 1 file ({folder / 'notes.txt'}), no images of a kind that is read"
    found = json.loads(said.out)
    assert [Path(result["picture"]).name for result in found["results"]] == ["0.png", "1.png", "2.png"]
    assert all(result["predictions"] == ANSWER["predictions"] for result in found["results"])
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p90"]
    assert {request["ContentType"] for request in sent} == {"image/png"}


def test_every_image_of_a_folder_is_asked_about(
    sent: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its suffix; one that the server does not take is a picture that gets no answer."""
    (tmp_path / "pictures").mkdir()
    for name in ("a.jfif", "noext", "b.txt"):
        (tmp_path / "pictures" / name).write_bytes(picture("red"))
    (tmp_path / "pictures" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
    assert call("byoc-dogs", tmp_path / "pictures", "--json") == 1
    results = json.loads(capsys.readouterr().out)["results"]
    assert [Path(result["picture"]).name for result in results] == ["a.jfif", "b.txt", "noext", "phone.HEIC"]
    assert [result.get("error", "") for result in results[:3]] == ["", "", ""]
    assert "is a HEIC image, which the server does not take" in results[3]["error"]
    assert len(sent) == 3


def test_one_refused_picture_does_not_stop_the_others(
    aws: boto3.Session, dog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.dumps({"code": 400, "type": "InvalidImage", "message": "the JPEG image is broken or truncated"})
    refused = error("ModelError", "Received client error (400)", OriginalStatusCode=400, OriginalMessage=body)
    give(monkeypatch, "InvokeEndpoint", refused, GOOD)
    heic = tmp_path / "phone.jpg"
    heic.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    other = tmp_path / "other.jpg"
    other.write_bytes(picture("blue"))
    paths = [dog, heic, tmp_path / "gone.jpg", other]
    assert call("byoc-dogs", *paths, "--json", "--threads", 1) == 1
    captured = capsys.readouterr()
    results = json.loads(captured.out)["results"]
    assert [result["picture"] for result in results] == [str(path) for path in paths]
    assert results[0]["error"] == "400 InvalidImage: the JPEG image is broken or truncated"
    assert "HEIC" in results[1]["error"]
    assert results[2]["error"] == "No such file or directory"
    assert results[3]["predictions"] == ANSWER["predictions"]
    assert "3 of 4 predictions failed" in captured.err


@pytest.mark.parametrize(
    ("answer", "described", "complaint"),
    [
        (
            error("ValidationError", "Endpoint byoc-dogs of account 123456789012 not found."),
            error("ValidationException", 'Could not find endpoint "byoc-dogs".'),
            f"there is no endpoint byoc-dogs in {REGION}: check the name and --region",
        ),
        (
            error("ValidationError", "Endpoint byoc-dogs of account 123456789012 not found."),
            {"EndpointName": "byoc-dogs", "EndpointArn": "a" * 20, "EndpointStatus": "Creating"},
            f"byoc-dogs is Creating; wait for it with scripts/deploy.py --attach byoc-dogs --region {REGION}",
        ),
        (
            error("ValidationError", "Endpoint byoc-dogs of account 123456789012 not found."),
            error("AccessDeniedException", "not authorized to perform: sagemaker:DescribeEndpoint"),
            "Endpoint byoc-dogs of account 123456789012 not found.",
        ),
        (error("AccessDeniedException", "not authorized"), None, "scripts/iam/scripts.json"),
        (error("ExpiredTokenException", "expired"), None, "aws sso login"),
    ],
)
def test_what_is_wrong_with_all_requests_is_said_once(
    aws: boto3.Session,
    dog: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: Any,
    described: Any,
    complaint: str,
) -> None:
    give(monkeypatch, "InvokeEndpoint", answer)
    give(monkeypatch, "DescribeEndpoint", described)
    assert call("byoc-dogs", dog, dog, dog) == 1
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_a_web_page_for_an_answer(
    aws: boto3.Session, dog: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = "<!DOCTYPE html>\n<html><body>Sign in</body></html>"
    give(monkeypatch, "InvokeEndpoint", {"Body": Body(page.encode()), "ContentType": "text/html"})
    assert call("byoc-dogs", dog, dog) == 1
    captured = capsys.readouterr()
    assert "answered with a web page, not JSON: check AWS_ENDPOINT_URL and HTTPS_PROXY" in captured.err
    assert len(captured.err.splitlines()) == 1
    give(monkeypatch, "InvokeEndpoint", error("404", page))
    assert call("byoc-dogs", dog) == 1
    assert "check AWS_ENDPOINT_URL" in last_line(capsys)
    # A proxy's trouble may pass.
    give(monkeypatch, "InvokeEndpoint", error("501", page, ResponseMetadata={"HTTPStatusCode": 501}), GOOD)
    assert call("byoc-dogs", dog, dog, "--threads", 1, "--json") == 1
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["error"].startswith("501 ")
    assert results[0]["error"].endswith("answered with a web page, not JSON")
    assert results[1]["predictions"] == ANSWER["predictions"]
    # So may be what the endpoint's own program says.
    refused = error("ModelError", "Received server error", OriginalStatusCode=500, OriginalMessage=page)
    give(monkeypatch, "InvokeEndpoint", refused)
    assert call("byoc-dogs", dog, "--json") == 1
    assert json.loads(capsys.readouterr().out)["results"][0]["error"] == "500 a web page, not JSON"


@pytest.mark.parametrize("status", [200, 404])
def test_a_web_server_that_is_not_ours(dog: Path, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html><body>welcome</body></html>")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert call("--local", url, dog, dog, "--threads", 1) == 1
        server.shutdown()
    captured = capsys.readouterr()
    assert captured.err == f"predict.py: {url}/invocations answered with a web page, not JSON: is the URL right?\n"


def test_a_server_that_does_not_speak_http(dog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                while connection.recv(1 << 16):
                    pass

        threading.Thread(target=greet, daemon=True).start()
        assert call("--local", f"http://127.0.0.1:{server.getsockname()[1]}", dog) == 1
    assert "speaks no HTTP (('Connection aborted.', BadStatusLine('SSH-2.0-OpenSSH" in last_line(capsys)


def test_a_wrong_call_does_not_wait_for_libraries_of_pictures() -> None:
    program = (
        "import sys; from scripts import predict\n"
        "try: predict.main(['--top-k', '0', 'byoc-dogs', 'dog.jpg'])\n"
        "except Exception as end: assert end.code == 2\n"
        "sys.exit(bool({'numpy', 'PIL', 'container_serve.codec', 'tqdm'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(predict.__file__).parents[1])


def test_as_many_classes_as_the_server_names() -> None:
    assert predict.MAX_TOP_K == codec.MAX_TOP_K


def test_the_answer_of_another_server(
    aws: boto3.Session, dog: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, "InvokeEndpoint", {"Body": Body(b"body"), "ContentType": "text/plain"})
    assert call("byoc-dogs", dog) == 1
    assert "error: the answer is not of this project's form: b'body'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["byoc-dogs", "{dog}"], "no region"),
        (["byoc-dogs"], "no images"),
        (["{dog}", "{dog}"], "name the endpoint first"),
        (["--local", "ftp://here", "{dog}"], "--local has value 'ftp://here'"),
        (["--local", "http://127.0.0.1:abc", "{dog}"], "--local has value 'http://127.0.0.1:abc': expected a URL"),
        (["--local", "http://local host:80", "{dog}"], "expected a URL"),
        (["--local", "http://[::1", "{dog}"], "expected a URL"),
        (["--local", "localhost:1", "{empty}"], "no images in this folder"),
    ],
)
def test_wrong_calls(
    dog: Path, tmp_path: Path, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert call(*(text.format(dog=dog, empty=tmp_path / "empty") for text in arguments)) == 2
    assert complaint in last_line(capsys)


# Pictures


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_type_is_that_of_the_bytes(tmp_path: Path, form: str) -> None:
    path = tmp_path / "misnamed.jpg"
    path.write_bytes(picture("red", form))
    body = images.prepare(path)
    assert body == images.Body(path.read_bytes(), f"image/{form.lower()}", None)


def noise(path: Path, form: str, side: int, **options: Any) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, form, **options)
    return path


def test_too_many_bytes_are_scaled_down(tmp_path: Path) -> None:
    path = noise(tmp_path / "big.png", "PNG", 300)
    body = images.prepare(path, max_bytes=100_000)
    assert len(body.content) <= 100_000
    assert body.content_type == "image/jpeg"
    with Image.open(io.BytesIO(body.content)) as scaled:
        assert abs(scaled.width - 2 * scaled.height) <= 2
        size = f"{scaled.width} x {scaled.height}"
    bytes_there = f"{path.stat().st_size:,} bytes, over 100,000"
    assert body.notice == f"has {bytes_there}: sent as JPEG of {size}, {len(body.content):,} bytes"


def test_too_many_pixels_are_scaled_down_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    path = noise(tmp_path / "phone.jpg", "JPEG", 100, exif=exif)
    body = images.prepare(path, max_pixels=5_000)
    with Image.open(io.BytesIO(body.content)) as scaled:
        assert scaled.width < scaled.height
        assert scaled.width * scaled.height <= 5_000
        assert 0x0112 not in scaled.getexif()
    assert body.notice is not None
    assert "20,000 pixels, over 5,000" in body.notice


def test_a_real_picture_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "panorama.png"
    Image.new("L", (30_000, 2_000), 128).save(path)  # 60 megapixels
    body = images.prepare(path)
    with Image.open(io.BytesIO(body.content)) as scaled:
        assert scaled.height > 800  # what a classifier looks at is still there


def png_of(width: int, height: int) -> bytes:
    """What stands before the pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\1IDAT"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7 and so on", "is not an image that the server takes"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0heicmif1" + bytes(50), "convert it"),
        (b"\0\0\0\x20ftypavif" + bytes(50), "is not an image that the server takes"),
        (picture("red")[:10], "^is a broken image: truncated file read$"),
        (png_of(50_000, 50_000), "^has more than 1,000,000,000 pixels$"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(images.PictureError, match=complaint):
        images.prepare(path)


# At a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serving")
    limit = {"SAGEMAKER_MAX_REQUEST_SIZE": "6291456"}
    with serving(write_model(folder / "model"), folder / "run", limit) as running:
        yield running


@pytest.mark.parametrize("address", ["http://localhost:{}", "127.0.0.1:{}", "http://127.0.0.1:{}/invocations"])
def test_a_local_server_answers(
    server: Server, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = ("red", "green", "blue")
    for colour in colours:
        (tmp_path / f"{colour}.png").write_bytes(picture(colour if colour != "green" else "lime", "PNG"))
    paths = [tmp_path / f"{colour}.png" for colour in colours]
    assert call("--local", address.format(server.port), *paths, "--json", "--top-k", 1) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["predictions"][0]["label"] for result in results] == list(colours)
    assert all(len(result["predictions"]) == 1 for result in results)
    line = "-1-red.png POST /invocations status=200"
    until(lambda: line in server.log(), "the line of an answer in the log", 5)


def test_a_local_servers_refusal_and_a_picture_over_its_limit(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(picture("red", "JPEG", (600, 400))[:-400])
    big = noise(tmp_path / "big.bmp", "BMP", 1100)  # 7.3 MB
    assert call("--local", f"localhost:{server.port}", cut, big) == 1
    captured = capsys.readouterr()
    assert "error: 400 InvalidImage" in captured.out
    assert f"{big} has 7,260,054 bytes, over 6,291,456: sent as JPEG of 2200 x 1100" in captured.err
    assert "latency" in captured.err


def test_no_local_server(dog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--local", f"localhost:{free_port()}", dog, dog) == 1
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert "start one with scripts/deploy.py --local" in captured.err
