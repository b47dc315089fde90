"""Requests as clients of the field send them, to one server whose folder looks as theirs do."""

import base64
import csv
import io
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from container_serve import artifact
from tests.conftest import need
from tests.contract.models import picture, write_model
from tests.contract.serving import Answer, Server, serving
from tests.faults.client import everything

JPEG = picture("red")
LINES = "application/jsonlines"


@pytest.fixture(scope="module", params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The folder is that of the SDKs' local modes: packed files lie beside the unpacked ones."""
    folder = tmp_path_factory.mktemp("serve")
    model = write_model(folder / "model")
    described = artifact.read(model)
    (model / artifact.WEIGHTS).write_bytes(b"weights")
    artifact.write(
        model, classes=described.classes, architecture="tiny", preprocessing=described.preprocessing, precision="fp32"
    )
    (model / artifact.WEIGHTS).unlink()
    (model / "__MACOSX").mkdir()
    for name in ("model.tar.gz", "output.tar.gz", ".DS_Store", "._model.json", "Thumbs.db", "README.md", "__MACOSX/a"):
        (model / name).write_bytes(b"not a model's")
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2"}
    with serving(model, folder / "run", env, kind=request.param) as running:
        yield running


def b64(body: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(body).decode()}


def ask(server: Server, *instances: bytes, **headers: str) -> Answer:
    body = json.dumps({"instances": [b64(each) for each in instances]}).encode()
    return server.invoke(body, "application/json", **headers)


def label(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json()["predictions"][0]["label"])


def refusal(answer: Answer) -> tuple[int, str, str]:
    document = answer.json()
    assert set(document) == {"code", "type", "message"}
    assert answer.status == document["code"]
    return answer.status, document["type"], document["message"]


def noise_jpeg() -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def test_files_beside_the_model_are_named_and_a_model_without_training_weights_is_served(server: Server) -> None:
    assert label(server.invoke(JPEG)) == "red"
    log = server.log()
    assert log.count("not listed in model.json, and not used: README.md, model.tar.gz, output.tar.gz (") == 1
    assert log.count("model.pth: missing; the model can be served, but not trained further") == 1


# --- what is asked for ---


def test_what_nobody_can_be_given_is_refused_before_anything_is_computed(server: Server) -> None:
    answer = server.invoke(JPEG, Accept="image/png")
    assert refusal(answer)[:2] == (406, "NotAcceptable")
    assert "model" not in answer.headers["server-timing"]
    assert "model" in server.invoke(JPEG).headers["server-timing"]
    assert server.invoke(b"no picture", Accept="image/png").status == 406  # nor is it looked at


def test_several_lines_of_accept_count_together(server: Server) -> None:
    for accepts, kind in (
        (["text/html", "text/csv"], "text/csv"), (["image/png", "*/*;q=0.1"], "application/json"),
        (["text/csv;q=0.5", LINES], LINES),
    ):  # fmt: skip
        lines = "".join(f"Accept: {accept}\r\n" for accept in accepts)
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: image/jpeg\r\n{lines}"
        raw = f"{head}Content-Length: {len(JPEG)}\r\n\r\n".encode() + JPEG
        received, _ = everything(server.port, raw)
        assert received.startswith(b"HTTP/1.1 200 "), received
        assert f"content-type: {kind}\r\n".encode() in received


# --- several pictures ---


def test_a_batch_of_one_has_the_shape_of_every_batch(server: Server) -> None:
    one, two = ask(server, JPEG).json(), ask(server, JPEG, picture("blue", "PNG")).json()
    assert [[row[0]["label"] for row in answer["predictions"]] for answer in (one, two)] == [["red"], ["red", "blue"]]
    assert server.invoke(JPEG).json()["predictions"][0]["label"] == "red"  # not sent as a list: no list of lists


def test_a_bad_picture_has_its_error_in_its_place(server: Server) -> None:
    bad = [b"no picture", JPEG[:200]]
    answer = ask(server, JPEG, bad[0], picture("blue"), bad[1])
    assert answer.status == 200
    first, error, third, other = answer.json()["predictions"]
    assert (first[0]["label"], third[0]["label"]) == ("red", "blue")
    for each in (error, other):
        assert set(each) == {"error"}
        assert (each["error"]["code"], each["error"]["type"]) == (400, "InvalidImage")
    assert "the body is not an image" in error["error"]["message"]
    assert [set(row) for row in ask(server, *bad).json()["predictions"]] == [{"error"}, {"error"}]
    rows = list(csv.reader(io.StringIO(ask(server, bad[0], JPEG, Accept="text/csv").body.decode())))
    assert rows[0][:2] + rows[0][3:] == ["0", "", ""]
    assert rows[0][2].startswith("InvalidImage: instances[0]: the body is not an image")
    assert rows[1][:3] == ["1", "0", "red"]
    lines = ask(server, bad[0], JPEG, Accept=LINES).body.split(b"\n")
    assert [list(json.loads(line)) for line in lines] == [["error", "model"], ["predictions", "model"]]


def test_lines_are_answered_with_lines(server: Server) -> None:
    """As batch transform sends several records, and assembles what comes back."""
    colors = ["red", "lime", "blue"] * 50  # more than are computed at a time
    records = [json.dumps(b64(picture(color))).encode() for color in colors]
    records[7], records[8] = b"not a record", json.dumps(b64(b"no picture")).encode()
    records[70] = json.dumps({"instances": [b64(picture("red"))]}).encode()  # as a body of its own would be
    expected: list[str | None] = [{"lime": "green"}.get(color, color) for color in colors]
    expected[7:9], expected[70] = [None, None], "red"
    for ending in (b"", b"\n"):
        answer = server.invoke(b"\n".join(records) + ending, LINES)
        assert (answer.status, answer.headers["content-type"]) == (200, LINES)
        found = [json.loads(line) for line in answer.body.split(b"\n")]
        assert [line["predictions"][0]["label"] if "predictions" in line else None for line in found] == expected
        messages = [found[i]["error"]["message"] for i in (7, 8)]
        assert [message.partition(": ")[0] for message in messages] == ["line 8", "line 9"]
    answer = server.invoke(b"\n".join(records), "application/x-ndjson", Accept="text/csv")
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert sorted({int(row[0]) for row in rows}) == list(range(len(records)))
    assert next(row[2] for row in rows if row[0] == "149") == "blue"
    rows = server.invoke(b"\n".join(records), LINES, Accept="application/json").json()["predictions"]
    assert [row[0]["label"] if "error" not in row else None for row in rows] == expected


@pytest.mark.parametrize("strategy", ["MultiRecord", "SingleRecord"])
@pytest.mark.parametrize("accept", [None, "*/*;q=0.8", LINES, "text/csv"])
def test_a_file_of_records_becomes_a_file_of_as_many_answers(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, accept: str | None
) -> None:
    """Split, padded and assembled as the SDK's local mode does it."""
    monkeypatch.setenv("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
    from sagemaker.local.data import get_batch_strategy_instance, get_splitter_instance

    colors = ["red", "blue", "lime", "blue"]
    records = [json.dumps(b64(picture(color))) for color in colors]
    records[2] = json.dumps(b64(b"no picture"))
    (tmp_path / "records.jsonl").write_text("".join(f"{record}\n" for record in records))
    payloads = get_batch_strategy_instance(strategy, get_splitter_instance("Line")).pad(
        str(tmp_path / "records.jsonl"), 1
    )
    headers = {"Accept": accept} if accept else {}
    answers = [server.invoke(payload.encode(), LINES, **headers) for payload in payloads]
    assert [answer.status for answer in answers] == [200] * (1 if strategy == "MultiRecord" else 4)
    assembled = b"".join(answer.body + b"\n" for answer in answers).decode().removesuffix("\n").split("\n")
    if accept == "text/csv":
        rows = list(csv.reader(assembled))
        first = [row[2].partition(":")[0] for row in rows if row[3] == "" or float(row[3]) > 0.5]
        assert first == ["red", "blue", "InvalidImage", "blue"]
        assert len(rows) == 3 + 3 + 1 + 3  # three classes each, and an error
    else:
        found = [json.loads(line) for line in assembled]
        labels = [line["predictions"][0]["label"] if "predictions" in line else line["error"]["type"] for line in found]
        assert labels == ["red", "blue", "InvalidImage", "blue"]


def test_answers_assembled_by_lines_have_no_empty_ones(server: Server) -> None:
    for accept in ("text/csv", LINES):
        assembled = b"".join(server.invoke(JPEG, Accept=accept).body + b"\n" for _ in range(3))
        assert assembled.count(b"\n") == (9 if accept == "text/csv" else 3)  # three classes
        assert b"\n\n" not in assembled


def test_batch_transform_is_told_what_it_may_send(server: Server) -> None:
    parameters = server.request("GET", "/execution-parameters").json()
    assert parameters == {"MaxConcurrentTransforms": 2, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2}
    assert server.invoke(JPEG + bytes(2 * 2**20 - len(JPEG))).status == 200  # more than the service's other limits
    assert server.invoke(bytes(2 * 2**20 + 1)).status == 413


# --- types of bodies ---


@pytest.mark.parametrize("second", ["application/json", "image/jpeg", "text/csv"])
def test_two_content_types_are_told_to_be_two(server: Server, second: str) -> None:
    head = f"POST /invocations HTTP/1.1\nHost: x\nConnection: close\nContent-Length: {len(JPEG)}\n"
    status, received = exchange(server, f"{head}Content-Type: image/jpeg; a=b\ncontent-type: {second}\n", JPEG)
    assert status == 415
    assert b"There are 2 Content-Type headers: send one, that of the body." in received


def test_an_image_in_base64_is_told_to_be_that(server: Server) -> None:
    text = base64.b64encode(JPEG)
    for body in (text, b"data:image/jpeg;base64," + text):
        assert "it is base64: send its bytes, or JSON" in refusal(server.invoke(body))[2]
    assert "base64" not in refusal(server.invoke(b"no image"))[2]


def test_a_status_has_its_phrase(server: Server) -> None:
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(JPEG)}\r\n\r\n"
    assert everything(server.port, head.encode() + JPEG)[0].startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_coding_in_a_second_line_is_seen_too(server: Server) -> None:
    head = f"POST /invocations HTTP/1.1\nHost: x\nConnection: close\nContent-Length: {len(JPEG)}\n"
    codings = "Content-Encoding: identity\ncontent-encoding: gzip\n"
    assert exchange(server, f"{head}Content-Type: image/jpeg\n{codings}", JPEG)[0] == 415


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "gzip, identity"])
def test_a_coded_body_is_refused_by_its_header(server: Server, coding: str) -> None:
    status, kind, message = refusal(server.invoke(JPEG, Content_Encoding=coding))
    assert (status, kind) == (415, "UnsupportedMediaType")
    assert "Content-Encoding" in message
    assert label(server.invoke(JPEG, Content_Encoding="identity")) == "red"


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8", "text/plain", "image/heic", "audio/mpeg"])
def test_a_picture_of_another_type_is_415(server: Server, kind: str) -> None:
    status, name, message = refusal(server.invoke(JPEG, kind))
    assert (status, name) == (415, "UnsupportedMediaType")
    assert kind.partition(";")[0] in message


@pytest.mark.parametrize(
    "kind",
    ["binary/octet-stream", "image/pjpeg", "image/x-ms-bmp", "image/jpg", "image/x-png", "IMAGE/JPEG; q=1", "image/*",
     "image/jfif", "image/tif"],
)  # fmt: skip
def test_names_that_programs_have_for_pictures_are_taken(server: Server, kind: str) -> None:
    form = {"image/x-ms-bmp": "BMP", "image/x-png": "PNG", "image/tif": "TIFF"}.get(kind, "JPEG")
    assert label(server.invoke(picture("blue", form), kind)) == "blue"


def test_a_file_in_a_form_is_answered(server: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.port}/invocations"
    (tmp_path / "dog.jpg").write_bytes(JPEG)
    noise = noise_jpeg()
    with (tmp_path / "dog.jpg").open("rb") as opened:
        files: list[Any] = [opened, JPEG, ("ä.jpg", JPEG, "image/jpeg"), ("x", JPEG, "image/pjpeg")]
        files += [("x.jpg", JPEG, "multipart/form-data"), ("x.jpg", JPEG, "image/*")]  # as Android's clients name it
        for file in files:
            answer = requests.post(url, files={"image": file}, timeout=60)
            assert (answer.status_code, answer.json()["predictions"][0]["label"]) == (200, "red"), answer.text
    # Every byte of it arrives.
    form = requests.post(url, files={"image": noise}, timeout=60).json()
    assert form == requests.post(url, noise, headers={"Content-Type": "image/jpeg"}, timeout=60).json()
    document = json.dumps({"instances": [b64(JPEG)], "top_k": 1})
    answer = requests.post(url, files={"f": ("x.json", document, "application/json")}, timeout=60)
    assert [[each["label"] for each in row] for row in answer.json()["predictions"]] == [["red"]]
    need(shutil.which("curl"), "curl")
    done = subprocess.run(["curl", "-sS", "-F", f"file=@{tmp_path}/dog.jpg", url], capture_output=True, check=True)
    assert json.loads(done.stdout)["predictions"][0]["label"] == "red"


def test_any_other_form_is_told_what_is_expected(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/invocations"

    def refused(**form: Any) -> None:
        answer = requests.post(url, timeout=60, **form)
        assert (answer.status_code, answer.json()["type"]) == (400, "InvalidForm"), answer.text
        assert "expected a whole form of one file with its name" in answer.json()["message"]

    refused(files={"a": JPEG, "b": JPEG})
    refused(files={"a": JPEG}, data={"top_k": "3"})
    refused(files={"a": (None, "text")})
    boundary = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in (b"", b"x", b"--b", b"--b--\r\n", b"--b\r\n\r\n\r\n--b--", b"--b\r\nContent-Disposition: form-data"):
        refused(data=body, headers=boundary)
    refused(data=JPEG, headers={"Content-Type": "multipart/form-data"})
    nested = {"f": ("x", b"a=1", "application/x-www-form-urlencoded")}
    assert requests.post(url, files=nested, timeout=60).status_code == 415
    for other in ("multipart/mixed", "multipart/form-datax"):
        mixed = requests.post(url, b"--b--", headers={"Content-Type": f"{other}; boundary=b"}, timeout=60)
        assert mixed.status_code == 415
    assert label(server.invoke(JPEG)) == "red"


# --- pictures ---


def test_a_jpeg_without_its_end_is_answered_as_the_whole_one(server: Server) -> None:
    whole = noise_jpeg()
    assert whole.endswith(b"\xff\xd9")
    assert server.invoke(whole[:-2]).json() == server.invoke(whole).json()
    assert refusal(server.invoke(whole[:-200]))[:2] == (400, "InvalidImage")


def test_avif_is_read_and_heic_is_named(server: Server) -> None:
    avif = picture("blue", "AVIF")
    for kind in ("image/avif", "application/octet-stream"):
        assert label(server.invoke(avif, kind)) == "blue"
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    for kind in ("image/jpeg", "application/octet-stream"):
        status, name, message = refusal(server.invoke(heic, kind))
        assert (status, name) == (415, "UnsupportedMediaType")
        assert "HEIC" in message


def test_cmyk_without_adobe_s_marker(server: Server) -> None:
    from tests.container_serve.test_image import cmyk_files

    answers = [server.invoke(body).json()["predictions"] for name, body in cmyk_files().items() if name != "ycck"]
    assert answers[0] == answers[1]
    assert answers[0][0]["label"] == "red"


# --- HTTP ---


def exchange(server: Server, head: str, body: bytes = b"") -> tuple[int, bytes]:
    received, _ = everything(server.port, head.replace("\n", "\r\n").encode() + b"\r\n" + body, quiet=1)
    return int(received.split(b" ", 2)[1]), received


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
def test_what_ping_does_not_take_is_405_with_what_it_does(server: Server, method: str) -> None:
    answer = server.request(method, "/ping", b"")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_slash_at_the_end_of_a_path_changes_nothing(server: Server) -> None:
    answer = server.request("POST", "/invocations/", JPEG, {"Content-Type": "image/jpeg"})
    assert label(answer) == "red"
    assert server.request("GET", "/ping/").status == 200
    assert server.request("GET", "/execution-parameters/").status == 200
    assert [server.request("GET", path).status for path in ("/", "/invocations//", "//ping")] == [404, 400, 400]


@pytest.mark.parametrize("host", ["http://127.0.0.1", "http://localhost:8080", "HTTP://example.com", "https://[::1]:1"])
def test_the_absolute_form_of_a_target(server: Server, host: str) -> None:
    assert exchange(server, f"GET {host}/ping HTTP/1.1\nHost: x\nConnection: close\n")[0] == 200
    head = f"POST {host}/invocations HTTP/1.1\nHost: x\nContent-Type: image/jpeg\nContent-Length: {len(JPEG)}\n"
    assert exchange(server, f"{head}Connection: close\n", JPEG)[0] == 200


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ("Host: x\n", 200), ("Host: 127.0.0.1:8080\n", 200), ("Host: [::1]:8080\n", 200), ("Host:\n", 200),
        ("host: A_b.example\n", 200), ("", 400), ("Host: x\nHost: x\n", 400), ("Host: x\nhost: y\n", 400),
        ("Host: x, y\n", 400), ("Host: x y\n", 400), ("Host: x:y\n", 400), ("Host: http://x\n", 400),
    ],
)  # fmt: skip
def test_a_request_names_one_host(server: Server, hosts: str, status: int) -> None:
    assert exchange(server, f"GET /ping HTTP/1.1\n{hosts}Connection: close\n")[0] == status
    if not hosts:
        assert exchange(server, "GET /ping HTTP/1.0\n")[0] == 200  # from before there were any


def test_http_1_0_keeps_its_connection(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for _ in range(3):
            connection.sendall(b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = b""
            while b"}\n" not in answer:
                answer += connection.recv(65536)
            assert b"\r\nconnection: keep-alive\r\n" in answer.lower()


def test_the_server_listens_on_ipv6_where_there_is_any(server: Server) -> None:
    need(socket.has_dualstack_ipv6() and Path("/proc/net/if_inet6").exists(), "IPv6")
    with socket.create_connection(("::1", server.port), timeout=60) as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
