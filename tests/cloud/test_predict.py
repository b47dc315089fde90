"""predict.py against moto's endpoint, and against the real server on this machine."""

import io
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from boto3 import Session
from PIL import Image

from container_serve.codec import requests as codec
from scripts import predict
from scripts.endpoints import images
from scripts.endpoints.invocations import EndpointTarget
from tests import web
from tests.cloud.answers import error, give
from tests.cloud.conftest import REGION, Call
from tests.conftest import Patch
from tests.contract.models import picture, write_model
from tests.contract.serving import Server, free_port, serving, until

ANSWER = {
    "predictions": [
        {"index": 1, "label": "Beagle", "probability": 0.75},
        {"index": 0, "label": "Affenpinscher", "probability": 0.2},
    ],
    "model": {"architecture": "resnet50", "precision": "fp32", "sha256": "0f3c6a52b1de"},
}
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)
PAGE = "<!DOCTYPE html>\n<html><body>Sign in</body></html>"


@pytest.fixture
def dog(tmp_path: Path) -> Path:
    path = tmp_path / "dog.jpg"
    path.write_bytes(picture("red"))
    return path


# At an endpoint


def answer(content: bytes, kind: str) -> dict[str, Any]:
    """InvokeEndpoint's, whose body may be read for every request."""
    return {"Body": SimpleNamespace(read=lambda: content), "ContentType": kind}


GOOD = answer(json.dumps(ANSWER).encode(), "application/json")


@pytest.fixture
def sent(aws: Session, monkeypatch: Patch) -> list[dict[str, Any]]:
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


def test_the_golden_request(sent: list[dict[str, Any]], dog: Path, call: Call) -> None:
    assert predict.MAX_TOP_K == codec.MAX_TOP_K
    ended = call(predict, "byoc-dogs", dog, "--top-k", 2)
    assert ended.code == 0
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
    heads, _, first, second = ended.out.splitlines()
    assert heads.split() == ["image", "ms", "probability", "label"]
    assert (first.split()[0], first.split()[2:]) == (str(dog), ["0.750", "Beagle"])
    assert second.split() == ["0.200", "Affenpinscher"]


def test_every_image_of_a_folder_is_asked_about(sent: list[dict[str, Any]], tmp_path: Path, call: Call) -> None:
    """Whatever its suffix; one that the server does not take is an image without an answer."""
    folder = tmp_path / "images" / "deep"
    folder.mkdir(parents=True)
    for name in ("a.jfif", "b.txt", "noext"):
        (folder / name).write_bytes(picture("red", "PNG"))
    (folder / "phone.HEIC").write_bytes(HEIC)
    (folder / "notes.md").write_text("not an image")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    ended = call(predict, "byoc-dogs", tmp_path / "images", "--json")
    assert (ended.code, ended.last) == (1, "predict.py: 1 of 4 predictions failed")
    assert ended.err.startswith(f"not used: 1 file ({folder / 'notes.md'}), no images of a kind that is read\n")
    *found, phone = ended.json["results"]
    assert [Path(result["image"]).name for result in found] == ["a.jfif", "b.txt", "noext"]
    assert all(result["predictions"] == ANSWER["predictions"] for result in found)
    assert "is a HEIC image, which the server does not take" in phone["error"]
    assert 0 < ended.json["latency_ms"]["p50"] <= ended.json["latency_ms"]["p90"]
    assert [request["ContentType"] for request in sent] == ["image/png"] * 3


@pytest.mark.usefixtures("aws")
def test_one_refused_image_does_not_stop_the_others(dog: Path, tmp_path: Path, monkeypatch: Patch, call: Call) -> None:
    body = json.dumps({"code": 400, "type": "InvalidImage", "message": "the JPEG image is broken or truncated"})
    refused = error("ModelError", "Received client error (400)", OriginalStatusCode=400, OriginalMessage=body)
    server_error = error("ModelError", "Received server error", OriginalStatusCode=500, OriginalMessage=PAGE)
    other = answer(b"body", "text/plain")
    give(monkeypatch, "InvokeEndpoint", refused, server_error, other, GOOD)
    paths = [dog, dog, dog, tmp_path / "gone.jpg", dog]
    ended = call(predict, "byoc-dogs", *paths, "--json", "--threads", 1).says("4 of 5 predictions failed", code=1)
    results = ended.json["results"]
    assert [result["image"] for result in results] == [str(path) for path in paths]
    errors = [result.get("error") for result in results]
    assert errors == [
        "400 InvalidImage: the JPEG image is broken or truncated",
        "500 a web page, not JSON",
        "the answer is not of this project's form: b'body'",
        "No such file or directory",
        None,
    ]
    assert results[4]["predictions"] == ANSWER["predictions"]
    assert call(predict, "byoc-dogs", tmp_path / "gone.jpg", "--json").json["latency_ms"] is None


NOT_FOUND = error("ValidationError", "Endpoint byoc-dogs of account 123456789012 not found.")
CREATING = {"EndpointName": "byoc-dogs", "EndpointArn": "a" * 20, "EndpointStatus": "Creating"}


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("answer", "described", "complaint"),
    [
        (NOT_FOUND, error("ValidationException", 'Could not find endpoint "byoc-dogs".'),
            f"there is no endpoint byoc-dogs in {REGION}: check the name and --region"),
        (NOT_FOUND, CREATING,
            f"byoc-dogs is Creating; wait for it with scripts/deploy.py --attach byoc-dogs --region {REGION}"),
        (NOT_FOUND, error("AccessDeniedException", "not authorized to perform: sagemaker:DescribeEndpoint"),
            "Endpoint byoc-dogs of account 123456789012 not found."),
        (error("AccessDeniedException", "not authorized"), None, "scripts/iam/scripts.json"),
        (error("ExpiredTokenException", "expired"), None, "aws sso login"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_all_requests_is_said_once(
    dog: Path, monkeypatch: Patch, call: Call, answer: Any, described: Any, complaint: str
) -> None:
    give(monkeypatch, "InvokeEndpoint", answer)
    give(monkeypatch, "DescribeEndpoint", described)
    ended = call(predict, "byoc-dogs", dog, dog, dog)
    assert (ended.code, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert complaint in line


@pytest.mark.parametrize(("status", "said"), [(200, "project's form: b'<html>"), (404, "404 a web page, not JSON")])
def test_a_web_server_that_is_not_ours(dog: Path, status: int, said: str, call: Call) -> None:
    class Pages(web.Handler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html><body>welcome</body></html>")

    with web.serving(Pages) as url:
        ended = call(predict, "--local", url, dog)
    assert (ended.code, said in ended.out) == (1, True)


def test_a_server_that_does_not_speak_http(dog: Path, call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")
                while connection.recv(1 << 16):
                    pass

        threading.Thread(target=greet, daemon=True).start()
        ended = call(predict, "--local", f"http://127.0.0.1:{server.getsockname()[1]}", dog)
    assert (ended.code, "SSH-2.0-OpenSSH" in ended.last, "correct the URL" in ended.last) == (1, True, True)


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
    assert "20,000 pixels, over 5,000" in (body.notice or "")
    Image.new("L", (30_000, 2_000), 128).save(tmp_path / "panorama.png")  # 60 megapixels
    with Image.open(io.BytesIO(images.prepare(tmp_path / "panorama.png").content)) as scaled:
        assert scaled.height > 800  # what a classifier looks at is still there


def png_of(width: int, height: int) -> bytes:
    """The part of a PNG file before its pixels."""
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
def test_a_local_server_answers(server: Server, tmp_path: Path, address: str, call: Call) -> None:
    paths = []
    for label, colour in {"red": "red", "green": "lime", "blue": "blue"}.items():
        paths.append(tmp_path / f"{label}.png")
        paths[-1].write_bytes(picture(colour, "PNG"))
    ended = call(predict, "--local", address.format(server.port), *paths, "--json", "--top-k", 1)
    assert ended.code == 0
    assert [[row["label"] for row in result["predictions"]] for result in ended.json["results"]] == [
        [path.stem] for path in paths
    ]
    line = "-1-red.png POST /invocations status=200"
    until(lambda: line in server.log(), "the line of an answer in the log", 5)


def test_a_local_servers_refusal_and_a_picture_over_its_limit(server: Server, tmp_path: Path, call: Call) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(picture("red", "JPEG", (600, 400))[:-400])
    big = noise(tmp_path / "big.bmp", "BMP", 1100)  # 7.3 MB
    ended = call(predict, "--local", f"localhost:{server.port}", cut, big)
    assert (ended.code, "error: 400 InvalidImage" in ended.out) == (1, True)
    assert f"{big} has 7,260,054 bytes, over 6,291,456: sent as JPEG of 2200 x 1100" in ended.err
    assert "latency" in ended.err


def test_no_local_server(dog: Path, call: Call) -> None:
    ended = call(predict, "--local", f"localhost:{free_port()}", dog, dog)
    (line,) = ended.err.splitlines()
    assert (ended.code, "start one with scripts/deploy.py --local" in line) == (1, True)
