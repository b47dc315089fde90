"""The callers' view of a running server: answers, errors, headers, and the lines of the log."""

import base64
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import both_engines_in_full, need
from tests.contract.models import CLASSES, picture, write_model
from tests.contract.serving import Server, access_lines, one_line, serving, until

LIMIT = 300_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2", "SAGEMAKER_MAX_REQUEST_SIZE": str(LIMIT)}
    with serving(write_model(folder / "model"), folder / "run", env) as running:
        yield running


def error(answer_body: bytes) -> tuple[int, str, str]:
    document = json.loads(answer_body)
    assert set(document) == {"code", "type", "message"}
    assert "Traceback" not in document["message"]
    assert ".py" not in document["message"]
    return document["code"], document["type"], document["message"]


@pytest.mark.parametrize("color", ["red", "lime", "blue"])
def test_a_picture_gets_its_classes_most_probable_first(server: Server, color: str) -> None:
    answer = server.invoke(picture(color))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    predictions = answer.json()["predictions"]
    assert predictions[0]["index"] == ["red", "lime", "blue"].index(color)
    assert predictions[0]["label"] == CLASSES[predictions[0]["index"]]
    assert predictions[0]["probability"] > 0.9
    assert sum(p["probability"] for p in predictions) == pytest.approx(1, abs=1e-5)
    assert answer.json()["model"]["architecture"] == "tiny"


def test_top_k_in_the_address_is_told_where_it_goes(server: Server) -> None:
    for query in ("top_k=1", "a=b&TOP_K=1", "top_k", "top_k=many&a"):
        answer = server.request("POST", f"/invocations?{query}", picture("red"), {"Content-Type": "image/jpeg"})
        assert (answer.status, answer.json()["type"]) == (400, "InvalidTopK"), query
        assert "X-Amzn-SageMaker-Custom-Attributes: top_k=3" in answer.json()["message"]
    for query in ("", "stop_k=1", "a=top_k", "trace=1"):
        answer = server.request("POST", f"/invocations?{query}", picture("red"), {"Content-Type": "image/jpeg"})
        assert answer.status == 200, query


def test_batches_and_top_k(server: Server) -> None:
    instances = [{"b64": base64.b64encode(picture(color, "PNG")).decode()} for color in ("red", "blue")]
    body = json.dumps({"instances": instances, "top_k": 1}).encode()
    answer = server.invoke(body, "application/json")
    assert [[p["label"] for p in row] for row in answer.json()["predictions"]] == [["red"], ["blue"]]
    answer = server.invoke(picture("blue"), X_Amzn_SageMaker_Custom_Attributes="top_k=2")
    assert len(answer.json()["predictions"]) == 2
    answer = server.invoke(picture("blue"), x_amzn_sagemaker_custom_attributes="top_k=1")
    assert len(answer.json()["predictions"]) == 1


def test_the_answer_has_the_type_that_was_asked_for(server: Server) -> None:
    csv = server.invoke(picture("red"), accept="text/csv")
    assert (csv.status, csv.headers["content-type"]) == (200, "text/csv")
    assert csv.body.startswith(b"0,0,red,0.99")
    lines = server.invoke(picture("red"), ACCEPT="application/jsonlines")
    assert (lines.status, lines.headers["content-type"]) == (200, "application/jsonlines")
    assert json.loads(lines.body)["predictions"][0]["label"] == "red"
    assert server.invoke(picture("red"), Accept="*/*").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "content_type", "headers", "status", "kind"),
    [
        (b"this is not a picture", "image/jpeg", {}, 400, "InvalidImage"),
        (picture("red")[:-300], "image/jpeg", {}, 400, "InvalidImage"),
        (b"", "image/jpeg", {}, 400, "EmptyBody"),
        (b"{", "application/json", {}, 400, "InvalidJSON"),
        (b'{"instances": "\xff"}', "application/json", {}, 400, "InvalidText"),
        (b"\x93NUMPY\x01\x00", "application/x-npy", {}, 415, "UnsupportedMediaType"),
        (picture("red"), "text/plain", {}, 415, "UnsupportedMediaType"),
        (picture("red"), "image/jpeg", {"Accept": "image/png"}, 406, "NotAcceptable"),
        (
            picture("red"),
            "image/jpeg",
            {"X-Amzn-SageMaker-Custom-Attributes": "top_k=many"},
            400,
            "InvalidTopK",
        ),
    ],
)
def test_what_the_caller_did_wrong_is_said_in_json(
    server: Server, body: bytes, content_type: str, headers: dict[str, str], status: int, kind: str
) -> None:
    answer = server.request("POST", "/invocations", body, {"Content-Type": content_type, **headers})
    assert answer.headers["content-type"] == "application/json"
    assert (answer.status, *error(answer.body)[:2]) == (status, status, kind)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run", {"BYOC_MAX_PIXELS": "1000"}) as server:
        answer = server.invoke(picture("red", size=(60, 40)))
        assert error(answer.body)[:2] == (400, "PixelLimit")
        assert server.invoke(picture("red", size=(30, 30))).status == 200


def curl(server: Server, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    need(shutil.which("curl"), "curl")
    url = f"http://127.0.0.1:{server.port}/invocations"
    command = ["curl", "-sS", "-w", "\n%{http_code}", *arguments, url]
    done = subprocess.run(command, input=stdin, capture_output=True, check=True)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def test_curl_without_a_content_type_is_told_which_header_to_send(server: Server, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(picture("red"))
    status, body = curl(server, "--data-binary", f"@{tmp_path}/dog.jpg")
    assert (status, *error(body)[:2]) == (415, 415, "UnsupportedMediaType")
    assert "-H 'Content-Type: image/jpeg'" in error(body)[2]
    status, body = curl(server, "-H", "Content-Type: image/jpeg", "--data-binary", f"@{tmp_path}/dog.jpg")
    assert (status, json.loads(body)["predictions"][0]["label"]) == (200, "red")


@pytest.mark.parametrize("extra", [[], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]])
def test_a_body_over_the_limit_is_refused(server: Server, tmp_path: Path, extra: list[str]) -> None:
    (tmp_path / "big").write_bytes(bytes(LIMIT + 1))
    arguments = ["-H", "Content-Type: image/jpeg", "--data-binary", f"@{tmp_path}/big", *extra]
    status, body = curl(server, *arguments)
    assert (status, *error(body)[:2]) == (413, 413, "PayloadTooLarge")
    assert str(LIMIT) in error(body)[2]
    (tmp_path / "big").write_bytes(picture("red") + bytes(LIMIT - 1000))
    status, body = curl(server, *arguments)
    assert (status, json.loads(body)["predictions"][0]["label"]) == (200, "red")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/models", 404),
        ("POST", "/models?url=/tmp", 404),
        ("GET", "/models/model", 404),
        ("PUT", "/models/model", 404),
        ("DELETE", "/models/model", 404),
        ("OPTIONS", "/", 404),
        ("GET", "/api-description", 404),
        ("POST", "/predictions/model", 404),
        ("POST", "/model/predict", 404),
        ("GET", "/", 404),
        ("GET", "/invocations", 405),
    ],
)
def test_nothing_else_can_be_reached_on_the_port(server: Server, method: str, path: str, status: int) -> None:
    answer = server.request(method, path)
    assert (answer.status, error(answer.body)[0]) == (status, status)
    assert server.invoke(picture("red")).status == 200


def test_nothing_else_listens(server: Server) -> None:
    processes = [server.java(), *server.python()]
    listening = {c.laddr.port for p in processes for c in p.net_connections(kind="inet") if c.status == "LISTEN"}
    assert listening == {server.port}
    assert not (next(server.tmp.iterdir()) / "management.sock").exists()


def test_execution_parameters_for_batch_transform(server: Server) -> None:
    answer = server.request("GET", "/execution-parameters")
    assert answer.json() == {
        "MaxConcurrentTransforms": 2,
        "BatchStrategy": "SINGLE_RECORD",
        "MaxPayloadInMB": 1,  # the limit of this test's server is below one, but 0 would mean none
    }


def test_every_answer_has_a_line_in_the_log_with_its_id(server: Server) -> None:
    for name, value in (("X-Amzn-SageMaker-Inference-Id", "mine-1"), ("x-amzn-requestid", "mine-2")):
        answer = server.request("POST", "/invocations", picture("red"), {"Content-Type": "image/jpeg", name: value})
        assert answer.headers["x-request-id"] == value
    own = server.invoke(picture("red")).headers["x-request-id"]
    bad = server.request("POST", "/invocations", b"no", {"Content-Type": "image/png", "X-Request-Id": "mi ne"})
    assert bad.status == 400
    until(lambda: any(line["id"] == "mi?ne" for line in access_lines(server)), "the last line", 10)
    lines = {line["id"]: line for line in access_lines(server)}
    for key in ("mine-1", "mine-2", own):
        line = lines[key]
        assert (line["method"], line["path"], line["status"]) == ("POST", "/invocations", "200")
        assert int(line["received"]) == len(picture("red"))
        assert int(line["sent"]) > 100
        assert 0 < float(line["decode_ms"]) < float(line["total_ms"])
        assert 0 < float(line["model_ms"]) < float(line["total_ms"])
    assert lines["mi?ne"]["status"] == "400"
    assert not [line for line in access_lines(server) if line["path"] == "/ping"]


def test_the_log_has_one_format_and_leaves_no_files(server: Server) -> None:
    shape = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) \w+: .")
    assert [line for line in server.log().splitlines() if not shape.match(line)] == []
    assert server.err.read_text() == ""
    assert sorted(path.name for path in server.out.parent.iterdir()) == ["err.log", "out.log"]


def test_requests_on_one_connection_are_answered_in_order(server: Server) -> None:
    def raw(color: str) -> bytes:
        body = picture(color)
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode() + body

    colors = ["red", "blue", "lime", "blue", "red", "lime"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"".join(map(raw, colors)) + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = b""
        while b'"in_flight"' not in answers and (chunk := connection.recv(65536)):
            answers += chunk
    found = re.findall(rb'\[\{"index": \d, "label": "(\w+)"', answers)
    assert [label.decode() for label in found] == [{"lime": "green"}.get(c, c) for c in colors]


@pytest.mark.parametrize(
    "head", ["GET /ping HTTP/1.0\r\n\r\n", "GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"]
)
def test_a_connection_is_closed_for_those_who_ask_for_it(server: Server, head: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert b" 200 OK\r\n" in answer
    assert b'"in_flight"' in answer


@pytest.mark.parametrize("path", ["/ping", "/execution-parameters"])
def test_http_1_0_is_told_that_the_connection_stays(server: Server, path: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(f"GET {path} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".encode())
            answer = b""
            while b"}\n" not in answer:
                answer += connection.recv(65536)
            assert re.search(rb"(?i)\r\nconnection: keep-alive\r\n", answer), answer


@pytest.mark.parametrize(("line", "why"), [("GET /ping?" + "x" * 5000, "4 KB"), ("GET /ping", "8 KB")])
def test_what_is_too_long_is_said(server: Server, line: str, why: str) -> None:
    answer = server.request("GET", line[4:], headers={"X": "y" * 9000} if why == "8 KB" else {})
    assert answer.status == 400
    assert why in error(answer.body)[2]
    with socket.create_connection(("127.0.0.1", server.port), timeout=8) as connection:
        connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nX: {'y' * 9000}\r\n\r\n".encode())
        while connection.recv(65536):  # until the server has closed the connection, for which it waits for nothing
            pass


def test_what_is_not_http_gets_400(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert error(answer.partition(b"\r\n\r\n")[2])[:2] == (400, "BadRequest")


def test_workers_compute_with_the_threads_they_were_given(tmp_path: Path) -> None:
    env = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "BYOC_THREADS": "2"}
    with serving(write_model(tmp_path / "model"), tmp_path / "run", env) as server:
        for process in server.python():
            environ = process.environ()
            assert {environ[f"{key}_NUM_THREADS"] for key in ("OMP", "MKL", "OPENBLAS")} == {"2"}
        assert "1 worker(s) with 2 thread(s) each" in server.log()


def test_log_level(tmp_path: Path) -> None:
    with serving(write_model(tmp_path / "model"), tmp_path / "run", {"SAGEMAKER_CONTAINER_LOG_LEVEL": "40"}) as server:
        assert server.invoke(picture("red")).status == 200
        assert server.stop() == 0
        assert server.log() == ""


@both_engines_in_full
def test_a_taken_port_is_said(server: Server, tmp_path: Path, kind: str) -> None:
    model = write_model(tmp_path / "model")
    with serving(model, tmp_path / "run", ready=False, port=server.port, kind=kind) as second:
        assert second.process.wait(60) == 1
        assert f"port {server.port}: Address already in use" in one_line(second.err.read_text())
    assert server.invoke(picture("red")).status == 200


def test_two_servers_side_by_side(server: Server, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", classes=("r", "g", "b"))
    with serving(model, tmp_path / "run", {"TMPDIR": str(server.tmp)}) as second:
        assert second.invoke(picture("red")).json()["predictions"][0]["label"] == "r"
        assert server.invoke(picture("red")).json()["predictions"][0]["label"] == "red"
        assert second.stop() == 0
    assert server.invoke(picture("red")).json()["predictions"][0]["label"] == "red"
